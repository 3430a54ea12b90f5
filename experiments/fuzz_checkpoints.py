"""Damaged checkpoints for `fuzz.py`: Hugging Face directories and GGUF files."""

import json
import pathlib
import random
from collections.abc import Callable

from fuzz_target import Target, refusable
from mutation import json_bytes, mutate_bytes, mutate_json


class _Checkpoint:
  """A directory with a small model, of which one file is replaced at a time."""

  def __init__(self, folder: pathlib.Path):
    from tiny_model import save_tiny_model
    self.path = save_tiny_model(folder / 'model')
    self._saved = {file.name: file.read_bytes() for file in self.path.iterdir()}

  def target(self, name: str, make: Callable[[bytes, random.Random], bytes]) -> Target:
    """Loads the model after `make` has changed its file `name`."""
    import jax

    from toolformer_jax.checkpoints.pretrained import load_pretrained
    from toolformer_jax.sharding import make_mesh
    mesh = make_mesh(devices=jax.devices()[:1])
    def run(content: bytes) -> str:
      (self.path / name).write_bytes(content)
      return refusable(lambda: load_pretrained(str(self.path), mesh=mesh))
    return Target(lambda rng: make(self._saved[name], rng), run)


def _damaged_json(content: bytes, rng: random.Random) -> bytes:
  if rng.random() < 0.4:
    return mutate_bytes(content, [content], rng)
  return json_bytes(mutate_json(json.loads(content), rng))


def _config_json(folder: pathlib.Path) -> Target:
  from toolformer_jax.checkpoints.families.registry import write_config
  from toolformer_jax.models.config import DecoderConfig
  sizes = dict(vocab_size=259, layers=2, embed_dim=32, heads=4, kv_heads=2, head_dim=8, mlp_dim=64,
               max_positions=256, rotary_dim=8)
  gpt = dict(kv_heads=4, norm='layer', gated_mlp=False, activation='gelu_tanh', mlp_bias=True)
  configs = [write_config(DecoderConfig(**sizes | changes)) for changes in (
      {}, {'rotary_scaling_factor': 8.0, 'rotary_original_positions': 32},
      {'rotary_scaling_factor': 4.0, 'rotary_beta_fast': 32.0, 'rotary_beta_slow': 1.0,
       'rotary_original_positions': 64}, {'qkv_bias': True}, {'qk_norm': True},
      dict(qk_norm=True, activation='gelu_tanh', sandwich_norm=True, norm_offset=True,
           scaled_embedding=True, sliding_window=5, global_every=2),
      {'sliding_window': 16, 'global_every': 3},
      gpt | dict(positions='learned', rotary_dim=0, qkv_bias=True, out_bias=True),
      gpt | dict(positions='rotary_interleaved', parallel_block=True, head_bias=True,
                 tied_head=False))]
  contents = [json.dumps(config | {'bos_token_id': None, 'eos_token_id': 258}).encode()
              for config in configs]
  return _Checkpoint(folder).target(
      'config.json', lambda _, rng: _damaged_json(rng.choice(contents), rng))


def _tokenizer_json(folder: pathlib.Path) -> Target:
  return _Checkpoint(folder).target('tokenizer.json', _damaged_json)


def _safetensors(folder: pathlib.Path) -> Target:
  def make(content: bytes, rng: random.Random) -> bytes:
    size = int.from_bytes(content[:8], 'little')
    head, data = content[8:8 + size], content[8 + size:]
    if rng.random() < 0.5:
      head = json_bytes(mutate_json(json.loads(head), rng))
    else:
      head = mutate_bytes(head, [head], rng)
    if rng.random() < 0.3:
      size += rng.choice((-1, 1, 8, 2**40, -size))
    else:
      size = len(head)
    if rng.random() < 0.2:
      data = data[:rng.randrange(len(data))]
    return size.to_bytes(8, 'little') + head + data
  return _Checkpoint(folder).target('model.safetensors', make)


def _gguf(folder: pathlib.Path) -> Target:
  import jax

  from toolformer_jax.checkpoints.gguf import load_gguf
  from toolformer_jax.sharding import make_mesh
  mesh = make_mesh(devices=jax.devices()[:1])
  wholes = [_gguf_file(folder, name) for name in ('llama', 'gpt2')]
  def make(rng: random.Random) -> bytes:
    whole = rng.choice(wholes)
    if rng.random() < 0.2:
      return whole[:rng.randrange(len(whole))]
    end = rng.choice((200, 2000, len(whole)))  # the fields come first
    return mutate_bytes(whole[:end], wholes, rng) + whole[end:]
  def run(content: bytes) -> str:
    path = folder / 'model.gguf'
    path.write_bytes(content)
    return refusable(lambda: load_gguf(path, mesh))
  return Target(make, run)


def _gguf_file(folder: pathlib.Path, architecture: str) -> bytes:
  """Returns a GGUF file of a model with one layer."""
  import gguf
  import numpy as np
  from tokenizers.pre_tokenizers import ByteLevel
  tokens = [*sorted(ByteLevel.alphabet()), 'ab', '</s>']
  D, F, V = 32, 64, len(tokens)
  shapes = {'token_embd.weight': (V, D), 'output_norm.weight': (D,), 'blk.0.attn_norm.weight': (D,),
            'blk.0.ffn_norm.weight': (D,), 'blk.0.ffn_up.weight': (F, D),
            'blk.0.ffn_down.weight': (D, F), 'blk.0.attn_output.weight': (D, D)}
  fields = {'block_count': 1, 'embedding_length': D, 'feed_forward_length': F, 'context_length': 64,
            'attention.head_count': 4}
  if architecture == 'gpt2':
    fields |= {'attention.layer_norm_epsilon': 1e-5}
    shapes |= {'position_embd.weight': (64, D), 'output_norm.bias': (D,),
               'blk.0.attn_qkv.weight': (3 * D, D), 'blk.0.attn_qkv.bias': (3 * D,)}
    shapes |= {f'blk.0.{name}.bias': (size,) for name, size in (
        ('attn_output', D), ('ffn_up', F), ('ffn_down', D), ('attn_norm', D), ('ffn_norm', D))}
  else:
    fields |= {'attention.head_count_kv': 2, 'rope.freq_base': 1e4,
               'attention.layer_norm_rms_epsilon': 1e-6}
    shapes |= {'blk.0.ffn_gate.weight': (F, D), 'blk.0.attn_q.weight': (D, D),
               'blk.0.attn_k.weight': (D // 2, D), 'blk.0.attn_v.weight': (D // 2, D)}
  path = folder / 'whole.gguf'
  writer = gguf.GGUFWriter(path, architecture)
  for name, value in fields.items():
    add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
    add(f'{architecture}.{name}', value)
  writer.add_tokenizer_model('gpt2')
  writer.add_tokenizer_pre('gpt-2')
  writer.add_token_list(tokens)
  writer.add_token_types([1] * (V - 1) + [3])
  writer.add_token_merges(['a b'])
  writer.add_eos_token_id(V - 1)
  for name, shape in shapes.items():
    writer.add_tensor(name, np.full(shape, 0.5, np.float32))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path.read_bytes()


TARGETS = {'config.json': _config_json, 'tokenizer.json': _tokenizer_json,
           'safetensors': _safetensors, 'gguf': _gguf}
