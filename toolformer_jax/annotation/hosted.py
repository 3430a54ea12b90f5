"""Corpora that others host, by name: TensorFlow Datasets and Hugging Face datasets, as rows."""

import os
import re
from collections.abc import Iterator
from typing import Any

from toolformer_jax.errors import UserError

PREFIXES = ('tfds:', 'hf:')


def read_rows(corpus: str) -> Iterator[dict[str, Any]]:
  """Yields the rows of `tfds:NAME[@SPLIT]` or `hf:NAME[/CONFIG][@SPLIT]`; the split is `train`.

  `tfds:c4/en` is prepared or read from where TensorFlow Datasets keeps its data; rows of a Hugging
  Face dataset are streamed, and NAME may be a local folder. Of both, `@train[:1000]` are the first
  thousand: all texts of a corpus are split before any is annotated.

  Raises:
    UserError: the package is not installed, or there is no such dataset.
  """
  kind, _, rest = corpus.partition(':')
  name, _, split = rest.partition('@')
  read = _tensorflow_rows if kind == 'tfds' else _hugging_face_rows
  try:
    yield from read(name, split or 'train')
  except ImportError as error:
    extra = 'data' if kind == 'tfds' else 'hf'
    raise UserError(f'reading {corpus} needs a package ({error}): '
                    f'pip install "toolformer_jax[{extra}]"') from error
  except Exception as error:  # both packages raise all kinds, for names as for the network
    reason = ' '.join(str(error).split())[:300]
    raise UserError(f'can not read {corpus}: {type(error).__name__}: {reason}') from error


def _tensorflow_rows(name: str, split: str) -> Iterator[dict[str, Any]]:
  import tensorflow_datasets
  for row in tensorflow_datasets.as_numpy(tensorflow_datasets.load(name, split=split)):
    yield {field: value.decode('utf-8', 'replace') if isinstance(value, bytes) else value
           for field, value in row.items()}


def _hugging_face_rows(name: str, split: str) -> Iterator[dict[str, Any]]:
  import datasets
  path, config = name, None
  # `org/name/config`: what is behind the second slash, unless all of it is a folder.
  if not os.path.isdir(name) and name.count('/') == 2:
    path, _, config = name.rpartition('/')
  # Streams can not be cut by the package's own syntax.
  sliced = re.fullmatch(r'(\w+)\[:(\d+)\]', split)
  rows = datasets.load_dataset(path, config, split=sliced[1] if sliced else split, streaming=True)
  yield from rows.take(int(sliced[2])) if sliced else rows
