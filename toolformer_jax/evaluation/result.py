"""The result of an evaluation."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.answer_matching import FirstNumber
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.label_metrics import LabelMetrics, label_metrics
from toolformer_jax.evaluation.scores import (
  Difference,
  Score,
  aggregate_scores,
  error_breakdown,
  paired_differences,
)
from toolformer_jax.evaluation.task import ClassificationTask, Example, Question, Task, TextTask
from toolformer_jax.evaluation.text_metrics import TextMetric, text_metrics


@dataclass
class EvaluationResult:
  """The scores of all arms on all tasks, and what they were computed from.

  Attributes:
    scores: a score for each arm and task, and for each group of a task.
    differences: Toolformer minus each other arm, on the same questions.
    breakdowns: of word problems, by task: how many predictions of Toolformer had which outcome.
    label_metrics: of tasks of classification, by task and arm.
    text_metrics: of tasks of writing, by task, and by `task.group` where it has several groups; by
      arm (or the task's baseline), by metric.
    sources: number, files and split of the examples of each task, by its name.
    notes: remarks on single predictions that a reader of the scores has to know.
    skipped: why tasks were not evaluated, by name.
    failed: why an arm on a task, or the reading of a task, failed: by `task/arm` or `task`.
    predictions: the scored predictions of each `task.arm`, as JSON objects.
    report: all tables in Markdown; '' if other processes have examples left.
  """

  scores: list[Score] = field(default_factory=list)
  differences: list[Difference] = field(default_factory=list)
  breakdowns: dict[str, dict[str, int]] = field(default_factory=dict)
  label_metrics: dict[str, dict[str, LabelMetrics]] = field(default_factory=dict)
  text_metrics: dict[str, dict[str, dict[str, TextMetric]]] = field(default_factory=dict)
  sources: dict[str, str] = field(default_factory=dict)
  notes: list[str] = field(default_factory=list)
  skipped: dict[str, str] = field(default_factory=dict)
  failed: dict[str, str] = field(default_factory=dict)
  predictions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
  report: str = ''

  def add_task(self, task: Task, by_arm: Mapping[str, list[dict[str, Any]]],
               config: EvaluationConfig, examples: Sequence[Example] = ()) -> None:
    """Adds the scored predictions of all arms on a task, and what follows from them.

    `examples` are those of the task, for its baseline.
    """
    for arm, records in by_arm.items():
      self.predictions[f'{task.name}.{arm}'] = records
      self.scores += aggregate_scores(task, arm, records, config)
    if isinstance(task, ClassificationTask):
      self.label_metrics[task.name] = {
          arm: label_metrics(records, samples=config.bootstrap_samples, seed=config.seed)
          for arm, records in by_arm.items()}
    if isinstance(task, TextTask):
      self.text_metrics |= _text_metrics(task, by_arm, config, examples)
    self.differences += paired_differences(task, by_arm, config)
    if 'toolformer' in by_arm and isinstance(getattr(task, 'matcher', None), FirstNumber):
      self.breakdowns[task.name] = error_breakdown(by_arm['toolformer'], config)

  @property
  def complete(self) -> bool:
    """Whether all is evaluated; otherwise other processes still predict their part."""
    return bool(self.report)

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
      reasons = '; '.join(self.skipped.values()) or 'perplexities need an arm without calls'
      raise UserError(f'nothing was evaluated: {reasons}')


def _text_metrics(task: TextTask, by_arm: Mapping[str, list[dict[str, Any]]],
                  config: EvaluationConfig, examples: Sequence[Example]
                  ) -> dict[str, dict[str, dict[str, TextMetric]]]:
  """Returns the metrics of the arms and of the baseline, for the task and each of its groups."""
  written = {arm: [(record['group'], record['extracted'], record['answers']) for record in records]
             for arm, records in by_arm.items()}
  if task.baseline:
    written[task.baseline] = [(one.group, one.baseline, one.answers) for one in examples
                              if isinstance(one, Question)]
  def metrics(triples: Sequence[tuple[str, str, Sequence[str]]]) -> dict[str, TextMetric]:
    _, texts, references = zip(*triples, strict=True)
    return text_metrics(task.metrics, texts, references, samples=config.bootstrap_samples,
                        seed=config.seed)
  groups = sorted({one.group for one in examples})
  found = {task.name: {arm: metrics(triples) for arm, triples in written.items()}}
  for group in groups if len(groups) > 1 else ():
    found[f'{task.name}.{group}'] = {
        arm: metrics([triple for triple in triples if triple[0] == group])
        for arm, triples in written.items()}
  return found
