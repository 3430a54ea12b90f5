"""The Wikipedia search (paper, section 3): BM25 over passages, answered with a snippet."""

import dataclasses
import hashlib
import json
import logging
import pathlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import Stemmer

from toolformer_jax import calls
from toolformer_jax.errors import UserError
from toolformer_jax.tools.base import Context, ToolError
from toolformer_jax.tools.passages import Page, Passage, split_passages, split_sentences

if TYPE_CHECKING:
  import bm25s

# The values of the common BM25 baselines on Wikipedia passages (Pyserini).
K1 = 0.9
B = 0.4

# One-letter words too: `C` and `5` are things to search for.
_WORD = r'\b\w+\b'
_PASSAGES, _SETTINGS, _INDEX = 'passages.jsonl', 'settings.json', 'index'


class WikiSearch:
  """Answers a query with `Title > Section > snippet` of the passage that matches it best."""

  name = 'WikiSearch'

  def __init__(self, passages: Sequence[Passage], index: 'bm25s.BM25', snippet_words: int):
    """Searches `passages` by their `index`; see `build` and `load`."""
    self._passages = passages
    self._index = index
    self._snippet_words = snippet_words
    self.version = _version(passages, snippet_words)
    self._of_title: dict[str, list[int]] = defaultdict(list)
    for number, passage in enumerate(passages):
      self._of_title[passage.title.casefold()].append(number)

  @classmethod
  def build(
      cls, pages: Iterable[Page], passage_words: int = 100, snippet_words: int = 40
  ) -> 'WikiSearch':
    """Returns a search over `pages`, in passages and snippets of at most so many words.

    Raises:
      UserError: the pages hold no words.
    """
    passages = split_passages(pages, passage_words)
    # A passage rarely repeats what its page is about, so the headings are searched too.
    texts = [f'{passage.title} {passage.section} {passage.text}' for passage in passages]
    tokens = _bm25s().tokenize(texts, **_tokenizer())
    if not tokens.vocab:
      raise UserError('no page has any words: there is nothing to search')
    index = _bm25s().BM25(k1=K1, b=B)
    index.index(tokens, show_progress=False)
    return cls(passages, index, snippet_words)

  def save(self, directory: pathlib.Path) -> None:
    """Writes the search to `directory`, for `load`."""
    # First gone and written last: with it, the other files are whole and belong together.
    (directory / _SETTINGS).unlink(missing_ok=True)
    self._index.save(directory / _INDEX, show_progress=False)
    with open(directory / _PASSAGES, 'w', encoding='utf-8') as file:
      for passage in self._passages:
        file.write(json.dumps(dataclasses.asdict(passage), ensure_ascii=False) + '\n')
    settings = {'version': self.version, 'snippet_words': self._snippet_words}
    (directory / _SETTINGS).write_text(json.dumps(settings) + '\n', encoding='utf-8')

  @classmethod
  def load(cls, directory: pathlib.Path) -> 'WikiSearch':
    """Returns the search that `save` wrote to `directory`; its index is mapped, not read.

    Raises:
      UserError: it is not there, or its passages are not those that were saved.
    """
    try:
      settings = json.loads((directory / _SETTINGS).read_text(encoding='utf-8'))
      with open(directory / _PASSAGES, encoding='utf-8') as file:
        passages = [Passage(**json.loads(line)) for line in file]
      index = _bm25s().BM25.load(directory / _INDEX, mmap=True, show_progress=False)
      search = cls(passages, index, settings['snippet_words'])
      saved_version = settings['version']
    except (OSError, ValueError, TypeError, KeyError) as error:
      raise UserError(f'no search index in {directory} ({error}): build it again') from error
    if search.version != saved_version:
      raise UserError(
        f'the search index in {directory} was saved as version {saved_version}, but its files '
        f'are version {search.version}: build it again'
      )
    return search

  def __call__(self, argument: str, context: Context) -> str:
    """Returns the snippet for the query `argument`, never from the page `context.title` itself.

    Of passages that match equally well, the first one counts.

    Raises:
      ToolError: the query is blank, or no passage has a word of it.
    """
    query = _stems(calls.unquote(argument))
    if not query:
      raise ToolError('nothing to search for')
    scores = self._index.get_scores(query)
    if context.title is not None:
      scores[self._of_title.get(context.title.casefold(), [])] = 0
    best = int(scores.argmax())
    if scores[best] <= 0:
      raise ToolError('no page matches')
    passage = self._passages[best]
    snippet = best_snippet(passage.text, query, self._snippet_words)
    return ' > '.join(part for part in (passage.title, passage.section, snippet) if part)


def best_snippet(text: str, query: Iterable[str], words: int) -> str:
  """Returns at most `words` words of `text`, from its sentence with most of the stems `query`.

  Further sentences follow as far as they fit; a first sentence that is too long is cut at a word.
  """
  sentences, wanted = split_sentences(text), set(query)
  overlaps = [len(wanted.intersection(_stems(sentence))) for sentence in sentences]
  first = overlaps.index(max(overlaps))
  snippet = sentences[first].split()[:words]
  for sentence in sentences[first + 1:]:
    following = sentence.split()
    if len(snippet) + len(following) > words:
      break
    snippet += following
  return ' '.join(snippet)


def _bm25s() -> ModuleType:
  """Imports bm25s, late: where JAX is installed, the import starts JAX's backend."""
  import bm25s

  # It sets itself to DEBUG, so that any application with a log handler would see that.
  logging.getLogger('bm25s').setLevel(logging.WARNING)
  return bm25s


def _tokenizer() -> dict[str, Any]:
  """Returns the arguments of bm25s.tokenize; a stemmer of its own, as threads can not share one."""
  return {
    'token_pattern': _WORD,
    'stopwords': 'english',
    'stemmer': Stemmer.Stemmer('english'),
    'show_progress': False,
  }


def _stems(text: str) -> list[str]:
  return _bm25s().tokenize(text, **_tokenizer(), return_ids=False)[0]


def _version(passages: Iterable[Passage], snippet_words: int) -> str:
  """Returns the short hash of all that determines the results."""
  digest = hashlib.sha256(f'{K1} {B} {_WORD} {snippet_words}'.encode())
  for passage in passages:
    digest.update(json.dumps(dataclasses.astuple(passage)).encode())
  return digest.hexdigest()[:12]
