"""The loss of packed rows is the loss of their texts, and sees neither future nor neighbours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toolformer_jax.training.data import plain_example
from toolformer_jax.training.loss import next_token_loss
from toolformer_jax.training.packing import Example, PackedRows, pack

TEXTS = ['one two', 'three', 'and a third text']


def _loss(model, rows):
  loss = jax.jit(next_token_loss, static_argnums=0)
  return [float(x) for x in loss(model.decoder, model.variables, rows)]


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
  tokens = jnp.array([[tokenizer.start_id, *example.ids[:-1]]])
  logits, _ = jax.jit(model.decoder.apply)(model.variables, tokens)
  nll = -jax.nn.log_softmax(logits)[0, jnp.arange(4), jnp.array(example.ids)]
  total, weight = _loss(model, rows)
  assert weight == 1.75
  assert total == pytest.approx(float(nll @ jnp.array(example.weights)), rel=1e-5)


@pytest.mark.parametrize('scored', [slice(0, 3), slice(4, 8)])
def test_no_gradient_from_the_future_or_another_text(make_model, tokenizer, scored):
  model = make_model(tied_head=False)
  # All ids differ, so each row of the embedding table belongs to one place.
  rows = pack([Example(list(range(10, 14)), [1.0] * 4), Example(list(range(20, 24)), [1.0] * 4)],
              tokenizer, 8, False)
  tokens = rows.tokens_RT.copy()
  tokens[0, [0, 4]] = 30, 31  # both texts begin with the same token otherwise
  weights = np.zeros_like(rows.weights_RT)
  weights[0, scored] = 1.0
  rows = PackedRows(tokens, rows.targets_RT, rows.positions_RT, rows.segments_RT, weights)
  def total(params):
    return next_token_loss(model.decoder, {'params': params}, rows)[0]
  gradient = jax.jit(jax.grad(total))(model.variables['params'])
  touched = np.asarray(jnp.abs(gradient['embedding']).sum(-1))
  assert set(np.flatnonzero(touched)) == set(tokens[0, scored].tolist())
