"""Runs the stages over chunks of documents: corpus -> sample -> execute -> filter -> merge.

A chunk is the unit of work: what is computed for it depends on its own records alone, so that a
run that was killed continues with the next chunk and ends with the same files.

The stages of one tool overlap: while the device samples chunk n, the tools work on chunk n - 1.

    device   sample 0 | sample 1 | filter 0   sample 2 | filter 1   sample 3 | ...
    tools             | calls of 0          | calls of 1            | calls of 2 ...
"""

import contextlib
import dataclasses
import functools
import itertools
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from toolformer_jax.annotation import run_dir as folders
from toolformer_jax.annotation.config import STAGES, THRESHOLDS, AnnotationConfig
from toolformer_jax.annotation.execute import start_calls
from toolformer_jax.annotation.filter import score_calls
from toolformer_jax.annotation.merge import merge, over_cap
from toolformer_jax.annotation.preselect import preselect
from toolformer_jax.annotation.run_dir import RunFolder, stage_name
from toolformer_jax.annotation.sample import CallSampler, check_fits
from toolformer_jax.annotation.tool_plan import ToolPlan
from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax
from toolformer_jax.data.records import Candidate, Document, ExecutedCall, ScoredCall
from toolformer_jax.data.split import split_document
from toolformer_jax.errors import UserError
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.progress import Progress
from toolformer_jax.tools.call_store import CallStore
from toolformer_jax.tools.executor import Executor, ExecutorConfig, ToolCounts

log = logging.getLogger(__name__)

# Settings that results do not depend on.
_NOT_RESULTS = ('scoring_tokens', 'sampling_rows')


