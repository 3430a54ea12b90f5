"""All benchmarks by name, and the loader of their examples."""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from etils import epath

from toolformer_jax.data.dates import parse_iso_date
from toolformer_jax.data.jsonl import is_unicode
from toolformer_jax.errors import UserError, unknown
from toolformer_jax.evaluation.answer_matching import FirstNumber, first_number
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.files import TaskFolder
from toolformer_jax.evaluation.task import (
    ClassificationTask,
    Example,
    Question,
    QuestionTask,
    Task,
    TaskData,
    Text,
    TextTask,
)
from toolformer_jax.evaluation.tasks import (
    classification,
    dateset,
    lama,
    multilingual,
    perplexity,
    questions,
    text_to_text,
    word_problems,
)
from toolformer_jax.evaluation.tasks.tfds_sets import TRAINABLE, TfdsFolder, read_tfds
from toolformer_jax.runtime.paths import as_path, storage_errors

TASKS = {task.name: task for task in (
    lama.LAMA,
    word_problems.ASDIV, word_problems.SVAMP, word_problems.MAWPS, word_problems.GSM8K,
    questions.WEBQUESTIONS, questions.NQ_OPEN, questions.TRIVIAQA,
    multilingual.MLQA, multilingual.MLQA_ALL_EN, multilingual.XQUAD,
    lama.TEMPLAMA, dateset.DATESET,
    perplexity.WIKITEXT2, perplexity.CORPUS,
    classification.BANKING77, classification.CLINC150, classification.SIB200,
    classification.SST2, classification.AG_NEWS,
    text_to_text.FLORES200, text_to_text.SCITLDR, text_to_text.XSUM, text_to_text.WNUT17,
    text_to_text.SGD, text_to_text.XQUAD_EN)}
TFDS = 'tfds:'  # prefix of a data_dir of TensorFlow Datasets


def find_tasks(names: Iterable[str]) -> list[Task]:
  """Returns the tasks called `names`, in any case, each once.

  Raises:
    UserError: a name is unknown, or there is none.
  """
  wanted = dict.fromkeys(name.strip().lower() for name in names if name.strip())
  for name in wanted:
    if name not in TASKS:
      raise unknown('task', name, TASKS)
  if not wanted:
    raise UserError(f'no task is named; choose from {", ".join(TASKS)}')
  return [TASKS[name] for name in wanted]


def check_data_dir(tasks: Sequence[Task], data_dir: str) -> None:
  """Raises UserError if `tasks` need the folder `data_dir`, and it is not there."""
  folders = _folders(tasks, data_dir)
  if folders and not as_path(data_dir).is_dir():
    raise UserError(f'--data_dir: there is no folder {data_dir}, which should hold '
                    f'{", ".join(map(str, folders))}')


def check_has_data(tasks: Sequence[Task], data_dir: str) -> None:
  """Checks that at least one of `tasks` has its folder in `data_dir`. No file is read.

  Raises:
    UserError: none of them can be evaluated.
  """
  check_data_dir(tasks, data_dir)
  folders = _folders(tasks, data_dir)
  if len(folders) == len(tasks) and not any(folder.is_dir() for folder in folders):
    raise UserError(f'nothing can be evaluated: looked for {", ".join(map(str, folders))}; '
                    f'{tasks[0].title}: {tasks[0].how_to_get}')


def without_data(tasks: Sequence[Task], data_dir: str) -> list[Task]:
  """Returns the tasks whose folder is not in `data_dir`."""
  return [task for task in tasks if not all(
      folder.is_dir() for folder in _folders([task], data_dir))]


def _folders(tasks: Sequence[Task], data_dir: str) -> list[epath.Path]:
  """Returns the folders of the tasks that read files."""
  if data_dir.startswith(TFDS):
    return []
  return [as_path(data_dir) / (task.folder or task.name) for task in tasks if task.how_to_get]


def load_examples(task: Task, data_dir: epath.PathLike, config: EvaluationConfig,
                  limit: int | None = None) -> list[Example]:
  """Returns the examples of `load_task`, which has the same arguments."""
  return load_task(task, data_dir, config, limit).examples


def load_task(task: Task, data_dir: epath.PathLike, config: EvaluationConfig,
              limit: int | None = None) -> TaskData:
  """Returns the first `limit` examples of a task, by default all, and where they come from.

  Args:
    task: the task.
    data_dir: has the task's official files in a folder of its name; or 'tfds:', followed by the
      folder of TensorFlow Datasets.
    config: how they are read.
    limit: number of examples.

  Raises:
    MissingDataError: the files are not there.
    UserError: they are broken, or hold no example; or the few-shot prompt cannot be read.
  """
  folder, source = _folder_of(task, str(data_dir))
  with _official_format(task, source):
    if isinstance(folder, TfdsFolder):
      read: Iterable[Example] = read_tfds(task, folder, config)
    else:
      read = task.read(folder, config)
    examples = list(itertools.islice(read, limit))
  _check(task, examples, config, source)
  if config.few_shot_prompt and isinstance(task, QuestionTask):
    examples = _after(config.few_shot_prompt, examples)
  return TaskData(examples, tuple(dict.fromkeys(map(str, folder.found))), folder.split)


