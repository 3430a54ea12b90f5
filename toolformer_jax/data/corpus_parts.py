"""Divides a corpus into a training, a dev and a test part (paper, section 4.3 and appendix B)."""

import contextlib
import heapq
import json
import os
import pathlib
from collections import Counter
from collections.abc import Callable, Iterable

from toolformer_jax.data.content_hash import stable_hash
from toolformer_jax.data.records import Document, to_json
from toolformer_jax.errors import UserError
from toolformer_jax.media.limits import MediaLimits
from toolformer_jax.media.table import Medium
from toolformer_jax.runtime.paths import atomic_writer, reason

TRAIN, DEV, TEST = 'train.jsonl', 'dev.jsonl', 'corpus/test.jsonl'
_ANY_SIZE = MediaLimits(max_bytes=10**12)  # the limit was checked when the corpus was read


def divide_corpus(read: Callable[[], Iterable[Document]], folder: pathlib.Path, *, dev: int,
                  test: int, seed: int = 0) -> dict[str, int]:
  """Holds out random documents of a corpus, which is read twice and never held in memory.

  A hash of seed, text and media decides, so that the order of the documents does not matter. A text
  that the corpus has several times is held out once, and is not in the training part. Media are
  copied to a folder `media` beside the file that names them.

  Args:
    read: returns the documents, each time the same.
    folder: gets train.jsonl, dev.jsonl and corpus/test.jsonl, so that it can be the `--data_dir` of
      the task `corpus`. Files appear whole or not at all.
    dev, test: number of documents to hold out.
    seed: of the choice.

  Returns:
    number of documents in each file.

  Raises:
    UserError: no document would be left to train on, or a medium is gone or has changed.
  """
  held_out = _smallest_keys(read(), dev + test, seed)
  part_of = {key: DEV if i < dev else TEST for i, key in enumerate(held_out)}
  counts: Counter[str] = Counter()
  written = set()
  (folder / TEST).parent.mkdir(parents=True, exist_ok=True)
  with contextlib.ExitStack() as stack:
    files = {part: stack.enter_context(atomic_writer(folder / part))
             for part in (TRAIN, DEV, TEST)}
    for document in read():
      part = part_of.get(key := _key(document, seed), TRAIN)
      if key not in written:
        row = to_json(document)
        if document.media:
          row['media'] = [_copied(medium, (folder / part).parent) for medium in document.media]
        files[part].write(json.dumps(row, ensure_ascii=False) + '\n')
        counts[part] += 1
      if part != TRAIN:
        written.add(key)
    if not counts[TRAIN]:
      raise UserError(f'the corpus has {sum(counts.values()):,} documents, too few to hold out '
                      f'{dev:,} and {test:,}')
  return {part: counts[part] for part in files}


def _copied(medium: Medium, folder: pathlib.Path) -> str:
  """Copies a medium to a folder `media` in `folder`, and returns its path relative to `folder`."""
  name = f'media/{medium.sha256}{os.path.splitext(medium.path)[1]}'
  if not (folder / name).exists():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    try:
      with atomic_writer(folder / name, 'wb') as file:
        file.write(medium.read_bytes(_ANY_SIZE))
    except OSError as error:
      raise UserError(f'cannot copy {medium.file}: {reason(error)}') from error
  return name


def _smallest_keys(documents: Iterable[Document], count: int, seed: int) -> list[bytes]:
  """Returns the `count` smallest keys of the documents, in ascending order, each once."""
  largest_first: list[tuple[int, bytes]] = []
  kept = set()
  for document in documents:
    key = _key(document, seed)
    if key in kept:
      continue
    heapq.heappush(largest_first, (-int.from_bytes(key, 'big'), key))
    kept.add(key)
    if len(largest_first) > count:
      kept.remove(heapq.heappop(largest_first)[1])
  return sorted(kept)


def _key(document: Document, seed: int) -> bytes:
  return stable_hash(seed, document.text, *(medium.sha256 for medium in document.media))
