"""Which tensor of a Hugging Face checkpoint is which of our parameters: a table for each family.

Letters are those of array names: D embedding, N heads, K key/value heads, H head, F hidden, V
vocabulary.
"""

import collections
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.decoder import BLOCKS


@dataclass(frozen=True)
class Weight:
  """One of our parameters, or of one layer of it, and its place in a checkpoint.

  Attributes:
    path: its place among the parameters; those of blocks have a first axis of layers.
    name: the tensor's; `{}` stands for the number of the layer.
    shape: the tensor's.
    split: the tensor's axes split as ours are.
    order: the axes of `split` as ours follow each other, that of `part` left out.
    part: (axis of `split`, index) of a tensor that several parameters share.
  """

  path: tuple[str, ...]
  name: str
  shape: tuple[int, ...]
  split: tuple[int, ...]
  order: tuple[int, ...]
  part: tuple[int, int] | None = None

  @property
  def of_block(self) -> bool:
    """Whether every layer has one."""
    return self.path[0] == BLOCKS

  def ours(self, tensor: np.ndarray) -> np.ndarray:
    """Returns the parameter in a tensor of the checkpoint."""
    split = tensor.reshape(self.split)
    if self.part:
      split = split.take(self.part[1], self.part[0])
    return split.transpose(self.order)

  def theirs(self, parameters: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the tensor that holds `parameters`: one, or all that share it."""
    back = np.argsort(self.order)
    whole = [parameter.transpose(back) for parameter in parameters]
    joined = np.stack(whole, self.part[0]) if self.part else whole[0]
    return joined.reshape(self.shape)


def weights(kind: str, config: DecoderConfig) -> list[Weight]:
  """Returns the table of a model type of transformers: 'gpt2', 'gptj', 'llama', ...

  Names of GPT-2 and GPT-J begin behind the prefix `transformer.`, which older files lack.
  """
  return {'gpt2': _gpt2, 'gptj': _gptj}.get(kind, _llama)(config)


def sharing_tensors(kind: str, config: DecoderConfig) -> list[list[Weight]]:
  """Returns the table of a model type, those weights together that lie in the same tensors."""
  sharing: dict[str, list[Weight]] = collections.defaultdict(list)
  for weight in weights(kind, config):
    sharing[weight.name].append(weight)
  return list(sharing.values())


def tensor_names(weight: Weight, layers: int) -> list[str]:
  """Returns the names of the tensors that a parameter lies in: one for each layer, or one."""
  return [weight.name.format(i) for i in range(layers)] if weight.of_block else [weight.name]


def _plain(path: str, name: str, *shape: int) -> Weight:
  """Returns a weight that lies there as it does here."""
  return Weight(tuple(path.split('/')), name, shape, shape, tuple(range(len(shape))))


def _linear(path: str, name: str, inputs: Sequence[int], outputs: Sequence[int],
            bias: bool) -> list[Weight]:
  """Returns kernel and bias of torch's Linear: outputs first there, `inputs` first here."""
  places, n = tuple(path.split('/')), len(outputs)
  flat_in, flat_out = math.prod(inputs), math.prod(outputs)
  order = (*range(n, n + len(inputs)), *range(n))
  found = [Weight((*places, 'kernel'), f'{name}.weight', (flat_out, flat_in),
                  (*outputs, *inputs), order)]
  if bias:
    found.append(Weight((*places, 'bias'), f'{name}.bias', (flat_out,), tuple(outputs),
                        tuple(range(n))))
  return found


def _norm(path: str, name: str, size: int, bias: bool) -> list[Weight]:
  found = [_plain(f'{path}/scale', f'{name}.weight', size)]
  return [*found, _plain(f'{path}/bias', f'{name}.bias', size)] if bias else found


def _gpt2(c: DecoderConfig) -> list[Weight]:
  D, N, H, F = c.embed_dim, c.heads, c.head_dim, c.mlp_dim
  block, attention = 'transformer.h.{}', f'{BLOCKS}/attention'
  fused = []
  for i, name in enumerate(('query', 'key', 'value')):
    place = (BLOCKS, 'attention', name)
    fused += [
        Weight((*place, 'kernel'), f'{block}.attn.c_attn.weight', (D, 3 * D), (D, 3, N, H),
               (0, 1, 2), (1, i)),
        Weight((*place, 'bias'), f'{block}.attn.c_attn.bias', (3 * D,), (3, N, H), (0, 1), (0, i))]
  out = (*attention.split('/'), 'out')
  head = [] if c.tied_head else _linear('head', 'lm_head', [D], [c.vocab_size], bias=False)
  return [
      _plain('embedding', 'transformer.wte.weight', c.vocab_size, D),
      _plain('position_embedding', 'transformer.wpe.weight', c.max_positions, D),
      *_norm(f'{BLOCKS}/attention_norm', f'{block}.ln_1', D, bias=True), *fused,
      Weight((*out, 'kernel'), f'{block}.attn.c_proj.weight', (D, D), (N, H, D), (0, 1, 2)),
      _plain('/'.join((*out, 'bias')), f'{block}.attn.c_proj.bias', D),
      *_norm(f'{BLOCKS}/mlp_norm', f'{block}.ln_2', D, bias=True),
      # Its matrices lie as ours do: inputs first.
      _plain(f'{BLOCKS}/mlp/up/kernel', f'{block}.mlp.c_fc.weight', D, F),
      _plain(f'{BLOCKS}/mlp/up/bias', f'{block}.mlp.c_fc.bias', F),
      _plain(f'{BLOCKS}/mlp/down/kernel', f'{block}.mlp.c_proj.weight', F, D),
      _plain(f'{BLOCKS}/mlp/down/bias', f'{block}.mlp.c_proj.bias', D),
      *_norm('final_norm', 'transformer.ln_f', D, bias=True), *head]


def _gptj(c: DecoderConfig) -> list[Weight]:
  D, N, H, F = c.embed_dim, c.heads, c.head_dim, c.mlp_dim
  block = 'transformer.h.{}'
  return [
      _plain('embedding', 'transformer.wte.weight', c.vocab_size, D),
      *_norm(f'{BLOCKS}/attention_norm', f'{block}.ln_1', D, bias=True),
      *(weight for ours, theirs in (('query', 'q'), ('key', 'k'), ('value', 'v'))
        for weight in _linear(f'{BLOCKS}/attention/{ours}', f'{block}.attn.{theirs}_proj', [D],
                              [N, H], bias=False)),
      *_linear(f'{BLOCKS}/attention/out', f'{block}.attn.out_proj', [N, H], [D], bias=False),
      *_linear(f'{BLOCKS}/mlp/up', f'{block}.mlp.fc_in', [D], [F], bias=True),
      *_linear(f'{BLOCKS}/mlp/down', f'{block}.mlp.fc_out', [F], [D], bias=True),
      *_norm('final_norm', 'transformer.ln_f', D, bias=True),
      *_linear('head', 'lm_head', [D], [c.vocab_size], bias=True)]


def _llama(c: DecoderConfig) -> list[Weight]:
  D, N, K, H, F = c.embed_dim, c.heads, c.kv_heads, c.head_dim, c.mlp_dim
  block = 'model.layers.{}'
  def project(ours, theirs, heads):
    return _linear(f'{BLOCKS}/attention/{ours}', f'{block}.self_attn.{theirs}_proj', [D],
                   [heads, H], c.qkv_bias)
  def mlp(ours, inputs, outputs):
    return _linear(f'{BLOCKS}/mlp/{ours}', f'{block}.mlp.{ours}_proj', [inputs], [outputs],
                   c.mlp_bias)
  def norm(ours, theirs, size):
    return _norm(f'{BLOCKS}/{ours}', f'{block}.{theirs}', size, bias=False)
  norms = norm('attention_norm', 'input_layernorm', D)
  if c.sandwich_norm:
    norms += [*norm('attention_out_norm', 'post_attention_layernorm', D),
              *norm('mlp_norm', 'pre_feedforward_layernorm', D),
              *norm('mlp_out_norm', 'post_feedforward_layernorm', D)]
  else:
    norms += norm('mlp_norm', 'post_attention_layernorm', D)
  if c.qk_norm:
    norms += [*norm('attention/query_norm', 'self_attn.q_norm', H),
              *norm('attention/key_norm', 'self_attn.k_norm', H)]
  return [
      _plain('embedding', 'model.embed_tokens.weight', c.vocab_size, D), *norms,
      *project('query', 'q', N), *project('key', 'k', K), *project('value', 'v', K),
      *_linear(f'{BLOCKS}/attention/out', f'{block}.self_attn.o_proj', [N, H], [D], c.out_bias),
      *mlp('gate', D, F), *mlp('up', D, F), *mlp('down', F, D),
      *_norm('final_norm', 'model.norm', D, bias=False),
      *([] if c.tied_head else _linear('head', 'lm_head', [D], [c.vocab_size], bias=False))]
