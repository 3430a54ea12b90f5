"""Benchmarks: questions whose answers a rule judges, or texts whose perplexity is measured."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from toolformer_jax.evaluation.answer_matching import Rule
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.files import TaskFolder


@dataclass(frozen=True)
class Question:
  """A prompt and its right answers.

  Attributes:
    id: unique in its benchmark.
    prompt: the text that a model continues.
    answers: each of them is right; the first one is the main answer.
    group: the part of the benchmark that has a score of its own; '' without parts.
    date: ISO date that the calendar answers with; None for that of `EvaluationConfig`.
  """

  id: str
  prompt: str
  answers: tuple[str, ...]
  group: str = ''
  date: str | None = None


@dataclass(frozen=True)
class Text:
  """A text whose tokens are scored."""

  id: str
  text: str
  group: str = ''


Item = TypeVar('Item', Question, Text)


@dataclass(frozen=True)
class Task:
  """What all benchmarks have.

  Attributes:
    name: for the command line, and of its folder in `--data_dir`.
    title: for tables.
    read: returns its questions or texts, always in the same order; the first ones are a fair
      sample.
    how_to_get: tells somebody who lacks its files where they are; '' if it needs none.
    groups: (name, title) of each part that has a score of its own.
    remark: what a reader of its score has to know.
  """

  name: str
  title: str
  read: Callable[[TaskFolder, EvaluationConfig], Iterable[Question] | Iterable[Text]]
  how_to_get: str
  groups: tuple[tuple[str, str], ...] = field(default=(), kw_only=True)
  remark: str = field(default='', kw_only=True)

  def title_of(self, group: str) -> str:
    """Returns the title of a part; '' is the whole task."""
    return dict(self.groups).get(group, group) or self.title


@dataclass(frozen=True)
class QuestionTask(Task):
  """A benchmark of questions with answers.

  Attributes:
    rule: judges the predictions.
    without_tools: tools that must not be called.
    prompt: how its prompts look, for the report.
  """

  rule: Rule
  without_tools: frozenset[str] = frozenset()
  prompt: str = ''


@dataclass(frozen=True)
class PerplexityTask(Task):
  """A benchmark of texts whose perplexity is measured."""


def interleave(groups: Iterable[Iterable[Item]]) -> Iterator[Item]:
  """Yields the first item of each group, then the second of each, and so on.

  Every group has its share among the first items, however few they are.
  """
  for row in itertools.zip_longest(*groups):
    yield from (item for item in row if item is not None)
