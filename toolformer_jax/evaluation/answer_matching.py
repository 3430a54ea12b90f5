"""Decides whether a prediction is correct, by the criteria of the paper (section 4.2).

A prediction is the generated continuation without its calls. `EvaluationConfig` has a setting for
each detail that the paper leaves open.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from toolformer_jax.data.numbers import Number, find_numbers, parse_number
from toolformer_jax.evaluation.config import EvaluationConfig

_PUNCTUATION = re.compile(r'[\W_]+')
# Digits that begin a word, with their separators, a sign and the end of an ordinal number.
_DIGITS = re.compile(r'(?P<sign>(?<![\w).])[-−–])?(?<!\w)(?P<digits>\.?\d(?:[\d.,]*\d)?)'
                     r'(?:(?:st|nd|rd|th)\b)?', re.IGNORECASE)
_SEPARATOR = re.compile(r'[.,]')
_YEAR_AFTER_COMMA = re.compile(r',\d{4}')  # 5,2010 is a day and a year
# What makes a number and the digits after it one number, or a time.
_REST = re.compile(
    r'(?:[eE](?P<exponent>[+-]?\d{1,2})|(?: (?P<numerator>\d{1,6}))?/(?P<denominator>\d{1,6}))'
    r'(?![\w/]|[.,]\d)|(?P<time>:\d\d(?!\d))')


@dataclass(frozen=True)
class Match:
  """Whether a prediction is correct, and the part of it that was compared with the answers."""

  correct: bool
  extracted: str


@dataclass(frozen=True)
class FirstWords:
  """The first words of the prediction must contain an answer.

  Attributes:
    count: number of words.
  """

  count: int

  def __str__(self) -> str:
    return f'first {self.count} words'

  @property
  def max_words(self) -> int:
    """Number of words after which generation stops."""
    return self.count

  def max_tokens(self, config: EvaluationConfig) -> int:
    """Returns the number of tokens after which generation stops at the latest."""
    return self.count * config.tokens_per_word

  def match(self, prediction: str, answers: Sequence[str], config: EvaluationConfig) -> Match:
    """Compares `prediction`, which holds no calls, with the accepted `answers`."""
    extracted = first_words(prediction, self.count)
    accepted = _accepted(answers, config)
    return Match(any(contains(extracted, answer, config) for answer in accepted), extracted)


@dataclass(frozen=True)
class FirstLine:
  """The first line of the prediction must be the answer, as that of a label is.

  Attributes:
    tokens: number of tokens after which generation stops; 0 for that of numbers.
  """

  tokens: int = 0
  max_words: int = 0  # generation does not count words

  def __str__(self) -> str:
    return 'first line'

  def max_tokens(self, config: EvaluationConfig) -> int:
    """Returns the number of tokens after which generation stops."""
    return self.tokens or config.number_tokens

  def match(self, prediction: str, answers: Sequence[str], config: EvaluationConfig) -> Match:
    """Compares `prediction`, which holds no calls, with the `answers`."""
    extracted = prediction.strip().partition('\n')[0].strip()
    return Match(extracted in answers, extracted)


@dataclass(frozen=True)
class FirstNumber:
  """The answer must be the first number, or the first after `=` in an equation (footnote 7)."""

  max_words: int = 0  # generation does not count words

  def __str__(self) -> str:
    return 'first number, or first after ='

  def max_tokens(self, config: EvaluationConfig) -> int:
    """Returns the number of tokens after which generation stops."""
    return config.number_tokens

  def match(self, prediction: str, answers: Sequence[str], config: EvaluationConfig) -> Match:
    """Compares `prediction`, which holds no calls, with the numbers of the accepted `answers`."""
    number = predicted_number(prediction)
    if number is None:
      return Match(False, '')
    accepted = filter(None, map(first_number, _accepted(answers, config)))
    tolerance = Fraction(str(config.number_tolerance))
    return Match(any(abs(number.value - answer.value) <= tolerance for answer in accepted),
                 prediction[number.start:number.end])


AnswerMatcher = FirstWords | FirstLine | FirstNumber


def _accepted(answers: Sequence[str], config: EvaluationConfig) -> Sequence[str]:
  """Returns the answers that are accepted: all aliases, or the main answer alone."""
  return answers if config.aliases else answers[:1]


def first_words(text: str, count: int) -> str:
  """Returns the first `count` words of `text`."""
  return ' '.join(text.split()[:count])


def contains(text: str, answer: str, config: EvaluationConfig) -> bool:
  """Returns whether `text` contains `answer`, after the normalisation that `config` asks for."""
  # An answer of symbols alone would be normalised to nothing.
  fold_punctuation = config.fold_punctuation and bool(_PUNCTUATION.sub('', answer))
  text, answer = (_normalise(part, config.fold_case, fold_punctuation) for part in (text, answer))
  if config.whole_words:
    return bool(answer) and bool(re.search(rf'(?<!\w){re.escape(answer)}(?!\w)', text))
  return bool(answer) and answer in text


def _normalise(text: str, fold_case: bool, fold_punctuation: bool) -> str:
  text = unicodedata.normalize('NFKC', text)
  text = _DIGITS.sub(_number_as_word, text.casefold() if fold_case else text)
  return ' '.join((_PUNCTUATION.sub(' ', text) if fold_punctuation else text).split())


def _number_as_word(match: re.Match[str]) -> str:
  """Returns a word for a number by its value: 3,000 and 3000 are equal, 8 is no part of 2.8 or -8.

  A date such as 21.3.2018 is several numbers, so that it contains its year.
  """
  digits, sign = match['digits'], 'minus' if match['sign'] else ''
  value = parse_number(digits)
  if value is not None:
    return f'number{sign}{value.numerator}over{value.denominator}end'
  if len(_SEPARATOR.findall(digits)) == 1 and not _YEAR_AFTER_COMMA.search(digits):  # such as 1,8
    return f'number{sign}{_SEPARATOR.sub("separator", digits)}end'
  return ' '.join(f'number{part.lstrip("0") or 0}over1end'
                  for part in _SEPARATOR.split(digits) if part)


def predicted_number(text: str) -> Number | None:
  """Returns the first number of `text`; where it has an equation, the first number after `=`."""
  equals, numbers = text.find('='), list(_stated_numbers(text))
  after = [number for number in numbers if 0 <= equals < number.start]
  return next(iter(after or numbers), None)


def first_number(text: str) -> Number | None:
  """Returns the first number of `text`."""
  return next(_stated_numbers(text), None)


def _stated_numbers(text: str) -> Iterator[Number]:
  """Yields the numbers of `text`; 3/4, 2 3/4 and 5e3 are one number each, 3:31 is none."""
  end = 0
  for number in find_numbers(text):
    if number.start < end:
      continue  # a part of the one before
    end = number.end
    match = _REST.match(text, end)
    if match and (match['time'] or not int(match['denominator'] or 1)):
      end = match.end()
      continue
    if match:
      end = match.end()
      number = number._replace(end=end, digits=text[number.digits_start:end],
                               value=_whole_value(number.value, match))
    yield number


def _whole_value(value: Fraction, match: re.Match[str]) -> Fraction:
  """Returns the value of a number with what `_REST` has found after it."""
  if match['exponent']:
    return value * Fraction(10) ** int(match['exponent'])
  if not match['numerator']:
    return value / int(match['denominator'])
  part = Fraction(int(match['numerator']), int(match['denominator']))
  return value - part if value < 0 else value + part
