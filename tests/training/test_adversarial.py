"""Adversarial offsets have their norm in every text, raise its loss, and touch no other text."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toolformer_jax.models.adapter_config import LoraConfig
from toolformer_jax.training.adversarial import adversarial_grad, adversarial_offsets
from toolformer_jax.training.loss import next_token_loss
from toolformer_jax.training.packing import pack

from .plain import plain_example

EPSILON = 0.1


@pytest.fixture
def rows(tokenizer):
  """One row with two texts and padding."""
  texts = ['The first text.', 'another one, which is a little longer']
  return pack([plain_example(text, tokenizer) for text in texts], tokenizer, 64, True)


def _loss_fn(model, collection='params'):
  """Returns the loss of the trainer's form: of params, offsets, rows and a key."""
  frozen = {name: tree for name, tree in model.variables.items() if name != collection}
  def loss_fn(params, offsets_RTD, rows, key):
    del key
    sums = next_token_loss(model.decoder, {**frozen, collection: params}, rows,
                           embedding_offsets_RTD=offsets_RTD)
    return sums.objective, sums.cross_entropy
  return jax.jit(loss_fn)


def _offsets(model, rows):
  zeros = jnp.zeros((*rows.input_tokens_RT.shape, model.config.embed_dim))
  slope, _ = jax.grad(_loss_fn(model), 1, has_aux=True)(
      model.variables['params'], zeros, rows, jax.random.key(0))
  return np.asarray(adversarial_offsets(slope, rows.segment_ids_RT, EPSILON))


def test_the_norm_is_that_of_each_text(make_model, rows):
  offsets = _offsets(make_model(), rows)
  assert len(set(rows.segment_ids_RT.flatten())) == 3  # two texts and padding
  for segment in 1, 2:
    assert np.linalg.norm(offsets[rows.segment_ids_RT == segment]) == pytest.approx(EPSILON)
  assert not offsets[rows.segment_ids_RT == 0].any()


def test_a_text_has_its_offsets_in_any_row(make_model, tokenizer, rows):
  model = make_model()
  alone = pack([plain_example('The first text.', tokenizer)], tokenizer, 32, True)
  packed, single = _offsets(model, rows), _offsets(model, alone)
  segments = rows.segment_ids_RT.tolist()[0]
  shorter = min((1, 2), key=segments.count)
  np.testing.assert_allclose(
      packed[rows.segment_ids_RT == shorter], single[alone.segment_ids_RT == 1], atol=1e-5)


def test_they_raise_the_loss_more_than_random_ones(make_model, rows):
  model = make_model()
  loss = functools.partial(_loss_fn(model), model.variables['params'], rows=rows,
                           key=jax.random.key(0))
  offsets = _offsets(model, rows)
  random = adversarial_offsets(
      jax.random.normal(jax.random.key(1), offsets.shape), rows.segment_ids_RT, EPSILON)
  clean, moved, other = (float(loss(offsets_RTD=one)[0]) for one in (None, offsets, random))
  assert moved > clean and moved > other


def test_the_gradient_is_the_mean_of_both_losses(make_model, rows):
  model = make_model(adapter=LoraConfig(rank=2))
  params, key = model.variables['adapter'], jax.random.key(0)
  params = jax.tree.map(lambda x: x + 0.02, params)  # B is zero at first, and A without gradient
  loss_fn = _loss_fn(model, 'adapter')
  zeros = jnp.zeros((*rows.input_tokens_RT.shape, model.config.embed_dim))
  (clean, slope), metric = jax.grad(loss_fn, (0, 1), has_aux=True)(params, zeros, rows, key)
  moved, _ = jax.grad(loss_fn, has_aux=True)(
      params, adversarial_offsets(slope, rows.segment_ids_RT, EPSILON), rows, key)
  grads, measured = adversarial_grad(loss_fn, EPSILON, model.config.embed_dim)(params, rows, key)
  jax.tree.map(lambda one, a, b: np.testing.assert_allclose(one, (a + b) / 2, rtol=1e-4, atol=1e-6),
               grads, clean, moved)
  assert float(measured) == float(metric)


def test_without_epsilon_it_is_the_gradient(make_model, rows):
  model = make_model()
  loss_fn, params, key = _loss_fn(model), model.variables['params'], jax.random.key(0)
  expected, _ = jax.grad(loss_fn, has_aux=True)(params, None, rows, key)
  grads, _ = adversarial_grad(loss_fn, 0.0, model.config.embed_dim)(params, rows, key)
  jax.tree.map(np.testing.assert_array_equal, grads, expected)
