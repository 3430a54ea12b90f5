"""The three stages that each tool has, for one chunk of documents at a time.

Each function prepares a stage and returns a StartChunk, which starts the work on a chunk. What that
returns finishes the work: it gives the records of the chunk and its counts.
"""

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence

from toolformer_jax.annotation.config import THRESHOLDS, AnnotationConfig
from toolformer_jax.annotation.execute import start_calls
from toolformer_jax.annotation.filter import score_calls
from toolformer_jax.annotation.run_reader import RunReader
from toolformer_jax.annotation.sample import CallSampler
from toolformer_jax.annotation.tool_plan import ToolPlan
from toolformer_jax.calls import CallSyntax
from toolformer_jax.data.records import Candidate, Document
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.tools.executor import Executor

FinishChunk = Callable[[], tuple[Sequence[Candidate], Counter]]
StartChunk = Callable[[int, Sequence[Document]], FinishChunk]


def sample_stage(plan: ToolPlan, *, run: RunReader, model: LanguageModel,
                 config: AnnotationConfig, syntax: CallSyntax) -> StartChunk:
  """Prepares sampling calls to a tool: computes the keys and values of its prompt."""
  sampler = CallSampler(model=model, prompt=plan.prompt, tool_config=plan.config, config=config,
                        syntax=syntax)
  def start(chunk: int, documents: Sequence[Document]) -> FinishChunk:
    return functools.partial(sampler, run.preselected(plan.tool.name, chunk, documents))
  return start


def execute_stage(plan: ToolPlan, *, run: RunReader, executor: Executor, tokenizer: Tokenizer,
                  config: AnnotationConfig) -> StartChunk:
  """Prepares executing the sampled calls of `run`; a started chunk is executed in the background.
  """
  def start(chunk: int, documents: Sequence[Document]) -> FinishChunk:
    candidates = run.read_calls(plan.tool.name, 'sample', chunk, documents)
    return start_calls(candidates, documents, executor=executor, tokenizer=tokenizer,
                       look_ahead_guard=config.look_ahead_guard)
  return start


def filter_stage(plan: ToolPlan, *, run: RunReader, model: LanguageModel,
                 config: AnnotationConfig, syntax: CallSyntax) -> StartChunk:
  """Prepares computing the losses of the executed calls of `run`."""
  # A gain below all thresholds that reports count need not be known exactly.
  min_gain = min(*THRESHOLDS, plan.config.tau_f) if config.early_reject else -math.inf
  def start(chunk: int, documents: Sequence[Document]) -> FinishChunk:
    executed = run.read_calls(plan.tool.name, 'execute', chunk, documents)
    return functools.partial(
        score_calls, executed, documents, model=model, syntax=syntax, min_gain=min_gain,
        scoring_tokens=config.scoring_tokens)
  return start
