"""Validates the fields of a request and converts them to engine settings."""

import dataclasses
import datetime
import functools
import secrets
import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass

from toolformer_jax.calls import CallSyntax
from toolformer_jax.data.dates import parse_iso_date
from toolformer_jax.inference.config import GenerationConfig
from toolformer_jax.models.adapter_stack import adapter_names
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.serving.config import ServingConfig
from toolformer_jax.serving.errors import ApiError
from toolformer_jax.serving.protocol import CompletionRequest, GenerationFields
from toolformer_jax.tools.base import Context

_SEEDS = 2**32


@dataclass(frozen=True)
class Service:
  """What the server serves, and within which limits.

  Attributes:
    model: generates the texts.
    name: of the model, for clients.
    tool_names: the tools that texts may call.
    generation: the settings of requests that say nothing else.
    limits: of requests.
    syntax: how calls are spelled.
    max_model_len: tokens of the longest text, prompt included.
    max_prompt_chars: no prompt with more characters has so few tokens.
  """

  model: LanguageModel
  name: str
  tool_names: tuple[str, ...]
  generation: GenerationConfig
  limits: ServingConfig
  syntax: CallSyntax
  max_model_len: int
  max_prompt_chars: int

  def max_body_bytes(self, kind: type[GenerationFields]) -> int:
    """Returns how large the body of a request of this kind may be.

    Chats and responses may have pictures and sounds, which base64 makes longer by a third.
    """
    limit = self.limits.max_body_bytes
    if self.tool_names and kind is not CompletionRequest:
      limit += 4 * -(-self.limits.max_media_bytes // 3)
    return limit

  @property
  def names(self) -> list[str]:
    """The names that a request may give as its model: the model's, and those of its adapters."""
    return [self.name, *adapter_names(self.model)]

  def adapter(self, name: str) -> str | None:
    """Returns the adapter that a request asks for as its model; None for the model itself.

    Raises:
      ApiError: there is neither a model nor an adapter of this name.
    """
    if name not in self.names:
      raise ApiError(404, f'the model {name[:100]!r} does not exist; this server has '
                     f'{", ".join(map(repr, self.names))}', param='model', code='model_not_found')
    return None if name == self.name else name

  def check_n(self, n: int) -> None:
    """Raises ApiError if these are more texts than a request may ask for."""
    if n > self.limits.max_n:
      raise ApiError(400, f'at most {self.limits.max_n} texts a request, n for each prompt; these '
                     f'are {n}', param='n', code='invalid_value')

  def tools_in_text(self, asked: bool | None) -> bool:
    """Returns whether the text contains the calls."""
    return self.limits.tools_in_text if asked is None else asked

  def tools(self, allowed: Sequence[str] | None) -> list[str]:
    """Returns the tools that a request may call: those of the server, or fewer.

    Raises:
      ApiError: the server has no such tool.
    """
    if allowed is None:
      return list(self.tool_names)
    known = {name.lower(): name for name in self.tool_names}
    for name in allowed:
      if name.lower() not in known:
        raise ApiError(400, f'this server has no tool {name[:100]!r}; it has '
                       f'{", ".join(self.tool_names) or "none"}', param='allowed_tools',
                       code='unknown_tool')
    return list(dict.fromkeys(known[name.lower()] for name in allowed))

  def stop(self, stop: str | Sequence[str] | None) -> tuple[str, ...]:
    """Returns the stop strings of a request.

    Raises:
      ApiError: there are too many, or one is empty or too long.
    """
    if stop is None:
      return self.generation.stop
    strings = (stop,) if isinstance(stop, str) else tuple(stop)
    if len(strings) > self.limits.max_stop:
      raise ApiError(400, f'stop: at most {self.limits.max_stop} strings', param='stop',
                     code='invalid_value')
    for text in strings:
      if not 0 < len(text) <= self.limits.max_stop_chars:
        raise ApiError(400, f'stop: a string must have 1 to {self.limits.max_stop_chars} '
                       'characters', param='stop', code='invalid_value')
    return strings

  def max_tokens(self, asked: int | None, otherwise: int, prompt_tokens: int, param: str) -> int:
    """Returns the longest continuation of a prompt.

    Raises:
      ApiError: the request asks for too much, or the prompt leaves no room for it.
    """
    room = self.max_model_len - prompt_tokens
    if asked is not None and asked > self.limits.max_tokens:
      raise ApiError(400, f'{param} may be {self.limits.max_tokens} at most', param=param,
                     code='invalid_value')
    if room < (1 if asked is None else asked):
      raise ApiError(400, f'This model\'s maximum context length is {self.max_model_len} tokens. '
                     f'The prompt has {prompt_tokens} tokens, and the request asks for '
                     f'{asked or 1} more; shorten either.',
                     param='prompt' if param == 'max_tokens' else None,
                     code='context_length_exceeded')
    return min(otherwise, self.limits.max_tokens, room) if asked is None else asked

  def context(self, fields: GenerationFields) -> Context:
    """Returns what tools may know: the date that the request gives, or today's in its time zone.

    Raises:
      ApiError: the date or the time zone is invalid.
    """
    zone = None
    if fields.timezone is not None:
      if fields.timezone not in _timezones():
        raise ApiError(400, f'timezone: there is no {fields.timezone[:100]!r}; write for instance '
                       "'Europe/Paris'", param='timezone', code='invalid_value')
      zone = zoneinfo.ZoneInfo(fields.timezone)
    if fields.date is not None and parse_iso_date(fields.date) is None:
      raise ApiError(400, f'date: {fields.date[:100]!r} is not a date of the form 2023-01-30',
                     param='date', code='invalid_value')
    return Context(date=fields.date or datetime.datetime.now(zone).date().isoformat())

  def params(self, fields: GenerationFields, *, max_tokens: int, seed: int | None = None,
             stop: tuple[str, ...] = (), min_tokens: int | None = None) -> GenerationConfig:
    """Returns the settings of a text.

    Raises:
      ApiError: a tool is allowed that the server does not have, or the least number of tokens is
        above the largest.
    """
    own = self.generation
    if min_tokens is not None and min_tokens > max_tokens:
      raise ApiError(400, f'min_tokens {min_tokens} must not exceed max_tokens {max_tokens}',
                     param='min_tokens', code='invalid_value')
    temperature = own.temperature if fields.temperature is None else float(fields.temperature)
    if seed is None:
      seed = secrets.randbelow(_SEEDS) if temperature else own.seed
    return dataclasses.replace(
        own, max_tokens=max(max_tokens, 1), temperature=temperature,
        top_p=own.top_p if fields.top_p is None else float(fields.top_p), seed=seed % _SEEDS,
        stop=stop, min_tokens=min(own.min_tokens, max_tokens) if min_tokens is None else min_tokens,
        disable_tools=own.disable_tools or not self.tools(fields.allowed_tools))


@functools.cache
def _timezones() -> frozenset[str]:
  """Returns all names of time zones, which are read from many files."""
  return frozenset(zoneinfo.available_timezones())


def reseeded(params: GenerationConfig, number: int) -> GenerationConfig:
  """Returns the settings of text `number` of a request: as `generate` does, with a seed of its own.
  """
  return dataclasses.replace(params, seed=(params.seed + number) % _SEEDS)
