"""Chooses the likeliest of several labels: classification without generating text.

A label's score is the log-probability of ` label` and the end of its line after the prompt, as
fine-tuning learns it: labels of any length can be compared, also those that begin alike. With a
content-free prompt the score is the difference to that of the label after this prompt, which makes
up for labels that a model finds likely whatever the text is (Zhao et al. 2021). Of an ensemble of
adapters, the score is the mean of those of its members.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.predict import Prediction
from toolformer_jax.evaluation.task import Question
from toolformer_jax.inference.continuation_scoring import score_continuations
from toolformer_jax.models.adapter_stack import adapter_names, with_adapter
from toolformer_jax.models.language_model import LanguageModel


def target_text(label: str) -> str:
  """Returns what follows a prompt: the label and the end of its line."""
  return f' {label}\n'


def predict_labels(model: LanguageModel, questions: Sequence[Question], *,
                   content_free_prompt: str = '', calendar_date: str = '', ensemble: bool = False
                   ) -> list[Prediction]:
  """Returns the likeliest label of each question; a prompt that is too long is a failure.

  Args:
    model: the model.
    questions: with the labels to choose from. All have the same labels.
    content_free_prompt: the prompt of a text that says nothing; '' for no calibration.
    calendar_date: recorded with the predictions.
    ensemble: average the scores over all adapters that the model has by name, if it has any.

  Raises:
    UserError: there is not enough memory.
  """
  members = _members(model) if ensemble else [model]
  labels = questions[0].labels
  label_ids = [model.tokenizer.encode(target_text(label)) for label in labels]
  room = model.config.max_positions - 1 - max(map(len, label_ids))
  prompts = [model.tokenizer.encode(question.prompt) for question in questions]
  fitting = [i for i, prompt in enumerate(prompts) if len(prompt) <= room]
  base = np.zeros(len(labels))
  if content_free_prompt:
    base, = _mean_scores(members, [model.tokenizer.encode(content_free_prompt)], label_ids)
  found = _mean_scores(members, [prompts[i] for i in fitting], label_ids)
  scores = dict(zip(fitting, found, strict=True))
  return [_prediction(question, calendar_date, scores.get(i), base, len(prompts[i]))
          for i, question in enumerate(questions)]


def _members(model: LanguageModel) -> list[LanguageModel]:
  """Returns the model with each of its adapters. No program is compiled again for another one."""
  return [with_adapter(model, name) for name in adapter_names(model)] or [model]


def check_ensemble(models: Iterable[LanguageModel]) -> None:
  """Raises UserError unless one of the models of an evaluation has adapters by name."""
  if not any(map(adapter_names, models)):
    raise UserError('EvaluationConfig.ensemble_adapters needs a model that has adapters by name: '
                    '--adapter NAME=D for each, or load_model(checkpoint, adapters={NAME: DIR})')


def _mean_scores(members: Sequence[LanguageModel], prompts: Sequence[Sequence[int]],
                 label_ids: Sequence[Sequence[int]]) -> np.ndarray:
  return np.mean([score_continuations(one, prompts, label_ids) for one in members], 0)


def _prediction(question: Question, date: str, scores: np.ndarray | None, base: np.ndarray,
                prompt_tokens: int) -> Prediction:
  record = Prediction(question.id, question.group, question.prompt, question.answers, date=date)
  if scores is None:
    return dataclasses.replace(record, failure=f'the prompt has {prompt_tokens} tokens, too many')
  label = question.labels[int(np.argmax(scores - base))]
  return dataclasses.replace(record, text=target_text(label), prediction=label)
