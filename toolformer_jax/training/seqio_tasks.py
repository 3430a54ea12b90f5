"""The texts of annotation runs as tasks of seqio, one for each tool, and as a mixture of them.

    register_runs('calls', [pathlib.Path('runs/calculator'), pathlib.Path('runs/qa')],
                  Tokenizer.load(pathlib.Path('runs/calculator')))

adds the tasks `calls_calculator` and `calls_qa` and the mixture `calls`, with the split `train`.
Their rates and caps are those of `MixtureConfig`, so that a tool has the same share as in
`toolformer finetune --data runs/calculator runs/qa`. Importing this module loads TensorFlow.
"""

import functools
import json
import pathlib
from collections.abc import Sequence

import numpy as np
import seqio
import tensorflow as tf

from toolformer_jax.annotation.run_reader import RunReader
from toolformer_jax.annotation.stage_keys import MERGED
from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax
from toolformer_jax.data.records import AnnotatedDocument, from_json
from toolformer_jax.data.seqio_vocabulary import SHIFT, ShiftedVocabulary
from toolformer_jax.errors import UserError
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.training.config import MixtureConfig
from toolformer_jax.training.examples import annotated_example
from toolformer_jax.training.mixture import NO_TOOL, epoch_by_tool
from toolformer_jax.training.sources import LOSS_WEIGHTS, finished_run

TRAIN = 'train'


def register_runs(
    name: str, runs: Sequence[pathlib.Path], tokenizer: Tokenizer, *,
    mixture: MixtureConfig = MixtureConfig(), syntax: CallSyntax = DEFAULT_SYNTAX,
    mask_results: bool = False, without_calls: bool = False,
) -> list[str]:
  """Adds a task for each tool and the mixture `name` to the registry of seqio.

  The feature `targets` has the ids of a text with its calls, shifted by `ShiftedVocabulary`. With
  `mask_results` a second one, `loss_weights`, has for each of them 1 + the weight of its loss. All
  steps are deterministic and come before the placeholder of the cache. The files are read when the
  first dataset is made.

  Args:
    name: of the mixture; the task of a tool is `{name}_{tool}`, in lower case.
    runs: output folders of finished annotation runs.
    tokenizer: of the model, with which the runs were annotated.
    mixture: the rate and the cap of each tool. No texts are held out.
    syntax: how calls are spelled.
    mask_results: no loss on the tokens of ` result]`.
    without_calls: the texts without their calls: the paper's baseline "+ CC".

  Returns:
    the names of the tasks.

  Raises:
    UserError: a folder is not that of a finished annotation run.
  """
  texts = _Texts(runs, mixture)
  tools = sorted({tool for run in runs for tool in RunReader(run).tool_settings()})
  features = {'targets': seqio.Feature(ShiftedVocabulary(tokenizer), add_eos=False)}
  if mask_results:
    features[LOSS_WEIGHTS] = seqio.Feature(seqio.PassThroughVocabulary(2 + SHIFT), add_eos=False)
  encode = functools.partial(_encode, tokenizer=tokenizer, syntax=syntax,
                             mask_results=mask_results, without_calls=without_calls)
  names = []
  for tool in tools:
    names.append(f'{name}_{tool.lower()}')
    seqio.TaskRegistry.add(
        names[-1], source=CallsSource(texts, tool), output_features=features,
        preprocessors=[encode, seqio.CacheDatasetPlaceholder()])
  rates = [functools.partial(_rate, texts, tool) for tool in tools]
  seqio.MixtureRegistry.add(name, [*zip(names, rates, strict=True)])
  return names


