"""Annotates, fine-tunes and evaluates as one experiment, or as a grid of experiments.

OUTPUT_DIR/report.md has the tables, OUTPUT_DIR/<size>/<ablation>/seed<k>/ the configuration of a
cell, and OUTPUT_DIR/stages/ the runs; cells with equal stages share them. The same command
continues an interrupted experiment, and does not repeat what is done. A cell that fails does not
stop others.

Examples:
  toolformer experiment --gin_file experiments/table4_math.gin --gin_file models/gpt2_774m.gin \\
      --corpus texts.jsonl --data_dir data --output_dir runs/table4
  toolformer experiment --gin_file experiments/grids/figure4.gin --corpus texts.jsonl \\
      --output_dir runs/figure4 --dry_run
  toolformer experiment --gin_file experiments/table4_math.gin --checkpoint gpt-j-6b \\
      --arms base,cc=runs/cc,disabled=runs/tuned,toolformer=runs/tuned --data_dir data \\
      --output_dir runs/table4
"""

import argparse
from typing import TYPE_CHECKING

from toolformer_jax.checkpoints.names import check_checkpoint
from toolformer_jax.commands import options
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.arms import TITLES, parse_arms
from toolformer_jax.evaluation.tasks import (
  check_has_data,
  find_tasks,
  trainable_task,
  without_data,
)
from toolformer_jax.runtime.standard_output import print_result

if TYPE_CHECKING:
  from toolformer_jax.config.run_config import RunConfig
  from toolformer_jax.experiments.experiment import Experiment
  from toolformer_jax.experiments.grid import Cell


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  options.add_checkpoint(parser, with_adapter=False)
  parser.add_argument('--adapter', help=argparse.SUPPRESS)  # refused, as ADAPTER in a gin file is
  parser.add_argument('--corpus', metavar='F', help='the corpus to annotate, see annotate --help')
  parser.add_argument('--data', nargs='+', action='extend', default=[], metavar='D',
                      help='training data besides the corpus, see finetune --help')
  options.add_tools(parser)
  options.add_required(parser, 'tasks', metavar='A,B', type=options.names,
                       help='benchmarks, see evaluate --help')
  parser.add_argument('--arms', metavar='A,B',
                      help='some of base, cc, disabled, toolformer (default: all); '
                           'toolformer=C evaluates the checkpoint C instead of training one')
  parser.add_argument('--data_dir', metavar='D', help='see evaluate --help (default: data)')
  parser.add_argument('--limit', type=int, metavar='N',
                      help='use only the first N examples of each task')
  options.add_required(parser, 'output_dir', type=options.path, metavar='O',
                       help='the folder of the report and of all runs; the same command '
                            'continues it')
  parser.add_argument('--dry_run', action='store_true',
                      help='only print the cells, the stages that they share, and what is left to '
                           'compute')
  parser.add_argument('--cell', type=int, metavar='N',
                      help='run only the cell N, as --dry_run counts them, from 0')
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> None:
  """Runs the command."""
  cells = _cells(args)
  if args.cell is not None and not 0 <= args.cell < len(cells):
    raise UserError(f'--cell {args.cell}: the grid has the cells 0 to {len(cells) - 1}')
  if args.dry_run:
    from toolformer_jax.experiments.grid_plan import plan_table
    print_result(plan_table(cells, args.output_dir))
    return
  from toolformer_jax.experiments.run_grid import run_grid
  result = run_grid(cells, output_dir=args.output_dir, only=args.cell)
  print_result(result.report, end='')
  result.raise_failures()


def _cells(args: argparse.Namespace) -> list['Cell']:
  """Returns the cells of the grid, each with its own configuration; sets `args.output_dir`."""
  from toolformer_jax.experiments.grid import Cell, factors_of, without_repeated_seeds
  # A cell's gin file may bind what is required.
  base = argparse.Namespace(**{**vars(args), 'required': ('output_dir',)})
  grid = options.configuration(base).grid
  args.output_dir = base.output_dir
  cells = []
  for factors in factors_of(grid):
    files = [*args.gin_file, *([factors.size] if factors.size else [])]
    own = argparse.Namespace(**{**vars(args), 'gin_file': files})
    try:
      config = options.configuration(own, *factors.bindings(grid))
      cells.append(Cell(factors, _experiment(own, config), config.text))
    except UserError as error:
      changed = factors.ablation or factors.size  # what the cells before it do not have
      if not changed or changed in str(error):
        raise
      raise UserError(f'{changed}: {error}') from error
  return without_repeated_seeds(cells)


def _experiment(args: argparse.Namespace, config: 'RunConfig') -> 'Experiment':
  """Returns the experiment that options and configuration describe."""
  if args.adapter:
    raise UserError(
        f'experiment takes no adapter: write a model that has it, with `toolformer export '
        f'--checkpoint {args.checkpoint} --adapter {args.adapter} --output_dir M`, and give '
        '--checkpoint M')
  from toolformer_jax.experiments.experiment import Experiment
  arms = parse_arms(args.arms or ','.join(TITLES))
  for checkpoint in filter(None, arms.values()):
    check_checkpoint(checkpoint)
  data_dir = args.data_dir or 'data'
  check_has_data(find_tasks(args.tasks), data_dir)
  for name in config.experiment.train_tasks:
    task = trainable_task(name, 'ExperimentConfig.train_tasks', data_dir)
    if without_data([task], data_dir):
      raise UserError(f'ExperimentConfig.train_tasks: {data_dir} has no {name}; {task.how_to_get}')
  return Experiment(
      checkpoint=args.checkpoint, tasks=tuple(args.tasks), tools=tuple(args.tools),
      arms=arms, corpus=args.corpus or '',
      data=tuple(args.data), data_dir=data_dir, limit=args.limit,
      config=config.experiment, annotation=config.annotation, corpus_config=config.corpus,
      tool_configs=config.tools, finetune=config.finetune, mixture=config.mixture,
      compression=config.compression,
      evaluation=config.evaluation, generation=config.generation, engine=config.engine,
      model=config.model, executor=config.executor, toolbox=config.toolbox, syntax=config.syntax)
