"""Figure 4: the gain by tools for models of several sizes.

    python experiments/figure4_scaling.py --sizes 124=C1 355=C2 --data_dir D

A size is the number of parameters in millions. Its checkpoint was fine-tuned with the calculator,
QA and the search, the only tools of the figure. Draws OUTPUT_DIR/figure4.png and .pdf.
"""

import argparse
import pathlib
import sys
from statistics import fmean

from reproduce import check_cells, main, planned

from toolformer_jax import api
from toolformer_jax.commands import evaluate, options
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.arms import Arm
from toolformer_jax.evaluation.result import EvaluationResult
from toolformer_jax.experiments import paper
from toolformer_jax.runtime.markdown import markdown_table

TITLE = 'Figure 4: scaling'
TOOLS = ['calculator', 'qa', 'wikisearch']
ARMS = ('toolformer', 'disabled')

Means = dict[int, tuple[float, float]]  # of the two arms, by size


def add(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  parser.add_argument('--sizes', nargs='+', required=True, metavar='MILLIONS=C', type=size)
  evaluate.add_evaluation_options(parser)


def size(text: str) -> tuple[int, str]:
  """Reads `124=C`."""
  millions, _, checkpoint = text.partition('=')
  if not millions.isdecimal() or not checkpoint:
    raise argparse.ArgumentTypeError(f'{text!r} is not of the form 124=CHECKPOINT')
  return int(millions), checkpoint


def run(args: argparse.Namespace) -> str:
  """Evaluates every size; returns the averages of each family beside the paper's."""
  config = options.configuration(args)
  how = evaluate.evaluation_arguments(args, config) | {'tools': args.tools or TOOLS}
  tasks = [name for family in paper.FAMILIES.values() for name in family]
  sections, found = [f'# {TITLE}'], {}
  for millions, checkpoint in args.sizes:
    arms = [Arm(name, checkpoint) for name in ARMS]
    folder = args.output_dir / f'{millions}M'
    if args.dry_run:
      plan = api.evaluation_plan(tasks, arms=arms, **how)
      sections += [f'## {millions}M', planned(plan, folder)]
    else:
      with options.call_store(args) as store:
        found[millions] = api.evaluate(tasks, arms=arms, output_dir=folder, call_store=store, **how)
  if not found:
    return '\n\n'.join(sections)
  means = {family: {millions: mean for millions, results in sorted(found.items())
                    if (mean := average(results, names))}
           for family, names in paper.FAMILIES.items()}
  if not any(means.values()):
    raise UserError('nothing was evaluated: '
                    + '; '.join(next(iter(found.values())).skipped.values()))
  draw(means, args.output_dir / 'figure4')
  sources = sorted({f'- {name}: {source}' for results in found.values()
                    for name, source in results.sources.items()})
  missing = sorted({why for results in found.values() for why in results.skipped.values()})
  text = '\n\n'.join([*sections, markdown_table(rows(means)), '\n'.join(sources), *missing])
  check_cells(text, *found.values())
  return text


def average(results: EvaluationResult, tasks: tuple[str, ...]) -> tuple[float, float] | None:
  """Returns the averages of both arms over the sets of a family that both have a score on."""
  of_arm = [{(score.task, score.group): score.value for score in results.scores
             if score.task in tasks and score.arm == arm and (score.group or score.task != 'lama')}
            for arm in ARMS]
  common = of_arm[0].keys() & of_arm[1].keys()
  if not common:
    return None
  best, plain = (fmean(values[name] for name in sorted(common)) for values in of_arm)
  return best, plain


def rows(means: dict[str, Means]) -> list[list[str]]:
  """Returns a row for each family and size, ours and the paper's."""
  found = [['', 'who', 'millions', 'Toolformer', 'disabled', 'gain']]
  for family, ours in means.items():
    for who, values in (('ours', ours), ('paper', paper.SCALING[family])):
      found += [[family, who, str(millions), f'{best:.1f}', f'{plain:.1f}', f'{best - plain:+.1f}']
                for millions, (best, plain) in values.items()]
  return found


def draw(means: dict[str, Means], path: pathlib.Path) -> None:
  """Draws ours in colour and the paper's in grey."""
  from matplotlib.figure import Figure

  from toolformer_jax.evaluation.plots import save
  figure = Figure(figsize=(10, 3.2))
  for axes, (family, ours) in zip(figure.subplots(1, len(means)), means.items(), strict=True):
    for who, values, colour in (('paper', paper.SCALING[family], '0.6'), ('ours', ours, '#b85450')):
      for arm, style in enumerate(('o-', 'o:')):
        label = f'{who}, {("Toolformer", "disabled")[arm]}'
        axes.plot(list(values), [pair[arm] for pair in values.values()], style, color=colour,
                  label=label, markersize=4)
    axes.axhline(paper.SCALING_GPT3[family], color='0.8', linestyle='--', label='GPT-3')
    axes.set(title=family, xlabel='million parameters', ylabel='% right', xscale='log')
  axes.legend(fontsize='x-small')
  save(figure, path)


if __name__ == '__main__':
  sys.exit(main('figure4_scaling', TITLE, run, add))
