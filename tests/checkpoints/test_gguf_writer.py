"""GGUF files that we write are read again, bit by bit; what cannot be written is named."""

import math

import gguf
import jax
import numpy as np
import pytest
from tokenizers.pre_tokenizers import ByteLevel

import toolformer_jax as tf_jax
from toolformer_jax.checkpoints.gguf import load_gguf
from toolformer_jax.checkpoints.gguf_writer import QUANTIZATIONS, save_gguf
from toolformer_jax.checkpoints.huggingface import load_directory
from toolformer_jax.errors import UserError
from toolformer_jax.inference.scoring import ScoreRequest, score
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.paths import as_path
from toolformer_jax.sharding import make_mesh
from toolformer_jax.tokenizer import Tokenizer

GPT2 = dict(positions='learned', rotary_dim=0, norm='layer', gated_mlp=False, kv_heads=4,
            activation='gelu_tanh', qkv_bias=True, out_bias=True, mlp_bias=True)
KINDS = {
    'llama': {}, 'llama 3': {'rotary_scaling_factor': 8.0, 'rotary_original_positions': 32},
    'linear': {'rotary_scaling_factor': 2.0}, 'untied': {'tied_head': False},
    'biases': {'qkv_bias': True, 'out_bias': True, 'mlp_bias': True},
    'yarn': {'rotary_scaling_factor': 4.0, 'rotary_original_positions': 32,
             'rotary_beta_fast': 32.0, 'rotary_beta_slow': 1.0,
             'rotary_attention_factor': 0.1 * math.log(4.0) + 1},
    'qwen2': {'qkv_bias': True}, 'qwen3': {'qk_norm': True}, 'gpt2': GPT2}
TYPES = {'q4_0': 'Q4_0', 'q4_1': 'Q4_1', 'q8_0': 'Q8_0', 'f16': 'F16', 'bf16': 'BF16'}
REQUEST = [ScoreRequest((), tuple(range(40, 60)), tuple(range(20)))]
TEXT = "It's 1,234.5 'quoted' — naïve  \n\n\t über 日本語 123456 [Calculator(1) ->don't DON'T x=//z"


def mesh():
  return make_mesh(devices=jax.devices()[:1])


def read_again(model, folder, quantization='f16'):
  save_gguf(as_path(folder), model, quantization)
  return load_gguf(folder / 'model.gguf', mesh())


def matrices(model):
  """Yields our matrices as [outputs, inputs], which is how a row of blocks lies in the file."""
  c, params = model.config, model.variables['params']
  yield 'embedding', np.asarray(params['embedding'])
  for layer in range(c.layers):
    for group, name, inputs in (('attention', 'query', 1), ('attention', 'out', 2),
                                ('mlp', 'up', 1), ('mlp', 'down', 1)):
      kernel = np.asarray(params['blocks'][group][name]['kernel'][layer])
      yield name, kernel.reshape(np.prod(kernel.shape[:inputs]), -1).T


@pytest.mark.parametrize('quantization', QUANTIZATIONS)
def test_weights_are_those_that_were_quantized(make_model, tmp_path, quantization):
  model = make_model()
  found = read_again(model, tmp_path, quantization)
  for (name, before), (_, after) in zip(matrices(model), matrices(found), strict=True):
    kind = gguf.GGMLQuantizationType[TYPES[quantization]]
    if name == 'embedding' and quantization in ('q4_0', 'q4_1'):
      kind = gguf.GGMLQuantizationType.Q8_0
    expected = gguf.dequantize(gguf.quantize(np.ascontiguousarray(before), kind), kind)
    np.testing.assert_array_equal(after, expected, name)
    assert (after != before).any()
  for name in ('attention_norm', 'mlp_norm'):  # norms stay in float32
    np.testing.assert_array_equal(found.variables['params']['blocks'][name]['scale'],
                                  model.variables['params']['blocks'][name]['scale'])


@pytest.mark.parametrize('kind', KINDS)
def test_a_model_of_half_precision_is_the_same(make_model, tmp_path, kind):
  model = make_model(**KINDS[kind])
  halves = jax.tree.map(lambda x: x.astype(np.float16).astype(np.float32), model.variables)
  model = LanguageModel.from_variables(model.config, halves, model.tokenizer, mesh())
  found = read_again(model, tmp_path)
  jax.tree.map(np.testing.assert_array_equal, found.variables, model.variables)
  if kind == 'llama 3':  # its rule is in the file as a factor for each pair
    np.testing.assert_allclose(score(found, REQUEST), score(model, REQUEST), atol=1e-5)
  else:
    assert found.config == model.config.replace(norm_eps=found.config.norm_eps)
    assert found.config.norm_eps == np.float32(model.config.norm_eps)


def test_rows_that_are_no_whole_blocks_are_half_precision(make_model, tmp_path):
  model = make_model(mlp_dim=48)
  save_gguf(as_path(tmp_path), model, 'q8_0')
  types = {tensor.name: tensor.tensor_type.name
           for tensor in gguf.GGUFReader(tmp_path / 'model.gguf').tensors}
  assert types['blk.0.ffn_down.weight'] == 'F16' and types['blk.0.ffn_up.weight'] == 'Q8_0'
  assert types['blk.0.attn_norm.weight'] == 'F32'


LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
PRE_TOKENIZERS = {
    'gpt-2': {}, 'smollm': {'split_digits': True},
    'llama-bpe': {'pattern': LLAMA3, 'ignore_merges': True}, 'smaug-bpe': {'pattern': LLAMA3},
    'qwen2': {'pattern': LLAMA3.replace('{1,3}', ''), 'nfc': True}}


def merging_tokenizer(vocab_size=0, **options):
  """A tokenizer whose merges cross digits, spaces and signs where pre-tokens allow."""
  alphabet = sorted(ByteLevel.alphabet())
  pairs = [('1', '2'), ('3', '4'), ('Ġ', 'Ġ'), ("'", 's'), ('-', '>'), ('/', '/'), ('Ċ', 'Ċ'),
           ('Ġ', '['), (',', '2')]
  tokens = [*alphabet, *map(''.join, pairs), 'Ġadded', '<|end|>', '<|begin|>']
  return Tokenizer.byte_level_bpe(
      tokens, pairs, ['<|end|>', '<|begin|>'], added=['Ġadded'], eos_id=len(tokens) - 2,
      bos_id=len(tokens) - 1, vocab_size=vocab_size, **{'split_digits': False, **options})


@pytest.mark.parametrize('name', PRE_TOKENIZERS)
def test_tokenizers_are_read_again(make_model, tmp_path, name):
  tokenizer = merging_tokenizer(vocab_size=300, **PRE_TOKENIZERS[name])
  tokenizer.chat_template = '{{ messages }}'
  made = make_model(vocab_size=300)
  found = read_again(
      LanguageModel.from_variables(made.config, made.variables, tokenizer, mesh()),
      tmp_path).tokenizer
  assert gguf.GGUFReader(tmp_path / 'model.gguf').fields['tokenizer.ggml.pre'].contents() == name
  assert found.fingerprint == tokenizer.fingerprint and found.encode(TEXT) == tokenizer.encode(TEXT)
  assert found.token_bytes == tokenizer.token_bytes  # ids without a token decode to nothing
  assert found.chat_template == tokenizer.chat_template


def test_adapters_are_merged(make_model, tmp_path):
  tuned = make_model(adapter=tf_jax.LoraConfig(rank=2))
  merged = load_directory(tf_jax.export(tuned, output_dir=tmp_path / 'merged'), mesh())
  jax.tree.map(np.testing.assert_array_equal, read_again(merged, tmp_path / 'a').variables,
               read_again(tuned, tmp_path / 'b').variables)


@pytest.mark.parametrize(('changes', 'message'), [
  (dict(positions='rotary_interleaved', parallel_block=True, kv_heads=4, norm='layer',
        gated_mlp=False, activation='gelu_tanh', mlp_bias=True, head_bias=True, tied_head=False),
   'a gptj model with these settings cannot be written as GGUF'),
  (dict(sliding_window=5, global_every=3), 'a mistral model with these settings'),
  (dict(qk_norm=True, qkv_bias=True), 'a qwen3 model with these settings'),
  (KINDS['yarn'] | {'rotary_beta_fast': 16.0}, 'YaRN with settings other than its defaults')])
def test_what_llama_cpp_does_not_have_is_refused(make_model, tmp_path, changes, message):
  with pytest.raises(UserError, match=message):
    save_gguf(as_path(tmp_path / 'out'), make_model(**changes))
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('options', [
  {'pattern': r'\w+|\W+'}, {'pattern': LLAMA3, 'split_digits': True}, {'nfc': True}])
def test_a_tokenizer_without_a_name_is_refused(make_model, tmp_path, options):
  tokenizer = merging_tokenizer(vocab_size=300, **options)
  made = make_model(vocab_size=300)
  with pytest.raises(UserError, match='splits texts in a way that has no name in llama.cpp'):
    save_gguf(as_path(tmp_path), LanguageModel.from_variables(
        made.config, made.variables, tokenizer, mesh()))


@pytest.mark.parametrize(('options', 'message'), [
  (dict(format='onnx'), "unknown format 'onnx'"),
  (dict(format='gguf', quantization='q8'), "unknown quantization 'q8': did you mean q8_0"),
  (dict(quantization='f16'), 'the quantization f16 needs the format gguf'),
  (dict(format='gguf', adapter_of='base'), 'adapters alone cannot be written as GGUF')])
def test_wrong_options_are_refused_before_the_model_is_loaded(tmp_path, options, message):
  with pytest.raises(UserError, match=message):
    tf_jax.export('nowhere', output_dir=tmp_path / 'out', **options)


def test_a_full_disk_is_an_error_for_people(make_model, tmp_path, monkeypatch):
  def fail(*_):
    raise OSError(28, 'No space left on device')
  monkeypatch.setattr(gguf.GGUFWriter, 'write_tensor_data', fail)
  with pytest.raises(UserError, match='No space left'):
    save_gguf(as_path(tmp_path), make_model())
  assert not (tmp_path / 'model.gguf').exists()
