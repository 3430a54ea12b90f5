"""The output folder of an annotation run, as numbered chunks that are whole or absent.

    run.json, config.gin                 the configuration, and the versions of the software
    tokenizer.json                       ... and tokenizer_ids.json: positions count its tokens
    documents/KEY/00000.jsonl            the texts, split
    calculator/select/KEY/00000.jsonl    the texts in which calls to the calculator are sampled
    calculator/sample/KEY/00000.jsonl    sampled calls in the texts of select/KEY/00000.jsonl
    calculator/execute/KEY/00000.jsonl   ... with results
    calculator/filter/KEY/00000.jsonl    ... with losses
    merged/KEY/00000.jsonl               C*: the texts of documents/KEY/00000.jsonl that keep calls
    <stage>/KEY/00000.counts.json        counts from the computation of a chunk, and its checksum
    <stage>/KEY/.COMPLETED               the stage has all of its chunks: their number
    report.md                            counts of each stage, and the calls with the largest gains
    media_folder                         the folder of the media, which may be moved: then edit it
    times.log                            seconds for each chunk; of several processes
                                         times-0-of-8.log and so on

KEY is a hash of all that the stage depends on, see `stage_keys`. If a setting of the tools or of
sampling changes, the stages that depend on it get new folders, and the others are used as they are.
run.json names the folders of the current settings, which readers use; those of earlier settings
stay. A run with another checkpoint or corpus is refused.

All files but times.log and media_folder have the same content in every run with the same
configuration; the counts of tokens that the device computed also depend on the sizes of batches. A
file that was changed since is an error when it is read. A chunk may be replaced by one that
somebody else made: its counts file must then be removed too, and the records alone are checked.
"""

import contextlib
import functools
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic

from etils import epath

from toolformer_jax.annotation.checked_files import ChunkInfo, sha256
from toolformer_jax.annotation.run_reader import MEDIA_FOLDER, RunReader
from toolformer_jax.annotation.run_settings import RunSettings
from toolformer_jax.annotation.stage_keys import stage_name
from toolformer_jax.data.records import Record, record_line
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.line_log import LineLog
from toolformer_jax.runtime.paths import (
  atomic_writer,
  make_directory,
  reason,
  storage_errors,
  write_text,
)
from toolformer_jax.runtime.run_dir import LockedFolder

log = logging.getLogger(__name__)


class RunFolder(LockedFolder, RunReader):
  """The folder of an annotation run that this process works in."""

  def _check(self, configuration: dict[str, Any], versions: dict[str, str]) -> None:
    """Compares what a folder never changes, and makes the other settings the current ones."""
    new, old = RunSettings.of(configuration, versions), RunSettings.read(self.path)
    if old is None:
      new.write(self.path)
      return
    super()._check(dict(new.fixed), versions)
    _check_versions(self.path, old, new)
    if old.current != new.current:
      if self.has_other_writers():
        raise UserError(f'{self.path} is in use by a process with other settings; start all of '
                        'them with the same settings')
      new.write(self.path)
      (self.path / 'report.md').unlink(missing_ok=True)  # it is of the earlier settings
      log.info('%s has other settings than before; %s', self.path, self.reuse())

  @property
  def _stage_folders(self) -> Mapping[str, str]:
    if self.settings is None:
      raise UserError(f'{self.path} has lost its run.json while it was in use')
    return self.settings.folders

  def reuse(self) -> str:
    """Returns in words which stages have chunks with the current settings, and which have none."""
    folders = self._stage_folders
    reused = [stage for stage in folders if self.chunks(stage) or self.is_complete(stage)]
    missing = [stage for stage in folders if stage not in reused]
    return (f'reused: {", ".join(reused) or "nothing"}; computed: '
            f'{", ".join(missing) or "nothing"}')

  def take_from(self, source: epath.Path) -> None:
    """Takes the chunks of another run's stages that depend on the same, as links where possible.

    Raises:
      UserError: the folder `source` is not that of an annotation run, or a file cannot be written.
    """
    theirs = RunReader(source)
    if theirs.settings is None:
      raise UserError(f'{source} is not the output folder of an annotation run: it has no run.json')
    with self.exclusively():
      if theirs.has_media and not self.has_media:
        self.keep_media_folder(theirs.media_folder)
      for stage, folder in self._stage_folders.items():
        if (source / folder).exists() and not self.is_complete(stage):
          with _explained(self.path / folder):
            _link_files(source / folder, self.path / folder)
    log.info('from %s: %s', source, self.reuse())

  def own_chunks(self, tool: str) -> list[int]:
    """Returns the numbers of the chunks of a tool's texts that are of this process's shard.

    Raises:
      UserError: see `all_chunks`.
    """
    return [chunk for chunk in self.all_chunks(stage_name(tool, 'select')) if self.shard.has(chunk)]

  def has_own(self, tool: str, stage: str) -> bool:
    """Tells whether a stage of a tool has all chunks of this process's shard."""
    return (self.is_complete(stage_name(tool, 'select'))
            and {*self.own_chunks(tool)} <= {*self.chunks(stage_name(tool, stage))})

  def write(self, stage: str, chunk: int, records: Iterable[Record], counts: Counter) -> None:
    """Writes a chunk, which is finished once its file of records has its name.

    Raises:
      UserError: it cannot be written, for instance because the disk is full.
    """
    file = self.chunk_file(stage, chunk)
    with _explained(file):
      make_directory(file.parent)
      lines = [record_line(record) for record in records]
      text = ''.join(lines)
      ChunkInfo(len(lines), sha256(text.encode()), counts).write(self.counts_file(stage, chunk))
      write_text(file, text)

  def keep_media_folder(self, folder: str) -> None:
    """Writes down the folder to which the paths of media in records are relative.

    Raises:
      UserError: it cannot be written.
    """
    file = self.path / MEDIA_FOLDER
    with _explained(file):
      write_text(file, folder)
    self.__dict__.pop('media_folder', None)  # what was read before

  def complete(self, stage: str) -> None:
    """Marks a stage as complete: it has the chunks that it has now."""
    marker = self.folder(stage) / '.COMPLETED'
    with _explained(marker):
      make_directory(marker.parent)
      write_text(marker, f'{len(self.chunks(stage))}\n')

  def complete_if_whole(self, tool: str, stage: str) -> None:
    """Marks a stage of a tool as complete if no shard has a chunk of it left to compute."""
    name = stage_name(tool, stage)
    if self.chunks(name) == self.chunks(stage_name(tool, 'select')):
      self.complete(name)

  def log_time(self, stage: str, chunk: int, seconds: float) -> None:
    """Appends the seconds that a chunk took to the file of times of this process."""
    line = json.dumps({'folder': self._stage_folders[stage], 'chunk': chunk,
                       'seconds': round(seconds, 3)})
    self._times.append(line)

  @functools.cached_property
  def _times(self) -> LineLog:
    """The file of times; in a bucket, processes cannot append to the same one."""
    of_shard = f'-{self.shard.index}-of-{self.shard.count}' if self.shard.count > 1 else ''
    log = LineLog(self.path / f'times{of_shard}.log')
    self.closing.callback(log.close)
    return log


