"""The kernels against XLA's attention, on values and gradients.

Splash is interpreted. cuDNN's kernel does not run here: XLA takes its place, so that what surrounds
it is tested (masks, grouped heads, the mesh).
"""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toolformer_jax.models import attention, language_model
from toolformer_jax.models.attention import attend, attend_packed, choose_kernel
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.kv_cache import KVCache, Prefix
from toolformer_jax.sharding import make_mesh

KERNELS = ['splash', 'cudnn']
CONFIG = DecoderConfig(vocab_size=8, layers=1, embed_dim=8, heads=2, kv_heads=2, head_dim=64,
                       mlp_dim=8, max_positions=8, rotary_dim=8, dtype='bfloat16')


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
  interpreted = functools.partial(attention.make_splash_mha_single_device, interpret=True)
  monkeypatch.setattr(attention, 'make_splash_mha_single_device', interpreted)
  by_jax = jax.nn.dot_product_attention
  monkeypatch.setattr(jax.nn, 'dot_product_attention', lambda *arrays, implementation, **options:
                      by_jax(*arrays, implementation='xla', **options))


def _segments(rows, tokens, seed=0):
  """Returns ids of about five segments a row, each in one piece."""
  return np.sort(np.random.default_rng(seed).integers(1, 6, (rows, tokens)), -1).astype(np.int32)


def _inputs(rows, tokens, heads, kv_heads):
  rng = np.random.default_rng(1)
  q, k, v = (jnp.asarray(rng.normal(size=(rows, tokens, n, 16)), jnp.float32)
             for n in (heads, kv_heads, kv_heads))
  return q, k, v, jnp.asarray(_segments(rows, tokens))


def _by_xla(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT):
  T = q_BTNH.shape[1]
  same_segment_BTT = segment_ids_BT[:, :, None] == segment_ids_BT[:, None]
  mask_BTT = np.tril(np.ones((T, T), bool)) & same_segment_BTT
  return attend(q_BTNH, [(k_BTKH.transpose(0, 2, 3, 1), v_BTKH.swapaxes(1, 2), mask_BTT)])


def _check(kernel, inputs):
  """Compares values and gradients with XLA's, under the mesh that is set."""
  @functools.partial(jax.jit, static_argnums=0)
  def both(function, q, k, v, segments):
    def loss(q, k, v):
      out = function(q, k, v, segments)
      return (jnp.sin(out) * jnp.arange(out.size).reshape(out.shape) / out.size).sum(), out
    return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(q, k, v)
  (_, out), gradients = both(functools.partial(attend_packed, kernel=kernel), *inputs)
  (_, expected), expected_gradients = both(_by_xla, *inputs)
  np.testing.assert_allclose(out, expected, atol=1e-5)
  for gradient, wanted in zip(gradients, expected_gradients, strict=True):
    np.testing.assert_allclose(gradient, wanted, atol=1e-4)


@pytest.mark.parametrize('kernel', KERNELS)
def test_kernels_are_xlas_attention(kernel):
  _check(kernel, _inputs(2, 384, 4, 2))


@pytest.mark.parametrize('kernel', KERNELS)
@pytest.mark.parametrize(('rows', 'heads', 'kv_heads'), [
  (4, 4, 2),  # all split
  (4, 4, 1),  # fewer key/value heads than ways: copied
  (3, 3, 3),  # nothing divisible: every device does all
])
def test_kernels_on_a_mesh(kernel, rows, heads, kv_heads):
  with jax.set_mesh(make_mesh(2, 2, 2)):
    _check(kernel, _inputs(rows, 128, heads, kv_heads))


@pytest.mark.parametrize(('kernel', 'mesh', 'policy', 'window'), [
  ('splash', None, 'minimal', 0), ('splash', (2, 2, 2), 'full', 0),
  ('splash', (2, 2, 2), 'save_qkv_proj', 40), ('splash', None, 'minimal', 128),
  ('cudnn', (2, 2, 2), 'full', 0)])
def test_a_decoder_with_kernels(make_model, kernel, mesh, policy, window):
  model = make_model(make_mesh(*mesh) if mesh else None, sliding_window=window, global_every=2)
  tokens, segments = np.random.default_rng(2).integers(0, 250, (4, 128)), _segments(4, 128)
  def loss(params, decoder):
    logits, _ = decoder.apply({'params': params}, tokens, segment_ids_BT=segments)
    return logits.var(), logits
  run = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
  with jax.set_mesh(model.mesh):
    (_, logits), gradients = run(
        model.variables['params'], model.decoder.clone(kernel=kernel, remat_policy=policy))
    (_, expected), expected_gradients = run(model.variables['params'], model.decoder)
  np.testing.assert_allclose(logits, expected, atol=1e-5)
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4), gradients,
               expected_gradients)


def _program(model, kernel, tokens, **inputs):
  decoder = model.decoder.clone(kernel=kernel)
  tokens_BT = jnp.zeros((1, tokens), jnp.int32)
  return jax.jit(decoder.apply).lower(model.variables, tokens_BT, **inputs).as_text()


def test_splash_needs_no_mask(make_model):
  model, segments = make_model(), jnp.zeros((1, 256), jnp.int32)
  assert '1x256x256xi1' in _program(model, 'xla', 256, segment_ids_BT=segments)
  assert '1x256x256xi1' not in _program(model, 'splash', 256, segment_ids_BT=segments)


def test_caches_prefixes_and_other_lengths_are_xlas(make_model):
  model = make_model()
  cache = KVCache.empty(model.config, 1, 128)
  for tokens, inputs in ((100, {}), (128, {'cache': cache}),
                         (128, {'prefixes': [Prefix.of(cache, jnp.array([3]))]})):
    by_xla = _program(model, 'xla', tokens, **inputs)
    assert _program(model, 'splash', tokens, **inputs) == by_xla


def test_a_row_is_one_segment_by_default():
  q, k, v, _ = _inputs(1, 128, 2, 2)
  zeros = jnp.zeros((1, 128), jnp.int32)
  got = attend_packed(q, k, v, None, 'cudnn')
  assert np.array_equal(got, attend_packed(q, k, v, zeros, 'cudnn'))
  np.testing.assert_allclose(got, _by_xla(q, k, v, zeros), atol=1e-5)


@pytest.mark.parametrize(('platform', 'capability', 'changes', 'kernel'), [
  ('tpu', None, {}, 'splash'),
  ('tpu', None, dict(dtype='float32'), 'splash'),
  ('cpu', None, {}, 'xla'),
  ('gpu', '8.0', {}, 'cudnn'),
  ('gpu', '10.0', dict(head_dim=128), 'cudnn'),
  ('gpu', '9.0', dict(dtype='float32'), 'xla'),
  ('gpu', '9.0', dict(head_dim=256), 'xla'),
  ('gpu', '9.0', dict(head_dim=44), 'xla'),
  ('gpu', '9.0', dict(sliding_window=64), 'xla'),
  ('gpu', '7.5', {}, 'xla'),
  ('gpu', 'gfx90a', {}, 'xla'),
])
def test_the_choice(platform, capability, changes, kernel):
  device = SimpleNamespace(platform=platform, compute_capability=capability)
  mesh = SimpleNamespace(devices=np.array([[[device]]]))
  assert choose_kernel(mesh, CONFIG.replace(**changes)) == kernel


def test_a_placed_model_has_its_mesh_s_kernel(make_model, monkeypatch):
  assert make_model().decoder.kernel == 'xla'
  monkeypatch.setattr(language_model, 'choose_kernel', lambda mesh, config: 'splash')
  assert make_model().decoder.kernel == 'splash'
