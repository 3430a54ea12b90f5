"""Translates texts into another language and back, as an augmentation of small data sets.

Such copies say the same in other words (Sennrich et al. 2016, "Improving Neural Machine Translation
Models with Monolingual Data"); `data.augmentation` changes single words.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from toolformer_jax.data.content_hash import stable_hash
from toolformer_jax.errors import UserError
from toolformer_jax.tools.call_store import CallStore
from toolformer_jax.tools.executor import Executor, ExecutorConfig, Request
from toolformer_jax.tools.mt import MachineTranslation

if TYPE_CHECKING:
  import tensorflow as tf

log = logging.getLogger(__name__)
_LIMITS = ExecutorConfig(max_result_chars=100_000, workers=1)


class BackTranslation:
  """Translates a share of all texts into another language and back.

  It has threads: use it as a context manager, or close it, when no text is left to change. Which
  texts are translated depends on the seed and the text alone. A line that cannot be translated
  stays as it is, with a warning.

  Attributes:
    num_failed: the lines that stayed as they were because a translation failed.
  """

  def __init__(self, mt: MachineTranslation, through: str, *, rate: float, language: str = 'en',
               seed: int = 0, store: CallStore | None = None, limits: ExecutorConfig = _LIMITS):
    """Finds the two pairs of languages.

    Args:
      mt: the tool of translation, whose backend translates in both directions.
      through: the other language, an ISO 639 code such as 'es'.
      rate: the share of the texts that are translated; at 0 all stay as they are.
      language: of the texts; it or `through` is English.
      seed: of the choice of texts.
      store: keeps translations, so that each text is translated once, also by later runs.
      limits: of a translation.

    Raises:
      UserError: the rate is not between 0 and 1, or the backend lacks one of the two pairs.
    """
    if not 0 <= rate <= 1:
      raise UserError(f'back-translation: the rate must be between 0 and 1, not {rate}')
    self._rate, self._seed, self.num_failed = rate, seed, 0
    pairs = ((language, through), (through, language)) if rate else ()
    tools = [mt.of_pair(*pair) for pair in pairs]  # both, before a thread is started
    self._executors = [Executor([tool], limits, store=store) for tool in tools]

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def close(self) -> None:
    """Ends the threads. The backend of the tool is left as it is."""
    for executor in self._executors:
      executor.close()

  def changed_text(self, text: str) -> str:
    """Returns a text translated and translated back, or as it is.

    The last of several lines stays: in a prompt it names what is asked for.
    """
    if int.from_bytes(stable_hash(self._seed, text)[:8], 'big') >= self._rate * 2**64:
      return text
    *lines, last = text.split('\n')
    if not lines:
      return self._changed_line(last)
    return '\n'.join([*map(self._changed_line, lines), last])

  def _changed_line(self, line: str) -> str:
    changed = line
    for executor in self._executors if line.strip() else ():
      outcome, = executor.run([Request('MT', changed)])
      if outcome.result is None:
        self._warn(outcome.failure)
        return line
      changed = outcome.result
    return changed

  def _warn(self, reason: str | None) -> None:
    """Counts a failure, and logs the first, the tenth, the hundredth and so on."""
    self.num_failed += 1
    if str(self.num_failed).rstrip('0') == '1':
      log.warning('back-translation: %d lines stay as they are; the last one: %s',
                  self.num_failed, reason)

  def preprocessor(self, feature: str = 'inputs') -> 'Callable[[tf.data.Dataset], tf.data.Dataset]':
    """Returns a preprocessor of seqio that changes a text of each example.

    It is deterministic if the backend is, and may come before the placeholder of the cache, before
    texts are tokenized. It adds no copies: a mixture of a task with it and the task without it has
    both.

    Args:
      feature: name of the text.
    """
    import tensorflow as tf  # slow to import
    def changed(text: bytes) -> bytes:
      return self.changed_text(text.decode()).encode()
    def change(example: dict) -> dict:
      text = tf.numpy_function(changed, [example[feature]], tf.string, stateful=False)
      text.set_shape([])
      return {**example, feature: text}
    return lambda dataset: dataset.map(change) if self._rate else dataset
