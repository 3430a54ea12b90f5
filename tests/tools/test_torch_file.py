"""A file of tensors is followed and never run; tests/parity compares real ones with torch."""

import pickle

import pytest

from toolformer_jax.tools.torch_file import read_torch_file

MAGIC = 0x1950a86a20f9469cfc6c


def file_with(value):
  """Returns the start of a file of torch, with `value` in the place of the tensors."""
  parts = (MAGIC, 1001, {'little_endian': True}, value, [])
  return b''.join(pickle.dumps(part, protocol=2) for part in parts)


class Evil:
  """What makes a file when it is unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return open, (str(self.path), 'w')


def test_nothing_is_run(tmp_path):
  tensors = {'weight': Evil(tmp_path / 'made')}
  with pytest.raises(ValueError):
    read_torch_file(file_with(tensors))
  assert not (tmp_path / 'made').exists()
  pickle.loads(pickle.dumps(tensors, protocol=2))['weight'].close()
  assert (tmp_path / 'made').exists()  # unpickling would have made it


@pytest.mark.parametrize('value', [{'a': 1}, [1, 2], 'text', None, {'a': {}}, {'a': (1, 2)}])
def test_what_is_no_dictionary_of_tensors_is_refused(value):
  with pytest.raises(ValueError):
    read_torch_file(file_with(value))


@pytest.mark.parametrize('data', [
  b'', b'PK\x03\x04', b'\x80\x02.', pickle.dumps(5, 2), b'\x00' * 99])
def test_other_files_are_refused(data):
  with pytest.raises(ValueError):
    read_torch_file(data)
