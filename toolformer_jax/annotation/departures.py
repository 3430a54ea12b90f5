"""Where an annotation departs from what the paper states (section 2, appendices A and B)."""

import dataclasses
from collections.abc import Sequence

from toolformer_jax.annotation.config import PAPER_TOOL_CONFIGS, AnnotationConfig
from toolformer_jax.annotation.prompts import PROMPTS
from toolformer_jax.annotation.tool_plan import ToolPlan
from toolformer_jax.calls import CallSyntax
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.presets import size_name
from toolformer_jax.runtime.departures import (
  MODEL,
  Departure,
  Stated,
  backend_departures,
  departures,
)

STATED = {
  **MODEL,
  'AnnotationConfig.preselect': Stated(True, 'appendix A.1'),
  'AnnotationConfig.force_name': Stated(False, 'section 2'),
  'AnnotationConfig.look_ahead_guard': Stated(False, 'appendix A.1: for MT alone'),
  'AnnotationConfig.call_placement': Stated('prefix', 'section 2, footnote 3'),
  'AnnotationConfig.baseline_loss': Stated('min', 'section 2'),
  'CallSyntax.start': Stated(' [', 'section 2, footnote 1'),
  'CallSyntax.end': Stated(']', 'section 2, footnote 1')}
_SECTIONS = {'tau_s': 'appendix A', 'k': 'appendix A', 'm': 'appendix A', 'tau_f': 'appendix A',
             'max_texts': 'appendix B'}


def annotation_departures(
    plans: Sequence[ToolPlan], config: AnnotationConfig, syntax: CallSyntax, model: DecoderConfig,
) -> tuple[Departure, ...]:
  """Returns what differs from the paper in an annotation by `model`.

  Tools that the paper does not have are left out.
  """
  settings = {
      'model': size_name(model),
      **{f'AnnotationConfig.{name}': value for name, value in dataclasses.asdict(config).items()},
      **{f'CallSyntax.{name}': value for name, value in dataclasses.asdict(syntax).items()}}
  stated = dict(STATED)
  for plan in plans:
    name = plan.tool.name.lower()
    if name in PAPER_TOOL_CONFIGS:
      for field, section in _SECTIONS.items():
        setting = f'{name}/ToolConfig.{field}'
        settings[setting] = getattr(plan.config, field)
        stated[setting] = Stated(getattr(PAPER_TOOL_CONFIGS[name], field), section)
      own_prompt = plan.prompt != PROMPTS[name]
      settings[f'{name}/ToolConfig.prompt'] = (plan.config.prompt or 'own') if own_prompt else ''
      stated[f'{name}/ToolConfig.prompt'] = Stated('', 'appendix A.2')
  versions = {plan.tool.name: plan.tool.version for plan in plans}
  return departures(settings, stated) + backend_departures(versions)
