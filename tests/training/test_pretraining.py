"""A model from nothing: every token is a target, runs resume to the bit, all commands take it."""

import dataclasses
import json
import logging

import jax
import numpy as np
import pytest

import toolformer_jax as tf_jax
from toolformer_jax import cli, sharding
from toolformer_jax.calls import CallSyntax
from toolformer_jax.errors import UserError
from toolformer_jax.models.adapter_config import LoraConfig
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.training import trainer
from toolformer_jax.training.config import FinetuneConfig, MixtureConfig
from toolformer_jax.training.mixture import hold_out
from toolformer_jax.training.pretrain_config import PretrainConfig
from toolformer_jax.training.pretraining import new_model, pretrain
from toolformer_jax.training.sources import as_texts
from toolformer_jax.training.tokenizer_training import train_tokenizer

SHAPE = PretrainConfig(layers=2, embed_dim=32, heads=4, kv_heads=2, head_dim=8, mlp_dim=64,
                       max_positions=64, vocab_size=300)
TRAINING = FinetuneConfig(steps=6, batch_rows=4, row_tokens=32, learning_rate=1e-2, save_every=2)
TEXTS = [f'The number after {i} is the number {i + 1}. All of it is true.' for i in range(20)]
DEV = [f'The number after {i} is the number {i + 1}.' for i in (30, 40)]


def documents(texts):
  return [tf_jax.Document(str(i), text) for i, text in enumerate(texts)]


def run(folder, **options):
  return pretrain(documents(TEXTS), output_dir=folder, **{
      'shape': SHAPE, 'config': TRAINING, 'dev': documents(DEV), **options})


def equal(one, other):
  return all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))


def test_the_held_out_loss_is_that_of_all_tokens(tmp_path, caplog):
  with caplog.at_level(logging.INFO, 'toolformer_jax'):
    result = run(tmp_path / 'run')
  assert any(one.startswith('pretraining: 6 of 6 steps') for one in caplog.messages)
  model, losses = result.model, []
  for text in DEV:
    ids = [model.tokenizer.start_id, *model.tokenizer.encode(text), model.tokenizer.eos_id]
    logits = np.asarray(model.decoder.apply(model.variables, np.array([ids]))[0][0], np.float64)
    for target, row in zip(ids[1:], logits[:-1], strict=True):
      losses.append(np.log(np.exp(row - row.max()).sum()) + row.max() - row[target])
  measured = [step['dev_loss'] for step in result.metrics if 'dev_loss' in step]
  assert len(measured) == 3 and min(measured) == pytest.approx(np.mean(losses), rel=1e-5)
  assert measured[-1] < measured[0] < np.log(model.config.vocab_size) + 1
  report = (tmp_path / 'run' / 'report.md').read_text()
  assert report.startswith('# Pretraining') and 'paper' not in report


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, monkeypatch):
  whole = run(tmp_path / 'whole')
  batch_picks = trainer.batch_picks
  def dying(*arguments):
    for done, batch in enumerate(batch_picks(*arguments)):
      if done == 3:
        raise KeyboardInterrupt
      yield batch
  with monkeypatch.context() as patch:
    patch.setattr(trainer, 'batch_picks', dying)
    with pytest.raises(KeyboardInterrupt):
      run(tmp_path / 'killed')
  resumed = run(tmp_path / 'killed')
  assert equal(resumed.model.variables, whole.model.variables)
  assert [step['loss'] for step in resumed.metrics] == [step['loss'] for step in whole.metrics]
  with pytest.raises(UserError, match='pretrain'):
    run(tmp_path / 'killed', shape=dataclasses.replace(SHAPE, seed=1))


def test_other_commands_take_the_checkpoint(tmp_path, capsys):
  (tmp_path / 'texts.jsonl').write_text(''.join(json.dumps({'text': text}) + '\n'
                                                for text in TEXTS))
  sizes = [f'--gin.PretrainConfig.{name}={getattr(SHAPE, name)}'
           for name in ('layers', 'embed_dim', 'heads', 'kv_heads', 'head_dim', 'mlp_dim',
                        'max_positions', 'vocab_size')]
  settings = ['--gin.FinetuneConfig.steps=2', '--gin.FinetuneConfig.row_tokens=32']
  corpus, first, second = (str(tmp_path / name) for name in ('texts.jsonl', 'first', 'second'))
  with open(corpus, 'a', encoding='utf-8') as file:
    file.write('{"url": "https://example.org"}\n')
  assert cli.main(['pretrain', '--corpus', corpus, '--output_dir', first]) == 2
  assert 'needs the field `text`' in capsys.readouterr().err
  settings += ['--gin.CorpusConfig.skip_without_text=True']
  assert cli.main(['pretrain', '--corpus', corpus, '--output_dir', first, *sizes, *settings]) == 0
  assert cli.main(['finetune', '--data', corpus, '--checkpoint', first, '--output_dir', second,
                   *settings, '--gin.FinetuneConfig.batch_rows=2']) == 0
  model = tf_jax.load_model(second)
  assert model.config.layers == 2 and model.config.rotary_dim == 8
  generated = tf_jax.generate(model, 'The number', config=tf_jax.GenerationConfig(max_tokens=4))
  assert generated.token_ids
  # The tokenizer of a model may be taken over.
  third = str(tmp_path / 'third')
  assert cli.main(['pretrain', '--corpus', corpus, '--tokenizer', first, '--output_dir', third,
                   *sizes, *settings]) == 0
  assert tf_jax.load_model(third).tokenizer.fingerprint == model.tokenizer.fingerprint
  # The saved configuration has all that the run depends on: the folder takes it.
  assert cli.main(['pretrain', '--gin_file', f'{third}/config.gin']) == 0


