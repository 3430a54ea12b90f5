"""Step 4: insert the kept calls of all tools into their texts: C* (paper, section 2)."""

import dataclasses
import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from toolformer_jax.data.content_hash import stable_hash
from toolformer_jax.data.records import AnnotatedDocument, Document, ScoredCall
from toolformer_jax.tokenizer import Tokenizer


def merge(
    documents: Sequence[Document], scored: Iterable[ScoredCall], tau_f: Mapping[str, float],
    excluded: Collection[tuple[str, str]] = frozenset(),
) -> tuple[list[AnnotatedDocument], Counter]:
  """Returns the documents that keep a call, with their calls in order, and counts by tool.

  A call is kept if its gain is at least the tau_f of its tool. Of several calls to one tool at one
  position, only the one with the largest gain is kept (the paper does not say). Documents without a
  call are dropped, as in the paper (section 4.1).

  Args:
    documents: the texts.
    scored: calls to any tools, in any order.
    tau_f: threshold by the tool's name, spelled as in calls.
    excluded: (tool, document id) of documents that keep no call to the tool, see
      `documents_over_cap`.
  """
  best: dict[str, dict[tuple[int, str], ScoredCall]] = {}
  for call in scored:
    if call.gain >= tau_f[call.tool] and (call.tool, call.document_id) not in excluded:
      places = best.setdefault(call.document_id, {})
      place = call.position, call.tool
      if place not in places or _rank(call) > _rank(places[place]):
        places[place] = call
  annotated = [
      AnnotatedDocument(document, tuple(call for _, call in sorted(best[document.id].items())))
      for document in documents if document.id in best]
  counts = Counter(f'merged {call.tool}' for record in annotated for call in record.calls)
  counts.update(Counter(f'texts {tool}' for record in annotated
                        for tool in {call.tool for call in record.calls}))
  return annotated, counts


def with_char_offsets(record: AnnotatedDocument, tokenizer: Tokenizer) -> AnnotatedDocument:
  """Returns a text whose calls tell the characters before them; `tokenizer` is that of the run."""
  text = record.document.text
  offsets = [*tokenizer.character_offsets(text), len(text)]
  return dataclasses.replace(record, calls=tuple(
      dataclasses.replace(call, char_offset=offsets[call.position]) for call in record.calls))


def documents_over_cap(tool: str, document_ids: Collection[str], cap: int,
                       seed: int) -> set[tuple[str, str]]:
  """Returns the documents that must lose their calls to `tool` so that only `cap` keep some.

  They are chosen at random by `seed`, independently of the order of `document_ids` (paper,
  appendix B).

  Returns:
    (tool, document id) of each.
  """
  def key(document_id: str) -> bytes:
    return stable_hash(f'{seed} {tool} {document_id}')
  surplus = max(len(document_ids) - cap, 0)
  return {(tool, document_id) for document_id in heapq.nlargest(surplus, document_ids, key=key)}


def _rank(call: ScoredCall) -> tuple[float, str]:
  """Orders the calls to one tool at one position by gain; equal gains by argument."""
  return call.gain, call.argument
