"""Checkpoints of every family, made by transformers, with random weights: in, the same, and out."""

import functools
import math

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import decoders, models, pre_tokenizers

from toolformer_jax.checkpoints.families.registry import read_config
from toolformer_jax.checkpoints.huggingface import save_directory
from toolformer_jax.checkpoints.pretrained import load_pretrained
from toolformer_jax.errors import UserError
from toolformer_jax.inference.config import GenerationConfig
from toolformer_jax.inference.generation import generate
from toolformer_jax.inference.scoring import ScoreRequest, score
from toolformer_jax.sharding import make_mesh

from .reference import their_logprobs

V = 263  # odd: no mesh divides it
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
END, OPENING = len(ALPHABET), len(ALPHABET) + 1
SPECIAL = ['<|endoftext|>', 'Ġ[']
_LLAMA = dict(vocab_size=V, hidden_size=48, intermediate_size=80, num_hidden_layers=3,
              num_attention_heads=6, max_position_embeddings=64, bos_token_id=END, eos_token_id=END)
_GPT = dict(vocab_size=V, n_embd=48, n_layer=3, n_head=4, n_positions=64, bos_token_id=END,
            eos_token_id=END)
_GEMMA = _LLAMA | dict(num_key_value_heads=2, head_dim=16, query_pre_attn_scalar=16,
                       num_hidden_layers=4, sliding_window=9, sliding_window_pattern=3)
FAMILIES = {
    'gpt2': (transformers.GPT2Config, _GPT),
    'gpt2-wide': (transformers.GPT2Config, _GPT | {'n_inner': 100}),
    'gptj': (transformers.GPTJConfig, _GPT | {'rotary_dim': 4}),
    'gptj-whole': (transformers.GPTJConfig, _GPT | {'rotary_dim': 12}),
    'llama': (transformers.LlamaConfig, _LLAMA | {'num_key_value_heads': 2}),
    'llama-tied': (transformers.LlamaConfig, _LLAMA | {
        'num_key_value_heads': 3, 'tie_word_embeddings': True, 'rms_norm_eps': 1e-5}),
    'llama-biased': (transformers.LlamaConfig, _LLAMA | {
        'num_key_value_heads': 6, 'attention_bias': True, 'mlp_bias': True, 'head_dim': 12}),
    'llama-linear': (transformers.LlamaConfig, _LLAMA | {
        'num_key_value_heads': 2, 'head_dim': 16, 'rope_parameters': {
            'rope_type': 'linear', 'rope_theta': 1e4, 'factor': 4.0}}),
    'llama3': (transformers.LlamaConfig, _LLAMA | {
        'num_key_value_heads': 2, 'head_dim': 16, 'rope_parameters': {
            'rope_type': 'llama3', 'rope_theta': 1e3, 'factor': 8.0, 'low_freq_factor': 1.0,
            'high_freq_factor': 4.0, 'original_max_position_embeddings': 32}}),
    'llama-yarn': (transformers.LlamaConfig, _LLAMA | {
        'num_key_value_heads': 2, 'head_dim': 16, 'rope_parameters': {
            'rope_type': 'yarn', 'rope_theta': 1e3, 'factor': 4.0,
            'original_max_position_embeddings': 16}}),
    'llama-yarn-mscale': (transformers.LlamaConfig, _LLAMA | {
        'num_key_value_heads': 2, 'head_dim': 16, 'rope_parameters': {
            'rope_type': 'yarn', 'rope_theta': 1e4, 'factor': 2.0, 'beta_fast': 16.0,
            'beta_slow': 2.0, 'mscale': 0.7, 'mscale_all_dim': 1.0,
            'original_max_position_embeddings': 32}}),
    'llama-longrope': (transformers.LlamaConfig, _LLAMA | {
        'num_key_value_heads': 2, 'head_dim': 8, 'rope_parameters': {
            'rope_type': 'longrope', 'rope_theta': 1e4, 'factor': 1.0, 'attention_factor': 1.0,
            'long_factor': [1.0, 1.5, 4.0, 8.0], 'short_factor': [1.0, 1.5, 4.0, 8.0],
            'original_max_position_embeddings': 64}}),
    'llama-yarn-length': (transformers.LlamaConfig, _LLAMA | {
        'num_key_value_heads': 2, 'head_dim': 16, 'rope_parameters': {
            'rope_type': 'yarn', 'rope_theta': 1e3, 'factor': 4.0}}),
    'mistral': (transformers.MistralConfig, _LLAMA | {
        'num_key_value_heads': 2, 'head_dim': 8, 'sliding_window': 48}),
    'mistral-short-window': (transformers.MistralConfig, _LLAMA | {
        'num_key_value_heads': 2, 'head_dim': 8, 'sliding_window': 7}),
    'qwen2': (transformers.Qwen2Config, _LLAMA | {
        'num_key_value_heads': 2, 'tie_word_embeddings': True,
        'rope_parameters': {'rope_type': 'default', 'rope_theta': 1e6}}),
    'qwen3': (transformers.Qwen3Config, _LLAMA | {'num_key_value_heads': 2, 'head_dim': 16}),
    'gemma3': (transformers.Gemma3TextConfig, _GEMMA),
    'gemma3-scale': (transformers.Gemma3TextConfig, _GEMMA | {'query_pre_attn_scalar': 21}),
    'gemma3-pattern': (transformers.Gemma3TextConfig, _GEMMA | {
        'num_hidden_layers': 3, 'tie_word_embeddings': False, 'layer_types': [
            'sliding_attention', 'full_attention', 'sliding_attention']}),
    'gemma3-linear': (transformers.Gemma3TextConfig, _GEMMA | {
        'num_key_value_heads': 6, 'rope_parameters': {
            'sliding_attention': {'rope_type': 'default', 'rope_theta': 100.0},
            'full_attention': {'rope_type': 'linear', 'rope_theta': 1e5, 'factor': 8.0}}}),
}
CASES = [(family, seed) for family in FAMILIES for seed in (0, 1)]


