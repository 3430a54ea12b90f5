"""Evaluates every arm on every task: computes the predictions that are missing, and judges all.

A task without data is skipped with the reason. If one arm or task crashes, the others are evaluated
all the same.
"""

import contextlib
import dataclasses
import importlib.util
import logging
import pathlib
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolformer_jax.data.content_hash import stable_hash
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation import tables
from toolformer_jax.evaluation.answer_matching import FirstNumber
from toolformer_jax.evaluation.arms import Arm
from toolformer_jax.evaluation.files import MissingData
from toolformer_jax.evaluation.plan import EvaluationPlan
from toolformer_jax.evaluation.predict import (
  Prediction,
  TextScore,
  generation_config,
  predict,
  score_texts,
)
from toolformer_jax.evaluation.prediction_cache import PredictionCache, Record, missing, write_lines
from toolformer_jax.evaluation.reading import read_items
from toolformer_jax.evaluation.scores import (
  Difference,
  Score,
  breakdown,
  differences,
  judged,
  scores,
)
from toolformer_jax.evaluation.task import PerplexityTask, Question, QuestionTask, Task, Text
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.progress import Progress
from toolformer_jax.runtime.run_dir import LockedFolder, whole_file, write_json
from toolformer_jax.tools.base import Context
from toolformer_jax.tools.executor import Executor

log = logging.getLogger(__name__)

_QUESTIONS, _TEXTS = 256, 16  # whose records are computed and written together


@dataclass
class EvaluationResult:
  """The outcome of an evaluation.

  Attributes:
    scores, differences: the figures.
    breakdowns: of word problems, by task: how many answers of Toolformer had which outcome.
    notes: what a reader of the scores has to know about single predictions.
    skipped: why tasks were not evaluated, by name.
    failed: why an arm on a task, or the reading of a task, failed: by `task/arm` or `task`.
    predictions: the judged predictions of each `task.arm`, as JSON objects.
    report: all tables in Markdown.
  """

  scores: list[Score] = field(default_factory=list)
  differences: list[Difference] = field(default_factory=list)
  breakdowns: dict[str, dict[str, int]] = field(default_factory=dict)
  notes: list[str] = field(default_factory=list)
  skipped: dict[str, str] = field(default_factory=dict)
  failed: dict[str, str] = field(default_factory=dict)
  predictions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
  report: str = ''

  def to_dict(self) -> dict[str, Any]:
    """Returns everything but predictions and report as JSON."""
    return {name: value for name, value in dataclasses.asdict(self).items()
            if name not in ('predictions', 'report')}

  def to_records(self) -> list[dict[str, Any]]:
    """Returns the scores as a list of dicts, for a data frame."""
    return [dataclasses.asdict(score) for score in self.scores]

  def raise_failures(self) -> None:
    """Raises UserError if anything failed, or nothing was evaluated."""
    if self.failed:
      raise UserError(f'{len(self.failed)} failed: ' + '; '.join(
          f'{name}: {reason}' for name, reason in self.failed.items()))
    if not self.scores:
      raise UserError('nothing was evaluated: ' + '; '.join(self.skipped.values()))


def evaluate(
    plan: EvaluationPlan, *, load_model: Callable[[str], LanguageModel],
    open_executor: Callable[[], contextlib.AbstractContextManager[Executor]],
    output_dir: pathlib.Path | None = None,
) -> EvaluationResult:
  """Evaluates `plan`.

  Args:
    plan: what is done.
    load_model: returns the model of a checkpoint; called once for each, if anything is missing.
    open_executor: opens the tools; called at most once, if there are calls to make.
    output_dir: gets report.md, tables.tex, plots/, summary.json, and the judged predictions in
      predictions/<task>.<arm>.jsonl. Predictions that it holds are not computed again. None: no
      file stays.

  Raises:
    UserError: the folder holds predictions of another configuration, or a model or a tool cannot
      be loaded.
  """
  with contextlib.ExitStack() as stack:
    if output_dir is None:
      folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
    else:
      folder = output_dir
    stack.enter_context(LockedFolder(folder, {'made by': 'evaluate'}, dict(plan.versions)))
    result = _Evaluation(plan, folder, load_model, open_executor).run()
    _write_report(plan, result, folder)
  return result


