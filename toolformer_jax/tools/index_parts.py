"""Parts of a search index: passages and postings of some pages each, written by processes.

A part is a folder that is there when it is whole, so that a build that was killed goes on after it.
Its files are `passages.jsonl`, `part.json` and arrays without a header, as `_ARRAYS` has them.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import os
import pathlib
import shutil
import time
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from toolformer_jax.data.mediawiki import Article
from toolformer_jax.data.pages import plain_pages
from toolformer_jax.data.passages import Page, Passage, split_passages
from toolformer_jax.runtime.processes import map_in_order
from toolformer_jax.tools.search_words import stem, word_hashes, words

log = logging.getLogger(__name__)
PASSAGES_FILE = 'passages.jsonl'
_ARRAYS = {
  'line_bytes': '<u4',  # [passages] length of each line of passages.jsonl
  'num_words': '<u4',  # [passages]
  'words': '<u8',  # [words] hashes, ascending
  'starts': '<i8',  # [words + 1] of the list of each word in the two arrays that follow
  'passages': '<u4',  # [postings] number of the passage in this part, ascending in a list
  'times': '<u4',  # [postings] how often the word is there
}
_CHARACTERS = 2**24  # of pages in a part; a killed build loses as many for each process
_LOG_EVERY_S = 30.0


@dataclass(frozen=True)
class Part:
  """A part that is whole.

  Attributes:
    folder: where it lies.
    num_passages: how many it has.
    num_left_out: pages that had too much markup.
    sha256: of its passages.
  """

  folder: pathlib.Path
  num_passages: int
  num_left_out: int
  sha256: str

  def array(self, name: str, start: int = 0, end: int | None = None) -> np.ndarray:
    """Reads `name[start:end]`."""
    kind = np.dtype(_ARRAYS[name])
    count = -1 if end is None else end - start
    return np.fromfile(self.folder / name, kind, count, offset=start * kind.itemsize)


def write_parts(pages: Iterable[Page | Article], folder: pathlib.Path, passage_words: int,
                processes: int | None = None) -> list[Part]:
  """Writes the parts that are not in `folder` yet, and returns all.

  The division into parts does not depend on the number of processes.

  Raises:
    UserError: a process ended before its time.
  """
  for unfinished in folder.glob('*.unfinished'):
    shutil.rmtree(unfinished)
  jobs = _Jobs(pages, folder)
  write = functools.partial(write_part, passage_words=passage_words)
  deque(map_in_order(write, jobs, processes=processes), maxlen=0)
  return [_read_part(folder / f'{number:06}') for number in range(jobs.num_parts)]


class _Jobs(Iterator[tuple[list[Page | Article], pathlib.Path]]):
  """The batches of pages whose parts are not written, with the folder of each; counts all."""

  def __init__(self, pages: Iterable[Page | Article], folder: pathlib.Path):
    self._batches, self._folder = _batches(pages), folder
    self.num_parts, self._logged = 0, time.monotonic()

  def __next__(self) -> tuple[list[Page | Article], pathlib.Path]:
    for batch in self._batches:
      path = self._folder / f'{self.num_parts:06}'
      self.num_parts += 1
      if time.monotonic() - self._logged > _LOG_EVERY_S:
        self._logged = time.monotonic()
        log.info('search index: %.1f billion characters read', self.num_parts * _CHARACTERS / 1e9)
      if not path.exists():
        return batch, path
    raise StopIteration


def _batches(pages: Iterable[Page | Article]) -> Iterator[list[Page | Article]]:
  batch, size = [], 0
  for page in pages:
    batch.append(page)
    size += len(page[1] if isinstance(page, Article) else page.text)
    if size >= _CHARACTERS:
      yield batch
      batch, size = [], 0
  if batch:
    yield batch


def write_part(job: tuple[Sequence[Page | Article], pathlib.Path], passage_words: int) -> None:
  """Writes the part of the pages of a job to its folder, which is not there before it is whole."""
  pages, folder = job
  plain, num_left_out = plain_pages(pages)
  passages = split_passages(plain, passage_words)
  lines = [json.dumps(dataclasses.asdict(passage), ensure_ascii=False).encode() + b'\n'
           for passage in passages]
  unfinished = folder.with_suffix('.unfinished')
  unfinished.mkdir()
  whole = b''.join(lines)
  (unfinished / PASSAGES_FILE).write_bytes(whole)
  for name, values in {'line_bytes': list(map(len, lines)), **_postings(passages)}.items():
    np.asarray(values, _ARRAYS[name]).tofile(unfinished / name)
  settings = {'num_passages': len(passages), 'num_left_out': num_left_out,
              'sha256': hashlib.sha256(whole).hexdigest()}
  (unfinished / 'part.json').write_text(json.dumps(settings), encoding='utf-8')
  os.rename(unfinished, folder)


def _read_part(folder: pathlib.Path) -> Part:
  return Part(folder, **json.loads((folder / 'part.json').read_text(encoding='utf-8')))


def _postings(passages: Sequence[Passage]) -> dict[str, np.ndarray]:
  """Returns the other arrays of a part."""
  numbers: dict[str, int] = {}
  flat, num_words = array('I'), []
  for passage in passages:
    # A passage rarely repeats what its page is about, so the headings are searched too.
    found = words(f'{passage.title} {passage.section} {passage.text}')
    flat.extend([numbers.setdefault(word, len(numbers)) for word in found])
    num_words.append(len(found))
  hashes, of_word = np.unique(word_hashes(stem(list(numbers))), return_inverse=True)
  of_posting = of_word[np.array(flat, np.int64)] if len(flat) else np.empty(0, np.int64)
  in_passage = np.repeat(np.arange(len(passages)), num_words)
  pairs, times = np.unique(of_posting * len(passages) + in_passage, return_counts=True)
  columns, rows = np.divmod(pairs, max(len(passages), 1))
  starts = np.cumsum([0, *np.bincount(columns, minlength=len(hashes))])
  return {'num_words': np.array(num_words, np.int64), 'words': hashes, 'starts': starts,
          'passages': rows, 'times': times}
