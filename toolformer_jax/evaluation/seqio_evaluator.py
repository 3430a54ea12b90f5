"""Gives `seqio.Evaluator` our engine, with tools, as its model. Importing this loads TensorFlow.

docs/evaluation.md has an example. The predictions, and so the accuracy, are those of
`toolformer evaluate`.
"""

from collections.abc import Callable, Mapping, Sequence

import seqio
import tensorflow as tf

from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax
from toolformer_jax.data.seqio_vocabulary import SHIFT, ShiftedVocabulary
from toolformer_jax.evaluation.arms import Arm
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.predict import generation_config, predict
from toolformer_jax.evaluation.task import Question, QuestionTask
from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.tools.executor import Executor

PredictFn = Callable[[tf.data.Dataset], list[tuple[int, list[int]]]]
_PROMPT = 'encoder_input_tokens'


class QuestionFeatureConverter(seqio.FeatureConverter):
  """Converts the questions of `seqio_tasks.register` to padded prompts, with their ids and dates.

  Samples and calendars depend on these. Ids stay shifted: 0 is padding.
  """

  TASK_FEATURES = {
    'inputs': seqio.FeatureConverter.FeatureSpec(dtype=tf.int32),
    'targets': seqio.FeatureConverter.FeatureSpec(dtype=tf.int32),
  }
  MODEL_FEATURES = {
    _PROMPT: seqio.FeatureConverter.FeatureSpec(dtype=tf.int32),
    'id': seqio.FeatureConverter.FeatureSpec(dtype=tf.string, rank=0),
    'date': seqio.FeatureConverter.FeatureSpec(dtype=tf.string, rank=0),
  }

  def __init__(self) -> None:
    super().__init__(pack=False)

  def get_model_feature_lengths(self, task_feature_lengths: Mapping[str, int]) -> dict[str, int]:
    """Returns the length of prompts; ids and dates have none."""
    return {_PROMPT: task_feature_lengths['inputs'], 'id': 0, 'date': 0}

  def _convert_features(self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]
                        ) -> tf.data.Dataset:
    length = task_feature_lengths['inputs']
    def convert(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
      prompt = example['inputs'][:length]
      padded = tf.pad(prompt, [[0, length - tf.size(prompt)]])
      padded.set_shape([length])
      return {_PROMPT: padded, 'id': example['id'], 'date': example['date']}
    return ds.map(convert)


def make_predict_fn(
    model: LanguageModel, task: QuestionTask, config: EvaluationConfig, *,
    executor: Executor | None = None, tool_names: Sequence[str] = (), disabled: bool = False,
    generation: GenerationConfig = GenerationConfig(),
    engine_config: EngineConfig = EngineConfig(), syntax: CallSyntax = DEFAULT_SYNTAX,
) -> PredictFn:
  """Returns the function that `seqio.Evaluator.evaluate` takes as `predict_fn`.

  Args:
    model: answers the questions.
    task: decides where continuations end, and which tools they may not call.
    config: as in `seqio_tasks.register`.
    executor: runs the tools; None where no tool may be called.
    tool_names: the tools of the executor that may be called.
    disabled: the start of a call has probability 0.
    generation, engine_config: how answers are generated.
    syntax: how calls are spelled.
  """
  vocabulary = ShiftedVocabulary(model.tokenizer)
  arm = Arm('toolformer' if executor else 'disabled' if disabled else 'base', '')
  allowed = [name for name in tool_names if name not in task.without_tools] if executor else []
  if not config.start_token:
    model = model.without_start_token()
  def question(example: Mapping[str, tf.Tensor]) -> Question:
    ids = [int(i) - SHIFT for i in example[_PROMPT] if i >= SHIFT]
    return Question(example['id'].decode(), model.tokenizer.decode(ids), (),
                    date=example['date'].decode() or None)
  def predict_fn(dataset: tf.data.Dataset) -> list[tuple[int, list[int]]]:
    numbered = [(int(number), question(example))
                for number, example in dataset.as_numpy_iterator()]
    predictions = predict(
        model, [one for _, one in numbered],
        config=generation_config(task, arm, generation, config), engine_config=engine_config,
        syntax=syntax, calendar_date=config.calendar_date,
        executor=executor if allowed else None, tool_names=allowed)
    ids = [vocabulary.encode(prediction.prediction) for prediction in predictions]
    longest = max(map(len, ids), default=0)  # seqio makes an array of them
    return [(number, [*tokens, *[vocabulary.pad_id] * (longest - len(tokens))])
            for (number, _), tokens in zip(numbered, ids, strict=True)]
  return predict_fn
