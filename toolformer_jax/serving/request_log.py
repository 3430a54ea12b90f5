"""A line of the log for each request: sizes and times; prompts and texts only where it is asked."""

import json
import logging
from collections.abc import Sequence
from typing import Any

from toolformer_jax.serving.config import ServingConfig
from toolformer_jax.serving.generation import Choice, tool_calls
from toolformer_jax.serving.redaction import Redact, redactor
from toolformer_jax.tokenizer import Tokenizer

log = logging.getLogger(__name__)


class RequestLog:
  """Logs each request that has ended."""

  def __init__(self, config: ServingConfig, tokenizer: Tokenizer):
    """Creates a log that writes and masks what `config` says."""
    self._content, self._redact, self._tokenizer = config.log_content, redactor(config), tokenizer

  def write(self, request_id: str, choices: Sequence[Choice], seconds: float, *, aborted: bool
            ) -> None:
    """Logs a request that has ended.

    Args:
      request_id: of the response.
      choices: the texts of the request.
      seconds: from its arrival to its end.
      aborted: whether a choice without output was aborted; if not, its prompt was only scored.
    """
    for choice in choices:
      output = choice.output
      log.info('%s %s: %d prompt tokens, %d tokens, %d calls, %.2f s', request_id,
               output.finish_reason if output else 'abort' if aborted else 'length',
               len(choice.prompt.ids), len(output.token_ids) if output else 0, len(choice.calls),
               seconds)
      if self._content:
        content = {'prompt': self._tokenizer.decode(choice.prompt.ids), 'text': choice.text,
                   'calls': tool_calls(choice.calls)}
        log.info('%s %s', request_id, json.dumps(_redacted(content, self._redact),
                                                 ensure_ascii=False))


def _redacted(value: Any, redact: Redact) -> Any:
  """Returns a structure with all of its texts masked."""
  if isinstance(value, str):
    return redact(value)
  if isinstance(value, dict):
    return {name: _redacted(member, redact) for name, member in value.items()}
  return [_redacted(member, redact) for member in value] if isinstance(value, list) else value
