"""The passages of an encyclopedia and a BM25 index of them, in files that are mapped, not read."""

import hashlib
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import filelock
import numpy as np

import toolformer_jax
from toolformer_jax.data.catalogue import corpus_names, find_corpus
from toolformer_jax.data.local_cache import cache_directory, file_sha256
from toolformer_jax.data.mediawiki import Article, warn_of_left_out
from toolformer_jax.data.pages import corpus_pages
from toolformer_jax.data.passages import Page, Passage
from toolformer_jax.errors import UserError, unknown
from toolformer_jax.runtime.validation import check
from toolformer_jax.tools.index_merge import K1, LINES_FILE, B, merge_passages, merge_postings
from toolformer_jax.tools.index_parts import PASSAGES_FILE, write_parts
from toolformer_jax.tools.posting_lists import PostingLists
from toolformer_jax.tools.search_words import WORD, fold, stems, word_hashes

_VERSION = 3  # of the plain text that pages are turned into, and of the files of an index
_SEARCHED = ('corpus', 'pages')  # the kinds of assets
_SETTINGS, _PARTS = 'settings.json', 'parts'


class PassageIndex:
  """Finds the passages that match a query best.

  Attributes:
    version: short hash of all that determines what is found.
  """

  def __init__(self, directory: pathlib.Path):
    """Opens the index that `build` made in `directory`; what is large is mapped, not read.

    Raises:
      UserError: it is not there, or a file of it has not the size that was saved.
    """
    try:
      settings = json.loads((directory / _SETTINGS).read_text(encoding='utf-8'))
      saved, found = settings['sizes'], _sizes(directory)
      if wrong := sorted(name for name in saved if found.get(name) != saved[name]):
        raise ValueError(f'{wrong[0]} is not the file that was saved')
      self._passages = _StoredPassages(directory)
      self._postings = PostingLists(directory, len(self._passages))
      self.version: str = settings['version']
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
      raise UserError(f'no search index in {directory} ({error}): build it again') from error

  def __len__(self) -> int:
    return len(self._passages)

  @classmethod
  def build(cls, pages: Iterable[Page | Article], directory: pathlib.Path,
            passage_words: int = 100, processes: int | None = None) -> 'PassageIndex':
    """Builds an index of `pages` in `directory`, in passages of at most `passage_words` words.

    The pages are read as a stream, several processes write parts of the index, and the parts are
    merged. After a kill, the same call with the same pages goes on after the parts that are there.

    Args:
      pages: as `corpus_pages` yields them.
      directory: made if it is not there; has room for three times the text of the pages.
      passage_words: longest passage.
      processes: how many write parts; by default one for each core that this process may use.

    Raises:
      UserError: the pages hold no words, or a process ended before its time.
    """
    # Removed first and written last: if it exists, the other files are complete.
    (directory / _SETTINGS).unlink(missing_ok=True)
    (directory / _PARTS).mkdir(parents=True, exist_ok=True)
    parts = write_parts(pages, directory / _PARTS, passage_words, processes)
    warn_of_left_out(directory, sum(part.num_left_out for part in parts))
    if not any(len(part.array('words')) for part in parts):
      raise UserError('no page has any words: there is nothing to search')
    merge_passages(parts, directory)
    merge_postings(parts, directory)
    shutil.rmtree(directory / _PARTS)
    made_of = repr((K1, B, WORD.pattern, _VERSION, [part.sha256 for part in parts]))
    settings = {'version': hashlib.sha256(made_of.encode()).hexdigest()[:12],
                'sizes': _sizes(directory)}
    (directory / _SETTINGS).write_text(json.dumps(settings) + '\n', encoding='utf-8')
    return cls(directory)

  def passage(self, number: int) -> Passage:
    """Returns a passage by its number, from 0."""
    return self._passages[number]

  def search(self, query: str, k: int, exclude_title: str | None = None) -> list[Passage]:
    """Returns up to `k` passages that have words of `query`, the best first.

    Of passages that match equally well, the earlier one comes first; none is of the page
    `exclude_title`, however it is written.
    """
    hashes = word_hashes(stems(query))
    excluded, count = exclude_title and fold(exclude_title), k
    while True:
      numbers, _ = self._postings.best(hashes, count)
      passages = [self.passage(number) for number in numbers]
      found = [passage for passage in passages if fold(passage.title) != excluded]
      if len(found) >= k or len(numbers) < count:
        return found[:k]
      count *= 4  # passages of the excluded page took the places


