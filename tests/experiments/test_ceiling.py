"""The calls of GSM8K's authors stand where a Toolformer's would, and give the answer."""

import gzip
import json

import pytest

from toolformer_jax.data.gsm8k import Problem, is_dev
from toolformer_jax.data.records import Document


@pytest.fixture
def ceiling(experiment):
  return experiment('gsm8k_ceiling')


@pytest.mark.parametrize(('equation', 'answer', 'argument'), [
  ('<<48+24=72>>72', '72', '48 + 24'),
  ('<<30*.5=15>>15', '15', '30 * .5'),
  ('<<200*10%=20>>20', '20', '200 * 10%'),
  ('<<(2+4)/3=2>>2', '2', '(2 + 4) / 3'),
  ('<<48+24=73>>73', '73', None),  # its result is another number
  ('<<72=72>>72', '72', None),  # nothing is calculated
])
def test_the_call_is_the_last_equation(ceiling, tokenizer, equation, answer, argument):
  document = Document('a', f'How many? The answer is no number. The answer is {answer}.')
  problem = Problem('How many?', f'He has 3+4=<<3+4=7>>7.\nSo {equation}.\n#### {answer}')
  call = ceiling.last_equation(problem, document, tokenizer)
  assert (call and call.argument) == argument
  if call:
    assert call.result == answer
    before = document.text[:tokenizer.characters_before(document.text, call.position)]
    assert before == document.text.removesuffix(f' {answer}.')


def test_dev_questions_are_left_out(ceiling, tokenizer, tmp_path):
  problems = [{'question': f'Ann has {n} pears and 2 plums. How many fruits does she have?',
               'answer': f'She has {n}+2=<<{n}+2={n + 2}>>{n + 2} fruits.\n#### {n + 2}'}
              for n in range(40)]
  path = tmp_path / 'train.jsonl.gz'
  with gzip.open(path, 'wt') as file:
    file.writelines(json.dumps(problem) + '\n' for problem in problems)
  found = list(ceiling.annotated(path, 60, tokenizer))
  kept = [problem for problem in problems if not is_dev(problem['question'])]
  assert 0 < len(kept) < 40
  assert [record.calls[0].result for record in found] == [
      problem['answer'].rpartition(' ')[2] for problem in kept]
