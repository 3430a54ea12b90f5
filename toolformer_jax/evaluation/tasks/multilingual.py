"""MLQA and XQuAD: an English paragraph, a question in another language (paper, 4.2.4)."""

import re
from collections.abc import Iterator
from typing import Any

from etils import epath

from toolformer_jax.evaluation.answer_matching import FirstWords
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.files import MissingDataError, TaskFolder, read_json
from toolformer_jax.evaluation.task import Question, QuestionTask, interleave

LANGUAGES = ('es', 'de', 'hi', 'vi', 'zh', 'ar')


def prompt(paragraph: str, question: str) -> str:
  """Returns the prompt of a question about a paragraph."""
  return ('Your task is to answer a question based on the following paragraph: '
          f'{paragraph.strip()} Now answer the following question in English: {question.strip()}')


def read_mlqa(folder: TaskFolder, config: EvaluationConfig) -> Iterator[Question]:
  """Yields the test questions of MLQA (Lewis et al. 2020), whose answers are English."""
  by_language = _mlqa_files(folder)
  return interleave([[_question(language, paragraph, qa['question'], qa)
                      for paragraph, qa in read_squad(by_language[language])]
                     for language in LANGUAGES if language in by_language])


def read_mlqa_all_en(folder: TaskFolder, config: EvaluationConfig) -> Iterator[Question]:
  """Yields the same questions in English, grouped by the language that MLQA asks them in."""
  by_language = _mlqa_files(folder)
  if 'en' not in by_language:
    raise MissingDataError(f'{folder.path} has no test-context-en-question-en.json: '
                           f'{folder.how_to_get}')
  english = {qa['id']: (paragraph, qa) for paragraph, qa in read_squad(by_language['en'])}
  def questions(language: str) -> Iterator[Question]:
    for _, qa in read_squad(by_language[language]):
      paragraph, english_qa = english[qa['id']]
      yield _question(language, paragraph, english_qa['question'], english_qa)
  return interleave([questions(language) for language in LANGUAGES if language in by_language])


def _mlqa_files(folder: TaskFolder) -> dict[str, epath.Path]:
  """Returns the files with English paragraphs, by the language of the questions."""
  pattern = 'test-context-en-question-*.json'
  paths = folder.files(pattern, f'test/{pattern}', f'**/{pattern}')
  return {match[1]: path for path in paths
          if (match := re.search(r'question-(\w+)\.json', path.name))}


def read_xquad(folder: TaskFolder, config: EvaluationConfig) -> Iterator[Question]:
  """Yields the questions of XQuAD (Artetxe et al. 2020), with paragraph and answer in English."""
  english = {qa['id']: (paragraph, qa)
             for paragraph, qa in read_squad(folder.file('xquad.en.json'))}
  by_language = {path.name.split('.')[1]: path for path in folder.files('xquad.??.json')}
  def questions(language: str) -> Iterator[Question]:
    for _, qa in read_squad(by_language[language]):
      paragraph, english_qa = english[qa['id']]
      yield _question(language, paragraph, qa['question'], english_qa)
  return interleave([questions(language) for language in LANGUAGES if language in by_language])


def read_squad(path: epath.Path) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields each question of a file in the format of SQuAD, with its paragraph."""
  for article in read_json(path)['data']:
    for paragraph in article['paragraphs']:
      for qa in paragraph['qas']:
        yield paragraph['context'], qa


def _question(language: str, paragraph: str, question: str, english: dict[str, Any]) -> Question:
  answers = dict.fromkeys(answer['text'] for answer in english['answers'])
  return Question(f'{language}-{english["id"]}', prompt(paragraph, question), tuple(answers),
                  language)


_MATCHER = FirstWords(10)
MLQA = QuestionTask(
    'mlqa', 'MLQA', read_mlqa,
    'fetch MLQA_V1.zip as github.com/facebookresearch/MLQA says, and put '
    'test-context-en-question-*.json there', _MATCHER,
    groups=tuple((language, f'MLQA {language.title()}') for language in LANGUAGES),
    prompt=prompt('...', '...'), split='test')
MLQA_ALL_EN = QuestionTask(
    'mlqa_all_en', 'MLQA (all English)', read_mlqa_all_en, MLQA.how_to_get, _MATCHER,
    groups=tuple((language, f'MLQA {language.title()} (all English)') for language in LANGUAGES),
    prompt=prompt('...', '...'), split='test', folder='mlqa',
    remark='Question and paragraph are English: the upper bound of MLQA.')
XQUAD = QuestionTask(
    'xquad', 'XQuAD', read_xquad, 'fetch xquad.*.json of github.com/google-deepmind/xquad',
    _MATCHER, groups=tuple((language, f'XQuAD {language.title()}') for language in LANGUAGES),
    prompt=prompt('...', '...'))
