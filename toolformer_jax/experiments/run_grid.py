"""Runs the cells of a grid, and writes its report."""

import dataclasses
import importlib.util
import logging
import traceback
from collections.abc import Sequence

import jax
from etils import epath

from toolformer_jax.errors import UserError
from toolformer_jax.experiments import grid_report
from toolformer_jax.experiments.grid import Cell, check_differ
from toolformer_jax.experiments.grid_report import GridResult
from toolformer_jax.experiments.grid_tables import training_report
from toolformer_jax.experiments.results import CellResult, cell_report, read_result
from toolformer_jax.experiments.runner import StageRunner
from toolformer_jax.experiments.stage_checks import check_stages
from toolformer_jax.experiments.stages import Stage
from toolformer_jax.runtime.paths import make_directory, write_text
from toolformer_jax.runtime.run_dir import write_json

log = logging.getLogger(__name__)


def run_grid(cells: Sequence[Cell], *, output_dir: epath.Path, only: int | None = None
             ) -> GridResult:
  """Runs the cells that are not done, and writes the report in its formats, and the figures.

  Args:
    cells: the cells.
    output_dir: folder of the grid.
    only: the number of the only cell to run; the report then has the cells that are done.

  Raises:
    UserError: two groups of cells are the same experiment, a stage would be refused, or the folder
      cannot be written to.
  """
  check_differ(cells)
  runner = StageRunner(output_dir)
  check_stages(cells, runner)
  results, size = [], cells[0].factors.size
  for number, cell in enumerate(cells):
    if cell.factors.size != size:
      size = cell.factors.size
      jax.clear_caches()  # the programs of one model are of no use to the next
    if only in (None, number):
      log.info('cell %d of %d: %s', number, len(cells), cell.factors.folder)
      results.append(_run_cell(cell, runner, output_dir))
    elif all(map(runner.is_done, cell.experiment.evaluations())):
      results.append(read_result(cell, runner))
    else:
      results.append(CellResult(cell, failure='not run yet'))
  result = GridResult(cells[0].experiment.config.title, results, cells[0].experiment.evaluation,
                      _report_of_only_cell(results, output_dir))
  _write(result, output_dir)
  return result


def _run_cell(cell: Cell, runner: StageRunner, output_dir: epath.Path) -> CellResult:
  """Runs a cell; whatever goes wrong is its failure, and stops only what depends on it."""
  folder = output_dir / cell.factors.folder
  make_directory(folder)
  write_text(folder / 'config.gin', cell.config_text)
  failures: dict[Stage, str] = {}
  for stage in cell.experiment.stages():
    of_input = next((failures[one] for one in stage.inputs() if one in failures), '')
    if failure := of_input or _failure(stage, runner, folder):
      failures[stage] = failure
  result = dataclasses.replace(read_result(cell, runner),
                               failure='; '.join(dict.fromkeys(failures.values())))
  if result.failure:
    log.warning('%s failed: %s', cell.factors.folder, result.failure)
  if result.records:
    write_text(folder / 'report.md', cell_report(result, runner))
  return result


def _failure(stage: Stage, runner: StageRunner, folder: epath.Path) -> str:
  """Runs a stage; returns why it failed, or ''. A traceback is written to the cell's folder."""
  try:
    runner.run(stage)
  except UserError as error:
    return str(error)
  except Exception as error:
    write_text(folder / 'error.txt', traceback.format_exc())
    return f'{type(error).__name__}: {error} (see {folder / "error.txt"})'
  return ''


def _report_of_only_cell(results: Sequence[CellResult], output_dir: epath.Path) -> str:
  if len(results) > 1 or not results[0].records:
    return ''
  return (output_dir / results[0].cell.factors.folder / 'report.md').read_text('utf-8')


def _write(result: GridResult, output_dir: epath.Path) -> None:
  for name, text in (('report.md', result.report), ('table.tex', grid_report.latex_table(result))):
    write_text(output_dir / name, text)
  write_json(output_dir / 'scores.json', {'scores': grid_report.score_objects(result)})
  if training := training_report(result):
    write_text(output_dir / 'training.md', training)
  if importlib.util.find_spec('matplotlib'):
    from toolformer_jax.experiments.grid_plots import draw
    draw(result, output_dir / 'figures')
