"""All benchmarks, by name."""

from collections.abc import Iterable

from toolformer_jax.errors import UserError, unknown
from toolformer_jax.evaluation.task import Task
from toolformer_jax.evaluation.tasks import (
    dateset,
    lama,
    multilingual,
    perplexity,
    questions,
    templama,
    word_problems,
)

TASKS = {task.name: task for task in (
    lama.LAMA,
    word_problems.ASDIV, word_problems.SVAMP, word_problems.MAWPS, word_problems.GSM8K,
    questions.WEBQUESTIONS, questions.NQ_OPEN, questions.TRIVIAQA,
    multilingual.MLQA, multilingual.XQUAD,
    templama.TEMPLAMA, dateset.DATESET,
    perplexity.WIKITEXT2, perplexity.CORPUS)}


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
