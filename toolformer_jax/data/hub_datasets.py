"""Corpora by the names that others give them, as rows: TensorFlow Datasets, Hugging Face, seqio."""

import importlib
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

from toolformer_jax.errors import UserError

SEQIO = 'seqio:'
PREFIXES = ('tfds:', 'hf:', SEQIO)


def read_rows(corpus: str) -> Iterator[dict[str, Any]]:
  """Yields the rows of `tfds:NAME`, `hf:NAME[/CONFIG]` or `seqio:MODULE:NAME`.

  Behind it may stand `@SPLIT`; the default is `train`.

  `tfds:c4/en` is prepared or read from where TensorFlow Datasets keeps its data; rows of a Hugging
  Face dataset are streamed, and NAME may be a local folder. Of both, `@train[:1000]` are the first
  thousand: all texts of a corpus are split before any is annotated. MODULE registers the task or
  mixture NAME of seqio, whose features are the fields; of a mixture without end, `[:1000]` is
  needed.

  Raises:
    UserError: the package is not installed, or there is no such dataset.
  """
  kind, _, rest = corpus.partition(':')
  name, _, split = rest.partition('@')
  read = {'tfds': _tensorflow_rows, 'hf': _hugging_face_rows, 'seqio': _seqio_rows}[kind]
  try:
    yield from read(name, split or 'train')
  except ImportError as error:
    extra = 'hf' if kind == 'hf' else 'data'
    raise UserError(f'reading {corpus} needs a package ({error}): '
                    f'pip install "toolformer_jax[{extra}]"') from error
  except Exception as error:  # both packages raise all kinds, for names as for the network
    reason = ' '.join(str(error).split())[:300]
    raise UserError(f'cannot read {corpus}: {type(error).__name__}: {reason}') from error


def _tensorflow_rows(name: str, split: str) -> Iterator[dict[str, Any]]:
  import tensorflow_datasets
  for row in tensorflow_datasets.as_numpy(tensorflow_datasets.load(name, split=split)):
    yield _decoded(row)


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
  return {field: value.decode('utf-8', 'replace') if isinstance(value, bytes) else value
          for field, value in row.items()}


def _hugging_face_rows(name: str, split: str) -> Iterator[dict[str, Any]]:
  import datasets
  path, config = name, None
  # `org/name/config`: what is behind the second slash, unless all of it is a folder.
  if not os.path.isdir(name) and name.count('/') == 2:
    path, _, config = name.rpartition('/')
  split, count = _counted(split)
  rows = datasets.load_dataset(path, config, split=split, streaming=True)
  yield from rows if count is None else rows.take(count)


def _seqio_rows(name: str, split: str) -> Iterator[dict[str, Any]]:
  """Yields examples as a task makes them: seqio's packing would take id 0 for padding."""
  import seqio
  import tensorflow
  tensorflow.config.set_visible_devices([], 'GPU')  # else it takes all of their memory
  module, _, task = name.rpartition(':')
  if module:
    if os.getcwd() not in sys.path:
      sys.path.append(os.getcwd())
    importlib.import_module(module)
  split, count = _counted(split)
  found = seqio.get_mixture_or_task(task)
  rows = found.get_dataset(sequence_length=None, split=split, shuffle=False,
                           num_epochs=1 if count is None else None)
  for row in (rows if count is None else rows.take(count)).as_numpy_iterator():
    yield _decoded(row)


def _counted(split: str) -> tuple[str, int | None]:
  """Returns the split and the number of its rows in `train[:1000]`: streams have no such syntax."""
  sliced = re.fullmatch(r'(\w+)\[:(\d+)\]', split)
  return (sliced[1], int(sliced[2])) if sliced else (split, None)
