"""Packs the examples of a task of seqio into the rows that the trainer reads.

For pipelines that are built on seqio, such as t5x:

    dataset = seqio.get_dataset(
        'calls', {'targets': 1024}, dataset_split='train', shuffle=True, seed=0, num_epochs=None,
        shard_info=seqio.ShardInfo(jax.process_index(), jax.process_count()),
        feature_converter=PackedFeatureConverter(tokenizer))
    for batch in dataset.batch(128).as_numpy_iterator():
      rows = packed_rows(batch)

Importing this module loads TensorFlow.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import seqio
import tensorflow as tf

from toolformer_jax.data.seqio_vocabulary import SHIFT
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.training.examples import task_example
from toolformer_jax.training.packing import PackedRows, segments_of
from toolformer_jax.training.sources import LOSS_WEIGHTS, task_row

_FIELDS = ('input_tokens', 'target_tokens', LOSS_WEIGHTS)


class PackedFeatureConverter(seqio.FeatureConverter):
  """Converts `targets`, and `inputs` or `loss_weights` where a task has them, to packed rows.

  The ids are those of `ShiftedVocabulary`. They stay shifted while seqio packs, to which 0 is
  padding, and are shifted back in the rows. A text begins with the tokenizer's start token and ends
  with its end token, as in `packing.segments_of`.
  """

  MODEL_FEATURES = {
    'input_tokens': seqio.FeatureConverter.FeatureSpec(dtype=tf.int32),
    'target_tokens': seqio.FeatureConverter.FeatureSpec(dtype=tf.int32),
    LOSS_WEIGHTS: seqio.FeatureConverter.FeatureSpec(dtype=tf.float32),
  }
  PACKING_FEATURE_DTYPES = {'positions': tf.int32, 'segment_ids': tf.int32}

  def __init__(self, tokenizer: Tokenizer, features: Sequence[str] = ('targets',),
               end_of_text: bool = True):
    """Converts examples with `features`; the length of `targets` is that of a row."""
    self.TASK_FEATURES = {name: self.FeatureSpec(dtype=tf.int32) for name in features}
    # A text that is longer than a row is cut.
    super().__init__(pack=True, apply_length_check=False)
    self._tokenizer, self._end_of_text = tokenizer, end_of_text

  def get_model_feature_lengths(self, task_feature_lengths: Mapping[str, int]) -> dict[str, int]:
    """Returns the length of a row for all that it has."""
    names = (*self.MODEL_FEATURES, *self.PACKING_FEATURE_DTYPES)
    return dict.fromkeys(names, task_feature_lengths['targets'])

  def _convert_features(self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]
                        ) -> tf.data.Dataset:
    row_tokens = task_feature_lengths['targets']
    segments = ds.flat_map(lambda example: self._segments(example, row_tokens))
    return self._pack_or_pad(segments, dict.fromkeys(_FIELDS, row_tokens)).map(
        _shift_back, num_parallel_calls=tf.data.AUTOTUNE)

  def _segments(self, example: Mapping[str, tf.Tensor], row_tokens: int) -> tf.data.Dataset:
    """Returns a data set of the segments of an example, shifted."""
    names = list(self.TASK_FEATURES)
    def cut(*values: tf.Tensor) -> tuple[np.ndarray, ...]:
      fields = {name: value.numpy() - (0 if name == LOSS_WEIGHTS else SHIFT)
                for name, value in zip(names, values, strict=True)}
      found = segments_of([task_example(task_row('seqio', 0, fields), self._tokenizer)],
                          self._tokenizer, row_tokens, self._end_of_text)
      columns = ([s.inputs for s in found], [s.targets for s in found],
                 [s.loss_weights for s in found])
      flat = [np.array(sum(column, []), np.int32) + SHIFT for column in columns]
      return *flat, np.cumsum([0, *(len(segment.inputs) for segment in found)], dtype=np.int32)
    *flat, ends = tf.py_function(cut, [example[name] for name in names], [tf.int32] * 4)
    for value in (*flat, ends):
      value.set_shape([None])
    def segment(first: tf.Tensor, last: tf.Tensor) -> dict[str, tf.Tensor]:
      return {name: values[first:last] for name, values in zip(_FIELDS, flat, strict=True)}
    return tf.data.Dataset.from_tensor_slices((ends[:-1], ends[1:])).map(segment)


def _shift_back(packed: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
  segment_ids_T = packed['target_tokens_segment_ids']
  def back(name: str) -> tf.Tensor:
    return tf.where(segment_ids_T > 0, packed[name] - SHIFT, 0)
  return {'input_tokens': back('input_tokens'), 'target_tokens': back('target_tokens'),
          LOSS_WEIGHTS: tf.cast(back(LOSS_WEIGHTS), tf.float32),
          'positions': packed['target_tokens_positions'], 'segment_ids': segment_ids_T}


def packed_rows(batch: Mapping[str, np.ndarray]) -> PackedRows:
  """Returns a batch of `PackedFeatureConverter`, arrays [R, T], as the trainer has it."""
  names = ('input_tokens', 'target_tokens', 'positions', 'segment_ids', LOSS_WEIGHTS)
  return PackedRows(*(batch[name] for name in names))
