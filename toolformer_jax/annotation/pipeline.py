"""Runs the stages of an annotation over chunks of texts: sample, execute, filter, merge.

The chunks of a tool's stages are of the texts that its heuristic selects, those of `merged` of all
texts. What is computed for a chunk depends on the records of the chunk alone. A run that was
interrupted therefore continues with the next chunk, and ends with the same files as one that was
not.

The stages of a tool overlap: while the model samples calls for chunk n, the calls of chunk n - 1
are executed.

    model    sample 0 | sample 1  | filter 0   sample 2  | filter 1   sample 3  | ...
    tools             | execute 0 | execute 1            | execute 2 ...
"""

import contextlib
import dataclasses
import functools
import heapq
import itertools
import logging
import operator
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from toolformer_jax.annotation.config import STAGES, AnnotationConfig
from toolformer_jax.annotation.documents import split_and_filter
from toolformer_jax.annotation.early_rejection import REJECTED_POSITIONS
from toolformer_jax.annotation.merge import documents_over_cap, merge, with_char_offsets
from toolformer_jax.annotation.preselect import with_heuristic
from toolformer_jax.annotation.run_dir import ChunkWriter, RunFolder
from toolformer_jax.annotation.run_media import check_media, note_media_folder
from toolformer_jax.annotation.sample import check_fits, texts_by_tau_s
from toolformer_jax.annotation.stage_keys import DOCUMENTS, MERGED, stage_name
from toolformer_jax.annotation.stages import (
  FinishChunk,
  StartChunk,
  execute_stage,
  filter_stage,
  sample_stage,
)
from toolformer_jax.annotation.tool_plan import ToolPlan
from toolformer_jax.annotation.verified_filter import check_dtypes
from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax
from toolformer_jax.data.records import Document, ScoredCall, SelectedText
from toolformer_jax.errors import UserError
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.progress import Progress
from toolformer_jax.tools.call_store import CallStore
from toolformer_jax.tools.executor import Executor, ExecutorConfig, ToolCounts

log = logging.getLogger(__name__)

# Settings that results do not depend on.
_NOT_RESULTS = ('scoring_tokens', 'sampling_rows')


