"""Names of slices, and what they consist of."""

import importlib.util

import pytest

from toolformer_jax.errors import UserError
from toolformer_jax.planning.slices import Slice
from toolformer_jax.runtime.chips import chip_of


@pytest.mark.parametrize(('short', 'name', 'chips'), [
    ('v5e-1', 'v5e:1x1', 1), ('v5e-8', 'v5e:2x4', 8), ('v5e-16', 'v5e:4x4', 16),
    ('v6e-8', 'v6e:2x4', 8), ('v4-8', 'v4:2x2x1', 4), ('v5p-8', 'v5p:2x2x1', 4),
    ('v5p-16', 'v5p:2x2x2', 8), ('v5litepod-8', 'v5e:2x4', 8), ('V5E-8', 'v5e:2x4', 8)])
def test_both_names_are_the_same_slice(short, name, chips):
  assert Slice.named(short) == Slice.named(name)
  assert Slice.named(short).name == name and Slice.named(short).chips == chips


def test_an_unknown_name_is_one_line_that_helps():
  with pytest.raises(UserError, match='did you mean .*v5e-8'):
    Slice.named('v5e-9')


@pytest.mark.parametrize('name', ['v4-8', 'v5e-1', 'v5e-8', 'v5p-8', 'v6e-8'])
def test_devices_are_the_chips(libtpu, name):
  one = Slice.named(name)
  devices = one.devices()
  assert len(devices) == one.chips
  assert {chip_of(device) for device in devices} == {one.chip}
  assert 0.9 * one.chip.memory < one.usable_memory < one.chip.memory


def test_without_the_compiler_the_error_says_how_to_get_it(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match='toolformer_jax\\[aot\\]'):
    Slice.named('v5e-8').devices()
