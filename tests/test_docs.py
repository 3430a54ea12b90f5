"""README and docs: links lead somewhere, paths exist, commands are accepted, the example runs."""

import dataclasses
import importlib.util
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from toolformer_jax import cli
from toolformer_jax.commands.parsers import COMMANDS, actions, command_parser
from toolformer_jax.config.registry import SETTINGS

REPOSITORY = pathlib.Path(__file__).parents[1]
PAGES = [*(REPOSITORY / name for name in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md')),
         *sorted((REPOSITORY / 'docs').rglob('*.md'))]
# Made when the site is built.
GENERATED = {REPOSITORY / 'docs' / 'reference' / f'{name}.md'
             for name in ('api', 'commands', 'settings')}
# Files that a command writes, and files of other programs.
_NOT_HERE = re.compile(r'runs|config\.gin|run\.json|predictions|my_|server\.py|report\.md|run\.sh')


def command_lines(text):
  """Yields the `toolformer` commands in indented blocks, a line each, with their comments."""
  for line in text.replace('\\\n', ' ').splitlines():
    if re.match(r' {2,}(?:\.venv/bin/|srun )?toolformer [a-z]', line):
      yield line


def arguments(line):
  """Returns the arguments of a command."""
  words = shlex.split(re.sub(r'\$\w+', '0', line), comments=True)
  words = words[:words.index('>')] if '>' in words else words
  return words[words.index(next(word for word in words if word.endswith('toolformer'))) + 1:]


def commands(text):
  """Yields the arguments of the commands."""
  return map(arguments, command_lines(text))


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_every_command_is_accepted(page):
  for name, *argv in commands(page.read_text('utf-8')):
    cli.parse(command_parser(name), argv)


@pytest.mark.parametrize('name', COMMANDS)
def test_every_command_has_examples_that_are_accepted(name):
  text = command_parser(name).epilog
  found = list(commands(text))
  assert found or name == 'completion'  # whose examples are parts of other commands
  for called, *argv in found:
    assert called == name
    cli.parse(command_parser(name), argv)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_links_and_paths_exist(page):
  text = page.read_text('utf-8')
  for link in re.findall(r'\]\((?!http)([^)#]+)\)', text):
    target = (page.parent / link).resolve()
    assert target.exists() or target in GENERATED, link
  for path in re.findall(r'`([\w/]+\.(?:py|gin|md|txt))(?::\w+)?`', text):
    places = (REPOSITORY, REPOSITORY / 'toolformer_jax', page.parent)
    assert (_NOT_HERE.match(path) or any((place / path).exists() for place in places)
            or any(REPOSITORY.glob(f'*/{path}'))), path


def test_names_in_where_to_change_exist():
  text = (REPOSITORY / 'docs' / 'where_to_change.md').read_text('utf-8')
  everything = '\n'.join(path.read_text('utf-8')
                         for path in (REPOSITORY / 'toolformer_jax').rglob('*.py'))
  names = set(re.findall(r'`([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?)`', text)) - {'NAME'}
  names = {name for name in names if not name.endswith('.py')}
  assert len(names) > 15
  for name in names:
    last = name.rpartition('.')[2]
    assert re.search(rf'\b(?:def|class) {last}\b|^ *{last}\b(?:: .*)? =|^  {last}: ', everything,
                     re.MULTILINE), name


@pytest.fixture
def generator(monkeypatch):
  """Returns a function from the name of a generator of pages to its module."""
  folder = REPOSITORY / 'docs' / 'generate'
  monkeypatch.syspath_prepend(folder)
  def load(name):
    path = folder / f'{name}.py'
    spec = importlib.util.spec_from_file_location(f'generate_{name}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
  return load


def test_the_page_of_commands_has_every_option(generator):
  page = generator('commands').page()
  for name in COMMANDS:
    section = page.partition(f'\n## {name}\n')[2].partition('\n## ')[0]
    for action in actions(command_parser(name)):
      for option in action.option_strings[-1:]:
        assert f'`{option}' in section or option == '--help', (name, option)


def test_the_page_of_settings_has_every_setting_with_its_meaning(generator):
  settings = generator('settings')
  page = settings.page()
  for name, kind in SETTINGS.items():
    section = page.partition(f'\n## {name}\n')[2].partition('\n## ')[0]
    for field in dataclasses.fields(kind):
      assert f'| `{field.name}` | ' in section
      assert len(settings.descriptions(kind)[field.name]) > 10
  stated = [name for name in settings.STATED if name.partition('.')[0] in SETTINGS]
  assert len(stated) > 20
  for name in stated:
    config, _, field = name.partition('.')
    assert field in {field.name for field in dataclasses.fields(SETTINGS[config])}


@pytest.mark.long
def test_the_example_of_the_readme_runs(smollm2_path, tmp_path):
  example, = re.findall(r'```python\n(.*?)```', PAGES[0].read_text('utf-8'), re.DOTALL)
  done = subprocess.run([sys.executable, '-c', example], cwd=tmp_path, capture_output=True,
                        text=True)
  assert done.returncode == 0, done.stderr
  assert 'Calculator' in done.stdout and not list(tmp_path.iterdir())