@dataclass(frozen=True)
class Annotation:
  """Everything that an annotation run works with.

  Attributes:
    model: proposes the calls and scores them.
    plans: the tools.
    settings: what all tools share.
    limits: of tool calls.
    syntax: how calls are spelled.
    store: keeps the results of tools, if given.
  """

  model: LanguageModel
  plans: tuple[ToolPlan, ...]
  settings: AnnotationConfig
  limits: ExecutorConfig = ExecutorConfig()
  syntax: CallSyntax = DEFAULT_SYNTAX
  store: CallStore | None = None

  def __post_init__(self):
    for plan in self.plans:
      check_fits(self.model, plan.prompt, self.settings, self.syntax)

  def configuration(self) -> dict[str, Any]:
    """Returns what the results depend on, besides the corpus and the model's weights."""
    return {
        'dtype': self.model.config.dtype,
        'settings': {name: value for name, value in dataclasses.asdict(self.settings).items()
                     if name not in _NOT_RESULTS},
        'limits': {'time_limit_s': self.limits.time_limit_s,
                   'max_result_chars': self.limits.max_result_chars},
        'syntax': dataclasses.asdict(self.syntax),
        'tools': {plan.tool.name: plan.configuration() for plan in self.plans}}

  def run(self, corpus: Callable[[], Iterable[Document]], folder: RunFolder,
          stages: Iterable[str] = STAGES) -> None:
    """Does what is still to do of `stages`.

    Args:
      corpus: gives the documents; not called if they were all read by an earlier run.
      folder: where records come from and go to.
      stages: some of STAGES.

    Raises:
      UserError: the corpus is empty or broken, or a stage's input is not complete.
    """
    with folder.exclusively():
      self.model.tokenizer.save(folder.path)  # others have to tell where in a text its calls stand
      self._split_corpus(corpus, folder)
    for plan in self.plans:
      self._run_tool(folder, plan, [stage for stage in STAGES[:3] if stage in stages])
    if 'merge' in stages:
      with folder.exclusively():
        self._merge(folder, others_at_work=folder.shard.count > 1 and set(stages) != {'merge'})

  def _split_corpus(self, corpus, folder: RunFolder) -> None:
    if folder.is_complete(folders.DOCUMENTS):
      return
    batch, chunk, counts = [], 0, Counter()
    for document in self._short_documents(corpus(), counts):
      batch.append(document)
      if len(batch) == self.settings.chunk_documents:
        folder.write(folders.DOCUMENTS, chunk, batch, counts)
        batch, chunk = [], chunk + 1
        counts.clear()
    if batch or counts:
      folder.write(folders.DOCUMENTS, chunk, batch, counts)
    folder.complete(folders.DOCUMENTS)

  def _short_documents(self, corpus: Iterable[Document], counts: Counter) -> Iterator[Document]:
    """Yields the corpus in pieces that fit, without texts that could not be given back.

    Those already have what reads as a call, or bytes that the vocabulary does not know.
    """
    names, ids = {plan.tool.name for plan in self.plans}, set()
    for document in corpus:
      counts['read'] += 1
      pieces = split_document(document, self.model.tokenizer.encode, self.settings.max_text_tokens)
      counts['split'] += len(pieces) > 1
      for piece in pieces:
        if piece.id in ids:
          raise UserError(f'two texts have the id {piece.id!r}, one of them as a piece of a longer '
                          'one; ids must differ')
        ids.add(piece.id)
        if self.syntax.find(piece.text, names):
          counts['with a call already'] += 1
        elif not self.model.tokenizer.spells(piece.text):
          counts['with unknown characters'] += 1
        else:
          counts['documents'] += 1
          yield piece

  def _run_tool(self, folder: RunFolder, plan: ToolPlan, stages: Sequence[str]) -> None:
    """Does `stages`, a chunk of each as soon as the stage before has done it.

    Each stage is a generator that pulls chunks from the one before, all on this thread, the only
    one that uses the model and writes files: whatever ends one stage, an error or a signal, ends
    them all. Only tool calls run beside it, on the executor's threads, for which no exit waits.
    """
    for stage in stages:
      _check_source(folder, plan, stage, stages)
    with contextlib.ExitStack() as running:
      ready = iter(folder.own_chunks())
      for stage in stages:
        # Closed here: a generator that an error leaves halfway lives for as long as its traceback.
        ready = running.enter_context(contextlib.closing(self._stage(folder, plan, stage, ready)))
      deque(ready, maxlen=0)

  def _stage(self, folder: RunFolder, plan: ToolPlan, stage: str,
             ready: Iterable[int]) -> Iterator[int]:
    """Yields the chunks of `ready`, each when this stage has it in the folder."""
    name = stage_name(plan.tool.name, stage)
    if folder.is_complete(name):
      yield from ready
      return
    todo = {chunk for chunk in folder.own_chunks() if not folder.has(name, chunk)}
    with contextlib.ExitStack() as stack:
      title = f'{plan.tool.name} {stage}'
      progress = stack.enter_context(self._progress(folder, title, todo))
      worker = self._worker(plan, stage, stack) if todo else None
      def begin(chunk):
        if chunk not in todo:
          return chunk, 0, None
        documents = folder.read(folders.DOCUMENTS, chunk, Document)
        return chunk, len(documents), worker(folder, chunk, documents)
      begun = map(begin, ready)
      for chunk, texts, finish in _one_behind(begun) if stage == 'execute' else begun:
        if finish:
          start = time.perf_counter()
          folder.write(name, chunk, *finish())
          folder.log_time(name, chunk, time.perf_counter() - start)
          progress.advance(texts)
        yield chunk
    folder.complete_if_whole(name)

  def _progress(self, folder: RunFolder, title: str, todo: Collection[int]) -> Progress:
    """Returns the progress of a stage that has the chunks `todo` to do."""
    own = folder.own_chunks()
    texts, left = (folder.counts(folders.DOCUMENTS, some)['documents'] for some in (own, todo))
    return Progress(title, texts, 'texts', texts - left)

  def _worker(self, plan: ToolPlan, stage: str, stack: contextlib.ExitStack):
    """Returns the function (folder, chunk, documents) -> finish of a stage.

    It begins with a chunk; finish() returns the records and counts. `stack` is to be closed after.
    """
    tool, settings = plan.tool.name, self.settings
    if stage == 'sample':
      sampler = CallSampler(model=self.model, prompt=plan.prompt, tool=plan.config,
                            settings=settings, syntax=self.syntax)
      def sample(folder, chunk, documents):
        return lambda: sampler([document for document in documents if not settings.preselect
                                or preselect(tool, document, settings.seed)])
      return sample
    if stage == 'execute':
      executor = stack.enter_context(Executor(
          [plan.tool], self.limits, syntax=self.syntax, store=self.store))
      stack.callback(_log_calls, tool, executor.counts[tool])
      def call(folder, chunk, documents):
        candidates = _read(folder, stage_name(tool, 'sample'), chunk, Candidate, documents)
        return start_calls(candidates, documents, executor=executor,
                           tokenizer=self.model.tokenizer,
                           look_ahead_guard=settings.look_ahead_guard)
      return call
    least = min(*THRESHOLDS, plan.config.tau_f) if settings.early_reject else -math.inf
    def score(folder, chunk, documents):
      executed = _read(folder, stage_name(tool, 'execute'), chunk, ExecutedCall, documents)
      return functools.partial(score_calls, executed, documents, model=self.model,
                               syntax=self.syntax, min_gain=least,
                               scoring_tokens=settings.scoring_tokens)
    return score

  def _merge(self, folder: RunFolder, others_at_work: bool) -> None:
    """Merges all chunks, unless other shards still have to do some of them."""
    if folder.is_complete(folders.MERGED):
      return
    sources = {plan.tool.name: stage_name(plan.tool.name, 'filter') for plan in self.plans}
    for source in sources.values():
      if not folder.is_complete(source):
        if others_at_work:
          log.info('the shard that is done last will merge: %s is not complete yet', source)
          return
        raise UserError(f'merging needs {folder.path / source} to be complete; '
                        'run the stages before it first')
    tau_f = {plan.tool.name: plan.config.tau_f for plan in self.plans}
    left_out = self._left_out(folder, sources)
    for chunk in folder.chunks(folders.DOCUMENTS):
      documents = folder.read(folders.DOCUMENTS, chunk, Document)
      scored = [call for source in sources.values()
                for call in _read(folder, source, chunk, ScoredCall, documents)]
      folder.write(folders.MERGED, chunk, *merge(documents, scored, tau_f, left_out))
    folder.complete(folders.MERGED)

  def _left_out(self, folder: RunFolder, sources: dict[str, str]) -> set[tuple[str, str]]:
    """Returns the texts that are too many for a tool, as (tool, document id)."""
    left_out = set()
    for plan in self.plans:
      tool, config = plan.tool.name, plan.config
      kept = {call.document_id for call in folder.read_all(sources[tool], ScoredCall)
              if call.gain >= config.tau_f}
      left_out |= over_cap(tool, kept, config.max_texts, self.settings.seed)
    return left_out


