"""Rows of datasets by name: TensorFlow Datasets, Hugging Face datasets, and tasks of seqio."""

import contextlib
import importlib.util
import os
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from toolformer_jax.errors import UserError

if TYPE_CHECKING:
  from toolformer_jax.data.seqio_reader import TaskReader

SEQIO = 'seqio:'
PREFIXES = ('tfds:', 'hf:', SEQIO)


def read_rows(corpus: str) -> Iterator[dict[str, Any]]:
  """Yields the rows of `tfds:NAME`, `hf:NAME[/CONFIG]`, `hf:FOLDER` or `seqio:MODULE:TASK`.

  `@SPLIT` may follow, by default `@train`; `@train[:1000]` takes the first thousand rows.

  - `tfds:c4/en`: TensorFlow Datasets reads it from its own folder, or prepares it there.
  - `hf:allenai/c4/en`: Hugging Face datasets streams it. `hf:FOLDER` reads the files of a local
    folder, for instance JSON Lines.
  - `seqio:MODULE:TASK`: the Python module MODULE registers the task or mixture TASK, whose features
    are the fields. A mixture that repeats without end needs `[:N]`.

  Raises:
    UserError: the package is not installed, or there is no such dataset.
  """
  kind, name, split = _parts(corpus)
  read = {'tfds': _tensorflow_rows, 'hf': _hugging_face_rows, 'seqio': _seqio_rows}[kind]
  with _explained(corpus):
    yield from read(name, split)


def open_task(corpus: str) -> 'TaskReader':
  """Returns the task or mixture `seqio:MODULE:TASK[@SPLIT]`.

  Raises:
    UserError: seqio is not installed, or there is no such task.
  """
  with _explained(corpus):
    from toolformer_jax.data.seqio_reader import TaskReader
    _, name, split = _parts(corpus)
    _add_working_directory()
    return TaskReader(name, *_counted(split))


def task_examples(corpus: str, task: 'TaskReader', seed: int, start: int
                  ) -> Iterator[dict[str, Any]]:
  """Yields the examples of `open_task(corpus)` without end; see `TaskReader.stream`.

  Raises:
    UserError: they cannot be read.
  """
  with _explained(corpus):
    yield from task.stream(seed, start)


@contextlib.contextmanager
def _explained(corpus: str) -> Iterator[None]:
  try:
    yield
  except UserError:
    raise
  except ImportError as error:
    extra = 'hf' if corpus.startswith('hf:') else 'data'
    raise UserError(f'reading {corpus} needs a package ({error}): '
                    f'pip install "toolformer_jax[{extra}]"') from error
  except Exception as error:  # the packages raise all kinds, for names as for the network
    reason = ' '.join(str(error).split())[:300]
    raise UserError(f'cannot read {corpus}: {type(error).__name__}: {reason}') from error


def check_installed(corpus: str) -> None:
  """Raises UserError if the package that reads a dataset, or the module of a task, is missing."""
  kind, name, _ = _parts(corpus)
  package, extra = {'tfds': ('tensorflow_datasets', 'data'), 'hf': ('datasets', 'hf'),
                    'seqio': ('seqio', 'data')}[kind]
  if importlib.util.find_spec(package) is None:
    raise UserError(f'reading {corpus} needs the package {package}: '
                    f'pip install "toolformer_jax[{extra}]"')
  module = name.rpartition(':')[0].split('.')[0] if kind == 'seqio' else ''
  _add_working_directory()
  if module and importlib.util.find_spec(module) is None:
    raise UserError(f'{corpus}: there is no Python module {module}, neither in the working '
                    'directory nor installed')


def local_folder(corpus: str) -> tuple[pathlib.Path, str] | None:
  """Returns folder and split of `hf:FOLDER[@SPLIT]`; None for a dataset that is hosted."""
  kind, name, split = _parts(corpus)
  return (pathlib.Path(name), split) if kind == 'hf' and os.path.isdir(name) else None


def _parts(corpus: str) -> tuple[str, str, str]:
  """Returns kind, name and split of `KIND:NAME[@SPLIT]`."""
  kind, _, rest = corpus.partition(':')
  name, _, split = rest.partition('@')
  return kind, name, split or 'train'


def _tensorflow_rows(name: str, split: str) -> Iterator[dict[str, Any]]:
  import tensorflow_datasets
  _import_tensorflow()
  for row in tensorflow_datasets.as_numpy(tensorflow_datasets.load(name, split=split)):
    decoded = _decoded(row)
    yield _without_markers(decoded) if name.startswith('wiki40b') else decoded


def _without_markers(row: dict[str, Any]) -> dict[str, Any]:
  """Returns an article of Wiki-40B with its title as a field, and its paragraphs as lines.

  Its text is marked up with lines such as _START_SECTION_; the titles of sections are left out.
  """
  title, paragraphs, marker = None, [], ''
  for line in row['text'].split('\n'):
    if line.startswith('_START_'):
      marker = line
    elif marker == '_START_ARTICLE_':
      title = line
    elif marker == '_START_PARAGRAPH_':
      paragraphs += line.split('_NEWLINE_')
  return {**row, 'title': title, 'text': '\n'.join(paragraphs)}


def _import_tensorflow() -> None:
  """Imports TensorFlow with GPUs hidden: it would otherwise reserve all of their memory."""
  import tensorflow
  tensorflow.config.set_visible_devices([], 'GPU')


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
  return {field: value.decode('utf-8', 'replace') if isinstance(value, bytes) else value
          for field, value in row.items()}


def _hugging_face_rows(name: str, split: str) -> Iterator[dict[str, Any]]:
  import datasets
  path, config = name, None
  # `org/name/config`: the configuration follows the second slash, unless all of it is a folder.
  if not os.path.isdir(name) and name.count('/') == 2:
    path, _, config = name.rpartition('/')
  split, count = _counted(split)
  rows = datasets.load_dataset(path, config, split=split, streaming=True)
  yield from rows if count is None else rows.take(count)


def _seqio_rows(name: str, split: str) -> Iterator[dict[str, Any]]:
  from toolformer_jax.data.seqio_reader import TaskReader
  _add_working_directory()
  yield from TaskReader(name, *_counted(split)).rows()


def _add_working_directory() -> None:
  """Lets modules of the working directory be imported."""
  if os.getcwd() not in sys.path:
    sys.path.append(os.getcwd())


def _counted(split: str) -> tuple[str, int | None]:
  """Returns `train` and 1000 of `train[:1000]`, which streams do not understand."""
  sliced = re.fullmatch(r'(\w+)\[:(\d+)\]', split)
  return (sliced[1], int(sliced[2])) if sliced else (split, None)
