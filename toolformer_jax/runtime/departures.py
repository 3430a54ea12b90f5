"""Where a run departs from what the paper states (Schick et al. 2023)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolformer_jax.runtime.markdown import markdown_table

_TITLE = '## Departures from the paper'


@dataclass(frozen=True)
class Stated:
  """A value that the paper states.

  Attributes:
    value: of the setting.
    section: of the paper.
  """

  value: Any
  section: str


# The model, by its name in `models.presets`, and the tools that are more than a short program.
MODEL = {'model': Stated('gptj_6b', 'section 4.1')}
BACKENDS = {
  'QA': Stated('Atlas, tuned on NQ: large to annotate, xxl to evaluate', 'section 3'),
  'WikiSearch': Stated("BM25 over KILT's Wikipedia", 'section 3'),
  'MT': Stated('NLLB 600M', 'section 3')}


@dataclass(frozen=True)
class Departure:
  """A setting of a run that has not the value of the paper.

  Attributes:
    setting: its name, as in gin where it can be bound.
    here, paper: its value in this run and in the paper.
    section: of the paper that states the value.
  """

  setting: str
  here: Any
  paper: Any
  section: str


def departures(settings: Mapping[str, Any], stated: Mapping[str, Stated]) -> tuple[Departure, ...]:
  """Returns the settings of a run that differ from what the paper states, in the paper's order."""
  return tuple(Departure(name, settings[name], known.value, known.section)
               for name, known in stated.items()
               if name in settings and settings[name] != known.value)


def backend_departures(versions: Mapping[str, str]) -> tuple[Departure, ...]:
  """Returns the tools whose backend is another than the paper's, or is not known to be the same.

  Args:
    versions: of the tools of a run, by their names as in calls.
  """
  return tuple(Departure(f'tool {name}', f'version {versions[name]}', known.value, known.section)
               for name, known in BACKENDS.items() if name in versions)


def departures_section(found: tuple[Departure, ...]) -> str:
  """Returns a section of a report, in Markdown."""
  if not found:
    return f'{_TITLE}\n\nNone: every setting that the paper states has its value.'
  rows = [['setting', 'here', 'paper', 'stated in']]
  rows += [[one.setting, f'{one.here}', f'{one.paper}', one.section] for one in found]
  return f'{_TITLE}\n\n{markdown_table(rows)}'
