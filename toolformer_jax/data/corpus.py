"""Reads a corpus of any format as Documents."""

import difflib
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from toolformer_jax.data import hub_datasets
from toolformer_jax.data.catalogue import corpus_names, find_corpus
from toolformer_jax.data.dates import document_date, document_url
from toolformer_jax.data.jsonl import read_objects
from toolformer_jax.data.mediawiki import is_dump, read_pages
from toolformer_jax.data.records import Document
from toolformer_jax.errors import UserError, unknown

_NAME = re.compile(r'[\w-]+')


def read_corpus(corpus: str | pathlib.Path, min_words: int = 30) -> Iterator[Document]:
  """Yields the documents of a corpus.

  Args:
    corpus: one of
      - JSON Lines, plain or compressed (.gz, .bz2, .xz, .zst). An object has a `text` and may have
        an `id`, `url`, `title`, dates (see `dates.document_date`) and a `source`; fields of C4,
        CCNet and Dolma are understood. A missing id is made of the file's name and the line number.
      - a MediaWiki dump, .xml or compressed, of which each paragraph is a document.
      - a name that `fetch` knows, such as 'wikipedia-sample'.
      - a dataset, `tfds:NAME`, `hf:NAME[/CONFIG]`, `hf:FOLDER` or `seqio:MODULE:TASK`, each with
        `@SPLIT` or `@SPLIT[:N]`; see `hub_datasets.read_rows`. Its rows are read as the objects of
        JSON Lines are.
    min_words: shorter paragraphs of a dump are left out. Blank texts always are.

  Raises:
    UserError: there is no such corpus, it cannot be read, a line is not a document, two documents
      have the same id, or there is no document at all.
  """
  name = str(corpus)
  documents = (_in_dataset(name) if name.startswith(hub_datasets.PREFIXES)
               else _in_file(_locate(name), min_words))
  ids = set()
  for document in documents:
    if document.id in ids:  # calls refer to their document by its id
      raise UserError(f'{name}: two documents have the id {document.id!r}; ids must differ')
    ids.add(document.id)
    yield document
  if not ids:
    raise UserError(f'{name} holds no document: each line needs a `text` that is not blank, and '
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
  if path.is_dir():
    raise UserError(f'{path} is a folder; hf:{path} reads the JSON Lines in it')
  raise UserError(f'there is no file {path}: {hint}')


def _in_file(path: pathlib.Path, min_words: int) -> Iterator[Document]:
  return _paragraphs(path, min_words) if is_dump(path) else _lines(path)


def _lines(path: pathlib.Path) -> Iterator[Document]:
  stem = path.name.split('.')[0]
  for number, fields in read_objects(path):
    document = _document(fields, f'{stem}-{number:06}')
    if document is None:
      raise UserError(f'{path}:{number}: a document needs the field `text`, a string')
    if document.text.strip():
      yield document


def _in_dataset(name: str) -> Iterator[Document]:
  for number, fields in enumerate(hub_datasets.read_rows(name), 1):
    document = _document(fields, f'{number:09}')
    if document is None:
      raise UserError(f'{name}: its rows have no field `text` with a string, but '
                      f'{", ".join(fields)}')
    if document.text.strip():
      yield document


def _document(fields: Mapping[str, Any], default_id: str) -> Document | None:
  """Returns the document of an object as C4, CCNet or Dolma have it; None if it has no text.

  CCNet calls the text `raw_content`; Dolma keeps URL and title in `metadata`.
  """
  text = fields.get('text', fields.get('raw_content'))
  if not isinstance(text, str):
    return None
  metadata = fields.get('metadata')
  own = {name: value for name, value in fields.items() if value is not None}
  known = {**(metadata if isinstance(metadata, Mapping) else {}), **own}
  return Document(
      id=_string(fields.get('id')) or default_id, text=text, url=document_url(fields),
      title=_string(known.get('title')), date=document_date(fields),
      source=_string(fields.get('source')))


def _string(value: Any) -> str | None:
  """Returns a field as a string; None if it is missing, empty, or neither string nor number."""
  return str(value) if isinstance(value, str | int | float) and value != '' else None


def _paragraphs(path: pathlib.Path, min_words: int) -> Iterator[Document]:
  for page in read_pages(path):
    for number, paragraph in enumerate(page.text.split('\n\n')):
      if len(paragraph.split()) >= min_words:
        yield Document(
          id=f'{page.title}-{number}', text=paragraph, title=page.title, source=path.name
        )
