"""A tiny model that was taught to call a tool."""

import pytest

from ..taught_model import teach


@pytest.fixture(scope='session')
def taught(make_model, tmp_path_factory):
  """A model that has learned ` [Up(ab) -> XY] XY.` by heart, for two arguments."""
  return teach(make_model(embed_dim=64, mlp_dim=128, max_positions=1024),
               tmp_path_factory.mktemp('taught'))
