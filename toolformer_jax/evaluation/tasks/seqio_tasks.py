"""The benchmarks as seqio tasks with metric functions: `toolformer_svamp` and so on.

For pipelines built on seqio, such as t5x. The examples equal those of `load_examples`. Importing
this module loads TensorFlow.

    register(TASKS.values(), 'data', EvaluationConfig(), tokenizer)
    seqio.get_mixture_or_task('toolformer_svamp').get_dataset(split='test')
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf
from etils import epath

from toolformer_jax.data.seqio_vocabulary import ShiftedVocabulary
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.scores import perplexity
from toolformer_jax.evaluation.task import PerplexityTask, QuestionTask, Task, Text
from toolformer_jax.evaluation.tasks import load_examples
from toolformer_jax.tokenizer import Tokenizer

_SIGNATURE = {
  **dict.fromkeys(('id', 'inputs', 'targets', 'date'), tf.TensorSpec([], tf.string)),
  'answers': tf.TensorSpec([None], tf.string),
}


def register(tasks: Iterable[Task], data_dir: epath.PathLike, config: EvaluationConfig,
             tokenizer: Tokenizer) -> list[str]:
  """Adds `tasks` with the split `test` to the registry of seqio; returns their names there.

  Files are read when a dataset is made. The metric of questions takes predicted texts without
  calls, the one of perplexities the log-probability of each text.
  """
  names = []
  for task in tasks:
    names.append(f'toolformer_{task.name}')
    vocabulary = ShiftedVocabulary(tokenizer)
    feature = seqio.Feature(vocabulary, add_eos=False)
    if is_perplexity := isinstance(task, PerplexityTask):
      features, metric = {'targets': feature}, _Perplexity(vocabulary)
    else:
      features, metric = {'inputs': feature, 'targets': feature}, _Accuracy(task, config)
    seqio.TaskRegistry.add(
        names[-1], source=seqio.FunctionDataSource(_Source(task, data_dir, config), ['test']),
        preprocessors=[seqio.preprocessors.tokenize, seqio.CacheDatasetPlaceholder()],
        output_features=features,
        postprocess_fn=_text if is_perplexity else _answers_or_text, metric_fns=[metric])
  return names


class _Source:
  """The data source of a task."""

  def __init__(self, task: Task, data_dir: epath.PathLike, config: EvaluationConfig):
    self._task, self._data_dir, self._config = task, data_dir, config
    self.__name__ = f'read_{task.name}'  # seqio logs it

  def __call__(self, split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
    return tf.data.Dataset.from_generator(self._examples, output_signature=_SIGNATURE)

  def _examples(self) -> Iterator[dict[str, Any]]:
    for example in load_examples(self._task, self._data_dir, self._config):
      if isinstance(example, Text):
        yield {'id': example.id, 'inputs': '', 'targets': example.text, 'date': '',
               'answers': []}
      else:
        # A continuation begins with a space.
        yield {'id': example.id, 'inputs': example.prompt, 'targets': f' {example.answers[0]}',
               'date': example.date or '', 'answers': list(example.answers)}


def _answers_or_text(text: str, example: Mapping[str, Any], is_target: bool) -> Any:
  return [answer.decode() for answer in example['answers']] if is_target else text


def _text(text: str, example: Mapping[str, Any], is_target: bool) -> str:
  return text


class _Accuracy:
  """Percentage of correct predictions, by the matcher of a task."""

  def __init__(self, task: QuestionTask, config: EvaluationConfig):
    self._task, self._config = task, config
    self.__name__ = 'accuracy'

  def __call__(self, targets: Sequence[Sequence[str]], predictions: Sequence[str]
               ) -> dict[str, float]:
    correct = [self._task.matcher.match(prediction, answers, self._config).correct
               for answers, prediction in zip(targets, predictions, strict=True)]
    return {'accuracy': 100 * sum(correct) / len(correct)}


class _Perplexity:
  """Perplexity of a token."""

  def __init__(self, vocabulary: ShiftedVocabulary):
    self._vocabulary = vocabulary
    self.__name__ = 'perplexity'

  def __call__(self, targets: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
    num_tokens = [len(self._vocabulary.encode(text)) for text in targets]
    return {'perplexity': perplexity(scores, num_tokens)}
