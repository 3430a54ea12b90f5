"""One step: parts of a batch add up to it, master weights stay float32, dropout is repeatable."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toolformer_jax import sharding
from toolformer_jax.models.adapter_config import AdaLoraConfig, LoraConfig
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.loss import next_token_loss
from toolformer_jax.training.optimizer import make_optimizer
from toolformer_jax.training.packing import pack
from toolformer_jax.training.train_step import (
  abstract_train_state,
  init_train_state,
  make_train_step,
)

from ..jaxprs import equations
from .plain import plain_example

SETTINGS = FinetuneConfig(steps=4, batch_rows=4, row_tokens=32, learning_rate=1e-2)


@pytest.fixture
def batch(tokenizer):
  """Four rows with very different numbers of tokens that count."""
  texts = ['a', 'three words here', 'a text of a middle length', 'and one that is long: ' + 'x' * 9]
  rows = [pack([plain_example(text, tokenizer)], tokenizer, 32, True) for text in texts]
  return jax.tree.map(lambda *parts: np.concatenate(parts), *rows)


def _prepared(model, settings, collection='params'):
  """Returns the jitted step, the variables that stay and the first state."""
  optimizer = make_optimizer(settings)
  decoder = model.decoder.clone(dropout=settings.dropout)
  abstract = abstract_train_state(decoder, collection, optimizer, model.mesh)
  frozen = {name: tree for name, tree in model.variables.items() if name != collection}
  state = init_train_state(abstract, model.variables[collection], optimizer)
  return make_train_step(decoder, collection, optimizer, abstract, settings), frozen, state


def _stepped(model, batch, settings, collection='params'):
  """Returns the state after one step, and its metrics."""
  step, frozen, state = _prepared(model, settings, collection)
  with jax.set_mesh(model.mesh):
    state, metrics = step(frozen, state, jax.tree.map(model.put_batch, batch))
  return state, {name: float(value) for name, value in metrics.items()}


def _first_moment(state):
  """Returns the gradients that the optimizer has seen, to a factor."""
  (adam,) = [inner for inner in state.opt_state[1] if hasattr(inner, 'mu')]
  return adam.mu


@pytest.mark.parametrize(('mesh', 'parts', 'rank'), [((1, 1, 1), 4, 0), ((2, 1, 2), 2, 4)])
def test_parts_of_a_batch_weigh_what_they_have_in_it(make_model, batch, mesh, parts, rank):
  devices = jax.devices()[:np.prod(mesh)]
  def run(settings):
    adapter = LoraConfig(rank=rank) if rank else None
    model = make_model(sharding.make_mesh(*mesh, devices=devices), adapter=adapter)
    return _stepped(model, batch, settings, 'adapter' if rank else 'params')
  state, metrics = run(dataclasses.replace(SETTINGS, num_microbatches=parts))
  expected, wanted = run(SETTINGS)
  assert metrics == pytest.approx(wanted, rel=1e-5)
  jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6),
               _first_moment(state), _first_moment(expected))


def test_computation_in_bfloat16_trains_weights_in_float32(make_bfloat16, batch):
  step, frozen, state = _prepared(make_bfloat16('all'), SETTINGS)
  traced = jax.make_jaxpr(step)(frozen, state, batch)
  products = [equation for equation in equations(traced.jaxpr)
              if equation.primitive.name == 'dot_general']
  halves = [all(v.aval.dtype == jnp.bfloat16 for v in product.invars) for product in products]
  # In float32: of one block's attention, products with the gradient of its scores, which are.
  assert sum(halves) > 0.7 * len(halves)
  after, _ = step(frozen, state, batch)
  moments = [leaf for leaf in jax.tree.leaves(after.opt_state) if leaf.ndim]
  arrays = [*jax.tree.leaves(after.params), *moments]
  assert {array.dtype for array in arrays} == {np.dtype('float32')}


@pytest.mark.parametrize('parts', [1, 4])
def test_gradients_in_bfloat16_are_those_of_autodiff(make_bfloat16, batch, parts):
  settings = dataclasses.replace(SETTINGS, num_microbatches=parts, max_grad_norm=1e6)
  model = make_bfloat16('all')
  def loss(params, rows):
    sums = next_token_loss(model.decoder, {'params': params}, rows)
    return sums.objective / batch.loss_weights_RT.sum()
  expected = [jax.jit(jax.grad(loss))(model.variables['params'],
                                      jax.tree.map(lambda x, i=i: x[i::parts], batch))
              for i in range(parts)]
  expected = jax.tree.map(lambda *grads: np.sum(grads, 0) * (1 - settings.beta1), *expected)
  found = _first_moment(_stepped(model, batch, settings)[0])
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-9), found, expected)


@pytest.mark.parametrize('parts', ['all', 'products'])
def test_bfloat16_loses_no_small_update(make_model, make_bfloat16, parts, batch):
  settings = dataclasses.replace(SETTINGS, learning_rate=1e-6, warmup_fraction=0.0)
  before = jax.tree.map(np.array, make_model().variables['params'])
  after = _stepped(make_bfloat16(parts), batch, settings)[0].params
  moved = np.abs(after['blocks']['mlp']['up']['kernel'] - before['blocks']['mlp']['up']['kernel'])
  assert 5e-7 < np.median(moved) < 2e-6  # AdamW's first step has the size of the rate


def test_the_z_loss_pulls_the_partition_function_and_is_not_reported(make_model, batch):
  settings = dataclasses.replace(SETTINGS, z_loss=0.1)
  _, with_z = _stepped(make_model(), batch, settings)
  _, without = _stepped(make_model(), batch, SETTINGS)
  assert with_z['loss'] == without['loss']
  assert with_z['grad_norm'] > without['grad_norm'] * 1.01


def test_dropout_depends_on_seed_and_step_alone(make_model, batch):
  settings = dataclasses.replace(SETTINGS, dropout=0.5, learning_rate=0.0)
  step, frozen, first = _prepared(make_model(), settings)
  def loss(number, step=step):
    state = jax.tree.map(jnp.copy, first)._replace(step=jnp.int32(number))
    return float(step(frozen, state, batch)[1]['loss'])
  other_seed = _prepared(make_model(), dataclasses.replace(settings, seed=1))[0]
  plain = _prepared(make_model(), SETTINGS)[0]
  assert loss(3) == loss(3)
  assert len({loss(3), loss(4), loss(3, other_seed), loss(3, plain)}) == 4


@pytest.mark.parametrize('adapter', [LoraConfig, AdaLoraConfig], ids=lambda kind: kind.kind)
def test_dropout_of_an_adapter_drops_its_input_alone(make_model, batch, adapter):
  settings = dataclasses.replace(SETTINGS, adapter=adapter(dropout=0.5))
  model = make_model(adapter=settings.adapter)
  step, frozen, first = _prepared(model, settings, 'adapter')
  plain, _, _ = _prepared(model, dataclasses.replace(SETTINGS, adapter=adapter()), 'adapter')
  def loss(step, number, factor):
    params = jax.tree.map(lambda x: x * factor, first.params)
    state = jax.tree.map(jnp.copy, first)._replace(params=params, step=jnp.int32(number))
    return float(step(frozen, state, batch)[1]['loss'])
  # An adapter of zeros adds nothing, and the model itself has no dropout.
  assert loss(step, 1, 0) == loss(step, 2, 0) == pytest.approx(loss(plain, 1, 0), abs=1e-6)
  assert loss(step, 1, 20) == loss(step, 1, 20)
  assert len({loss(step, 1, 20), loss(step, 2, 20), loss(plain, 1, 20)}) == 3
