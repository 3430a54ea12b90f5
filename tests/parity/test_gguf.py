"""GGUF files, written here as llama.cpp's converter lays tensors out, against transformers.

The small ones have random weights in several quantisations; the real ones are those that `fetch`
knows.
"""

import os

import gguf
import jax
import numpy as np
import pytest
import torch
import transformers
from tokenizers.pre_tokenizers import ByteLevel

from toolformer_jax.checkpoints.gguf import load_gguf
from toolformer_jax.data.content_hash import content_fingerprint
from toolformer_jax.errors import UserError
from toolformer_jax.inference.scoring import ScoreRequest, score
from toolformer_jax.sharding import make_mesh

from .reference import their_logprobs

D, F, L, V, T = 64, 256, 3, 261, 128
_COMMON = dict(block_count=L, embedding_length=D, feed_forward_length=F, context_length=T)
_LLAMA = {**_COMMON, 'attention.head_count': 4, 'attention.head_count_kv': 2,
          'attention.layer_norm_rms_epsilon': 1e-6, 'rope.freq_base': 1e4}
FIELDS = {
    'llama': _LLAMA | {'rope.dimension_count': 16},
    'qwen2': _LLAMA,
    # The sizes of heads are those that transformers assumes, whatever a file says.
    'qwen3': _LLAMA | {'attention.key_length': 128, 'attention.value_length': 128},
    # The sixth of seven layers is global.
    'gemma3': _LLAMA | {'block_count': 7, 'rope.freq_base': 1e6, 'attention.key_length': 256,
                        'attention.value_length': 256, 'attention.sliding_window': 9},
    'gpt2': _COMMON | {'context_length': 1024, 'attention.head_count': 4,
                       'attention.layer_norm_epsilon': 1e-5},
}


