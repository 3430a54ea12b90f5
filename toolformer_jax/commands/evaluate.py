"""Asks models the questions of benchmarks, with and without tools, and judges the answers.

OUTPUT_DIR/report.md has the tables (tables.tex and plots/ too, summary.json for programs), and
OUTPUT_DIR/predictions/<task>.<arm>.jsonl every answer with its calls. Answers that
it holds are not computed again: the same command continues where it stopped, another one adds
tasks, arms or questions.

Arms: base and cc decode plainly, disabled never starts a call, toolformer calls tools.
"""

import argparse
import pathlib
from typing import TYPE_CHECKING, Any

from toolformer_jax.commands import options
from toolformer_jax.runtime.standard_output import print_result

if TYPE_CHECKING:
  from toolformer_jax.config.run_config import RunConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  options.add_required(
      parser, 'tasks', metavar='A,B', type=options.names,
      help='benchmarks, separated by commas: lama, asdiv, svamp, mawps, gsm8k, webquestions, '
           'nq_open, triviaqa, mlqa, xquad, templama, dateset, wikitext2, corpus')
  options.add_required(parser, 'output_dir', type=pathlib.Path, metavar='O')
  add_how(parser)


def add_how(parser: argparse.ArgumentParser) -> None:
  """Declares the options that say how tasks are evaluated, whichever they are."""
  parser.add_argument('--data_dir', metavar='D',
                      help='D/<task>/ holds the official files of a benchmark, .gz or not '
                           '(default: data; dateset needs none); tfds: or tfds:D for those of '
                           'TensorFlow Datasets')
  parser.add_argument('--checkpoint', metavar='C', help='the model of arms that name none')
  parser.add_argument('--arms', metavar='A=C,B',
                      help='of base, cc, disabled, toolformer: base=C0,cc=C1,toolformer=C2 '
                           '(default: disabled,toolformer)')
  parser.add_argument('--tools', metavar='A,B', type=options.names,
                      help='tools that toolformer may call (default: all five of the paper that '
                           'this machine has)')
  parser.add_argument('--limit', type=int, metavar='N', help='ask only N questions of each task')
  options.add_call_store(parser)
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> None:
  """Carries the command out."""
  from toolformer_jax import api
  from toolformer_jax.evaluation.arms import read_arms
  config = options.configuration(args)
  with options.call_store(args) as store:
    result = api.evaluate(
        args.tasks, arms=read_arms(args.arms, args.checkpoint), output_dir=args.output_dir,
        call_store=store, **how(args, config))
  config.save(args.output_dir)
  print_result(result.report, end='')
  result.raise_failures()


def how(args: argparse.Namespace, config: 'RunConfig') -> dict[str, Any]:
  """Returns the arguments of `api.evaluate` that the options of `add_how` give."""
  return {
      'data_dir': args.data_dir or 'data', 'tools': args.tools, 'limit': args.limit,
      'config': config.evaluation, 'generation_config': config.generation,
      'engine_config': config.engine, 'model_config': config.model,
      'executor_config': config.executor, 'toolbox': config.toolbox, 'syntax': config.syntax}
