"""Reads the examples of a task from its official files, or from TensorFlow Datasets."""

import itertools
import pathlib

from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.files import TaskFolder
from toolformer_jax.evaluation.task import Question, Task, Text

TFDS = 'tfds:'  # begins a data_dir of TensorFlow Datasets


def read_items(task: Task, data_dir: pathlib.Path | str, config: EvaluationConfig,
               limit: int | None = None) -> list[Question] | list[Text]:
  """Returns the first `limit` questions or texts of a task, by default all.

  Args:
    task: the task.
    data_dir: has its files in a folder of its name; or 'tfds:' and where tfds keeps its sets.
    config: how they are read.
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
      found = task.read(folder, config)
    items = list(itertools.islice(found, limit))
  except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
    raise UserError(f'{folder.path}: not in the official format of {task.title} '
                    f'({type(error).__name__}: {error})') from error
  if not items:
    raise UserError(f'{folder.path} holds no question')
  if len({item.id for item in items}) < len(items):
    raise UserError(f'{folder.path}: an id occurs twice')
  return items
