"""The Wikipedia search (paper, section 3): BM25 over passages."""

from collections.abc import Iterable

from toolformer_jax import calls
from toolformer_jax.data.passages import split_sentences
from toolformer_jax.tools.base import Context, ToolError
from toolformer_jax.tools.passage_index import PassageIndex
from toolformer_jax.tools.search_words import stems


class WikiSearch:
  """Returns `Title > Section > snippet` of the best passage for a query."""

  name = 'WikiSearch'

  def __init__(self, index: PassageIndex, snippet_words: int = 40):
    """Searches `index`. A snippet is a part of a passage of at most `snippet_words` words."""
    self._index = index
    self._snippet_words = snippet_words
    self.version = f'{index.version}-{snippet_words}'

  def __call__(self, argument: str, context: Context) -> str:
    """Returns a snippet for the query `argument`, but not from the page `context.title`.

    Raises:
      ToolError: the query has no words, or no passage contains any of them.
    """
    query = stems(calls.unquote(argument))
    if not query:
      raise ToolError('nothing to search for')
    found = self._index.search(calls.unquote(argument), 1, exclude_title=context.title)
    if not found:
      raise ToolError('no page matches')
    snippet = best_snippet(found[0].text, query, self._snippet_words)
    parts = (found[0].title, found[0].section, snippet)
    return ' > '.join(part for part in parts if part)


def best_snippet(text: str, query: Iterable[str], words: int) -> str:
  """Returns at most `words` words of `text`, from the sentence that has most stems of `query`.

  Following sentences are added while they fit. A first sentence that is too long is truncated at a
  word.
  """
  sentences, wanted = split_sentences(text), set(query)
  overlaps = [len(wanted.intersection(stems(sentence))) for sentence in sentences]
  first = overlaps.index(max(overlaps))
  snippet = sentences[first].split()[:words]
  for sentence in sentences[first + 1:]:
    following = sentence.split()
    if len(snippet) + len(following) > words:
      break
    snippet += following
  return ' '.join(snippet)
