"""Table 9: calls and accuracy by the k of decoding.

    python experiments/table9_decoding_k.py --checkpoint C --data_dir D

T-REx and WebQuestions with k = 0 (no calls), 1 (plain greedy), 3 and 10. Every call counts, whether
or not it returned a result.
"""

import argparse
import dataclasses
import sys

from reproduce import check_cells, main, planned

from toolformer_jax import api
from toolformer_jax.commands import evaluate, options
from toolformer_jax.evaluation.arms import read_arms
from toolformer_jax.evaluation.scores import Score
from toolformer_jax.evaluation.tables import format_score
from toolformer_jax.evaluation.task import Task
from toolformer_jax.evaluation.tasks import TASKS
from toolformer_jax.experiments import paper
from toolformer_jax.runtime.markdown import markdown_table

TITLE = 'Table 9: the k of decoding'


def run(args: argparse.Namespace) -> str:
  """Evaluates for each k and returns ours beside the paper's."""
  config = options.configuration(args)
  sections, found = [f'# {TITLE}'], {}
  for k in (0, 1, 3, 10):
    how = evaluate.evaluation_arguments(args, config)
    if k:
      how['generation_config'] = dataclasses.replace(config.generation, top_k_api=k)
    arms = read_arms('toolformer' if k else 'disabled', args.checkpoint)
    folder = args.output_dir / f'k{k}'
    if args.dry_run:
      plan = api.evaluation_plan(tasks(), arms=arms, **how)
      sections += [f'## k = {k}', planned(plan, folder)]
    else:
      with options.call_store(args) as store:
        found[k] = api.evaluate(tasks(), arms=arms, output_dir=folder, call_store=store, **how)
  for name, theirs in paper.DECODING_K.items() if found else ():
    reasons = {why for one in found.values() for part, why in {**one.skipped, **one.failed}.items()
               if part.split('/')[0] == name}
    rows = [['k', 'all', 'paper', 'with a call', 'paper', 'without', 'paper', '% calls', 'paper']]
    for k, results in found.items():
      rows += [row(k, score, theirs[k]) for score in results.scores if score.task == name]
    title = 'T-REx' if name == 'lama' else TASKS[name].title
    sources = {one.sources[name] for one in found.values() if name in one.sources}
    sections += [f'## {title}', markdown_table(rows), *sorted(sources), *sorted(reasons)]
  text = '\n\n'.join(sections)
  check_cells(text, *found.values())
  return text


def tasks() -> list[Task]:
  """Returns the tasks; of LAMA T-REx alone."""
  lama = TASKS['lama']
  def trex(folder, settings):
    return [dataclasses.replace(question, group='') for question in lama.read(folder, settings)
            if question.group == 'trex']
  only = dataclasses.replace(lama, title='T-REx', read=trex, groups=())
  return [only if name == 'lama' else TASKS[name] for name in paper.DECODING_K]


def row(k: int, score: Score, theirs: paper.AtK) -> list[str]:
  """Returns a row of the table."""
  def digits(value: float | None) -> str:
    return '-' if value is None else f'{value:.1f}'
  return [str(k), format_score(score), digits(theirs.all), digits(score.when_called),
          digits(theirs.with_call), digits(score.when_not_called), digits(theirs.without_call),
          digits(score.called), digits(theirs.share)]


if __name__ == '__main__':
  sys.exit(main('table9_decoding_k', TITLE, run, evaluate.add_evaluation_options))