@functools.cache
def theirs(family, seed):
  """A random model whose every weight matters: biases and norms too."""
  kind, fields = FAMILIES[family]
  torch.manual_seed(seed)
  model = transformers.AutoModelForCausalLM.from_config(kind(**fields)).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      centre = 1.0 if parameter.dim() == 1 and parameter.mean() > 0.5 else 0.0
      parameter.copy_(centre + 0.15 * torch.randn_like(parameter))
  return model


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """Returns a function from a family and a seed to the directory that transformers wrote."""
  @functools.cache
  def save(family, seed):
    path = tmp_path_factory.mktemp(family)
    theirs(family, seed).save_pretrained(path)
    vocabulary = {token: i for i, token in enumerate([*ALPHABET, *SPECIAL])}
    made = HfTokenizer(models.BPE(vocabulary, [('Ġ', '[')]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(SPECIAL[:1])
    made.save(str(path / 'tokenizer.json'))
    return path
  return save


def ours(path, devices=1, dtype='float32'):
  return load_pretrained(str(path), mesh=make_mesh(devices=jax.devices()[:devices]), dtype=dtype)


def sequences(seed):
  rng = np.random.default_rng(seed)
  return [tuple(rng.integers(0, END, size).tolist()) for size in (1, 7, 40)]


def our_logprobs(model, texts):
  return score(model, [ScoreRequest((), ids, tuple(range(len(ids)))) for ids in texts])


@pytest.mark.parametrize(('family', 'seed'), CASES)
def test_log_probabilities_are_the_same(saved, family, seed):
  texts = sequences(seed)
  found = our_logprobs(ours(saved(family, seed)), texts)
  for ids, logprobs in zip(texts, found, strict=True):
    expected = their_logprobs(theirs(family, seed), (END, *ids))
    np.testing.assert_allclose(logprobs, expected, atol=1e-4)


@pytest.mark.parametrize('kind', [
  transformers.LlamaConfig, transformers.MistralConfig, transformers.Qwen2Config,
  transformers.Qwen3Config, transformers.Gemma3TextConfig, transformers.GPT2Config,
  transformers.GPTJConfig])
def test_what_a_file_does_not_say_is_what_transformers_assumes(kind):
  """Fields without which the file is refused are left as they are."""
  whole = kind().to_dict()
  # The pattern of layers is read with its kinds, and parameters of rotary embeddings with theta.
  together = {'layer_types': ['sliding_window_pattern', '_sliding_window_pattern']}
  complete = read_config(whole, 'c')[1]
  compared = set()
  for name in whole.keys() - {'model_type'}:
    fields = {key: value for key, value in whole.items()
              if key != name and key not in together.get(name, [])}
    try:
      assert read_config(fields, 'c')[1] == complete, name
      compared.add(name)
    except UserError as error:
      assert f'has no field {name}' in str(error)
  needed = {'layer_norm_epsilon'} if 'n_embd' in whole else {'rms_norm_eps', 'rope_parameters',
                                                           'num_key_value_heads'}
  assert compared >= needed


@pytest.mark.parametrize('family', FAMILIES)
def test_half_precision_is_near(saved, family):
  texts = sequences(0)
  exact = np.concatenate([their_logprobs(theirs(family, 0), (END, *ids)) for ids in texts])
  found = np.concatenate(our_logprobs(ours(saved(family, 0), dtype='bfloat16'), texts))
  assert np.abs(found - exact).mean() < 5e-2


@pytest.mark.parametrize('family', FAMILIES)
def test_greedy_continuations_are_the_same(saved, family):
  model, their_model = ours(saved(family, 0)), theirs(family, 0)
  prompts = sequences(3)[:2]
  made = generate(model, prompts, config=GenerationConfig(max_tokens=16, disable_tools=True))
  for prompt, continuation in zip(prompts, made, strict=True):
    expected = []
    with torch.inference_mode():
      for _ in range(16):
        logits = their_model(torch.tensor([[END, *prompt, *expected]])).logits[0, -1]
        logits[OPENING] = -math.inf  # disabled: no call may start
        expected.append(int(logits.argmax()))
        if expected[-1] == END:
          expected.pop()
          break
    assert continuation.token_ids == expected


@pytest.mark.parametrize('family', FAMILIES)
def test_what_is_exported_is_what_was_imported_bit_by_bit(saved, tmp_path, family, seed=0):
  model = ours(saved(family, seed))
  save_directory(tmp_path / 'out', model)
  before = safetensors.numpy.load_file(saved(family, seed) / 'model.safetensors')
  after = safetensors.numpy.load_file(tmp_path / 'out' / 'model.safetensors')
  assert before.keys() == after.keys()
  for name in before:
    assert np.array_equal(before[name], after[name]), name
  loaded, info = transformers.AutoModelForCausalLM.from_pretrained(
      tmp_path / 'out', output_loading_info=True)
  assert not any(info.values())
  ids = sequences(seed)[2]
  np.testing.assert_allclose(their_logprobs(loaded.eval(), (END, *ids)),
                             their_logprobs(theirs(family, seed), (END, *ids)), atol=1e-6)
  assert type(loaded) is type(theirs(family, seed))


@pytest.mark.parametrize('family', ['gpt2', 'gptj', 'qwen3'])
def test_eight_devices_hold_the_same_model(saved, family):
  texts = sequences(0)
  for one, eight in zip(our_logprobs(ours(saved(family, 0)), texts),
                        our_logprobs(ours(saved(family, 0), devices=8), texts), strict=True):
    np.testing.assert_allclose(one, eight, atol=1e-4)


def test_half_precision_files_and_shards_are_read(saved, tmp_path):
  theirs('llama', 0).to(torch.bfloat16).save_pretrained(tmp_path, max_shard_size='30KB')
  theirs.cache_clear()  # the conversion was in place
  (tmp_path / 'tokenizer.json').write_bytes((saved('llama', 0) / 'tokenizer.json').read_bytes())
  assert len(list(tmp_path.glob('*.safetensors'))) > 2
  exact = our_logprobs(ours(saved('llama', 0)), sequences(0))
  rounded = our_logprobs(ours(tmp_path), sequences(0))
  worst = max(float(np.abs(a - b).max()) for a, b in zip(exact, rounded, strict=True))
  assert 0 < worst < 0.2 and math.isfinite(worst)
