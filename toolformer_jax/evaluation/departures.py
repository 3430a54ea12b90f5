"""Where an evaluation departs from what the paper states (section 4.2)."""

import dataclasses

from toolformer_jax.evaluation.plan import EvaluationPlan
from toolformer_jax.models.presets import CHECKPOINTS
from toolformer_jax.runtime.departures import (
  MODEL,
  Departure,
  Stated,
  backend_departures,
  departures,
)

_ALL_TOOLS = 'Calculator, Calendar, MT, QA, WikiSearch'
STATED = {
  'checkpoint of base': Stated(CHECKPOINTS[MODEL['model'].value], MODEL['model'].section),
  'GenerationConfig.top_k_api': Stated(10, 'section 4.2'),
  'GenerationConfig.max_calls': Stated(1, 'section 4.2'),
  'GenerationConfig.temperature': Stated(0.0, 'section 4.2: greedy decoding'),
  'CallSyntax.start': Stated(' [', 'section 2, footnote 1'),
  'CallSyntax.end': Stated(']', 'section 2, footnote 1'),
  'tools': Stated(_ALL_TOOLS, 'section 3'),
  'EvaluationConfig.few_shot_prompt': Stated('', 'section 4.2: zero-shot'),
  'examples of each task': Stated('all', 'section 4.2'),
  'multilingual questions': Stated('MLQA', 'section 4.2.4')}


def evaluation_departures(plan: EvaluationPlan) -> tuple[Departure, ...]:
  """Returns what differs from the paper in an evaluation; what the paper leaves open does not."""
  settings = {f'GenerationConfig.{name}': value
              for name, value in dataclasses.asdict(plan.generation).items()}
  settings |= {f'CallSyntax.{name}': value
               for name, value in dataclasses.asdict(plan.syntax).items()}
  settings['EvaluationConfig.few_shot_prompt'] = plan.config.few_shot_prompt
  settings['examples of each task'] = f'the first {plan.limit}' if plan.limit else 'all'
  for arm in plan.arms:
    if arm.name == 'base':
      settings['checkpoint of base'] = arm.checkpoint
    if arm.calls:
      settings['tools'] = ', '.join(sorted(plan.tool_names))
  for task in plan.tasks:
    if task.name == 'xquad':
      settings['multilingual questions'] = task.title
  return departures(settings, STATED) + backend_departures(plan.tool_versions)
