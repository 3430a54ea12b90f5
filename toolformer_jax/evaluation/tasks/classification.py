"""Banking77, CLINC150 and SIB-200: texts with one of several labels, in text-to-text form.

A prompt is the text and the name of what is asked for, on a line of its own; the label follows on
the same line. Fine-tuning learns the same form.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from toolformer_jax.evaluation.answer_matching import FirstLine
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.files import TaskFolder, read_csv, read_json, read_tsv
from toolformer_jax.evaluation.task import ClassificationTask, Question, interleave

OUT_OF_SCOPE = 'out of scope'
# Folders of SIB-200 by the language code of the group.
LANGUAGES = {'en': 'eng_Latn', 'zh': 'zho_Hans', 'de': 'deu_Latn', 'es': 'spa_Latn',
             'hi': 'hin_Deva'}


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


def _task(name: str, title: str, read_split: ReadSplit, asked: str, how_to_get: str,
          groups: tuple[tuple[str, str], ...] = ()) -> ClassificationTask:
  """Returns the task whose test split `read_split` reads, and whose prompts ask for `asked`."""
  def prompt(text: str) -> str:
    return f'{" ".join(text.split())}\n{asked}:'
  def read(folder: TaskFolder, split: str) -> Iterator[Question]:
    # The test split of a large set may lack a label.
    unrecorded = TaskFolder(folder.path, folder.how_to_get)
    labels = tuple(sorted({one.label for one in read_split(unrecorded, 'train')}))
    for number, one in enumerate(read_split(folder, split)):
      yield Question(f'{name}-{split}-{number:05}', prompt(one.text), (one.label,), one.group,
                     labels=labels)
  def read_test(folder: TaskFolder, config: EvaluationConfig) -> Iterator[Question]:
    return read(folder, 'test')
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
