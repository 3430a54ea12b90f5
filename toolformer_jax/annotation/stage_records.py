"""The records of a stage as a sequence, read from its files when they are used."""

import bisect
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Generic, overload

from toolformer_jax.data.records import Record

if TYPE_CHECKING:
  from toolformer_jax.annotation.run_reader import RunReader


class StageRecords(Sequence[Record], Generic[Record]):
  """The records of a stage, read from its files when they are used.

  One chunk is in memory at a time. Chunks that are finished later are not among them.
  """

  def __init__(self, run: 'RunReader', stage: str, kind: type[Record]):
    """Lists the finished chunks of `stage`, which hold records of `kind`.

    Raises:
      UserError: the stage is complete, but one of its files is missing.
    """
    self._run, self._stage = run, stage
    self._kind: type[Record] = kind
    self._numbers = run.all_chunks(stage)
    self._last_read: tuple[int, list[Record]] = (-1, [])

  def chunks(self) -> Iterator[list[Record]]:
    """Yields the records of each chunk.

    Raises:
      UserError: a file is missing or broken.
    """
    return (self._run.read(self._stage, number, self._kind) for number in self._numbers)

  def __iter__(self) -> Iterator[Record]:
    return itertools.chain.from_iterable(self.chunks())

  def __len__(self) -> int:
    return self._ends[-1] if self._ends else 0

  @overload
  def __getitem__(self, index: int) -> Record: ...

  @overload
  def __getitem__(self, index: slice) -> list[Record]: ...

  def __getitem__(self, index: int | slice) -> Record | list[Record]:
    if isinstance(index, slice):
      return [self[i] for i in range(*index.indices(len(self)))]
    at = index + len(self) if index < 0 else index
    if not 0 <= at < len(self):
      raise IndexError(f'index {index} is out of range for {len(self)} records')
    place = bisect.bisect_right(self._ends, at)
    if self._last_read[0] != place:
      self._last_read = place, self._run.read(self._stage, self._numbers[place], self._kind)
    return self._last_read[1][at - self._ends[place]]  # counted from the end of the chunk

  @functools.cached_property
  def _ends(self) -> list[int]:
    """For each chunk, the number of records up to its end."""
    return list(itertools.accumulate(self._run.size(self._stage, number, self._kind)
                                     for number in self._numbers))

  def __repr__(self) -> str:
    return f'<{len(self)} {self._kind.__name__} records of {self._run.folder(self._stage)}>'
