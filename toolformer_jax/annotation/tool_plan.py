"""The tools of an annotation run, each with its thresholds and its prompt."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from toolformer_jax.annotation.config import PAPER_TOOL_CONFIGS, AnnotationConfig, ToolConfig
from toolformer_jax.annotation.early_rejection import sampling_settings
from toolformer_jax.annotation.prompts import Prompt, prompt_for
from toolformer_jax.calls import DEFAULT_SYNTAX
from toolformer_jax.errors import UserError, unknown
from toolformer_jax.tools.base import Tool

_Value = TypeVar('_Value')


@dataclass(frozen=True)
class ToolPlan:
  """How calls to one tool are sampled and filtered.

  Attributes:
    tool: the tool.
    config: its thresholds.
    prompt: the few-shot prompt from which its calls are sampled.
  """

  tool: Tool
  config: ToolConfig
  prompt: Prompt

  def configuration(self, config: AnnotationConfig) -> dict[str, Any]:
    """Returns what the results depend on, as JSON; the prompt by a hash of its text."""
    text = self.prompt.text_before_input(DEFAULT_SYNTAX)
    return dataclasses.asdict(self.config) | {
        'version': self.tool.version, 'prompt': hashlib.sha256(text.encode()).hexdigest()[:12],
        **sampling_settings(self.config.tau_f, config)}


def tool_plans(tools: Sequence[Tool], tool_configs: Mapping[str, ToolConfig] | None = None,
               prompts: Mapping[str, Prompt] | None = None) -> tuple[ToolPlan, ...]:
  """Returns the plans of `tools`, with the paper's thresholds and prompts as defaults.

  Args:
    tools: the tools.
    tool_configs: thresholds by the tool's name, in upper or lower case.
    prompts: prompts by the tool's name, in upper or lower case.

  Raises:
    UserError: there is no tool, two tools have the same name, a key is the name of none of the
      tools, or a tool has no prompt.
  """
  names = [tool.name.lower() for tool in tools]
  if not names:
    raise UserError('no tool is given: annotation needs at least one')
  if len({*names}) < len(names):
    raise UserError(f'two tools have the same name, apart from case: {", ".join(sorted(names))}')
  tool_configs = _by_lower_name('tool_configs', tool_configs, names)
  prompts = _by_lower_name('prompts', prompts, names)
  plans = []
  for name, tool in zip(names, tools, strict=True):
    config = tool_configs.get(name) or PAPER_TOOL_CONFIGS.get(name, ToolConfig())
    prompt = prompts.get(name) or prompt_for(tool.name, config.prompt)
    if prompt.tool != tool.name:
      raise UserError(f'prompts: the prompt for {tool.name} has calls to {prompt.tool}; its '
                      '`tool` must be the name of the tool')
    plans.append(ToolPlan(tool, config, prompt))
  return tuple(plans)


def _by_lower_name(argument: str, values: Mapping[str, _Value] | None, names: Sequence[str]
                   ) -> dict[str, _Value]:
  """Returns `values` by names in lower case, all of which must be among `names`."""
  by_name = {}
  for name, value in (values or {}).items():
    if name.lower() not in names:
      raise UserError(f'{argument}: {unknown("tool", name, names)}')
    if name.lower() in by_name:
      raise UserError(f'{argument} has two entries for the tool {name.lower()}')
    by_name[name.lower()] = value
  return by_name
