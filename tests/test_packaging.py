"""An installation from the sdist, elsewhere, has its data: gin files, prompts, templates, types."""

import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

import pytest

import toolformer_jax

REPOSITORY = pathlib.Path(__file__).parent.parent
SCRIPT = '''
import importlib.resources
import pathlib
import toolformer_jax
print(pathlib.Path(toolformer_jax.__file__).parent.parent)
for package in ('toolformer_jax.configs', 'toolformer_jax.configs.experiments'):
  with importlib.resources.as_file(importlib.resources.files(package)) as folder:
    for path in sorted(folder.rglob('*.*')):
      parts = path.relative_to(folder).parts
      # In a wheel the one package lies in the other.
      if path.suffix in ('.gin', '.txt') and parts[0] != 'experiments':
        print('/'.join(parts))
'''
RENDER = '''
from toolformer_jax.view.pages import error_page
print(error_page('Not found', 'a & b'))
'''


def run(*command: object, cwd: pathlib.Path) -> str:
  done = subprocess.run(
    [sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


def config_files() -> list[str]:
  return [path.relative_to(folder).as_posix()
          for folder in (REPOSITORY / 'configs', REPOSITORY / 'experiments')
          for path in sorted(folder.rglob('*.*')) if path.suffix in ('.gin', '.txt')]


def test_installed_wheel_has_no_script(installed):
  files = {path.name for path in (installed / 'toolformer_jax/configs/experiments').rglob('*.py')}
  assert files == {'__init__.py'}


@pytest.fixture(scope='module')
def installed(tmp_path_factory) -> pathlib.Path:
  """A folder with the package, installed from a wheel that was built from the sdist alone."""
  folder = tmp_path_factory.mktemp('packaging')
  source = folder / 'source'
  ignored = shutil.ignore_patterns('__pycache__', '.*', 'build', 'dist', 'runs', '*.egg-info')
  shutil.copytree(REPOSITORY, source, ignore=ignored)
  run('-m', 'build', '--no-isolation', '--outdir', folder, source, cwd=folder)
  wheel, = folder.glob('*.whl')
  pip = ('-m', 'pip', '--disable-pip-version-check')
  offline = ('--no-deps', '--no-index')
  run(*pip, 'install', *offline, '--target', folder / 'elsewhere', wheel, cwd=folder)
  return folder / 'elsewhere'


def test_installed_wheel_has_the_configs(installed):
  # -I: neither the working directory nor the environment shows where the sources are.
  script = f'import sys; sys.path.insert(0, {str(installed)!r})\n{SCRIPT}'
  where, *names = run('-I', '-c', script, cwd=installed.parent).splitlines()
  assert pathlib.Path(where).samefile(installed)
  assert names == config_files()


def test_installed_wheel_has_the_templates_of_pages(installed):
  script = f'import sys; sys.path.insert(0, {str(installed)!r})\n{RENDER}'
  page = run('-I', '-c', script, cwd=installed.parent)
  assert '<p>a &amp; b</p>' in page and '.panel {' in page


def test_development_installation_has_the_configs(tmp_path):
  _, *names = run('-c', SCRIPT, cwd=tmp_path).splitlines()
  assert names == config_files()


def test_installed_wheel_says_that_it_has_types(installed):
  assert (installed / 'toolformer_jax' / 'py.typed').is_file()


def test_the_sdist_has_what_people_read(installed):
  sdist, = installed.parent.glob('*.tar.gz')
  with tarfile.open(sdist) as archive:
    names = {name.partition('/')[2] for name in archive.getnames()}
  assert {'README.md', 'LICENSE', 'CHANGELOG.md', 'docs/index.md', 'tests/conftest.py',
          'configs/paper.gin', 'toolformer_jax/api.py'} <= names
  assert not [name for name in names if '__pycache__' in name]


def test_the_version_is_the_same_everywhere():
  citation = (REPOSITORY / 'CITATION.cff').read_text('utf-8')
  version = re.search(r'^version: (.+)$', citation, re.MULTILINE)[1]
  date = re.search(r'^date-released: (.+)$', citation, re.MULTILINE)[1]
  assert version == toolformer_jax.__version__
  changes = (REPOSITORY / 'CHANGELOG.md').read_text('utf-8')
  assert re.findall(r'^## (\d.*)$', changes, re.MULTILINE)[0] == f'{version} - {date}'
