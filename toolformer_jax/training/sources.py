"""Reads the texts to train on: annotation runs, files of texts with calls, corpora, seqio tasks."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath

from toolformer_jax.annotation.result import AnnotationResult
from toolformer_jax.annotation.run_reader import RunReader
from toolformer_jax.annotation.stage_keys import MERGED
from toolformer_jax.data import hub_datasets
from toolformer_jax.data.corpus import CorpusConfig, check_corpus, read_corpus
from toolformer_jax.data.jsonl import read_objects
from toolformer_jax.data.page_folder import page_files
from toolformer_jax.data.records import AnnotatedDocument, Document, from_json
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.paths import as_path, is_file
from toolformer_jax.tokenizer import Tokenizer

# The feature of a seqio task that weights its targets: 1 + the weight of each, as 0 is padding.
LOSS_WEIGHTS = 'loss_weights'


@dataclass(frozen=True)
class TaskRow:
  """An example of a seqio task: each feature is text or a sequence of the model's token ids.

  Attributes:
    id: identifies the example.
    inputs: the context; it has no loss.
    targets: what the model learns to predict.
    tokenizer: the tokenizer that ids are of, if it is known.
    loss_weights: the weight of the loss of each target; () for 1.
  """

  id: str
  inputs: str | Sequence[int]
  targets: str | Sequence[int]
  tokenizer: Tokenizer | None = None
  loss_weights: Sequence[float] = ()


Text = AnnotatedDocument | TaskRow
Source = str | os.PathLike  # see `read_texts`


def as_texts(data: AnnotationResult | Source | Iterable[Source | Text | Document],
             config: CorpusConfig = CorpusConfig()) -> list[Text]:
  """Returns texts to train on; strings and paths are sources, which are read as `config` says.

  Raises:
    UserError: a source cannot be read, or an item is neither a source nor a text.
  """
  if isinstance(data, AnnotationResult):
    return list(data.annotated)
  items = [data] if isinstance(data, Source) or not isinstance(data, Iterable) else data
  texts: list[Text] = []
  for number, item in enumerate(items):
    if isinstance(item, Source):
      texts += read_texts(str(item), config)
    elif isinstance(item, Document | Text):
      texts.append(AnnotatedDocument(item, ()) if isinstance(item, Document) else item)
    else:
      raise UserError(f'item {number} of the data is of type {type(item).__name__}; it must be the '
                      'name of a source, a Document, an AnnotatedDocument or a TaskRow')
  return texts


def check_source(source: str) -> None:
  """Checks that a source of `read_texts` is there. No text is read.

  Raises:
    UserError: there is no such source, or it is an annotation run that is not finished, or holds
      runs.
  """
  if (path := as_path(source)).is_dir() and not _is_page_folder(path):
    finished_run(path)
  else:
    check_corpus(source)


def read_texts(source: str, config: CorpusConfig = CorpusConfig()) -> Iterator[Text]:
  """Yields the texts of one source.

  Args:
    source: the output folder of an annotation run; a file of annotated texts (.jsonl, .jsonl.gz,
      .jsonl.zst); a corpus that can be annotated, whose texts have no calls; or a task or mixture
      of seqio, `seqio:MODULE:NAME[@SPLIT]`.
    config: how a corpus is read. Its media are left out: they are not learned.

  Raises:
    UserError: the source does not exist, the annotation run is not finished, the folder holds
      several runs, or a record is invalid.
  """
  if source.startswith(hub_datasets.SEQIO):
    yield from _read_task(source)
  elif (path := as_path(source)).is_dir() and not _is_page_folder(path):
    yield from finished_run(path).annotated()
  elif _has_calls(path):
    yield from _read_annotated(path)
  else:
    for document in read_corpus(source, dataclasses.replace(config, media=False)):
      yield AnnotatedDocument(document, ())


def _is_page_folder(folder: epath.Path) -> bool:
  """Returns whether a folder has pages, and nothing of a run: a run's report is no page.

  Raises:
    UserError: folders in it are those of runs, as in the folder of a grid.
  """
  of_runs = 'run.json', 'config.gin', 'documents'
  if any((folder / name).exists() for name in of_runs):
    return False
  pages = page_files(folder)
  _check_holds_no_run(folder, pages)
  return bool(pages)


def _check_holds_no_run(folder: epath.Path, pages: Iterable[epath.Path]) -> None:
  """Raises UserError if one of `pages`, which are below `folder`, is the report of a run."""
  runs = [inner for inner in dict.fromkeys(page.parent for page in pages)
          if (inner / 'run.json').exists() or (inner / 'config.gin').exists()]
  if not runs:
    return
  annotated = [str(run) for run in runs if (run / 'documents').exists()]
  instead = (f'give a run of annotate in it: {", ".join(annotated)}' if annotated else
             'no finished run of annotate is among them')
  raise UserError(f'{folder} holds the folders of runs, and their reports are not training texts; '
                  f'{instead}')


def finished_run(path: epath.PathLike) -> RunReader:
  """Returns the reader of the output folder of a finished annotation run.

  Raises:
    UserError: it is something else.
  """
  run = RunReader(as_path(path))
  if not run.is_complete(MERGED):
    raise UserError(f'{run.path} is not the output folder of a finished annotation run; start '
                    '`toolformer annotate` again to finish it')
  return run


def _has_calls(file: epath.Path) -> bool:
  """Returns whether a record of a JSON Lines file is an annotated text."""
  return (is_file(file) and '.jsonl' in file.suffixes
          and any('calls' in fields for _, fields in read_objects(file)))


def _read_annotated(file: epath.Path) -> Iterator[AnnotatedDocument]:
  for number, fields in read_objects(file):
    try:
      yield from_json(AnnotatedDocument, {'calls': [], **fields})
    except (TypeError, ValueError) as error:
      raise UserError(f'{file}:{number}: not an AnnotatedDocument record ({error})') from error


def _read_task(source: str) -> Iterator[TaskRow]:
  task = hub_datasets.open_task(source)
  task.check_ids()
  for number, row in enumerate(hub_datasets.read_rows(source)):
    yield task_row(source, number, row, task.tokenizer)


def task_row(source: str, number: int, fields: Mapping[str, Any],
             tokenizer: Tokenizer | None = None) -> TaskRow:
  """Returns example `number` of a seqio task; `tokenizer` is the one that its ids are of.

  Raises:
    UserError: it has no targets, or something is neither text nor ids.
  """
  if 'targets' not in fields:
    raise UserError(f'{source}: its examples have no feature `targets`, only {", ".join(fields)}')
  features = {name: fields.get(name, '') for name in ('inputs', 'targets')}
  for name, value in features.items():
    if not _is_text_or_ids(value):
      raise UserError(f'{source}: `{name}` of example {number} is {value!r:.60}, which is '
                      'neither text nor the ids of its tokens; add a preprocessor to the task '
                      'that writes it as text')
  weights = [float(weight) - 1 for weight in fields.get(LOSS_WEIGHTS, ())]
  return TaskRow(f'{source}-{number}', **features, tokenizer=tokenizer, loss_weights=weights)


def _is_text_or_ids(value: Any) -> bool:
  """Returns whether a feature can be learned: numbers such as labels are no ids of tokens."""
  return isinstance(value, str) or (np.ndim(value) == 1 and np.asarray(value).dtype.kind in 'iu')
