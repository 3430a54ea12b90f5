"""Converts a caller's texts to documents that are short enough to annotate."""

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator

from toolformer_jax.annotation.preselect import preselect
from toolformer_jax.calls import CallSyntax
from toolformer_jax.data.content_hash import stable_hash
from toolformer_jax.data.records import Document
from toolformer_jax.data.split import split_document
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.processes import map_in_order
from toolformer_jax.tokenizer import Tokenizer

_DOCUMENTS_AT_ONCE = 256  # that a process gets: fewer documents are not worth its start

AnyTexts = str | Document | Iterable[str | Document]


def as_documents(texts: AnyTexts) -> Iterator[Document]:
  """Yields texts as documents; strings get the ids `text-0`, `text-1`, ... by their index.

  Args:
    texts: one text, or several; each a string or a Document.

  Raises:
    UserError: one of them is neither a string nor a Document.
  """
  if not isinstance(texts, Document | Iterable):
    raise UserError(f'the documents are of type {type(texts).__name__}; they must be a string, a '
                    'Document, or several of them')
  for number, text in enumerate([texts] if isinstance(texts, str | Document) else texts):
    if isinstance(text, str):
      yield Document(f'text-{number}', str(text))
    elif isinstance(text, Document) and isinstance(text.text, str):
      yield text
    elif isinstance(text, Document):
      raise UserError(f'the text of the document {text.id!r} is of type '
                      f'{type(text.text).__name__}; it must be a string')
    else:
      raise UserError(f'text {number} is of type {type(text).__name__}; it must be a string or a '
                      'Document')


def documents_fingerprint(documents: Iterable[Document]) -> str:
  """Returns a hash of the content and the order of `documents`, in hexadecimal."""
  return stable_hash(*map(_fingerprint, documents)).hex()


def _fingerprint(document: Document) -> str:
  """Returns a text that is the same for equal documents; it is as it was before there were media.
  """
  fields = (document.id, document.text, document.url, document.title, document.date,
            document.source)
  media = [(medium.path, medium.sha256) for medium in document.media]
  return repr(fields + (media,) if media else fields)


def split_and_filter(
    documents: Iterable[Document], counts: Counter, *, tokenizer: Tokenizer, syntax: CallSyntax,
    max_tokens: int, heuristics: Collection[str], seed: int,
) -> Iterator[tuple[Document, set[str]]]:
  """Yields documents of at most `max_tokens` tokens, which calls can be inserted into.

  With each come the names of the tools whose heuristic selects it, or a part of it.

  Longer documents are split. Documents are dropped that have something that reads as a call to any
  tool already, or as the beginning of one, or characters that the tokens of the model do not spell:
  after annotation, the text could not be restored by removing the calls.

  Args:
    documents: the corpus.
    counts: gets the numbers of documents that are read, split, dropped and yielded.
    tokenizer: of the model.
    syntax: how calls are written.
    max_tokens: largest number of tokens of a document.
    heuristics: the tools for which the heuristics of preselection judge whole documents.
    seed: of the heuristics.

  Raises:
    UserError: two documents have the same id.
  """
  ids: set[str] = set()
  ids_of_pieces: set[str] = set()
  judge = functools.partial(_pieces, tokenizer=tokenizer, max_tokens=max_tokens,
                            heuristics=heuristics, seed=seed)
  # The tokenizer takes most of the time, and holds Python's lock.
  for pieces in map_in_order(judge, documents, chunk=_DOCUMENTS_AT_ONCE):
    counts['read'] += 1
    counts['split'] += len(pieces) > 1
    for piece, selected_for, is_spelled in pieces:
      if piece.id in ids:
        if len(pieces) == 1 and piece.id not in ids_of_pieces:
          raise UserError(f'two texts have the id {piece.id!r}; ids must differ')
        piece = dataclasses.replace(piece, id=_free_id(piece.id, ids))
      ids.add(piece.id)
      if len(pieces) > 1:
        ids_of_pieces.add(piece.id)
      if syntax.has_opening(piece.text):
        counts['with a call already'] += 1
      elif not is_spelled:
        counts['with unknown characters'] += 1
      else:
        counts['documents'] += 1
        yield piece, selected_for


def _free_id(taken: str, ids: Collection[str]) -> str:
  """Returns an id for a piece of a document whose id is that of another text, such as `a-1`."""
  return next(free for number in itertools.count(2) if (free := f'{taken}-{number}') not in ids)


def _pieces(document: Document, *, tokenizer: Tokenizer, max_tokens: int,
            heuristics: Collection[str], seed: int) -> list[tuple[Document, set[str], bool]]:
  """Returns the pieces of a document, the tools that each is selected for, and if it is spelled."""
  spans, end = preselect(heuristics, document, tokenizer.character_offsets, seed), 0
  pieces = []
  for piece in split_document(document, tokenizer.encode, max_tokens):
    start = document.text.index(piece.text, end)  # whitespace alone comes between
    end = start + len(piece.text)
    selected_for = {tool for tool, selected in spans.items()
                    if any(first < end and start < last for first, last in selected)}
    pieces.append((piece, selected_for, tokenizer.spells(piece.text)))
  return pieces
