"""The learning rate rises linearly and then stays; settings refuse what makes no sense."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toolformer_jax.errors import UserError
from toolformer_jax.models.adapter_config import LoraConfig
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.optimizer import learning_rate, make_optimizer


def test_warm_up_over_the_first_tenth():
  settings = FinetuneConfig(steps=100, learning_rate=1.0)
  rates = [float(learning_rate(step, settings)) for step in range(100)]
  np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10, rtol=1e-6)
  assert set(rates[10:]) == {1.0}


def test_without_warm_up_the_rate_is_constant():
  settings = FinetuneConfig(warmup_fraction=0.0, learning_rate=0.5)
  assert {float(learning_rate(step, settings)) for step in (0, 1, 1999)} == {0.5}


@pytest.mark.parametrize(('schedule', 'middle'), [
  ('cosine', 0.2 + 0.8 * (1 + math.cos(math.pi / 2)) / 2), ('linear', 0.6),
])
def test_a_falling_rate_ends_at_its_share_of_the_peak(schedule, middle):
  settings = FinetuneConfig(steps=110, learning_rate=2.0, warmup_fraction=0.1, final_rate=0.2,
                              schedule=schedule)
  rates = [float(learning_rate(step, settings)) for step in range(110)]
  np.testing.assert_allclose(rates[:11], 2.0 * np.arange(1, 12) / 11, rtol=1e-6)
  assert (np.diff(rates[10:]) < 0).all()
  assert rates[10 + 50 - 1] > 2.0 * middle > rates[10 + 50 + 1]
  assert rates[-1] == pytest.approx(2.0 * 0.2, rel=1e-2)


def test_the_first_moment_alone_is_of_the_dtype_that_is_set():
  optimizer = make_optimizer(FinetuneConfig(first_moment='bfloat16'))
  weight = jnp.ones(3)
  state = optimizer.init(weight)
  update, state = optimizer.update(weight, state, weight)
  (adam,) = [inner for inner in state[1] if hasattr(inner, 'mu')]
  assert (adam.mu.dtype, adam.nu.dtype, update.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)


@pytest.mark.parametrize(('size', 'moment'), [(100.0, 1.0), (0.5, 0.5)])
def test_only_gradients_longer_than_the_clip_norm_are_clipped(size, moment):
  optimizer = make_optimizer(FinetuneConfig(max_grad_norm=1.0, beta1=0.0, steps=10))
  weight = jnp.zeros(1)
  _, state = optimizer.update(jnp.full(1, size), optimizer.init(weight), weight)
  (adam,) = [inner for inner in state[1] if hasattr(inner, 'mu')]
  assert float(adam.mu[0]) == pytest.approx(moment)


@pytest.mark.parametrize(('name', 'value'), [
  ('steps', 0), ('learning_rate', '1e-5'), ('warmup_fraction', 1.5), ('beta2', 1.0),
  ('adapter', 'lora'), ('mask_results', 1), ('schedule', 'cosinus'), ('first_moment', 'float16'),
  ('dropout', 1.0), ('batch_size', 0),
])
def test_settings_are_checked(name, value):
  with pytest.raises(UserError, match=f'FinetuneConfig.{name}'):
    FinetuneConfig(**{name: value})


def test_microbatches_must_divide_the_rows_of_the_packed_mode():
  FinetuneConfig(num_microbatches=3)
  with pytest.raises(UserError, match='FinetuneConfig.num_microbatches is 3'):
    FinetuneConfig(batch_rows=128, num_microbatches=3)


@pytest.mark.parametrize('family', [
  {}, {'norm': 'layer', 'positions': 'learned', 'rotary_dim': 0, 'qkv_bias': True, 'out_bias': True,
       'mlp_bias': True, 'gated_mlp': False}, {'tied_head': False, 'qk_norm': True}])
def test_weight_decay_spares_norms_and_biases(make_model, family):
  params = make_model(adapter=LoraConfig(rank=2), **family).variables
  optimizer = make_optimizer(FinetuneConfig(weight_decay=0.1, warmup_fraction=0.0))
  params = jax.tree.map(jnp.ones_like, params)
  zeros = jax.tree.map(jnp.zeros_like, params)
  updates, _ = optimizer.update(zeros, optimizer.init(params), params)
  def is_spared(path, _):
    names = [getattr(key, 'key', '') for key in path]
    return names[-1] == 'bias' or any(name.endswith('norm') for name in names)
  spared = jax.tree_util.tree_map_with_path(is_spared, params)
  assert {True, False} == set(jax.tree.leaves(spared))
  assert jax.tree.map(lambda update: not update.any(), updates) == spared
