"""What a model cannot be compressed to is refused by its configuration alone."""

import subprocess
import sys

import pytest

import toolformer_jax as tf_jax
from toolformer_jax import CompressionConfig, cli
from toolformer_jax.commands import compress as command
from toolformer_jax.commands.parsers import command_parser
from toolformer_jax.compression.checks import check_compression
from toolformer_jax.errors import UserError
from toolformer_jax.models.adapter_config import LoraConfig

from .test_compress import GEMMA, GPT2, TEXTS

WIDE = dict(embed_dim=64, head_dim=16, rotary_dim=16, mlp_dim=128)
REFUSED = [
  ({}, dict(keep_layers=(0, 99)), r'the layers \[0, 99\] cannot be kept'),
  (GEMMA, dict(keep_layers=(0, 2, 3)), 'layer 2 cannot stay what it is'),
  ({}, dict(layers=3), 'layers is 3; keep at most the 2 layers'),
  ({}, dict(kv_heads=3), 'kv_heads is 3; keep at most 2'),
  ({}, dict(mlp_dim=65), 'mlp_dim is 65; keep at most 64'),
  (GPT2, dict(kv_heads=1), 'no head of a gpt2 model can be removed'),
  ({'max_positions': 63}, dict(layers=1, calibration_tokens=64), 'at most 63, the positions'),
  ({}, dict(mlp_dim=62, sparsity=0.5, pattern='2:4'), 'the matrix down has 62 inputs'),
  (WIDE, dict(bits='int4', group_size=128),
   'group_size 128 does not divide the 64 inputs of the matrix query; take 32 or 64$'),
  (WIDE, dict(bits='mixed', weight_bytes=10**9, group_size=64, mlp_dim=96),
   'does not divide the 96 inputs of the matrix down; take 32$'),
  ({}, dict(bits='int4', mlp_dim=48),
   "48 inputs of the matrix down; .* take CompressionConfig.bits 'int8'$"),
  ({}, dict(bits='mixed', weight_bytes=1), 'weight_bytes is 1, and with 4 bits in every layer')]


@pytest.fixture
def decoder_of(make_model):
  def decoder(**kind):
    return make_model(**kind).config
  return decoder


@pytest.mark.parametrize(('kind', 'settings', 'message'), REFUSED)
def test_no_text_is_read_for_what_the_model_lacks(make_model, tmp_path, kind, settings, message):
  model = make_model(**kind)
  config = CompressionConfig(**{'calibration_tokens': 32, **settings})
  with pytest.raises(UserError, match=message):
    check_compression(config, model.config)
  def unread():
    yield pytest.fail('a calibration text was read')
  with pytest.raises(UserError, match=message):
    tf_jax.compress(model, unread(), output_dir=tmp_path / 'out', config=config)
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(('kind', 'settings'), [
  ({}, {}), ({}, dict(layers=2, kv_heads=2, mlp_dim=64)), ({}, dict(keep_layers=(1,))),
  (GEMMA, dict(keep_layers=(0, 3))), (GPT2, dict(kv_heads=4, mlp_dim=62)),
  ({'max_positions': 63}, dict(sparsity=0.5, weight_scores='magnitude')),
  (WIDE, dict(bits='int4', group_size=64)), ({}, dict(bits='int8', mlp_dim=48)),
  ({}, dict(sparsity=0.5, pattern='2:4')), ({}, dict(bits='mixed', weight_bytes=10**9)),
  ({'adapter': LoraConfig(rank=2)}, dict(bits='mixed', weight_bytes=10**9))])
def test_what_the_model_has_passes(decoder_of, kind, settings):
  check_compression(CompressionConfig(**{'calibration_tokens': 32, **settings}),
                    decoder_of(**{'max_positions': 512, **kind}))


@pytest.mark.parametrize('dtype', ['int8', 'int4'])
@pytest.mark.parametrize(('options', 'message'), [
  (['compress'], 'cannot be compressed: its weights are rounded'),
  (['finetune', '--data', 'texts.jsonl'], 'cannot be trained: its weights are rounded')])
def test_rounded_models_are_refused_before_they_are_loaded(
    make_model, tmp_path, monkeypatch, capsys, dtype, options, message):
  monkeypatch.chdir(tmp_path)
  path = tf_jax.export(make_model(), output_dir=tmp_path / 'model')
  (path / 'model.safetensors').write_bytes(b'no weights')
  (tmp_path / 'texts.jsonl').write_text(f'{{"text": "{TEXTS[0]}"}}\n')
  assert cli.main([*options, '--checkpoint', str(path), '--output_dir', 'o',
                   f'--gin.ModelConfig.dtype="{dtype}"']) == 2
  assert message in capsys.readouterr().err


def test_the_check_does_not_load_jax():
  code = ('import sys, toolformer_jax.compression.checks; '
          'assert not {"jax", "flax"} & {*sys.modules}')
  subprocess.run([sys.executable, '-c', code], check=True)


def test_the_command_checks_before_it_loads_weights(make_model, tmp_path, monkeypatch):
  tf_jax.export(make_model(), output_dir=tmp_path / 'model')
  (tmp_path / 'texts.jsonl').write_text(''.join(f'{{"text": "{text}"}}\n' for text in TEXTS))
  monkeypatch.setattr('toolformer_jax.api.load_model', lambda *_, **__: pytest.fail('loaded'))
  args = command_parser('compress').parse_args([
      '--checkpoint', str(tmp_path / 'model'), '--corpus', str(tmp_path / 'texts.jsonl'),
      '--output_dir', str(tmp_path / 'out')])
  args.bindings = ['CompressionConfig.layers = 3', 'CompressionConfig.calibration_tokens = 32']
  with pytest.raises(UserError, match='layers is 3; keep at most the 2 layers'):
    command.run(args)
