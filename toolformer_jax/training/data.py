"""Data of training: sources to texts, texts to a mixture, to examples, and to batches."""

import dataclasses
import itertools
import pathlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

from toolformer_jax import calls, sharding
from toolformer_jax.annotation.run_reader import MERGED, RunReader
from toolformer_jax.data import hub_datasets
from toolformer_jax.data.content_hash import stable_hash
from toolformer_jax.data.corpus import read_corpus
from toolformer_jax.data.jsonl import read_objects
from toolformer_jax.data.records import AnnotatedDocument, from_json
from toolformer_jax.errors import UserError, unknown
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.training.config import MixtureConfig
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
  # Weights take the same way as ids, so that the two cannot drift apart.
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


Text = AnnotatedDocument | TaskRow
WITHOUT_CALLS = 'text'  # what MixtureConfig.rates calls texts without calls

_LARGEST_DEV = 0.1  # of all texts


def read_texts(source: str) -> Iterator[AnnotatedDocument | TaskRow]:
  """Yields the texts of one source.

  Args:
    source: the output folder of an annotation run; a file of such texts with calls (.jsonl,
      .jsonl.gz, .jsonl.zst); a corpus that can be annotated, whose texts have no calls; or a task
      or mixture of seqio, `seqio:MODULE:NAME[@SPLIT]`.

  Raises:
    UserError: there is no such source, the annotation run has not ended, or a record is broken.
  """
  path = pathlib.Path(source)
  if source.startswith(hub_datasets.SEQIO):
    yield from _task_rows(source)
  elif path.is_dir():
    yield from _merged_texts(RunReader(path))
  elif _has_calls(path):
    yield from _annotated(path)
  else:
    for document in read_corpus(source):
      yield AnnotatedDocument(document, ())


def _merged_texts(run: RunReader) -> Iterator[AnnotatedDocument]:
  if not run.is_complete(MERGED):
    raise UserError(f'{run.path} is no output folder of annotate, or the run has not ended; '
                    'start `toolformer annotate` again to finish it')
  yield from run.annotated()


def _has_calls(file: pathlib.Path) -> bool:
  """Tells whether the first line of a file of JSON Lines is a text with a list of calls."""
  if not file.is_file() or '.jsonl' not in file.suffixes:
    return False
  _, fields = next(read_objects(file), (0, {}))
  return 'calls' in fields


def _annotated(file: pathlib.Path) -> Iterator[AnnotatedDocument]:
  for number, fields in read_objects(file):
    try:
      yield from_json(AnnotatedDocument, fields)
    except (TypeError, ValueError) as error:
      raise UserError(f'{file}:{number}: not an AnnotatedDocument record ({error})') from error


def _task_rows(source: str) -> Iterator[TaskRow]:
  for number, row in enumerate(hub_datasets.read_rows(source)):
    if 'targets' not in row:
      raise UserError(f'{source}: its examples have no feature `targets`, but {", ".join(row)}')
    yield TaskRow(f'{source}-{number}', row.get('inputs', ''), row['targets'])


def hold_out(texts: Sequence[Text], config: MixtureConfig) -> tuple[list[Text], list[Text]]:
  """Returns the texts to train on and those to choose a checkpoint by: a tenth of all at most."""
  count = min(config.dev_texts, int(_LARGEST_DEV * len(texts)))
  held_out = set(_shuffled(range(len(texts)), texts, f'dev {config.seed}')[:count])
  return ([text for i, text in enumerate(texts) if i not in held_out],
          [text for i, text in enumerate(texts) if i in held_out])


def mixture_of(texts: Sequence[Text], config: MixtureConfig) -> list[Text]:
  """Returns the texts of an epoch by caps and rates; which ones is random by the seed.

  A text with calls to several tools counts for the one that the fewest texts have.

  Raises:
    UserError: a rate is given for a tool that no text has a call to.
  """
  groups = _by_tool(texts)
  for name in config.rates:
    if name not in groups:
      raise unknown('tool in MixtureConfig.rates', name, groups)
  chosen = Counter()
  for tool, members in groups.items():
    capped = _shuffled(members, texts, f'{config.seed} {tool}')[:config.cap]
    times, share = divmod(config.rates.get(tool, 1.0), 1)
    more = set(capped[:round(share * len(capped))])
    chosen.update({i: int(times) + (i in more) for i in capped})
  return [text for i, text in enumerate(texts) for _ in range(chosen[i])]


def _by_tool(texts: Sequence[Text]) -> dict[str, list[int]]:
  """Returns the indices of the texts of each tool."""
  tools = [_tools(text) for text in texts]
  counts = Counter(tool for some in tools for tool in some)
  groups = defaultdict(list)
  for i, some in enumerate(tools):
    groups[min(some, key=lambda tool: (counts[tool], tool))].append(i)
  return groups


def _tools(text: Text) -> set[str]:
  calls = text.calls if isinstance(text, AnnotatedDocument) else ()
  return {call.tool for call in calls} or {WITHOUT_CALLS}


def _shuffled(members: Collection[int], texts: Sequence[Text], salt: str) -> list[int]:
  """Returns `members` in an order that depends on `salt` and the texts' ids."""
  def key(i: int) -> tuple[bytes, int]:
    text = texts[i]
    name = text.document.id if isinstance(text, AnnotatedDocument) else text.id
    return stable_hash(salt, name), i
  return sorted(members, key=key)


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


def examples_of(texts: Sequence[Text], tokenizer: Tokenizer, syntax: calls.CallSyntax, *,
                mask_results: bool = False, without_calls: bool = False) -> list[Example]:
  """Returns `texts` as examples; `without_calls` as those of the texts alone."""
  def example(text: Text) -> Example:
    if isinstance(text, TaskRow):
      return task_example(text, tokenizer)
    if without_calls:
      text = dataclasses.replace(text, calls=())
    return annotated_example(text, tokenizer, syntax, mask_results)
  return [example(text) for text in texts]


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
