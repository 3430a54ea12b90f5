"""Runs the stages over chunks of documents: corpus -> sample -> execute -> filter -> merge.

A chunk is the unit of work: what is computed for it depends on its own records alone, so that a
run that was killed goes on with the next chunk and ends with the same files.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from toolformer_jax.annotation import folder as folders
from toolformer_jax.annotation.execute import execute
from toolformer_jax.annotation.filter import score_calls
from toolformer_jax.annotation.folder import RunFolder, stage_name
from toolformer_jax.annotation.merge import merge
from toolformer_jax.annotation.preselect import preselect
from toolformer_jax.annotation.prompts import PROMPTS
from toolformer_jax.annotation.records import Candidate, Document, ExecutedCall, ScoredCall
from toolformer_jax.annotation.sample import CallSampler, check_fits
from toolformer_jax.annotation.settings import (
    STAGES,
    THRESHOLDS,
    AnnotationSettings,
    ToolSettings,
)
from toolformer_jax.annotation.split import split_document
from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax
from toolformer_jax.errors import UserError
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.progress import Progress
from toolformer_jax.tools.base import Tool
from toolformer_jax.tools.executor import Executor


@dataclass(frozen=True)
class ToolPlan:
  """A tool and how calls to it are sampled and kept."""

  tool: Tool
  settings: ToolSettings


@dataclass(frozen=True)
class Annotation:
  """Everything that an annotation run works with."""

  model: LanguageModel
  plans: tuple[ToolPlan, ...]
  settings: AnnotationSettings
  syntax: CallSyntax = DEFAULT_SYNTAX

  def __post_init__(self):
    for plan in self.plans:
      check_fits(self.model, PROMPTS[plan.tool.name.lower()], self.settings, self.syntax)

  def configuration(self) -> dict[str, Any]:
    """Returns what the results depend on, besides the corpus and the model's weights."""
    return {
        'dtype': self.model.config.dtype,
        'settings': dataclasses.asdict(self.settings), 'syntax': dataclasses.asdict(self.syntax),
        'tools': {plan.tool.name: dataclasses.asdict(plan.settings) | {'version': plan.tool.version}
                  for plan in self.plans}}

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
    self._split_corpus(corpus, folder)
    for plan in self.plans:
      for stage in STAGES[:3]:
        if stage in stages:
          self._run_stage(folder, plan, stage)
    if 'merge' in stages:
      self._merge(folder)

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
    names = {plan.tool.name for plan in self.plans}
    for document in corpus:
      counts['read'] += 1
      pieces = split_document(document, self.model.tokenizer.encode, self.settings.max_text_tokens)
      counts['split'] += len(pieces) > 1
      for piece in pieces:
        if self.syntax.find(piece.text, names):
          counts['with a call already'] += 1
        elif not self.model.tokenizer.spells(piece.text):
          counts['with unknown characters'] += 1
        else:
          counts['documents'] += 1
          yield piece

  def _run_stage(self, folder: RunFolder, plan: ToolPlan, stage: str) -> None:
    name, source = stage_name(plan.tool.name, stage), _source(plan, stage)
    if folder.is_complete(name):
      return
    if not folder.is_complete(source):
      raise UserError(f'stage {stage} of {plan.tool.name} needs {folder.path / source} to be '
                      'complete; run the stages before it first')
    chunks = folder.chunks(folders.DOCUMENTS)
    todo = [chunk for chunk in chunks if not folder.has(name, chunk)]
    texts, size = folder.counts(folders.DOCUMENTS)['documents'], self.settings.chunk_documents
    done = min(texts, (len(chunks) - len(todo)) * size)
    title = f'{plan.tool.name} {stage}'
    with Progress(title, texts, 'texts', done) as progress:
      work = self._worker(plan, stage) if todo else None
      for chunk in todo:
        documents = folder.read(folders.DOCUMENTS, chunk, Document)
        records, counts = work(folder, chunk, documents)
        folder.write(name, chunk, records, counts)
        progress.advance(len(documents))
    folder.complete(name)

  def _worker(self, plan: ToolPlan, stage: str):
    """Returns the function (folder, chunk, documents) -> (records, counts) of a stage."""
    tool, settings = plan.tool.name, self.settings
    if stage == 'sample':
      sampler = CallSampler(model=self.model, prompt=PROMPTS[tool.lower()], tool=plan.settings,
                            settings=settings, syntax=self.syntax)
      def sample(folder, chunk, documents):
        return sampler([document for document in documents if not settings.preselect
                        or preselect(tool, document, settings.seed)])
      return sample
    if stage == 'execute':
      def run_tool(folder, chunk, documents):
        candidates = _read(folder, stage_name(tool, 'sample'), chunk, Candidate, documents)
        with Executor([plan.tool], time_limit_s=settings.time_limit_s,
                      max_result_chars=settings.max_result_chars, syntax=self.syntax) as executor:
          return execute(candidates, documents, executor=executor, tokenizer=self.model.tokenizer,
                         number_guard=settings.number_guard)
      return run_tool
    def score(folder, chunk, documents):
      executed = _read(folder, stage_name(tool, 'execute'), chunk, ExecutedCall, documents)
      least = min(*THRESHOLDS, plan.settings.tau_f) if settings.skip_hopeless else -math.inf
      return score_calls(executed, documents, model=self.model, syntax=self.syntax,
                         least_gain=least)
    return score

  def _merge(self, folder: RunFolder) -> None:
    if folder.is_complete(folders.MERGED):
      return
    tau_f: Mapping[str, float] = {plan.tool.name: plan.settings.tau_f for plan in self.plans}
    sources = [stage_name(plan.tool.name, 'filter') for plan in self.plans]
    for source in sources:
      if not folder.is_complete(source):
        raise UserError(f'merging needs {folder.path / source} to be complete; '
                        'run the stages before it first')
    for chunk in folder.chunks(folders.DOCUMENTS):
      documents = folder.read(folders.DOCUMENTS, chunk, Document)
      scored = [call for source in sources
                for call in _read(folder, source, chunk, ScoredCall, documents)]
      folder.write(folders.MERGED, chunk, *merge(documents, scored, tau_f))
    folder.complete(folders.MERGED)


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


def _source(plan: ToolPlan, stage: str) -> str:
  """Returns the stage whose records `stage` reads."""
  if stage == 'sample':
    return folders.DOCUMENTS
  return stage_name(plan.tool.name, STAGES[STAGES.index(stage) - 1])