def trainable_task(name: str, setting: str, data_dir: str) -> ClassificationTask | TextTask:
  """Returns a task by its name.

  Args:
    name: of the task.
    setting: where it was named, for errors.
    data_dir: as for `load_task`.

  Raises:
    UserError: there is no such task, it cannot be trained on, or TensorFlow Datasets lacks it.
  """
  task, = find_tasks([name])
  if not isinstance(task, ClassificationTask | TextTask):
    raise UserError(f'{setting} {name}: only tasks of classification and of writing can be trained '
                    'on')
  if data_dir.startswith(TFDS) and task.name not in TRAINABLE:
    raise UserError(f'{setting} {name}: with --data_dir {data_dir} only {", ".join(TRAINABLE)} can '
                    'be trained on; give a folder with the official files')
  return task


def trainable_tasks(names: Sequence[str], setting: str, data_dir: str
                    ) -> list[ClassificationTask | TextTask]:
  """Returns tasks to train on together, each once; see `trainable_task`."""
  tasks = [trainable_task(name, setting, data_dir) for name in names]
  if repeated := [task.name for task in dict.fromkeys(tasks) if tasks.count(task) > 1]:
    raise UserError(f'{setting}: {repeated[0]} occurs twice')
  return tasks


def load_split(task: ClassificationTask | TextTask, data_dir: epath.PathLike, split: str
               ) -> list[Question]:
  """Returns the questions of a split of a task, for instance 'train'.

  Args:
    task: the task.
    data_dir: as for `load_task`.
    split: the split's name.

  Raises:
    MissingDataError: the files are not there.
    UserError: they are broken, or hold no question.
  """
  folder, source = _folder_of(task, str(data_dir))
  with _official_format(task, source):
    questions = list(task.read_split(folder, split))
  _check(task, questions, EvaluationConfig(), source)
  return questions


def _folder_of(task: Task, data_dir: str) -> tuple[TaskFolder, str]:
  """Returns what the examples of a task are read from, and its name."""
  if task.how_to_get and data_dir.startswith(TFDS):
    return TfdsFolder.of(task, data_dir.removeprefix(TFDS)), data_dir
  path = as_path(data_dir) / (task.folder or task.name)
  return TaskFolder(path, task.how_to_get, task.split), str(path)


@contextlib.contextmanager
def _official_format(task: Task, source: str) -> Iterator[None]:
  """Turns what a reader raises for files in another format into a UserError."""
  try:
    yield
  except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
    raise UserError(f'{source}: not in the official format of {task.title} '
                    f'({type(error).__name__}: {error})') from error


def _after(few_shot_prompt: str, questions: list[Example]) -> list[Example]:
  """Returns questions whose prompts come after the text in the file `few_shot_prompt`."""
  try:
    text = as_path(few_shot_prompt).read_text('utf-8').strip()
  except (OSError, UnicodeDecodeError) + storage_errors() as error:
    raise UserError(f'EvaluationConfig.few_shot_prompt: cannot read {few_shot_prompt}: {error}'
                    ) from error
  return [dataclasses.replace(one, prompt=f'{text}\n\n{one.prompt}')
          for one in questions if isinstance(one, Question)]


def _check(task: Task, examples: Sequence[Example], config: EvaluationConfig,
           source: str) -> None:
  """Raises UserError if there is no example, one cannot be scored, or two have the same id."""
  if not examples:
    raise UserError(f'{source} holds no example of {task.title}; {task.how_to_get}')
  ids = set()
  for number, example in enumerate(examples):
    if not _is_text(example.id):
      raise UserError(f'{source}: the id of example {number} is no text: {example.id!r}')
    if example.id in ids:
      raise UserError(f'{source}: the id {example.id} occurs twice')
    ids.add(example.id)
    try:
      _check_example(task, example, config)
    except ValueError as error:
      raise UserError(f'{source}: {example.id} has {error}') from error


def _check_example(task: Task, example: Example, config: EvaluationConfig) -> None:
  """Raises ValueError, which says what the example has, if it cannot be scored."""
  if isinstance(example, Text):
    if not is_unicode(example.text):
      raise ValueError('half a surrogate pair, which is no character')
    return
  if not _is_text(example.prompt):
    raise ValueError(f'a prompt that is no text: {example.prompt!r}')
  if not example.answers:
    raise ValueError('no answer')
  for answer in example.answers:
    if not _is_text(answer):
      raise ValueError(f'an answer that is no text: {answer!r}')
  if (isinstance(task, QuestionTask) and isinstance(task.matcher, FirstNumber)
      and config.numeric_only and not first_number(example.answers[0])):
    raise ValueError(f'an answer without a number: {example.answers[0]!r}')
  if example.date is not None and parse_iso_date(example.date) is None:
    raise ValueError(f'a date that is none: {example.date!r}')


def _is_text(value: Any) -> bool:
  return isinstance(value, str) and bool(value.strip()) and is_unicode(value)
