"""Reads a corpus, whatever its form, as Documents."""

import difflib
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from toolformer_jax.annotation.dates import date_in_url, iso_date
from toolformer_jax.annotation.jsonl import read_objects
from toolformer_jax.annotation.mediawiki import read_pages
from toolformer_jax.annotation.records import Document
from toolformer_jax.errors import UserError, unknown
from toolformer_jax.fetch import corpus_names, find_corpus

_NAME = re.compile(r'[\w-]+')


def read_corpus(corpus: str | pathlib.Path, min_words: int = 30) -> Iterator[Document]:
  """Yields the documents of a file, or of a corpus that `fetch` knows by name.

  A file is JSON Lines (plain, .gz, .zst) whose objects have a `text` and may have an `id`, `url`,
  `title`, `date` and `source`, or a MediaWiki dump (.bz2), each paragraph of which with at least
  `min_words` words is a document. A missing id is made of the file's name and the line; a missing
  date is looked for in the URL. Blank texts are passed over.

  Raises:
    UserError: there is no such corpus, it can not be read, a line is no document, two documents
      have the same id, or there is no document at all.
  """
  path = _locate(str(corpus))
  documents = _paragraphs(path, min_words) if path.suffix == '.bz2' else _lines(path)
  ids = set()
  for document in documents:
    if document.id in ids:  # calls are kept by the id of their document
      raise UserError(f'{path}: two documents have the id {document.id!r}; ids must differ')
    ids.add(document.id)
    yield document
  if not ids:
    raise UserError(f'{path} holds no document: each line needs a `text` that is not blank, and '
                    f'each paragraph of a dump {min_words} words')


def _locate(corpus: str) -> pathlib.Path:
  if found := find_corpus(corpus):
    return found
  path, names = pathlib.Path(corpus), corpus_names()
  if _NAME.fullmatch(corpus) and not path.exists():
    raise unknown('corpus', corpus, names)
  siblings = [file.name for file in path.parent.glob('*') if file.is_file()]
  near = difflib.get_close_matches(path.name, siblings, n=3, cutoff=0.5)
  hint = f'did you mean {" or ".join(near)}?' if near else f'choose a file, or {", ".join(names)}'
  raise UserError(f'there is no file {path}: {hint}')


def _lines(path: pathlib.Path) -> Iterator[Document]:
  stem = path.name.split('.')[0]
  for number, fields in read_objects(path):
    text = fields.get('text')
    if not isinstance(text, str):
      raise UserError(f'{path}:{number}: a document needs the field `text`, a string')
    if text.strip():
      yield Document(
        id=_string(fields.get('id')) or f'{stem}-{number:06}',
        text=text,
        url=_string(fields.get('url')),
        title=_string(fields.get('title')),
        date=iso_date(fields.get('date')) or date_in_url(_string(fields.get('url'))),
        source=_string(fields.get('source')),
      )


def _string(value: Any) -> str | None:
  """Returns a field as a string; None where others left it out, empty, or put a structure."""
  return str(value) if isinstance(value, str | int | float) and value != '' else None


def _paragraphs(path: pathlib.Path, min_words: int) -> Iterator[Document]:
  for page in read_pages(path):
    for number, paragraph in enumerate(page.text.split('\n\n')):
      if len(paragraph.split()) >= min_words:
        yield Document(
          id=f'{page.title}-{number}', text=paragraph, title=page.title, source=path.name
        )
