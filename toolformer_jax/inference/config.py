"""Settings of generation; importing them does not load JAX."""

import dataclasses
from dataclasses import dataclass

from toolformer_jax.errors import UserError
from toolformer_jax.runtime.validation import check


@dataclass(frozen=True)
class GenerationConfig:
  """How one text is generated: greedily, as in the paper, unless the temperature is raised.

  Attributes:
    max_tokens: maximum number of tokens of the continuation, without calls and results.
    min_tokens: minimum number of tokens of the continuation, without calls and results; the end of
      the text is not sampled before.
    max_words: maximum number of words, separated by whitespace, without calls and results; 0 for
      no limit.
    stop: the text ends before the first of these strings. Calls and results are not searched.
    temperature: 0 for greedy decoding.
    top_p: sample from the likeliest tokens whose probabilities add up to this.
    seed: of the samples.
    top_k_api: a call starts wherever its start token is among this many likeliest tokens
      (section 4.2); 1 is plain decoding.
    max_calls: maximum number of calls in a text.
    max_call_tokens: a call that has not reached its arrow after this many tokens is removed.
    disable_tools: never start a call.
  """

  max_tokens: int = 64
  min_tokens: int = 0
  max_words: int = 0
  stop: tuple[str, ...] = ()
  temperature: float = 0.0
  top_p: float = 1.0
  seed: int = 0
  top_k_api: int = 10
  max_calls: int = 1
  max_call_tokens: int = 48
  disable_tools: bool = False

  def __post_init__(self) -> None:
    check(self, max_tokens=(1, 100_000), min_tokens=(0, 100_000), max_words=(0, 100_000),
          temperature=(0.0, 10.0), top_p=(1e-6, 1.0), seed=(0, 2**32 - 1),
          top_k_api=(1, 1_000_000), max_calls=(0, 1000), max_call_tokens=(1, 1000))
    if not all(isinstance(text, str) and text for text in self.stop):
      raise UserError(f'GenerationConfig.stop must hold non-empty strings, not {self.stop!r}')
    if self.min_tokens > self.max_tokens:
      raise UserError(f'GenerationConfig.min_tokens {self.min_tokens} must not exceed max_tokens '
                      f'{self.max_tokens}')

  @property
  def without_calls(self) -> 'GenerationConfig':
    """The same for texts that may have no calls: what only calls use has its default."""
    default = GenerationConfig()
    return dataclasses.replace(self, top_k_api=default.top_k_api, max_calls=default.max_calls,
                               max_call_tokens=default.max_call_tokens)


@dataclass(frozen=True)
class EngineConfig:
  """The size of the engine's batch.

  Attributes:
    slots: maximum number of requests that decode at the same time. Results depend on it only by
      rounding.
    max_model_len: maximum number of tokens of a text with its prompt; 0 for the positions of the
      model.
    few_shapes: use few sizes of batches and caches, so that a server can compile the programs of
      all of them before it starts (`warm_up`).
  """

  slots: int = 32
  max_model_len: int = 0
  few_shapes: bool = False

  def __post_init__(self) -> None:
    check(self, slots=(1, 10_000), max_model_len=(0, 10**9))
