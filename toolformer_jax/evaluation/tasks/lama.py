"""LAMA (Petroni et al. 2019): statements of facts that end in the answer (paper, 4.2.1).

Only statements whose mask is final are asked, so that they can be read from left to right.
"""

import logging
import re
from collections.abc import Iterator
from typing import Any

from toolformer_jax.data.content_hash import stable_hash
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.answer_matching import FirstWords
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.files import MissingData, TaskFolder, read_lines
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
  """Returns what stands before the mask, None if anything but punctuation follows it."""
  before, found, after = statement.partition(mask)
  return before.strip() if found and not re.search(r'\w', after) and before.strip() else None


def read(folder: TaskFolder, settings: EvaluationConfig) -> Iterator[Question]:
  """Yields the questions of the three sets in turn; those of a set with its relations mixed.

  A set whose files are not there is left out, unless none is there.
  """
  sets, missing = [], []
  for questions in (_squad, _google_re, _trex):
    try:
      sets.append(sorted(questions(folder, settings), key=_mixed))
    except MissingData as error:
      missing.append(error)
  if not sets:
    raise missing[0]
  for error in missing:
    log.warning('LAMA without one of its sets: %s', error)
  return interleave(sets)


def _mixed(question: Question) -> bytes:
  """Orders questions by chance, always the same way."""
  return stable_hash(question.id)


def _squad(folder: TaskFolder, settings: EvaluationConfig) -> Iterator[Question]:
  path = folder.file('Squad_test.jsonl', 'Squad/test.jsonl')
  for fields in read_lines(path):
    yield from _question('squad', fields['id'], [' '.join(fields['masked_sentences'])],
                         fields['obj_label'])


def _google_re(folder: TaskFolder, settings: EvaluationConfig) -> Iterator[Question]:
  for relation, template in _GOOGLE_RE.items():
    path = folder.file(f'Google_RE_{relation}.jsonl', f'Google_RE/{relation}_test.jsonl',
                       f'Google_RE/{relation}.jsonl')
    for fields in read_lines(path):
      statements = ([_filled(template, fields['sub_label'])]
                    if settings.lama_statements == 'template' else fields['masked_sentences'])
      yield from _question('google_re', fields['uuid'], statements, fields['obj_label'])


def _trex(folder: TaskFolder, settings: EvaluationConfig) -> Iterator[Question]:
  templates = {fields['relation']: fields['template']
               for fields in read_lines(folder.file('relations.jsonl'))}
  for path in folder.files('TREx_P*.jsonl', 'TREx/P*.jsonl'):
    for fields in read_lines(path):
      relation = fields['predicate_id']
      if relation not in templates:
        raise UserError(f'{path}: relations.jsonl has no template of {relation}')
      yield from _question('trex', f'{relation}-{fields["uuid"]}',
                           _trex_statements(fields, templates[relation], settings),
                           fields['obj_label'])


def _trex_statements(fields: dict[str, Any], template: str,
                     settings: EvaluationConfig) -> list[str]:
  if settings.lama_statements == 'template':
    return [_filled(template, fields['sub_label'])]
  return [evidence['masked_sentence'] for evidence in fields['evidences']]


def _filled(template: str, subject: str) -> str:
  return template.replace('[X]', subject).replace('[Y]', _MASK)


def _question(group: str, number: str, statements: list[str], answer: str) -> Iterator[Question]:
  """Yields the question of the first statement whose mask is final, if there is one."""
  beginnings = filter(None, map(before_final_mask, statements))
  for beginning in list(beginnings)[:1]:
    yield Question(f'{group}-{number}', PROMPT + beginning, (answer,), group)


LAMA = QuestionTask(
    'lama', 'LAMA', read,
    'fetch https://dl.fbaipublicfiles.com/LAMA/data.zip and put relations.jsonl, Squad_test.jsonl, '
    'Google_RE_*.jsonl and TREx_P*.jsonl there',
    FirstWords(5), without_tools=frozenset({'WikiSearch'}),
    groups=(('squad', 'SQuAD'), ('google_re', 'Google-RE'), ('trex', 'T-REx')),
    prompt=PROMPT + '...')
