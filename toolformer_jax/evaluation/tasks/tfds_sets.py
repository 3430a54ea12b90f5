"""The benchmarks that TensorFlow Datasets has: `--data_dir tfds:`, or `tfds:D` to keep them in D.

Questions, ids and answers equal those of the official files, where there are such files.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from toolformer_jax.data.gsm8k import is_dev
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.files import MissingDataError, TaskFolder
from toolformer_jax.evaluation.task import Example, Question, Task, interleave
from toolformer_jax.evaluation.tasks import multilingual, questions, word_problems
from toolformer_jax.runtime.paths import as_path

log = logging.getLogger(__name__)
# Tasks whose own readers take rows of every split, and so can be trained on.
TRAINABLE = ('sst2', 'ag_news_subset', 'xsum')
Load = Callable[[str, str], Iterator[dict[str, Any]]]  # from name and split to rows


@dataclass
class TfdsFolder(TaskFolder):
  """The folder of prepared data sets; it has rows in place of files.

  Attributes:
    data_dir: its name; '' for the default of tfds.
    title: of the task.
  """

  data_dir: str = ''
  title: str = ''

  @classmethod
  def of(cls, task: Task, data_dir: str) -> 'TfdsFolder':
    """Returns the folder `data_dir` for a task."""
    return cls(as_path(data_dir or '.'), task.how_to_get, data_dir=data_dir, title=task.title)

  def rows(self, name: str, split: str) -> Iterator[dict[str, Any]]:
    """Yields the rows of a data set, which is downloaded if it is not there.

    Raises:
      UserError: it cannot be loaded, or tfds is not installed.
    """
    try:
      import tensorflow as tf
      import tensorflow_datasets as tfds
    except ImportError as error:
      raise UserError('--data_dir tfds: needs: pip install "toolformer_jax[data]"') from error
    tf.config.set_visible_devices([], 'GPU')  # TensorFlow would take all of its memory
    for logger, level in (('tensorflow_datasets', logging.WARNING), ('absl', logging.ERROR),
                          ('urllib3', logging.ERROR)):  # which warns of each of ten attempts
      logging.getLogger(logger).setLevel(level)
    self.found.append(f'tfds:{name}')
    self.split = split
    log.info('reading %s of TensorFlow Datasets; it is downloaded if it is not there', name)
    try:
      yield from tfds.as_numpy(tfds.load(name, split=split, data_dir=self.data_dir or None))
    except Exception as error:  # of the network, of the disk
      reason = ' '.join(str(error).split())[:300]
      raise UserError(
          f'tfds cannot load {name}: {type(error).__name__}: {reason}; where there is no network, '
          'copy the folder of a machine that has prepared it to D, and give --data_dir tfds:D'
      ) from error

  def _matching(self, patterns: Sequence[str]) -> NoReturn:
    raise MissingDataError(f'tfds has no {self.title}: {self.how_to_get}')


def read_tfds(task: Task, folder: TfdsFolder, config: EvaluationConfig) -> Iterable[Example]:
  """Returns the examples of a task.

  Args:
    task: the task.
    folder: where they are; notes what is read.
    config: which part of GSM8K is read.

  Raises:
    MissingDataError: tfds does not have it.
    UserError: it cannot be loaded, or tfds is not installed.
  """
  if task.name == 'gsm8k':
    return _gsm8k(folder.rows, config.gsm8k_split)
  if task.name in _READERS:
    return _READERS[task.name](folder.rows)
  return task.read(folder, config)


def _texts(values: Any) -> tuple[str, ...]:
  return tuple(dict.fromkeys(value.decode() for value in values))


def _nq_open(load: Load) -> Iterator[Question]:
  for i, row in enumerate(load('natural_questions_open', 'validation')):
    yield Question(f'nq-{i:05}', questions.prompt(row['question'].decode()), _texts(row['answer']))


def _webquestions(load: Load) -> Iterator[Question]:
  for i, row in enumerate(load('web_questions', 'test')):
    yield Question(f'wqs{i:06}', questions.prompt(row['question'].decode()), _texts(row['answers']))


def _triviaqa(load: Load) -> Iterator[Question]:
  for row in load('trivia_qa/unfiltered.nocontext', 'validation'):
    answers = [row['answer']['value'], *row['answer']['aliases']]
    yield Question(row['question_id'].decode(), questions.prompt(row['question'].decode()),
                   _texts(answers))


def _gsm8k(load: Load, wanted: str) -> Iterator[Question]:
  split = 'test' if wanted == 'test' else 'train'
  for i, row in enumerate(load('gsm8k', split)):
    question = row['question'].decode()
    if wanted == 'test' or is_dev(question):
      answer = row['answer'].decode().rpartition('####')[2].strip()
      yield Question(f'{split}-{i:05}', word_problems.prompt(question), (answer,))


def _xquad(load: Load) -> Iterator[Question]:
  english = {row['id']: row for row in load('xquad/en', 'test')}
  def questions_in(language: str) -> Iterator[Question]:
    for row in load(f'xquad/{language}', 'test'):
      english_row = english[row['id']]
      yield Question(f'{language}-{row["id"].decode()}',
                     multilingual.prompt(english_row['context'].decode(),
                                         row['question'].decode()),
                     _texts(english_row['answers']['text']), language)
  return interleave([questions_in(language) for language in multilingual.LANGUAGES])


_READERS: dict[str, Callable[[Load], Iterator[Question]]] = {
    'nq_open': _nq_open, 'webquestions': _webquestions, 'triviaqa': _triviaqa, 'xquad': _xquad}
