"""Machine translation to English (paper, section 3), of a text whose language is identified.

Who translates is a back end: Apertium's rules, NLLB (the paper's), or a language model.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from toolformer_jax import calls
from toolformer_jax.tools.base import Context, ToolError, call_one


class Translator(Protocol):
  """A back end of the tool; `version` is of what determines its translations."""

  version: str

  def translate(self, text: str, language: str) -> str:
    """Returns `text` in English; raises ToolError if it does not know `language` (ISO 639)."""


class BatchTranslator(Protocol):
  """A back end that is faster on several texts at once."""

  version: str

  def translate_many(
      self, texts: Sequence[str], languages: Sequence[str]
  ) -> Sequence[str | ToolError]:
    """Returns the translations, each of them or the reason for having none."""


class MachineTranslation:
  """Translates its argument to English."""

  name = 'MT'
  batch = 8

  def __init__(self, translator: Translator | BatchTranslator,
               identify: Callable[[str], tuple[str, float]], least_confidence: float = 0.3):
    """Translates by `translator` from the language that `identify` tells, if it is sure enough.

    An argument is a few words, of which few languages are as certain as of a sentence.
    """
    self._translator, self._identify = translator, identify
    self._least_confidence = least_confidence
    if hasattr(translator, 'time_limit_s'):
      self.time_limit_s = translator.time_limit_s
    self.version = f'{translator.version}-lid.176-{least_confidence}'

  def __call__(self, argument: str, context: Context) -> str:
    """Returns the translation.

    Raises:
      ToolError: there is no text, its language is unknown or English, or there is no translation.
    """
    return call_one(self, argument, context)

  def call_many(
      self, arguments: Sequence[str], contexts: Sequence[Context]
  ) -> Sequence[str | Exception]:
    """Returns the translation of each argument, or what `__call__` would raise."""
    texts = [calls.unquote(argument) for argument in arguments]
    outcomes: list[str | Exception] = [self._language(text) for text in texts]
    known = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, str)]
    translated = self._translate([texts[i] for i in known], [outcomes[i] for i in known])
    for i, outcome in zip(known, translated, strict=True):
      outcomes[i] = outcome
    return outcomes

  def _language(self, text: str) -> str | ToolError:
    """Returns the language of `text`, or the reason for not translating from it."""
    if not text:
      return ToolError('nothing to translate')
    language, confidence = self._identify(text)
    if not language or confidence < self._least_confidence:
      return ToolError('unknown language')
    return ToolError('it is English') if language == 'en' else language

  def _translate(self, texts: Sequence[str], languages: Sequence[str]):
    if hasattr(self._translator, 'translate_many'):
      return self._translator.translate_many(texts, languages) if texts else []
    return [self._translate_one(*pair) for pair in zip(texts, languages, strict=True)]

  def _translate_one(self, text: str, language: str) -> str | Exception:
    try:
      return self._translator.translate(text, language)
    except (ToolError, OSError) as error:
      return error
