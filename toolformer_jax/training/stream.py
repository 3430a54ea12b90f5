"""Trains on a task of seqio while it is read: a buffer of examples is in memory at a time.

The stream is divided into blocks of `buffer` examples. The items of a block, sequences or packed
rows, are drawn in a random order, as those of an epoch are when all texts are in memory. The batch
of a step depends only on the stream, the buffer, the seed and the step. How many items each block
has is in stream.json of the run's folder, so that a resumed run skips to the block of its step.
"""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from toolformer_jax.annotation.result import AnnotationResult
from toolformer_jax.data.corpus import CorpusConfig
from toolformer_jax.data.hub_datasets import SEQIO, open_task, task_examples
from toolformer_jax.data.records import Document
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.paths import write_text
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.training.config import FinetuneConfig, MixtureConfig
from toolformer_jax.training.examples import task_example
from toolformer_jax.training.input_pipeline import Picks, largest_batch, row_multiple
from toolformer_jax.training.packing import Example, PackedRows, Sequences
from toolformer_jax.training.sources import Source, TaskRow, Text, as_texts, task_row


class TextStream:
  """A task or mixture of seqio that repeats without end.

  Attributes:
    source: its name, `seqio:MODULE:NAME[@SPLIT]`.
  """

  def __init__(self, source: str):
    """Opens it.

    Raises:
      UserError: there is no such task, or its features are neither texts nor ids of a model.
    """
    self.source = source
    self._task = open_task(source)
    self._task.check_ids()

  def describe(self) -> dict[str, Any]:
    """Returns what the rows depend on, as JSON: names, rates, and a hash of the files."""
    return {'source': self.source, **self._task.describe()}

  def rows(self, seed: int, start: int) -> Iterator[TaskRow]:
    """Yields the rows from number `start` on, without end.

    Raises:
      UserError: a row cannot be read, or has no targets.
    """
    rows = task_examples(self.source, self._task, seed, start)
    for number, row in enumerate(rows, start):
      yield task_row(self.source, number, row, self._task.tokenizer)


@dataclass(frozen=True)
class ExampleStream:
  """A stream of texts, tokenized for a model.

  Attributes:
    texts: the stream.
    tokenizer: of the model.
    config: its seed decides the order, its `stream_buffer` is that of the trainer.
  """

  texts: TextStream
  tokenizer: Tokenizer
  config: FinetuneConfig

  def describe(self) -> dict[str, Any]:
    """Returns what the batches of a run depend on, as JSON."""
    return {**self.texts.describe(), 'seed': self.config.seed,
            'buffer': self.config.stream_buffer}

  def read(self, start: int) -> Iterator[Example]:
    """Yields the examples from number `start` on, without end; see `TextStream.rows`."""
    return (task_example(row, self.tokenizer)
            for row in self.texts.rows(self.config.seed, start))


def training_data(
    data: AnnotationResult | TextStream | Source | Iterable[Source | Text | Document],
    config: CorpusConfig = CorpusConfig(),
) -> list[Text] | TextStream:
  """Returns the texts to train on; a task of seqio alone is a stream, all else is read.

  `config` says how corpora are read.

  Raises:
    UserError: see `as_texts`.
  """
  if isinstance(data, TextStream):
    return data
  # The command line gives a list of one name.
  name = data[0] if isinstance(data, list | tuple) and len(data) == 1 else data
  if isinstance(name, str) and name.startswith(SEQIO):
    return TextStream(name)
  return as_texts(data, config)


