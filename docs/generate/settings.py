"""The page of the settings, from the dataclasses that gin can bind."""

import dataclasses
import pathlib
import re
import typing
from typing import Any

from markup import escaped

from toolformer_jax.annotation.config import PAPER_TOOL_CONFIGS, ToolConfig
from toolformer_jax.annotation.departures import STATED as ANNOTATION
from toolformer_jax.config.registry import RUN_MACROS, SETTINGS
from toolformer_jax.evaluation.departures import STATED as EVALUATION
from toolformer_jax.runtime.departures import BACKENDS, Stated
from toolformer_jax.runtime.markdown import markdown_table
from toolformer_jax.training.departures import STATED as TRAINING

STATED: dict[str, Stated] = {**ANNOTATION, **TRAINING, **EVALUATION}
_REPOSITORY = pathlib.Path(__file__).parents[2]
_INTRODUCTION = '''# Settings

Made from the dataclasses of the package. `--gin.AnnotationConfig.temperature=0.7` changes a
setting for one command, a line `AnnotationConfig.temperature = 0.7` in a gin file for every command
that is given the file. In Python the same dataclasses are arguments. An unknown name, a wrong type
and a value out of range are errors before the work starts.

The column *paper* has the value that Schick et al. (2023) state, and where; it is empty where the
paper leaves the setting open. Without a gin file the settings are the paper's. Every report lists
the settings of its run that depart from the paper.
'''


def page() -> str:
  """Returns the page in Markdown: every setting with its default and the value of the paper."""
  parts = [_INTRODUCTION, _tools_of_the_paper()]
  parts += [_section(name, settings) for name, settings in SETTINGS.items()]
  return '\n\n'.join([*parts, _options(), _gin_files()]) + '\n'


def descriptions(settings: type) -> dict[str, str]:
  """Returns what the docstring of a dataclass says of each of its fields."""
  section = re.split(r'\n\s*Attributes:\n', settings.__doc__)[1]
  found = {}
  for names, text in re.findall(r'^    (\w[\w, ]*): (.*(?:\n(?:      .*|(?=\n)))*)', section,
                                re.MULTILINE):
    for name in names.split(', '):
      found[name] = ' '.join(text.split())
  return found


def _section(name: str, settings: type) -> str:
  meaning = descriptions(settings)
  rows = [['setting', 'default', 'paper', 'meaning']]
  for field in dataclasses.fields(settings):
    stated = STATED.get(f'{name}.{field.name}')
    paper = f'{_value(stated.value)} ({stated.section})' if stated else ''
    rows.append([f'`{field.name}`', _value(_default(field)), paper,
                 escaped(meaning[field.name]) + _choices(field.type)])
  summary = settings.__doc__.partition('\n\n')[0]
  return f'## {name}\n\n{summary}\n\n{markdown_table(rows)}'


def _default(field: dataclasses.Field) -> Any:
  if field.default is not dataclasses.MISSING:
    return field.default
  return field.default_factory()


def _value(value: Any) -> str:
  return f'`{value:,}`' if type(value) is int and value >= 10_000 else f'`{value!r}`'


def _choices(kind: Any) -> str:
  """Returns the values of a Literal, in words."""
  if typing.get_origin(kind) is not typing.Literal:
    return ''
  return f' One of {", ".join(f"`{value!r}`" for value in typing.get_args(kind))}.'


def _tools_of_the_paper() -> str:
  """Returns the values that the paper has for each tool."""
  names = [field.name for field in dataclasses.fields(ToolConfig) if field.name != 'prompt']
  rows = [['tool', *(f'`{name}`' for name in names), 'the paper runs it with']]
  backends = {name.lower(): stated.value for name, stated in BACKENDS.items()}
  rows += [[tool, *(_value(getattr(config, name)) for name in names), backends.get(tool, '')]
           for tool, config in PAPER_TOOL_CONFIGS.items()]
  return ('## The tools of the paper\n\nThe defaults of `TOOL/ToolConfig` for the five tools of '
          'the paper, bound as `calculator/ToolConfig.k = 20` (appendix A).\n\n'
          + markdown_table(rows))


def _options() -> str:
  rows = [['name', 'type']]
  rows += [[f'`{name}`', f'`{kind.__name__}`'] for name, kind in RUN_MACROS.items()]
  return ('## Options in gin files\n\nThese options of commands can be bound in a gin file: '
          "`CHECKPOINT = 'smollm2-135m'` stands for `--checkpoint smollm2-135m`. The command line "
          'takes precedence; a command ignores options that it does not have.\n\n'
          + markdown_table(rows))


def _gin_files() -> str:
  """Returns the gin files of the package, each with its first comment."""
  rows = [['file', 'what it sets']]
  for path in sorted(path for folder in ('configs', 'experiments')
                     for path in (_REPOSITORY / folder).rglob('*.gin')):
    name = path.relative_to(_REPOSITORY).as_posix()
    comment = re.match(r'(?:# .*\n)+', path.read_text('utf-8'))  # its first paragraph
    words = ' '.join(line.lstrip('# ') for line in comment[0].splitlines()) if comment else ''
    known_as = name.removeprefix('configs/')
    rows.append([f'[`{known_as}`](../../{name})', escaped(words)])
  return ('## Gin files of the package\n\n`--gin_file quickstart.gin` finds them wherever the '
          'package is installed; a file of this name in the working directory comes first.\n\n'
          + markdown_table(rows))