def _read(folder: RunFolder, stage: str, chunk: int, kind, documents) -> list:
  """Returns the calls of a chunk, which somebody else may have written.

  Raises:
    UserError: a call is to another tool, or in none of the chunk's documents.
  """
  calls, known = folder.read(stage, chunk, kind), {document.id for document in documents}
  for call in calls:
    if call.document_id not in known or call.tool.lower() != stage.partition('/')[0]:
      raise UserError(f'chunk {chunk} of {folder.path / stage} has a call to {call.tool} in the '
                      f'text {call.document_id}; that is no text of the chunk, or another tool')
  return calls


def _log_calls(tool: str, counts: ToolCounts) -> None:
  if counts.calls:
    log.info('%s: %d different calls, %.2f s each, %d without a result', tool, counts.calls,
             counts.seconds / counts.calls, counts.failures.total())


def _one_behind(items: Iterable) -> Iterator:
  """Yields `items`, each when the next one has been made too: what it began had that time."""
  return (item for item, _ in itertools.pairwise(itertools.chain(items, [None])))


def _check_source(folder: RunFolder, plan: ToolPlan, stage: str, stages: Sequence[str]) -> None:
  """Checks that what `stage` reads is there, or made by one of `stages` in the same run.

  Raises:
    UserError: it is not.
  """
  tool, number = plan.tool.name, STAGES.index(stage)
  if number == 0 or STAGES[number - 1] in stages or folder.is_complete(stage_name(tool, stage)):
    return
  source = stage_name(tool, STAGES[number - 1])
  if not folder.has_own(source):
    raise UserError(f'stage {stage} of {tool} needs {folder.path / source} to be '
                    'complete; run the stages before it first')
