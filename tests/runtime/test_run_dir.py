"""Files of a run are whole, or they are not there."""

import pytest

from toolformer_jax.runtime.run_dir import atomic_writer


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_alone(tmp_path, error):
  path = tmp_path / 'file.txt'
  with atomic_writer(path) as file:
    file.write('old')
  with pytest.raises(error), atomic_writer(path) as file:
    file.write('new')
    raise error
  assert path.read_text() == 'old' and list(tmp_path.iterdir()) == [path]