def check_stream_settings(config: FinetuneConfig, mixture: MixtureConfig,
                          without_calls: bool) -> None:
  """Raises UserError if a setting needs all texts in memory, or is one of the task itself."""
  if config.epochs:
    raise UserError('FinetuneConfig.epochs needs the number of texts, which a stream has not; set '
                    'FinetuneConfig.steps')
  if mixture.rates:
    raise UserError('MixtureConfig.rates are of texts in memory; a seqio.Mixture has its own rates')
  if mixture.augmentation:
    raise UserError('MixtureConfig.augmentation is of texts in memory; add '
                    'toolformer_jax.data.augmentation.preprocessor to the task')
  if without_calls or config.mask_results:
    setting = '--without_calls' if without_calls else 'FinetuneConfig.mask_results'
    raise UserError(f'{setting} cannot change a task of seqio; register the task with it, see '
                    'toolformer_jax.training.seqio_tasks.register_runs')


class StreamedBlocks:
  """The items of a stream, a block at a time."""

  def __init__(self, examples: Callable[[int], Iterator[Example]], buffer: int,
               items_of: Callable[[Sequence[Example]], PackedRows | Sequences],
               log: epath.Path):
    """Divides a stream into blocks.

    Args:
      examples: yields the examples of the stream from a number on.
      buffer: examples of a block.
      items_of: makes items of examples.
      log: the file with the sizes of the blocks that were read.
    """
    self._examples, self._buffer, self._items_of = examples, buffer, items_of
    self._log = log
    self._sizes, self._largest_batch = _read_log(log)
    self._open: tuple[int, Iterator[Example]] = (-1, iter(()))  # the block that comes next
    self._blocks: dict[int, PackedRows | Sequences] = {}
    self.row_multiple, self.epoch_items = 1, None

  def size(self, block: int) -> int:
    """Returns the number of items of a block."""
    while len(self._sizes) <= block:
      if self._sizes:
        self.block(len(self._sizes) - 1)  # in order: a batch may begin in it
      self._sizes.append(len(self.block(len(self._sizes))))
      self._write_log()
    return self._sizes[block]

  def set_row_multiple(self, config: FinetuneConfig, mesh: Mesh) -> None:
    """Makes almost every batch of sequences have the same number of rows, by the first block."""
    if not self._largest_batch:
      self._largest_batch = largest_batch(cast(Sequences, self.block(0)), config)
      self._write_log()
    self.row_multiple = row_multiple(self._largest_batch, config, mesh)

  def _write_log(self) -> None:
    if jax.process_index() == 0:
      write_text(self._log, json.dumps({'items': self._sizes,
                                        'largest_batch': self._largest_batch}))

  def block(self, number: int) -> PackedRows | Sequences:
    """Returns the items of a block.

    Raises:
      UserError: it has none, or it cannot be read.
    """
    if number not in self._blocks:
      # A batch is of blocks that follow each other.
      self._blocks = {n: block for n, block in self._blocks.items() if n == number - 1}
      self._blocks[number] = self._items_of(self._read(number))
    return self._blocks[number]

  def _read(self, number: int) -> list[Example]:
    following, examples = self._open
    if following != number:
      examples = self._examples(number * self._buffer)
    found = list(itertools.islice(examples, self._buffer))
    self._open = number + 1, examples
    if not found:
      raise UserError(f'the stream ends before example {number * self._buffer}, or is empty')
    return found

  def rows(self, picks: Picks) -> PackedRows:
    """Returns the rows of a batch."""
    parts = [(self.block(number), indices) for number, indices in picks]
    first, _ = parts[0]
    if isinstance(first, PackedRows):
      return jax.tree.map(lambda *arrays: np.concatenate(arrays),
                          *(block.take(indices) for block, indices in parts))
    segments = [cast(Sequences, block).segments[i] for block, indices in parts for i in indices]
    batch = dataclasses.replace(first, segments=segments, row_multiple=self.row_multiple)
    return batch.take(range(len(segments)))


def _read_log(log: epath.Path) -> tuple[list[int], int]:
  """Returns the sizes of the first blocks and the largest batch; none if the file is broken."""
  try:
    found = json.loads(log.read_text('utf-8'))
    return [int(size) for size in found['items']], int(found['largest_batch'])
  except (OSError, ValueError, TypeError, KeyError):
    return [], 0
