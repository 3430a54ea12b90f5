"""WebQuestions, Natural Questions and TriviaQA: open-domain questions (paper, 4.2.3)."""

import re
from collections.abc import Iterator
from typing import Any

from toolformer_jax.evaluation.answer_matching import FirstWords
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.files import TaskFolder, read_json, read_lines
from toolformer_jax.evaluation.task import Question, QuestionTask

_DESCRIPTION = re.compile(r'\(description (?:"((?:[^"\\]|\\.)*)"|([^()]+?))\)')


def prompt(question: str) -> str:
  """Returns the prompt of a question, which ends in a question mark."""
  question = question.strip()
  return f'Answer the following question: {question}{"" if question.endswith("?") else "?"}'


def read_webquestions(folder: TaskFolder, config: EvaluationConfig) -> Iterator[Question]:
  """Yields the test questions (Berant et al. 2013), in the official format or that of brmson."""
  path = folder.file('test.json', '*test*.json', '*.json')
  for i, fields in enumerate(read_json(path)):
    if 'qText' in fields:
      yield Question(fields['qId'], prompt(fields['qText']), _tuple(fields['answers']))
    else:
      answers = tuple(quoted.replace('\\"', '"') or plain
                      for quoted, plain in _DESCRIPTION.findall(fields['targetValue']))
      yield Question(f'wqs{i:06}', prompt(fields['utterance']), answers)


def _tuple(answers: Any) -> tuple[Any, ...]:
  """Returns a list as a tuple; a string would become one of characters."""
  if not isinstance(answers, list):
    raise TypeError(f'answers must be a list, not {answers!r}')
  return tuple(answers)


def read_nq_open(folder: TaskFolder, config: EvaluationConfig) -> Iterator[Question]:
  """Yields the questions of the dev part of NQ-open (Lee et al. 2019)."""
  path = folder.file('NQ-open.dev.jsonl', '*dev*.jsonl', '*.jsonl')
  for i, fields in enumerate(read_lines(path)):
    yield Question(f'nq-{i:05}', prompt(fields['question']), _tuple(fields['answer']))


def read_triviaqa(folder: TaskFolder, config: EvaluationConfig) -> Iterator[Question]:
  """Yields the questions of TriviaQA (Joshi et al. 2017) whose answers are public, the dev part."""
  path = folder.file('unfiltered-web-dev.json', '*/unfiltered-web-dev.json', '*dev*.json',
                     '**/*dev*.json')
  for fields in read_json(path)['Data']:
    answer = fields['Answer']
    answers = dict.fromkeys([answer['Value'], *answer.get('Aliases', ())])
    yield Question(fields['QuestionId'], prompt(fields['Question']), tuple(answers))


_PROMPT = prompt('...')
_MATCHER, _WITHOUT = FirstWords(20), frozenset({'QA'})  # the paper's QA tool was trained on NQ
WEBQUESTIONS = QuestionTask(
    'webquestions', 'WebQS', read_webquestions,
    'fetch main/test.json of github.com/brmson/dataset-factoid-webquestions, or '
    'webquestions.examples.test.json of SEMPRE', _MATCHER, _WITHOUT, prompt=_PROMPT, split='test')
NQ_OPEN = QuestionTask(
    'nq_open', 'NQ', read_nq_open,
    'fetch nq_open/NQ-open.dev.jsonl of github.com/google-research-datasets/natural-questions',
    _MATCHER, _WITHOUT, prompt=_PROMPT, split='dev')
TRIVIAQA = QuestionTask(
    'triviaqa', 'TriviaQA', read_triviaqa,
    'fetch unfiltered-web-dev.json of triviaqa-unfiltered.tar.gz from '
    'nlp.cs.washington.edu/triviaqa', _MATCHER, _WITHOUT, prompt=_PROMPT, split='dev')
