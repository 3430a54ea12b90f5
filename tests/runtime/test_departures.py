"""Departures: none by the defaults and paper.gin, and all of another configuration's."""

import dataclasses
import pathlib

from toolformer_jax.annotation.config import PAPER_TOOL_CONFIGS
from toolformer_jax.annotation.departures import annotation_departures
from toolformer_jax.annotation.tool_plan import tool_plans
from toolformer_jax.calls import CallSyntax
from toolformer_jax.config.loading import load
from toolformer_jax.models.presets import PRESETS, size_name
from toolformer_jax.runtime.departures import (
  Departure,
  Stated,
  departures,
  departures_section,
)
from toolformer_jax.tools.calculator import Calculator
from toolformer_jax.tools.calendar import Calendar
from toolformer_jax.training.departures import finetuning_departures

CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'
GPTJ = PRESETS['gptj_6b']
TOOLS = [Calculator(), Calendar()]


def annotation_of(config, model):
  plans = tool_plans(TOOLS, {tool.name: config.tool_config(tool.name) for tool in TOOLS})
  return annotation_departures(plans, config.annotation, config.syntax, model)


def by_setting(found):
  return {one.setting: (one.here, one.paper) for one in found}


def test_values_that_differ_are_listed_in_the_order_of_the_paper():
  stated = {'k': Stated(5, 'appendix A'), 'm': Stated(5, 'appendix A'), 'n': Stated(1, 'none')}
  assert departures({'m': 2, 'k': 5, 'other': 7}, stated) == (Departure('m', 2, 5, 'appendix A'),)


def test_paper_gin_is_the_paper():
  config = load([CONFIGS / 'paper.gin'])
  model = GPTJ.replace(dtype=config.model.dtype)
  assert config.macros['CHECKPOINT'] == 'hf://EleutherAI/gpt-j-6b'
  assert annotation_of(config, model) == ()
  assert finetuning_departures(config.finetune, config.mixture, model) == ()


def test_the_departures_of_the_quickstart():
  config = load([CONFIGS / 'quickstart.gin'])
  model = PRESETS['smollm2_135m']
  found = by_setting(annotation_of(config, model))
  assert found.pop('calculator/ToolConfig.prompt')[0].endswith('word_problems.txt')
  assert found.pop('model') == ('smollm2_135m', 'gptj_6b')
  assert found.pop('AnnotationConfig.force_name') == (True, False)
  assert found.pop('AnnotationConfig.look_ahead_guard') == (True, False)
  for tool in ('calculator', 'calendar'):
    here, paper = config.tool_config(tool), PAPER_TOOL_CONFIGS[tool]
    for field in ('tau_s', 'k', 'm', 'tau_f', 'max_texts'):
      values = getattr(here, field), getattr(paper, field)
      assert found.pop(f'{tool}/ToolConfig.{field}', None) == (
          None if values[0] == values[1] else values)
  assert not found
  trained = by_setting(finetuning_departures(config.finetune, config.mixture, model))
  for field, paper in (('batch_rows', 0), ('adapter', None), ('steps', 2000)):
    assert trained[f'FinetuneConfig.{field}'] == (getattr(config.finetune, field), paper)


def test_another_spelling_of_calls_departs():
  config = dataclasses.replace(load(), syntax=CallSyntax(start=' {'))
  assert by_setting(annotation_of(config, GPTJ)) == {'CallSyntax.start': (' {', ' [')}


def test_a_section_lists_value_source_and_paper():
  text = departures_section((Departure('ToolConfig.k', 4, 20, 'appendix A'),))
  assert '| ToolConfig.k | 4 | 20 | appendix A |' in text
  assert 'None: every setting' in departures_section(())


def test_sizes_have_the_names_of_their_presets():
  assert {size_name(config) for config in PRESETS.values()} == PRESETS.keys()
  assert size_name(GPTJ.replace(layers=3)) == '3 layers of width 4096'
