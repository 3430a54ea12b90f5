"""How many texts and calls of each tool pass the stages of a run, and which calls help most."""

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from toolformer_jax.annotation.config import THRESHOLDS
from toolformer_jax.annotation.early_rejection import REJECTED_POSITIONS, TOKENS_SKIPPED
from toolformer_jax.annotation.run_reader import RunReader
from toolformer_jax.annotation.sample import texts_by_tau_s
from toolformer_jax.annotation.stage_keys import DOCUMENTS, stage_name
from toolformer_jax.annotation.tool_plan import ToolPlan
from toolformer_jax.annotation.verified_filter import RESCORED
from toolformer_jax.data.records import ScoredCall
from toolformer_jax.inference.batching import TOKENS_COMPUTED, TOKENS_NEEDED

_BEST = 10  # calls that are remembered on each side of the threshold


@dataclass(frozen=True)
class ToolSummary:
  """Numbers of texts and calls of one tool after each stage.

  Attributes:
    plan: the tool and its thresholds.
    texts: number of texts of the corpus.
    preselected: texts in which calls were sampled.
    positions: positions at which calls were sampled.
    rejected_positions: positions without samples, as no call can be kept there (`early_reject`).
    samples: samples, well-formed or not.
    candidates: different well-formed calls.
    executed: calls that have a result.
    scored: calls that have losses.
    rejected_calls: scored calls without the loss with an empty result (`early_reject`).
    skipped_tokens: the share of the filter's tokens that was not computed, as that loss is not.
    rescored: scored calls that were scored again in float32, see `verified_filter`.
    kept: positions that keep a call, by threshold; one of the thresholds is that of the plan.
    texts_kept: texts that keep a call, by threshold, before the cap (the paper's Table 2).
    max_gain: largest known gain of a call, in nats; None if none is known.
    failures: number of calls without a result, by reason.
    texts_by_tau_s: of the texts without a position above tau_s, how many would have one at a
      lower tau_s; the highest ones come first.
    batch_fill: share of the tokens computed by the device that were needed, by stage.
    incomplete_stage: the first stage that is not complete; None if all are.
    best_kept: the kept calls with the largest gains, at most one in a text.
    best_rejected: the rejected calls with the largest gains, at most one in a text.
  """

  plan: ToolPlan
  texts: int
  preselected: int
  positions: int
  rejected_positions: int
  samples: int
  candidates: int
  executed: int
  scored: int
  rejected_calls: int
  skipped_tokens: float
  rescored: int
  kept: dict[float, int]
  texts_kept: dict[float, int]
  max_gain: float | None
  failures: Counter[str]
  texts_by_tau_s: dict[float, int]
  batch_fill: dict[str, float]
  incomplete_stage: str | None
  best_kept: tuple[ScoredCall, ...]
  best_rejected: tuple[ScoredCall, ...]

  @property
  def name(self) -> str:
    """The tool's name."""
    return self.plan.tool.name


def tool_summaries(run: RunReader, plans: Iterable[ToolPlan]) -> list[ToolSummary]:
  """Returns a summary for each of `plans`; stages that have not run count as zero.

  Raises:
    UserError: a file of the run is missing or broken.
  """
  texts = run.counts(DOCUMENTS)['documents']
  return [_tool_summary(run, plan, texts) for plan in plans]


def _tool_summary(run: RunReader, plan: ToolPlan, texts: int) -> ToolSummary:
  """Reads the scored calls of a tool once; the calls of a text are all in one chunk."""
  tool, tau_f = plan.tool.name, plan.config.tau_f
  sampled, executed, filtered = (run.counts(stage_name(tool, stage))
                                 for stage in ('sample', 'execute', 'filter'))
  kept, texts_kept = ({t: 0 for t in sorted({*THRESHOLDS, tau_f})} for _ in range(2))
  scored, rejected, max_gain = 0, 0, -math.inf
  best_kept: list[ScoredCall] = []
  best_rejected: list[ScoredCall] = []
  for calls in run.calls(tool, 'filter').chunks():
    scored += len(calls)
    rejected += sum(call.loss_call is None for call in calls)
    max_gain = max([max_gain, *(call.gain for call in calls if call.loss_call is not None)])
    for t in kept:
      places = {(call.document_id, call.position) for call in calls if call.gain >= t}
      kept[t] += len(places)
      texts_kept[t] += len({document_id for document_id, _ in places})
    above, below = _best_of_texts(calls, tau_f)
    best_kept = heapq.nsmallest(_BEST, [*best_kept, *above], key=_rank)
    best_rejected = heapq.nsmallest(_BEST, [*best_rejected, *below], key=_rank)
  return ToolSummary(
      plan=plan, texts=texts, preselected=sampled['documents'], positions=sampled['positions'],
      rejected_positions=sampled[REJECTED_POSITIONS], samples=sampled['samples'],
      candidates=len(run.calls(tool, 'sample')), executed=executed['executed'], scored=scored,
      rejected_calls=rejected, skipped_tokens=filtered[TOKENS_SKIPPED] / max(
          1, filtered[TOKENS_SKIPPED] + filtered[TOKENS_NEEDED]),
      rescored=filtered[RESCORED], kept=kept, texts_kept=texts_kept,
      max_gain=max_gain if max_gain > -math.inf else None, failures=_failures(tool, executed),
      texts_by_tau_s=texts_by_tau_s(sampled), batch_fill={
          stage: counts[TOKENS_NEEDED] / counts[TOKENS_COMPUTED]
          for stage, counts in (('sample', sampled), ('filter', filtered))
          if counts[TOKENS_COMPUTED]},
      incomplete_stage=next((stage for stage in ('sample', 'execute', 'filter')
                             if not run.is_complete(stage_name(tool, stage))), None),
      best_kept=tuple(best_kept), best_rejected=tuple(best_rejected))


def _best_of_texts(calls: Sequence[ScoredCall], tau_f: float
                   ) -> tuple[list[ScoredCall], list[ScoredCall]]:
  """Returns the best kept and the best rejected call of each text.

  Of several calls at one position only the best one counts: the others are rejected for it.
  """
  best: dict[tuple[str, int], ScoredCall] = {}
  for call in calls:
    place = call.document_id, call.position
    best[place] = min(best.get(place, call), call, key=_rank)
  kept: dict[str, ScoredCall] = {}
  rejected: dict[str, ScoredCall] = {}
  for call in sorted(best.values(), key=_rank):
    (kept if call.gain >= tau_f else rejected).setdefault(call.document_id, call)
  return list(kept.values()), list(rejected.values())


def _rank(call: ScoredCall) -> tuple[bool, float]:
  """Orders calls by falling gain; those whose gain is only bounded come last."""
  return call.loss_call is None, -call.gain


def _failures(tool: str, counts: Counter[str]) -> Counter[str]:
  """Returns the number of calls without a result by reason, without the details after a colon."""
  reasons: Counter[str] = Counter()
  for name, count in counts.items():
    if name.startswith('failed: '):
      reason = name.removeprefix('failed: ').removeprefix(f'{tool}: ')
      reasons[reason.partition(':')[0]] += count
  return reasons
