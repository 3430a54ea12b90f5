"""Machine translation to English (paper, section 3). The source language is detected.

`PairTranslation` translates between given languages, also from English. There are three backends:
Apertium (rules), NLLB (as in the paper), and a language model.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from toolformer_jax import calls
from toolformer_jax.errors import UserError
from toolformer_jax.tools.base import Context, ToolError, call_one


class Translator(Protocol):
  """A backend. `version` changes whenever translations may change. Languages are ISO 639 codes."""

  version: str

  def check_pair(self, source: str, target: str) -> None:
    """Raises ToolError if it cannot translate from `source` into `target`."""
    ...

  def translate(self, text: str, language: str, target: str = 'en') -> str:
    """Returns `text` in `target`; one of the two languages is English.

    Raises:
      ToolError: there is no translation, for instance because the pair is not supported.
    """
    ...


@runtime_checkable
class BatchTranslator(Protocol):
  """A backend that translates several texts at once."""

  version: str

  def check_pair(self, source: str, target: str) -> None:
    """Raises ToolError if it cannot translate from `source` into `target`."""
    ...

  def translate_many(
      self, texts: Sequence[str], languages: Sequence[str], target: str = 'en'
  ) -> Sequence[str | ToolError]:
    """Returns for each text its translation or a ToolError."""
    ...


class MachineTranslation:
  """Translates its argument to English."""

  name = 'MT'
  batch = 8

  def __init__(self, translator: Translator | BatchTranslator,
               identify: Callable[[str], tuple[str, float]], least_confidence: float = 0.3):
    """Creates the tool.

    Args:
      translator: the backend.
      identify: returns the ISO 639 code of the language of a text, and its probability.
      least_confidence: lowest probability of the language. It is low, because the language of a
        few words is less certain than that of a sentence.
    """
    self._translator, self._identify = translator, identify
    self._least_confidence = least_confidence
    if hasattr(translator, 'time_limit_s'):
      self.time_limit_s = translator.time_limit_s
    self.version = f'{translator.version}-lid.176-{least_confidence}'

  def __call__(self, argument: str, context: Context) -> str:
    """Returns the translation.

    Raises:
      ToolError: the argument is empty, its language is uncertain or English, or the backend has
        no translation.
    """
    return call_one(self, argument, context)

  def call_many(
      self, arguments: Sequence[str], contexts: Sequence[Context]
  ) -> Sequence[str | Exception]:
    """Returns for each argument its translation, or the exception that `__call__` would raise."""
    texts = [calls.unquote(argument) for argument in arguments]
    outcomes: list[str | Exception] = [self._language(text) for text in texts]
    known = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, str)]
    languages = [outcome for outcome in outcomes if isinstance(outcome, str)]
    translated = _translate(self._translator, [texts[i] for i in known], languages, 'en')
    for i, outcome in zip(known, translated, strict=True):
      outcomes[i] = outcome
    return outcomes

  def _language(self, text: str) -> str | ToolError:
    """Returns the language of `text`, or a ToolError if it cannot be translated."""
    if not text:
      return ToolError('nothing to translate')
    language, confidence = self._identify(text)
    if not language or confidence < self._least_confidence:
      return ToolError('unknown language')
    return ToolError('it is English') if language == 'en' else language

  def of_pair(self, source: str, target: str) -> 'PairTranslation':
    """Returns a tool that translates from one language into another, with the same backend.

    Raises:
      UserError: the backend cannot.
    """
    return PairTranslation(self._translator, source, target)


class PairTranslation:
  """Translates its argument between two given languages, one of which is English."""

  name = 'MT'
  batch = 8

  def __init__(self, translator: Translator | BatchTranslator, source: str, target: str):
    """Creates the tool; languages are ISO 639 codes.

    Raises:
      UserError: the translator has no such pair.
    """
    try:
      translator.check_pair(source, target)
    except ToolError as error:
      raise UserError(f'translation from {source} into {target}: {error}') from error
    self._translator, self._source, self._target = translator, source, target
    if hasattr(translator, 'time_limit_s'):
      self.time_limit_s = translator.time_limit_s
    self.version = f'{translator.version}-{source}-{target}'

  def __call__(self, argument: str, context: Context) -> str:
    """Returns the translation.

    Raises:
      ToolError: there is none.
    """
    return call_one(self, argument, context)

  def call_many(
      self, arguments: Sequence[str], contexts: Sequence[Context]
  ) -> Sequence[str | Exception]:
    """Returns for each argument its translation, or the exception that `__call__` would raise."""
    return _translate(self._translator, arguments, [self._source] * len(arguments), self._target)


def pair_outcomes(translator: BatchTranslator, languages: Sequence[str], target: str
                  ) -> tuple[list[str | ToolError], list[int]]:
  """Returns an outcome for each language, '' or the error of `check_pair`, and the places of ''."""
  outcomes: list[str | ToolError] = []
  for language in languages:
    try:
      translator.check_pair(language, target)
      outcomes.append('')
    except ToolError as error:
      outcomes.append(error)
  return outcomes, [i for i, outcome in enumerate(outcomes) if isinstance(outcome, str)]


def _translate(translator: Translator | BatchTranslator, texts: Sequence[str],
               languages: Sequence[str], target: str) -> list[str | Exception]:
  if isinstance(translator, BatchTranslator):
    return list(translator.translate_many(texts, languages, target)) if texts else []
  return [_translate_one(translator, *pair, target) for pair in zip(texts, languages, strict=True)]


def _translate_one(translator: Translator, text: str, language: str, target: str
                   ) -> str | Exception:
  try:
    return translator.translate(text, language, target)
  except (ToolError, OSError) as error:
    return error