class _Texts:
  """Where the texts of each tool are in the files of some runs."""

  def __init__(self, runs: Sequence[pathlib.Path], mixture: MixtureConfig):
    self.mixture = mixture
    self._runs = [finished_run(run) for run in runs]

  @functools.cached_property
  def files(self) -> list[str]:
    """The files, in the order of the runs and of their chunks."""
    return [str(run.chunk_file(MERGED, chunk))
            for run in self._runs for chunk in run.all_chunks(MERGED)]

  @functools.cached_property
  def places(self) -> dict[str, np.ndarray]:
    """For each tool its texts: (file, first byte, bytes), int64 [texts, 3]; capped."""
    records, places = [], []
    for number, file in enumerate(self.files):
      start = 0
      for line in pathlib.Path(file).read_bytes().splitlines(keepends=True):
        record = _record(line, file)
        # The text itself is not kept.
        records.append((record.document.id, {call.tool for call in record.calls} or {NO_TOOL}))
        places.append((number, start, len(line)))
        start += len(line)
    at = np.array(places, np.int64).reshape(-1, 3)
    return {tool: at[members] for tool, members in epoch_by_tool(records, self.mixture).items()}


def _rate(texts: _Texts, tool: str, task: seqio.Task) -> float:
  """Returns the texts of a tool in an epoch, as `build_epoch` counts them."""
  return texts.mixture.rates.get(tool, 1.0) * len(texts.places.get(tool, ()))


class CallsSource(seqio.DataSource):
  """The lines of one tool's texts, read where they are in the files of annotation runs.

  Skipping reads nothing, and any number of shards is disjoint and complete.
  """

  def __init__(self, texts: _Texts, tool: str):
    """Takes the texts of `tool`."""
    super().__init__(splits=[TRAIN])
    self._texts, self._tool = texts, tool

  @property
  def supports_arbitrary_sharding(self) -> bool:
    """True: each text is read by itself."""
    return True

  @property
  def performs_internal_shuffling(self) -> bool:
    """True: the order is a random one of all texts, not of those in a buffer."""
    return True

  def list_shards(self, split: str) -> Sequence[str]:
    """Returns the files."""
    return self._texts.files

  def num_input_examples(self, split: str) -> int:
    """Returns the number of texts."""
    return len(self._places)

  @property
  def _places(self) -> np.ndarray:
    return self._texts.places.get(self._tool, np.zeros((0, 3), np.int64))

  def get_dataset(self, split: str = TRAIN, shuffle: bool = True, seed: int | None = None,
                  shard_info: seqio.ShardInfo | None = None) -> tf.data.Dataset:
    """Returns the lines, as scalar strings."""
    order = np.arange(len(self._places))
    if shuffle:
      order = np.random.default_rng(seed).permutation(order)
    if shard_info:
      order = order[shard_info.index::shard_info.num_shards]
    return tf.data.Dataset.from_tensor_slices(self._places[order]).map(self._read)

  def _read(self, place_3: tf.Tensor) -> tf.Tensor:
    def read(place_3: tf.Tensor) -> bytes:
      number, start, size = place_3.numpy().tolist()
      with open(self._texts.files[number], 'rb') as file:
        file.seek(start)
        return file.read(size)
    line = tf.py_function(read, [place_3], tf.string)
    line.set_shape([])
    return line


def _encode(dataset: tf.data.Dataset, *, tokenizer: Tokenizer, syntax: CallSyntax,
            mask_results: bool, without_calls: bool) -> tf.data.Dataset:
  """Returns lines as `targets` and, with `mask_results`, `loss_weights`."""
  def encode(line: tf.Tensor) -> tuple[np.ndarray, np.ndarray]:
    record = _record(line.numpy(), 'a line of the run')
    if without_calls:
      record = AnnotatedDocument(record.document, ())
    example = annotated_example(record, tokenizer, syntax, mask_results)
    return (np.array(example.token_ids, np.int32) + SHIFT,
            np.array(example.loss_weights, np.int32) + SHIFT)
  def features(line: tf.Tensor) -> dict[str, tf.Tensor]:
    ids, weights = tf.py_function(encode, [line], [tf.int32, tf.int32])
    ids.set_shape([None])
    weights.set_shape([None])
    return {'targets': ids} | ({LOSS_WEIGHTS: weights} if mask_results else {})
  return dataset.map(features, num_parallel_calls=tf.data.AUTOTUNE)


def _record(line: bytes, where: str) -> AnnotatedDocument:
  try:
    return from_json(AnnotatedDocument, json.loads(line))
  except (TypeError, ValueError) as error:
    raise UserError(f'{where}: not an AnnotatedDocument record ({error})') from error
