"""The gains of the calls to a tool, and what other thresholds would keep."""

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from toolformer_jax.view.data import ShownCall, Text


@dataclass(frozen=True)
class Rejected:
  """The positions at which no call was sampled, as it would gain less than `max_gain`.

  Attributes:
    positions: their number.
    texts: how many texts have some.
    max_gain: in nats.
  """

  positions: int = 0
  texts: int = 0
  max_gain: float = 0.0


@dataclass(frozen=True)
class ToolGains:
  """The gains of the calls to one tool, in nats and ascending order.

  The gains of calls that were rejected early are not known; only bounds of them are. No call was
  sampled at positions that were rejected early.

  Attributes:
    name: the tool's name, spelled as in calls.
    tau_f: threshold of the run.
    max_texts: largest number of texts that keep calls; infinite for runs that do not record it.
    calls: known gains.
    bounds: upper bounds of the gains that are not known.
    positions: the largest known gain at each position of a text, where merging keeps one call.
    texts: the largest known gain in each text.
    possible_positions, possible_texts: the same, with each unknown gain at its bound.
    rejected: the positions that were rejected early.
  """

  name: str
  tau_f: float
  max_texts: float
  calls: tuple[float, ...] = ()
  bounds: tuple[float, ...] = ()
  positions: tuple[float, ...] = ()
  texts: tuple[float, ...] = ()
  possible_positions: tuple[float, ...] = ()
  possible_texts: tuple[float, ...] = ()
  rejected: Rejected = field(default=Rejected(), kw_only=True)

  def kept_calls(self, tau_f: float) -> int:
    """Returns how many calls are surely kept at a threshold, before the limit on texts."""
    return _at_least(self.positions, tau_f)

  def kept_texts(self, tau_f: float) -> int:
    """Returns how many texts surely keep a call at a threshold, before the limit on texts."""
    return _at_least(self.texts, tau_f)

  def unknown_calls(self, tau_f: float) -> int:
    """Returns how many more calls may be kept at a threshold, at most, if all gains were known."""
    rejected = self.rejected.positions if tau_f < self.rejected.max_gain else 0
    return _at_least(self.possible_positions, tau_f) - self.kept_calls(tau_f) + rejected

  def unknown_texts(self, tau_f: float) -> int:
    """Returns how many more texts may keep a call at a threshold, at most."""
    rejected = self.rejected.texts if tau_f < self.rejected.max_gain else 0
    return _at_least(self.possible_texts, tau_f) - self.kept_texts(tau_f) + rejected


def _at_least(ascending: Sequence[float], least: float) -> int:
  """Returns how many of the numbers are at least `least`."""
  return len(ascending) - bisect.bisect_left(ascending, least)


def tool_gains(tool: str, limits: tuple[float, float], texts: Iterable['Text'], rejected: Rejected
               ) -> ToolGains:
  """Returns the gains of the calls to a tool.

  Args:
    tool: its name.
    limits: tau_f and max_texts.
    texts: all texts, with the calls to all tools.
    rejected: see `ToolGains`.
  """
  calls, bounds = [], []
  at_positions: tuple[list[float], list[float]] = ([], [])  # known gains; with bounds
  of_texts: tuple[list[float], list[float]] = ([], [])
  for text in texts:
    scored = [call for call in text.calls if call.record.tool == tool]
    calls += [call.gain for call in scored if call.gain is not None]
    bounds += [call.bound for call in scored if call.bound is not None]
    for found, best, of in zip(at_positions, of_texts, (_gain, _possible_gain), strict=True):
      by_position: dict[int, float] = {}
      for call in scored:
        if (gain := of(call)) is not None:
          position = call.record.position
          by_position[position] = max(gain, by_position.get(position, gain))
      found += by_position.values()
      best += [max(by_position.values())] if by_position else []
  sequences = (calls, bounds, at_positions[0], of_texts[0], at_positions[1], of_texts[1])
  return ToolGains(tool, *limits, *(tuple(sorted(gains)) for gains in sequences),
                   rejected=rejected)


def _gain(call: 'ShownCall') -> float | None:
  return call.gain


def _possible_gain(call: 'ShownCall') -> float | None:
  return call.bound if call.gain is None else call.gain
