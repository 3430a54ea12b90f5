"""The benchmarks as seqio tasks with metric functions: `toolformer_svamp` and so on.

For pipelines that know seqio, such as t5x. The examples are those of the plain readers; importing
this module loads TensorFlow, which nothing else here does.

    register(TASKS.values(), pathlib.Path('data'), EvaluationConfig(), tokenizer)
    seqio.get_mixture_or_task('toolformer_svamp').get_dataset(split='test')
"""

import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.reading import read_items
from toolformer_jax.evaluation.statistics import perplexity
from toolformer_jax.evaluation.task import PerplexityTask, Task
from toolformer_jax.evaluation.tasks.vocabulary import ShiftedVocabulary
from toolformer_jax.tokenizer import Tokenizer

tf.config.set_visible_devices([], 'GPU')  # TensorFlow would take all of its memory

_SIGNATURE = {name: tf.TensorSpec([], tf.string) for name in ('id', 'inputs', 'targets')} | {
    'answers': tf.TensorSpec([None], tf.string)}


def register(tasks: Iterable[Task], data_dir: pathlib.Path, settings: EvaluationConfig,
             tokenizer: Tokenizer) -> list[str]:
  """Adds `tasks` to seqio's registry, with the split `test`; returns the names that they have.

  Files are read when a dataset is made. A metric takes predicted texts without calls, or for a
  perplexity the log-probability of each text.
  """
  names = []
  for task in tasks:
    names.append(f'toolformer_{task.name}')
    vocabulary = ShiftedVocabulary(tokenizer)
    feature = seqio.Feature(vocabulary, add_eos=False)
    of_texts = isinstance(task, PerplexityTask)
    features = {'targets': feature} if of_texts else {'inputs': feature, 'targets': feature}
    metric = _Perplexity(vocabulary) if of_texts else _Accuracy(task, settings)
    seqio.TaskRegistry.add(
        names[-1], source=seqio.FunctionDataSource(_Source(task, data_dir, settings), ['test']),
        preprocessors=[seqio.preprocessors.tokenize], output_features=features,
        postprocess_fn=_text if of_texts else _answers_or_text, metric_fns=[metric])
  return names


class _Source:
  """Makes the dataset of a task."""

  def __init__(self, task: Task, data_dir: pathlib.Path, settings: EvaluationConfig):
    self._task, self._data_dir, self._settings = task, data_dir, settings
    self.__name__ = f'read_{task.name}'  # seqio shows it

  def __call__(self, split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
    return tf.data.Dataset.from_generator(self._examples, output_signature=_SIGNATURE)

  def _examples(self) -> Iterator[dict[str, Any]]:
    for item in read_items(self._task, self._data_dir, self._settings):
      if isinstance(self._task, PerplexityTask):
        yield {'id': item.id, 'inputs': '', 'targets': item.text, 'answers': []}
      else:
        # A continuation begins with a blank.
        yield {'id': item.id, 'inputs': item.prompt, 'targets': f' {item.answers[0]}',
               'answers': list(item.answers)}


def _answers_or_text(text: str, example: Mapping[str, Any], is_target: bool) -> Any:
  return [answer.decode() for answer in example['answers']] if is_target else text


def _text(text: str, example: Mapping[str, Any], is_target: bool) -> str:
  return text


class _Accuracy:
  """Percentage of right predictions, by the rule of a task."""

  def __init__(self, task: Task, settings: EvaluationConfig):
    self._task, self._settings = task, settings
    self.__name__ = 'accuracy'

  def __call__(self, targets: Sequence[Sequence[str]], predictions: Sequence[str]
               ) -> dict[str, float]:
    right = [self._task.rule.judge(prediction, answers, self._settings).correct
             for answers, prediction in zip(targets, predictions, strict=True)]
    return {'accuracy': 100 * sum(right) / len(right)}


class _Perplexity:
  """Perplexity of a token."""

  def __init__(self, vocabulary: ShiftedVocabulary):
    self._vocabulary = vocabulary
    self.__name__ = 'perplexity'

  def __call__(self, targets: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
    return {'perplexity': perplexity(scores, [len(self._vocabulary.encode(text))
                                              for text in targets])}
