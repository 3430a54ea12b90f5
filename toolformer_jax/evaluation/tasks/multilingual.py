"""MLQA and XQuAD: an English paragraph, a question in another language (paper, 4.2.4)."""

import pathlib
import re
from collections.abc import Iterator
from typing import Any

from toolformer_jax.evaluation.answer_matching import FirstWords
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.files import TaskFolder, read_json
from toolformer_jax.evaluation.task import Question, QuestionTask, interleave

LANGUAGES = ('es', 'de', 'hi', 'vi', 'zh', 'ar')


def prompt(paragraph: str, question: str) -> str:
  """Returns the prompt of a question about a paragraph."""
  return ('Your task is to answer a question based on the following paragraph: '
          f'{paragraph.strip()} Now answer the following question in English: {question.strip()}')


def read_mlqa(folder: TaskFolder, settings: EvaluationConfig) -> Iterator[Question]:
  """Yields the test questions of MLQA (Lewis et al. 2020), whose answers are English."""
  pattern = 'test-context-en-question-*.json'
  paths = folder.files(pattern, f'test/{pattern}', f'**/{pattern}')
  by_language = {re.search(r'question-(\w+)\.json', path.name)[1]: path for path in paths}
  return interleave([[_question(language, paragraph, asked['question'], asked)
                   for paragraph, asked in _asked(by_language[language])]
                  for language in LANGUAGES if language in by_language])


def read_xquad(folder: TaskFolder, settings: EvaluationConfig) -> Iterator[Question]:
  """Yields the questions of XQuAD (Artetxe et al. 2020), with paragraph and answer in English."""
  english = {asked['id']: (paragraph, asked)
             for paragraph, asked in _asked(folder.file('xquad.en.json'))}
  by_language = {path.name.split('.')[1]: path for path in folder.files('xquad.??.json')}
  def questions(language: str) -> Iterator[Question]:
    for _, asked in _asked(by_language[language]):
      paragraph, in_english = english[asked['id']]
      yield _question(language, paragraph, asked['question'], in_english)
  return interleave([questions(language) for language in LANGUAGES if language in by_language])


def _asked(path: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields paragraphs and questions of a file in the format of SQuAD."""
  for article in read_json(path)['data']:
    for paragraph in article['paragraphs']:
      for asked in paragraph['qas']:
        yield paragraph['context'], asked


def _question(language: str, paragraph: str, question: str, answered: dict[str, Any]) -> Question:
  answers = dict.fromkeys(answer['text'] for answer in answered['answers'])
  return Question(f'{language}-{answered["id"]}', prompt(paragraph, question), tuple(answers),
                  language)


_RULE = FirstWords(10)
MLQA = QuestionTask('mlqa', 'MLQA', read_mlqa,
            'fetch MLQA_V1.zip as github.com/facebookresearch/MLQA says, and put '
            'test-context-en-question-*.json there', _RULE,
            groups=tuple((language, f'MLQA {language.title()}') for language in LANGUAGES),
            prompt=prompt('...', '...'))
XQUAD = QuestionTask('xquad', 'XQuAD', read_xquad,
             'fetch xquad.*.json of github.com/google-deepmind/xquad', _RULE,
             groups=tuple((language, f'XQuAD {language.title()}') for language in LANGUAGES),
             prompt=prompt('...', '...'))
