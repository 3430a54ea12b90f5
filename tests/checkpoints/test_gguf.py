"""Broken and foreign GGUF files are errors for people."""

import gguf
import pytest

from toolformer_jax.checkpoints.gguf import GgufFile
from toolformer_jax.errors import UserError


def test_something_else_is_refused(tmp_path):
  path = tmp_path / 'model.gguf'
  path.write_bytes(b'not a model at all')
  with pytest.raises(UserError, match='not a readable GGUF file'):
    GgufFile(path)


def test_a_truncated_file_is_refused(smollm2_path, tmp_path):
  path = tmp_path / 'model.gguf'
  with open(smollm2_path, 'rb') as whole:
    path.write_bytes(whole.read(10_000_000))
  with pytest.raises(UserError, match='model.gguf'):
    GgufFile(path)


def test_an_unknown_architecture_is_refused(tmp_path):
  path = tmp_path / 'model.gguf'
  writer = gguf.GGUFWriter(path, 'mamba')
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.close()
  with pytest.raises(UserError, match="architecture 'mamba'"):
    GgufFile(path)


def test_the_real_model(smollm2_path):
  config = GgufFile(smollm2_path).read_config()[1]
  assert (config.layers, config.embed_dim, config.heads, config.kv_heads) == (30, 576, 9, 3)
  assert config.tied_head and config.rotary_base == 100_000
