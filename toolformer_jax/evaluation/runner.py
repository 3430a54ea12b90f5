"""Asks every arm every task, computes what is missing, and judges.

A task without data is skipped with the reason; one that crashes does not lose the others.
"""

import contextlib
import dataclasses
import logging
import pathlib
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolformer_jax.calls import CallSyntax
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.arms import Arm
from toolformer_jax.evaluation.breakdown import breakdown
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.files import MissingData
from toolformer_jax.evaluation.predict import Prediction, TextScore, decoding, predict, score_texts
from toolformer_jax.evaluation.prediction_cache import Cell, Record, missing, write_lines
from toolformer_jax.evaluation.scores import Difference, Score, differences, judged, scores
from toolformer_jax.evaluation.task import Question, Task, Text, read_items
from toolformer_jax.inference.engine import RunCall
from toolformer_jax.inference.request import GenerationConfig
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.progress import Progress

log = logging.getLogger(__name__)

# Returns what runs the calls of some questions, all by one executor.
CallsOf = Callable[[Sequence[Question]], RunCall]


@dataclass(frozen=True)
class Plan:
  """What is to be evaluated, and how.

  Attributes:
    tasks, arms: the rows and columns of the tables.
    data_dir: the tasks' files are in folders of their names; or 'tfds:' and where it keeps them.
    limit: questions of each task; None for all.
    settings, generation, syntax: how questions are asked and judged.
    tools: names of the tools that Toolformer may call, where the task allows it.
    identities: hashes of the checkpoints' contents.
    described: what else the answers of tools depend on, as JSON.
    versions: of the software, recorded.
  """

  tasks: Sequence[Task]
  arms: Sequence[Arm]
  data_dir: str
  limit: int | None
  settings: EvaluationConfig
  generation: GenerationConfig
  syntax: CallSyntax
  tools: Sequence[str]
  identities: Mapping[str, str]
  described: Mapping[str, Any]
  versions: dict[str, str]

  def tools_of(self, task: Task, arm: Arm) -> list[str]:
    """Returns the names of the tools that `arm` may call in `task`."""
    return [name for name in self.tools if name not in task.without_tools] if arm.calls else []

  def depends_on(self, task: Task, arm: Arm) -> dict[str, Any]:
    """Returns what the records of a cell depend on, as JSON."""
    settings = dataclasses.asdict(self.settings)
    model = {'checkpoint': self.identities[arm.checkpoint]}
    if task.rule is None:
      return {**model, **{key: settings[key] for key in ('window_tokens', 'stride_tokens')}}
    how = dataclasses.asdict(decoding(task, arm, self.generation, self.settings))
    del how['slots']  # side by side or not, the answer is the same
    tools = {'tools': self.tools_of(task, arm), 'syntax': dataclasses.asdict(self.syntax),
             'calendar_date': self.settings.calendar_date, **self.described}
    return {**model, 'generation': how, **(tools if arm.calls else {})}


@dataclass
class Results:
  """What came of a plan.

  Attributes:
    scores, differences: the figures.
    breakdowns: of word problems, by task: how many of Toolformer's answers went wrong how.
    notes: what a reader of the scores has to know of single cells.
    skipped: why tasks were not asked, by name.
    failed: why cells, or the reading of a task, failed: by `task` or `task/arm`.
  """

  scores: list[Score] = field(default_factory=list)
  differences: list[Difference] = field(default_factory=list)
  breakdowns: dict[str, dict[str, int]] = field(default_factory=dict)
  notes: list[str] = field(default_factory=list)
  skipped: dict[str, str] = field(default_factory=dict)
  failed: dict[str, str] = field(default_factory=dict)


def evaluate(plan: Plan, folder: pathlib.Path, *, load: Callable[[str], LanguageModel],
             open_tools: Callable[[], contextlib.AbstractContextManager[CallsOf]]) -> Results:
  """Fills the cells of `folder` and returns the figures.

  Args:
    plan: what is to be done.
    folder: predictions are in predictions/<task>.<arm>.jsonl, judged.
    load: returns the model of a checkpoint; called once for each, if anything is missing.
    open_tools: opens the tools; called at most once, if there are calls to be made.

  Raises:
    UserError: a folder was made otherwise, or a model or a tool can not be had.
  """
  results = Results()
  items = _read_all(plan, results)
  with contextlib.ExitStack() as stack:
    calls_of = _Lazily(lambda: stack.enter_context(open_tools()))
    for checkpoint in dict.fromkeys(arm.checkpoint for arm in plan.arms):
      cells = [(task, arm) for arm in plan.arms if arm.checkpoint == checkpoint
               for task in plan.tasks if task.name in items]
      model = _Lazily(lambda checkpoint=checkpoint: load(checkpoint))
      for task, arm in cells:
        _guarded(results, folder, f'{task.name}/{arm.name}', lambda task=task, arm=arm, model=model:
                 _fill(plan, folder, task, arm, items[task.name], model, calls_of))
  for task in plan.tasks:
    if task.name in items:
      _judge(plan, folder, task, items[task.name], results)
  return results


