"""The table of the media of one text: handles such as `image 1`, and the files behind them.

A call names a handle. It is looked up here and never read as a path, so that nothing outside the
table can be opened.
"""

import hashlib
import os
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from etils import epath

from toolformer_jax.errors import ToolError, UserError
from toolformer_jax.media.content_type import Kind, content_type
from toolformer_jax.media.limits import MediaLimits
from toolformer_jax.runtime.paths import (
  as_absolute_path,
  as_path,
  atomic_writer,
  is_file,
  is_remote,
  make_directory,
  reason,
)

_MAX_SHOWN = 60  # characters of a wrong handle, and handles in an error
_EXTENSIONS = {'PNG': 'png', 'JPEG': 'jpg', 'GIF': 'gif', 'WEBP': 'webp', 'TIFF': 'tiff',
               'BMP': 'bmp', 'matroska': 'mkv'}


@dataclass(frozen=True)
class Medium:
  """A picture, sound or video.

  Attributes:
    kind: 'image', 'audio' or 'video', by its content.
    path: of the file; relative to `folder`, if there is one.
    sha256: of its content, in hexadecimal.
    folder: of the corpus; it is no part of records, so that a corpus can be moved.
  """

  kind: Kind
  path: str
  sha256: str
  folder: str = field(default='', compare=False)

  @property
  def file(self) -> epath.Path:
    """The file."""
    return as_path(os.path.join(self.folder, self.path))

  def check(self) -> None:
    """Checks that the file is the one that the table was made of.

    Raises:
      OSError: it is gone or has changed.
    """
    with self.file.open('rb') as opened:
      self._check_sha256(hashlib.file_digest(opened, 'sha256').hexdigest())

  def _check_sha256(self, sha256: str) -> None:
    if sha256 != self.sha256:
      raise OSError('the file has changed since the text was read')

  def read_bytes(self, limits: MediaLimits = MediaLimits()) -> bytes:
    """Returns the content of the file.

    Raises:
      ToolError: it is too large.
      OSError: it is gone or has changed. The same call may succeed later, so that this is no
        result of a tool.
    """
    data = _read(self.file, limits.max_bytes)
    self._check_sha256(hashlib.sha256(data).hexdigest())
    return data


def read_medium(path: epath.PathLike, folder: str = '', limits: MediaLimits = MediaLimits()
                ) -> Medium:
  """Returns the medium in the file `path`, relative to `folder`.

  Raises:
    ToolError: the file cannot be read, it is too large, or its content is no medium.
  """
  try:
    data = _read(as_path(os.path.join(folder, path)), limits.max_bytes)
  except OSError as error:
    raise ToolError(f'the file cannot be read ({reason(error)})') from error
  return Medium(content_type(data).kind, os.fspath(path), hashlib.sha256(data).hexdigest(), folder)


def _read(file: epath.Path, max_bytes: int) -> bytes:
  """Returns the content of a file that is no folder, pipe or device."""
  if not is_file(file):
    raise FileNotFoundError('there is no such file')
  if (size := file.stat().length) > max_bytes:
    raise ToolError(_too_large(size, max_bytes))
  return file.read_bytes()


