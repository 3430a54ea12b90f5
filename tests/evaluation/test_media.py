"""Questions about media: calls see the files of their question, on which predictions depend."""

import dataclasses

import pytest

import toolformer_jax as tf_jax
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.task import Question
from toolformer_jax.evaluation.tasks import TASKS

from ..media.made_files import picture, sound
from .conftest import PROBLEMS

PROMPT = f'{PROBLEMS[0][0]["Body"]} {PROBLEMS[0][0]["Question"]} The answer is'


@pytest.fixture
def media(tmp_path):
  table = tf_jax.MediaTable.from_bytes([picture(), sound(0.1), picture(color='blue')], tmp_path)
  return table.media


@pytest.fixture
def evaluate(taught, tmp_path):
  """Evaluates questions with these media each; returns their predictions and how often a tool ran.

  The tool answers a call of the taught model with the handles and hashes of its question.
  """
  def evaluate(*media_of_questions):
    calls = []
    def look(argument, context):
      calls.append(argument)
      return ' '.join(f'{handle} {sha256[:6]}' for handle, sha256 in context.media.key())
    questions = [Question(str(number), PROMPT, ('42',), media=media)
                 for number, media in enumerate(media_of_questions)]
    task = dataclasses.replace(TASKS['svamp'], name='pictures', without_tools=frozenset(),
                               read=lambda folder, config: iter(questions))
    result = tf_jax.evaluate(
        task, arms={'toolformer': taught}, data_dir=tmp_path, output_dir=tmp_path / 'out',
        tools=tf_jax.tool(look, name='Calculator'),
        engine_config=tf_jax.EngineConfig(slots=4),
        config=tf_jax.EvaluationConfig(number_tokens=6),
        generation_config=tf_jax.GenerationConfig(top_k_api=1))
    predictions, = result.predictions.values()
    return predictions, len(calls)
  return evaluate


def test_a_call_sees_the_media_of_its_question(evaluate, media):
  red, heard, blue = media
  predictions, calls = evaluate((red, heard), (blue,), ())
  results = [prediction['calls'][0]['result'] for prediction in predictions]
  assert results == [f'image 1 {red.sha256[:6]} audio 1 {heard.sha256[:6]}',
                     f'image 1 {blue.sha256[:6]}', None]
  assert calls == 3
  assert [list(prediction['media']) for prediction in predictions] == [
      [red.sha256, heard.sha256], [blue.sha256], []]


def test_predictions_are_kept_and_another_file_is_refused(evaluate, media):
  red, _, blue = media
  first, calls = evaluate((red,), (blue,))
  assert calls == 2
  again, calls = evaluate((red,), (blue,))
  assert (again, calls) == (first, 0)
  with pytest.raises(UserError, match='the data have changed'):
    evaluate((blue,), (blue,))
