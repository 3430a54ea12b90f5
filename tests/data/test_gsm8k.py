"""GSM8K as an oracle: where a number was derived, and from what."""

import gzip
import json

import pytest

from toolformer_jax.data.equations import has_arithmetic_left
from toolformer_jax.data.gsm8k import Oracle, Problem, collapse_gsm8k, is_dev, read_gsm8k
from toolformer_jax.errors import UserError


def test_collapses_to_statements():
  text, oracles = collapse_gsm8k(
    'A hen lays 3*7=<<3*7=21>>21 eggs a week\nThey sell for 21*.5=$<<21*.5=10.5>>10.50\n#### 10.50'
  )
  assert text == 'A hen lays 21 eggs a week. They sell for $10.50.'
  assert oracles == [Oracle(11, '3*7', '21'), Oracle(42, '21*.5', '10.50')]


def test_annotation_without_an_equation():
  text, oracles = collapse_gsm8k('Twice as many is <<2*500*2=2000>>2,000 ants.\n#### 2,000')
  assert text == 'Twice as many is 2,000 ants.'
  assert oracles == [Oracle(17, '2*500*2', '2,000')]


def test_number_that_differs_from_its_annotation_has_no_oracle():
  assert collapse_gsm8k('It is 1/3=<<1/3=0.3333>>0.33 of it')[1] == []


def test_number_collapsed_away_has_no_oracle():
  text, oracles = collapse_gsm8k('It takes 2*3=<<2*3=6>>6*4=<<6*4=24>>24 days')
  assert text == 'It takes 24 days.'
  assert oracles == [Oracle(9, '6*4', '24')]


def test_reads_the_official_format(tmp_path):
  path = tmp_path / 'train.jsonl.gz'
  with gzip.open(path, 'wt') as file:
    file.write(json.dumps({'question': 'How many?', 'answer': '#### 2'}) + '\n')
  assert list(read_gsm8k(path)) == [Problem('How many?', '#### 2')]


def test_line_without_an_answer(tmp_path):
  path = tmp_path / 'train.jsonl'
  path.write_text('{"question": "How many?", "answer": 2}\n')
  with pytest.raises(UserError, match='train.jsonl:1: a problem needs the texts'):
    list(read_gsm8k(path))


def test_laws_on_the_training_set(data_dir):
  kept = annotated = 0
  problems = list(read_gsm8k(data_dir / 'gsm8k' / 'train.jsonl.gz'))
  assert len(problems) == 7473
  assert sum(is_dev(problem.question) for problem in problems) == 714
  for problem in problems:
    text, oracles = collapse_gsm8k(problem.answer)
    assert not {'<<', '>>', '####', '\n'}.intersection([text[i:i + 2] for i in range(len(text))])
    assert all(text.startswith(oracle.result, oracle.position_char) for oracle in oracles)
    assert sorted(oracles, key=lambda oracle: oracle.position_char) == oracles
    if not has_arithmetic_left(text):
      kept += 1
      annotated += len(oracles) == problem.answer.count('<<')
  # The others are algebra, fractions and derivations that are not spelt as equations.
  assert kept / len(problems) > 0.9
  assert annotated / kept > 0.99
