"""A model trained from nothing here is the one that PyTorch trains, and transformers reads it."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import transformers

import toolformer_jax as tf_jax
from toolformer_jax.training.pretraining import pretrain

from .reference import their_logprobs

REPOSITORY = pathlib.Path(__file__).parents[2]
TEXTS = [f'The number after {i} is {i + 1}, and the one before it is {i - 1}.' for i in range(20)]


@pytest.mark.parametrize('preset', ['smollm2_135m', 'gpt2_124m'])
def test_the_exported_checkpoint_has_the_same_logprobs(tmp_path, preset):
  shape = tf_jax.PretrainConfig(preset=preset, layers=2, embed_dim=32, heads=4, kv_heads=4,
                                head_dim=8, mlp_dim=64, max_positions=64, vocab_size=300)
  pretrain([tf_jax.Document(str(i), text) for i, text in enumerate(TEXTS)],
           output_dir=tmp_path / 'run', shape=shape, config=tf_jax.FinetuneConfig(
               steps=4, batch_rows=4, row_tokens=32, learning_rate=1e-2))
  tf_jax.export(str(tmp_path / 'run'), output_dir=tmp_path / 'exported')
  theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'exported').eval()
  tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / 'exported')
  scored, = tf_jax.score(str(tmp_path / 'run'), TEXTS[7])
  ids = tokenizer.encode(TEXTS[7], add_special_tokens=False)
  assert ids == scored['token_ids']
  np.testing.assert_allclose(scored['logprobs'][1:], their_logprobs(theirs, ids), rtol=1e-5,
                             atol=1e-5)


def test_pytorch_trains_to_the_same_loss(tmp_path):
  (tmp_path / 'wikitext2').mkdir()
  (tmp_path / 'wikitext2' / 'valid.txt').write_text(''.join(
      f'\n = {i} = \n \n {text} \n' for i, text in enumerate(TEXTS[:4])))
  (tmp_path / 'texts.jsonl').write_text(''.join(
      json.dumps({'text': text}) + '\n' for text in TEXTS))
  subprocess.run(
      [sys.executable, 'experiments/pretraining_parity.py', '--data_dir', tmp_path, '--output_dir',
       tmp_path / 'run', '--corpus', tmp_path / 'texts.jsonl', '--steps', '8', '--batch_rows', '4',
       '--row_tokens', '64', '--layers', '2', '--vocab_size', '300'], cwd=REPOSITORY, check=True)
  result = json.loads((tmp_path / 'run' / 'result.json').read_text())
  assert result['ours']['dev_loss'] < np.log(300)
  assert result['loss_ratio'] == pytest.approx(1, abs=1e-5)
  assert result['ours']['loss_of_last_step'] == pytest.approx(
      result['theirs']['loss_of_last_step'], rel=1e-5)
