"""Operations and parameters by formula, against those of the programs and states themselves."""

import itertools
import math
import re
import types

import jax
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

from toolformer_jax import sharding
from toolformer_jax.models import flops
from toolformer_jax.models.adapter_config import (
  AdaLoraConfig,
  BottleneckConfig,
  Ia3Config,
  LoraConfig,
  PrefixConfig,
)
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.kv_cache import KVCache
from toolformer_jax.models.language_model import abstract_variables
from toolformer_jax.training.loss import next_token_loss
from toolformer_jax.training.packing import PackedRows

LLAMA = DecoderConfig(vocab_size=96, layers=2, embed_dim=24, heads=4, kv_heads=2, head_dim=8,
                      mlp_dim=40, max_positions=64, rotary_dim=8)
GPT2 = LLAMA.replace(kv_heads=4, norm='layer', positions='learned', rotary_dim=0, gated_mlp=False,
                     qkv_bias=True, out_bias=True, mlp_bias=True, activation='gelu_tanh')
GPTJ = LLAMA.replace(kv_heads=4, norm='layer', positions='rotary_interleaved', rotary_dim=4,
                     parallel_block=True, gated_mlp=False, mlp_bias=True, head_bias=True,
                     tied_head=False)
QWEN = LLAMA.replace(qk_norm=True, qkv_bias=True)
GEMMA = LLAMA.replace(layers=3, qk_norm=True, sandwich_norm=True, norm_offset=True,
                      scaled_embedding=True, sliding_window=5, global_every=2)
FAMILIES = pytest.mark.parametrize('config', [LLAMA, GPT2, GPTJ, QWEN, GEMMA],
                                   ids=['llama', 'gpt2', 'gptj', 'qwen', 'gemma'])
ADAPTERS = (
    LoraConfig(rank=3, target_modules=('key', 'down'), rank_pattern={'key': 5}),
    AdaLoraConfig(init_rank=3, target_rank=2), Ia3Config(), BottleneckConfig(placement='houlsby'),
    BottleneckConfig(placement='pfeiffer', reduction_factor=4), PrefixConfig(num_virtual_tokens=3))
TOKENS = 12  # too few for attention in quarters: XLA's computes the whole square


@FAMILIES
def test_parameters_are_those_of_the_state(config):
  def sizes(config, collection):
    variables = sharding.unbox(abstract_variables(Decoder(config)))
    return sum(leaf.size for leaf in jax.tree.leaves(variables[collection]))
  assert flops.num_parameters(config) == sizes(config, 'params')
  assert flops.num_adapter_parameters(config) == 0
  for adapter in ADAPTERS:
    adapted = config.replace(adapter=adapter)
    assert flops.num_parameters(adapted) == flops.num_parameters(config)
    assert flops.num_adapter_parameters(adapted) == sizes(adapted, 'adapter')


@FAMILIES
@pytest.mark.parametrize('adapter', [None, LoraConfig(rank=3), BottleneckConfig()],
                         ids=['none', 'lora', 'bottleneck'])
def test_forward_is_what_the_program_computes(config, adapter):
  config = config.replace(adapter=adapter)
  decoder, variables, rows = _program(config)
  counted = _product_flops(lambda v: decoder.apply(v, rows.input_tokens_RT)[0], variables)
  unseen = _unseen(config)
  assert counted == 2 * (flops.forward_flops(config, TOKENS, logits=TOKENS) + unseen)


@pytest.mark.parametrize('config', [LLAMA, GEMMA], ids=['llama', 'gemma'])
def test_a_sequence_is_its_parts(config):
  whole = flops.forward_flops(config, TOKENS, logits=3)
  parts = [flops.forward_flops(config, 7, logits=2), flops.forward_flops(config, 5, 7, 1)]
  assert whole == sum(parts)


def test_one_token_after_others():
  decoder, variables, _ = _program(LLAMA)
  cache = KVCache.empty(LLAMA, 1, TOKENS).to_layout('per_layer')
  cache = cache.with_length(np.array([TOKENS - 1], np.int32))
  def last(variables):
    return decoder.apply(variables, np.zeros((1, 1), np.int32), cache=cache)[0]
  assert _product_flops(last, variables) == flops.forward_flops(LLAMA, 1, TOKENS - 1, 1)


@FAMILIES
def test_training_is_what_the_program_computes(config):
  decoder, variables, rows = _program(config)
  def loss(params):
    return next_token_loss(decoder, {'params': params}, rows, loss_tokens=8).objective
  counted = _product_flops(jax.grad(loss), variables['params'])
  unseen = 3 * _unseen(config)
  assert counted == 2 * (flops.training_flops(config, TOKENS) + unseen)


def test_training_of_adapters_is_what_the_program_computes():
  config = LLAMA.replace(adapter=LoraConfig(rank=3))
  decoder, variables, rows = _program(config)
  def loss(lora, params):
    variables = {'params': params, 'adapter': lora}
    return next_token_loss(decoder, variables, rows, loss_tokens=8).objective
  counted = _product_flops(jax.grad(loss), variables['adapter'], variables['params'])
  unseen = 3 * _unseen(config)
  # Nothing below the first block's queries, keys and values is trained.
  heads = config.heads + 2 * config.kv_heads
  first = 2 * TOKENS * config.embed_dim * (heads * config.head_dim + 3 * config.adapter.rank)
  assert counted == 2 * (flops.training_flops(config, TOKENS) + unseen - first)


