"""Where texts to train on come from: annotation runs, corpora, seqio's tasks and mixtures."""

import pathlib
from collections.abc import Iterator

from toolformer_jax.annotation.run_dir import MERGED
from toolformer_jax.data import hub_datasets as hosted
from toolformer_jax.data.corpus import read_corpus
from toolformer_jax.data.jsonl import read_objects
from toolformer_jax.data.records import AnnotatedDocument, read_records
from toolformer_jax.errors import UserError
from toolformer_jax.training.data import TaskRow


def read_texts(source: str) -> Iterator[AnnotatedDocument | TaskRow]:
  """Yields the texts of one source.

  Args:
    source: the output folder of an annotation run; a file of such texts with calls (.jsonl); any
      corpus that can be annotated, whose texts have no calls; or a task or mixture of seqio,
      `seqio:MODULE:NAME[@SPLIT]`.

  Raises:
    UserError: there is no such source, the annotation run has not ended, or a record is broken.
  """
  path = pathlib.Path(source)
  if source.startswith(hosted.SEQIO):
    yield from _task_rows(source)
  elif path.is_dir():
    for file in _merged_files(path):
      yield from read_records(file, AnnotatedDocument)
  elif _has_calls(path):
    yield from read_records(path, AnnotatedDocument)
  else:
    for document in read_corpus(source):
      yield AnnotatedDocument(document, ())


def _merged_files(run: pathlib.Path) -> list[pathlib.Path]:
  merged = run / MERGED
  if not (merged / '.COMPLETED').exists():
    raise UserError(f'{run} is no output folder of annotate, or the run has not ended; '
                    'start `toolformer annotate` again to finish it')
  return sorted(merged.glob('[0-9]*.jsonl'))


def _has_calls(file: pathlib.Path) -> bool:
  """Tells whether the first line of a file of JSON Lines is a text with a list of calls."""
  if not file.is_file() or file.suffix != '.jsonl':
    return False
  _, fields = next(read_objects(file), (0, {}))
  return 'calls' in fields


def _task_rows(source: str) -> Iterator[TaskRow]:
  for number, row in enumerate(hosted.read_rows(source)):
    if 'targets' not in row:
      raise UserError(f'{source}: its examples have no feature `targets`, but {", ".join(row)}')
    yield TaskRow(f'{source}-{number}', row.get('inputs', ''), row['targets'])
