"""Benchmarks: questions whose answers are matched, or texts whose perplexity is measured."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from toolformer_jax.evaluation.answer_matching import AnswerMatcher
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.files import TaskFolder
from toolformer_jax.media.table import Medium


@dataclass(frozen=True)
class Question:
  """A prompt and the answers that are accepted.

  Attributes:
    id: unique in its benchmark.
    prompt: the text that a model continues.
    answers: the accepted answers; the first one is the main answer, the others are its aliases.
    group: the part of the benchmark that has a score of its own; '' without parts.
    date: ISO date that the calendar returns; None for that of `EvaluationConfig`.
    labels: where the answer is a label, all from which it is chosen.
    baseline: the answer of a trivial system, such as a copy of the source; '' if there is none.
    media: pictures, sounds and videos, which the prompt names by handles.
  """

  id: str
  prompt: str
  answers: tuple[str, ...]
  group: str = ''
  date: str | None = None
  labels: tuple[str, ...] = ()
  baseline: str = ''
  media: tuple[Medium, ...] = ()


@dataclass(frozen=True)
class Text:
  """A text whose tokens are scored.

  Attributes:
    id: unique in its benchmark.
    text: the text.
    group: as of a `Question`.
  """

  id: str
  text: str
  group: str = ''


Example = Question | Text
_Example = TypeVar('_Example')
_SHOWN_FILES = 4  # of those that a task is read from


@dataclass(frozen=True)
class _Task:
  """What all benchmarks have.

  Attributes:
    name: for the command line, and of its folder in `--data_dir`.
    title: for tables.
    read: returns its examples, always in the same order; the first ones are a fair sample.
    how_to_get: tells somebody who lacks its files where to get them; '' if it needs none.
    groups: (name, title) of each part that has a score of its own.
    remark: what a reader of its score has to know.
    split: the part of the benchmark that is read, for the report.
    folder: of its files in `--data_dir`, if it is not called as the task.
  """

  name: str
  title: str
  read: Callable[[TaskFolder, EvaluationConfig], Iterable[Question] | Iterable[Text]]
  how_to_get: str
  groups: tuple[tuple[str, str], ...] = field(default=(), kw_only=True)
  remark: str = field(default='', kw_only=True)
  split: str = field(default='all', kw_only=True)
  folder: str = field(default='', kw_only=True)

  def title_of(self, group: str) -> str:
    """Returns the title of a part; '' is the whole task."""
    return dict(self.groups).get(group, group) or self.title


@dataclass(frozen=True)
class QuestionTask(_Task):
  """A benchmark of questions with answers.

  Attributes:
    matcher: compares predictions with the answers.
    without_tools: tools that must not be called.
    prompt: what its prompts look like, for the report.
  """

  matcher: AnswerMatcher
  without_tools: frozenset[str] = frozenset()
  prompt: str = ''


@dataclass(frozen=True)
class ClassificationTask(QuestionTask):
  """A benchmark of texts that have a label; the likeliest label is the prediction.

  Attributes:
    read_split: yields questions of a split by its name, for instance 'train'.
    content_free_prompt: the prompt of a text that says nothing.
  """

  read_split: Callable[[TaskFolder, str], Iterator[Question]] = field(kw_only=True)
  content_free_prompt: str = field(kw_only=True)


@dataclass(frozen=True)
class TextTask(QuestionTask):
  """A benchmark of texts to write, which are compared with references.

  Attributes:
    read_split: yields questions of a split by its name, for instance 'train'.
    metrics: names of its metrics, see `text_metrics.METRICS`.
    baseline: what the baseline of its questions is; '' if they have none.
  """

  read_split: Callable[[TaskFolder, str], Iterator[Question]] = field(kw_only=True)
  metrics: tuple[str, ...] = field(kw_only=True)
  baseline: str = field(default='', kw_only=True)


@dataclass(frozen=True)
class PerplexityTask(_Task):
  """A benchmark of texts whose perplexity is measured."""


Task = QuestionTask | PerplexityTask


@dataclass(frozen=True)
class TaskData:
  """The examples of a task, and where they come from.

  Attributes:
    examples: its questions or texts.
    files: the names of the files or data sets that they were read from; empty if they are made.
    split: the part of the benchmark that was read.
  """

  examples: list[Example]
  files: tuple[str, ...]
  split: str

  def source(self) -> str:
    """Returns number, files and split, for a report."""
    kind = 'texts' if isinstance(self.examples[0], Text) else 'questions'
    if not self.files:
      return f'{len(self.examples):,} {kind}, made by this program'
    shown = ', '.join(self.files[:_SHOWN_FILES])
    more = len(self.files) - _SHOWN_FILES
    return (f'{len(self.examples):,} {kind} of {shown}'
            + (f' and {more} more files' if more > 0 else '') + f' (split: {self.split})')


def interleave(groups: Iterable[Iterable[_Example]]) -> Iterator[_Example]:
  """Yields the first example of each group, then the second of each, and so on.

  Any number of first examples is then divided evenly over the groups.
  """
  for row in itertools.zip_longest(*groups):
    yield from (example for example in row if example is not None)