class _StoredPassages:
  """Passages in a file, each read when it is asked for."""

  def __init__(self, directory: pathlib.Path):
    self._text = np.memmap(directory / PASSAGES_FILE, np.uint8, 'r')
    self._starts = np.memmap(directory / LINES_FILE, np.int64, 'r')

  def __len__(self) -> int:
    return len(self._starts) - 1

  def __getitem__(self, number: int) -> Passage:
    line = self._text[self._starts[number]:self._starts[number + 1]].tobytes()
    return Passage(**json.loads(line))


def _sizes(directory: pathlib.Path) -> dict[str, int]:
  """Returns the sizes of all files of an index but its settings."""
  return {file.name: file.stat().st_size for file in sorted(directory.iterdir())
          if file.is_file() and file.name != _SETTINGS}


@dataclass(frozen=True)
class SearchConfig:
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

  def __post_init__(self) -> None:
    check(self, passage_words=(1, 100_000), snippet_words=(1, 100_000))


def passage_index(settings: SearchConfig) -> PassageIndex:
  """Returns the index of the corpus of `settings`, from the cache if it was built before.

  Raises:
    UserError: there is no such corpus, it has no pages, or the cache cannot be written.
  """
  corpus = _locate(settings.corpus)
  directory = cache_directory() / 'search' / _key(corpus, settings)
  try:
    directory.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(directory.with_suffix('.lock')):  # the second process finds it built
      return _load(directory) or _build(corpus, settings, directory)
  except OSError as error:
    raise UserError(f'cannot write the cache {directory.parent}: {error}; set TOOLFORMER_CACHE to '
                    'a directory with space that you may write') from error


def _load(directory: pathlib.Path) -> PassageIndex | None:
  """Returns the index at `directory`; None if there is none, or it is damaged."""
  if not directory.exists():
    return None
  try:
    return PassageIndex(directory)
  except UserError:
    shutil.rmtree(directory, ignore_errors=True)
    return None


def _build(corpus: pathlib.Path, settings: SearchConfig,
           directory: pathlib.Path) -> PassageIndex:
  """Builds the index and puts it at `directory`, all of its files at once."""
  print(f'building the search index of {settings.corpus} ...', file=sys.stderr, flush=True)
  unfinished = directory.with_suffix('.part')
  try:
    PassageIndex.build(corpus_pages(corpus), unfinished, settings.passage_words)
  except UserError:  # the corpus is mended, and has another name here
    shutil.rmtree(unfinished, ignore_errors=True)
    raise
  os.rename(unfinished, directory)
  return PassageIndex(directory)


def search_corpus_sha256(config: SearchConfig) -> str:
  """Returns the sha256 of the file that is searched.

  Raises:
    UserError: there is no such corpus.
  """
  return file_sha256(_locate(config.corpus))


def _locate(corpus: str) -> pathlib.Path:
  if path := find_corpus(corpus, _SEARCHED):
    return path
  if pathlib.Path(corpus).name != corpus:
    raise UserError(f'there is no file {corpus} to search in')
  raise unknown('file or corpus to search in', corpus, corpus_names(_SEARCHED))


def _key(corpus: pathlib.Path, settings: SearchConfig) -> str:
  """Returns a name for all that determines an index."""
  parts = file_sha256(corpus), settings.passage_words, _VERSION, toolformer_jax.__version__
  return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
