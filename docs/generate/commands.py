"""The page of the commands, from their parsers."""

import argparse
import textwrap

from markup import escaped

from toolformer_jax.commands.parsers import COMMANDS, actions, command_parser
from toolformer_jax.runtime.markdown import markdown_table

_INTRODUCTION = '''# Commands

Made from the parsers of the commands: `toolformer COMMAND --help` says the same. Results go to
standard output, everything else to standard error. An error that the user can fix is one line, with
exit code 2. Most options can also be bound in a gin file, in capitals; see [Settings](settings.md).
'''


def page() -> str:
  """Returns the page in Markdown: what each command does, its options and examples."""
  overview = [['command', 'does']]
  overview += [[f'[`{name}`](#{name})', does] for name, does in COMMANDS.items()]
  return '\n\n'.join([_INTRODUCTION, markdown_table(overview), *map(_section, COMMANDS)]) + '\n'


def _section(name: str) -> str:
  parser = command_parser(name)
  rows = [['option', 'meaning']]
  rows += [[_usage(action), _meaning(action, parser)] for action in actions(parser)
           if action.dest != 'help']
  parts = [f'## {name}', escaped(parser.description.strip()), markdown_table(rows)]
  if _has_settings(parser):
    parts.append('`--gin.NAME=VALUE` changes one [setting](settings.md).')
  if parser.epilog:
    examples = textwrap.dedent(parser.epilog.partition('\n')[2])
    parts.append(f'```bash\n{examples}\n```')
  return '\n\n'.join(parts)


def _has_settings(parser: argparse.ArgumentParser) -> bool:
  return any(action.dest == 'gin_file' for action in actions(parser))


def _usage(action: argparse.Action) -> str:
  """Returns an option as it is written, with its value."""
  if action.nargs == 0:
    return f'`{action.option_strings[-1]}`'
  value = action.metavar or action.dest
  if action.choices:
    value = f'{{{",".join(action.choices)}}}'
  return f'`{" ".join([*action.option_strings[-1:], value])}`'


def _meaning(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
  """Returns the help of an option, with its default filled in."""
  known = {**vars(action), 'prog': parser.prog}
  required = action.required or action.dest in (parser.get_default('required') or ())
  text = (action.help or '') % known
  return escaped(f'{text} (required)' if required else text)
