"""Who loads what: the core needs neither TensorFlow nor gin."""

import json
import pathlib
import re
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / 'toolformer_jax'
CORE = ('models.decoder', 'inference.scoring', 'inference.branch_sampling', 'inference.engine',
        'annotation.pipeline', 'data.corpus', 'training.finetune', 'checkpoints.pretrained',
        'planning.search', 'tools.executor', 'evaluation.runner', 'evaluation.tasks')


@pytest.fixture(scope='module')
def loaded() -> set[str]:
  """Top-level modules that a new process has after importing the core."""
  imports = '\n'.join(f'import toolformer_jax.{name}' for name in CORE)
  code = f'{imports}\nimport json, sys\nprint(json.dumps([n for n in sys.modules if "." not in n]))'
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize('name', ['tensorflow', 'seqio', 'torch', 'transformers', 'gin'])
def test_the_core_does_not_load(loaded, name):
  assert 'jax' in loaded and name not in loaded


def test_only_configuration_knows_gin():
  users = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob('*.py')
           if re.search(r'^\s*(import|from) gin\b', path.read_text('utf-8'), re.MULTILINE)}
  assert users == {'config/loading.py'}


def test_only_models_and_sharding_know_flax():
  users = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob('*.py')
           if re.search(r'^\s*(import|from) flax\b', path.read_text('utf-8'), re.MULTILINE)}
  assert users <= {'sharding.py', 'models/decoder.py', 'models/layers.py', 'models/kv_cache.py'}


def test_nothing_private_is_imported():
  private = re.compile(
      r'^\s*(?:from [\w.]*\b_(?!_)\w+|import [\w.]*\._(?!_)\w+|from \S+ import _(?!_))',
      re.MULTILINE)
  for path in PACKAGE.rglob('*.py'):
    assert not private.search(path.read_text('utf-8')), path
