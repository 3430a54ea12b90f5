"""The output folder of an annotation run, as numbered chunks that are whole or absent.

    run.json, config.gin              the configuration, and the versions of the software
    tokenizer.json                    ... and tokenizer_ids.json: positions count its tokens
    documents/00000.jsonl             the texts, split
    documents/00000.preselected.json  which of them the heuristics select, by tool
    calculator/sample/00000.jsonl     sampled calls of the texts in documents/00000.jsonl
    calculator/execute/00000.jsonl    ... with results
    calculator/filter/00000.jsonl     ... with losses
    merged/00000.jsonl                C*
    <stage>/00000.counts.json         counts from the computation of a chunk, and its checksum
    <stage>/.COMPLETED                the stage has all of its chunks: their number
    report.md                         counts of each stage, and the calls with the largest gains
    times.log                         seconds for each chunk

All files but times.log have the same content in every run with the same configuration. A file that
was changed since is an error when it is read. A chunk may be replaced by one that somebody else
made: its counts file must then be removed too, and the records alone are checked.
"""

import contextlib
import json
import pathlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping

from toolformer_jax.annotation.checked_files import ChunkInfo, sha256, write_checked_json
from toolformer_jax.annotation.run_reader import DOCUMENTS, RunReader
from toolformer_jax.data.records import Document, Record, record_line
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.run_dir import LockedFolder, atomic_writer


class RunFolder(LockedFolder, RunReader):
  """The folder of an annotation run that this process works in."""

  def own_chunks(self) -> list[int]:
    """Returns the numbers of the chunks of documents that are of this process's shard.

    Raises:
      UserError: see `all_chunks`.
    """
    return [chunk for chunk in self.all_chunks(DOCUMENTS) if self.shard.has(chunk)]

  def has_own(self, stage: str) -> bool:
    """Tells whether the stage has all chunks of this process's shard."""
    return self.is_complete(DOCUMENTS) and {*self.own_chunks()} <= {*self.chunks(stage)}

  def write(self, stage: str, chunk: int, records: Iterable[Record], counts: Counter) -> None:
    """Writes a chunk, which is finished once its file of records has its name.

    Raises:
      UserError: it cannot be written, for instance because the disk is full.
    """
    file = self.chunk_file(stage, chunk)
    with _explained(file):
      file.parent.mkdir(parents=True, exist_ok=True)
      lines = [record_line(record) for record in records]
      text = ''.join(lines)
      ChunkInfo(len(lines), sha256(text.encode()), counts).write(self.counts_file(stage, chunk))
      with atomic_writer(file) as opened:
        opened.write(text)

  def write_documents(self, chunk: int, documents: Mapping[Document, Collection[str]],
                      counts: Counter, heuristics: Iterable[str]) -> None:
    """Writes a chunk of texts, and which of them the heuristics select.

    Args:
      chunk: number of the chunk.
      documents: the texts, with the names of the tools whose heuristic selects them.
      counts: from the computation of the chunk.
      heuristics: names of the tools that have a heuristic.

    Raises:
      UserError: see `write`.
    """
    file = self.preselected_file(chunk)
    with _explained(file):
      file.parent.mkdir(parents=True, exist_ok=True)
      write_checked_json(file, {tool: [document.id for document, tools in documents.items()
                                       if tool in tools] for tool in heuristics})
    self.write(DOCUMENTS, chunk, documents, counts)

  def complete(self, stage: str) -> None:
    """Marks a stage as complete: it has the chunks that it has now."""
    (self.path / stage).mkdir(parents=True, exist_ok=True)
    with atomic_writer(self.path / stage / '.COMPLETED') as file:
      file.write(f'{len(self.chunks(stage))}\n')

  def complete_if_whole(self, stage: str) -> None:
    """Marks a stage as complete if no shard has a chunk of it left to compute."""
    if self.chunks(stage) == self.chunks(DOCUMENTS):
      self.complete(stage)

  def log_time(self, stage: str, chunk: int, seconds: float) -> None:
    """Appends the seconds that a chunk took to times.log."""
    line = json.dumps({'stage': stage, 'chunk': chunk, 'seconds': round(seconds, 3)})
    with open(self.path / 'times.log', 'a', encoding='utf-8') as file:
      file.write(line + '\n')


@contextlib.contextmanager
def _explained(file: pathlib.Path) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise UserError(f'cannot write {file}: {error.strerror}; the same command continues from here '
                    'when it can be written') from error
