"""The three stages of a tool that have work to do, for one chunk of its texts at a time.

Each function prepares a stage and returns a StartChunk, which starts the work on a chunk. What that
returns finishes the work: it gives the records of the chunk and its counts.

The batches of the model are formed from windows, a fixed number of the texts that the tool's
heuristic selects. A chunk is a whole number of windows, so that records do not depend on the size
of chunks.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import cast

from toolformer_jax.annotation.config import AnnotationConfig
from toolformer_jax.annotation.early_rejection import min_gain
from toolformer_jax.annotation.execute import start_calls
from toolformer_jax.annotation.filter import score_calls
from toolformer_jax.annotation.run_reader import RunReader
from toolformer_jax.annotation.sample import CallSampler
from toolformer_jax.annotation.tool_plan import ToolPlan
from toolformer_jax.annotation.verified_filter import score_calls_verified
from toolformer_jax.calls import CallSyntax
from toolformer_jax.data.records import Candidate, Document, ExecutedCall
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.tools.executor import Executor

FinishChunk = Callable[[], tuple[Sequence[Candidate], Counter]]
StartChunk = Callable[[int, Sequence[Document]], FinishChunk]


def sample_stage(plan: ToolPlan, *, model: LanguageModel, config: AnnotationConfig,
                 syntax: CallSyntax) -> StartChunk:
  """Prepares sampling calls to a tool: computes the keys and values of its prompt."""
  sampler = CallSampler(model=model, prompt=plan.prompt, tool_config=plan.config, config=config,
                        syntax=syntax)
  def start(chunk: int, documents: Sequence[Document]) -> FinishChunk:
    return functools.partial(_by_window, sampler, documents, config)
  return start


def execute_stage(plan: ToolPlan, *, run: RunReader, executor: Executor, tokenizer: Tokenizer,
                  config: AnnotationConfig) -> StartChunk:
  """Prepares executing the sampled calls of `run`; a started chunk is executed in the background.
  """
  def start(chunk: int, documents: Sequence[Document]) -> FinishChunk:
    candidates = run.read_calls(plan.tool.name, 'sample', chunk)
    return start_calls(candidates, documents, executor=executor, tokenizer=tokenizer,
                       look_ahead_guard=config.look_ahead_guard)
  return start


def filter_stage(plan: ToolPlan, *, run: RunReader, model: LanguageModel, fast: LanguageModel,
                 config: AnnotationConfig, syntax: CallSyntax) -> StartChunk:
  """Prepares computing the losses of the executed calls of `run`.

  `fast` is the model in `config.filter_dtype`; it is used if that is not float32.
  """
  least = min_gain(plan.config.tau_f, config.early_reject)
  if config.filter_dtype == 'float32':
    score_window = functools.partial(score_calls, model=model)
  else:
    score_window = functools.partial(
        score_calls_verified, model=model, fast=fast, tau_f=plan.config.tau_f,
        margin=config.verify_margin)
  def start(chunk: int, documents: Sequence[Document]) -> FinishChunk:
    executed = cast(list[ExecutedCall], run.read_calls(plan.tool.name, 'execute', chunk))
    def score(window: Sequence[Document]) -> tuple[Sequence[Candidate], Counter]:
      ids = {document.id for document in window}
      return score_window([call for call in executed if call.document_id in ids], window,
                          syntax=syntax, min_gain=least, placement=config.call_placement,
                          baseline=config.baseline_loss, scoring_tokens=config.scoring_tokens,
                          reuse_no_call=True)
    return functools.partial(_by_window, score, documents, config)
  return start


def _by_window(work: Callable[[Sequence[Document]], tuple[Sequence[Candidate], Counter]],
               documents: Sequence[Document], config: AnnotationConfig
               ) -> tuple[list[Candidate], Counter]:
  """Returns the records and the counts of all windows of a chunk."""
  records: list[Candidate] = []
  counts: Counter[str] = Counter()
  for window in _windows(documents, config.window_documents):
    of_window, window_counts = work(window)
    records += of_window
    counts.update(window_counts)
  return records, counts


def _windows(documents: Sequence[Document], size: int) -> Iterator[Sequence[Document]]:
  return (documents[first:first + size] for first in range(0, len(documents), size))
