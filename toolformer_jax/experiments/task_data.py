"""The training splits of tasks, in the form in which the evaluation asks them."""

from collections.abc import Iterator

from toolformer_jax.evaluation.label_scoring import target_text
from toolformer_jax.evaluation.task import ClassificationTask, TextTask
from toolformer_jax.evaluation.tasks import load_split
from toolformer_jax.training.sources import TaskRow


def task_rows(task: ClassificationTask | TextTask, data_dir: str) -> Iterator[TaskRow]:
  """Yields the examples of a task's training split.

  Raises:
    UserError: its files are missing or broken.
  """
  for one in load_split(task, data_dir, 'train'):
    yield TaskRow(one.id, one.prompt, target_text(one.answers[0]))
