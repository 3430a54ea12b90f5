"""Runs every arm on every task: computes the predictions that are not cached, and scores all.

A task without data is skipped with the reason. If one arm on one task crashes, the others are
evaluated nevertheless.
"""

import contextlib
import dataclasses
import importlib.util
import logging
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from etils import epath

from toolformer_jax.errors import UserError
from toolformer_jax.evaluation import tables
from toolformer_jax.evaluation.arms import Arm
from toolformer_jax.evaluation.files import MissingDataError
from toolformer_jax.evaluation.label_scoring import predict_labels
from toolformer_jax.evaluation.plan import EvaluationPlan
from toolformer_jax.evaluation.predict import (
  Prediction,
  TextLogprob,
  generation_config,
  predict,
  text_logprobs,
)
from toolformer_jax.evaluation.prediction_cache import PredictionCache, Record, write_lines
from toolformer_jax.evaluation.result import EvaluationResult
from toolformer_jax.evaluation.scores import score_predictions
from toolformer_jax.evaluation.task import (
  ClassificationTask,
  Example,
  PerplexityTask,
  Question,
  QuestionTask,
  Task,
  Text,
)
from toolformer_jax.evaluation.tasks import load_task
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.paths import glob, make_directory, write_text
from toolformer_jax.runtime.progress import Progress
from toolformer_jax.runtime.run_dir import LockedFolder, Shard, write_json
from toolformer_jax.tools.executor import Executor

log = logging.getLogger(__name__)

# Examples whose records are computed and written together.
_QUESTIONS_PER_CHUNK, _TEXTS_PER_CHUNK = 256, 16


def evaluate(
    plan: EvaluationPlan, *, load_model: Callable[[str], LanguageModel],
    open_executor: Callable[[], contextlib.AbstractContextManager[Executor]],
    output_dir: epath.Path | None = None, extra_files: Mapping[str, str] | None = None,
    shard: Shard = Shard(),
) -> EvaluationResult:
  """Runs an evaluation, or the part of it that is left.

  Args:
    plan: what is evaluated, and how.
    load_model: returns the model of a checkpoint; called once for each that has to predict.
    open_executor: opens the tools; called at most once, if tools may be called.
    output_dir: for report.md, tables.tex, plots/, summary.json, and the scored predictions in
      predictions/<task>.<arm>.jsonl. Predictions that it holds are not computed again. None: all
      files are deleted at the end.
    extra_files: texts that are written to `output_dir` before the work, by file name.
    shard: the examples that this process predicts, of each task. The last process to finish scores
      all of them and writes the report.

  Raises:
    UserError: the folder holds predictions of another configuration, or a model or a tool cannot
      be loaded.
  """
  with contextlib.ExitStack() as stack:
    if output_dir is None:
      folder = epath.Path(stack.enter_context(tempfile.TemporaryDirectory()))
    else:
      folder = output_dir
    locked = stack.enter_context(
        LockedFolder(folder, {'made by': 'evaluate'}, dict(plan.versions), shard))
    locked.write_texts(extra_files or {})
    runner = _Runner(plan, folder, shard, load_model, open_executor)
    runner.compute()
    with locked.exclusively():
      if runner.is_complete():
        runner.score()
        _write_report(plan, runner.result, folder)
  return runner.result


