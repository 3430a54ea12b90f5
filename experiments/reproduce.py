"""Functions that the scripts of tables 2, 9, 10, of figure 4 and of all of them share.

Every script takes the options of `toolformer evaluate` except --tasks, and --dry_run. Results that
exist are not computed again.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence

from toolformer_jax import api, cli
from toolformer_jax.commands import evaluate, options
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.arms import TITLES, read_arms
from toolformer_jax.evaluation.plan import EvaluationPlan
from toolformer_jax.evaluation.result import EvaluationResult
from toolformer_jax.evaluation.tables import latex
from toolformer_jax.evaluation.task import QuestionTask
from toolformer_jax.evaluation.tasks import load_examples
from toolformer_jax.experiments import comparison
from toolformer_jax.runtime.markdown import markdown_table
from toolformer_jax.runtime.paths import atomic_writer

ROOT = pathlib.Path('runs/paper')
_CHARS_PER_TOKEN = 4  # of English, for the estimate of a dry run


class CellsFailed(UserError):
  """Cells of a table have failed; `report` has all others."""

  def __init__(self, report: str, failed: Mapping[str, str]):
    super().__init__(f'{len(failed)} failed: '
                     + '; '.join(f'{name}: {why}' for name, why in failed.items()))
    self.report = report
    self.failed = failed


def check_cells(report: str, *results: EvaluationResult) -> None:
  """Raises CellsFailed with this report if an arm on a task has failed."""
  if failed := {name: why for one in results for name, why in one.failed.items()}:
    raise CellsFailed(report, failed)


def main(script: str, title: str, run: Callable[[argparse.Namespace], str],
         add: Callable[[argparse.ArgumentParser], None], folder: pathlib.Path | None = None) -> int:
  """Parses the options that `add` declares, calls `run`, and prints the report that it returns.

  The report is also written to OUTPUT_DIR/<script>.md. If a cell has failed, the exit code is 2.
  `folder` is the default of OUTPUT_DIR.
  """
  def work() -> None:
    parser = cli.Parser(prog=f'{script}.py', description=title, allow_abbrev=False)
    add(parser)
    parser.add_argument('--output_dir', type=pathlib.Path, metavar='O',
                        default=folder or ROOT / script)
    parser.add_argument('--dry_run', action='store_true', help='only print what would be done')
    args = cli.parse(parser, sys.argv[1:])
    cli.log_to_stderr()
    failure = None
    try:
      text = run(args)
    except CellsFailed as error:
      text, failure = error.report, error
    print(text)
    if not args.dry_run:
      args.output_dir.mkdir(parents=True, exist_ok=True)
      with atomic_writer(args.output_dir / f'{script}.md') as file:
        file.write(text + '\n')
    if failure:
      raise failure
  return cli.guarded(work, resumable=True)


def benchmark_table(args: argparse.Namespace, title: str, tasks: Sequence[str],
                    folder: pathlib.Path) -> str:
  """Evaluates `tasks` and returns our figures beside the paper's; of a dry run, the plan."""
  config = options.configuration(args)
  how = evaluate.evaluation_arguments(args, config)
  arms = read_arms(args.arms, args.checkpoint)
  plan = api.evaluation_plan(tasks, arms=arms, **how)
  if args.dry_run:
    return f'# {title}\n\n{planned(plan, folder)}'
  with options.call_store(args) as store:
    results = api.evaluate(tasks, arms=arms, output_dir=folder, call_store=store, **how)
  with atomic_writer(folder / 'paper.tex') as file:
    file.write(latex(comparison.figure_rows(plan, results)))
  text = compared(title, plan, results, folder)
  check_cells(text, results)
  return text


def compared(title: str, plan: EvaluationPlan, results: EvaluationResult,
             folder: pathlib.Path) -> str:
  """Returns our figures beside the paper's, in Markdown."""
  return (f'{comparison.report(title, plan, results)} Settings, rules and checkpoints: '
          f'{folder / "report.md"}.')


def planned(plan: EvaluationPlan, folder: pathlib.Path) -> str:
  """Returns the questions that an evaluation would ask, and an estimate of the work."""
  rows = [['task', 'arms', 'items', 'tokens to read', 'tokens to write, at most']]
  for task in plan.tasks:
    arms = [arm for arm in plan.arms if isinstance(task, QuestionTask) or not arm.calls]
    titles = ', '.join(TITLES[arm.name] for arm in arms)
    try:
      items = load_examples(task, plan.data_dir, plan.config, plan.limit)
    except UserError as error:
      rows.append([task.title, titles, f'none: {error}', '-', '-'])
      continue
    asked = isinstance(task, QuestionTask)
    chars = sum(len(item.prompt if asked else item.text) for item in items)
    wanted = task.matcher.max_tokens(plan.config) if asked else 0
    called = plan.generation.max_call_tokens * sum(arm.calls for arm in arms)
    rows.append([task.title, titles, f'{len(items):,}',
                 f'{len(arms) * chars // _CHARS_PER_TOKEN:,}',
                 f'{len(items) * (len(arms) * wanted + called * bool(wanted)):,}'])
  tools = f'Tools: {", ".join(plan.tool_names) or "none"}.'
  return '\n\n'.join([markdown_table(rows), tools,
                      f'Output: {folder}. Results in it are not computed again.'])
