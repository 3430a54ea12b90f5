"""The commands of README and docs run in the order of the pages, or say what they need.

A page says it in a line that begins with `**Needs**`, a command in a comment, `# needs ...`.
"""

import itertools
import json
import pathlib
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from .test_docs import PAGES, arguments, command_lines

REPOSITORY = pathlib.Path(__file__).parents[1]
# Pages whose commands are run; later ones use what the commands of earlier ones have written.
RUN = ('README.md', 'docs/start.md', 'docs/annotation.md', 'docs/howto/resuming.md',
       'docs/models.md', 'docs/tools.md')
SERVERS = ('serve', 'view')  # they print their address, and run until they are interrupted
TEXT = 'The shop sold 5 boxes of 3 pears, a total of 15 pears, on the third day of the week.'


def commands(page):
  """Yields each command of a page, and what it needs, or None."""
  text = (REPOSITORY / page).read_text('utf-8')
  of_page = re.search(r'^\*\*Needs\*\*:? (.+)', text, re.MULTILINE)
  for line in command_lines(text):
    needs = re.search(r'  #.*needs (.+)', line) or of_page
    yield line, needs and needs[1]


@pytest.mark.parametrize(
    'page', [path.relative_to(REPOSITORY).as_posix() for path in PAGES])
def test_every_command_is_run_or_says_what_it_needs(page):
  unknown = [command for command, needs in commands(page) if not needs]
  assert page in RUN or not unknown


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_commands_are_in_blocks_of_code(page):
  assert not re.search(r'^toolformer [a-z]+ -', page.read_text('utf-8'), re.MULTILINE)


@pytest.fixture
def workplace(tmp_path, monkeypatch, experiment, smollm2_path):
  """A working directory with the files that the pages speak of, and a small model."""
  monkeypatch.chdir(tmp_path)
  inputs, script = experiment('dry_run_inputs'), experiment('dry_run')
  shape = script.shape(layers=2, width=128).replace(max_positions=4096)
  inputs.save_random_checkpoint(tmp_path / 'small', shape)
  documents = [json.dumps({'text': f'{number} days later. {TEXT}',
                           'url': f'https://example.org/2019/03/{number + 1:02}/pears'}) + '\n'
               for number in range(6)]
  for name in ('texts.jsonl', 'my.jsonl'):
    (tmp_path / name).write_text(''.join(documents))
  (tmp_path / 'my_tools.py').write_text('def upper(text):\n  return text.upper()\n')
  samples = [f'{tool}/ToolConfig.m=40' for tool in ('calculator', 'calendar')]  # few are whole
  return {'annotate': [*script.ANNOTATION, *samples, 'AnnotationConfig.temperature=1.0',
                       'AnnotationConfig.look_ahead_guard=False'],
          'finetune': script.TRAINING, 'generate': script.ASKING, 'serve': script.ASKING}


def small_arguments(command, bindings):
  """Returns the arguments of a command with the small model, and thresholds that it passes."""
  words = arguments(command)
  if words[0] != 'fetch':
    words = ['small' if word == 'smollm2-135m' else word for word in words]
  if words[0] in SERVERS:
    words += ['--port', '0']
  return [*words, *(f'--gin.{binding}' for binding in bindings.get(words[0], ()))]


def run(argv):
  """Runs a command to its end; a server until its page has answered."""
  process = subprocess.Popen([sys.executable, '-m', 'toolformer_jax', *argv],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  try:
    if argv[0] in SERVERS:
      address = process.stdout.readline().strip()
      assert address.startswith('http'), (argv, address)
      with urllib.request.urlopen(address, timeout=120) as page:
        assert page.status == 200
      process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, (argv, out, err)
  finally:
    process.kill()


@pytest.mark.long
def test_the_commands_run_in_the_order_of_the_pages(workplace, tmp_path):
  found = itertools.chain.from_iterable(map(commands, RUN))
  ran = [small_arguments(command, workplace) for command, needs in found if not needs]
  for argv in ran:
    run(argv)
  assert {'annotate', 'call', 'doctor', 'export', 'fetch', 'finetune', 'generate', 'score',
          'serve', 'view'} <= {argv[0] for argv in ran}
  for written in ('scores.jsonl', 'runs/annotated/report.md', 'runs/tuned/model/config.json',
                  'runs/merged/model.safetensors', 'runs/adapter/adapter_config.json',
                  'runs/first/report.md', 'runs/again/report.md'):
    assert (tmp_path / written).is_file(), written
