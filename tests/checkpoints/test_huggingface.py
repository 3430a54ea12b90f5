"""Hugging Face directories: what is written is read again; what is broken is named."""

import json
import os

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from toolformer_jax import sharding
from toolformer_jax.checkpoints.families.registry import family_of, read_config, write_config
from toolformer_jax.checkpoints.huggingface import load_directory, save_directory
from toolformer_jax.checkpoints.orbax import save_model
from toolformer_jax.checkpoints.pretrained import load_pretrained
from toolformer_jax.errors import UserError
from toolformer_jax.inference.scoring import ScoreRequest, score
from toolformer_jax.models.adapter_config import LoraConfig
from toolformer_jax.models.language_model import LanguageModel, abstract_variables, make_decoder
from toolformer_jax.tokenizer import Tokenizer

KINDS = {
    'llama': {}, 'llama 3': {'rotary_scaling_factor': 8.0, 'rotary_original_positions': 32},
    'linear': {'rotary_scaling_factor': 2.0}, 'qwen3': {'qk_norm': True},
    'qwen2': {'qkv_bias': True, 'tied_head': False},
    'gemma3_text': dict(qkv_bias=False, qk_norm=True, activation='gelu_tanh', sandwich_norm=True,
                        norm_offset=True, scaled_embedding=True, sliding_window=5, global_every=2),
    'gpt2': dict(positions='learned', rotary_dim=0, norm='layer', gated_mlp=False, kv_heads=4,
                 activation='gelu_tanh', qkv_bias=True, out_bias=True, mlp_bias=True),
    'gptj': dict(positions='rotary_interleaved', rotary_dim=4, norm='layer', gated_mlp=False,
                 kv_heads=4, activation='gelu_tanh', parallel_block=True, mlp_bias=True,
                 head_bias=True, tied_head=False),
}
REQUEST = [ScoreRequest((), tuple(range(40, 60)), tuple(range(20)))]


@pytest.fixture
def saved(make_model, tmp_path):
  save_directory(tmp_path / 'model', make_model())
  return tmp_path / 'model'


def mesh():
  return sharding.make_mesh(devices=jax.devices()[:1])


def change(path, **fields):
  config = json.loads((path / 'config.json').read_text())
  (path / 'config.json').write_text(json.dumps(
      {name: value for name, value in (config | fields).items() if value is not None}))


def change_tensors(path, how):
  tensors = load_file(path / 'model.safetensors')
  how(tensors)
  save_file(tensors, path / 'model.safetensors')


def split_tokenizer(path):
  parts = json.loads((path / 'tokenizer.json').read_text())['model']
  (path / 'vocab.json').write_text(json.dumps(parts['vocab']))
  lines = [' '.join(merge) for merge in parts['merges']]
  (path / 'merges.txt').write_text('\n'.join(['#version: 0.2', *lines, '']))
  (path / 'tokenizer.json').unlink()


@pytest.mark.parametrize('kind', KINDS)
def test_what_is_written_is_read_again(make_model, tmp_path, kind):
  model = make_model(**KINDS[kind])
  expected = 'llama' if kind in ('llama 3', 'linear') else kind
  assert family_of(model.config).model_type == expected
  save_directory(tmp_path / 'model', model)
  read = load_pretrained(str(tmp_path / 'model'), mesh=mesh())
  assert read.config == model.config
  assert read.tokenizer.encode('a [b]') == model.tokenizer.encode('a [b]')
  assert read.tokenizer.start_id == model.tokenizer.start_id
  jax.tree.map(np.testing.assert_array_equal, read.variables, model.variables)


def test_adapters_are_merged(make_model, tmp_path):
  base = make_model()
  config = base.config.replace(adapter=LoraConfig(rank=3, alpha=5.0))
  shapes = sharding.unbox(abstract_variables(make_decoder(base.mesh, config)))['adapter']
  rng = np.random.default_rng(0)
  lora = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), shapes)
  tuned = LanguageModel.from_variables(
      config, {**base.variables, 'adapter': lora}, base.tokenizer, base.mesh)
  save_directory(tmp_path / 'tuned', tuned)
  read = load_directory(tmp_path / 'tuned', mesh())
  assert 'adapter' not in read.variables and read.config == base.config
  merged, apart, without = (score(model, REQUEST)[0] for model in (read, tuned, base))
  np.testing.assert_allclose(merged, apart, atol=1e-5)
  assert np.abs(merged - without).max() > 1e-2


