"""Generates the continuations of a list of prompts: a loop over the engine."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax
from toolformer_jax.inference.engine import Engine, EngineConfig, NewText, RequestDone
from toolformer_jax.inference.request import GeneratedText, GenerationConfig
from toolformer_jax.models.language_model import LanguageModel

if TYPE_CHECKING:
  from toolformer_jax.tools.base import Context
  from toolformer_jax.tools.executor import Executor


def generate(
    model: LanguageModel, prompts: Sequence[Sequence[int]], *,
    config: GenerationConfig = GenerationConfig(), engine_config: EngineConfig = EngineConfig(),
    executor: 'Executor | None' = None, tool_names: Sequence[str] | None = None,
    contexts: 'Sequence[Context] | None' = None, syntax: CallSyntax = DEFAULT_SYNTAX,
    seeds: Sequence[int] | None = None,
    on_text: Callable[[int, str], None] | None = None,
) -> list[GeneratedText]:
  """Returns the continuation of each of `prompts`.

  A malformed call, or one whose tool has no result, is taken back; the text continues as if there
  had been none, without further calls (the paper does not say).

  Args:
    model: the model.
    prompts: token ids of each prompt; the start token is put before them if there is one.
    config: how texts are generated.
    engine_config: how many of them at the same time.
    executor: runs the tools that texts may call; None for no tools.
    tool_names: the tools of the executor that may be called; None for all.
    contexts: what tools may know about each text.
    syntax: how calls are spelled.
    seeds: 0 to 2^32 - 1, one for each text, whose samples depend on nothing else; by default
      `config.seed` and the numbers after it.
    on_text: is called with the index of a prompt and the next piece of its continuation as soon as
      that is final; the pieces of a text make up all of it.

  Raises:
    UserError: a prompt is too long for the model, or there is not enough memory.
    ValueError: a prompt has no token, and there is no start token.
  """
  engine = Engine(model, engine_config, executor, tool_names=tool_names, syntax=syntax)
  seeds = range(config.seed, config.seed + len(prompts)) if seeds is None else seeds
  contexts = [None] * len(prompts) if contexts is None else contexts
  for prompt, seed, context in zip(prompts, seeds, contexts, strict=True):
    engine.add_request(prompt, dataclasses.replace(config, seed=int(seed)), context)
  outputs = {}
  while engine.has_unfinished_requests():
    for event in engine.step():
      if isinstance(event, NewText) and on_text:
        on_text(event.request_id, event.text)
      elif isinstance(event, RequestDone):
        outputs[event.request_id] = event.output
  return [outputs[i] for i in range(len(prompts))]
