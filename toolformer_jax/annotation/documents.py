"""Texts that a caller passes, as documents."""

import dataclasses
from collections.abc import Iterable, Iterator

from toolformer_jax.data.content_hash import stable_hash
from toolformer_jax.data.records import Document
from toolformer_jax.errors import UserError

AnyTexts = str | Document | Iterable[str | Document]


def as_documents(texts: AnyTexts) -> Iterator[Document]:
  """Yields texts as documents; strings get the ids `text-0`, `text-1`, ... by their index.

  Args:
    texts: one text, or several; each a string or a Document.

  Raises:
    UserError: one of them is neither a string nor a Document.
  """
  for number, text in enumerate([texts] if isinstance(texts, str | Document) else texts):
    if isinstance(text, str):
      yield Document(f'text-{number}', str(text))
    elif isinstance(text, Document):
      yield text
    else:
      raise UserError(f'text {number} is of type {type(text).__name__}; it must be a string or a '
                      'Document')


def hash_of_documents(documents: Iterable[Document]) -> str:
  """Returns a hash of the content and the order of `documents`, in hexadecimal."""
  return stable_hash(*(repr(dataclasses.astuple(document)) for document in documents)).hex()