@pytest.mark.parametrize(('fields', 'message'), [
  ({'model_type': 'mamba'}, "unknown model type in .*config.json 'mamba'"),
  ({'hidden_size': None}, 'config.json has no field hidden_size'),
  ({'hidden_act': 'relu'}, "hidden_act is 'relu', which is not supported, only 'silu'"),
  ({'attn_logit_softcapping': 50.0}, 'the field attn_logit_softcapping is not supported'),
  ({'rope_scaling': {'rope_type': 'dynamic', 'factor': 4.0}}, "of the type 'dynamic' with rope_th"),
  ({'rope_scaling': {'rope_type': 'llama3', 'factor': 4.0}}, "of the type 'llama3' with"),
  ({'rope_parameters': {'rope_type': 'default', 'rope_theta': 1e4, 'partial_rotary_factor': 0.5}},
   'with rope_theta, partial_rotary_factor are not supported'),
  ({'partial_rotary_factor': 0.5}, 'partial_rotary_factor is 0.5, which is not supported'),
  ({'is_causal': False}, 'the field is_causal is not supported'),
  ({'num_local_experts': 8}, 'the field num_local_experts is not supported'),
  ({'rope_scaling': {'rope_type': 'yarn', 'factor': 4.0, 'original_max_position_embeddings': 16.0}},
   'config.json: original_max_position_embeddings must be an integer, not 16.0'),
  ({'num_attention_heads': 5}, 'not a valid configuration: heads 5 must be a multiple'),
  ({'vocab_size': 'many'}, "vocab_size must be an integer from 0 to 2147483647, not 'many'"),
  ({'vocab_size': 10**30}, 'vocab_size must be an integer from 0'),
  ({'vocab_size': 2**31 - 1}, 'embed_tokens.weight has the shape'),
  ({'num_hidden_layers': 2**31 - 1}, 'too few for the 2147483647 layers'),
  ({'model_type': [1]}, r"unknown model type in .*config.json '\[1\]'"),
  ({'rms_norm_eps': 'x'}, "rms_norm_eps must be a non-negative number, not 'x'"),
  ({'rms_norm_eps': float('nan')}, 'rms_norm_eps must be a non-negative number, not nan'),
  ({'rope_theta': 0}, 'rope_theta must be a positive number, not 0'),
  ({'rope_theta': 0.5}, 'not a valid configuration: rotary_base 0.5 must be above 1'),
  ({'rope_theta': 10**400}, 'rope_theta must be a positive number, not 1000'),
  ({'rope_scaling': [1]}, r'rope_scaling must be an object, not \[1\]'),
  ({'rope_scaling': {'rope_type': ['llama3']}}, "of the type .* are not supported"),
  ({'attention_bias': 1}, 'attention_bias must be true or false, not 1'),
  ({'bos_token_id': 'a'}, 'config.json: bos_token_id must be a token id, or null'),
  ({'eos_token_id': [258, [7]]}, 'config.json: eos_token_id must be a token id, or null'),
  ({'num_hidden_layers': 3}, r'lacks the tensor model.layers.2.input_layernorm.weight'),
  ({'num_hidden_layers': 1}, 'has a tensor model.layers.1.* that does not belong'),
  ({'intermediate_size': 65}, r'gate_proj.weight has the shape \(64, 32\), but the configuration'),
  ({'tie_word_embeddings': False}, 'lacks the tensor lm_head.weight'),
])
def test_a_configuration_that_does_not_fit_is_refused(saved, fields, message):
  change(saved, **fields)
  with pytest.raises(UserError, match=message):
    load_directory(saved, mesh())


def test_a_large_base_may_be_a_whole_number(saved):
  change(saved, rope_theta=2**31)
  assert load_directory(saved, mesh()).config.rotary_base == 2.0**31


def test_a_configuration_that_is_nested_too_deeply_is_refused(saved):
  (saved / 'config.json').write_text('{"architectures": ' + '[' * 100_000 + ']' * 100_000 + '}')
  with pytest.raises(UserError, match='cannot read .*config.json'):
    load_directory(saved, mesh())


