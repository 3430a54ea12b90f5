"""The contraction with its own backward pass has the gradient that autodiff finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toolformer_jax.models.ops import einsum

SIZES = dict(zip('btrdpkxgshnfv', (2, 3, 4, 5, 2, 3, 4, 2, 6, 5, 2, 3, 7), strict=True))


@pytest.mark.parametrize('equation', ['btr,rd->btd', 'btr,rnh->btnh', 'btnh,nhd->btd',
                                      'pkxgh,pkhs->pkxgs', 'pkxgs,pkhs->pkxgh', 'btd,vd->btv'])
@pytest.mark.parametrize(('dtype', 'out', 'tolerance'), [
  ('float32', 'float32', 1e-5), ('bfloat16', 'float32', 2e-2), ('bfloat16', 'bfloat16', 2e-2),
])
def test_gradient_is_autodiffs(equation, dtype, out, tolerance):
  keys = jax.random.split(jax.random.key(0), 3)
  terms = equation.replace('->', ',').split(',')
  left, right, weight = (jax.random.normal(key, [SIZES[letter] for letter in term])
                         for key, term in zip(keys, terms, strict=True))
  left, right = left.astype(dtype), right.astype(dtype)
  def loss(product):
    return lambda left, right: (jnp.tanh(product(equation, left, right)) * weight).sum()
  def plain(equation, left, right):
    return jnp.einsum(equation, left, right, preferred_element_type=out)
  ours = jax.grad(loss(lambda equation, *terms: einsum(equation, out, *terms)), (0, 1))(
      left, right)
  autodiffs = jax.grad(loss(plain), (0, 1))(left, right)
  for one, other in zip(ours, autodiffs, strict=True):
    assert one.dtype == other.dtype == dtype
    scale = np.abs(np.asarray(other, np.float32)).max()
    np.testing.assert_allclose(np.asarray(one, np.float32), np.asarray(other, np.float32),
                               atol=tolerance * scale)
