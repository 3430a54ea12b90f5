"""The result of an annotation, read from its folder when it is used."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath

from toolformer_jax.annotation import report as markdown
from toolformer_jax.annotation.run_reader import RunReader
from toolformer_jax.annotation.stage_keys import MERGED
from toolformer_jax.annotation.tool_plan import ToolPlan
from toolformer_jax.annotation.tool_summary import ToolSummary, tool_summaries
from toolformer_jax.calls import CallSyntax
from toolformer_jax.data.records import AnnotatedDocument, Document, ScoredCall, to_json
from toolformer_jax.runtime.departures import Departure, departures_section


@dataclass(frozen=True, eq=False)
class AnnotationResult:
  """The result of an annotation.

  Sequences of records are read chunk by chunk while they are iterated over, so that a run may be
  larger than memory; they have a length and indices. All other fields are computed on first use.

  Attributes:
    documents: the texts, split where they were too long.
    scored: the calls that have a result, with their losses, by the tool's name (paper, section 2).
    annotated: the texts that keep a call, with their calls: C*.
    tool_summaries: numbers of texts and calls after each stage, by the tool's name.
    summary: what happened to the corpus and the calls, in Markdown.
    examples: the kept and the rejected calls with the largest gains, in Markdown; '' while the run
      is not complete.
    best_calls: the three best kept and rejected calls of each tool, in Markdown.
    time_table: seconds that a text took in each stage, in Markdown.
    departures: settings that differ from what the paper states.
    report: `summary`, `examples` and `departures`, the content of report.md.
    complete: whether all stages are complete, those of other shards included.
    output_dir: the folder of the run; None if it is temporary.
  """

  run: RunReader
  plans: tuple[ToolPlan, ...]
  max_text_tokens: int
  syntax: CallSyntax
  output_dir: epath.Path | None
  departures: tuple[Departure, ...] = ()

  @property
  def documents(self) -> Sequence[Document]:
    return self.run.documents()

  @property
  def scored(self) -> Mapping[str, Sequence[ScoredCall]]:
    return {plan.tool.name: self.run.calls(plan.tool.name, 'filter') for plan in self.plans}

  @property
  def annotated(self) -> Sequence[AnnotatedDocument]:
    return self.run.annotated()

  @functools.cached_property
  def tool_summaries(self) -> Mapping[str, ToolSummary]:
    return {summary.name: summary for summary in tool_summaries(self.run, self.plans)}

  @functools.cached_property
  def summary(self) -> str:
    return markdown.overview(self.run, list(self.tool_summaries.values()), self.max_text_tokens)

  @functools.cached_property
  def examples(self) -> str:
    if not self.complete:
      return ''
    return markdown.examples(self.tool_summaries.values(), self._texts_of_best_calls,
                             self.run.tokenizer(), self.syntax)

  @functools.cached_property
  def best_calls(self) -> str:
    return markdown.best_calls(self.tool_summaries.values(), self._texts_of_best_calls,
                               self.run.tokenizer(), self.syntax, count=3)

  @functools.cached_property
  def time_table(self) -> str:
    return markdown.time_table(self.run, self.plans)

  @property
  def report(self) -> str:
    return '\n\n'.join([self.summary, self.examples, departures_section(self.departures)]) + '\n'

  @property
  def complete(self) -> bool:
    return self.run.is_complete(MERGED)

  @functools.cached_property
  def _texts_of_best_calls(self) -> dict[str, str]:
    """The texts that the tables of calls quote, by document id."""
    ids = {call.document_id for summary in self.tool_summaries.values()
           for call in (*summary.best_kept, *summary.best_rejected)}
    return {document.id: document.text for document in self.documents if document.id in ids}

  def to_records(self) -> list[dict[str, Any]]:
    """Returns a dict for each scored call, for a data frame: its fields, gain and text.

    The gain is None if only a bound of it is known, see `ScoredCall`.
    """
    texts = {document.id: document.text for document in self.documents}
    return [to_json(call) | {'text': texts[call.document_id]}
            for calls in self.scored.values() for call in calls]

  def __repr__(self) -> str:
    counts = self.run.counts(MERGED)
    kept = sum(counts[f'merged {plan.tool.name}'] for plan in self.plans)
    return (f'AnnotationResult({len(self.documents)} texts, {kept} kept calls in '
            f'{len(self.annotated)} of them)')