class _Evaluation:
  """One evaluation: its folder, and the model and the tools, which are loaded when needed."""

  def __init__(self, plan: EvaluationPlan, folder: pathlib.Path,
               load_model: Callable[[str], LanguageModel],
               open_executor: Callable[[], contextlib.AbstractContextManager[Executor]]):
    self.plan, self.folder = plan, folder
    self.result = EvaluationResult()
    self._load_model, self._open_executor = load_model, open_executor
    self._executor: Executor | None = None
    self._loaded: tuple[str, LanguageModel] | None = None
    self._stack = contextlib.ExitStack()

  def run(self) -> EvaluationResult:
    """Computes what is missing, then judges everything."""
    items = self._read_tasks()
    tasks = [task for task in self.plan.tasks if task.name in items]
    with self._stack:
      for checkpoint in dict.fromkeys(arm.checkpoint for arm in self.plan.arms):
        for arm in self.plan.arms:
          for task in tasks if arm.checkpoint == checkpoint else ():
            self._guarded(task, arm, items[task.name])
    for task in tasks:
      self._judge(task, items[task.name])
    return self.result

  def _model(self, checkpoint: str) -> LanguageModel:
    """Returns the model of a checkpoint; only one is in memory at a time."""
    if self._loaded is None or self._loaded[0] != checkpoint:
      self._loaded = None
      self._loaded = checkpoint, self._load_model(checkpoint)
    return self._loaded[1]

  def _tools(self) -> Executor:
    if self._executor is None:
      self._executor = self._stack.enter_context(self._open_executor())
    return self._executor

  def _read_tasks(self) -> dict[str, list[Question] | list[Text]]:
    items = {}
    for task in self.plan.tasks:
      try:
        items[task.name] = read_items(task, self.plan.data_dir, self.plan.config, self.plan.limit)
      except MissingData as error:
        self.result.skipped[task.name] = str(error)
      except UserError as error:
        self.result.failed[task.name] = str(error)
    return items

  def _guarded(self, task: Task, arm: Arm, items: Sequence[Question] | Sequence[Text]) -> None:
    """Computes the records of an arm on a task; a crash is noted, with its traceback in errors/."""
    try:
      self._compute_missing(task, arm, items)
    except UserError:
      raise  # of a folder, a model or a tool: the other tasks would meet it as well
    except Exception as error:
      path = self.folder / 'errors' / f'{task.name}.{arm.name}.txt'
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(traceback.format_exc(), 'utf-8')
      name = f'{task.name}/{arm.name}'
      self.result.failed[name] = f'{type(error).__name__}: {error} (see {path})'
      log.warning('%s failed: %s', name, self.result.failed[name])

  def _compute_missing(self, task: Task, arm: Arm, items: Sequence[Question] | Sequence[Text]
                       ) -> None:
    """Computes the records that the cache of an arm on a task lacks."""
    of_texts = isinstance(task, PerplexityTask)
    if of_texts and arm.calls:
      return
    size, unit = (_TEXTS, 'texts') if of_texts else (_QUESTIONS, 'questions')
    with self._cache(task, arm) as cache:
      todo = missing(items, cache.records(_record_type(task)))
      with Progress(f'{task.name}, {arm.name}', len(items), unit, len(items) - len(todo)) as bar:
        for first in range(0, len(todo), size):
          some = todo[first:first + size]
          cache.add(self._records(task, arm, some))
          bar.advance(len(some))

  def _records(self, task: Task, arm: Arm, some: Sequence[Question] | Sequence[Text]
               ) -> list[Record]:
    plan, model = self.plan, self._model(arm.checkpoint)
    if isinstance(task, PerplexityTask):
      return score_texts(model, some, plan.config)
    names = plan.tools_of(task, arm)
    date, seed = plan.config.calendar_date, plan.generation.seed
    return predict(
        model, some, config=generation_config(task, arm, plan.generation, plan.config),
        engine_config=plan.engine, syntax=plan.syntax, executor=self._tools() if names else None,
        tool_names=names,
        contexts=[Context(question.id, date=question.date or date) for question in some],
        # Of the question alone: chunks and limits must not change a sample.
        seeds=[int.from_bytes(stable_hash(seed, question.id)[:4], 'little') for question in some])

  def _cache(self, task: Task, arm: Arm) -> PredictionCache:
    return PredictionCache(self.folder / 'work' / task.name / arm.name,
                           self.plan.depends_on(task, arm), dict(self.plan.versions))

  def _judge(self, task: Task, items: Sequence[Question] | Sequence[Text]) -> None:
    """Judges the records of all arms that have those of all `items`."""
    by_arm = {}
    for arm in self.plan.arms:
      if isinstance(task, PerplexityTask) and arm.calls:
        continue
      with self._cache(task, arm) as cache:
        found = cache.records(_record_type(task))
      if not missing(items, found):  # else it has failed
        by_arm[arm.name] = self._judge_arm(task, arm, [found[item.id] for item in items])
    self.result.differences += differences(task, by_arm, self.plan.config)
    if 'toolformer' in by_arm and isinstance(getattr(task, 'rule', None), FirstNumber):
      self.result.breakdowns[task.name] = breakdown(by_arm['toolformer'], self.plan.config)

  def _judge_arm(self, task: Task, arm: Arm, records: list[Record]) -> list[dict[str, Any]]:
    """Returns the judged records of one arm, writes them, and adds their scores."""
    found = (judged(task, records, self.plan.config) if isinstance(task, QuestionTask)
             else list(map(dataclasses.asdict, records)))
    if failures := sum(record.get('failure') is not None for record in found):
      self.result.notes.append(f'{task.title}, {arm.name}: {failures} prompts are too long for the '
                               'model and count as wrong.')
    path = self.folder / 'predictions' / f'{task.name}.{arm.name}.jsonl'
    path.parent.mkdir(parents=True, exist_ok=True)
    write_lines(path, found)
    self.result.predictions[f'{task.name}.{arm.name}'] = found
    self.result.scores += scores(task, arm, found, self.plan.config)
    return found


