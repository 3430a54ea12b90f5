"""Numbers to look at: the histogram of a tool's gains, the steps of its slider, and colours."""

import bisect
import html
import itertools
import json
import math
from dataclasses import dataclass
from fractions import Fraction

from toolformer_jax.view.data import ToolGains

# Gains between two of these have the same colour, from red through grey to green.
_COLOUR_EDGES = (-1.0, -0.5, -0.2, -0.05, 0.05, 0.2, 0.5, 1.0)
COLOURS = len(_COLOUR_EDGES) + 1
_BARS, _SLIDER_STEPS, _LABELS = 60, 200, 8
_WIDTH, _HEIGHT, _TOP, _BOTTOM = 640, 120, 16, 20
_MOST_NATS = 1e6  # a gain beyond it comes of losses that overflowed


@dataclass(frozen=True)
class Axis:
  """The gains that a chart shows, from edges[0] to edges[-1], in steps of equal width."""

  edges: list[float]

  def place(self, gain: float) -> float:
    """Returns how far to the right a gain stands in the chart."""
    low, high = self.edges[0], self.edges[-1]
    return round(_WIDTH * (min(max(gain, low), high) - low) / (high - low), 1)

  def marks(self, most: int) -> list[float]:
    """Returns round numbers all along the axis, about `most` at most."""
    low, high = self.edges[0], self.edges[-1]
    return [gain for gain in ticks(low, high, most) if low <= gain <= high]


def colour(gain: float) -> str:
  """Returns the class that colours a gain: g0 is the worst."""
  return f'g{COLOURS // 2 if math.isnan(gain) else bisect.bisect_right(_COLOUR_EDGES, gain)}'


def ticks(low: float, high: float, most: int) -> list[float]:
  """Returns the multiples of a round number that cover [low, high], about `most` at most."""
  rough = max(high - low, 0.1) / most
  power = Fraction(10) ** math.floor(math.log10(rough))
  step = next(m * power for m in (1, 2, 5, 10, 20) if m * power >= rough)
  first, last = math.floor(Fraction(low) / step), math.floor(Fraction(high) / step) + 1
  last += float(last * step) <= high  # a multiple just above it may be the same float
  return [float(i * step) for i in range(first, last + 1)]


def axis(tool: ToolGains) -> Axis:
  """Returns the axis of a tool: all of its gains, 0 and the run's threshold are on it."""
  shown = [gain for gain in (*tool.calls, 0.0, tool.tau_f) if abs(gain) <= _MOST_NATS]
  return Axis(ticks(min(shown), max(shown), _BARS))


def slider(tool: ToolGains, tau_f: float) -> tuple[str, int]:
  """Returns what the slider can be set to, and the index of `tau_f` in it.

  The former is JSON: for each threshold how many calls and texts it keeps, and its place in the
  histogram.
  """
  shown = axis(tool)
  thresholds = sorted({*shown.marks(_SLIDER_STEPS), tool.tau_f, tau_f})
  table = [[t, tool.kept_calls(t), tool.kept_texts(t), shown.place(t)] for t in thresholds]
  return json.dumps(table, separators=(',', ':')), thresholds.index(tau_f)


def histogram(tool: ToolGains, tau_f: float) -> str:
  """Returns the gains of all calls to a tool as an SVG chart with a line at a threshold."""
  shown = axis(tool)
  counts = [bisect.bisect_left(tool.calls, high) - bisect.bisect_left(tool.calls, low)
            for low, high in itertools.pairwise(shown.edges)]
  highest = max(counts)
  bars = ''.join(_bar(shown, i, count, highest) for i, count in enumerate(counts) if count)
  line = shown.place(tau_f)
  return (
      f'<svg class="histogram" viewBox="-16 0 {_WIDTH + 32} {_TOP + _HEIGHT + _BOTTOM}" role="img" '
      f'aria-label="histogram of the gains of {html.escape(tool.name)}">'
      f'<text x="0" y="11">{highest} calls</text>{bars}{_scale(shown)}'
      f'<line class="threshold" x1="{line}" x2="{line}" y1="2" y2="{_TOP + _HEIGHT}"/></svg>')


def _bar(shown: Axis, number: int, count: int, highest: int) -> str:
  low, high = shown.edges[number:number + 2]
  left, right = shown.place(low), shown.place(high)
  height = round(max(2, _HEIGHT * count / highest), 1)  # one call among thousands is seen too
  return (f'<rect class="{colour((low + high) / 2)}" x="{left}" y="{_TOP + _HEIGHT - height:.1f}" '
          f'width="{max(right - left - 1, 1):.1f}" height="{height}">'
          f'<title>{low:g} to {high:g}: {count} calls</title></rect>')


def _scale(shown: Axis) -> str:
  bottom = _TOP + _HEIGHT
  labels = ''.join(
      f'<text class="tick" x="{shown.place(gain)}" y="{bottom + 15}">{gain:g}</text>'
      for gain in shown.marks(_LABELS))
  return f'<line x1="0" x2="{_WIDTH}" y1="{bottom}" y2="{bottom}"/>{labels}'
