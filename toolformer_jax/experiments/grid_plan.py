"""The dry run of a grid: its cells, the stages that they share, and what is left to compute."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from etils import epath

from toolformer_jax.errors import NotLocalError
from toolformer_jax.evaluation.tables import Rows
from toolformer_jax.evaluation.tasks import find_tasks, without_data
from toolformer_jax.experiments.cost import (
  SAMPLE,
  Cost,
  CostCounter,
  UnknownCostError,
  checkpoint_of,
)
from toolformer_jax.experiments.grid import Cell, check_differ
from toolformer_jax.experiments.runner import StageRunner
from toolformer_jax.experiments.stage_checks import check_stages
from toolformer_jax.experiments.stages import Annotate, Compress, Evaluate, Finetune, Stage
from toolformer_jax.runtime.markdown import markdown_table

_KINDS = tuple(stage.kind for stage in (Annotate, Finetune, Compress, Evaluate))
_WHAT_COUNTS = (
    'Texts are those to sample calls for, or the questions. FLOPs are those of matrix products and '
    'attention. They are upper bounds: they assume that all samples of the annotation are '
    'different calls, that rows of the training are full, and that no text ends early. A stage '
    'counts in the first cell that needs it. Where there are more than '
    f'{SAMPLE} documents or questions, the total is extrapolated from the first {SAMPLE}. Tools, '
    'loading, compilation and held-out texts are not counted.')
_HOURS = ('Hours are an estimate. They assume the speed of the stages of the same kind and model '
          'that are done in this folder.')


@dataclass(frozen=True)
class GridPlan:
  """What is left to do of a grid.

  Attributes:
    stages: all different stages, each after those that it reads.
    done: those whose result exists.
    costs: what each of the others takes; None if that is unknown.
    hours: an estimate of the time of those whose speed is known.
    unknown: why costs are unknown.
  """

  stages: Sequence[Stage]
  done: frozenset[Stage]
  costs: Mapping[Stage, Cost | None]
  hours: Mapping[Stage, float]
  unknown: Sequence[str]

  def shown(self, stages: Iterable[Stage]) -> list[str]:
    """Returns texts, tokens, FLOPs and hours of those of `stages` that are left, as cells."""
    left = [stage for stage in stages if stage not in self.done]
    known = [cost for stage in left if (cost := self.costs[stage]) is not None]
    missing = len(left) - len(known)
    if left and not known:
      return ['unknown'] * 3 + ['-']
    total = sum(known, Cost())
    cells = [f'{total.texts:,}', f'{total.tokens:,}', f'{total.flops:.2e}' if total.flops else '0']
    if missing:
      cells = [f'{cell} and {missing} unknown' for cell in cells]
    hours = [self.hours.get(stage) for stage in left]
    is_known = None not in hours
    return [*cells, f'{sum(filter(None, hours)):.2f}' if is_known else '-']


def plan_grid(cells: Sequence[Cell], output_dir: epath.Path) -> GridPlan:
  """Counts what is left to do of a grid, without loading weights or downloading anything.

  Raises:
    UserError: a corpus or a benchmark is broken, for instance.
  """
  runner, counter = StageRunner(output_dir), CostCounter()
  stages = list(dict.fromkeys(stage for cell in cells for stage in cell.experiment.stages()))
  done = [stage for stage in stages if runner.is_done(stage)]
  costs: dict[Stage, Cost | None] = {}
  unknown = {}
  for stage in dict.fromkeys([*done, *stages]):  # an annotation may take parts of one that is done
    try:
      costs[stage] = counter.count(stage)
    except (NotLocalError, UnknownCostError) as error:
      costs[stage] = None
      if stage not in done:
        unknown[f'{stage.kind}: {error}'] = None
  speeds = _speeds(done, costs, runner)
  hours = {stage: cost.flops / speed / 3600 for stage, cost in costs.items()
           if cost is not None and (speed := speeds.get((stage.kind, checkpoint_of(stage))))}
  return GridPlan(stages, frozenset(done), costs, hours, list(unknown))


def _speeds(done: Iterable[Stage], costs: Mapping[Stage, Cost | None], runner: StageRunner
            ) -> dict[tuple[str, str], float]:
  """Returns by kind and checkpoint the FLOPs per second of the stages that ran in one go."""
  flops: Counter[tuple[str, str]] = Counter()
  seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
  for stage in done:
    cost, record = costs[stage], runner.record(stage)
    if cost is not None and not record.get('continued'):
      key = stage.kind, checkpoint_of(stage)
      flops[key] += cost.flops
      seconds[key] += record['seconds']
  return {key: flops[key] / spent for key, spent in seconds.items() if spent and flops[key]}


def plan_table(cells: Sequence[Cell], output_dir: epath.Path) -> str:
  """Returns the cells and their stages in Markdown, what they share, and what is left to compute.

  Raises:
    UserError: two groups of cells are the same experiment, a stage would be refused, or as for
      `plan_grid`.
  """
  check_differ(cells)
  check_stages(cells, StageRunner(output_dir))
  plan = plan_grid(cells, output_dir)
  kinds = Counter(stage.kind for stage in plan.stages)
  total = ', '.join(f'{count} {kind}' for kind, count in kinds.items())
  parts = [markdown_table(_cell_rows(cells, plan)),
           f'{len(plan.stages)} different stages: {total}.{_left_out(cells)}',
           markdown_table(_stage_rows(plan)),
           _WHAT_COUNTS + (f' {_HOURS}' if plan.hours else '')]
  if plan.unknown:
    parts.append('\n'.join(['Unknown:', *(f'- {why}' for why in plan.unknown)]))
  return '\n\n'.join(parts)


def _cell_rows(cells: Sequence[Cell], plan: GridPlan) -> Rows:
  uses = Counter(stage for cell in cells for stage in cell.experiment.stages())
  rows = [['cell', 'folder', 'stages', 'shared with other cells', 'done', 'FLOPs left']]
  counted: set[Stage] = set()
  for number, cell in enumerate(cells):
    stages = cell.experiment.stages()
    new = [stage for stage in stages if stage not in counted]
    counted |= {*stages}
    rows.append([str(number), cell.factors.folder, str(len(stages)),
                 str(sum(uses[stage] > 1 for stage in stages)),
                 str(len(plan.done.intersection(stages))), plan.shown(new)[2]])
  return rows


def _stage_rows(plan: GridPlan) -> Rows:
  hours = ['hours (estimate)'] if plan.hours else []
  rows = [['left to do', 'stages', 'texts', 'tokens', 'FLOPs', *hours]]
  for name in (*_KINDS, 'all'):
    chosen = [stage for stage in plan.stages if name in (stage.kind, 'all')]
    left = sum(stage not in plan.done for stage in chosen)
    rows.append([name, str(left), *plan.shown(chosen)[:3 + bool(hours)]])
  return rows


def _left_out(cells: Sequence[Cell]) -> str:
  missing = {f'{task.title} (in {cell.experiment.data_dir})' for cell in cells for task in
             without_data(find_tasks(cell.experiment.tasks), cell.experiment.data_dir)}
  if not missing:
    return ''
  return f'\nSkipped, because the data are missing: {", ".join(sorted(missing))}.'
