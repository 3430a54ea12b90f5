"""Texts with one of several labels, in text-to-text form: intents, topics, sentiment.

A prompt is the text and the name of what is asked for, on a line of its own; the label follows on
the same line. Fine-tuning learns the same form.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from toolformer_jax.evaluation.answer_matching import FirstLine
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.files import TaskFolder, read_csv, read_json, read_tsv
from toolformer_jax.evaluation.task import ClassificationTask, Question, interleave

OUT_OF_SCOPE = 'out of scope'
# Folders of SIB-200 by the language code of the group.
LANGUAGES = {'en': 'eng_Latn', 'zh': 'zho_Hans', 'de': 'deu_Latn', 'es': 'spa_Latn',
             'hi': 'hin_Deva'}
# The labels of data sets of tfds by their numbers.
SENTIMENTS = 'negative', 'positive'
NEWS_TOPICS = 'World', 'Sports', 'Business', 'Sci/Tech'


@dataclass(frozen=True)
class LabelledText:
  """A text of a data set, its label in words, and the group that it belongs to."""

  text: str
  label: str
  group: str = ''


ReadSplit = Callable[[TaskFolder, str], Iterator[LabelledText]]  # by the name of a split


def read_banking77(folder: TaskFolder, split: str) -> Iterator[LabelledText]:
  """Yields the questions of Banking77 (Casanueva et al. 2020)."""
  for row in read_csv(folder.file(f'{split}.csv')):
    yield LabelledText(row['text'], row['category'].replace('_', ' '))


def read_clinc150(folder: TaskFolder, split: str) -> Iterator[LabelledText]:
  """Yields the questions of CLINC150 (Larson et al. 2019), those out of scope last."""
  data = read_json(folder.file('data_full.json', 'data_small.json'))
  for text, label in (*data[split], *data[f'oos_{split}']):
    yield LabelledText(text, OUT_OF_SCOPE if label == 'oos' else label.replace('_', ' '))


def read_sib200(folder: TaskFolder, split: str) -> Iterator[LabelledText]:
  """Yields the sentences of SIB-200 (Adelani et al. 2024) in the languages that are there."""
  def of_language(language: str) -> Iterator[LabelledText]:
    for row in read_tsv(folder.file(f'{LANGUAGES[language]}/{split}.tsv')):
      yield LabelledText(row['text'], row['category'], language)
  there = [language for language, name in LANGUAGES.items() if (folder.path / name).is_dir()]
  return interleave(map(of_language, there or ['en']))


def read_sst2(folder: TaskFolder, split: str) -> Iterator[LabelledText]:
  """Yields sentences on films (SST-2, Socher et al. 2013, as in GLUE).

  The validation split is tested: the labels of the official test split are not public.
  """
  for row in folder.rows('glue/sst2', 'validation' if split == 'test' else split):
    yield LabelledText(row['sentence'].decode(), SENTIMENTS[row['label']])


def read_ag_news(folder: TaskFolder, split: str) -> Iterator[LabelledText]:
  """Yields news with their titles (AG News, Zhang et al. 2015)."""
  for row in folder.rows('ag_news_subset', split):
    text = f'{row["title"].decode()}. {row["description"].decode()}'
    yield LabelledText(text, NEWS_TOPICS[row['label']])


def _task(name: str, title: str, read_split: ReadSplit, asked: str, how_to_get: str,
          groups: tuple[tuple[str, str], ...] = (), labels: Sequence[str] = ()
          ) -> ClassificationTask:
  """Returns the task whose test split `read_split` reads, and whose prompts ask for `asked`.

  Its labels are `labels`, or else those of the training split.
  """
  def prompt(text: str) -> str:
    return f'{" ".join(text.split())}\n{asked}:'
  def read(folder: TaskFolder, split: str) -> Iterator[Question]:
    # The test split of a large set may lack a label.
    unrecorded = dataclasses.replace(folder, found=[])
    known = labels or sorted({one.label for one in read_split(unrecorded, 'train')})
    for number, one in enumerate(read_split(folder, split)):
      yield Question(f'{name}-{split}-{number:05}', prompt(one.text), (one.label,), one.group,
                     labels=tuple(known))
  def read_test(folder: TaskFolder, config: EvaluationConfig) -> Iterator[Question]:
    # Official files are sorted by label, so that the first questions would have few of them.
    yield from sorted(read(folder, 'test'),
                      key=lambda question: hashlib.sha256(question.id.encode()).digest())
  return ClassificationTask(
      name, title, read_test, how_to_get, FirstLine(), prompt=prompt('...').replace('\n', ' / '),
      groups=groups, split='test', read_split=read, content_free_prompt=prompt('N/A'))


BANKING77 = _task('banking77', 'Banking77', read_banking77, 'Intent',
                  'fetch train.csv and test.csv of PolyAI-LDN/task-specific-datasets')
CLINC150 = _task('clinc150', 'CLINC150', read_clinc150, 'Intent',
                 'fetch data_full.json of clinc/oos-eval')
SIB200 = _task('sib200', 'SIB-200', read_sib200, 'Topic',
               'fetch the folders eng_Latn and so on of dadelani/sib-200, with *.tsv',
               groups=tuple((language, f'SIB-200 {language}') for language in LANGUAGES))
SST2 = _task('sst2', 'SST-2', read_sst2, 'Sentiment',
             'TensorFlow Datasets has it as glue/sst2: give --data_dir tfds:', labels=SENTIMENTS)
AG_NEWS = _task('ag_news_subset', 'AG News', read_ag_news, 'Topic',
                'TensorFlow Datasets has it: give --data_dir tfds:', labels=NEWS_TOPICS)
