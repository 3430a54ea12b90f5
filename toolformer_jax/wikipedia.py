"""The encyclopedia that tools look things up in: its readers, and its index in the cache."""

import hashlib
import importlib.metadata
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import toolformer_jax
from toolformer_jax.annotation.jsonl import read_objects
from toolformer_jax.annotation.mediawiki import read_pages
from toolformer_jax.errors import UserError, unknown
from toolformer_jax.fetch import (
    cache_directory,
    corpus_names,
    exclusive,
    file_sha256,
    find_corpus,
)
from toolformer_jax.settings import check
from toolformer_jax.tools.passage_index import PassageIndex
from toolformer_jax.tools.passages import Page

# How KILT's paragraphs spell headings, `Section::::History.Origins.`, and items of lists.
_SECTION, _BULLET = 'Section::::', 'BULLET::::'


@dataclass(frozen=True)
class SearchSettings:
  """What the search and question answering look in.

  Attributes:
    corpus: a corpus that `fetch` knows by name, a MediaWiki dump (.bz2), or JSON Lines (plain,
      .gz, .zst) of pages with `title` and `text`, or as KILT has them.
    passage_words: longest passage that is ranked.
    snippet_words: longest part of it that is the result of a search.
  """

  corpus: str = 'wikipedia-sample'
  passage_words: int = 100
  snippet_words: int = 40

  def __post_init__(self):
    check(self, passage_words=(1, 100_000), snippet_words=(1, 100_000))


def passage_index(settings: SearchSettings) -> PassageIndex:
  """Returns the index of the corpus of `settings`, from the cache if it was built before.

  Raises:
    UserError: there is no such corpus, it has no pages, or the cache can not be written.
  """
  corpus = _locate(settings.corpus)
  directory = cache_directory() / 'search' / _key(corpus, settings)
  try:
    directory.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(directory.with_suffix('.lock')):  # who comes second finds it built
      return _load(directory) or _build(corpus, settings, directory)
  except OSError as error:
    raise UserError(f'can not write the cache {directory.parent}: {error}; set TOOLFORMER_CACHE to '
                    'a directory with space that you may write') from error


def _load(directory: pathlib.Path) -> PassageIndex | None:
  """Returns the index at `directory`; None if there is none, or it is damaged."""
  if not directory.exists():
    return None
  try:
    return PassageIndex.load(directory)
  except UserError:
    shutil.rmtree(directory, ignore_errors=True)
    return None


def _build(corpus: pathlib.Path, settings: SearchSettings,
           directory: pathlib.Path) -> PassageIndex:
  """Builds the index and puts it at `directory`, all of its files at once."""
  prefix = f'{directory.name}.part-'
  for leftover in directory.parent.glob(prefix + '*'):  # of a run that was killed
    shutil.rmtree(leftover, ignore_errors=True)
  index = PassageIndex.build(corpus_pages(corpus), settings.passage_words)
  with tempfile.TemporaryDirectory(prefix=prefix, dir=directory.parent) as folder:
    whole = pathlib.Path(folder, 'index')
    whole.mkdir()
    index.save(whole)
    os.rename(whole, directory)
  return PassageIndex.load(directory)


def corpus_pages(corpus: pathlib.Path) -> Iterator[Page]:
  """Yields the pages of a MediaWiki dump (.bz2), or of JSON Lines, plain or KILT's.

  Raises:
    UserError: the file can not be read, or a line of it is no page.
  """
  if corpus.suffix == '.bz2':
    yield from read_pages(corpus)
    return
  for number, fields in read_objects(corpus):
    title, text = _fields(fields)
    if not isinstance(title, str) or not isinstance(text, str):
      raise UserError(f'{corpus}:{number}: a page needs the fields `title` and `text`, strings')
    yield Page(title, text)


def _fields(fields: dict[str, Any]) -> tuple[Any, Any]:
  """Returns the title and text of a page; KILT's text is a list of paragraphs."""
  paragraphs = fields.get('text')
  if 'wikipedia_title' not in fields or not isinstance(paragraphs, list):
    return fields.get('title'), paragraphs
  return fields['wikipedia_title'], _kilt_text([str(paragraph) for paragraph in paragraphs])


def _kilt_text(paragraphs: Sequence[str]) -> str:
  """Returns KILT's paragraphs, the first of which is the title, as one text with headings."""
  lines = []
  for paragraph in map(str.strip, paragraphs[1:]):
    if paragraph.startswith(_SECTION):
      # A stop within a name, as in `St. Louis`, has a blank behind it.
      heading = re.split(r'\.(?! )', paragraph.removeprefix(_SECTION).rstrip('.'))[-1]
      lines.append(f'== {heading} ==')
    else:
      lines.append(paragraph.removeprefix(_BULLET))
  return '\n\n'.join(lines)


def _locate(corpus: str) -> pathlib.Path:
  if path := find_corpus(corpus):
    return path
  if pathlib.Path(corpus).name != corpus:
    raise UserError(f'there is no file {corpus} to search in')
  raise unknown('file or corpus to search in', corpus, corpus_names())


def _key(corpus: pathlib.Path, settings: SearchSettings) -> str:
  """Returns a name for all that determines an index."""
  parts = (file_sha256(corpus), settings.passage_words, toolformer_jax.__version__,
           importlib.metadata.version('bm25s'))
  return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
