"""LAMA and TempLAMA: factual statements that end in the answer (paper, 4.2.1 and 4.2.5).

Only statements that end in the mask are used: a left-to-right model can complete these.
"""

import logging
import re
from collections.abc import Iterator
from typing import Any

from toolformer_jax.data.content_hash import stable_hash
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.answer_matching import FirstWords
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.files import MissingDataError, TaskFolder, read_lines
from toolformer_jax.evaluation.task import Question, QuestionTask, interleave

log = logging.getLogger(__name__)

PROMPT = 'Please complete the following text so that it is factually correct: '
# Google-RE has no file of templates: these are the ones of the authors of LAMA.
_GOOGLE_RE = {
    'date_of_birth': '[X] (born [Y]).',
    'place_of_birth': '[X] was born in [Y] .',
    'place_of_death': '[X] died in [Y] .',
}
_MASK = '[MASK]'


def before_final_mask(statement: str, mask: str = _MASK) -> str | None:
  """Returns the text before the mask; None if a word follows it or nothing stands before it."""
  before, separator, after = statement.partition(mask)
  is_final = separator and not re.search(r'\w', after)
  return (before.strip() or None) if is_final else None


def read_lama(folder: TaskFolder, config: EvaluationConfig) -> Iterator[Question]:
  """Yields the questions of LAMA (Petroni et al. 2019), of its three sets in turn.

  The relations of a set are shuffled. A set without files is left out, unless all are missing.
  """
  sets, missing = [], []
  for questions in (_squad, _google_re, _trex):
    try:
      sets.append(sorted(questions(folder, config), key=_shuffle_key))
    except MissingDataError as error:
      missing.append(error)
  if not sets:
    raise missing[0]
  for error in missing:
    log.warning('LAMA: one of its sets is missing: %s', error)
  return interleave(sets)


def _shuffle_key(question: Question) -> bytes:
  """Returns a key that sorts questions in random order, always the same one."""
  return stable_hash(question.id)


def _squad(folder: TaskFolder, config: EvaluationConfig) -> Iterator[Question]:
  path = folder.file('Squad_test.jsonl', 'Squad/test.jsonl')
  for fields in read_lines(path):
    yield from _question('squad', fields['id'], [' '.join(fields['masked_sentences'])],
                         fields['obj_label'])


def _google_re(folder: TaskFolder, config: EvaluationConfig) -> Iterator[Question]:
  for relation, template in _GOOGLE_RE.items():
    path = folder.file(f'Google_RE_{relation}.jsonl', f'Google_RE/{relation}_test.jsonl',
                       f'Google_RE/{relation}.jsonl')
    for fields in read_lines(path):
      statements = ([_fill_template(template, fields['sub_label'])]
                    if config.lama_statements == 'template' else fields['masked_sentences'])
      yield from _question('google_re', fields['uuid'], statements, fields['obj_label'])


def _trex(folder: TaskFolder, config: EvaluationConfig) -> Iterator[Question]:
  templates = {fields['relation']: fields['template']
               for fields in read_lines(folder.file('relations.jsonl'))}
  for path in folder.files('TREx_P*.jsonl', 'TREx/P*.jsonl'):
    for fields in read_lines(path):
      relation = fields['predicate_id']
      if relation not in templates:
        raise UserError(f'{path}: relations.jsonl has no template of {relation}')
      yield from _question('trex', f'{relation}-{fields["uuid"]}',
                           _trex_statements(fields, templates[relation], config),
                           fields['obj_label'])


def _trex_statements(fields: dict[str, Any], template: str,
                     config: EvaluationConfig) -> list[str]:
  if config.lama_statements == 'template':
    return [_fill_template(template, fields['sub_label'])]
  return [evidence['masked_sentence'] for evidence in fields['evidences']]


def _fill_template(template: str, subject: str) -> str:
  return template.replace('[X]', subject).replace('[Y]', _MASK)


def _question(group: str, example_id: str, statements: list[str], answer: str
              ) -> Iterator[Question]:
  """Yields the question of the first statement whose mask is final, if there is one."""
  beginning = next(filter(None, map(before_final_mask, statements)), None)
  if beginning is not None:
    yield Question(f'{group}-{example_id}', PROMPT + beginning, (answer,), group)


def read_templama(folder: TaskFolder, config: EvaluationConfig) -> Iterator[Question]:
  """Yields the questions of TempLAMA (Dhingra et al. 2022), facts that change over the years.

  A question does not name its year: the calendar returns a day of it.
  """
  path = folder.file('test.json', 'test.jsonl', 'templama_test.json')
  for fields in read_lines(path):
    beginning = before_final_mask(fields['query'], '_X_')
    if beginning is not None:
      answers = dict.fromkeys(answer['name'] for answer in fields['answer'])
      yield Question(fields['id'], PROMPT + beginning, tuple(answers),
                     date=f'{fields["date"]}-{config.templama_day}')


LAMA = QuestionTask(
    'lama', 'LAMA', read_lama,
    'fetch https://dl.fbaipublicfiles.com/LAMA/data.zip and put relations.jsonl, Squad_test.jsonl, '
    'Google_RE_*.jsonl and TREx_P*.jsonl there',
    FirstWords(5), without_tools=frozenset({'WikiSearch'}),
    groups=(('squad', 'SQuAD'), ('google_re', 'Google-RE'), ('trex', 'T-REx')),
    prompt=PROMPT + '...')
TEMPLAMA = QuestionTask(
    'templama', 'TempLAMA', read_templama,
    'fetch https://storage.googleapis.com/gresearch/templama/test.json', FirstWords(5),
    prompt=PROMPT + '...', split='test')
