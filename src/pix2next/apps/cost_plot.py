"""Costs as a picture: one standalone SVG, its colours for light and dark in itself."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from pix2next.evaluate.charts import ticks
from pix2next.evaluate.efficiency import MEBIBYTE, RELEASED, Number, Row, short_name
from pix2next.images import write_text

PARTS = {"vfm": "VFM", "attention": "attention or concatenation", "generator": "rest of the generator"}
STYLE = """
text { fill: #1f2328; font: 12px system-ui, sans-serif; }
.faint, .tick { fill: #59636e; font-size: 11px; }
.heading { font-weight: 600; }
.axis { stroke: #d1d9e0; fill: none; }
.one { stroke: #1f2328; fill: none; stroke-dasharray: 3 3; }
.vfm { fill: #4477aa; } .attention { fill: #d9485f; } .generator { fill: #b8a52e; }
.time { fill: #2f8f5b; } .memory { fill: #8a6fb3; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; }
  .faint, .tick { fill: #9198a1; }
  .axis { stroke: #3d444d; }
  .one { stroke: #f0f6fc; }
  .vfm { fill: #6699cc; } .attention { fill: #ff7b8a; } .generator { fill: #d6c350; }
  .time { fill: #4fb87f; } .memory { fill: #a98fd1; }
}
"""
NAMES, WIDTH, NUMBER, GAP = 168, 190, 48, 22
"""Pixels across: the names, a panel's bars, the number behind a bar, the room between panels."""
LINE, TOP = 22, 62


class Panel(NamedTuple):
    """One figure of every row."""

    heading: str
    bars: Callable[[Row], Mapping[str, Number]]
    """Lengths by the class that colours them, in the order they are joined; empty where nothing was measured."""


def write_plot(rows: Sequence[Row], path: Path) -> None:
    """What `plot` draws, in a file."""
    write_text(path, plot(rows) + "\n")


def plot(rows: Sequence[Row]) -> str:
    """A line for every network: operations by part, and time and memory as far as they were measured.

    `rows` are of one cell. Networks in one folder share their scales; the released one stands with the first of them.
    """
    compared = any(row.model == RELEASED and row.seconds for row in rows)
    panels = [Panel("GFLOP", _operations)]
    if any(row.seconds for row in rows):
        unit = "time, in those of the released network" if compared else "milliseconds"
        panels.append(Panel(unit, _relative_time if compared else _milliseconds))
    if any(row.memory for row in rows):
        panels.append(Panel("peak memory, GiB", _memory))
    down, drawn = TOP, [_legend()]
    for title, group in by_folder(rows).items():
        drawn.append(_text(0, down, title, "heading"))
        for index, panel in enumerate(panels):
            drawn += _panel(panel, group, NAMES + index * (WIDTH + NUMBER + GAP), down, compared)
        for line, row in enumerate(group):
            drawn.append(_text(NAMES - 8, down + LINE * (line + 1), _label(row), "", "end"))
        down += LINE * (len(group) + 1) + 44
    width = NAMES + len(panels) * (WIDTH + NUMBER + GAP)
    return _svg(width, down - 20, f"Costs of {len(rows)} networks: {', '.join(it.heading for it in panels)}", drawn)


def by_folder(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows by the folder that their config lies in; what has none stands with the first."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if "/" in row.model:
            groups.setdefault(str(Path(row.model).parent), []).append(row)
    if not groups:
        return {"": list(rows)}
    next(iter(groups.values())).extend(row for row in rows if "/" not in row.model)
    return groups


def _label(row: Row) -> str:
    """Its name, cut where it is long."""
    name = short_name(row.model)
    return name if len(name) <= 24 else f"{name[:11]}…{name[-12:]}"


def _operations(row: Row) -> dict[str, Number]:
    return {
        "vfm": row.gflop_vfm or 0.0,
        "attention": row.gflop_attention or 0.0,
        "generator": row.gflop_generator or 0.0,
    }


def _relative_time(row: Row) -> dict[str, Number]:
    return {"time": 1 / row.times_faster} if row.times_faster else {}


def _milliseconds(row: Row) -> dict[str, Number]:
    return {"time": row.seconds * 1e3} if row.seconds else {}


def _memory(row: Row) -> dict[str, Number]:
    return {"memory": row.memory / MEBIBYTE / 1024} if row.memory else {}


def _panel(panel: Panel, rows: Sequence[Row], left: Number, down: Number, compared: bool) -> list[str]:
    lengths = [panel.bars(row) for row in rows]
    longest = max((sum(it.values()) for it in lengths), default=0.0) or 1.0
    bottom = down + LINE * len(rows) + 10
    parts = [_text(left, down, panel.heading, "faint")]
    for tick in ticks(0.0, longest, 3):
        across = left + WIDTH * tick / longest
        parts.append(f'<path class="axis" d="M{across:.1f} {down + 7:.1f}V{bottom:.1f}"/>')
        parts.append(_text(across, bottom + 13, f"{tick:,.10g}", "tick", "middle"))
    if compared and panel.bars is _relative_time and longest >= 1:
        parts.append(f'<path class="one" d="M{left + WIDTH / longest:.1f} {down + 7:.1f}V{bottom:.1f}"/>')
    for line, (row, bars) in enumerate(zip(rows, lengths, strict=True)):
        parts += _bars(bars, row, left, down + LINE * (line + 1), WIDTH / longest)
    return parts


def _bars(bars: Mapping[str, Number], row: Row, left: Number, base: Number, scale: Number) -> list[str]:
    """The bars of a line, one after the other, and their sum behind them."""
    if not any(bars.values()):
        return [_text(left + 2, base, (row.failed or "not measured")[:40], "faint")]
    parts, across = [], left
    for kind, length in bars.items():
        width = length * scale
        parts.append(f'<rect class="{kind}" x="{across:.1f}" y="{base - 11:.1f}" width="{width:.2f}" height="14"/>')
        across += width
    return [*parts, _text(across + 4, base, _three_digits(sum(bars.values())), "tick")]


def _three_digits(value: Number) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _legend() -> str:
    parts, across = [], 0.0
    for kind, words in PARTS.items():
        parts.append(f'<rect class="{kind}" x="{across:.1f}" y="8" width="12" height="12"/>')
        parts.append(_text(across + 17, 18, words))
        across += 40 + 6.6 * len(words)
    return "".join(parts)


def _text(across: Number, down: Number, text: str, kind: str = "", anchor: str = "start") -> str:
    classes = f' class="{kind}"' if kind else ""
    return f'<text{classes} x="{across:.1f}" y="{down:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: Number, height: Number, title: str, parts: Sequence[str]) -> str:
    size = f'viewBox="-8 0 {width + 8:.0f} {height:.0f}" width="{width + 8:.0f}" height="{height:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(title)}" {size}>'
    return f"{head}<title>{escape(title)}</title><style>{STYLE}</style>{''.join(parts)}</svg>"
