"""BM25 over the passages of an encyclopedia, on disk in files that are mapped, not read."""

import dataclasses
import hashlib
import importlib.metadata
import json
import logging
import os
import pathlib
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import filelock
import numpy as np
import Stemmer

import toolformer_jax
from toolformer_jax.data.catalogue import (
  cache_directory,
  corpus_names,
  file_sha256,
  find_corpus,
)
from toolformer_jax.data.pages import corpus_pages
from toolformer_jax.data.passages import Page, Passage, split_passages
from toolformer_jax.errors import UserError, unknown
from toolformer_jax.runtime.validation import check

if TYPE_CHECKING:
  import bm25s

# The values of the common BM25 baselines on Wikipedia passages (Pyserini).
K1 = 0.9
B = 0.4

_TEXT_VERSION = 2  # of the plain text that pages are turned into
# One-letter words too: `C` and `5` are things to search for.
_WORD = r'\b\w+\b'
_ACCENTS = re.compile('[\u0300-\u036f]')
_LETTERS = str.maketrans({'æ': 'ae', 'ð': 'd', 'ø': 'o', 'þ': 'th', 'đ': 'd', 'ł': 'l', 'œ': 'oe'})
_PASSAGES, _LINES, _PAGES, _INDEX = 'passages.jsonl', 'lines.npy', 'pages.npy', 'index'
_SETTINGS = 'settings.json'


class PassageIndex:
  """Finds the passages that match a query best.

  Attributes:
    version: short hash of all that determines what is found.
  """

  def __init__(self, passages: Sequence[Passage], page_of: np.ndarray, index: 'bm25s.BM25',
               version: str):
    """Searches `passages` by their `index`; `page_of` numbers their pages. See `build`, `load`."""
    self._passages, self._page_of, self._index = passages, page_of, index
    self.version = version

  def __len__(self) -> int:
    return len(self._passages)

  @classmethod
  def build(cls, pages: Iterable[Page], passage_words: int = 100) -> 'PassageIndex':
    """Returns an index of `pages`, in passages of at most `passage_words` words.

    Raises:
      UserError: the pages hold no words.
    """
    passages, page_of = [], []
    for number, page in enumerate(pages):
      found = split_passages([page], passage_words)
      passages += found
      page_of += [number] * len(found)
    # A passage rarely repeats what its page is about, so the headings are searched too.
    texts = [_fold(f'{passage.title} {passage.section} {passage.text}') for passage in passages]
    tokens = _bm25s().tokenize(texts, **_tokenizer())
    if not tokens.vocab:
      raise UserError('no page has any words: there is nothing to search')
    index = _bm25s().BM25(k1=K1, b=B)
    index.index(tokens, show_progress=False)
    return cls(passages, np.array(page_of, np.int32), index, _version(passages))

  def save(self, directory: pathlib.Path) -> None:
    """Writes the index to `directory`, for `load`."""
    # Removed first and written last: if it exists, the other files are complete.
    (directory / _SETTINGS).unlink(missing_ok=True)
    self._index.save(directory / _INDEX, show_progress=False)
    lines = [json.dumps(dataclasses.asdict(passage), ensure_ascii=False).encode() + b'\n'
             for passage in self._passages]
    (directory / _PASSAGES).write_bytes(b''.join(lines))
    np.save(directory / _LINES, np.cumsum([0, *map(len, lines)]))
    np.save(directory / _PAGES, self._page_of)
    settings = {'version': self.version, 'sizes': _sizes(directory)}
    (directory / _SETTINGS).write_text(json.dumps(settings) + '\n', encoding='utf-8')

  @classmethod
  def load(cls, directory: pathlib.Path) -> 'PassageIndex':
    """Returns the index that `save` wrote to `directory`; what is large is mapped, not read.

    Raises:
      UserError: it is not there, or a file of it has not the size that was saved.
    """
    try:
      settings = json.loads((directory / _SETTINGS).read_text(encoding='utf-8'))
      saved, found = settings['sizes'], _sizes(directory)
      if wrong := sorted(name for name in saved if found.get(name) != saved[name]):
        raise ValueError(f'{wrong[0]} is not the file that was saved')
      passages = _StoredPassages(directory / _PASSAGES, np.load(directory / _LINES, mmap_mode='r'))
      page_of = np.load(directory / _PAGES, mmap_mode='r')
      index = _bm25s().BM25.load(directory / _INDEX, mmap=True, show_progress=False)
      return cls(passages, page_of, index, settings['version'])
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
      raise UserError(f'no search index in {directory} ({error}): build it again') from error

  def search(self, query: str, k: int, exclude_title: str | None = None) -> list[Passage]:
    """Returns up to `k` passages that have words of `query`, the best first.

    Of passages that match equally well, the earlier one comes first; none is of the page
    `exclude_title`, however it is written.
    """
    words = stems(query)
    if not words:
      return []
    excluded = exclude_title and _fold(exclude_title)
    scores, found = self._index.get_scores(words), []
    while len(found) < k and scores[best := int(scores.argmax())] > 0:
      passage = self._passages[best]
      if _fold(passage.title) == excluded:
        scores[self._page_of == self._page_of[best]] = 0
      else:
        found.append(passage)
        scores[best] = 0
    return found


