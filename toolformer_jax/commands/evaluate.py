"""Evaluates models on benchmarks, with and without tools.

OUTPUT_DIR/report.md has the tables (tables.tex and plots/ too, summary.json for programs), and
OUTPUT_DIR/predictions/<task>.<arm>.jsonl every prediction with its calls. Predictions that
OUTPUT_DIR holds are not computed again: the same command continues where it stopped, and another
one adds tasks, arms or questions.

Arms: base and cc know no calls, disabled never starts a call, toolformer calls tools.

Several adapters are an ensemble, for classification: the score of a label is its mean over them.

Examples:
  toolformer evaluate --tasks svamp --data_dir data --limit 100 --tools calculator \\
      --arms base=smollm2-135m,disabled,toolformer --checkpoint runs/tuned --output_dir runs/svamp
  toolformer evaluate --tasks banking77 --data_dir data --arms base=smollm2-135m,toolformer \\
      --checkpoint smollm2-135m --adapter a=runs/adapter0 --adapter b=runs/adapter1 \\
      --output_dir runs/ensemble
"""

import argparse
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from toolformer_jax.checkpoints.names import check_checkpoint
from toolformer_jax.commands import options
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.arms import Arm, read_arms
from toolformer_jax.evaluation.task import ClassificationTask
from toolformer_jax.evaluation.tasks import check_has_data, find_tasks
from toolformer_jax.runtime.standard_output import print_result

if TYPE_CHECKING:
  from toolformer_jax.config.run_config import RunConfig
  from toolformer_jax.models.language_model import LanguageModel


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  options.add_required(
      parser, 'tasks', metavar='A,B', type=options.names,
      help='benchmarks, separated by commas: lama, asdiv, svamp, mawps, gsm8k, webquestions, '
           'nq_open, triviaqa, mlqa, mlqa_all_en, xquad, templama, dateset, wikitext2, corpus, '
           'banking77, clinc150, sib200, sst2, ag_news_subset, flores200, scitldr, xsum, wnut17, '
           'sgd, xquad_en')
  options.add_required(parser, 'output_dir', type=options.path, metavar='O',
                       help='the folder of the report; the same command continues it')
  options.add_shards(parser, 'Several processes can share the questions in one folder; the last '
                             'one to finish reports.')
  options.add_adapters(parser, 'in tasks of classification, the scores of labels are averaged')
  add_evaluation_options(parser)


def add_evaluation_options(parser: argparse.ArgumentParser) -> None:
  """Declares the options of every evaluation, whatever its tasks."""
  parser.add_argument('--data_dir', metavar='D',
                      help='D/<task>/ holds the official files of a benchmark, .gz or not '
                           '(default: data; dateset needs none); tfds: or tfds:D for those of '
                           'TensorFlow Datasets')
  parser.add_argument('--checkpoint', metavar='C', help='the model of arms without their own')
  parser.add_argument('--arms', metavar='A=C,B',
                      help='some of base, cc, disabled, toolformer, such as base=C0,toolformer=C2 '
                           '(default: disabled,toolformer)')
  parser.add_argument('--tools', metavar='A,B', type=options.names,
                      help='tools that toolformer may call (default: those of the paper that this '
                           'machine has)')
  parser.add_argument('--limit', type=int, metavar='N',
                      help='use only the first N examples of each task')
  options.add_call_store(parser)
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> None:
  """Runs the command."""
  shard = options.shard(args)
  config = options.configuration(args)
  adapters = options.adapters_by_name(args)
  if adapters:
    _check_can_be_averaged(args.tasks)
    config = dataclasses.replace(
        config, evaluation=dataclasses.replace(config.evaluation, ensemble_adapters=True))
  arms, adapted = _arms(args, adapters)
  for arm in arms:
    if arm.checkpoint != adapted:
      check_checkpoint(arm.checkpoint)
  check_has_data(find_tasks(args.tasks), args.data_dir or 'data')
  from toolformer_jax import api
  models: list[Arm] | dict[str, str | LanguageModel] = arms
  if adapted:
    model = api.load_model(args.checkpoint, config=config.model, adapter=args.adapter,
                           adapters=adapters)
    models = {arm.name: model if arm.checkpoint == adapted else arm.checkpoint for arm in arms}
  with options.call_store(args) as store:
    result = api.evaluate(
        args.tasks, arms=models, output_dir=args.output_dir, call_store=store, shard=shard,
        extra_files={'config.gin': config.text}, **evaluation_arguments(args, config))
  if result.complete:
    print_result(result.report, end='')
    result.raise_failures()
    return
  print_result(f'shard {shard.index} of {shard.count} is complete; the last shard to finish '
               'reports')
  if result.failed:
    result.raise_failures()


def _check_can_be_averaged(tasks: list[str]) -> None:
  """Raises UserError if adapters are given by name, and a task has no labels to score."""
  for task in find_tasks(tasks):
    if not isinstance(task, ClassificationTask):
      raise UserError(f'--adapter NAME=D: {task.name} is no task of classification, so that there '
                      'are no scores of labels to average; give one adapter, without a name')


def _arms(args: argparse.Namespace, adapters: Mapping[str, str]) -> tuple[list[Arm], str]:
  """Returns the arms, and the checkpoint of those that get the adapters; '' without adapters.

  Raises:
    UserError: an arm has no checkpoint, or none of them gets the adapters.
  """
  if not (args.adapter or adapters):
    return read_arms(args.arms, args.checkpoint), ''
  adapted = f'{args.checkpoint} with {args.adapter or ", ".join(adapters.values())}'
  arms = read_arms(args.arms, args.checkpoint and adapted)
  if adapted not in {arm.checkpoint for arm in arms}:
    raise UserError('--adapter has no effect: each arm has a checkpoint of its own; name the arm '
                    'that gets it without one')
  return arms, adapted


def evaluation_arguments(args: argparse.Namespace, config: 'RunConfig') -> dict[str, Any]:
  """Returns the arguments of `api.evaluate` that the options of `add_evaluation_options` give."""
  return {
      'data_dir': args.data_dir or 'data', 'tools': args.tools, 'limit': args.limit,
      'config': config.evaluation, 'generation_config': config.generation,
      'engine_config': config.engine, 'model_config': config.model,
      'executor_config': config.executor, 'toolbox': config.toolbox, 'syntax': config.syntax}
