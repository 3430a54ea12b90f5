"""The tools of the command line, built by name, and what connects them to a model that decodes."""

import hashlib
import importlib.metadata
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass

import toolformer_jax
from toolformer_jax.annotation.jsonl import read_objects
from toolformer_jax.annotation.mediawiki import read_pages
from toolformer_jax.calls import Call
from toolformer_jax.errors import UserError, unknown
from toolformer_jax.fetch import cache_directory, corpus_names, file_sha256, find_corpus
from toolformer_jax.settings import check
from toolformer_jax.tools.base import Context, Tool
from toolformer_jax.tools.calculator import Calculator
from toolformer_jax.tools.calendar import Calendar
from toolformer_jax.tools.executor import Executor, Request
from toolformer_jax.tools.passages import Page
from toolformer_jax.tools.registry import named_tools
from toolformer_jax.tools.wikisearch import WikiSearch


@dataclass(frozen=True)
class SearchSettings:
  """What the Wikipedia search looks in.

  Attributes:
    corpus: a corpus that `fetch` knows by name, a MediaWiki dump (.bz2), or JSON Lines (plain,
      .gz, .zst) of pages with `title` and `text`.
    passage_words: longest passage that is ranked.
    snippet_words: longest part of it that is the result.
  """

  corpus: str = 'wikipedia-sample'
  passage_words: int = 100
  snippet_words: int = 40

  def __post_init__(self):
    check(self, passage_words=(1, 100_000), snippet_words=(1, 100_000))


def build_tools(names: Iterable[str], search: SearchSettings) -> list[Tool]:
  """Returns the tools called `names`, in any case: calculator, calendar, wikisearch.

  The search reads its corpus on first use and keeps the index in the cache. Its library starts
  JAX's backend, so JAX has to be configured before.

  Raises:
    UserError: a name is unknown, there is none, or the search can not be built.
  """
  names = [name for name in names if name.strip()]
  builders = {'calculator': Calculator, 'calendar': Calendar,
              'wikisearch': lambda: wikipedia_search(search)}
  if not names:
    raise UserError(f'no tool is named; choose from {", ".join(builders)}')
  return named_tools(names, builders)


def call_runner(
    executor: Executor, contexts: Sequence[Context]
) -> Callable[[Call, int], futures.Future[tuple[str | None, str | None]]]:
  """Returns what `inference.generation.generate` starts a call with.

  Args:
    executor: holds the tools.
    contexts: what a tool may know about each of the texts that are generated.
  """
  def run_call(call: Call, text: int) -> futures.Future[tuple[str | None, str | None]]:
    answer = futures.Future()
    outcome = executor.submit(Request(call.name, call.argument, contexts[text]))
    outcome.add_done_callback(
        lambda done: answer.set_result((done.result().result, done.result().failure)))
    return answer
  return run_call


def wikipedia_search(settings: SearchSettings) -> WikiSearch:
  """Returns the search over the corpus of `settings`, from the cache if it was built before.

  Raises:
    UserError: there is no such corpus, it has no pages, or the cache can not be written.
  """
  corpus = _locate(settings.corpus)
  index = cache_directory() / 'search' / _key(corpus, settings)
  if index.exists():
    try:
      return WikiSearch.load(index)
    except UserError:  # damaged, or of an earlier version
      shutil.rmtree(index, ignore_errors=True)
  search = WikiSearch.build(_pages(corpus), settings.passage_words, settings.snippet_words)
  try:
    _save(search, index)
  except OSError as error:
    raise UserError(f'can not write the cache {index.parent}: {error}; set TOOLFORMER_CACHE to a '
                    'directory with space that you may write') from error
  return search


def _locate(corpus: str) -> pathlib.Path:
  if path := find_corpus(corpus):
    return path
  if pathlib.Path(corpus).name != corpus:
    raise UserError(f'there is no file {corpus} to search in')
  raise unknown('file or corpus to search in', corpus, corpus_names())


def _key(corpus: pathlib.Path, settings: SearchSettings) -> str:
  """Returns a name for all that determines an index."""
  parts = (file_sha256(corpus), settings.passage_words, settings.snippet_words,
           toolformer_jax.__version__, importlib.metadata.version('bm25s'))
  return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def _pages(corpus: pathlib.Path) -> Iterator[Page]:
  if corpus.suffix == '.bz2':
    yield from read_pages(corpus)
    return
  for number, fields in read_objects(corpus):
    title, text = fields.get('title'), fields.get('text')
    if not isinstance(title, str) or not isinstance(text, str):
      raise UserError(f'{corpus}:{number}: a page needs the fields `title` and `text`, strings')
    yield Page(title, text)


def _save(search: WikiSearch, index: pathlib.Path) -> None:
  """Puts the files of `search` at `index`, all of them at once."""
  index.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(prefix='part-', dir=index.parent) as folder:
    whole = pathlib.Path(folder, 'search')
    whole.mkdir()
    search.save(whole)
    if not index.exists():  # else another process was faster, and built the same
      os.rename(whole, index)
