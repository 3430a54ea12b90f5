"""ASDiv, SVAMP, MAWPS and GSM8K: word problems whose answer is a number (paper, 4.2.2)."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence

from etils import epath

from toolformer_jax.data.gsm8k import is_dev, read_gsm8k
from toolformer_jax.data.numbers import find_numbers
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.answer_matching import FirstNumber
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.files import (
  MissingDataError,
  TaskFolder,
  read_csv,
  read_json,
  read_text,
)
from toolformer_jax.evaluation.task import Question, QuestionTask

_UNIT = re.compile(r'\.?\s*(?:\([^();]*\))?')  # ` (apples)`, as ASDiv writes it
_PLACEHOLDER = re.compile(r'\bnumber(\d+)\b')


def prompt(problem: str) -> str:
  """Returns the prompt of a problem: the story and its question."""
  return f'{" ".join(problem.split())} The answer is'


def read_asdiv(folder: TaskFolder, config: EvaluationConfig) -> Iterator[Question]:
  """Yields the problems of ASDiv.xml (Miao et al. 2020)."""
  path = folder.file('ASDiv.xml', 'dataset/ASDiv.xml')
  try:
    root = ElementTree.fromstring(read_text(path))
    for problem in root.iter('Problem'):
      body, question, answer = (_text_of(problem, name)
                                for name in ('Body', 'Question', 'Answer'))
      if _is_number(answer) or not config.numeric_only:
        yield Question(problem.attrib['ID'], prompt(f'{body} {question}'), (answer,))
  except (ElementTree.ParseError, AttributeError, KeyError) as error:
    raise UserError(f'{path}: not in the format of ASDiv ({error})') from error


def _text_of(problem: ElementTree.Element, name: str) -> str:
  """Returns the text of a part of a problem. Raises KeyError if it has none."""
  if not (text := problem.findtext(name)):
    raise KeyError(name)
  return text.strip()


def _is_number(answer: str) -> bool:
  """Returns whether an answer is one decimal number, with or without a unit."""
  number = next(find_numbers(answer), None)
  return bool(number and number.start == 0 and _UNIT.fullmatch(answer, number.end))


def read_svamp(folder: TaskFolder, config: EvaluationConfig) -> Iterator[Question]:
  """Yields the problems of SVAMP.json (Patel et al. 2021)."""
  for problem in read_json(folder.file('SVAMP.json')):
    yield Question(problem['ID'], prompt(f'{problem["Body"]} {problem["Question"]}'),
                   (str(problem['Answer']),))


def read_mawps(folder: TaskFolder, config: EvaluationConfig) -> list[Question]:
  """Returns the problems of MAWPS (Koncel-Kedziorski et al. 2016): JSON, or folds in CSV."""
  # The dev parts of all folds make up the whole set.
  paths = folder.files('*.json', '**/dev.csv', '**/*.csv')
  problems: dict[str, str] = {}
  for path in paths:
    for text, answer in _mawps_json(path) if '.json' in path.suffixes else _mawps_csv(path):
      problems.setdefault(prompt(text), answer)
  return [Question(f'mawps-{i:05}', asked, (answer,))
          for i, (asked, answer) in enumerate(problems.items())]


def _mawps_json(path: epath.Path) -> Iterator[tuple[str, str]]:
  for problem in read_json(path):
    yield problem['sQuestion'], str(problem['lSolutions'][0])


def _mawps_csv(path: epath.Path) -> Iterator[tuple[str, str]]:
  """Yields problems in whose text `number0` stands for the first of the numbers."""
  for row in read_csv(path):
    numbers = [re.sub(r'\.0+$', '', number) for number in row['Numbers'].split()]  # 8 for 8.0
    yield _filled(row['Question'], numbers), row['Answer']


def _filled(text: str, numbers: Sequence[str]) -> str:
  return _PLACEHOLDER.sub(lambda match: numbers[int(match[1])], text)


def read_gsm8k_questions(folder: TaskFolder, config: EvaluationConfig) -> Iterator[Question]:
  """Yields the test problems of GSM8K, or the dev part of train.jsonl if the settings ask for it.

  That is the tenth of the questions whose sha256 is divisible by 10, which is never annotated.
  """
  wanted = config.gsm8k_split
  folder.split = 'test' if wanted == 'test' else 'the tenth of train that is never annotated'
  name = 'test' if wanted == 'test' else 'train'
  for i, problem in enumerate(read_gsm8k(_gsm8k_file(folder, name))):
    if wanted == 'test' or is_dev(problem.question):
      yield Question(f'{name}-{i:05}', prompt(problem.question), (_gsm8k_answer(problem.answer),))


def _gsm8k_file(folder: TaskFolder, name: str) -> epath.Path:
  try:
    return folder.file(f'{name}.jsonl')
  except MissingDataError as error:
    if name == 'test' and list(folder.path.glob('train.jsonl*')):
      raise MissingDataError(f'{error}; train.jsonl is there: '
                             "EvaluationConfig.gsm8k_split = 'dev' asks its dev part") from error
    raise


def _gsm8k_answer(solution: str) -> str:
  """Returns the final answer of a solution in the format of GSM8K.

  Raises:
    ValueError: there is none.
  """
  _, separator, answer = solution.rpartition('####')
  if not separator:
    raise ValueError(f'no final answer after ####: {solution[-80:]!r}')
  return answer.strip()


_MATCHER, _PROMPT = FirstNumber(), prompt('...')
ASDIV = QuestionTask(
    'asdiv', 'ASDiv', read_asdiv,
    'fetch dataset/ASDiv.xml of github.com/chaochun/nlu-asdiv-dataset', _MATCHER, prompt=_PROMPT)
SVAMP = QuestionTask(
    'svamp', 'SVAMP', read_svamp, 'fetch SVAMP.json of github.com/arkilpatel/SVAMP', _MATCHER,
    prompt=_PROMPT)
MAWPS = QuestionTask(
    'mawps', 'MAWPS', read_mawps,
    'fetch data/cv_mawps (CSV) of github.com/arkilpatel/SVAMP, or the JSON files of MAWPS',
    _MATCHER, prompt=_PROMPT)
GSM8K = QuestionTask(
    'gsm8k', 'GSM8K', read_gsm8k_questions,
    'fetch test.jsonl of github.com/openai/grade-school-math', _MATCHER,
    prompt=_PROMPT,
    remark='A model that was tuned on gsm_symbolic or similar problems, as the quickstart does, '
           'has seen templates of GSM8K test questions: its score is meaningless.')