@dataclass(frozen=True)
class AnnotationPipeline:
  """The model, the tools and the settings of an annotation run.

  Attributes:
    model: samples the calls and scores them.
    plans: the tools.
    config: settings that all tools share.
    executor_config: limits of tool calls.
    syntax: how calls are written in texts.
    call_store: records the results of tools, or replays them; None to call the tools only.

  Raises:
    UserError: the model cannot sample calls from one of the prompts, or is not in float32 while
      the filter should use another dtype.
  """

  model: LanguageModel
  plans: tuple[ToolPlan, ...]
  config: AnnotationConfig
  executor_config: ExecutorConfig = ExecutorConfig()
  syntax: CallSyntax = DEFAULT_SYNTAX
  call_store: CallStore | None = None

  def __post_init__(self) -> None:
    check_dtypes(self.config, self.model.config.dtype)
    for plan in self.plans:
      check_fits(self.model, plan.prompt, self.config, self.syntax)

  def configuration(self) -> dict[str, Any]:
    """Returns everything that the results depend on, except the corpus and the weights, as JSON."""
    limits = self.executor_config
    settings = dataclasses.asdict(self.config) | {'chunk_documents': self.config.chunk_size}
    return {
        'dtype': self.model.config.dtype,
        'tokenizer': self.model.tokenizer.fingerprint,
        'settings': {name: value for name, value in settings.items() if name not in _NOT_RESULTS},
        'limits': {'time_limit_s': limits.time_limit_s,
                   'max_result_chars': limits.max_result_chars},
        'syntax': dataclasses.asdict(self.syntax),
        'tools': {plan.tool.name: plan.configuration(self.config) for plan in self.plans}}

  def run(self, corpus: Callable[[], Iterable[Document]], folder: RunFolder,
          stages: Iterable[str] = STAGES) -> None:
    """Runs the part of `stages` that is not in the folder yet.

    Args:
      corpus: returns the documents; not called if an earlier run has read all of them.
      folder: the folder of the run.
      stages: some of STAGES.

    Raises:
      UserError: the corpus is empty or broken, or the stage before one of `stages` is not complete.
    """
    with folder.exclusively():
      self.model.tokenizer.save(folder.path)  # readers need it to find the positions of calls
      self._write_texts(corpus, folder)
    for plan in self.plans:
      self._run_tool(folder, plan, [stage for stage in STAGES[:3] if stage in stages])
    if 'merge' in stages:
      with folder.exclusively():
        other_shards_pending = folder.shard.count > 1 and {*stages} != {'merge'}
        self._merge(folder, other_shards_pending)

  def _write_texts(self, corpus: Callable[[], Iterable[Document]], folder: RunFolder) -> None:
    """Writes the texts, and for each tool which of them are selected, unless the folder has them.
    """
    texts: ChunkWriter[Document] | None = None
    if not folder.is_complete(DOCUMENTS):
      texts = ChunkWriter(folder, DOCUMENTS, self.config.chunk_size)
    selecting = {plan.tool.name: stage_name(plan.tool.name, 'select') for plan in self.plans}
    selected: dict[str, ChunkWriter[SelectedText]] = {
        tool: ChunkWriter(folder, name, self.config.chunk_size)
        for tool, name in selecting.items() if not folder.is_complete(name)}
    if not texts:
      check_media(folder)
    if not texts and not selected:
      return
    heuristics = with_heuristic(selected, self.config.preselect)
    counts: Counter[str] = texts.counts if texts else Counter()
    documents = split_and_filter(
        note_media_folder(corpus(), folder), counts, tokenizer=self.model.tokenizer,
        syntax=self.syntax, max_tokens=self.config.max_text_tokens, heuristics=heuristics,
        seed=self.config.seed)
    for index, (document, selected_for) in enumerate(documents):
      if texts:
        texts.add(document)
      for tool, writer in selected.items():
        if tool not in heuristics or tool in selected_for:
          writer.add(SelectedText(document.id, index))
    if texts:
      if not counts and not folder.chunks(DOCUMENTS):
        raise UserError('there is no document to annotate')
      texts.complete()
    for writer in selected.values():
      writer.complete()

  def _run_tool(self, folder: RunFolder, plan: ToolPlan, stages: Sequence[str]) -> None:
    """Runs `stages` of a tool, on each chunk one after the other.

    Each stage is a generator that takes chunks from the stage before it. All of them run on this
    thread, which alone uses the model and writes files: whatever ends one of them, an error or a
    signal, ends all. Only tool calls run on other threads, those of the executor, and a process
    can exit without waiting for them.
    """
    for stage in stages:
      _check_input(folder, plan, stage, stages)
    with contextlib.ExitStack() as stack:
      chunks = iter(folder.own_chunks(plan.tool.name))
      for stage in stages:
        # A generator that an error interrupts is kept alive by the traceback: close it explicitly.
        chunks = stack.enter_context(
            contextlib.closing(self._run_stage(folder, plan, stage, chunks)))
      deque(chunks, maxlen=0)

  def _run_stage(self, folder: RunFolder, plan: ToolPlan, stage: str,
                 chunks: Iterable[int]) -> Generator[int, None, None]:
    """Yields the numbers of `chunks`, each when the folder has the records of this stage for it."""
    tool, name = plan.tool.name, stage_name(plan.tool.name, stage)
    if folder.is_complete(name):
      yield from chunks
      return
    pending = {chunk for chunk in folder.own_chunks(tool) if not folder.has(name, chunk)}
    with contextlib.ExitStack() as stack:
      progress = stack.enter_context(_progress(folder, tool, stage, pending))
      start_chunk = self._prepare(folder, plan, stage, stack) if pending else None
      def start(chunk: int) -> tuple[int, int, FinishChunk | None]:
        if start_chunk is None or chunk not in pending:
          return chunk, 0, None
        documents = folder.selected(tool, chunk)
        return chunk, len(documents), start_chunk(chunk, documents)
      started = map(start, chunks)
      for chunk, texts, finish in _with_lookahead(started) if stage == 'execute' else started:
        if finish:
          begin = time.perf_counter()
          folder.write(name, chunk, *finish())
          folder.log_time(name, chunk, time.perf_counter() - begin)
          progress.advance(texts)
        yield chunk
    folder.complete_if_whole(tool, stage)
    if stage == 'sample' and folder.is_complete(name):
      _log_positions(tool, plan.config.tau_s, folder.counts(name))

  @functools.cached_property  # all tools share it
  def _filter_model(self) -> LanguageModel:
    """The model in `filter_dtype`; as it is, if the filter needs no other."""
    dtype = self.config.filter_dtype
    return self.model if dtype == 'float32' else self.model.to_dtype(dtype)

  def _prepare(self, folder: RunFolder, plan: ToolPlan, stage: str,
               stack: contextlib.ExitStack) -> StartChunk:
    """Prepares a stage; whatever has to be closed after it is put on `stack`."""
    if stage == 'sample':
      return sample_stage(plan, model=self.model, config=self.config, syntax=self.syntax)
    if stage == 'filter':
      return filter_stage(plan, run=folder, model=self.model, fast=self._filter_model,
                          config=self.config, syntax=self.syntax)
    executor = stack.enter_context(Executor(
        [plan.tool], self.executor_config, syntax=self.syntax, store=self.call_store))
    stack.callback(_log_calls, plan.tool.name, executor.counts[plan.tool.name])
    return execute_stage(plan, run=folder, executor=executor, tokenizer=self.model.tokenizer,
                         config=self.config)

  def _merge(self, folder: RunFolder, other_shards_pending: bool) -> None:
    """Merges all chunks; does nothing if other shards have not finished theirs."""
    if folder.is_complete(MERGED):
      return
    for plan in self.plans:
      source = stage_name(plan.tool.name, 'filter')
      if not folder.is_complete(source):
        if other_shards_pending:
          log.info('the last shard to finish will merge: %s is not complete yet', source)
          return
        raise UserError(f'merging needs {folder.folder(source)} to be complete; run the stages '
                        'before it first')
    tau_f = {plan.tool.name: plan.config.tau_f for plan in self.plans}
    excluded = set().union(*(self._over_cap(folder, plan) for plan in self.plans))
    calls = heapq.merge(*(folder.calls_by_text(plan.tool.name, 'filter') for plan in self.plans),
                        key=operator.itemgetter(0))
    following, end = next(calls, None), 0  # the calls in the next text that has some
    for chunk in folder.all_chunks(DOCUMENTS):
      documents = folder.read(DOCUMENTS, chunk, Document)
      scored: list[ScoredCall] = []
      end += len(documents)
      while following and following[0] < end:
        scored += cast(list[ScoredCall], following[1])
        following = next(calls, None)
      annotated, counts = merge(documents, scored, tau_f, excluded)
      folder.write(MERGED, chunk, [with_char_offsets(record, self.model.tokenizer)
                                   for record in annotated], counts)
    folder.complete(MERGED)

  def _over_cap(self, folder: RunFolder, plan: ToolPlan) -> set[tuple[str, str]]:
    """Returns the texts beyond the tool's `max_texts`, as (tool, document id)."""
    tool, config = plan.tool.name, plan.config
    if folder.counts(DOCUMENTS)['documents'] <= config.max_texts:
      return set()
    kept = {call.document_id for call in folder.calls(tool, 'filter') if call.gain >= config.tau_f}
    return documents_over_cap(tool, kept, config.max_texts, self.config.seed)