@pytest.mark.parametrize('policy', ['save_qkv_proj', 'full'])
@pytest.mark.parametrize(('config', 'adapter'), [
    (LLAMA, None), (GPTJ, None), (GEMMA, None), (GPTJ, LoraConfig(rank=3))],
    ids=['llama', 'gptj', 'gemma', 'lora'])
def test_the_compiled_backward_pass_repeats_as_much(config, adapter, policy):
  config = config.replace(adapter=adapter)
  def computed(policy):
    decoder, rows = Decoder(config, remat_policy=policy), PackedRows.empty(2, TOKENS)
    variables = sharding.unbox(abstract_variables(decoder))
    def loss(trained, frozen):
      return next_token_loss(decoder, frozen | trained, rows).objective
    name = 'adapter' if adapter else 'params'
    trained, frozen = {name: variables[name]}, {'params': variables['params']}
    return _compiled_flops(jax.jit(jax.grad(loss)).lower(trained, frozen).compile().as_text())
  expected = 2 * (flops.recomputed_flops(config, TOKENS, policy) + _unseen(config))
  # A text has the body of the loop over layers once.
  assert config.layers * (computed(policy) - computed('minimal')) == expected > 0


def test_gpt_j_by_hand():
  config = DecoderConfig(
      vocab_size=50_400, layers=28, embed_dim=4096, heads=16, kv_heads=16, head_dim=256,
      mlp_dim=16_384, max_positions=2048, norm='layer', positions='rotary_interleaved',
      rotary_dim=64, parallel_block=True, gated_mlp=False, mlp_bias=True, head_bias=True,
      tied_head=False)
  assert flops.num_parameters(config) == 6_050_882_784
  per_token = flops.training_flops(config, 1024) / 1024
  matrices = 28 * (4 * 4096**2 + 2 * 4096 * 16_384) + 4096 * 50_400
  assert per_token == pytest.approx(6 * matrices + 6 * 28 * 4096 * 1025, rel=1e-12)


def test_utilization():
  def device(kind):
    return types.SimpleNamespace(device_kind=kind)
  lite, large = device('TPU v5 lite'), device('TPU v5')
  assert flops.utilization(197e12, [lite] * 2) == pytest.approx(0.5)
  assert flops.utilization(459e12, [large]) == pytest.approx(1.0)
  assert flops.utilization(1e12, [device('NVIDIA H100 80GB HBM3')]) == pytest.approx(1 / 989)
  assert flops.utilization(1e12, jax.devices('cpu')) is None


def _program(config):
  """Returns an unrolled decoder, its variables' shapes, and a batch of two rows."""
  decoder = Decoder(config, scan_layers=False)
  rows = PackedRows.empty(2, TOKENS)
  return decoder, sharding.unbox(abstract_variables(decoder)), rows


def _unseen(config):
  """Returns the operations of one row's attention to tokens that are not seen."""
  def sees(layer, token, other):
    near = config.sliding_window and (layer + 1) % config.global_every
    return other <= token and not (near and token - other >= config.sliding_window)
  pairs = itertools.product(range(config.layers), range(TOKENS), range(TOKENS))
  return 4 * config.heads * config.head_dim * sum(not sees(*pair) for pair in pairs)


def _compiled_flops(text) -> int:
  """Returns the operations of all products in the text of a compiled program."""
  shapes = {name: [int(size) for size in sizes.split(',') if size]
            for name, sizes in re.findall(r'%([\w.-]+) = \w+\[([\d,]*)\]', text)}
  products = re.findall(r'%([\w.-]+) = .* dot\(%([\w.-]+), .*lhs_contracting_dims=\{([\d,]+)\}',
                        text)
  return sum(2 * math.prod(shapes[out])
             * math.prod(shapes[left][int(i)] for i in contracted.split(','))
             for out, left, contracted in products)


def _product_flops(function, *args) -> int:
  """Returns the operations of all matrix products of a program."""
  return _in_jaxpr(jax.make_jaxpr(function)(*args).jaxpr)


def _in_jaxpr(jaxpr: Jaxpr) -> int:
  total = 0
  for equation in jaxpr.eqns:
    assert equation.primitive.name not in ('while', 'conv_general_dilated')
    if equation.primitive.name == 'dot_general':
      (contracted, _), _ = equation.params['dimension_numbers']
      left = equation.invars[0].aval.shape
      total += 2 * equation.outvars[0].aval.size * math.prod(left[i] for i in contracted)
    times = equation.params['length'] if equation.primitive.name == 'scan' else 1
    total += times * sum(map(_in_jaxpr, _inner(equation)))
  return total


def _inner(equation) -> list[Jaxpr]:
  inner = [getattr(value, 'jaxpr', value) for value in equation.params.values()
           if isinstance(value, ClosedJaxpr | Jaxpr)]
  return inner[:1]  # a custom gradient holds its function a second time
