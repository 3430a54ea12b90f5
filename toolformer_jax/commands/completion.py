"""Prints a script that lets a shell complete the commands of toolformer and their options.

Install it with one of the examples; for every new shell, put the line into the shell's start file.

Examples:
  source <(toolformer completion bash)
  source <(toolformer completion zsh)
  toolformer completion fish > ~/.config/fish/completions/toolformer.fish
"""

import argparse
import shlex

from toolformer_jax.commands.parsers import COMMANDS, actions, command_parser
from toolformer_jax.runtime.standard_output import print_result

# zsh runs the script of bash by its own emulation.
_BASH = '''_toolformer() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} words=''
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    words={commands}
  else
    case "${{COMP_WORDS[1]}} $before $word" in
{options}
{values}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _toolformer toolformer'''
_ZSH = 'autoload -U compinit bashcompinit && compinit && bashcompinit\n'


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  parser.add_argument('shell', choices=tuple(_SCRIPTS), help='the shell that reads the script')


def run(args: argparse.Namespace) -> None:
  """Runs the command."""
  print_result(_SCRIPTS[args.shell]())


def bash() -> str:
  """Returns the script for bash. Where no option fits, it completes the names of files."""
  values, options = [], []
  for name in COMMANDS:
    found = actions(command_parser(name))
    words = ' '.join(option for action in found for option in action.option_strings)
    options.append(f"      '{name} '*' -'*) words={shlex.quote(words)} ;;")
    for action in found:
      if not action.choices:
        continue
      choices = shlex.quote(' '.join(action.choices))
      if action.option_strings:
        values += [f"      '{name} {option} '*) words={choices} ;;"
                   for option in action.option_strings]
      else:  # a positional argument right after the command
        values.append(f"      '{name} {name} '*) words={choices} ;;")
  return _BASH.format(commands=shlex.quote(' '.join(COMMANDS)), values='\n'.join(values),
                      options='\n'.join(options))


def zsh() -> str:
  """Returns the script for zsh."""
  return _ZSH + bash()


def fish() -> str:
  """Returns the script for fish, which shows what each option does."""
  lines = []
  for name, does in COMMANDS.items():
    lines.append(f'complete -c toolformer -n __fish_use_subcommand -f -a {name} '
                 f'-d {shlex.quote(does)}')
    given = f"-n '__fish_seen_subcommand_from {name}'"
    for action in actions(command_parser(name)):
      names = ' '.join(f'-l {option[2:]}' if option.startswith('--') else f'-s {option[1:]}'
                       for option in action.option_strings)
      choices = f'-x -a {shlex.quote(" ".join(action.choices))}' if action.choices else ''
      value = choices or ('-r' if action.option_strings and action.nargs != 0 else '')
      does = (action.help or '').partition(';')[0].replace('%(default)s', str(action.default))
      if names or choices:
        parts = ['complete -c toolformer', given, names, value, f'-d {shlex.quote(does)}']
        lines.append(' '.join(part for part in parts if part))
  return '\n'.join(lines)


_SCRIPTS = {'bash': bash, 'zsh': zsh, 'fish': fish}
