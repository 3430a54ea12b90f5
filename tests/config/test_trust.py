"""The saved configuration of a run that somebody else has made runs no code."""

import sys

import pytest

from toolformer_jax.config.loading import load
from toolformer_jax.errors import UserError

CODE = {
    'imports my_own_code': 'import my_own_code',
    'imports my_own_code.a': 'from my_own_code.a import b',
    'includes evil.gin': "include 'evil.gin'",
    'has tools of its own (CustomToolsConfig.mcp)': "CustomToolsConfig.mcp = {'a': 'sh evil.sh'}",
    'has tools of its own (CustomToolsConfig.functions)':
        "CustomToolsConfig:\n  functions = {'a': 'my_own_code:a'}",
    'has tools of its own (CustomToolsConfig.functions) ':
        "CustomToolsConfig.functions = %MINE\nMINE = {'a': 'my_own_code:a'}",
    'has tools of its own (TOOLS)': "TOOLS = ['my_own_code:a']",
    'has tools of its own (TOOLS) ': "TOOLS = %MINE\nMINE = ['my_own_code:a']",
    'names a module of tasks (seqio:)': "CORPUS = 'seqio:my_own_code:a'",
}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
  """A working directory with a module that must not be imported, and an empty cache."""
  (tmp_path / 'my_own_code.py').write_text('def a(argument):\n  return argument\n')
  (tmp_path / 'evil.gin').write_text('import my_own_code\n')
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, 'path', [str(tmp_path), *sys.path])
  monkeypatch.setenv('TOOLFORMER_CACHE', str(tmp_path / 'cache'))
  sys.modules.pop('my_own_code', None)
  return tmp_path


@pytest.mark.parametrize('what', CODE)
def test_code_is_refused_before_anything_is_run(place, what):
  folder = place / 'theirs'
  folder.mkdir()
  (folder / 'config.gin').write_text(f'SEED = 3\n{CODE[what]}\n')
  with pytest.raises(UserError, match='config.gin is the configuration of a run that was not made '
                                      'here. It') as refused:
    load([folder / 'config.gin'])
  assert what.strip() in str(refused.value) and 'my_own_code' not in sys.modules


def test_a_file_beside_a_run_is_one_of_it(place):
  (place / 'run.json').write_text('{}')
  (place / 'settings.gin').write_text('import my_own_code\n')
  with pytest.raises(UserError, match='not made here'):
    load([place / 'settings.gin'])


def test_a_file_that_is_included_is_judged_by_itself(place):
  (place / 'config.gin').write_text('import my_own_code\n')
  (place / 'mine.gin').write_text("include 'config.gin'\n")
  with pytest.raises(UserError, match='not made here'):
    load([place / 'mine.gin'])


def test_files_of_ones_own_may_run_code(place):
  (place / 'mine.gin').write_text("import my_own_code\nTOOLS = ['my_own_code:a']\n")
  config = load([place / 'mine.gin'])
  assert config.macros['TOOLS'] == ['a'] and config.toolbox.names()['a'] == 'a'
  assert config.tool_config('a').k == 5


def test_what_a_run_of_ones_own_has_saved_may_too(place):
  text = load([], ["TOOLS = ['my_own_code:a', 'calculator']"]).text
  (place / 'config.gin').write_text(text)
  assert load([place / 'config.gin']).macros['TOOLS'] == ['a', 'calculator']
  (place / 'config.gin').write_text(f'{text}SEED = 4\n')
  with pytest.raises(UserError, match='not made here'):
    load([place / 'config.gin'])
  assert len([*(place / 'cache').rglob('*')]) == 2  # a folder, and this one configuration


def test_settings_alone_need_no_trust(place):
  (place / 'config.gin').write_text(load(['quickstart.gin']).text)
  assert load([place / 'config.gin']) == load(['quickstart.gin'])


def test_files_that_include_each_other_are_an_error_of_one_line(place):
  (place / 'a.gin').write_text("include 'b.gin'\n")
  (place / 'b.gin').write_text("include 'a.gin'\n")
  with pytest.raises(UserError, match='refers to itself, or is nested too deeply'):
    load([place / 'a.gin'])


def test_a_file_that_a_binding_includes_is_judged_too(place):
  (place / 'config.gin').write_text('import my_own_code\n')
  with pytest.raises(UserError, match='not made here'):
    load([], ["include 'config.gin'"])
  assert 'my_own_code' not in sys.modules