@pytest.mark.parametrize(('how', 'message'), [
  (lambda t: t.pop('model.norm.weight'), 'lacks the tensor model.norm.weight'),
  (lambda t: t.update(extra=np.zeros(3)), 'has a tensor extra that does not belong'),
  (lambda t: t.update({'model.norm.weight': np.zeros(31, np.float32)}),
   r'model.norm.weight has the shape \(31,\), but the configuration says \(32,\)'),
  (lambda t: t.update({'model.norm.weight': np.zeros(32, np.int8)}),
   'model.norm.weight has the dtype I8; supported are float32, float16, bfloat16'),
])
def test_tensors_that_do_not_fit_are_refused(saved, how, message):
  change_tensors(saved, how)
  with pytest.raises(UserError, match=message):
    load_directory(saved, mesh())


def test_buffers_and_a_second_copy_of_a_tied_head_are_passed_over(saved):
  whole = load_directory(saved, mesh())
  def add(tensors):
    tensors['model.layers.0.self_attn.rotary_emb.inv_freq'] = np.zeros(4, np.float32)
    tensors['lm_head.weight'] = tensors['model.embed_tokens.weight'].copy()
  change_tensors(saved, add)
  jax.tree.map(np.testing.assert_array_equal, load_directory(saved, mesh()).variables,
               whole.variables)


@pytest.mark.parametrize('size', [0, 5, 2000, -10])
def test_a_truncated_file_is_refused(saved, size):
  os.truncate(saved / 'model.safetensors', size % (saved / 'model.safetensors').stat().st_size)
  with pytest.raises(UserError, match='model.safetensors is not a complete safetensors file'):
    load_directory(saved, mesh())


@pytest.mark.parametrize(('index', 'message'), [
  ({}, 'has no valid weight_map'), ({'weight_map': ['a']}, 'has no valid weight_map'),
  ({'weight_map': {'a': 3}}, 'has no valid weight_map'),
  ({'weight_map': {'a': 'part.safetensors'}}, 'lists part.safetensors, which is missing'),
])
def test_a_broken_index_is_refused(saved, index, message):
  (saved / 'model.safetensors').unlink()
  (saved / 'model.safetensors.index.json').write_text(json.dumps(index))
  with pytest.raises(UserError, match=message):
    load_directory(saved, mesh())


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(saved):
  tokenizer = json.loads((saved / 'tokenizer.json').read_text())
  vocab = tokenizer['model']['vocab']
  tokenizer['model']['vocab'] = {**vocab, 'one more': 300}
  (saved / 'tokenizer.json').write_text(json.dumps(tokenizer))
  with pytest.raises(UserError, match='has ids up to 300, but the model has only 259 embeddings'):
    load_directory(saved, mesh())


def test_an_index_can_not_name_files_elsewhere(saved):
  (saved / 'model.safetensors').rename(saved.parent / 'model.safetensors')
  (saved / 'model.safetensors.index.json').write_text(
      json.dumps({'weight_map': {'model.norm.weight': '../model.safetensors'}}))
  with pytest.raises(UserError, match=r"lists a file in another directory: '../model.safetensors'"):
    load_directory(saved, mesh())


@pytest.mark.parametrize('name', ['config.json', 'tokenizer.json'])
def test_broken_and_missing_files_are_named(saved, name):
  (saved / name).write_text('{"half')
  with pytest.raises(UserError, match=name):
    load_directory(saved, mesh())
  (saved / name).unlink()
  with pytest.raises(UserError, match='has no tokenizer|config.json|no usable tokenizer'):
    load_pretrained(str(saved), mesh=mesh())


def test_a_model_may_have_several_ends(saved, tmp_path):
  change(saved, eos_token_id=[258, 7, 9])
  read = load_directory(saved, mesh())
  assert read.tokenizer.eos_id == 258 and read.tokenizer.end_ids >= {258, 7, 9}
  save_directory(tmp_path / 'again', read)
  assert load_directory(tmp_path / 'again', mesh()).tokenizer.end_ids == read.tokenizer.end_ids
  read.tokenizer.save(tmp_path)
  assert Tokenizer.load(tmp_path).end_ids == read.tokenizer.end_ids


def test_a_tokenizer_without_bytes_is_refused(saved):
  tokenizer = json.loads((saved / 'tokenizer.json').read_text())
  tokenizer['decoder'] = {'type': 'Fuse'}
  (saved / 'tokenizer.json').write_text(json.dumps(tokenizer))
  with pytest.raises(UserError, match='has no tokens of bytes'):
    load_directory(saved, mesh())