class _Runner:
  """One evaluation: its folder, and the model and the tools, which are loaded when needed."""

  def __init__(self, plan: EvaluationPlan, folder: epath.Path, shard: Shard,
               load_model: Callable[[str], LanguageModel],
               open_executor: Callable[[], contextlib.AbstractContextManager[Executor]]):
    self.plan, self.folder, self.shard = plan, folder, shard
    self.result = EvaluationResult()
    self._examples = self._load_examples()
    self._tasks = [task for task in plan.tasks if task.name in self._examples]
    self._load_model, self._open_executor = load_model, open_executor
    self._opened_executor: Executor | None = None
    self._loaded: tuple[str, LanguageModel] | None = None
    self._stack = contextlib.ExitStack()

  def compute(self) -> None:
    """Computes the records of this shard that are not cached."""
    with self._stack:
      for checkpoint in dict.fromkeys(arm.checkpoint for arm in self.plan.arms):
        for arm in self.plan.arms:
          for task in self._tasks if arm.checkpoint == checkpoint else ():
            self._compute_or_note_failure(task, arm)

  def is_complete(self) -> bool:
    """Tells whether all shards have done their part; notes what has crashed in another one."""
    for task in self._tasks:
      for arm in self._arms_of(task):
        name = f'{task.name}/{arm.name}'
        if name in self.result.failed or not self._uncached(task, self._records_of(task, arm)):
          continue
        crashes = glob(self.folder / 'errors', f'{task.name}.{arm.name}.*')
        if not crashes:
          return False
        reason = crashes[0].read_bytes().decode().strip().splitlines()[-1]
        self.result.failed[name] = f'{reason} (see {crashes[0]})'
    return True

  def score(self) -> None:
    """Scores the records of all shards."""
    for task in self._tasks:
      self._score_task(task)

  def _model(self, checkpoint: str) -> LanguageModel:
    """Returns the model of a checkpoint; only one is in memory at a time."""
    if self._loaded is None or self._loaded[0] != checkpoint:
      self._loaded = None
      model = self._load_model(checkpoint)
      if not self.plan.config.start_token:
        model = model.without_start_token()
      self._loaded = checkpoint, model
    return self._loaded[1]

  def _executor(self) -> Executor:
    if self._opened_executor is None:
      self._opened_executor = self._stack.enter_context(self._open_executor())
    return self._opened_executor

  def _load_examples(self) -> dict[str, Sequence[Example]]:
    """Returns the examples of each task whose data are there, by the task's name."""
    examples: dict[str, Sequence[Example]] = {}
    plan = self.plan
    for task in plan.tasks:
      try:
        data = load_task(task, plan.data_dir, plan.config, plan.limit)
        examples[task.name] = data.examples
        self.result.sources[task.name] = data.source()
      except MissingDataError as error:
        self.result.skipped[task.name] = str(error)
      except UserError as error:
        self.result.failed[task.name] = str(error)
    return examples

  def _compute_or_note_failure(self, task: Task, arm: Arm) -> None:
    """Computes the records of an arm on a task; the traceback of a crash goes to errors/."""
    of_shard = f'.{self.shard.index}-of-{self.shard.count}' if self.shard.count > 1 else ''
    path = self.folder / 'errors' / f'{task.name}.{arm.name}{of_shard}.txt'
    try:
      path.unlink(missing_ok=True)  # of an earlier attempt
      if arm in self._arms_of(task):
        self._compute(task, arm)
    except UserError:
      raise  # about a folder, a model or a tool: the other tasks would meet it as well
    except Exception as error:
      make_directory(path.parent)
      write_text(path, traceback.format_exc())
      name = f'{task.name}/{arm.name}'
      self.result.failed[name] = f'{type(error).__name__}: {error} (see {path})'
      log.warning('%s failed: %s', name, self.result.failed[name])

  def _arms_of(self, task: Task) -> list[Arm]:
    """Returns the arms that a task has: perplexities are those of texts without calls."""
    return [arm for arm in self.plan.arms
            if not (arm.calls and isinstance(task, PerplexityTask))]

  def _compute(self, task: Task, arm: Arm) -> None:
    """Computes the records of an arm on a task that are of this shard and not cached."""
    size, unit = ((_TEXTS_PER_CHUNK, 'texts') if isinstance(task, PerplexityTask)
                  else (_QUESTIONS_PER_CHUNK, 'questions'))
    with self._cache(task, arm) as cache:
      uncached = {example.id for example in
                  self._uncached(task, cache.records(_record_type(task)))}
      own = [example for number, example in enumerate(self._examples[task.name])
             if self.shard.has(number)]
      uncached = [example for example in own if example.id in uncached]
      with Progress(f'{task.name}, {arm.name}', len(own), unit,
                    len(own) - len(uncached)) as progress:
        for start in range(0, len(uncached), size):
          chunk = uncached[start:start + size]
          cache.add(self._records(task, arm, chunk))
          progress.advance(len(chunk))

  def _records(self, task: Task, arm: Arm, chunk: Sequence[Example]) -> Sequence[Record]:
    plan, model = self.plan, self._model(arm.checkpoint)
    if isinstance(task, PerplexityTask):
      return text_logprobs(model, cast(Sequence[Text], chunk), plan.config)
    if isinstance(task, ClassificationTask):
      return predict_labels(
          model, cast(Sequence[Question], chunk), calendar_date=plan.config.calendar_date,
          content_free_prompt=task.content_free_prompt if plan.config.calibrate_labels else '',
          ensemble=plan.config.ensemble_adapters)
    tool_names = plan.tools_of(task, arm)
    return predict(
        model, cast(Sequence[Question], chunk), engine_config=plan.engine,
        config=generation_config(task, arm, plan.generation, plan.config),
        syntax=plan.syntax, calendar_date=plan.config.calendar_date,
        executor=self._executor() if tool_names else None, tool_names=tool_names)

  def _cache(self, task: Task, arm: Arm) -> PredictionCache:
    return PredictionCache(self.folder / 'work' / task.name / arm.name,
                           self.plan.depends_on(task, arm), dict(self.plan.versions), self.shard)

  def _records_of(self, task: Task, arm: Arm) -> dict[str, Record]:
    """Returns the records of all shards."""
    with self._cache(task, arm) as cache:
      return cache.records(_record_type(task))

  def _uncached(self, task: Task, records: dict[str, Record]) -> list[Example]:
    """Returns the examples of a task without a record.

    Raises:
      UserError: a record is of another question or text with the same id.
    """
    examples = self._examples[task.name]
    for example in examples:
      record = records.get(example.id)
      if isinstance(record, Prediction):
        is_same = isinstance(example, Question) and record.is_of(
            example, self.plan.config.calendar_date)
      else:
        is_same = record is None or isinstance(example, Text) and record.is_of(example)
      if not is_same:
        raise UserError(f'{example.id} is not the one in the output folder: the data have '
                        'changed; choose another --output_dir, or the old data')
    return [example for example in examples if example.id not in records]

  def _score_task(self, task: Task) -> None:
    """Scores the arms that have a record of every example."""
    by_arm = {}
    for arm in self._arms_of(task):
      records = self._records_of(task, arm)
      if not self._uncached(task, records):  # else it has failed
        by_arm[arm.name] = self._score_arm(
            task, arm, [records[example.id] for example in self._examples[task.name]])
    self.result.add_task(task, by_arm, self.plan.config, self._examples[task.name])

  def _score_arm(self, task: Task, arm: Arm, records: list[Record]) -> list[dict[str, Any]]:
    """Returns the scored records of one arm, and writes them."""
    if isinstance(task, QuestionTask):
      scored = score_predictions(task, cast(list[Prediction], records), self.plan.config)
    else:
      scored = list(map(dataclasses.asdict, records))
    if too_long := sum(record.get('failure') is not None for record in scored):
      self.result.notes.append(f'{task.title}, {arm.name}: {too_long} of {len(scored)} prompts are '
                               'too long for the model and count as wrong.')
    path = self.folder / 'predictions' / f'{task.name}.{arm.name}.jsonl'
    make_directory(path.parent)
    write_lines(path, scored)
    return scored


