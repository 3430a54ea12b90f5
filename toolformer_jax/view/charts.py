"""The chart of a tool's gains: the bars of the histogram, the steps of the slider, the colors."""

import bisect
import itertools
import json
import math
from dataclasses import dataclass
from fractions import Fraction

from toolformer_jax.view.gains import ToolGains

# Boundaries of the colors of gains, from red through grey to green.
_COLOR_EDGES = (-1.0, -0.5, -0.2, -0.05, 0.05, 0.2, 0.5, 1.0)
_COLORS = len(_COLOR_EDGES) + 1
_BARS, _SLIDER_STEPS, _LABELS = 60, 200, 8
_WIDTH, _BAR_HEIGHT, _TOP = 640, 120, 16
_MAX_NATS = 1e6  # larger gains are results of overflow, and are not shown


@dataclass(frozen=True)
class Axis:
  """The horizontal axis of a chart: gains from edges[0] to edges[-1], in steps of equal width."""

  edges: list[float]

  def x(self, gain: float) -> float:
    """Returns the horizontal coordinate of a gain, clipped to the axis."""
    low, high = self.edges[0], self.edges[-1]
    return round(_WIDTH * (min(max(gain, low), high) - low) / (high - low), 1)

  def ticks(self, count: int) -> list[float]:
    """Returns round numbers along the axis, about `count` at most."""
    low, high = self.edges[0], self.edges[-1]
    return [gain for gain in ticks(low, high, count) if low <= gain <= high]


@dataclass(frozen=True)
class Bar:
  """A bar of a histogram: `count` gains in [low, high), and its place in the chart's units."""

  low: float
  high: float
  count: int
  x: float
  width: float
  height: float


@dataclass(frozen=True)
class Histogram:
  """A histogram of gains with a line at a threshold, in the units of its SVG image.

  Attributes:
    width: of the axis.
    baseline: vertical coordinate of the axis, the lower end of the bars.
    highest: the number of calls in the highest bar.
    bars: the bars that are not empty.
    ticks: labelled gains, each with its horizontal coordinate.
    threshold_x: horizontal coordinate of the threshold.
  """

  width: int
  baseline: int
  highest: int
  bars: tuple[Bar, ...]
  ticks: tuple[tuple[float, float], ...]
  threshold_x: float


@dataclass(frozen=True)
class Slider:
  """The steps of a threshold's slider.

  Attributes:
    steps: as JSON, for each step [threshold, kept calls, kept texts, calls and texts that may be
      kept too, x in the histogram].
    step: the index of the current threshold.
  """

  steps: str
  step: int


def color_class(gain: float) -> str:
  """Returns the CSS class that colors a gain: g0 is the worst."""
  return f'g{bisect.bisect_right(_COLOR_EDGES, gain)}'


def ticks(low: float, high: float, count: int) -> list[float]:
  """Returns the multiples of a round number that cover [low, high], about `count` at most."""
  rough = max(high - low, 0.1) / count
  power = Fraction(10) ** math.floor(math.log10(rough))
  step = next(m * power for m in (1, 2, 5, 10, 20) if m * power >= rough)
  first, last = math.floor(Fraction(low) / step), math.floor(Fraction(high) / step) + 1
  last += float(last * step) <= high  # a multiple just above it may be the same float
  return [float(i * step) for i in range(first, last + 1)]


def gain_axis(tool: ToolGains) -> Axis:
  """Returns the axis of a tool's chart: it covers all gains, bounds, 0 and the run's threshold.
  """
  shown = [gain for gain in (*tool.calls, *tool.bounds, 0.0, tool.tau_f) if abs(gain) <= _MAX_NATS]
  return Axis(ticks(min(shown), max(shown), _BARS))


def threshold_slider(tool: ToolGains, tau_f: float) -> Slider:
  """Returns the slider of a tool's threshold, set to `tau_f`."""
  axis = gain_axis(tool)
  thresholds = sorted({*axis.ticks(_SLIDER_STEPS), tool.tau_f, tau_f})
  steps = [[t, tool.kept_calls(t), tool.kept_texts(t), tool.unknown_calls(t),
            tool.unknown_texts(t), axis.x(t)] for t in thresholds]
  return Slider(json.dumps(steps, separators=(',', ':')), thresholds.index(tau_f))


def gain_histogram(tool: ToolGains, tau_f: float) -> Histogram:
  """Returns the histogram of the known gains of calls to a tool, with a line at `tau_f`."""
  axis = gain_axis(tool)
  counts = [bisect.bisect_left(tool.calls, high) - bisect.bisect_left(tool.calls, low)
            for low, high in itertools.pairwise(axis.edges)]
  highest = max(counts)
  bars = tuple(_bar(axis, low, high, count, highest)
               for (low, high), count in zip(itertools.pairwise(axis.edges), counts, strict=True)
               if count)
  labels = tuple((gain, axis.x(gain)) for gain in axis.ticks(_LABELS))
  return Histogram(_WIDTH, _TOP + _BAR_HEIGHT, highest, bars, labels, axis.x(tau_f))


def _bar(axis: Axis, low: float, high: float, count: int, highest: int) -> Bar:
  left, right = axis.x(low), axis.x(high)
  height = round(max(2, _BAR_HEIGHT * count / highest), 1)  # never too low to be seen
  return Bar(low, high, count, left, max(right - left - 1, 1), height)
