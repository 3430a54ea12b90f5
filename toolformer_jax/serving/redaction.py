"""Masks personal data: numbers, addresses, and the names of a list."""

import re
from collections.abc import Callable, Sequence

from toolformer_jax.serving.config import ServingConfig
from toolformer_jax.tools.base import BatchTool, Context, Tool

Redact = Callable[[str], str]

_NUMBER = re.compile(r'\d(?:[ .,/-]?\d){3,}')
_ADDRESS = re.compile(
    r'[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+'  # of mail
    r'|\b(?:https?://|www\.)\S+'
    r'|\b\d{1,3}(?:\.\d{1,3}){3}\b'  # IPv4
    r'|(?<![\w:])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{1,4}\b', re.IGNORECASE)  # IPv6


def redactor(config: ServingConfig) -> Redact:
  """Returns what masks a text as the configuration says."""
  patterns: list[tuple[re.Pattern, str]] = []
  if 'addresses' in config.redact:  # before the names: an address may contain one
    patterns.append((_ADDRESS, '<address>'))
  if config.redact_names:
    names = sorted(config.redact_names, key=len, reverse=True)
    # Not \b: a name may begin or end with a character that belongs to no word.
    patterns.append((re.compile(rf'(?<!\w)(?:{"|".join(map(re.escape, names))})(?!\w)',
                                re.IGNORECASE), '<name>'))
  if 'numbers' in config.redact:
    patterns.append((_NUMBER, '<number>'))
  def redact(text: str) -> str:
    for pattern, mask in patterns:
      text = pattern.sub(mask, text)
    return text
  return redact


def redacted_tool(tool: Tool, redact: Redact) -> Tool:
  """Returns the same tool, which gets its arguments masked."""
  return _RedactedBatch(tool, redact) if isinstance(tool, BatchTool) else _Redacted(tool, redact)


class _Redacted:
  """A tool whose arguments are masked."""

  def __init__(self, tool: Tool, redact: Redact):
    self.name, self.version = tool.name, f'{tool.version}-redacted'
    self._tool, self._redact = tool, redact
    if hasattr(tool, 'time_limit_s'):
      self.time_limit_s = tool.time_limit_s

  def __call__(self, argument: str, context: Context) -> str:
    return self._tool(self._redact(argument), context)


class _RedactedBatch(_Redacted):
  """The same for a tool that takes several arguments at once."""

  def __init__(self, tool: BatchTool, redact: Redact):
    super().__init__(tool, redact)
    self._batch_tool, self.batch = tool, tool.batch

  def call_many(self, arguments: Sequence[str], contexts: Sequence[Context]
                ) -> Sequence[str | Exception]:
    return self._batch_tool.call_many([self._redact(argument) for argument in arguments], contexts)
