"""The diagnosis of a machine: what is installed, what is missing, how to get it."""

import ast
import importlib.metadata
import pathlib
import re

import pytest

from toolformer_jax import cli
from toolformer_jax.runtime import doctor

REQUIRES = ['numpy<3,>=2.0', 'pytest<2', 'no-such-package>=1',
            'starlette<2,>=0.45; extra == "serve"', 'no-such-reader==3; extra == "torch"']


@pytest.fixture
def requires(monkeypatch):
  monkeypatch.setattr(importlib.metadata, 'requires', lambda name: REQUIRES)


def test_packages_are_compared_with_the_tested_versions(requires, tmp_path):
  found = doctor.diagnose(tmp_path)
  assert [package.fits for package in found.packages] == [True, False, False]
  assert [package.name for package in found.unfit] == ['pytest', 'no-such-package']
  report = found.report()
  assert re.search(r'ok  numpy \d', report) and '--  no-such-package is missing  (>=1)' in report


def test_a_feature_names_what_it_lacks_and_the_command(requires, tmp_path):
  features = {feature.advice: feature for feature in doctor.diagnose(tmp_path).features}
  assert features["pip install 'toolformer_jax[serve]'"].missing == ()
  assert features["pip install 'toolformer_jax[torch]'"].missing == ('no-such-reader==3',)


def test_every_feature_is_an_extra_of_the_package():
  setup = ast.parse((pathlib.Path(__file__).parents[2] / 'setup.py').read_text('utf-8'))
  extras, = (node.value.keys for node in ast.walk(setup)
             if isinstance(node, ast.keyword) and node.arg == 'extras_require')
  # For work on the package, or said beside the devices.
  unchecked = {'dev', 'docs', 'gpu', 'notebooks', 'parity', 'tpu'}
  assert {*doctor.FEATURES} == {key.value for key in extras} - unchecked


def test_the_size_of_a_cache_is_that_of_its_files(tmp_path):
  (tmp_path / 'models').mkdir()
  (tmp_path / 'models' / 'one').write_bytes(b'x' * 3_000_000)
  (tmp_path / 'two').write_bytes(b'x' * 1_000_000)
  (tmp_path / 'link').symlink_to(tmp_path / 'two')
  found = doctor.diagnose(tmp_path)
  assert 4_000_000 <= found.caches[0].size < 4_001_000
  assert doctor.diagnose(tmp_path / 'nothing').caches[0].size == 0


def test_the_command_fails_where_a_needed_package_is_missing(requires, capsys):
  assert cli.main(['doctor']) == 2
  printed = capsys.readouterr()
  assert 'JAX computes on' in printed.out
  assert "pip install 'pytest<2' 'no-such-package>=1'" in printed.err


def test_the_command_finds_this_environment_whole(capsys):
  assert cli.main(['doctor']) == 0
  assert '  ok  jax ' in capsys.readouterr().out
