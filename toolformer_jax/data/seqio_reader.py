"""Reads the examples of a registered task or mixture of seqio. Importing this loads TensorFlow."""

import functools
import hashlib
import importlib
import itertools
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from toolformer_jax.data.catalogue import file_sha256
from toolformer_jax.data.seqio_vocabulary import SHIFT, ShiftedVocabulary
from toolformer_jax.errors import UserError
from toolformer_jax.tokenizer import Tokenizer


class TaskReader:
  """A task or mixture, and the split of it that is read.

  Attributes:
    name: its name in the registry of seqio.
    split: the split's name.
    count: number of examples that are read; None for all.
    found: the `seqio.Task` or `seqio.Mixture`.
  """

  def __init__(self, name: str, split: str, count: int | None):
    """Imports the module that registers the task.

    Args:
      name: `MODULE:TASK`, or `TASK` if a task of that name is registered already.
      split: the split's name.
      count: number of examples that are read; None for all.

    Raises:
      ImportError: there is no such module.
      ValueError: it registers no such task.
    """
    module, _, self.name = name.rpartition(':')
    if module:
      importlib.import_module(module)
    self.split, self.count = split, count
    self.found = seqio.get_mixture_or_task(self.name)

  def rows(self) -> Iterator[dict[str, Any]]:
    """Yields the examples, not packed; texts as strings, and ids of our vocabulary shifted back.

    A mixture that repeats without end needs a `count`.
    """
    dataset = self.found.get_dataset(sequence_length=None, split=self.split, shuffle=False,
                                     num_epochs=1 if self.count is None else None)
    for row in (dataset if self.count is None else dataset.take(self.count)).as_numpy_iterator():
      yield self.row(row)

  def stream(self, seed: int, start: int) -> Iterator[dict[str, Any]]:
    """Yields the examples without end, from number `start` on, in an order that the seed decides.

    A mixture draws its tasks by their rates. Of a task whose steps all come before the placeholder
    of its cache, and which makes one example of each, those before `start` are not decoded.
    """
    if self.count is not None:
      epochs = 1 if isinstance(self.found, seqio.Task) else None
      dataset = self._dataset(self.found, seed, epochs).take(self.count).repeat().skip(start)
    elif isinstance(self.found, seqio.Mixture):
      dataset = self._mixed(seed, start)
    else:
      dataset = self._from(self.found, seed, start)
    for example in dataset.as_numpy_iterator():
      yield self.row(example)

  def _dataset(self, found: seqio.Task | seqio.Mixture, seed: int, num_epochs: int | None
               ) -> tf.data.Dataset:
    return found.get_dataset(
        sequence_length=None, split=self.split, shuffle=False, seed=seed, num_epochs=num_epochs,
        use_cached=self.is_cached, try_in_mem_cache=False)

  def _from(self, task: seqio.Task, seed: int, start: int) -> tf.data.Dataset:
    """Returns the examples of a task without end, from number `start` on."""
    endless = self._dataset(task, seed, None)
    size = task.source.num_input_examples(self.split)
    deterministic = task.preprocessors and isinstance(
        task.preprocessors[-1], seqio.CacheDatasetPlaceholder)
    if (self.is_cached or not size or not deterministic
        or int(self._dataset(task, seed, 1).cardinality()) != size):
      return endless.skip(start)
    # tf.data would run all steps on what it skips at the end.
    rest = task.replace(source=_SkippingSource(task.source, start % size))
    return self._dataset(rest, seed, 1).concatenate(endless)

  def _mixed(self, seed: int, start: int) -> tf.data.Dataset:
    """Returns the mixture's tasks, drawn by their rates, from example `start` on."""
    rates = np.array([self.found.get_rate(task) for task in self._tasks])
    fields = [*self.found.output_features]
    datasets = [self._from(task, seed, past).map(functools.partial(_chosen, fields)) for task, past
                in zip(self._tasks, _counts(rates, seed, start).tolist(), strict=True)]
    choices = tf.data.Dataset.from_generator(
        functools.partial(_choices, rates, seed, start),
        output_signature=tf.TensorSpec([], tf.int64))
    return tf.data.Dataset.choose_from_datasets(datasets, choices)

  @property
  def _tasks(self) -> list[seqio.Task]:
    """The task, or those of the mixture that have the split."""
    tasks = self.found.tasks if isinstance(self.found, seqio.Mixture) else [self.found]
    return [task for task in tasks if self.split in task.splits]

  @functools.cached_property
  def is_cached(self) -> bool:
    """Whether every task has been cached, in one of seqio's directories; the cache is then read."""
    return all(task.supports_caching and task.cache_dir for task in self._tasks)

  def describe(self) -> dict[str, Any]:
    """Returns what the examples depend on, as JSON: tasks, rates, split and a hash of the files.

    The content of a local file counts; of a dataset of tfds, its name and version.
    """
    is_mixture = isinstance(self.found, seqio.Mixture)
    return {'task': self.name, 'split': self.split, 'cached': self.is_cached,
            'rates': {task.name: self.found.get_rate(task) if is_mixture else 1.0
                      for task in self._tasks},
            'files_sha256': {task.name: self._files_sha256(task) for task in self._tasks}}

  def _files_sha256(self, task: seqio.Task) -> str:
    if self.is_cached:
      shards = tf.io.gfile.glob(os.path.join(task.cache_dir, f'{self.split}.tfrecord*'))
    else:
      shards = task.source.list_shards(self.split)
    files = [f'{os.path.basename(shard)} {file_sha256(pathlib.Path(shard))}'
             if os.path.isfile(shard) else shard for shard in sorted(map(str, shards))]
    return hashlib.sha256('\n'.join(files).encode()).hexdigest()

  def row(self, example: dict[str, Any]) -> dict[str, Any]:
    """Returns an example with texts as strings, and with ids of our vocabulary shifted back."""
    def value(field: str) -> Any:
      if isinstance(example[field], bytes):
        return example[field].decode('utf-8', 'replace')
      return example[field] - SHIFT if field in self._shifted else example[field]
    return {field: value(field) for field in example}

  def check_ids(self) -> None:
    """Checks that the token ids of inputs and targets can be those of a model of this package.

    Raises:
      UserError: they are of another vocabulary.
    """
    for field in ('inputs', 'targets'):
      feature = self.found.output_features.get(field)
      if feature is None or feature.dtype == tf.string:  # text
        continue
      vocabulary = getattr(feature, 'vocabulary', None)
      if not isinstance(vocabulary, ShiftedVocabulary | seqio.PassThroughVocabulary):
        raise UserError(
            f'seqio:{self.name}: its feature `{field}` has token ids of '
            f'{type(vocabulary).__name__}, which are other tokens to the model; use the vocabulary '
            'toolformer_jax.data.seqio_vocabulary.ShiftedVocabulary, or leave texts as they are '
            'with Feature(seqio.PassThroughVocabulary(1), dtype=tf.string, rank=0)')

  @property
  def tokenizer(self) -> Tokenizer | None:
    """The tokenizer of our vocabulary in the task; None if no feature has it."""
    vocabularies = (getattr(feature, 'vocabulary', None)
                    for feature in self.found.output_features.values())
    return next((vocabulary.tokenizer for vocabulary in vocabularies
                 if isinstance(vocabulary, ShiftedVocabulary)), None)

  @functools.cached_property
  def _shifted(self) -> set[str]:
    """The features with ids of our vocabulary."""
    return {field for field, feature in self.found.output_features.items()
            if isinstance(getattr(feature, 'vocabulary', None), ShiftedVocabulary)}


