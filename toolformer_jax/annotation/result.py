"""The outcome of an annotation, read from its folder: for notebooks and for the next stage."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolformer_jax.annotation import report
from toolformer_jax.annotation.pipeline import Annotation
from toolformer_jax.annotation.run_dir import DOCUMENTS, MERGED, RunReader, stage_name
from toolformer_jax.data.records import AnnotatedDocument, Document, ScoredCall


@dataclass(frozen=True)
class AnnotationResult:
  """The outcome of an annotation.

  Attributes:
    documents: the texts, split where they were too long.
    scored: by the tool's name, the calls that had a result, with their losses (paper, section 2).
    annotated: the texts that keep a call, with their calls: C*.
    counts: (by the tool's name) how many texts and calls passed each stage, as a row of the report.
    summary: what became of the corpus, in Markdown.
    examples: the calls that help most and those that just fail to, in Markdown; '' before the last
      stage.
    best_calls: the three best of each, kept and rejected, under headings.
    time_table: seconds a text took in each stage, in Markdown.
    complete: whether all stages are done, those of other shards included.
    output_dir: the folder of the run; None if it was temporary.
  """

  documents: tuple[Document, ...]
  scored: Mapping[str, tuple[ScoredCall, ...]]
  annotated: tuple[AnnotatedDocument, ...]
  counts: Mapping[str, report.ToolRow]
  summary: str
  examples: str
  best_calls: str
  time_table: str
  complete: bool
  output_dir: pathlib.Path | None

  def to_records(self) -> list[dict[str, Any]]:
    """Returns a dict for each scored call, for a data frame: its fields, gain and text."""
    texts = {document.id: document.text for document in self.documents}
    return [dataclasses.asdict(call) | {'gain': call.gain, 'text': texts[call.document_id]}
            for calls in self.scored.values() for call in calls]

  def __repr__(self) -> str:
    kept = sum(len(record.calls) for record in self.annotated)
    return (f'AnnotationResult({len(self.documents)} texts, {kept} kept calls in '
            f'{len(self.annotated)} of them)')


def read_result(annotation: Annotation, folder: RunReader, output_dir: pathlib.Path | None
                ) -> AnnotationResult:
  """Returns what `folder` holds of `annotation`."""
  plans: Sequence = annotation.plans
  rows = report.tool_rows(folder, plans)
  complete = folder.is_complete(MERGED)
  return AnnotationResult(
      documents=tuple(folder.read_all(DOCUMENTS, Document)),
      scored={plan.tool.name: tuple(folder.read_all(stage_name(plan.tool.name, 'filter'),
                                                    ScoredCall)) for plan in plans},
      annotated=tuple(folder.read_all(MERGED, AnnotatedDocument)),
      counts={row.plan.tool.name: row for row in rows},
      summary=report.summary(folder, plans, annotation.settings),
      examples=report.examples(folder, plans, annotation.model.tokenizer, annotation.syntax)
      if complete else '',
      best_calls=report.best_calls_sections(folder, plans, annotation.model.tokenizer,
                                            annotation.syntax, 3),
      time_table=report.time_table(folder, plans),
      complete=complete, output_dir=output_dir)