class _StoredPassages(Sequence[Passage]):
  """Passages in a file, each read when it is asked for."""

  def __init__(self, path: pathlib.Path, ends: np.ndarray):
    self._text = np.memmap(path, np.uint8, 'r')
    self._ends = ends

  def __len__(self) -> int:
    return len(self._ends) - 1

  def __getitem__(self, number: int) -> Passage:
    line = self._text[self._ends[number]:self._ends[number + 1]].tobytes()
    return Passage(**json.loads(line))


def stems(text: str) -> list[str]:
  """Returns the stems of the words of `text`, without stopwords."""
  return _bm25s().tokenize(_fold(text), **_tokenizer(), return_ids=False)[0]


def _fold(text: str) -> str:
  """Returns `text` in lower case, without accents and in one spelling: `Café` becomes `cafe`."""
  letters = unicodedata.normalize('NFKD', text.casefold()).translate(_LETTERS)
  return unicodedata.normalize('NFKC', _ACCENTS.sub('', letters))


def _sizes(directory: pathlib.Path) -> dict[str, int]:
  """Returns the sizes of all files of an index but its settings."""
  return {file.relative_to(directory).as_posix(): file.stat().st_size
          for file in sorted(directory.rglob('*'))
          if file.is_file() and file != directory / _SETTINGS}


def _bm25s() -> ModuleType:
  """Imports bm25s, late: where JAX is installed, the import starts JAX's backend."""
  import bm25s

  # It sets itself to DEBUG, so that any application with a log handler would see that.
  logging.getLogger('bm25s').setLevel(logging.WARNING)
  return bm25s


def _tokenizer() -> dict[str, Any]:
  """Returns the arguments of bm25s.tokenize; a stemmer of its own, as threads cannot share one."""
  return {
    'token_pattern': _WORD,
    'stopwords': 'english',
    'stemmer': Stemmer.Stemmer('english'),
    'show_progress': False,
  }


def _version(passages: Iterable[Passage]) -> str:
  digest = hashlib.sha256(f'{K1} {B} {_WORD} {_TEXT_VERSION}'.encode())
  for passage in passages:
    digest.update(json.dumps(dataclasses.astuple(passage)).encode())
  return digest.hexdigest()[:12]


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

  def __post_init__(self):
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
    return PassageIndex.load(directory)
  except UserError:
    shutil.rmtree(directory, ignore_errors=True)
    return None


def _build(corpus: pathlib.Path, settings: SearchConfig,
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


def search_corpus_sha256(config: SearchConfig) -> str:
  """Returns the sha256 of the file that is searched.

  Raises:
    UserError: there is no such corpus.
  """
  return file_sha256(_locate(config.corpus))


def _locate(corpus: str) -> pathlib.Path:
  if path := find_corpus(corpus):
    return path
  if pathlib.Path(corpus).name != corpus:
    raise UserError(f'there is no file {corpus} to search in')
  raise unknown('file or corpus to search in', corpus, corpus_names())


def _key(corpus: pathlib.Path, settings: SearchConfig) -> str:
  """Returns a name for all that determines an index."""
  parts = (file_sha256(corpus), settings.passage_words, _TEXT_VERSION, toolformer_jax.__version__,
           importlib.metadata.version('bm25s'))
  return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