def test_initial_weights_are_the_same_on_every_mesh(tokenizer):
  one = new_model(SHAPE, tokenizer, devices=jax.devices()[:1])
  eight = new_model(SHAPE, tokenizer, tf_jax.ModelConfig(data=2, fsdp=2, tensor=2),
                    devices=jax.devices()[:8])
  assert sharding.batch_shards(eight.mesh) == 4
  assert equal(jax.device_get(one.variables), jax.device_get(eight.variables))
  kernel = np.asarray(one.variables['params']['blocks']['mlp']['up']['kernel'])
  assert kernel.std() == pytest.approx(0.02, rel=0.05)


def test_the_tokenizer_keeps_texts_and_has_the_start_of_calls():
  tokenizer = train_tokenizer(TEXTS, 300)
  assert tokenizer.vocab_size <= 300
  for text in (*TEXTS, 'Überall [Up(ab) -> XY] 字', '  [[ two\n\nlines 1984'):
    assert tokenizer.decode(tokenizer.encode(text)) == text
  assert len(tokenizer.encode(TEXTS[0])) < len(TEXTS[0]) / 2
  tokenizer.single_id(' [')
  assert tokenizer.encode('1984') == [tokenizer.single_id(digit) for digit in '1984']
  assert train_tokenizer(TEXTS, 300).fingerprint == tokenizer.fingerprint
  brackets = [text.replace('number', ' [number') for text in TEXTS]
  train_tokenizer(brackets, 300).single_id(' [')
  longer = train_tokenizer(TEXTS, 300, syntax=CallSyntax(start=' [['))
  assert longer.vocab_size <= 300 and longer.encode(' [[') == [longer.single_id(' [[')]
  with pytest.raises(UserError, match="'<API>' must be a single token"):
    train_tokenizer(TEXTS, 300, syntax=CallSyntax(start='<API>'))


def test_the_tokenizer_does_not_see_the_texts_that_are_held_out(tmp_path):
  shape, mixture = dataclasses.replace(SHAPE, vocab_size=400), MixtureConfig(dev_texts=2)
  # A word of its own in each text.
  texts = [f'{text} {4 * chr(97 + i)} {4 * chr(97 + i)}' for i, text in enumerate(TEXTS)]
  result = pretrain(documents(texts), output_dir=tmp_path, shape=shape, config=TRAINING,
                    mixture=mixture)
  assert any('dev_loss' in step for step in result.metrics)
  seen, held_out = hold_out(as_texts(documents(texts)), mixture)
  assert len(held_out) == 2
  learned = train_tokenizer([text.document.text for text in seen], 400)
  assert result.model.tokenizer.fingerprint == learned.fingerprint
  assert train_tokenizer(texts, 400).fingerprint != learned.fingerprint


def test_sizes_are_those_of_the_preset_but_for_what_is_set():
  gpt2 = PretrainConfig(preset='gpt2_124m', layers=3).decoder(1000)
  assert (gpt2.layers, gpt2.embed_dim, gpt2.positions, gpt2.vocab_size) == (3, 768, 'learned', 1000)
  gptj = PretrainConfig(preset='gptj_6b', embed_dim=64, heads=4, kv_heads=4, head_dim=16)
  assert isinstance(gptj.decoder(500), DecoderConfig) and gptj.decoder(500).rotary_dim == 16


def test_what_cannot_be_trained_is_refused(tmp_path):
  with pytest.raises(UserError, match='random weights'):
    run(tmp_path / 'a', config=dataclasses.replace(TRAINING, adapter=LoraConfig()))
  with pytest.raises(UserError, match='no text'):
    pretrain([tf_jax.Document('a', ' ')], output_dir=tmp_path / 'b', shape=SHAPE, config=TRAINING,
             mixture=MixtureConfig(dev_texts=0))
  with pytest.raises(UserError, match='heads 5 must be a multiple'):
    PretrainConfig(heads=5, kv_heads=2)
  with pytest.raises(UserError, match='unknown model'):
    PretrainConfig(preset='gpt5')
  with pytest.raises(UserError, match='int8'):
    run(tmp_path / 'c', model_config=tf_jax.ModelConfig(dtype='int8'))
  with pytest.raises(UserError, match='64 positions'):
    run(tmp_path / 'd', config=dataclasses.replace(TRAINING, row_tokens=128))


def test_a_tokenizer_cannot_be_trained_on_private_texts(tmp_path):
  pytest.importorskip('jax_privacy')
  private = dataclasses.replace(TRAINING, batch_rows=0, batch_size=4,
                                privacy=tf_jax.PrivacyConfig())
  with pytest.raises(UserError, match='privacy does not protect what a tokenizer learns'):
    run(tmp_path, config=private)
