"""What a model says to questions, and how likely it finds texts: the records of an evaluation."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolformer_jax.calls import CallSyntax
from toolformer_jax.evaluation.arms import Arm
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.task import Question, QuestionTask, Text
from toolformer_jax.inference.engine import EngineConfig
from toolformer_jax.inference.generation import generate
from toolformer_jax.inference.request import GeneratedText, GenerationConfig
from toolformer_jax.inference.scoring import ScoreRequest, score
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.tools.base import Context
from toolformer_jax.tools.executor import Executor


@dataclass(frozen=True)
class Prediction:
  """A question and what was made of it.

  Attributes:
    id, group, prompt, answers: of the question.
    text: the continuation with its calls.
    prediction: the continuation without them: what is judged.
    calls: {tool, argument, result, failure} of each; one without a result was taken back.
    failure: why there is no continuation, if so.
  """

  id: str
  group: str
  prompt: str
  answers: tuple[str, ...]
  text: str = ''
  prediction: str = ''
  calls: tuple[dict[str, Any], ...] = ()
  failure: str | None = None


@dataclass(frozen=True)
class TextScore:
  """How likely a text is: the sum of its tokens' natural log-probabilities, and how many count."""

  id: str
  group: str
  logprob: float
  tokens: int


def generation_config(task: QuestionTask, arm: Arm, generation: GenerationConfig,
                      config: EvaluationConfig) -> GenerationConfig:
  """Returns how `arm` continues the questions of `task`: the task decides where texts end."""
  return dataclasses.replace(
      generation, disable_tools=arm.disabled,
      min_tokens=config.min_tokens, max_words=task.rule.max_words,
      max_tokens=task.rule.max_tokens(config))


def predict(
    model: LanguageModel, questions: Sequence[Question], *, config: GenerationConfig,
    engine_config: EngineConfig, syntax: CallSyntax, executor: Executor | None = None,
    tool_names: Sequence[str] = (), contexts: Sequence[Context] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Prediction]:
  """Returns what `model` predicts; a prompt that is too long for it is a failure.

  Args:
    model: the model.
    questions: what is asked.
    config, engine_config: how to decode, see `generation_config`.
    syntax: how calls are spelled.
    executor: runs the tools; None where no tool may be called.
    tool_names: the tools of the executor that may be called.
    contexts: what tools may know about each question.
    seeds: of each question's samples.
  """
  contexts = [Context()] * len(questions) if contexts is None else contexts
  seeds = range(config.seed, config.seed + len(questions)) if seeds is None else seeds
  prompts = [model.tokenizer.encode(question.prompt) for question in questions]
  # The start token and one more, so that a whole continuation fits without a call.
  room = model.config.max_positions - config.max_tokens - 2
  fitting = [i for i, prompt in enumerate(prompts) if len(prompt) <= room]
  generated = generate(
      model, [prompts[i] for i in fitting], config=config, engine_config=engine_config,
      executor=executor, tool_names=tool_names, contexts=[contexts[i] for i in fitting],
      syntax=syntax, seeds=[seeds[i] for i in fitting])
  by_place = dict(zip(fitting, generated, strict=True))
  return [_prediction(question, by_place.get(i), len(prompt), syntax, tool_names)
          for i, (question, prompt) in enumerate(zip(questions, prompts, strict=True))]


def _prediction(question: Question, generated: GeneratedText | None, tokens: int,
                syntax: CallSyntax, tool_names: Sequence[str]) -> Prediction:
  asked = Prediction(question.id, question.group, question.prompt, question.answers)
  if generated is None:
    return dataclasses.replace(asked, failure=f'the prompt has {tokens} tokens, too many')
  calls = tuple({'tool': made.call.name, 'argument': made.call.argument,
                 'result': made.call.result, 'failure': made.failure} for made in generated.calls)
  plain = syntax.remove(generated.text, tool_names) if calls else generated.text
  return dataclasses.replace(asked, text=generated.text, prediction=plain, calls=calls)


def score_texts(model: LanguageModel, texts: Sequence[Text],
                settings: EvaluationConfig) -> list[TextScore]:
  """Returns how likely `model` finds `texts`, in windows where they are longer than one.

  Calls play no part: with tools disabled a perplexity is the plain one (paper, footnote 8).
  """
  ids = [tuple(model.tokenizer.encode(text.text)) for text in texts]
  window = min(settings.window_tokens, model.config.max_positions - 1)  # and the start token
  windows = [windows_of(tokens, window, min(settings.stride_tokens, window)) for tokens in ids]
  logprobs = iter(score(model, [request for some in windows for request in some]))
  scores = []
  for text, some in zip(texts, windows, strict=True):
    values = np.concatenate([next(logprobs) for _ in some] or [np.zeros(0)])
    known = values[~np.isnan(values)].tolist()  # without a start token the first has none
    scores.append(TextScore(text.id, text.group, math.fsum(known), len(known)))
  return scores


def windows_of(tokens: tuple[int, ...], window: int, stride: int) -> list[ScoreRequest]:
  """Returns requests for the score of every token, in the first window that it is in."""
  requests, done = [], 0
  for start in range(0, len(tokens), stride):
    if done < len(tokens):
      some = tokens[start:start + window]
      requests.append(ScoreRequest((), some, tuple(range(done - start, len(some)))))
      done = start + len(some)
  return requests
