"""The filter in a fast dtype, with verification in float32 of what may decide.

A position keeps the best call to each tool if its gain reaches tau_f (see `merge`). If no gain in
the fast dtype is further from that in float32 than a margin, the same calls are kept as in float32:
the calls that may be the best one are scored again in float32 if there are several, or if the best
one may be on either side of tau_f. The losses of all other calls are those of the fast dtype, and
so are all counts at other thresholds than tau_f.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from toolformer_jax.annotation.config import AnnotationConfig
from toolformer_jax.annotation.filter import score_calls
from toolformer_jax.data.records import Document, ExecutedCall, ScoredCall
from toolformer_jax.errors import UserError
from toolformer_jax.models.language_model import LanguageModel

RESCORED = 'rescored'  # the count of calls that were scored again


def check_dtypes(config: AnnotationConfig, model_dtype: str) -> None:
  """Raises UserError if the filter shall use another dtype and the model is not in float32."""
  if config.filter_dtype != 'float32' and model_dtype != 'float32':
    raise UserError(f'AnnotationConfig.filter_dtype {config.filter_dtype!r} needs the '
                    f'ModelConfig.dtype float32, not {model_dtype}: gains near tau_f are verified '
                    'in float32')


def score_calls_verified(
    executed: Sequence[ExecutedCall], documents: Sequence[Document], *, model: LanguageModel,
    fast: LanguageModel, tau_f: float, margin: float, min_gain: float,
    reuse_no_call: bool = False, **options: Any,
) -> tuple[list[ScoredCall], Counter[str]]:
  """Returns what `score_calls` does, with losses in float32 where a decision may depend on them.

  Args:
    executed: calls in `documents`. All calls to a tool at a position must be among them.
    documents: the texts.
    model: in float32.
    fast: the same model in another dtype.
    tau_f: the threshold.
    margin: largest difference between a gain by `fast` and by `model`, in nats.
    min_gain: see `score_calls`; at most `tau_f`.
    reuse_no_call: see `score_calls`; the losses that `executed` has are of `model`.
    options: the other arguments of `score_calls`.

  Raises:
    UserError: there is not enough memory, or a loss is not a number.
  """
  calls = [call for call in executed if call.failure is None]
  scored, counts = score_calls(
      calls, documents, model=fast, min_gain=min_gain - margin, **options)
  open_calls = undecided(scored, tau_f, margin)
  exact, exact_counts = score_calls(
      [calls[i] for i in open_calls], documents, model=model, min_gain=min_gain,
      reuse_no_call=reuse_no_call, **options)
  for i, call in zip(open_calls, exact, strict=True):
    scored[i] = call
  del exact_counts['scored']
  counts.update(exact_counts)
  counts[RESCORED] = len(open_calls)
  return scored, counts


def undecided(scored: Sequence[ScoredCall], tau_f: float, margin: float) -> list[int]:
  """Returns the indices of the calls whose exact gains may decide which calls are kept.

  Args:
    scored: all calls to some tools at some positions.
    tau_f: the threshold.
    margin: largest error of their gains, in nats.
  """
  places: dict[tuple[str, int, str], list[int]] = defaultdict(list)
  for i, call in enumerate(scored):
    places[call.document_id, call.position, call.tool].append(i)
  found = []
  for calls in places.values():
    best = max(scored[i].gain for i in calls)
    least = max(tau_f - margin, best - 2 * margin)
    rivals = [i for i in calls if scored[i].gain >= least]
    if len(rivals) > 1 or (rivals and best <= tau_f + margin):
      found += rivals
  return sorted(found)
