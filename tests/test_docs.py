"""README and docs: links lead somewhere, paths exist, commands are accepted, the example runs."""

import importlib
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from toolformer_jax import cli

REPOSITORY = pathlib.Path(__file__).parents[1]
PAGES = [REPOSITORY / 'README.md', *sorted((REPOSITORY / 'docs').glob('*.md'))]
# Files that a command writes, and files of other programs.
_NOT_HERE = re.compile(r'runs|predictions|my_|server\.py|report\.md|run\.sh')


def commands(page):
  """Yields the arguments of the `toolformer` commands in the code blocks of a page."""
  text = page.read_text('utf-8').replace('\\\n', ' ')
  for line in text.splitlines():
    if re.match(r'    (?:\.venv/bin/)?toolformer ', line):
      yield shlex.split(line, comments=True)[1:]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_every_command_is_accepted(page):
  for name, *argv in commands(page):
    command = importlib.import_module(f'toolformer_jax.commands.{name}')
    parser = cli.Parser(prog=name)
    command.add_arguments(parser)
    cli.parse(parser, argv)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_links_and_paths_exist(page):
  text = page.read_text('utf-8')
  for link in re.findall(r'\]\((?!http)([^)#]+)\)', text):
    assert (page.parent / link).exists(), link
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


@pytest.mark.long
def test_the_example_of_the_readme_runs(smollm2_path, tmp_path):
  example, = re.findall(r'```python\n(.*?)```', PAGES[0].read_text('utf-8'), re.DOTALL)
  done = subprocess.run([sys.executable, '-c', example], cwd=tmp_path, capture_output=True,
                        text=True)
  assert done.returncode == 0, done.stderr
  assert 'Calculator' in done.stdout and not list(tmp_path.iterdir())
