"""Settings check their own values: no number of theirs is infinite or not a number."""

import dataclasses
import math

import pytest

import toolformer_jax as tf_jax
from toolformer_jax.errors import UserError
from toolformer_jax.tools.registry import MtConfig

CONFIGS = [*(getattr(tf_jax, name) for name in tf_jax.__all__ if name.endswith('Config')), MtConfig]
FLOATS = [(kind, field.name) for kind in CONFIGS for field in dataclasses.fields(kind)
          if field.type is float]


@pytest.mark.parametrize(('kind', 'name'), FLOATS, ids=lambda value: getattr(
    value, '__name__', value))
@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_floats_are_finite(kind, name, value):
  with pytest.raises(UserError, match=rf'{kind.__name__}\.{name} must be'):
    kind(**{name: value})


def test_all_thresholds_are_among_them():
  assert {(tf_jax.ToolConfig, 'tau_f'), (tf_jax.ToolConfig, 'tau_s')} <= {*FLOATS}
