"""Loading a model turns a compilation cache on, and leaves one that is on as it is."""

import jax
import pytest

from toolformer_jax.checkpoints.loading import load_model
from toolformer_jax.checkpoints.orbax import save_model


@pytest.fixture
def cache_settings():
  """The settings of JAX's compilation cache, which are restored."""
  names = 'jax_compilation_cache_dir', 'jax_persistent_cache_min_compile_time_secs'
  before = {name: getattr(jax.config, name) for name in names}
  yield lambda: tuple(getattr(jax.config, name) for name in names)
  for name, value in before.items():
    jax.config.update(name, value)


def test_a_compilation_cache_is_turned_on_unless_one_is(cache_settings, make_model, tmp_path,
                                                        monkeypatch):
  monkeypatch.setenv('TOOLFORMER_CACHE', str(tmp_path / 'cache'))
  save_model(tmp_path / 'model', make_model())
  for own, expected in ((None, (str(tmp_path / 'cache' / 'compiled'), 0.5)),
                        (str(tmp_path / 'own'), (str(tmp_path / 'own'), 7.0))):
    jax.config.update('jax_compilation_cache_dir', own)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 7.0)
    load_model(str(tmp_path / 'model'))
    assert cache_settings() == expected