class ChunkWriter(Generic[Record]):
  """Writes records, which come one after the other, as the chunks of a stage."""

  def __init__(self, folder: RunFolder, stage: str, chunk_size: int):
    """Writes chunks of `chunk_size` records to `stage` of `folder`."""
    self._folder, self._stage, self._size = folder, stage, chunk_size
    self._records: list[Record] = []
    self._chunk = 0
    self.counts: Counter[str] = Counter()

  def add(self, record: Record) -> None:
    """Adds a record; writes a chunk if it is full, with what `counts` has by then."""
    self._records.append(record)
    if len(self._records) == self._size:
      self._flush()

  def complete(self) -> None:
    """Writes the last chunk, and marks the stage as complete."""
    if self._records or self.counts:
      self._flush()
    self._folder.complete(self._stage)

  def _flush(self) -> None:
    self._folder.write(self._stage, self._chunk, self._records, self.counts)
    self._records, self._chunk = [], self._chunk + 1
    self.counts.clear()


def _check_versions(path: epath.Path, old: RunSettings, new: RunSettings) -> None:
  """Checks that the tools of a run have the versions that they had.

  Raises:
    UserError: one has another.
  """
  for tool in old.tools.keys() & new.tools.keys():
    then, now = (settings.tools[tool].get('version') for settings in (old, new))
    if then != now:
      raise UserError(f'{path} was made with another version of {tool} ({then!r} then, {now!r} '
                      'now); choose another --output_dir, and take its samples with --from')


def _link_files(source: epath.Path, target: epath.Path) -> None:
  """Links the files of one folder of a stage into another one, or copies them."""
  # The marker comes last: a stage that has it has all of its chunks.
  names = sorted((file.name for file in source.iterdir() if not file.name.endswith('.tmp')),
                 key=lambda name: (name == '.COMPLETED', name.endswith('.jsonl'), name))
  make_directory(target)
  for name in names:
    if not (target / name).exists():
      try:
        os.link(source / name, target / name)
      except OSError:  # in a bucket, on another file system, or on one without links
        with atomic_writer(target / name, 'wb') as copy:
          copy.write((source / name).read_bytes())


@contextlib.contextmanager
def _explained(file: epath.Path) -> Iterator[None]:
  try:
    yield
  except (OSError,) + storage_errors() as error:
    raise UserError(f'cannot write {file}: {reason(error)}; the same command continues from here '
                    'when it can be written') from error
