"""A run does not mix its files with those of a checkpoint that it did not make."""

import pytest

from toolformer_jax.cli import main
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.output_dir import check_output_dir
from toolformer_jax.runtime.paths import as_path
from toolformer_jax.runtime.run_dir import LockedFolder


@pytest.mark.parametrize('file', [
  'config.json', 'model.safetensors', 'model-00001-of-00002.safetensors', 'pytorch_model.bin',
  'model.safetensors.index.json', 'model.gguf', 'adapter_model.safetensors', 'tokenizer.json'])
def test_a_folder_with_a_checkpoint_is_refused_before_anything_is_written(tmp_path, file):
  (tmp_path / file).write_text('{}')
  with pytest.raises(UserError, match=f'it holds a checkpoint, with {file}') as failure:
    check_output_dir(tmp_path)
  with pytest.raises(UserError, match=f'it holds a checkpoint, with {file}'):
    LockedFolder(as_path(tmp_path), {}, {})
  assert '\n' not in str(failure.value)
  assert [path.name for path in tmp_path.iterdir()] == [file]


def test_the_folder_of_an_earlier_run_is_continued(tmp_path):
  for _ in range(2):
    check_output_dir(tmp_path)
    with LockedFolder(as_path(tmp_path), {}, {}):
      (tmp_path / 'tokenizer.json').write_text('{}')
      (tmp_path / 'model').mkdir(exist_ok=True)
      (tmp_path / 'model' / 'config.json').write_text('{}')


@pytest.mark.parametrize('command', [
  ('finetune', '--data', 'word-problems'),
  ('annotate', '--corpus', 'word-problems', '--tools', 'calculator')])
def test_a_command_does_not_write_into_the_checkpoint_that_it_starts_from(
    tmp_path, capsys, command):
  (tmp_path / 'config.json').write_text('{}')
  assert main([*command, '--checkpoint', str(tmp_path), '--output_dir', str(tmp_path)]) == 2
  assert 'it holds a checkpoint, with config.json' in capsys.readouterr().err
  assert [path.name for path in tmp_path.iterdir()] == ['config.json']
