"""An exported model goes on in transformers as it does here, from text to text."""

import json
import os
import stat

import jax
import pytest
import transformers
from tokenizers.pre_tokenizers import ByteLevel

import toolformer_jax as tf_jax
from toolformer_jax.checkpoints.huggingface import save_directory
from toolformer_jax.checkpoints.pretrained import load_pretrained
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.sharding import make_mesh
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.training.config import FinetuneConfig

PROMPTS = ['Mia picked 24 apples and gave 9 of them to her brother. How many are left? The answer '
           'is', 'A box holds 12 eggs. How many eggs are in 7 boxes?\nAnswer:',
           'Tom runs 3 miles a day for 5 days. He runs [Calculator(3 * 5) ->',
           'Half of the 86 pupils walk to school, which are']
TOKENS = 48
END, BEGIN = '<|endoftext|>', '<bos>'
GPT2 = dict(norm='layer', gated_mlp=False, kv_heads=4, activation='gelu_tanh', mlp_bias=True,
            positions='learned', rotary_dim=0, qkv_bias=True, out_bias=True)
GEMMA = dict(qk_norm=True, activation='gelu_tanh', sandwich_norm=True, norm_offset=True,
             scaled_embedding=True, sliding_window=5, global_every=2)


def byte_tokenizer(bos):
  tokens = [*sorted(ByteLevel.alphabet()), 'Ġ[', '->', END, BEGIN]
  return Tokenizer.byte_level_bpe(
      tokens, [('Ġ', '['), ('-', '>')], [END, BEGIN], split_digits=True, eos_id=tokens.index(END),
      bos_id=tokens.index(BEGIN) if bos else None)


def assert_same_texts(model, path):
  """Compares greedy continuations with those of a pipeline of the folder `path`."""
  pipeline = transformers.pipeline('text-generation', model=str(path), device='cpu')
  theirs = pipeline(PROMPTS, max_new_tokens=TOKENS, return_full_text=False)
  ours = tf_jax.generate(model, PROMPTS, config=tf_jax.GenerationConfig(max_tokens=TOKENS))
  assert [text.text for text in ours] == [one['generated_text'] for (one,) in theirs]
  assert any(text.text for text in ours)


@pytest.mark.parametrize(('shape', 'bos'), [(GPT2, False), ({}, True), ({}, False), (GEMMA, True)],
                         ids=['gpt2', 'llama', 'llama without bos', 'gemma'])
def test_random_models_write_the_same_in_transformers(make_model, tmp_path, shape, bos):
  tokenizer = byte_tokenizer(bos)
  made = make_model(vocab_size=tokenizer.vocab_size, max_positions=256, **shape)
  model = LanguageModel.from_variables(made.config, made.variables, tokenizer, made.mesh)
  save_directory(tmp_path / 'out', model)
  ids = transformers.AutoTokenizer.from_pretrained(tmp_path / 'out').encode('a')
  assert ids == [tokenizer.start_id, *tokenizer.encode('a')]
  assert_same_texts(model, tmp_path / 'out')


def test_the_real_model_writes_the_same_in_transformers(smollm2_path, tmp_path):
  model = load_pretrained(str(smollm2_path), mesh=make_mesh(devices=jax.devices()[:1]))
  save_directory(tmp_path / 'out', model)
  assert_same_texts(model, tmp_path / 'out')


def test_a_folder_has_what_transformers_and_people_look_for(make_model, tmp_path):
  model = make_model(max_positions=256)
  settings = FinetuneConfig(steps=2, batch_rows=1, row_tokens=16)
  texts = [tf_jax.Document(f'd{i}', f'{i} and {i} are {2 * i}.') for i in range(3)]
  tf_jax.finetune(model, texts, output_dir=tmp_path / 'run', config=settings)
  before = os.umask(0o022)
  try:
    out = tf_jax.export(tmp_path / 'run', output_dir=tmp_path / 'out')
  finally:
    os.umask(before)
  modes = {path.name: stat.S_IMODE(os.stat(path).st_mode) for path in out.iterdir()}
  assert modes == dict.fromkeys(
      ('README.md', 'config.json', 'generation_config.json', 'model.safetensors',
       'special_tokens_map.json', 'tokenizer.json', 'tokenizer_config.json'), 0o644)
  generation = transformers.GenerationConfig.from_pretrained(out)
  end = model.tokenizer.eos_id
  assert (generation.bos_token_id, generation.eos_token_id, generation.pad_token_id,
          generation.do_sample) == (model.tokenizer.start_id, end, end, False)
  assert json.loads((out / 'special_tokens_map.json').read_text()) == dict.fromkeys(
      ('bos_token', 'eos_token', 'pad_token'), END)
  card = (out / 'README.md').read_text()
  for part in ('library_name: transformers', 'schick2023toolformer', 'Trained 2 steps: ',
               '| row_tokens | 16 |', '### Departures from the paper', "pipeline('text-generation'",
               'begins every text with `<|endoftext|>`'):
    assert part in card
