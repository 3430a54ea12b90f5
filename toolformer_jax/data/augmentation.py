"""Changed copies of texts: some words are left out, and some change places with the next one.

They are for small sets, which would be learned by heart; after Wei and Zou 2019, "EDA: Easy Data
Augmentation Techniques for Boosting Performance on Text Classification Tasks". Words are what
stands between spaces, so that Chinese stays as it is.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolformer_jax.data.content_hash import stable_hash
from toolformer_jax.runtime.validation import check

if TYPE_CHECKING:
  import tensorflow as tf


@dataclass(frozen=True)
class AugmentationConfig:
  """How copies of texts are changed. With both rates 0 there are no copies.

  Attributes:
    copies: changed copies of each text; those that are equal to the text are left out.
    word_dropout: probability with which a word is left out. A line keeps at least one.
    word_swap: probability with which a word changes places with the next one.
  """

  copies: int = 1
  word_dropout: float = 0.0
  word_swap: float = 0.0

  def __post_init__(self) -> None:
    check(self, copies=(1, 1000), word_dropout=(0.0, 1.0), word_swap=(0.0, 1.0))


def changed_text(text: str, config: AugmentationConfig, seed: int, copy: int = 0) -> str:
  """Returns a changed copy of a text, which depends on the arguments alone.

  The last of several lines stays: in a prompt it names what is asked for.

  Args:
    text: the text.
    config: how much is changed.
    seed: of the changes.
    copy: number of the copy; each has changes of its own.
  """
  rng = random.Random(stable_hash(seed, copy, text))
  *lines, last = text.split('\n')
  if not lines:
    return _changed_line(last, config, rng)
  return '\n'.join([*(_changed_line(line, config, rng) for line in lines), last])


def _changed_line(line: str, config: AugmentationConfig, rng: random.Random) -> str:
  words = line.split(' ')
  kept = [word for word in words if rng.random() >= config.word_dropout] or [rng.choice(words)]
  place = 0
  while place < len(kept) - 1:
    if rng.random() < config.word_swap:
      kept[place:place + 2] = reversed(kept[place:place + 2])
      place += 1  # a word moves by one place at most
    place += 1
  return ' '.join(kept)


def preprocessor(config: AugmentationConfig, *, seed: int = 0, feature: str = 'inputs'
                 ) -> 'Callable[[tf.data.Dataset], tf.data.Dataset]':
  """Returns a preprocessor of seqio that changes a text of each example.

  It is deterministic and may come before the placeholder of the cache, before texts are tokenized.
  It adds no copies: `config.copies` has no effect. A mixture of a task with it and the task without
  it has both.

  Args:
    config: how much is changed.
    seed: of the changes.
    feature: name of the text.
  """
  import tensorflow as tf  # slow to import
  def changed(text: bytes) -> bytes:
    return changed_text(text.decode(), config, seed).encode()
  def change(example: dict) -> dict:
    text = tf.numpy_function(changed, [example[feature]], tf.string, stateful=False)
    text.set_shape([])
    return {**example, feature: text}
  return lambda dataset: dataset.map(change)
