"""BM25 on disk: for each word the passages that hold it with their scores, and the best of a query.

The files are arrays without a header, mapped into memory when they are searched:

  words.u64       [words] hash of each word, ascending
  starts.i64      [words + 1] where the list of each word starts; the lists are one after another
  passages.u32    [postings] numbers of the passages that hold the word, ascending in each list
  scores.f32      [postings] BM25 score of the word in that passage
  bounds.f32      [words] highest score of each list
"""

import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

WORDS, STARTS, PASSAGES = 'words.u64', 'starts.i64', 'passages.u32'
SCORES, BOUNDS = 'scores.f32', 'bounds.f32'
FILES = {WORDS: '<u8', STARTS: '<i8', PASSAGES: '<u4', SCORES: '<f4', BOUNDS: '<f4'}
# Float32 sums of the same scores in another order differ by less than this part of the highest.
_ROUNDING = 1e-5
_NUM_SCORED = 256  # passages of a list whose scores are completed before the next list is read


class _List(NamedTuple):
  """The passages that hold a word of a query, [postings], their scores, and how often it is asked.

  `bound` is the most that the word adds to a passage's score.
  """

  passages: np.ndarray
  scores: np.ndarray
  times: int
  bound: float


class PostingLists:
  """The lists of all words of an index, in files that are mapped."""

  def __init__(self, directory: pathlib.Path, num_passages: int):
    """Maps the files of `directory`; raises OSError or ValueError if one is missing or empty."""
    self._num_passages = num_passages
    self._words, self._starts, self._passages, self._scores, self._bounds = (
        np.asarray(np.memmap(directory / name, kind, 'r')) for name, kind in FILES.items())

  def best(self, hashes: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the `count` best passages for a query, and their scores; fewer if fewer match.

    A passage's score is the sum of those of the query's words, in their order; a word that is there
    twice counts twice. The best passage is first; of equal ones, that of the lower number.

    Args:
      hashes: [words of the query] uint64, see `search_words.word_hashes`.
      count: how many, at least 1.
    """
    numbers = self._known(hashes)
    lists = {number: self._list(number, times) for number, times in Counter(numbers).items()}
    found = _candidates(list(lists.values()), count, self._num_passages)
    scores = np.zeros(len(found), np.float32)
    for number in numbers:
      scores += _scores_of(lists[number], found)
    order = np.lexsort((found, -scores))[:count]
    return found[order], scores[order]

  def _known(self, hashes: np.ndarray) -> list[int]:
    """Returns the numbers of the words of a query that are in the index, in order."""
    places = np.searchsorted(self._words, hashes)
    return [int(place) for place, one in zip(places, hashes, strict=True)
            if place < len(self._words) and self._words[place] == one]

  def _list(self, number: int, times: int) -> _List:
    part = slice(self._starts[number], self._starts[number + 1])
    return _List(self._passages[part], self._scores[part], times,
                 times * float(self._bounds[number]))


def _candidates(lists: Sequence[_List], count: int, num_passages: int) -> np.ndarray:
  """Returns passages, ascending, among which are the `count` best.

  This is MaxScore (Turtle and Flood 1995), a list at a time: short lists, whose scores are high,
  come first. As soon as the remaining lists together cannot lift a passage that was not seen above
  the `count` best ones, they are looked up only for those that can still be among the best. How
  good the best ones are is known early: the most promising passages are scored in full.
  """
  lists = sorted(lists, key=lambda one: len(one.passages))
  rests = np.cumsum([0, *(one.bound for one in reversed(lists))])[::-1] * (1 + _ROUNDING)
  slack = _ROUNDING * rests[0]
  partial, threshold = np.zeros(num_passages, np.float32), 0.0
  seen: list[tuple[np.ndarray, np.ndarray]] = []
  while len(seen) < len(lists) and rests[len(seen)] + slack >= threshold:
    one = lists[len(seen)]
    scores = partial[one.passages] + one.times * one.scores
    partial[one.passages] = scores
    seen.append((one.passages, scores))
    threshold = max(threshold, _lower_bound(one.passages, scores, lists[len(seen):], count))
  cutoff = threshold - rests[len(seen)] - slack
  # A passage is taken from the last list that holds it, which has its sum; from two lists if the
  # score of the last one is too small to change the sum.
  found = np.sort(np.concatenate([np.empty(0, np.uint32), *(
      passages[(scores >= cutoff) & (scores == partial[passages])] for passages, scores in seen)]))
  found = found[np.diff(found, prepend=-1) != 0]
  scores = partial[found]
  for one, rest in zip(lists[len(seen):], rests[len(seen) + 1:], strict=True):
    scores += one.times * _scores_of(one, found)
    threshold = max(threshold, _kth_best(scores, count))
    is_near = scores >= threshold - rest - slack
    found, scores = found[is_near], scores[is_near]
  return found


def _lower_bound(passages: np.ndarray, scores: np.ndarray, rest: Sequence[_List], count: int
                 ) -> float:
  """Returns a score that `count` passages have at least: those of the best few, in full."""
  most = max(_NUM_SCORED, count)
  if len(scores) > most:
    best = np.argpartition(scores, -most)[-most:]
    passages, scores = passages[best], scores[best]
  for one in rest:
    scores = scores + one.times * _scores_of(one, passages)
  return _kth_best(scores, count)


def _kth_best(scores: np.ndarray, count: int) -> float:
  """Returns the `count`-th highest of `scores`; 0 if there are fewer."""
  return float(np.partition(scores, -count)[-count]) if len(scores) >= count else 0.0


def _scores_of(one: _List, passages: np.ndarray) -> np.ndarray:
  """Returns the scores of a word in `passages`; 0 where it does not occur."""
  places = np.minimum(np.searchsorted(one.passages, passages), len(one.passages) - 1)
  return np.where(one.passages[places] == passages, one.scores[places], np.float32(0))
