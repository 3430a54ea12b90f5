"""The Wikipedia search (paper, section 3): BM25 over passages, answered with a snippet."""

from collections.abc import Iterable

from toolformer_jax import calls
from toolformer_jax.data.passages import split_sentences
from toolformer_jax.tools.base import Context, ToolError
from toolformer_jax.tools.passage_index import PassageIndex, stems


class WikiSearch:
  """Answers a query with `Title > Section > snippet` of the passage that matches it best."""

  name = 'WikiSearch'

  def __init__(self, index: PassageIndex, snippet_words: int = 40):
    """Searches `index`; a snippet is a part of a passage, `snippet_words` long at most."""
    self._index = index
    self._snippet_words = snippet_words
    self.version = f'{index.version}-{snippet_words}'

  def __call__(self, argument: str, context: Context) -> str:
    """Returns the snippet for the query `argument`, never from the page `context.title` itself.

    Of passages that match equally well, the first one counts.

    Raises:
      ToolError: the query is blank, or no passage has a word of it.
    """
    query = stems(calls.unquote(argument))
    if not query:
      raise ToolError('nothing to search for')
    found = self._index.best(calls.unquote(argument), 1, but_title=context.title)
    if not found:
      raise ToolError('no page matches')
    snippet = best_snippet(found[0].text, query, self._snippet_words)
    parts = (found[0].title, found[0].section, snippet)
    return ' > '.join(part for part in parts if part)


def best_snippet(text: str, query: Iterable[str], words: int) -> str:
  """Returns at most `words` words of `text`, from its sentence with most of the stems `query`.

  Further sentences follow as far as they fit; a first sentence that is too long is cut at a word.
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
