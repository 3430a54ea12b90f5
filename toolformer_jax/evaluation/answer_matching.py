"""Is a prediction right? The rules of the paper, section 4.2, to the letter.

What is judged is the continuation without its calls. Where the paper is silent,
`EvaluationConfig` says what is done.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from toolformer_jax.evaluation.config import EvaluationConfig

_NUMBER = re.compile(r'((?<![\w).])[-−])?\$?((?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)')
_FOLDED = re.compile(r'[\W_]+')


@dataclass(frozen=True)
class Rule:
  """How a prediction is judged.

  Attributes:
    words: the answer must stand among the first so many words; 0 for word problems: it must be the
      first number, or that after the first `=` if the prediction has an equation (footnote 7).
  """

  words: int

  def __str__(self) -> str:
    return f'first {self.words} words' if self.words else 'first number, or first after ='


@dataclass(frozen=True)
class Verdict:
  """Whether a prediction is right, and the part of it that was looked at."""

  correct: bool
  extracted: str


def judge(rule: Rule, prediction: str, answers: Sequence[str],
          settings: EvaluationConfig) -> Verdict:
  """Returns the verdict on `prediction`, from which calls have been removed."""
  answers = answers if settings.aliases else answers[:1]
  if rule.words:
    extracted = first_words(prediction, rule.words)
    return Verdict(any(contains(extracted, answer, settings) for answer in answers), extracted)
  extracted = predicted_number(prediction)
  right = extracted is not None and any(
      abs(number(extracted) - number(answer)) <= Fraction(str(settings.number_tolerance))
      for answer in answers)
  return Verdict(right, extracted or '')


def first_words(text: str, count: int) -> str:
  """Returns the first `count` words of `text`."""
  return ' '.join(text.split()[:count])


def contains(text: str, answer: str, settings: EvaluationConfig) -> bool:
  """Tells whether `answer` stands in `text`."""
  # An answer of nothing but symbols is looked for as it stands.
  fold = settings.fold_punctuation and bool(_FOLDED.sub('', answer))
  text, answer = (_normalised(part, settings.fold_case, fold) for part in (text, answer))
  if settings.whole_words:
    return bool(answer) and bool(re.search(rf'(?<!\w){re.escape(answer)}(?!\w)', text))
  return bool(answer) and answer in text


def _normalised(text: str, fold_case: bool, fold_punctuation: bool) -> str:
  text = unicodedata.normalize('NFKC', text)
  text = text.casefold() if fold_case else text
  return ' '.join((_FOLDED.sub(' ', text) if fold_punctuation else text).split())


def predicted_number(text: str) -> str | None:
  """Returns the first number of `text`; with an equation in it, the first number after `=`."""
  _, equals, after = text.partition('=')
  found = (_NUMBER.search(after) if equals else None) or _NUMBER.search(text)
  return found[0] if found else None


def number(text: str) -> Fraction:
  """Returns the value of the first number in `text`.

  Raises:
    ValueError: there is none.
  """
  found = numbers(text)
  if not found:
    raise ValueError(f'no number: {text!r}')
  return found[0]


def numbers(text: str) -> list[Fraction]:
  """Returns the values of all numbers in `text`."""
  return [Fraction(found[2].replace(',', '')) * (-1 if found[1] else 1)
          for found in _NUMBER.finditer(text)]
