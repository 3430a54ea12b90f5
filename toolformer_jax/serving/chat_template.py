"""Formats a conversation as a prompt with the checkpoint's chat template."""

import datetime
import json
import re
from collections.abc import Sequence
from typing import Any, NoReturn

import jinja2
import jinja2.sandbox

from toolformer_jax.errors import UserError
from toolformer_jax.serving.errors import ApiError
from toolformer_jax.tokenizer import Tokenizer

# For models that were trained on no conversation.
PLAIN = ('{% for message in messages %}{{ message.role | capitalize }}: {{ message.content }}\n'
         '{% endfor %}Assistant:')
_PLAIN_STOP = ('\nUser:',)
# Stand in messages for what looks like a special token while the template is rendered.
_BEGIN, _END = '\uf8ff', '\uf8fe'


class ChatTemplate:
  """Encodes conversations.

  Attributes:
    add_start_token: whether the start token comes before the prompt; templates have their own.
    stop: strings at which an answer ends, besides the model's own end.
  """

  def __init__(self, tokenizer: Tokenizer, max_chars: int | None = None):
    """Compiles the template, in Jinja's sandbox: it comes with a checkpoint.

    Args:
      tokenizer: has the template.
      max_chars: of a prompt; None for no limit.

    Raises:
      UserError: it is broken.
    """
    self._tokenizer, self._max_chars = tokenizer, max_chars
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=['jinja2.ext.loopcontrols'])
    environment.filters['tojson'] = _to_json
    environment.globals |= {'raise_exception': _refuse, 'strftime_now': _now}
    try:
      self._template = environment.from_string(tokenizer.chat_template or PLAIN)
    except jinja2.TemplateError as error:
      raise UserError(f'the chat template of the checkpoint is broken: {error}') from error
    self.add_start_token = not tokenizer.chat_template
    self.stop = () if tokenizer.chat_template else _PLAIN_STOP
    self._special = [*tokenizer.special_tokens, _BEGIN]
    self._special_pattern = re.compile('|'.join(map(
        re.escape, sorted(self._special, key=len, reverse=True))))

  def encode(self, messages: Sequence[dict[str, str]]) -> list[int]:
    """Returns the ids of a conversation up to where the assistant answers.

    What looks like a special token in a message is read as plain text.

    Raises:
      ApiError: the template refuses the messages, or the prompt is too long.
    """
    hidden = [{**message, 'content': self._hide(message['content'])} for message in messages]
    names: dict[int | None, str] = {i: name for name, i in self._tokenizer.special_tokens.items()}
    try:
      text = self._template.render(
          messages=hidden, add_generation_prompt=True, tools=None,
          bos_token=names.get(self._tokenizer.bos_id, ''),
          eos_token=names.get(self._tokenizer.eos_id, ''))
    except Exception as error:  # whatever a template does
      raise ApiError(400, f'the chat template refuses these messages: {error}', param='messages',
                     code='invalid_value') from error
    check_chars(text, self._max_chars)
    return self._encode(text)

  def prompt_tokens(self, ids: Sequence[int]) -> int:
    """Returns the number of tokens of an encoded conversation, with the start token if it gets one.
    """
    return len(ids) + (self.add_start_token and self._tokenizer.start_id is not None)

  def _hide(self, text: str) -> str:
    return self._special_pattern.sub(
        lambda found: f'{_BEGIN}{self._special.index(found[0])}{_END}', text)

  def _show(self, text: str) -> str:
    return re.sub(f'{_BEGIN}(\\d+){_END}', lambda found: self._special[int(found[1])], text)

  def _encode(self, text: str) -> list[int]:
    ids, at = [], 0
    for found in self._special_pattern.finditer(text):
      if found[0] != _BEGIN:
        ids += self._tokenizer.encode(self._show(text[at:found.start()]))
        ids.append(self._tokenizer.special_tokens[found[0]])
        at = found.end()
    return ids + self._tokenizer.encode(self._show(text[at:]))


def check_chars(text: str, max_chars: int | None) -> None:
  """Raises ApiError if a prompt is longer than any that fits: those are slow to encode."""
  if max_chars is not None and len(text) > max_chars:
    raise ApiError(400, f'The prompt has {len(text)} characters. None of more than {max_chars} '
                   "fits into the model's maximum context length; shorten it.", param='prompt',
                   code='context_length_exceeded')


def _to_json(value: Any, indent: int | None = None) -> str:
  return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
  raise jinja2.TemplateError(message)


def _now(form: str) -> str:
  return datetime.datetime.now().strftime(form)
