"""Charts as SVG text that stands inside a page: no library, no script; colours come from the page's style."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple

from pix2next.evaluate.uncertainty import Interval

_LABELS = 130
"""Pixels on the left for names."""
_WIDTH = 560
_ROW = 34
_BINS = 48
_SPACING = 13
"""Pixels between the base lines of two names."""


Number = float | int


class Point(NamedTuple):
    """One method in a plot of quality against cost."""

    name: str
    series: int
    """Its place among the methods, which decides the colour."""
    cost: Number
    value: Number
    interval: Interval | None


def histograms(
    label: str,
    columns: Mapping[str, Sequence[Number]],
    means: Mapping[str, Number | None],
    intervals: Mapping[str, Interval | None],
) -> str:
    """How a metric spreads over the pictures: a row a method on one axis, the mean a line, its interval a band."""
    values = [value for column in columns.values() for value in column]
    if not values:
        return ""
    scale = _Linear(min(values), max(values), _LABELS, _WIDTH - 12)
    height = _ROW * len(columns) + 24
    parts = [_axis(scale, height - 22)]
    for row, (method, column) in enumerate(columns.items()):
        base = _ROW * (row + 1) - 4
        parts += [_text(_LABELS - 8, base - 4, _short(method), "end")]
        parts += [_band(scale, interval, base) if (interval := intervals.get(method)) else ""]
        parts += [f'<path class="bars s{row % 8}" d="{_bars(scale, column, base)}"/>']
        mean = means.get(method)
        parts += [f'<path class="mean" d="M{scale(mean):.1f} {base}v-{_ROW - 8}"/>' if mean is not None else ""]
    return _svg(_WIDTH, height, f"{label}: how it spreads over the pictures, by method", parts)


def quality_against_cost(label: str, points: Sequence[Point], higher_is_better: bool) -> str:
    """Each method at its cost, in GFLOP on a logarithmic axis; whatever costs nothing stands at the left edge."""
    if not points:
        return ""
    width, height, left, bottom = 560, 320, 56, 280
    bounds = [bound for p in points for bound in (p.interval or (p.value, p.value))]
    y = _Linear(min(bounds), max(bounds), bottom, 16)
    x = _Logarithmic([point.cost for point in points], left + 24, width - 150)
    parts = [_axis_left(y, left, width - 8)]
    parts += [_text(x.at(tick), bottom + 16, text, "middle") for tick, text in x.ticks()]
    parts += [_text((left + width) / 2, height - 6, "GFLOP for a 256 x 256 picture", "middle")]
    parts += [_text(left, 10, f"{label} ({'higher' if higher_is_better else 'lower'} is better)", "start")]
    labels = _apart([y(point.value) for point in points])
    for point, beside in zip(points, labels, strict=True):
        across, up = x.at(point.cost), y(point.value)
        if point.interval:
            ends = f"M{across:.1f} {y(point.interval.low):.1f}V{y(point.interval.high):.1f}"
            parts += [f'<path class="whisker" d="{ends}"/>']
        parts += [f'<circle class="s{point.series % 8}" cx="{across:.1f}" cy="{up:.1f}" r="5"/>']
        parts += [f'<path class="leader" d="M{across + 6:.1f} {up:.1f}L{across + 20:.1f} {beside:.1f}"/>']
        parts += [_text(across + 22, beside + 4, _short(point.name), "start")]
    return _svg(width, height, f"{label} against cost, by method", parts)


def ticks(low: Number, high: Number, count: int = 5) -> list[Number]:
    """About `count` round numbers from `low` to `high`."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


class _Linear:
    """Values to pixels."""

    def __init__(self, low: Number, high: Number, start: Number, end: Number) -> None:
        # Where all values are equal, they stand in the middle.
        pad = (high - low) * 0.02 or max(abs(high), 1.0) * 0.02
        self.low, self.high, self.start, self.end = low - pad, high + pad, start, end

    def __call__(self, value: Number) -> Number:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[Number]:
        return ticks(self.low, self.high)


class _Logarithmic:
    """Costs to pixels, from a thousandth of the largest on; what costs less stands at the left edge."""

    def __init__(self, costs: Sequence[Number], start: Number, end: Number) -> None:
        self.high = math.ceil(math.log10(max(*costs, 0.1)))
        kept = [math.log10(cost) for cost in costs if cost > 0]
        self.low = max(math.floor(min([*kept, self.high - 1])), -2, self.high - 6)
        self.start, self.end = start, end

    def at(self, cost: Number) -> Number:
        exponent = max(math.log10(cost), self.low) if cost > 0 else self.low
        return self.start + (exponent - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        least, *others = (10.0**exponent for exponent in range(self.low, self.high + 1))
        return [(least, f"≤ {least:g}"), *((tick, f"{tick:g}") for tick in others)]


def _bars(scale: _Linear, column: Sequence[Number], base: Number) -> str:
    """One path: a bar for each bin that holds a picture."""
    width = (scale.end - scale.start) / _BINS
    counts = [0] * _BINS
    for value in column:
        counts[min(_BINS - 1, int((scale(value) - scale.start) / width))] += 1
    unit = (_ROW - 10) / max(*counts, 1)
    return "".join(
        f"M{scale.start + index * width:.1f} {base}v-{count * unit:.1f}h{width - 0.6:.1f}v{count * unit:.1f}z"
        for index, count in enumerate(counts)
        if count
    )


def _band(scale: _Linear, interval: Interval, base: Number) -> str:
    low, high = scale(interval.low), scale(interval.high)
    return (
        f'<rect class="band" x="{low:.1f}" y="{base - _ROW + 8}" width="{max(high - low, 1):.1f}" height="{_ROW - 8}"/>'
    )


def _axis(scale: _Linear, base: Number) -> str:
    parts = [f'<path class="axis" d="M{scale.start} {base}H{scale.end}"/>']
    for tick in scale.ticks():
        across = scale(tick)
        parts += [f'<path class="axis" d="M{across:.1f} {base}v4"/>', _text(across, base + 16, f"{tick:.6g}", "middle")]
    return "".join(parts)


def _axis_left(scale: _Linear, left: Number, right: Number) -> str:
    parts = []
    for tick in scale.ticks():
        up = scale(tick)
        parts += [f'<path class="grid" d="M{left} {up:.1f}H{right}"/>', _text(left - 6, up + 4, f"{tick:.6g}", "end")]
    return "".join(parts)


def _apart(heights: Sequence[Number]) -> list[Number]:
    """The heights moved so that names do not cover one another: from the top down, then pulled back up together."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    placed = list(heights)
    for before, index in pairwise(order):
        placed[index] = max(placed[index], placed[before] + _SPACING)
    drift = sum(after - before for after, before in zip(placed, heights, strict=True)) / len(heights)
    return [height - drift for height in placed]


def _text(across: Number, down: Number, text: str, anchor: str) -> str:
    return f'<text x="{across:.1f}" y="{down:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _short(name: str) -> str:
    return name if len(name) <= 20 else f"{name[:9]}…{name[-10:]}"


def _svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    title = escape(title)
    return (
        f'<svg role="img" aria-label="{title}" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f"<title>{title}</title>{''.join(parts)}</svg>"
    )