def shapes(architecture):
  """Returns the tensors of a file, shapes as numpy has them: outputs first."""
  fields = FIELDS[architecture]
  H = fields.get('attention.key_length', D // 4)
  plain = {'token_embd.weight': (V, D), 'output_norm.weight': (D,)}
  block = {'attn_norm.weight': (D,), 'ffn_norm.weight': (D,), 'ffn_up.weight': (F, D),
           'ffn_down.weight': (D, F)}
  if architecture == 'gpt2':
    plain |= {'position_embd.weight': (1024, D), 'output_norm.bias': (D,)}
    block |= {'attn_qkv.weight': (3 * D, D), 'attn_qkv.bias': (3 * D,),
              'attn_output.weight': (D, D), 'attn_output.bias': (D,), 'ffn_up.bias': (F,),
              'ffn_down.bias': (D,), 'attn_norm.bias': (D,), 'ffn_norm.bias': (D,)}
  else:
    block |= {'attn_q.weight': (4 * H, D), 'attn_k.weight': (2 * H, D),
              'attn_v.weight': (2 * H, D), 'attn_output.weight': (D, 4 * H),
              'ffn_gate.weight': (F, D)}
  if architecture == 'llama':
    plain['output.weight'] = (V, D)
  if architecture == 'qwen2':
    block |= {'attn_q.bias': (4 * H,), 'attn_k.bias': (2 * H,), 'attn_v.bias': (2 * H,)}
  if architecture in ('qwen3', 'gemma3'):
    block |= {'attn_q_norm.weight': (H,), 'attn_k_norm.weight': (H,)}
  if architecture == 'gemma3':
    block |= {'post_attention_norm.weight': (D,), 'post_ffw_norm.weight': (D,)}
  return plain | {f'blk.{i}.{name}': shape for i in range(fields['block_count'])
                  for name, shape in block.items()}


def write(path, architecture, quantised, merges=('a b',), tensors=(), split=0, **changes):
  """Writes a file with a byte-level tokenizer; matrices are `quantised`.

  `tensors` are more ones; a part has at most `split` tensors, if that is not 0.
  """
  writer = gguf.GGUFWriter(path, architecture, split_max_tensors=split)
  for name, value in (FIELDS[architecture] | changes).items():
    add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
    add(f'{architecture}.{name}', value)
  alphabet = sorted(ByteLevel.alphabet())
  tokens = [*alphabet, 'ab', *(f'<{i}>' for i in range(V - 257))]
  writer.add_tokenizer_model('gpt2')
  writer.add_tokenizer_pre('gpt-2')
  writer.add_token_list(tokens)
  writer.add_token_types([1] * 257 + [3] * (V - 257))
  writer.add_token_merges(list(merges))
  writer.add_bos_token_id(257)
  writer.add_eos_token_id(258)
  rng = np.random.default_rng(0)
  for name, shape in shapes(architecture).items():
    tensor = rng.normal('norm.weight' in name, 0.15, shape).astype(np.float32)
    kind = quantised if len(shape) > 1 and shape[-1] % 256 == 0 else gguf.GGMLQuantizationType.F32
    writer.add_tensor(name, gguf.quantize(tensor, kind), raw_dtype=kind)
  for name, tensor in dict(tensors).items():
    writer.add_tensor(name, tensor)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


def ours(path, dtype='float32'):
  return load_gguf(path, make_mesh(devices=jax.devices()[:1]), dtype)


def our_logprobs(model, ids):
  return score(model, [ScoreRequest((), tuple(ids[1:]), tuple(range(len(ids) - 1)))])[0]


@pytest.mark.parametrize(('architecture', 'quantised'), [
  *((name, 'F32') for name in FIELDS), ('llama', 'F16'), ('gemma3', 'BF16'), ('qwen3', 'Q8_0'),
  ('qwen2', 'Q4_0'), ('gpt2', 'Q4_1')])
def test_log_probabilities_are_the_same(tmp_path, architecture, quantised):
  path = write(tmp_path / 'm.gguf', architecture, gguf.GGMLQuantizationType[quantised])
  theirs = transformers.AutoModelForCausalLM.from_pretrained(
      tmp_path, gguf_file='m.gguf', dtype=torch.float32)
  ids = [257, *np.random.default_rng(1).integers(0, 256, 60).tolist()]
  np.testing.assert_allclose(our_logprobs(ours(path), ids), their_logprobs(theirs, ids), atol=1e-4)


@pytest.mark.parametrize(('changes', 'message'), [
  ({'rope.scaling.attn_factor': 4.0}, 'field llama.rope.scaling.attn_factor is not supported'),
  ({'rope.dimension_count': 8}, 'rope.dimension_count differs from the size of a head'),
  ({'block_count': 4}, 'lacks the tensor model.layers.3.'),
  ({'block_count': 2}, 'has a tensor blk.2.'),
  ({'feed_forward_length': 512}, r'has the shape \(256, 64\), but the configuration says'),
])
def test_what_does_not_fit_is_refused(tmp_path, changes, message):
  path = write(tmp_path / 'm.gguf', 'llama', gguf.GGMLQuantizationType.F32, **changes)
  with pytest.raises(UserError, match=message):
    ours(path)


def test_wavelengths_may_be_stretched(tmp_path):
  path = write(tmp_path / 'm.gguf', 'llama', gguf.GGMLQuantizationType.F32,
               **{'rope.scaling.factor': 4.0})
  assert ours(path).config.rotary_scaling_factor == 4


def test_a_file_cut_short_is_refused(tmp_path):
  path = write(tmp_path / 'm.gguf', 'llama', gguf.GGMLQuantizationType.F32)
  for size in (path.stat().st_size - 50_000, 5000, 100):
    os.truncate(path, size)
    with pytest.raises(UserError, match='m.gguf'):
      ours(path)


def test_a_broken_tokenizer_is_refused(tmp_path):
  path = write(tmp_path / 'm.gguf', 'llama', gguf.GGMLQuantizationType.F32, merges=['a c'])
  with pytest.raises(UserError, match='m.gguf has a broken tokenizer'):
    ours(path)


def test_rotary_factors_divide_the_frequencies(tmp_path):
  factors = np.array([1, 1, 1.5, 2, 4, 8, 8, 8], np.float32)
  F32 = gguf.GGMLQuantizationType.F32
  write(tmp_path / 'm.gguf', 'llama', F32)
  theirs = transformers.AutoModelForCausalLM.from_pretrained(
      tmp_path, gguf_file='m.gguf', dtype=torch.float32)
  theirs.model.rotary_emb.inv_freq /= torch.tensor(factors)
  path = write(tmp_path / 'factors.gguf', 'llama', F32, tensors={'rope_freqs.weight': factors})
  ids = [257, *np.random.default_rng(1).integers(0, 256, 60).tolist()]
  np.testing.assert_allclose(our_logprobs(ours(path), ids), their_logprobs(theirs, ids), atol=1e-4)
  path = write(tmp_path / 'wrong.gguf', 'llama', F32, tensors={'rope_freqs.weight': factors[:3]})
  with pytest.raises(UserError, match='rope_freqs.weight does not fit the model'):
    ours(path)


def test_a_split_model_is_read_whole(tmp_path):
  F32 = gguf.GGMLQuantizationType.F32
  whole = write(tmp_path / 'm.gguf', 'llama', F32)
  write(tmp_path / 's.gguf', 'llama', F32, split=10)
  parts = sorted(tmp_path.glob('s-*-of-*.gguf'))
  assert len(parts) == 3
  ids = [257, *np.random.default_rng(1).integers(0, 256, 60).tolist()]
  np.testing.assert_array_equal(our_logprobs(ours(parts[0]), ids), our_logprobs(ours(whole), ids))
  before = content_fingerprint(str(parts[0]))
  with pytest.raises(UserError, match='give the first part, s-00001-of-00003.gguf'):
    ours(parts[2])
  content = parts[2].read_bytes()
  parts[2].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
  assert content_fingerprint(str(parts[0])) != before  # all parts are the model
  parts[2].unlink()
  with pytest.raises(UserError, match='s-00003-of-00003.gguf is not in the same directory'):
    ours(parts[0])
