"""What each stage of a run depends on, and the folder in which its chunks lie.

The chunks of a stage lie in a folder whose name ends with a hash of all that they depend on. A
change of a setting therefore leaves alone the chunks of all stages before those that it concerns.

    documents   <- corpus, tokenizer, length and chunks of texts
    T/select    <- documents, seed and preselection if the tool T has a heuristic
    T/sample    <- T/select, checkpoint, dtype, prompt, tau_s, k, m, temperature, ..., with
                   early_reject the loss without a call below which positions are rejected
    T/execute   <- T/sample, version of T, limits of calls, look_ahead_guard
    T/filter    <- T/execute, call_placement, baseline_loss, with early_reject the gain that need
                   not be known, and in another filter_dtype than float32 verify_margin and tau_f
    merged      <- T/filter, tau_f and max_texts of all tools, seed
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from toolformer_jax.annotation.early_rejection import MIN_LOSS_NO_CALL, min_gain
from toolformer_jax.annotation.preselect import with_heuristic

DOCUMENTS, MERGED = 'documents', 'merged'
TOOL_STAGES = ('select', 'sample', 'execute', 'filter')

# What a folder never changes: with another value, all of its stages would have to run again.
_FIXED_SETTINGS = ('max_text_tokens', 'window_documents', 'chunk_documents')
_CHANGEABLE = ('settings', 'limits', 'tools')
_NOT_OF_DOCUMENTS = ('checkpoint', 'dtype', *_CHANGEABLE)


def stage_name(tool: str, stage: str) -> str:
  """Returns the name of a stage of one tool."""
  return f'{tool.lower()}/{stage}'


def split_configuration(configuration: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns the part of a run's configuration that its folder never changes, and the rest."""
  settings = configuration.get('settings', {})
  fixed = {name: value for name, value in configuration.items() if name not in _CHANGEABLE}
  fixed['settings'] = {name: settings[name] for name in _FIXED_SETTINGS if name in settings}
  rest = {name: configuration.get(name, {}) for name in _CHANGEABLE}
  rest['settings'] = {name: value for name, value in settings.items()
                      if name not in _FIXED_SETTINGS}
  return fixed, rest


def join_configuration(fixed: Mapping[str, Any], rest: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the configuration that `split_configuration` has split."""
  return {**fixed, **rest, 'settings': {**fixed['settings'], **rest['settings']}}


def stage_folders(configuration: Mapping[str, Any]) -> dict[str, str]:
  """Returns the folder of each stage, relative to the run's folder, by the stage's name.

  Args:
    configuration: everything that the results depend on, as JSON; see
      `AnnotationPipeline.configuration`.
  """
  settings = configuration.get('settings', {})
  documents = _key(
      {name: value for name, value in configuration.items() if name not in _NOT_OF_DOCUMENTS},
      {name: settings.get(name) for name in _FIXED_SETTINGS})
  folders, filters = {DOCUMENTS: f'{DOCUMENTS}/{documents}'}, {}
  for tool, plan in sorted(configuration.get('tools', {}).items()):
    keys = _tool_keys(configuration, documents, tool, plan)
    for stage, key in keys.items():
      folders[stage_name(tool, stage)] = f'{stage_name(tool, stage)}/{key}'
    filters[tool] = keys['filter'], plan.get('tau_f'), plan.get('max_texts')
  folders[MERGED] = f'{MERGED}/{_key(documents, filters, settings.get("seed"))}'
  return folders


def _tool_keys(configuration: Mapping[str, Any], documents: str, tool: str,
               plan: Mapping[str, Any]) -> dict[str, str]:
  """Returns the key of each stage of a tool."""
  settings = configuration.get('settings', {})
  def of(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: values.get(name) for name in names}
  of_heuristic = of(settings, 'preselect', 'seed') if with_heuristic([tool]) else {}
  select = _key(documents, tool, of_heuristic)
  of_plan = ['prompt', 'tau_s', 'k', 'm']
  of_plan += [MIN_LOSS_NO_CALL] if MIN_LOSS_NO_CALL in plan else []
  sample = _key(
      select, of(configuration, 'checkpoint', 'dtype'), of(plan, *of_plan),
      of(settings, 'seed', 'temperature', 'top_p', 'max_call_tokens', 'force_name'))
  execute = _key(sample, plan.get('version'), configuration.get('limits'),
                 of(settings, 'look_ahead_guard'))
  scoring = of(settings, 'call_placement')
  if settings.get('baseline_loss', 'min') != 'min':  # a setting that earlier runs do not have
    scoring['baseline_loss'] = settings['baseline_loss']
  if settings.get('filter_dtype', 'float32') != 'float32':  # as baseline_loss
    scoring |= {**of(settings, 'filter_dtype', 'verify_margin'), **of(plan, 'tau_f')}
  least = min_gain(plan.get('tau_f', 0.0), settings.get('early_reject', False))
  return {'select': select, 'sample': sample, 'execute': execute,
          'filter': _key(execute, least, scoring)}


def _key(*depends_on: Any) -> str:
  """Returns a short hash of what a stage depends on."""
  return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:12]
