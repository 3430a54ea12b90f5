"""Generates the continuations of a list of prompts: a loop over the engine."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax
from toolformer_jax.errors import UserError
from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.inference.engine import Engine
from toolformer_jax.inference.events import NewText, RequestFinished
from toolformer_jax.inference.request import GeneratedText
from toolformer_jax.models.language_model import LanguageModel

if TYPE_CHECKING:
  from toolformer_jax.tools.base import Context
  from toolformer_jax.tools.executor import Executor


def generate(
    model: LanguageModel, prompts: Sequence[Sequence[int]], *,
    config: GenerationConfig = GenerationConfig(), engine_config: EngineConfig = EngineConfig(),
    executor: 'Executor | None' = None, tool_names: Sequence[str] | None = None,
    contexts: 'Sequence[Context] | None' = None, syntax: CallSyntax = DEFAULT_SYNTAX,
    seeds: Sequence[int] | None = None, adapters: Sequence[str | None] | None = None,
    on_text: Callable[[int, str], None] | None = None,
    on_finished: Callable[[int, GeneratedText], None] | None = None,
) -> list[GeneratedText]:
  """Returns the continuation of each of `prompts`.

  A malformed call, or one whose tool returns no result, is removed, and the text continues without
  further calls. The paper leaves this open.

  Args:
    model: the model.
    prompts: token ids of each prompt; the start token of the tokenizer, if any, is prepended.
    config: how texts are generated.
    engine_config: how many of them at the same time.
    executor: runs the tools; None for no tools.
    tool_names: the tools of the executor that may be called; None for all.
    contexts: information about each text for the tools.
    syntax: how calls are spelled.
    seeds: a seed for each text, 0 to 2^32 - 1, on which alone its samples depend; by default
      `config.seed` and the numbers after it.
    adapters: for each text the name of one of the model's adapters, or None for the model as it
      is; see `Engine.add_request`.
    on_text: called with the index of a prompt and the next piece of its continuation, as soon as
      that cannot change any more; the pieces of a text add up to all of it.
    on_finished: called with the index of a prompt and its continuation, as soon as it is finished.

  Raises:
    UserError: a prompt is too long for the model or has no token, there are fewer seeds,
      contexts or adapters than prompts, there is no such adapter, or there is not enough memory.
  """
  engine = Engine(model, engine_config, executor, tool_names=tool_names, syntax=syntax)
  if seeds is None:
    seeds = [(config.seed + i) % 2**32 for i in range(len(prompts))]
  tool_contexts: Sequence[Context | None] = [None] * len(prompts) if contexts is None else contexts
  names = [None] * len(prompts) if adapters is None else adapters
  for name, given in (('seeds', len(seeds)), ('contexts', len(tool_contexts)),
                      ('adapters', len(names))):
    if given != len(prompts):
      raise UserError(f'generate needs as many {name} as prompts: {len(prompts)}, not {given}')
  for prompt, seed, context, adapter in zip(prompts, seeds, tool_contexts, names, strict=True):
    seed = seed.item() if isinstance(seed, np.integer) else seed
    engine.add_request(prompt, dataclasses.replace(config, seed=seed), context,
                       adapter=adapter)
  outputs = {}
  while engine.has_unfinished_requests():
    for event in engine.step():
      if isinstance(event, NewText) and on_text:
        on_text(event.request_id, event.text)
      elif isinstance(event, RequestFinished):
        outputs[event.request_id] = event.output
        if on_finished:
          on_finished(event.request_id, event.output)
  return [outputs[i] for i in range(len(prompts))]


def encode_prompt(model: LanguageModel, name: str, text: str, config: GenerationConfig
                  ) -> list[int]:
  """Returns the token ids of a prompt.

  Raises:
    UserError: it is blank, or too long for the model; errors call it `name`.
  """
  if not isinstance(text, str):
    raise UserError(f'{name} is of type {type(text).__name__}; it must be a string')
  if not text.strip():
    raise UserError(f'{name} is blank')
  ids, positions = model.tokenizer.encode(text), model.config.max_tokens
  size = len(ids) + (model.tokenizer.start_id is not None)
  if size + config.max_tokens > positions:
    raise UserError(f'{name} has {size} tokens, too many for {config.max_tokens} more in the '
                    f'{positions} positions of the model; shorten it')
  return ids
