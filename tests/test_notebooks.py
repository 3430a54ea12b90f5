"""The notebooks of colab/: each is what its source gives, opens in Colab, and pins this release."""

import importlib.util
import json
import pathlib
import re

import pytest

import toolformer_jax

REPOSITORY = pathlib.Path(__file__).parents[1]
COLAB = REPOSITORY / 'colab'
SOURCES = sorted(path for path in COLAB.glob('*.py') if path.stem != 'write_notebooks')
HOME = re.search(r"url='(https://github.com/\S+)'", (REPOSITORY / 'setup.py').read_text())[1]


def cells(source, kind):
  """Returns the texts of the cells of a kind, 'code' or 'markdown', in the notebook of a source."""
  notebook = json.loads(source.with_suffix('.ipynb').read_text('utf-8'))
  return [''.join(cell['source']) for cell in notebook['cells'] if cell['cell_type'] == kind]


@pytest.fixture(scope='module')
def write_notebooks():
  spec = importlib.util.spec_from_file_location('write_notebooks', COLAB / 'write_notebooks.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.mark.parametrize('source', SOURCES, ids=lambda source: source.stem)
def test_a_notebook_is_what_its_source_gives(source, write_notebooks):
  written = source.with_suffix('.ipynb').read_text('utf-8')
  assert written == write_notebooks.notebook(source), 'run colab/write_notebooks.py'
  assert not any(cell.get('outputs') for cell in json.loads(written)['cells'])


def test_every_notebook_has_a_source():
  assert {path.stem for path in COLAB.glob('*.ipynb')} == {path.stem for path in SOURCES}


@pytest.mark.parametrize('source', SOURCES, ids=lambda source: source.stem)
def test_a_notebook_opens_in_colab(source):
  first = cells(source, 'markdown')[0]
  address = HOME.replace('https://github.com', 'https://colab.research.google.com/github')
  assert f']({address}/blob/main/colab/{source.stem}.ipynb)' in first
  assert first.startswith('# ') and '.svg)](' in first  # a title and a badge


def test_the_first_cell_is_the_same_everywhere_and_pins_this_release():
  first, = {cells(source, 'code')[0] for source in SOURCES}
  assert f"RELEASE = '{toolformer_jax.__version__}'" in first


@pytest.mark.parametrize('source', SOURCES, ids=lambda source: source.stem)
def test_one_line_chooses_the_small_settings(source):
  assignments = re.findall(r'^SMALL = .*$', '\n'.join(cells(source, 'code')), re.MULTILINE)
  assert assignments == ["SMALL = DEVICE == 'cpu'"]


@pytest.mark.parametrize('source', SOURCES, ids=lambda source: source.stem)
def test_links_into_the_repository_exist(source):
  text = '\n'.join(cells(source, 'markdown'))
  paths = re.findall(r'/blob/main/([^)#\s]+)', text)
  assert [path for path in paths if not (REPOSITORY / path).is_file()] == []


def test_what_the_readme_quotes_is_asserted():
  readme = (REPOSITORY / 'README.md').read_text('utf-8')
  tutorials = readme.partition('\n## Tutorials\n')[2].partition('\n## ')[0]
  quoted = re.findall(r'^> .*?(\[\w+\(.*)$', tutorials, re.MULTILINE)
  asserted = '\n'.join(line for source in SOURCES for cell in cells(source, 'code')
                       for line in cell.splitlines() if line.startswith('assert '))
  assert quoted and [line for line in quoted if line not in asserted] == []
