"""What is learned, and in which order: records to examples, packed rows to batches."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

from toolformer_jax import calls, sharding
from toolformer_jax.data.records import AnnotatedDocument
from toolformer_jax.errors import UserError
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.training.packing import Example, PackedRows


def annotated_example(record: AnnotatedDocument, tokenizer: Tokenizer,
                      syntax: calls.CallSyntax = calls.DEFAULT_SYNTAX,
                      mask_results: bool = False) -> Example:
  """Returns the text with its calls (x* of the paper, section 2).

  The text's own ids are those of the text alone (law 1). All tokens count in the loss, as in the
  paper; with `mask_results` the tokens of ` result]` do not.

  Raises:
    UserError: a call of the record lies outside its text.
  """
  inserted = [(call.position, call.call()) for call in record.calls]
  silent = {syntax.closing(call.result or '') for _, call in inserted} if mask_results else set()
  ids = tokenizer.encode(record.document.text)
  # Weights take the same way as ids, so that the two can not drift apart.
  def weigh(piece: str) -> list[float]:
    return [0.0 if piece in silent else 1.0] * len(tokenizer.encode(piece))
  try:
    return Example(calls.insert_calls(ids, inserted, tokenizer.encode, syntax),
                   calls.insert_calls([1.0] * len(ids), inserted, weigh, syntax))
  except ValueError as error:
    raise UserError(f'document {record.document.id}: {error}; was it annotated with the tokenizer '
                    'of another model?') from error


def plain_example(text: str, tokenizer: Tokenizer) -> Example:
  """Returns a text without calls, all of whose tokens count."""
  ids = tokenizer.encode(text)
  return Example(ids, [1.0] * len(ids))


@dataclass(frozen=True)
class TaskRow:
  """An example of a seqio task: text, or ids that have to be the model's.

  Attributes:
    id: of the example.
    inputs: what is given, and not learned.
    targets: what is learned.
  """

  id: str
  inputs: str | Sequence[int]
  targets: str | Sequence[int]


def task_example(row: TaskRow, tokenizer: Tokenizer) -> Example:
  """Returns the inputs of a task's example and its targets, which alone count.

  Raises:
    UserError: an id is not one of the model's.
  """
  inputs, targets = (tokenizer.encode(piece) if isinstance(piece, str) else [int(i) for i in piece]
                     for piece in (row.inputs, row.targets))
  if unknown := [i for i in (*inputs, *targets) if not 0 <= i < tokenizer.vocab_size]:
    raise UserError(f'{row.id}: the model has no token {unknown[0]}; was the task tokenised for '
                    'another one?')
  return Example(inputs + targets, [0.0] * len(inputs) + [1.0] * len(targets))


def batches(rows: int, batch_rows: int, seed: int, start_step: int) -> Iterator[np.ndarray]:
  """Yields which of `rows` rows are the batches of steps `start_step`, `start_step` + 1, ...

  Every epoch has all rows in an order of its own, and epochs follow each other without a gap. The
  batch of a step depends on (seed, step) alone, so that a resumed run sees what it would have seen.
  """
  def order(epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(rows)
  epochs: dict[int, np.ndarray] = {}
  for step in itertools.count(start_step):
    places = np.arange(step * batch_rows, (step + 1) * batch_rows)
    epochs = {epoch: order(epoch) if epoch not in epochs else epochs[epoch]
              for epoch in np.unique(places // rows).tolist()}
    yield np.array([epochs[place // rows][place % rows] for place in places.tolist()])


def put_rows(rows: PackedRows, numbers: np.ndarray, mesh: Mesh) -> PackedRows:
  """Puts the rows with these numbers on `mesh` as a batch.

  Each process reads those rows alone that its own devices hold.
  """
  def put(array):
    shape = (len(numbers), *array.shape[1:])
    where = sharding.batch_sharding(mesh, shape)
    return jax.make_array_from_callback(shape, where, lambda index: array[numbers[index[0]]])
  return jax.tree.map(put, rows)