class _SkippingSource(seqio.DataSource):
  """A data source without its first examples."""

  def __init__(self, source: seqio.DataSource, skipped: int):
    super().__init__(source.splits)
    self._source, self._skipped = source, skipped

  @property
  def supports_arbitrary_sharding(self) -> bool:
    return self._source.supports_arbitrary_sharding

  def list_shards(self, split: str) -> Sequence[str]:
    return self._source.list_shards(split)

  def get_dataset(self, split: str = 'train', shuffle: bool = True, seed: int | None = None,
                  shard_info: seqio.ShardInfo | None = None) -> tf.data.Dataset:
    return self._source.get_dataset(split, shuffle, seed, shard_info).skip(self._skipped)


_DRAWN_AT_ONCE = 65_536


def _draws(rates: np.ndarray, seed: int, block: int) -> np.ndarray:
  """Returns the indices of the tasks of the examples of a block, [_DRAWN_AT_ONCE]."""
  uniform = np.random.default_rng((seed, block)).random(_DRAWN_AT_ONCE)
  return np.searchsorted(np.cumsum(rates / rates.sum())[:-1], uniform, side='right')


def _counts(rates: np.ndarray, seed: int, size: int) -> np.ndarray:
  """Returns how many of the first `size` examples are of each task."""
  counts = np.zeros(len(rates), np.int64)
  for block in range(-(-size // _DRAWN_AT_ONCE)):
    drawn = _draws(rates, seed, block)[:size - block * _DRAWN_AT_ONCE]
    counts += np.bincount(drawn, minlength=len(rates))
  return counts


def _choices(rates: np.ndarray, seed: int, start: int) -> Iterator[int]:
  """Yields the index of the task of each example from number `start` on."""
  for block in itertools.count(start // _DRAWN_AT_ONCE):
    yield from _draws(rates, seed, block)[max(0, start - block * _DRAWN_AT_ONCE):].tolist()


def _chosen(fields: Sequence[str], example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
  return {field: example[field] for field in fields if field in example}
