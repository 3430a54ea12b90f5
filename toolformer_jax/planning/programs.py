"""The steps that can be planned: the real programs, with shapes in place of arrays."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from toolformer_jax import sharding
from toolformer_jax.inference.batching import PackedTokens
from toolformer_jax.inference.decoding import STEPS, DecodeRows, SpecialTokens, decode_steps
from toolformer_jax.inference.scoring import ScoreBatch, target_logprobs
from toolformer_jax.inference.shared_prefix import DOCUMENT_ROWS, prefill_rows
from toolformer_jax.models import flops
from toolformer_jax.models.adapters import ADAPTER
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.decoder import BLOCKS, Decoder
from toolformer_jax.models.kernels import block_kernels
from toolformer_jax.models.kv_cache import KVCache
from toolformer_jax.models.language_model import (
  abstract_variables,
  cast_for_inference,
  make_decoder,
)
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.optimizer import make_optimizer
from toolformer_jax.training.packing import PackedRows
from toolformer_jax.training.train_step import abstract_train_state, make_train_step

Step = Literal['train', 'score', 'prefill', 'decode']

PROMPT = 512  # tokens of the few-shot prompt before the documents that are prefilled


@dataclass(frozen=True)
class Program:
  """A step that can be compiled, and its work.

  Attributes:
    trace: method `trace` of a jitted function.
    arguments: its arguments as shapes, dtypes and shardings.
    tokens: tokens that one run reads or writes.
    useful_flops: floating-point operations of one run on all chips.
    flops: the same with what is computed more than once: by remat, and for rows that the mesh does
      not divide.
    traffic: bytes that each chip has to read from or write to its memory, at least.
  """

  trace: Callable[..., jax.stages.Traced]
  arguments: tuple[Any, ...]
  tokens: int
  useful_flops: int
  flops: int
  traffic: int

  def lower(self, mesh: Mesh) -> jax.stages.Lowered:
    """Returns the program for the devices of `mesh`."""
    with jax.set_mesh(mesh):
      return self.trace(*self.arguments).lower()


def program(step: Step, config: DecoderConfig, mesh: Mesh, batch: int, length: int,
            finetune: FinetuneConfig) -> Program:
  """Returns a step of a model on `mesh`.

  Args:
    step: one of
      - 'train': forward and backward pass and update on `batch` rows of `length` tokens.
      - 'score': log-probabilities of all tokens of such rows.
      - 'prefill': keys and values of 8 of `batch` documents of `length` tokens, after a prompt of
        512 tokens; this comes before sampling.
      - 'decode': 4 more tokens of `batch` texts, with `length` slots of the cache each.
    config: configuration of the decoder.
    mesh: devices to compile for.
    batch, length: sizes, see `step`.
    finetune: settings of 'train', such as adapters, remat_policy and the dtype of the first moment.
  """
  decoder = make_decoder(mesh, config)
  if step == 'train':
    return _train(decoder, mesh, batch, length, finetune)
  build = {'score': _score, 'prefill': _prefill, 'decode': _decode}[step]
  return build(decoder, mesh, batch, length)


def argument_bytes(arguments: Any) -> int:
  """Returns how many bytes of `arguments` each device holds."""
  leaves = [leaf for leaf in jax.tree.leaves(arguments) if isinstance(leaf, jax.ShapeDtypeStruct)]
  return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
             for leaf in leaves)


def _train(decoder: Decoder, mesh: Mesh, batch: int, length: int,
           finetune: FinetuneConfig) -> Program:
  finetune.check_has_teacher(given=False)
  if finetune.qat:
    finetune.qat.check_model(decoder.config)
  config = decoder.config.replace(adapter=finetune.adapter)
  decoder = decoder.clone(
      config=config, remat_policy=finetune.remat_policy, dropout=finetune.dropout)
  collection = ADAPTER if config.adapter else 'params'
  optimizer = make_optimizer(finetune)
  state = abstract_train_state(decoder, collection, optimizer, mesh)
  variables = sharding.abstract_with_sharding(abstract_variables(decoder), mesh)
  frozen = {name: value for name, value in variables.items() if name != collection}
  rows = _inputs(mesh, PackedRows.empty(batch, length))
  useful = batch * flops.training_flops(config, length)
  again = batch * flops.recomputed_flops(config, length, finetune.remat_policy)
  step = make_train_step(decoder, collection, optimizer, state, finetune)
  key = jax.eval_shape(lambda: jax.random.key(0))
  noise_key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=state.step.sharding)
  masks = {path: jax.ShapeDtypeStruct(kernel.shape, bool, sharding=kernel.sharding)
           for path, kernel in block_kernels(variables['params'][BLOCKS]).items()}
  arguments = (frozen, state, rows, noise_key if finetune.privacy else None, None,
               masks if finetune.keep_zeros else None)
  return Program(step.trace, arguments, batch * length, useful,
                 (useful + again) * _copies(mesh, batch),
                 argument_bytes((frozen, state)) + argument_bytes(state))


def _score(decoder: Decoder, mesh: Mesh, batch: int, length: int) -> Program:
  variables = _frozen(decoder, mesh)
  useful = batch * flops.forward_flops(decoder.config, length, logits=length)
  def zeros() -> ScoreBatch:
    ids = jnp.zeros((batch, length), jnp.int32)
    return ScoreBatch(PackedTokens(ids, ids, ids), ids, ids)
  scored = _inputs(mesh, jax.eval_shape(zeros))
  return Program(functools.partial(target_logprobs.trace, decoder), (variables, scored),
                 batch * length, useful, useful * _copies(mesh, batch), argument_bytes(variables))


def _prefill(decoder: Decoder, mesh: Mesh, batch: int, length: int) -> Program:
  config, variables = decoder.config, _frozen(decoder, mesh)
  rows = min(DOCUMENT_ROWS, batch)
  prompt, cache = _cache(config, mesh, 1, PROMPT), _cache(config, mesh, batch, length)
  ids = _input(mesh, (rows, length))
  useful = rows * flops.forward_flops(config, length, PROMPT, logits=length)
  written = argument_bytes(cache) * rows // batch
  return Program(functools.partial(prefill_rows.trace, decoder),
                 (variables, prompt, cache, 0, ids, ids, 0), rows * length, useful,
                 useful * _copies(mesh, rows), argument_bytes((variables, prompt)) + written)


def _decode(decoder: Decoder, mesh: Mesh, batch: int, length: int) -> Program:
  config, variables = decoder.config, _frozen(decoder, mesh)
  cache = _cache(config, mesh, batch, length)
  column = functools.partial(jnp.zeros, (batch,))
  # The last tokens that the cache has room for: they read all of it.
  useful = batch * flops.forward_flops(config, STEPS, length - STEPS, logits=STEPS)
  def zeros() -> DecodeRows:
    return DecodeRows(
        pending_BA=jnp.zeros((batch, STEPS + 1), jnp.int32), num_pending_B=column(jnp.int32),
        may_call_B=column(bool), forbid_call_B=column(bool), top_k_api_B=column(jnp.int32),
        min_tokens_left_B=column(jnp.int32), num_tokens_B=column(jnp.int32),
        seed_B=column(jnp.uint32), temperature_B=column(jnp.float32), top_p_B=column(jnp.float32),
        adapter_ids_B=column(jnp.int32), wants_logprobs_B=column(bool))
  rows = _inputs(mesh, jax.eval_shape(zeros))
  special = SpecialTokens(api_id=np.int32(0), end_ids_E=np.zeros(1, np.int32))
  return Program(functools.partial(decode_steps.trace, decoder),
                 (variables, cache, rows, special), batch * STEPS, useful,
                 useful * _copies(mesh, batch), STEPS * argument_bytes((variables, cache)))


def _copies(mesh: Mesh, rows: int) -> int:
  """Returns how many devices compute each row; more than 1 if the mesh does not divide the rows."""
  groups = mesh.shape['data'] * mesh.shape['fsdp']
  return 1 if rows % groups == 0 else groups


def _frozen(decoder: Decoder, mesh: Mesh) -> Any:
  """Returns the variables with the dtypes of inference."""
  abstract = sharding.abstract_with_sharding(abstract_variables(decoder), mesh)
  cast = jax.eval_shape(functools.partial(cast_for_inference, config=decoder.config), abstract)
  return jax.tree.map(
      lambda x, like: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=like.sharding), cast,
      abstract)


def _cache(config: DecoderConfig, mesh: Mesh, rows: int, slots: int) -> KVCache:
  names = {'keys': (None, 'batch', 'kv_heads', None, None),
           'values': (None, 'batch', 'kv_heads', None, None), 'length_B': ('batch',)}
  shapes = jax.eval_shape(functools.partial(KVCache.empty, config, rows, slots))
  def placed(name: str) -> Any:
    x = getattr(shapes, name)
    where = sharding.named_sharding(mesh, x.shape, names[name])
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)
  return KVCache(**{name: placed(name) for name in names})


def _inputs(mesh: Mesh, arrays: Any) -> Any:
  """Returns shapes, dtypes and shardings of the arrays of a batch, or of their shapes."""
  return jax.tree.map(lambda x: _input(mesh, x.shape, x.dtype), arrays)


def _input(mesh: Mesh, shape: tuple[int, ...], dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.batch_sharding(mesh, shape))
