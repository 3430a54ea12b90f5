"""What the experiments decide by themselves: which texts they take."""

import pathlib
from collections import Counter

import pytest

from toolformer_jax.data.gsm8k import is_dev, read_gsm8k
from toolformer_jax.data.records import AnnotatedDocument, Document, ScoredCall

EXPERIMENTS = pathlib.Path(__file__).parents[2] / 'experiments'


@pytest.fixture(scope='module')
def quickstart(experiment):
  return experiment('quickstart')


@pytest.mark.parametrize(('problem', 'operation', 'value'), [
    ('Ann has 24 rows of 15 roses. How many? She has 360 roses.', '*', 360),
    ('Ann has 1,240 roses and 230 plums. How many? She has 1,470.', '+', 1470),
    ('Ann has 1240 roses and 230 die. How many? She has 1010.', '-', 1010),
    ('Ann has 46.50 and buys 31. How much? She pays 1441.50.', '*', 1441.5),
    ('Ann has 864 roses in rows of 12. How many rows? She has 72.', '/', 72),
    ('Ann has 61 and 73. How many? She has 134.', None, 0),  # such sums are guessed
    ('Ann has 24 and 15 of 360. How many? She has 360.', None, 0),  # nothing is derived
    ('Ann has 4 rows of 15 roses. How many? She has 60 roses.', None, 0),
    ('Ann has 24 rows. How many? She has 360 roses in rows of 15.', None, 0),  # said too late
    ('24 times 15 are 360', '*', 360),  # no question: all of it is solution
])
def test_derived_numbers_are_large_and_one_operation_away(experiment, problem, operation, value):
  found = experiment('quickstart_corpora').derived_number(problem)
  assert (found and found.operation) == operation
  assert found is None or found.value == value and problem[found.start:].startswith(
      (f'{value:g}', f'{value:,}', f'{value:.2f}'))


def annotated(number, argument, tool='Calculator'):
  call = ScoredCall(f'{tool}{number}', tool, argument, 0, 0.5, '1')
  return AnnotatedDocument(Document(f'{tool}{number}', 'One.'), (call,))


def test_training_mix_repeats_what_is_rare_and_has_nothing_held_out(quickstart):
  many = [annotated(i, f'{i} * 2' if i % 5 else f'{i} + 2') for i in range(200)]
  few = [annotated(i, 'cats', 'WikiSearch') for i in range(5)]
  mix = quickstart.training_mix({'Calculator': many, 'WikiSearch': few})
  operations = Counter(map(quickstart.operation_of, mix))
  assert operations['+'] == operations['*'] == quickstart.TRAINED_TEXTS['Calculator'] // 2
  often = Counter(text.document.id for text in mix)
  assert max(often.values()) == quickstart.MAX_REPEATS
  held_out = {text.document.id for some in (many, few)
              for text in some[::quickstart.HELD_OUT_EVERY]}
  assert not held_out & set(often) and {text.document.id for text in few} - held_out <= set(often)


@pytest.mark.parametrize(('answer', 'text'), [
  ('She sold 48/2 = <<48/2=24>>24 clips.\nIn all 48 + 24 = <<48+24=72>>72 clips.\n#### 72',
   'How many? She sold 24 clips. The answer is 72.'),
  ('That makes 2*600=$<<2*600=1200>>1200.\n#### 1,200', 'How many? The answer is 1200.'),
  ('2*3=<<2*3=6>>6 and 6*2=<<6*2=12>>12.\n#### 12', None),  # two steps in one
  ('It is half of that.\n#### 12', None),
])
def test_problems_end_with_their_answer_and_tell_no_equation(experiment, answer, text):
  problem = experiment('answer_corpus').Problem('How  many?', answer)
  assert experiment('answer_corpus').with_answer(problem) == text


def test_dev_questions_and_equations_are_in_no_answer_corpus(experiment, data_dir):
  path = data_dir / 'gsm8k' / 'train.jsonl.gz'
  corpus = list(experiment('answer_corpus').answered(path, 60))
  assert len(corpus) > 2000
  assert not any('=' in document.text or '<<' in document.text for document in corpus)
  dev = {f'gsm8k-{i:05}' for i, problem in enumerate(read_gsm8k(path)) if is_dev(problem.question)}
  assert dev and not dev & {document.id for document in corpus}


@pytest.mark.parametrize(('argument', 'operation'), [
  ('48 / 2', '/'), ('5 - -3', '-'), ('-5 * 3', '*'), ('2 * 3 + 4', 'several'), ('(2 + 3) + 4', '+'),
  ('72', 'other'), ('', 'other')])
def test_calls_are_counted_by_their_operation(experiment, argument, operation):
  assert experiment('balanced_calls').operation(argument) == operation


def test_rare_operations_are_repeated_and_no_text_is_lost(experiment):
  def text(argument):
    call = ScoredCall('', 'Calculator', argument, 0, 0.5, '1')
    return AnnotatedDocument(Document(argument, 'One.'), (call,))
  products, sums = [text(f'{n} * 2') for n in range(9)], [text(f'{n} + 2') for n in range(3)]
  taken = experiment('balanced_calls').balanced([*products, *sums, text('8 / 2')], 4)
  often = Counter(text.document.id for text in taken)
  assert all(often[f'{n} * 2'] == 1 for n in range(9))
  assert all(often[f'{n} + 2'] == 3 for n in range(3)) and often['8 / 2'] == 4
