"""Broken and foreign GGUF files are errors for people."""

import gguf
import numpy as np
import pytest

from toolformer_jax.checkpoints.gguf import GgufFile
from toolformer_jax.checkpoints.gguf_writer import save_gguf
from toolformer_jax.errors import UserError
from toolformer_jax.models.rotary import rotary_frequencies
from toolformer_jax.runtime.paths import as_path


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


@pytest.fixture
def written(make_model, tmp_path):
  """Returns a function: writes a small model with fields and tensors that are changed."""
  def write(fields=(), without='', factors=None, **settings):
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    save_gguf(as_path(folder), make_model(**settings), 'f16')
    reader, path = gguf.GGUFReader(folder / 'model.gguf'), folder / 'changed.gguf'
    writer = gguf.GGUFWriter(path, 'llama')
    for name, field in reader.fields.items():
      if name not in ('general.architecture', without) and not name.startswith('GGUF.'):
        element = field.types[-1] if len(field.types) > 1 else None
        writer.add_key_value(name, field.contents(), field.types[0], element)
    for name, value in fields:
      {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32,
       str: writer.add_string}[type(value)](name, value)
    for tensor in reader.tensors:
      writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    if factors is not None:
      writer.add_tensor('rope_freqs.weight', np.array(factors, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return GgufFile(path)
  return write


LINEAR = [('llama.rope.scaling.type', 'linear'), ('llama.rope.scaling.factor', 4.0)]
YARN = [('llama.rope.scaling.type', 'yarn'), ('llama.rope.scaling.factor', 4.0)]


def test_factors_of_frequencies_and_linear_scaling_are_multiplied(written):
  """llama.cpp divides each frequency by both."""
  plain, both = written().read_config()[1], written(LINEAR, factors=[1, 2, 4, 8]).read_config()[1]
  np.testing.assert_allclose(
      rotary_frequencies(plain) / rotary_frequencies(both), [4, 8, 16, 32], rtol=1e-6)
  assert both.rotary_scaling_factor == 1


@pytest.mark.parametrize(('change', 'message'), [
  ({'fields': YARN, 'factors': [1, 2, 4, 8]}, 'rope_freqs.weight does not fit the model'),
  ({'factors': [[1, 2, 4, 8]]}, 'rope_freqs.weight must have one dimension, not 2'),
  ({'factors': [1, 2, 4]}, 'rope_freqs.weight does not fit the model: there are 3'),
  ({'fields': [('llama.attention.causal', False)]}, 'llama.attention.causal is not supported'),
  ({'fields': [('llama.expert_count', 8)]}, 'llama.expert_count is not supported'),
  ({'without': 'llama.attention.layer_norm_rms_epsilon'},
   'has no field llama.attention.layer_norm_rms_epsilon'),
])
def test_what_changes_logits_and_is_not_supported_is_refused_by_name(written, change, message):
  with pytest.raises(UserError, match=message):
    written(**change).read_config()


@pytest.mark.parametrize('field', [
  ('llama.attention.causal', True), ('llama.expert_count', 0),
  ('llama.attention.sliding_window', 0)])
def test_fields_that_switch_nothing_on_are_passed_over(written, field):
  assert written([field]).read_config()[1] == written().read_config()[1]


def test_what_a_file_does_not_say_is_what_llama_cpp_assumes(written):
  assert written(without='llama.rope.freq_base').read_config()[1].rotary_base == 10_000
  assert written(without='llama.attention.key_length').read_config()[1].head_dim == 8
  assert written(YARN, max_positions=77).read_config()[1].rotary_original_positions == 77


def test_a_chat_template_that_is_no_text_is_refused(written):
  with pytest.raises(UserError, match=r'the field tokenizer.chat_template must be a string'):
    written([('tokenizer.chat_template', 5)]).tokenizer()