def test_a_tokenizer_that_begins_texts_with_a_space_is_refused(saved):
  tokenizer = json.loads((saved / 'tokenizer.json').read_text())
  tokenizer['pre_tokenizer'] = {'type': 'ByteLevel', 'add_prefix_space': True, 'trim_offsets': True}
  (saved / 'tokenizer.json').write_text(json.dumps(tokenizer))
  with pytest.raises(UserError, match='adds a space to every text'):
    load_directory(saved, mesh())


@pytest.mark.parametrize('broken', [
  '', '[]', '{"model": {}}', {'normalizer': {'type': 'Precompiled', 'precompiled_charsmap': ''}},
  {'added_tokens': 3}, {'model': {'type': 'BPE', 'vocab': {'a': -1}, 'merges': []}}])
def test_a_broken_tokenizer_is_one_line_of_error(saved, broken, capfd):
  whole = json.loads((saved / 'tokenizer.json').read_text())
  text = broken if isinstance(broken, str) else json.dumps(whole | broken)
  (saved / 'tokenizer.json').write_text(text)
  with pytest.raises(UserError, match='no usable tokenizer in .*tokenizer.json') as failure:
    load_directory(saved, mesh())
  assert '\n' not in str(failure.value)
  assert capfd.readouterr().err == ''  # where Rust writes the message of a panic


@pytest.mark.parametrize('setting', [
  {'truncation': {'max_length': 4, 'stride': 0, 'strategy': 'LongestFirst', 'direction': 'Right'}},
  {'padding': {'strategy': {'Fixed': 40}, 'direction': 'Right', 'pad_to_multiple_of': None,
               'pad_id': 1, 'pad_type_id': 0, 'pad_token': 'x'}},
  {'model': {'dropout': 0.9}}])
def test_truncation_padding_and_dropout_of_a_tokenizer_are_switched_off(saved, setting):
  ids = load_directory(saved, mesh()).tokenizer.encode('a longer text -> [')
  whole = json.loads((saved / 'tokenizer.json').read_text())
  changed = whole | setting | {'model': whole['model'] | setting.get('model', {})}
  (saved / 'tokenizer.json').write_text(json.dumps(changed))
  read = load_directory(saved, mesh()).tokenizer
  assert read.encode('a longer text -> [') == ids
  read.save(saved)
  assert Tokenizer.load(saved).encode('a longer text -> [') == ids


def test_a_head_that_is_not_tied_although_the_configuration_says_so_is_refused(saved):
  change_tensors(saved, lambda t: t.update({
      'lm_head.weight': t['model.embed_tokens.weight'] + 1}))
  with pytest.raises(UserError, match='lm_head.weight differs from the embeddings'):
    load_directory(saved, mesh())


@pytest.mark.parametrize('fields', [
  {'use_mrope': False}, {'quantization_config': None}, {'n_special': 0, 'output_past': True},
  {'unsloth_fixed': True, 'unsloth_version': '2025.3.19'}, {'pruned_heads': {}, 'num_labels': 2},
  {'attn_implementation': 'sdpa'}, {'_attn_implementation_internal': 'eager'},
  {'use_flash_attention_2': True}, {'layerdrop': 0.0}, {'activation_dropout': 0.1},
  {'attention_probs_dropout_prob': 0.1}, {'mask_token_id': 5}, {'hidden_act': 'swish'},
  {'partial_rotary_factor': 1.0}, {'num_local_experts': 0}, {'sliding_window': 0},
  {'is_causal': True}, {'rope_scaling': {'rope_type': 'default', 'finetuned': True}},
  {'rope_parameters': {'rope_type': 'default', 'rope_theta': 1e4, 'partial_rotary_factor': 1.0}}])
def test_fields_that_do_not_change_the_logits_are_passed_over(make_model, fields):
  config = make_model().config
  written = write_config(config)
  assert read_config({**written, **fields}, 'c')[1] == config


@pytest.mark.parametrize('kind', ['yarn', 'llama3'])
def test_the_pretraining_length_is_the_longest_one_unless_the_file_says_another(make_model, kind):
  fields = write_config(make_model(max_positions=77).config)
  scaling = {'rope_type': kind, 'factor': 4.0}
  if kind == 'llama3':
    scaling |= {'low_freq_factor': 1.0, 'high_freq_factor': 4.0}
  def read(**more):
    return read_config(fields | {'rope_scaling': scaling | more}, 'c')[1]
  assert read().rotary_original_positions == 77
  assert read(original_max_position_embeddings=16).rotary_original_positions == 16


