"""Predictions of a model for questions, and its log-probabilities of texts."""

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolformer_jax.calls import CallSyntax
from toolformer_jax.data.content_hash import stable_hash
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.arms import Arm
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.task import Question, QuestionTask, Text
from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.inference.generation import generate
from toolformer_jax.inference.request import GeneratedText
from toolformer_jax.inference.scoring import ScoreRequest, score
from toolformer_jax.media.table import MediaTable
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.tools.base import Context
from toolformer_jax.tools.executor import Executor


@dataclass(frozen=True)
class Prediction:
  """A question, and the continuation that a model generated for it.

  Attributes:
    id, group, prompt, answers: of the question.
    text: the continuation with its calls.
    prediction: the continuation without them, which is compared with the answers.
    calls: {tool, argument, result, failure} of each; one without a result is not in the text.
    failure: why there is no continuation, if so.
    date: the date that the calendar returned; None in records of earlier versions.
    media: the sha256 of each medium of the question.
  """

  id: str
  group: str
  prompt: str
  answers: tuple[str, ...]
  text: str = ''
  prediction: str = ''
  calls: tuple[dict[str, Any], ...] = ()
  failure: str | None = None
  date: str | None = None
  media: tuple[str, ...] = ()

  def is_of(self, question: Question, default_date: str) -> bool:
    """Returns whether the same question was asked, with the same media, on the same date."""
    return ((self.prompt, self.answers, self.media)
            == (question.prompt, question.answers, _hashes(question))
            and self.date in (None, question.date or default_date))


@dataclass(frozen=True)
class TextLogprob:
  """The log-probability of a text.

  Attributes:
    id, group: of the text.
    logprob: sum of the natural log-probabilities of its tokens.
    tokens: number of tokens that have a log-probability.
    sha256: of the text; '' in records of earlier versions.
  """

  id: str
  group: str
  logprob: float
  tokens: int
  sha256: str = ''

  def is_of(self, text: Text) -> bool:
    """Returns whether the same text was scored."""
    return self.sha256 in ('', _sha256(text.text))


def _hashes(question: Question) -> tuple[str, ...]:
  return tuple(medium.sha256 for medium in question.media)


def _sha256(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()


def generation_config(task: QuestionTask, arm: Arm, generation: GenerationConfig,
                      config: EvaluationConfig) -> GenerationConfig:
  """Returns how `arm` continues the questions of `task`: the task decides where texts end."""
  return dataclasses.replace(
      generation, disable_tools=arm.disabled,
      min_tokens=config.min_tokens, max_words=task.matcher.max_words,
      max_tokens=task.matcher.max_tokens(config))


def predict(
    model: LanguageModel, questions: Sequence[Question], *, config: GenerationConfig,
    engine_config: EngineConfig, syntax: CallSyntax, calendar_date: str,
    executor: Executor | None = None, tool_names: Sequence[str] = (),
) -> list[Prediction]:
  """Returns the predictions of `model`; a prompt that is too long for it is a failure.

  A prediction depends on nothing but its question: not on the others, nor on their order.

  Args:
    model: the model.
    questions: what to answer.
    config, engine_config: how to decode, see `generation_config`.
    syntax: how calls are spelled.
    calendar_date: ISO date that the calendar returns for questions without a date.
    executor: runs the tools; None where no tool may be called.
    tool_names: the tools of the executor that may be called.

  Raises:
    UserError: no prompt can fit the model, or there is not enough memory.
  """
  contexts = [Context(question.id, date=question.date or calendar_date,
                      media=MediaTable(question.media)) for question in questions]
  prompts = [model.tokenizer.encode(question.prompt) for question in questions]
  longest = max_prompt_tokens(model.config, config)
  fitting = [i for i, prompt in enumerate(prompts) if len(prompt) <= longest]
  generated = generate(
      model, [prompts[i] for i in fitting], config=config, engine_config=engine_config,
      executor=executor, tool_names=tool_names, contexts=[contexts[i] for i in fitting],
      syntax=syntax, seeds=[_sampling_seed(config.seed, questions[i]) for i in fitting])
  by_index = dict(zip(fitting, generated, strict=True))
  return [_prediction(question, question.date or calendar_date, by_index.get(i), len(prompt),
                      syntax, tool_names)
          for i, (question, prompt) in enumerate(zip(questions, prompts, strict=True))]


def max_prompt_tokens(decoder: DecoderConfig, config: GenerationConfig) -> int:
  """Returns the largest number of tokens of a prompt.

  Args:
    decoder: configuration of the model.
    config: how to decode, see `generation_config`.

  Raises:
    UserError: no prompt can fit.
  """
  # The start token and one more, so that a whole continuation fits without a call.
  tokens = decoder.max_tokens - config.max_tokens - 2
  if tokens < 1:
    raise UserError(f'continuations of {config.max_tokens} tokens leave no room for a prompt in '
                    f'{decoder.max_tokens} positions, all that the model has; lower '
                    'EvaluationConfig.number_tokens or tokens_per_word')
  return tokens


def _sampling_seed(seed: int, question: Question) -> int:
  """Returns a seed that depends on the question alone: neither chunks nor limits change it."""
  return int.from_bytes(stable_hash(seed, question.id)[:4], 'little')


def _prediction(question: Question, date: str, generated: GeneratedText | None, prompt_tokens: int,
                syntax: CallSyntax, tool_names: Sequence[str]) -> Prediction:
  record = Prediction(question.id, question.group, question.prompt, question.answers, date=date,
                      media=_hashes(question))
  if generated is None:
    return dataclasses.replace(record, failure=f'the prompt has {prompt_tokens} tokens, too many')
  calls = tuple({'tool': made.call.name, 'argument': made.call.argument,
                 'result': made.call.result, 'failure': made.failure} for made in generated.calls)
  plain = syntax.remove(generated.text, tool_names) if calls else generated.text
  return dataclasses.replace(record, text=generated.text, prediction=plain, calls=calls)


def text_logprobs(model: LanguageModel, texts: Sequence[Text], config: EvaluationConfig
                  ) -> list[TextLogprob]:
  """Returns the log-probability of each text, computed in windows where it is longer than one.

  Calls play no part: with tools disabled a perplexity is the plain one (paper, footnote 8).
  """
  ids = [tuple(model.tokenizer.encode(text.text)) for text in texts]
  window = min(config.window_tokens, model.config.max_tokens - 1)  # and the start token
  requests = [rolling_windows(tokens, window, min(config.stride_tokens, window)) for tokens in ids]
  logprobs = iter(score(model, [request for windows in requests for request in windows]))
  records = []
  for text, windows in zip(texts, requests, strict=True):
    values = np.concatenate([next(logprobs) for _ in windows] or [np.zeros(0)])
    values = values[~np.isnan(values)].tolist()  # without a start token the first one has none
    records.append(TextLogprob(text.id, text.group, math.fsum(values), len(values),
                               _sha256(text.text)))
  return records


def rolling_windows(tokens: tuple[int, ...], window: int, stride: int) -> list[ScoreRequest]:
  """Returns requests that score every token once, in the first window that contains it."""
  requests, num_scored = [], 0
  for start in range(0, len(tokens), stride):
    if num_scored < len(tokens):
      text = tokens[start:start + window]
      requests.append(ScoreRequest((), text, tuple(range(num_scored - start, len(text)))))
      num_scored = start + len(text)
  return requests
