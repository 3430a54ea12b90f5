"""Decides whether a prediction is right, by the rules of the paper (section 4.2).

A prediction is the continuation without its calls. `EvaluationConfig` has a setting for each
detail that the paper leaves open.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from toolformer_jax.data.numbers import find_numbers
from toolformer_jax.evaluation.config import EvaluationConfig

_FOLDED = re.compile(r'[\W_]+')


@dataclass(frozen=True)
class Verdict:
  """Whether a prediction is right, and the part of it that was compared."""

  correct: bool
  extracted: str


@dataclass(frozen=True)
class FirstWords:
  """An answer must be among the first words of the prediction.

  Attributes:
    count: how many words.
  """

  count: int

  def __str__(self) -> str:
    return f'first {self.count} words'

  @property
  def max_words(self) -> int:
    """After how many words generation stops."""
    return self.count

  def max_tokens(self, config: EvaluationConfig) -> int:
    """Returns after how many tokens generation stops at the latest."""
    return self.count * config.tokens_per_word

  def judge(self, prediction: str, answers: Sequence[str], config: EvaluationConfig) -> Verdict:
    """Returns the verdict on `prediction`, which holds no calls."""
    extracted = first_words(prediction, self.count)
    return Verdict(any(contains(extracted, answer, config) for answer in _counted(answers, config)),
                   extracted)


@dataclass(frozen=True)
class FirstNumber:
  """The answer must be the first number, or the first after `=` in an equation (footnote 7)."""

  max_words: int = 0  # generation does not count words

  def __str__(self) -> str:
    return 'first number, or first after ='

  def max_tokens(self, config: EvaluationConfig) -> int:
    """Returns after how many tokens generation stops."""
    return config.number_tokens

  def judge(self, prediction: str, answers: Sequence[str], config: EvaluationConfig) -> Verdict:
    """Returns the verdict on `prediction`, which holds no calls."""
    extracted = predicted_number(prediction)
    right = extracted is not None and any(
        abs(number(extracted) - number(answer)) <= Fraction(str(config.number_tolerance))
        for answer in _counted(answers, config))
    return Verdict(right, extracted or '')


Rule = FirstWords | FirstNumber


def _counted(answers: Sequence[str], config: EvaluationConfig) -> Sequence[str]:
  """Returns the answers that count as right."""
  return answers if config.aliases else answers[:1]


def first_words(text: str, count: int) -> str:
  """Returns the first `count` words of `text`."""
  return ' '.join(text.split()[:count])


def contains(text: str, answer: str, config: EvaluationConfig) -> bool:
  """Tells whether `answer` stands in `text`."""
  # An answer of nothing but symbols is looked for as it stands.
  fold = config.fold_punctuation and bool(_FOLDED.sub('', answer))
  text, answer = (_normalised(part, config.fold_case, fold) for part in (text, answer))
  if config.whole_words:
    return bool(answer) and bool(re.search(rf'(?<!\w){re.escape(answer)}(?!\w)', text))
  return bool(answer) and answer in text


def _normalised(text: str, fold_case: bool, fold_punctuation: bool) -> str:
  text = unicodedata.normalize('NFKC', text)
  text = text.casefold() if fold_case else text
  return ' '.join((_FOLDED.sub(' ', text) if fold_punctuation else text).split())


def predicted_number(text: str) -> str | None:
  """Returns the first number of `text`; with an equation in it, the first number after `=`."""
  _, equals, after = text.partition('=')
  found = (_first(after) if equals else None) or _first(text)
  return found and found[0]


def number(text: str) -> Fraction:
  """Returns the value of the first number in `text`.

  Raises:
    ValueError: there is none.
  """
  found = _first(text)
  if not found:
    raise ValueError(f'no number: {text!r}')
  return found[1]


def numbers(text: str) -> list[Fraction]:
  """Returns the values of all numbers in `text`."""
  return [found.value for found in find_numbers(text)]


def _first(text: str) -> tuple[str, Fraction] | None:
  """Returns the first number as it stands in `text`, and its value."""
  found = next(find_numbers(text), None)
  return found and (text[found.start:found.end], found.value)