def test_old_and_new_spellings_of_a_configuration_mean_the_same(make_model):
  fields = write_config(make_model(rotary_base=5e5).config)
  theta = fields.pop('rope_theta')
  spellings = [{'rope_theta': theta, 'torch_dtype': 'bfloat16'}, {'rope_theta': theta,
               'rope_scaling': None}, {'dtype': 'float16', 'rope_parameters': {
                   'rope_type': 'default', 'rope_theta': theta}}]
  assert len({read_config(fields | spelling, 'c')[1] for spelling in spellings}) == 1
  assert read_config(fields | spellings[0], 'c')[1].rotary_base == 5e5


def test_the_gpt2_tokenizer_of_two_files_is_that_of_one(saved):
  single = load_directory(saved, mesh()).tokenizer
  split_tokenizer(saved)
  double = load_directory(saved, mesh()).tokenizer
  text = 'A [b] -> ü\n'
  assert double.encode(text) == single.encode(text) and double.decode(double.encode(text)) == text



@pytest.mark.parametrize('two_files', [True, False])
@pytest.mark.parametrize(('ends', 'expected'), [
  (7, {258, 7}), ([9, 258, 7], {258, 7, 9}), (None, {258}), ([], {258})])
def test_further_ends_are_those_of_the_generation_config(saved, ends, expected, two_files):
  """transformers' generate reads them there."""
  if two_files:
    split_tokenizer(saved)
  (saved / 'generation_config.json').write_text(json.dumps({'eos_token_id': ends}))
  read = load_directory(saved, mesh()).tokenizer
  assert read.eos_id == 258 and read.end_ids == expected


def test_without_an_end_in_the_configuration_that_of_generation_ends_texts(saved):
  change(saved, eos_token_id=None)
  (saved / 'generation_config.json').write_text('{"eos_token_id": [7, 9]}')
  assert load_directory(saved, mesh()).tokenizer.eos_id == 7


@pytest.mark.parametrize('content', ['{"eos_token_id": "a"}', '{"eos_token_id": [-1]}', '[]', '{'])
def test_a_broken_generation_config_is_refused(saved, content):
  (saved / 'generation_config.json').write_text(content)
  with pytest.raises(UserError, match='generation_config.json'):
    load_directory(saved, mesh())


@pytest.mark.parametrize(('file', 'content', 'message'), [
  ('chat_template.jinja', b'\xff\xfe', 'chat_template.jinja is not UTF-8'),
  ('tokenizer_config.json', b'{"chat_template": ["a"]}', 'chat_template must be a string'),
  ('tokenizer_config.json', b'{"chat_template": 5}', 'chat_template must be a string'),
  ('tokenizer_config.json', b'{"chat_template": [{"name": "default"}]}', 'must be a string'),
])
def test_a_broken_chat_template_is_one_line_of_error(saved, file, content, message):
  (saved / file).write_bytes(content)
  with pytest.raises(UserError, match=message) as failure:
    load_directory(saved, mesh())
  assert '\n' not in str(failure.value)


def test_of_several_chat_templates_the_default_is_read(saved):
  (saved / 'tokenizer_config.json').write_text(json.dumps({'chat_template': [
      {'name': 'tool_use', 'template': 'a'}, {'name': 'default', 'template': 'b'}]}))
  assert load_directory(saved, mesh()).tokenizer.chat_template == 'b'


@pytest.mark.parametrize('number', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('name', ['model.norm.weight', 'model.layers.1.mlp.down_proj.weight'])
def test_weights_that_are_not_finite_are_refused_by_name(saved, name, number):
  def damage(tensors):
    tensors[name].flat[3] = number
  change_tensors(saved, damage)
  with pytest.raises(UserError, match=f'the tensor {name} has numbers that are not finite'):
    load_directory(saved, mesh())


@pytest.mark.parametrize('number', [np.nan, np.inf])
def test_a_model_of_ours_that_is_not_finite_is_refused_by_name(make_model, tmp_path, number):
  model = make_model()
  params = model.variables['params']
  params = {**params, 'embedding': params['embedding'].at[1, 1].set(number)}
  save_model(tmp_path / 'model', LanguageModel(
      model.decoder, {**model.variables, 'params': params}, model.tokenizer, model.mesh))
  with pytest.raises(UserError, match='params/embedding.* has numbers that are not finite'):
    load_pretrained(str(tmp_path / 'model'), mesh=mesh())
