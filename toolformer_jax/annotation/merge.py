"""Step 4: put the kept calls of all tools into their texts: C* (paper, section 2)."""

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from toolformer_jax.data.content_hash import stable_hash
from toolformer_jax.data.records import AnnotatedDocument, Document, ScoredCall


def merge(
    documents: Sequence[Document], scored: Iterable[ScoredCall], tau_f: Mapping[str, float],
    left_out: Collection[tuple[str, str]] = frozenset(),
) -> tuple[list[AnnotatedDocument], Counter]:
  """Returns the documents that keep a call, with their calls in order, and counts by tool.

  A call is kept if its gain is at least its tool's tau_f. Of several calls to one tool at one
  position the one with the highest gain stays (the paper does not say). Texts without a call are
  dropped, as in the paper (section 4.1).

  Args:
    documents: the texts.
    scored: calls of any tools, in any order.
    tau_f: threshold by the tool's name as calls spell it.
    left_out: (tool, document id) of texts that keep no call to the tool, see `over_cap`.
  """
  best: dict[str, dict[tuple[int, str], ScoredCall]] = {}
  for call in scored:
    if call.gain >= tau_f[call.tool] and (call.tool, call.document_id) not in left_out:
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


def over_cap(tool: str, document_ids: Collection[str], cap: int,
             seed: int) -> set[tuple[str, str]]:
  """Returns which texts keep no call to `tool`, so that only `cap` of them do (appendix B).

  Which ones is random by `seed`, and depends on no order.
  """
  def draw(document_id: str) -> bytes:
    return stable_hash(f'{seed} {tool} {document_id}')
  surplus = max(len(document_ids) - cap, 0)
  return {(tool, document_id) for document_id in heapq.nlargest(surplus, document_ids, key=draw)}


def _rank(call: ScoredCall) -> tuple[float, str]:
  return call.gain, call.argument
