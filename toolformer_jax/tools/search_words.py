"""The words of texts and queries that the search compares: folded, without stopwords, stemmed."""

import hashlib
import re
import threading
import unicodedata
from collections.abc import Iterable

import numpy as np
import Stemmer

# One-letter words too: `C` and `5` are things to search for.
WORD = re.compile(r'\b\w+\b')
# Lucene's list for English, as the common BM25 baselines use it.
STOPWORDS = frozenset(
  'a an and are as at be but by for if in into is it no not of on or such that the their then '
  'there these they this to was will with'.split())
_ACCENTS = re.compile('[\u0300-\u036f]')
_LETTERS = str.maketrans({'æ': 'ae', 'ð': 'd', 'ø': 'o', 'þ': 'th', 'đ': 'd', 'ł': 'l', 'œ': 'oe'})
_of_thread = threading.local()  # threads cannot share a stemmer


def fold(text: str) -> str:
  """Returns `text` in lower case, without accents and in one spelling: `Café` becomes `cafe`."""
  if text.isascii():  # most texts: normalizing them would take longer than all the rest
    return text.lower()
  letters = unicodedata.normalize('NFKD', text.casefold()).translate(_LETTERS)
  return unicodedata.normalize('NFKC', _ACCENTS.sub('', letters)).lower()


def words(text: str) -> list[str]:
  """Returns the words of `text` that are searched for, folded but not stemmed."""
  return [word for word in WORD.findall(fold(text)) if word not in STOPWORDS]


def stem(some_words: list[str]) -> list[str]:
  """Returns the stem of each word."""
  if not hasattr(_of_thread, 'stemmer'):
    _of_thread.stemmer = Stemmer.Stemmer('english')
  return _of_thread.stemmer.stemWords(some_words)


def stems(text: str) -> list[str]:
  """Returns the stems of the words of `text`, without stopwords."""
  return stem(words(text))


def word_hashes(some_stems: Iterable[str]) -> np.ndarray:
  """Returns 64 bits for each stem, [words] uint64, that stand for it in an index.

  Of ten million different words, two have the same bits with a probability of 3 in a million.
  """
  digests = [hashlib.blake2b(one.encode('utf-8', 'surrogatepass'), digest_size=8).digest()
             for one in some_stems]
  return np.frombuffer(b''.join(digests), '<u8')