def _record_type(task: Task) -> type[Record]:
  return TextLogprob if isinstance(task, PerplexityTask) else Prediction


def _write_report(plan: EvaluationPlan, result: EvaluationResult, folder: epath.Path) -> None:
  """Writes summary.json, report.md, tables.tex and plots."""
  result.report = tables.report(plan, result)
  write_json(folder / 'summary.json', {
      **result.to_dict(),
      'arms': {arm.name: {'checkpoint': arm.checkpoint,
                          'sha256': plan.checkpoint_hashes[arm.checkpoint]} for arm in plan.arms},
      'dtype': plan.dtype, 'limit': plan.limit, 'tools': list(plan.tool_names),
      'matchers': {task.name: str(getattr(task, 'matcher', 'perplexity')) for task in plan.tasks},
      'settings': dataclasses.asdict(plan.config),
      'generation': dataclasses.asdict(plan.generation)})
  latex = tables.latex(tables.score_rows(plan, result.scores))
  for name, content in (('report.md', result.report), ('tables.tex', latex)):
    write_text(folder / name, content)
  if importlib.util.find_spec('matplotlib'):
    from toolformer_jax.evaluation.plots import draw
    draw(plan, result.scores, folder / 'plots')
  else:
    log.info('no plots: pip install "toolformer_jax[plots]" draws them')