@dataclass(frozen=True)
class MediaTable:
  """The media of one text or request, by handle.

  The handles are `image 1`, `image 2`, `audio 1`, `video 1`, ..., numbered by kind in the order of
  `media`.

  Attributes:
    media: the media.
  """

  media: tuple[Medium, ...] = ()
  # What tools made during the calls of one text, such as spoken sentences.
  _made: list[Medium] = field(default_factory=list, compare=False, repr=False)

  @classmethod
  def from_files(cls, paths: Iterable[epath.PathLike], limits: MediaLimits = MediaLimits()
                 ) -> 'MediaTable':
    """Returns the table of the files `paths`, which the user named.

    Raises:
      UserError: a file cannot be read, is too large, or is no medium.
    """
    media = []
    for path in paths:
      try:
        media.append(read_medium(as_absolute_path(path), limits=limits))
      except ToolError as error:
        raise UserError(f'{os.fspath(path)}: {error}') from error
    return cls(tuple(media))

  @classmethod
  def from_bytes(cls, contents: Iterable[bytes], folder: epath.PathLike,
                 limits: MediaLimits = MediaLimits()) -> 'MediaTable':
    """Returns the table of files that arrived in memory, which it writes to `folder`.

    A file is named for its hash and its format: nothing of the name is the sender's.

    Raises:
      UserError: one of them is too large, or is no medium.
    """
    media = []
    for number, data in enumerate(contents, 1):
      try:
        media.append(write_medium(data, folder, limits))
      except ToolError as error:
        raise UserError(f'medium {number}: {error}') from error
    return cls(tuple(media))

  def __iter__(self) -> Iterator[tuple[str, Medium]]:
    """Yields the handles and the media, in order."""
    counts: Counter[str] = Counter()
    for medium in (*self.media, *self._made):
      counts[medium.kind] += 1
      yield f'{medium.kind} {counts[medium.kind]}', medium

  def __len__(self) -> int:
    return len(self.media) + len(self._made)

  @property
  def made(self) -> tuple[Medium, ...]:
    """What tools made during the calls of the text, in order."""
    return tuple(self._made)

  def copy(self) -> 'MediaTable':
    """Returns a table with the same handles; what is added to one is not in the other."""
    return MediaTable(self.media, list(self._made))

  def add_made(self, media: Iterable[Medium]) -> None:
    """Adds media that a call made, which worked on a copy of this table or was recorded."""
    self._made.extend(media)

  def add(self, path: epath.PathLike) -> str:
    """Adds a file that a tool wrote, and returns its handle.

    Raises:
      ToolError: it is no medium.
    """
    medium = read_medium(path)
    self._made.append(medium)
    return next(handle for handle, one in self if one is medium)

  def resolve(self, handle: str, kind: Kind | None = None) -> Medium:
    """Returns the medium with a handle, in any case and with any spaces.

    Args:
      handle: such as 'image 1'.
      kind: which kind of medium is wanted; None for any.

    Raises:
      ToolError: the table has no such handle, or it is of another kind.
    """
    wanted = ' '.join(handle[:1000].lower().split())
    found = dict(self).get(wanted)
    if found is None:
      shown = wanted if len(wanted) <= _MAX_SHOWN else wanted[:_MAX_SHOWN] + '...'
      raise ToolError(f'no {shown or "handle"}: {self._contents()}')
    if kind is not None and found.kind != kind:
      raise ToolError(f'{wanted} is not of the kind {kind}')
    return found

  def key(self) -> list[list[str]]:
    """Returns the handles with the hashes of their files: what results depend on."""
    return [[handle, medium.sha256] for handle, medium in self]

  def _contents(self) -> str:
    handles = [handle for handle, _ in self]
    if not handles:
      return 'this document has no media'
    more = ', ...' if len(handles) > _MAX_SHOWN else ''
    return f'this document has {", ".join(handles[:_MAX_SHOWN])}{more}'


def write_medium(data: bytes, folder: epath.PathLike, limits: MediaLimits = MediaLimits()
                 ) -> Medium:
  """Writes the content of a file to `folder`, and returns it as a medium.

  The file is named for its hash. Several threads and processes may write the same content.

  Raises:
    ToolError: it is too large, or is no medium.
    OSError: it cannot be written.
  """
  if len(data) > limits.max_bytes:
    raise ToolError(_too_large(len(data), limits.max_bytes))
  found, sha256 = content_type(data), hashlib.sha256(data).hexdigest()
  file = as_path(folder) / f'{sha256}.{_EXTENSIONS.get(found.format, found.format)}'
  if not is_file(file):
    make_directory(file.parent)
    own = file.with_name(f'{sha256}-{uuid.uuid4().hex}')  # no other writer has it
    with atomic_writer(file if is_remote(file) else own, 'wb') as opened:
      opened.write(data)
    if not is_remote(file):
      own.replace(file)
  return Medium(found.kind, os.fspath(file), sha256)


def _too_large(size: int, max_bytes: int) -> str:
  return f'it has {size} bytes, more than {max_bytes} (MediaLimits.max_bytes)'
