"""A text file that grows by lines while a run goes on."""

import time

from etils import epath

from toolformer_jax.runtime.paths import is_remote, write_text

_UPLOAD_S = 10.0


class LineLog:
  """Appends lines to a file. On disk each line is there at once.

  In a bucket, where nothing can be appended to, the whole file is written again, every ten seconds
  and at the end; lines that a killed process did not write are lost.
  """

  def __init__(self, path: epath.Path):
    """Opens the file `path`, which may have lines already."""
    self._path, self._file, self._text = path, None, ''
    if is_remote(path):
      self._text = path.read_bytes().decode() if path.exists() else ''
    else:
      self._file = open(path, 'a', encoding='utf-8')  # noqa: SIM115 - closed by `close`
    self._uploaded_at = time.monotonic()

  def append(self, line: str) -> None:
    """Adds a line, which is given without its end.

    Raises:
      OSError: it cannot be written.
    """
    if self._file:
      self._file.write(line + '\n')
      self._file.flush()
      return
    self._text += line + '\n'
    if time.monotonic() - self._uploaded_at >= _UPLOAD_S:
      self._upload()

  def flush(self) -> None:
    """Writes the lines so far to a bucket, before something is written that presupposes them."""
    if not self._file:
      self._upload()

  def close(self) -> None:
    """Closes the file; in a bucket, writes it."""
    if self._file:
      self._file.close()
    else:
      self._upload()

  def _upload(self) -> None:
    write_text(self._path, self._text)
    self._uploaded_at = time.monotonic()