def _progress(folder: RunFolder, tool: str, stage: str, pending: Collection[int]) -> Progress:
  """Returns the progress of a stage that has not computed the chunks `pending` yet."""
  select = stage_name(tool, 'select')
  texts, pending_texts = (sum(folder.size(select, chunk, SelectedText) for chunk in chunks)
                          for chunks in (folder.own_chunks(tool), pending))
  return Progress(f'{tool} {stage}', texts, 'texts', texts - pending_texts)


def _log_positions(tool: str, tau_s: float, counts: Counter[str]) -> None:
  """Logs which tau_s would select positions, if the tool's own selects none."""
  if counts['documents'] and not counts['positions'] and not counts[REJECTED_POSITIONS]:
    others = ', '.join(f'{other:g} in {texts} texts' for other, texts in itertools.islice(
        texts_by_tau_s(counts).items(), 3))
    log.warning('%s: no position has a probability above tau_s = %g; these would pass: %s', tool,
                tau_s, others)


def _log_calls(tool: str, counts: ToolCounts) -> None:
  """Logs how many calls were made to a tool."""
  if counts.calls:
    log.info('%s: %d different calls, %.2f s each, %d without a result', tool, counts.calls,
             counts.seconds / counts.calls, counts.failures.total())


def _with_lookahead(items: Iterable) -> Iterator:
  """Yields `items`, each only after the next one was taken, so that two are in progress."""
  return (item for item, _ in itertools.pairwise(itertools.chain(items, [None])))


def _check_input(folder: RunFolder, plan: ToolPlan, stage: str, stages: Sequence[str]) -> None:
  """Checks that the input of `stage` is complete, or computed by one of `stages` in this run.

  Raises:
    UserError: it is not.
  """
  tool, number = plan.tool.name, STAGES.index(stage)
  if number == 0 or STAGES[number - 1] in stages or folder.is_complete(stage_name(tool, stage)):
    return
  source = STAGES[number - 1]
  if not folder.has_own(tool, source):
    raise UserError(f'stage {stage} of {tool} needs {folder.folder(stage_name(tool, source))} to '
                    'be complete; run the stages before it first')
