"""Questions: what the reader is shown, and what counts as its answer."""

import pathlib
import tempfile

import pytest

from toolformer_jax.data.passages import Page
from toolformer_jax.tools.base import Context, ToolError
from toolformer_jax.tools.passage_index import PassageIndex
from toolformer_jax.tools.qa import QuestionAnswering, question_prompt

PAGES = [Page('Ghana', 'The capital of Ghana is Accra. It lies on the coast.'),
         Page('Accra', 'Accra is a large city of Ghana, founded long ago by the Ga.'),
         Page('Peru', 'The capital of Peru is Lima.')]
FOLDER = tempfile.TemporaryDirectory()
INDEX = PassageIndex.build(PAGES, pathlib.Path(FOLDER.name, 'index'))


class Reader:
  """Stands for a model: notes its prompts and gives its answers in turn."""

  def __init__(self, *answers):
    self.prompts, self.answers = [], list(answers)

  def __call__(self, prompts):
    self.prompts += prompts
    return [self.answers.pop(0) for _ in prompts]


def test_the_reader_sees_the_passages_best_last_then_the_question():
  reader = Reader(' Accra.')
  qa = QuestionAnswering(reader, 'm', INDEX, passages=2)
  assert qa('"What is the capital of Ghana?"', Context()) == 'Accra'
  passages = [line for line in reader.prompts[0].splitlines() if line.startswith('Passage: ')]
  assert [line.split(' ')[1] for line in passages[-2:]] == ['Peru', 'Ghana']
  assert reader.prompts[0].endswith('Question: What is the capital of Ghana?\nAnswer:')


def test_the_page_itself_is_never_read():
  reader = Reader('x')
  QuestionAnswering(reader, 'm', INDEX)('capital of Ghana', Context(title='ghana'))
  assert 'Passage: Ghana >' not in reader.prompts[0] and 'Passage: ' in reader.prompts[0]


@pytest.mark.parametrize(('completion', 'answer'), [
  (' Accra.', 'Accra'), (' Washington, D.C.', 'Washington, D.C.'), (' the U.S.', 'the U.S.'),
  (' 3.5', '3.5'), (' a city. It', 'a city. It'),
])
def test_an_answer_has_no_full_stop(completion, answer):
  assert QuestionAnswering(Reader(completion), 'm', None)('what?', Context()) == answer


def test_closed_book_has_no_passage():
  reader = Reader(' Lima')
  qa = QuestionAnswering(reader, 'm', None)
  assert qa('What is the capital of Peru?', Context()) == 'Lima'
  assert reader.prompts == [question_prompt('What is the capital of Peru?', [])]
  assert 'Passage' not in reader.prompts[0].partition('Question: What is the capital')[2]


def test_one_failure_does_not_take_the_others_with_it():
  qa = QuestionAnswering(Reader(' one', '\n', ' w' * 40), 'm', INDEX)
  outcomes = qa.call_many(['capital', '', 'zeppelin', 'city', 'coast'], [Context()] * 5)
  assert [str(outcome) for outcome in outcomes] == [
      'one', 'no question', 'no page matches', 'no answer', ' '.join('w' * 12)]
  assert [isinstance(outcome, ToolError) for outcome in outcomes] == [
      False, True, True, True, False]


def test_versions_tell_readers_and_sources_apart(tmp_path):
  other = PassageIndex.build(PAGES[:1], tmp_path)
  versions = {QuestionAnswering(Reader(), *how).version for how in (
      ('m', INDEX), ('n', INDEX), ('m', None), ('m', INDEX, 2), ('m', other))}
  assert len(versions) == 5


@pytest.mark.long
def test_a_real_model_reads(smollm2_path):
  from toolformer_jax.checkpoints.loading import load_model
  from toolformer_jax.tools.registry import completer
  complete = completer(load_model('smollm2-135m').for_inference(), 16)
  qa = QuestionAnswering(complete, 'm', INDEX)
  assert 'Accra' in qa('What is the capital of Ghana?', Context())
  assert 'Lima' in qa('What is the capital of Peru?', Context())
