"""The tokenizer of a model as a vocabulary of seqio, for tasks to train on and to evaluate.

To seqio id 0 is padding, whatever the tokenizer means by it: packing would lose the token. The
vocabulary therefore adds `SHIFT` to all ids, and whoever trains on them subtracts it again.
Importing this module loads TensorFlow.

    vocabulary = ShiftedVocabulary(Tokenizer.load(pathlib.Path('runs/tuned/model')))
    features = {'targets': seqio.Feature(vocabulary, add_eos=False)}
"""

from collections.abc import Iterable, Sequence

import seqio
import tensorflow as tf

from toolformer_jax.tokenizer import Tokenizer

tf.config.set_visible_devices([], 'GPU')  # TensorFlow would take all of its memory

SHIFT = 1


class ShiftedVocabulary(seqio.Vocabulary):
  """A tokenizer of this package as a vocabulary of seqio, with `SHIFT` added to all token ids."""

  def __init__(self, tokenizer: Tokenizer):
    """Wraps `tokenizer`."""
    super().__init__()
    self.tokenizer = tokenizer

  @property
  def bos_id(self) -> int | None:
    """The shifted id of the start token."""
    start = self.tokenizer.start_id
    return None if start is None else start + SHIFT

  @property
  def eos_id(self) -> int | None:
    """The shifted id of the token that ends a text."""
    ends = sorted(self.tokenizer.end_ids)
    return ends[0] + SHIFT if ends else None

  @property
  def unk_id(self) -> int | None:
    """None: byte-level tokenizers encode every text."""
    return None

  @property
  def _base_vocab_size(self) -> int:
    return self.tokenizer.vocab_size + SHIFT

  def _encode(self, s: str) -> Sequence[int]:
    return [token + SHIFT for token in self.tokenizer.encode(s)]

  def _decode(self, ids: Iterable[int]) -> str:
    return self.tokenizer.decode([int(i) - SHIFT for i in ids if i >= SHIFT])

  def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
    def encode(text: tf.Tensor) -> tf.Tensor:
      return tf.constant(self._encode(text.numpy().decode('utf-8')), tf.int32)
    ids = tf.py_function(encode, [s], tf.int32)
    ids.set_shape([None])
    return ids

  def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
    def decode(row: tf.Tensor) -> str:
      return self._decode(row.numpy().tolist())
    if ids.shape.rank == 1:
      return tf.py_function(decode, [ids], tf.string)
    return tf.map_fn(lambda row: tf.py_function(decode, [row], tf.string), ids,
                     fn_output_signature=tf.string)

  def __eq__(self, other: object) -> bool:
    return (isinstance(other, ShiftedVocabulary)
            and self.tokenizer.token_ids_sha256 == other.tokenizer.token_ids_sha256)

  def __hash__(self) -> int:
    return hash(self.tokenizer.token_ids_sha256)
