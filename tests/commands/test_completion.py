"""Completion: the scripts run in real shells, and offer what the parsers accept."""

import shutil
import subprocess

import pytest

from toolformer_jax.commands import completion
from toolformer_jax.commands.parsers import COMMANDS, actions, command_parser

SHELLS = {'bash': completion.bash, 'zsh': completion.zsh, 'fish': completion.fish}
# Completes the words that are its arguments, and prints the proposals.
BASH = '\nCOMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _toolformer; printf "%s\\n" "${COMPREPLY[@]}"'


def proposals(*words):
  done = subprocess.run(['bash', '-c', completion.bash() + BASH, 'bash', 'toolformer', *words],
                        capture_output=True, text=True, check=True)
  assert not done.stderr
  return done.stdout.split()


def test_commands_are_proposed():
  assert proposals('') == [*COMMANDS]
  assert proposals('fin') == ['finetune']


@pytest.mark.parametrize('name', COMMANDS)
def test_every_option_of_a_command_is_proposed(name):
  options = [option for action in actions(command_parser(name)) for option in action.option_strings]
  assert proposals(name, '-') == options


def test_values_are_proposed():
  assert proposals('plan', '--step', '') == ['train', 'score', 'prefill', 'decode']
  assert proposals('completion', 'z') == ['zsh']
  assert proposals('annotate', '--corpus', 'te') == []  # then names of files, by -o default


@pytest.mark.parametrize('shell', SHELLS)
def test_the_script_is_accepted(shell):
  if not shutil.which(shell):
    pytest.skip(f'{shell} is not installed')
  done = subprocess.run([shell, '-n', '/dev/stdin'], input=SHELLS[shell](), capture_output=True,
                        text=True)
  assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.skipif(not shutil.which('fish'), reason='fish is not installed')
def test_fish_proposes_options_with_what_they_do():
  script = completion.fish() + "\ncomplete -C 'toolformer annotate --cor'"
  done = subprocess.run(['fish', '-c', script], capture_output=True, text=True, check=True)
  assert done.stdout.startswith('--corpus\t')


@pytest.mark.skipif(not shutil.which('zsh'), reason='zsh is not installed')
def test_zsh_reads_the_script():
  script = completion.zsh() + '\nprint -r -- $_comps[toolformer]'
  done = subprocess.run(['zsh', '-f', '-c', script], capture_output=True, text=True, check=True)
  assert '_toolformer' in done.stdout
