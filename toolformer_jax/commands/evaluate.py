"""Asks models the questions of benchmarks, with and without tools, and judges the answers.

OUTPUT_DIR/report.md has the tables (tables.tex and plots/ too, summary.json for programs), and
OUTPUT_DIR/predictions/<task>.<arm>.jsonl every answer with its calls. What is there is not computed
again: the same command goes on where it stopped, another one adds tasks, arms or questions.

Arms: base and cc decode plainly, disabled never starts a call, toolformer calls tools.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import logging
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from toolformer_jax.checkpoints.loading import load_model
from toolformer_jax.commands import options
from toolformer_jax.data.content_hash import identity
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.run_dir import software_versions, whole_file, write_json
from toolformer_jax.tools.base import Context
from toolformer_jax.tools.executor import Executor
from toolformer_jax.tools.registry import PAPER_TOOLS, call_runner

if TYPE_CHECKING:
  from toolformer_jax.config.loading import Configuration
  from toolformer_jax.evaluation.runner import CallsOf, Plan, Results
  from toolformer_jax.evaluation.task import Question

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  parser.add_argument('--tasks', required=True, metavar='A,B', type=lambda text: text.split(','),
                      help='benchmarks, apart by commas: lama, asdiv, svamp, mawps, gsm8k, '
                           'webquestions, nq_open, triviaqa, mlqa, xquad, templama, dateset, '
                           'wikitext2, corpus')
  parser.add_argument('--output_dir', required=True, type=pathlib.Path, metavar='O')
  add_how(parser)


def add_how(parser: argparse.ArgumentParser) -> None:
  """Declares the options that say how tasks are evaluated, whichever they are."""
  parser.add_argument('--data_dir', metavar='D', default='data',
                      help='D/<task>/ holds the official files of a benchmark, .gz or not '
                           '(default: data; dateset needs none); tfds: or tfds:D for those of '
                           'TensorFlow Datasets')
  parser.add_argument('--checkpoint', metavar='C', help='the model of arms that name none')
  parser.add_argument('--arms', metavar='A=C,B',
                      help='of base, cc, disabled, toolformer: base=C0,cc=C1,toolformer=C2 '
                           '(default: disabled,toolformer)')
  parser.add_argument('--tools', metavar='A,B', type=lambda text: text.split(','),
                      help='tools that toolformer may call (default: all five of the paper that '
                           'this machine has)')
  parser.add_argument('--limit', type=int, metavar='N', help='ask only N questions of each task')
  options.add_call_store(parser)
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> None:
  """Carries the command out."""
  config = options.configuration(args)
  plan = plan_of(args, config, args.tasks)
  results = carry_out(args, config, plan, args.output_dir)
  with open(args.output_dir / 'report.md', encoding='utf-8') as file:
    print(file.read(), end='')
  refuse_failures(results)


def carry_out(args: argparse.Namespace, config: 'Configuration', plan: 'Plan',
              folder: pathlib.Path) -> 'Results':
  """Computes what `folder` lacks of `plan`, and writes its report."""
  from toolformer_jax.evaluation.runner import evaluate
  from toolformer_jax.runtime.run_dir import LockedFolder
  with options.call_store(args) as store:
    def open_tools():
      return _tools(args, config, plan, store)
    def load(checkpoint: str):
      return load_model(checkpoint, config.model).frozen()
    with LockedFolder(folder, {'made by': 'evaluate'}, plan.versions):
      config.save(folder)
      results = evaluate(plan, folder, load=load, open_tools=open_tools)
      _write_report(plan, results, folder)
  return results


def refuse_failures(results: 'Results') -> None:
  """Raises UserError if anything failed, or nothing was evaluated."""
  if results.failed:
    raise UserError(f'{len(results.failed)} failed: ' + '; '.join(
        f'{name}: {reason}' for name, reason in results.failed.items()))
  if not results.scores:
    raise UserError('nothing was evaluated: ' + '; '.join(results.skipped.values()))


def plan_of(args: argparse.Namespace, config: 'Configuration', names: Sequence[str]) -> 'Plan':
  """Returns what the options ask for of the tasks `names`.

  Raises:
    UserError: something is amiss, before any work.
  """
  from toolformer_jax.evaluation.arms import read_arms
  from toolformer_jax.evaluation.runner import Plan
  from toolformer_jax.evaluation.task import TFDS
  from toolformer_jax.evaluation.tasks import tasks
  if args.limit is not None and args.limit < 1:
    raise UserError(f'--limit must be at least 1, not {args.limit}')
  chosen, arms = tasks(names), read_arms(args.arms, args.checkpoint)
  if not (args.data_dir.startswith(TFDS) or pathlib.Path(args.data_dir).is_dir()
          or not any(task.how_to_get for task in chosen)):
    raise UserError(f'--data_dir: there is no folder {args.data_dir}')
  calls = any(arm.calls for arm in arms)
  toolbox = config.toolbox
  return Plan(
      tasks=chosen, arms=arms, data_dir=args.data_dir, limit=args.limit, settings=config.evaluation,
      generation=config.generation, syntax=config.syntax,
      tools=(toolbox.spelled(args.tools) if args.tools else _available(config)) if calls else [],
      identities={arm.checkpoint: identity(arm.checkpoint) for arm in arms},
      described={'toolbox': dataclasses.asdict(toolbox),
                 'max_result_chars': config.executor.max_result_chars,
                 'time_limit_s': config.executor.time_limit_s},
      versions=software_versions())


def _available(config: 'Configuration') -> list[str]:
  """Returns the paper's tools, without the translator where there is none."""
  try:
    config.toolbox.build(['mt'])
  except UserError as error:
    log.warning('without the tool mt: %s', error)
    return [name for name in PAPER_TOOLS if name != 'MT']
  return list(PAPER_TOOLS)


@contextlib.contextmanager
def _tools(args: argparse.Namespace, config: 'Configuration', plan: 'Plan',
           store) -> Iterator['CallsOf']:
  """Opens the tools of the plan."""
  built = options.tools(plan.tools, config, store)
  with Executor(built, config.executor, syntax=config.syntax, store=store) as executor:
    def calls_of(questions: Sequence['Question']):
      date = plan.settings.calendar_date
      contexts = [Context(question.id, date=question.date or date) for question in questions]
      return call_runner(executor, contexts)
    yield calls_of


def _write_report(plan: 'Plan', results: 'Results', folder: pathlib.Path) -> None:
  """Writes summary.json, report.md, tables.tex and plots."""
  from toolformer_jax.evaluation.tables import latex, report, score_rows
  text = report(plan, results)
  write_json(folder / 'summary.json', {
      **dataclasses.asdict(results),
      'arms': {arm.name: {'checkpoint': arm.checkpoint, 'sha256': plan.identities[arm.checkpoint]}
               for arm in plan.arms},
      'limit': plan.limit, 'tools': list(plan.tools),
      'rules': {task.name: str(task.rule) if task.rule else 'perplexity' for task in plan.tasks},
      'settings': dataclasses.asdict(plan.settings),
      'generation': dataclasses.asdict(plan.generation)})
  for name, content in (('report.md', text), ('tables.tex', latex(score_rows(plan,
                                                                             results.scores)))):
    with whole_file(folder / name) as file:
      file.write(content)
  if importlib.util.find_spec('matplotlib'):
    from toolformer_jax.evaluation.plots import draw
    draw(plan, results.scores, folder / 'plots')
  else:
    log.info('no plots: pip install "toolformer_jax[plots]" draws them')
