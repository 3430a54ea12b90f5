"""Merges the parts of a search index: scores of all postings, in the files of `posting_lists`.

The lists are merged for a range of words at a time, so that memory holds a few million postings,
the words, and a number for each passage.
"""

import math
import pathlib
import shutil
from collections.abc import Iterator, Sequence

import numpy as np

from toolformer_jax.tools import posting_lists
from toolformer_jax.tools.index_parts import PASSAGES_FILE, Part

# The values of the common BM25 baselines on Wikipedia passages (Pyserini).
K1 = 0.9
B = 0.4
LINES_FILE = 'lines.i64'  # [passages + 1] where the line of each passage starts
_PARTS_AT_ONCE = 64
_POSTINGS_AT_ONCE = 2**23


def merge_passages(parts: Sequence[Part], directory: pathlib.Path) -> None:
  """Writes the passages of all parts to one file, and where each starts."""
  with open(directory / PASSAGES_FILE, 'wb') as file:
    for part in parts:
      with open(part.folder / PASSAGES_FILE, 'rb') as source:
        shutil.copyfileobj(source, file, length=1 << 20)
  sizes = np.concatenate([[0], *(part.array('line_bytes') for part in parts)])
  np.cumsum(sizes, dtype=np.int64).tofile(directory / LINES_FILE)


def merge_postings(parts: Sequence[Part], directory: pathlib.Path) -> None:
  """Writes the lists of all words, with the scores of Lucene's BM25 (as bm25s's, to the bit)."""
  words = _all_words(parts)
  frequencies = np.zeros(len(words), np.int64)
  for part in parts:
    frequencies[np.searchsorted(words, part.array('words'))] += np.diff(part.array('starts'))
  starts = np.concatenate([[0], np.cumsum(frequencies)])
  words.tofile(directory / posting_lists.WORDS)
  starts.tofile(directory / posting_lists.STARTS)
  num_words = np.concatenate([part.array('num_words') for part in parts])
  norms = K1 * ((1 - B) + B * num_words / num_words.mean())
  idf = _inverse_frequencies(frequencies, len(norms))
  with (open(directory / posting_lists.PASSAGES, 'wb') as passages_file,
        open(directory / posting_lists.SCORES, 'wb') as scores_file,
        open(directory / posting_lists.BOUNDS, 'wb') as bounds_file):
    for start, end in _ranges(starts):
      passages, times = _lists(parts, words[start:end], starts[start:end + 1])
      of_word = np.repeat(idf[start:end], frequencies[start:end])
      scores = (of_word * (times / (norms[passages] + times))).astype('<f4')
      passages.tofile(passages_file)
      scores.tofile(scores_file)
      np.maximum.reduceat(scores, starts[start:end] - starts[start]).tofile(bounds_file)


def _all_words(parts: Sequence[Part]) -> np.ndarray:
  words = np.empty(0, '<u8')
  for first in range(0, len(parts), _PARTS_AT_ONCE):
    some = parts[first:first + _PARTS_AT_ONCE]
    words = np.unique(np.concatenate([words, *(part.array('words') for part in some)]))
  return words


def _inverse_frequencies(frequencies: np.ndarray, num_passages: int) -> np.ndarray:
  different, inverse = np.unique(frequencies, return_inverse=True)
  values = [math.log(1 + (num_passages - one + 0.5) / (one + 0.5)) for one in different.tolist()]
  return np.array(values, np.float32)[inverse]


def _ranges(starts: np.ndarray) -> Iterator[tuple[int, int]]:
  """Yields ranges of words whose lists together have few postings, but of at least one word."""
  start = 0
  while start < len(starts) - 1:
    end = int(np.searchsorted(starts, starts[start] + _POSTINGS_AT_ONCE, side='right')) - 1
    end = max(end, start + 1)
    yield start, end
    start = end


def _lists(parts: Sequence[Part], words: np.ndarray, starts: np.ndarray
           ) -> tuple[np.ndarray, np.ndarray]:
  """Returns the passages of `words`, list after list, and how often the word is in each."""
  passages = np.empty(starts[-1] - starts[0], '<u4')
  times = np.empty(len(passages), '<u4')
  ends = starts[:-1] - starts[0]  # of what is filled of each list
  first_passage = 0
  for part in parts:
    some = part.array('words')
    low, high = np.searchsorted(some, words[0]), np.searchsorted(some, words[-1], side='right')
    places = np.searchsorted(words, some[low:high])
    bounds = part.array('starts', low, high + 1)
    counts = np.diff(bounds)
    target = np.repeat(ends[places] - bounds[:-1], counts) + np.arange(bounds[0], bounds[-1])
    passages[target] = part.array('passages', bounds[0], bounds[-1]) + first_passage
    times[target] = part.array('times', bounds[0], bounds[-1])
    ends[places] += counts
    first_passage += part.num_passages
  return passages, times