def _record_type(task: Task) -> type[Record]:
  return TextScore if isinstance(task, PerplexityTask) else Prediction


def _write_report(plan: EvaluationPlan, result: EvaluationResult, folder: pathlib.Path) -> None:
  """Writes summary.json, report.md, tables.tex and plots."""
  result.report = tables.report(plan, result)
  write_json(folder / 'summary.json', {
      **result.to_dict(),
      'arms': {arm.name: {'checkpoint': arm.checkpoint,
                          'sha256': plan.checkpoint_hashes[arm.checkpoint]} for arm in plan.arms},
      'limit': plan.limit, 'tools': list(plan.tool_names),
      'rules': {task.name: str(getattr(task, 'rule', 'perplexity')) for task in plan.tasks},
      'settings': dataclasses.asdict(plan.config),
      'generation': dataclasses.asdict(plan.generation)})
  latex = tables.latex(tables.score_rows(plan, result.scores))
  for name, content in (('report.md', result.report), ('tables.tex', latex)):
    with whole_file(folder / name) as file:
      file.write(content)
  if importlib.util.find_spec('matplotlib'):
    from toolformer_jax.evaluation.plots import draw
    draw(plan, result.scores, folder / 'plots')
  else:
    log.info('no plots: pip install "toolformer_jax[plots]" draws them')
