"""What a benchmark is: questions with answers and a rule, or texts whose perplexity is wanted."""

import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.answer_matching import Rule
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.files import TaskFolder

TFDS = 'tfds:'  # a data_dir that begins so is one of TensorFlow Datasets


@dataclass(frozen=True)
class Question:
  """A prompt and what may be answered.

  Attributes:
    id: unique in its benchmark.
    prompt: the whole text that a model continues.
    answers: any of these is right, the first one most of all.
    group: the part of the benchmark that has a score of its own; '' where there are no parts.
    date: ISO date that the calendar tells; None for that of the settings.
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
  """A benchmark.

  Attributes:
    name: of the command line, and of its folder in `--data_dir`.
    title: as tables have it.
    read: returns its questions, in an order that never changes, or its texts; the first ones make
      a fair sample.
    how_to_get: what to tell somebody who lacks its files; '' if it needs none.
    rule: by which answers are judged; None for a perplexity.
    without_tools: tools that must not be called.
    groups: titles of its parts, by their names.
    prompt: how its prompts are made, for the report.
    remark: what everybody who reads a score has to know.
  """

  name: str
  title: str
  read: Callable[[TaskFolder, EvaluationConfig], Iterable[Question] | Iterable[Text]]
  how_to_get: str
  rule: Rule | None
  without_tools: frozenset[str] = frozenset()
  groups: tuple[tuple[str, str], ...] = ()
  prompt: str = ''
  remark: str = ''

  def max_tokens(self, settings: EvaluationConfig) -> int:
    """Returns how long a continuation may be."""
    words = self.rule.words
    return words * settings.tokens_per_word if words else settings.number_tokens

  def title_of(self, group: str) -> str:
    """Returns what tables call a part; the whole is ''."""
    return dict(self.groups).get(group, group) or self.title


def read_items(task: Task, data_dir: pathlib.Path | str, settings: EvaluationConfig,
               limit: int | None = None) -> list[Question] | list[Text]:
  """Returns the first `limit` questions or texts of a task, by default all.

  Args:
    task: the task.
    data_dir: has its files in a folder of its name; or 'tfds:' and where tfds keeps its sets.
    settings: how they are read.
    limit: how many.

  Raises:
    MissingData: its files are not there.
    UserError: they are broken, or hold nothing.
  """
  folder = TaskFolder(pathlib.Path(data_dir, task.name), task.how_to_get)
  try:
    if task.how_to_get and str(data_dir).startswith(TFDS):
      from toolformer_jax.evaluation.tasks.tfds_sets import read_tfds  # loads TensorFlow
      found = read_tfds(task, str(data_dir).removeprefix(TFDS))
    else:
      found = task.read(folder, settings)
    items = list(itertools.islice(found, limit))
  except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
    raise UserError(f'{folder.path}: not in the official format of {task.title} '
                    f'({type(error).__name__}: {error})') from error
  if not items:
    raise UserError(f'{folder.path} holds nothing to ask')
  if len({item.id for item in items}) < len(items):
    raise UserError(f'{folder.path}: an id occurs twice')
  return items


def in_turn(groups: Iterable[Iterable[Item]]) -> Iterator[Item]:
  """Yields the first item of each group, then the second of each, and so on.

  However few are asked, every group has its share.
  """
  for row in itertools.zip_longest(*groups):
    yield from (item for item in row if item is not None)
