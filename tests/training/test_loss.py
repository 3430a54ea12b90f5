"""The loss of packed rows is the loss of their texts, and sees neither future nor neighbours."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from toolformer_jax import sharding
from toolformer_jax.training.loss import next_token_loss
from toolformer_jax.training.packing import Example, PackedRows, pack

from .plain import plain_example

Z_LOSS = 0.1
TEXTS = ['one two', 'three', 'and a third text']


def _loss(model, rows):
  sums = jax.jit(next_token_loss, static_argnums=0)(model.decoder, model.variables, rows)
  return [float(sums.cross_entropy), float(sums.weight_sum)]


def test_a_packed_row_costs_what_its_texts_cost_alone(make_model, tokenizer):
  model = make_model()
  examples = [plain_example(text, tokenizer) for text in TEXTS]
  packed = pack(examples, tokenizer, 48, True)
  assert len(packed) == 1
  alone = [_loss(model, pack([example], tokenizer, 32, True)) for example in examples]
  assert _loss(model, packed) == pytest.approx(np.sum(alone, 0).tolist(), rel=1e-5)


def test_the_sum_is_the_weighted_cross_entropy(make_model, tokenizer):
  model = make_model()
  example = Example(tokenizer.encode('abcd'), [1.0, 0.0, 0.5, 0.25])
  rows = pack([example], tokenizer, 4, False)
  tokens = jnp.array([[tokenizer.start_id, *example.token_ids[:-1]]])
  logits, _ = jax.jit(model.decoder.apply)(model.variables, tokens)
  nll = -jax.nn.log_softmax(logits)[0, jnp.arange(4), jnp.array(example.token_ids)]
  total, weight = _loss(model, rows)
  assert weight == 1.75
  assert total == pytest.approx(float(nll @ jnp.array(example.loss_weights)), rel=1e-5)


@pytest.mark.parametrize('scored', [slice(0, 3), slice(4, 8)])
def test_no_gradient_from_the_future_or_another_text(make_model, tokenizer, scored):
  model = make_model(tied_head=False)
  # All ids differ, so each row of the embedding table belongs to one place.
  rows = pack([Example(list(range(10, 14)), [1.0] * 4), Example(list(range(20, 24)), [1.0] * 4)],
              tokenizer, 8, False)
  tokens = rows.input_tokens_RT.copy()
  tokens[0, [0, 4]] = 30, 31  # both texts begin with the same token otherwise
  weights = np.zeros_like(rows.loss_weights_RT)
  weights[0, scored] = 1.0
  rows = PackedRows(tokens, rows.target_tokens_RT, rows.positions_RT, rows.segment_ids_RT, weights)
  def total(params):
    return next_token_loss(model.decoder, {'params': params}, rows).objective
  gradient = jax.jit(jax.grad(total))(model.variables['params'])
  touched = np.asarray(jnp.abs(gradient['embedding']).sum(-1))
  assert set(np.flatnonzero(touched)) == set(tokens[0, scored].tolist())


def _random_rows(rows, row_tokens, vocab_size):
  """Returns full rows of random tokens, a third of whose targets count."""
  rng = np.random.default_rng(0)
  tokens, targets = rng.integers(0, vocab_size, (2, rows, row_tokens), np.int32)
  positions, segments = np.arange(row_tokens) % 7, np.arange(row_tokens) // 7 + 1
  weights = (rng.random((rows, row_tokens)) < 0.3).astype(np.float32)
  return PackedRows(tokens, targets, *(np.tile(np.int32(x), (rows, 1))
                                       for x in (positions, segments)), weights)


def _plain(decoder, variables, rows):
  """Returns the same loss by optax, from all logits at once."""
  logits, _ = decoder.apply(variables, rows.input_tokens_RT, positions_BT=rows.positions_RT,
                            segment_ids_BT=rows.segment_ids_RT)
  nll = optax.softmax_cross_entropy_with_integer_labels(logits, rows.target_tokens_RT)
  return ((nll + Z_LOSS * jax.nn.logsumexp(logits, -1)**2) * rows.loss_weights_RT).sum() / 3


def _value_and_gradient(loss, model, rows, frozen):
  params = model.variables['params']
  fixed = {name: params[name] for name in params if name in frozen}
  trained = {name: params[name] for name in params if name not in frozen}
  def total(trained, rows):
    return loss(model.decoder, {'params': {**fixed, **trained}}, rows)
  with jax.set_mesh(model.mesh):
    batch = jax.tree.map(model.put_batch, rows)
    return jax.jit(jax.value_and_grad(total))(trained, batch)


@pytest.mark.parametrize(('mesh', 'head'), [
  ((1, 1, 1), {}), ((1, 1, 1), {'tied_head': False, 'head_bias': True}), ((2, 2, 2), {}),
  ((1, 2, 4), {'tied_head': False}),
])
@pytest.mark.parametrize('frozen', [(), ('embedding', 'head')])
def test_piece_by_piece_it_is_the_loss_of_all_logits(make_model, mesh, head, frozen):
  devices = jax.devices()[:np.prod(mesh)]
  model = make_model(sharding.make_mesh(*mesh, devices=devices), layers=1, vocab_size=260, **head)
  rows = _random_rows(4, 23, 260)  # 23: the last piece is not full
  def pieces(decoder, variables, rows):
    return next_token_loss(decoder, variables, rows, loss_tokens=8, z_loss=Z_LOSS).objective / 3
  value, gradient = _value_and_gradient(pieces, model, rows, frozen)
  expected, wanted = _value_and_gradient(_plain, model, rows, frozen)
  assert float(value) == pytest.approx(float(expected), rel=1e-6)
  jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-5),
               gradient, wanted)


def test_never_all_logits_are_in_memory(make_model):
  model = make_model(layers=1, vocab_size=8192)
  rows = _random_rows(4, 256, 8192)
  def temporary(loss_tokens):
    def total(params):
      return next_token_loss(
          model.decoder, {'params': params}, rows, loss_tokens=loss_tokens).objective
    compiled = jax.jit(jax.grad(total)).lower(model.variables['params']).compile()
    return compiled.memory_analysis().temp_size_in_bytes
  logits = 4 * 256 * 8192 * 4  # bytes
  assert temporary(1024) > logits
  assert temporary(128) < temporary(1024) - 0.8 * logits


@pytest.mark.parametrize('mesh', [(1, 1, 1), (2, 2, 2)])
def test_smoothed_targets_are_those_of_torch(make_model, mesh):
  torch = pytest.importorskip('torch')
  devices = jax.devices()[:np.prod(mesh)]
  model = make_model(sharding.make_mesh(*mesh, devices=devices), layers=1, vocab_size=260)
  rows = _random_rows(4, 24, 260)
  logits, _ = model.decoder.apply(
      model.variables, rows.input_tokens_RT, positions_BT=rows.positions_RT,
      segment_ids_BT=rows.segment_ids_RT)
  losses = torch.nn.functional.cross_entropy(
      torch.tensor(np.asarray(logits)).flatten(0, 1),
      torch.tensor(rows.target_tokens_RT.flatten()).long(), reduction='none', label_smoothing=0.2)
  expected = float(losses.numpy() @ rows.loss_weights_RT.flatten())
  with jax.set_mesh(model.mesh):
    sums = jax.jit(lambda rows: next_token_loss(
        model.decoder, model.variables, rows, loss_tokens=8, label_smoothing=0.2))(
            jax.tree.map(model.put_batch, rows))
  assert float(sums.objective) == pytest.approx(expected, rel=1e-5)
  # What is reported stays the cross-entropy.
  assert float(sums.cross_entropy) == pytest.approx(_loss(model, rows)[0], rel=1e-5)