class _Lazily:
  """Makes a thing when it is first asked for."""

  def __init__(self, make: Callable[[], Any]):
    self._make, self._made = make, None

  def __call__(self) -> Any:
    if self._made is None:
      self._made = self._make()
    return self._made


def _read_all(plan: Plan, results: Results) -> dict[str, list[Question] | list[Text]]:
  items = {}
  for task in plan.tasks:
    try:
      items[task.name] = read_items(task, plan.data_dir, plan.settings, plan.limit)
    except MissingData as error:
      results.skipped[task.name] = str(error)
    except UserError as error:
      results.failed[task.name] = str(error)
  return items


def _guarded(results: Results, folder: pathlib.Path, name: str, work: Callable[[], None]) -> None:
  """Does `work`; notes a crash, with its traceback in errors/, and lets the others go on."""
  try:
    work()
  except UserError:
    raise  # a folder, a model or a tool: the others would meet it as well
  except Exception as error:
    path = folder / 'errors' / f'{name.replace("/", ".")}.txt'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(traceback.format_exc(), 'utf-8')
    results.failed[name] = f'{type(error).__name__}: {error} (see {path})'
    log.warning('%s failed: %s', name, results.failed[name])


def _fill(plan: Plan, folder: pathlib.Path, task: Task, arm: Arm, items: Sequence,
          model: Callable[[], LanguageModel], calls_of: Callable[[], CallsOf]) -> None:
  """Computes the records that a cell lacks."""
  if task.rule is None and arm.calls:
    return
  with _cell(plan, folder, task, arm) as cell:
    todo = missing(items, cell.records(_kind(task)))
    size = plan.settings.chunk if task.rule else plan.settings.text_chunk
    with Progress(f'{task.name}, {arm.name}', len(items), 'questions' if task.rule else 'texts',
                  done=len(items) - len(todo)) as progress:
      for first in range(0, len(todo), size):
        some = todo[first:first + size]
        cell.add(_records(plan, task, arm, some, model(), calls_of))
        progress.advance(len(some))


def _records(plan: Plan, task: Task, arm: Arm, some: Sequence, model: LanguageModel,
             calls_of: Callable[[], CallsOf]) -> list[Record]:
  if task.rule is None:
    return score_texts(model, some, plan.settings)
  names = plan.tools_of(task, arm)
  return predict(model, some, settings=decoding(task, arm, plan.generation, plan.settings),
                 syntax=plan.syntax, tool_names=names, run_call=calls_of()(some) if names else None)


def _cell(plan: Plan, folder: pathlib.Path, task: Task, arm: Arm) -> Cell:
  return Cell(folder / 'work' / task.name / arm.name, plan.depends_on(task, arm), plan.versions)


def _kind(task: Task) -> type[Record]:
  return TextScore if task.rule is None else Prediction


def _judge(plan: Plan, folder: pathlib.Path, task: Task, items: Sequence, results: Results) -> None:
  """Judges what the arms have for `items`, all of it or none; writes it down and counts it."""
  by_arm = {}
  for arm in plan.arms:
    if task.rule is None and arm.calls:
      continue
    with _cell(plan, folder, task, arm) as cell:
      found = cell.records(_kind(task))
    if missing(items, found):
      continue  # it has failed
    records = [found[item.id] for item in items]
    by_arm[arm.name] = (judged(task, records, plan.settings) if task.rule
                        else list(map(dataclasses.asdict, records)))
    if failures := sum(record.get('failure') is not None for record in by_arm[arm.name]):
      results.notes.append(f'{task.title}, {arm.name}: {failures} prompts are too long for the '
                           'model and count as wrong.')
    path = folder / 'predictions' / f'{task.name}.{arm.name}.jsonl'
    path.parent.mkdir(parents=True, exist_ok=True)
    write_lines(path, by_arm[arm.name])
    results.scores += scores(task, arm, by_arm[arm.name], plan.settings)
  results.differences += differences(task, by_arm, plan.settings)
  if 'toolformer' in by_arm and task.rule and not task.rule.words:
    results.breakdowns[task.name] = breakdown(by_arm['toolformer'], plan.settings)
