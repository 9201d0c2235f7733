"""Costs in Markdown: the table of all networks in the first cell, and one for each way in which the cells differ.

A page may hold text of its own and the tables of several machines: only what stands between a kind of device's two
marks is written anew.
"""

import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pix2next.apps.cost_plot import by_folder, write_plot
from pix2next.apps.costs import Grid, benchmark
from pix2next.config import first_comment
from pix2next.errors import ConfigError
from pix2next.evaluate.efficiency import MEBIBYTE, RELEASED, Number, Row, short_names
from pix2next.evaluate.tables import markdown_table
from pix2next.images import write_text
from pix2next.translate import pick_device

ROUGH = 0.2
"""Spread from which on times are called rough."""
DESCRIBED = {RELEASED: "The released architecture"}


def benchmark_and_write(
    models: Sequence[str],
    grid: Grid,
    *,
    out: Path | None = None,
    picture: Path | None = None,
    page: Path | None = None,
    device: str = "cpu",
    **options: Any,
) -> list[Row]:
    """`benchmark` with its rows as JSON in `out`, drawn in `picture` and as tables in `page`.

    Raises: as `benchmark`; ConfigError or OSError, before anything is measured, for a file that cannot be written.
    """
    for file in filter(None, (out, picture, page)):
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir():
            raise ConfigError(f"{file} is a folder; name a file to write")
    if page:
        page_at(page, pick_device(device).type)
    rows, facts = benchmark(models, grid, device=device, out=out, **options)
    if picture:
        write_plot(first_cell(rows), picture)
    if page:
        write_page(rows, facts, page)
    return rows


def write_page(rows: Sequence[Row], facts: Mapping[str, Any], path: Path) -> None:
    """Put the tables into the page at `path`: in the place of those of the same kind of device, or at its end.

    Raises: ConfigError if the page has one of the two marks only, or is no text.
    """
    page = page_at(path, str(facts["kind"]))
    first, last = marks(str(facts["kind"]))
    block = f"{first}\n\n{markdown(rows, facts)}\n{last}"
    before, found, rest = page.partition(first)
    page = before + block + rest.partition(last)[2] if found else f"{page.rstrip()}\n\n{block}\n".lstrip()
    write_text(path, page)


def page_at(path: Path, kind: str) -> str:
    """The page that is there; empty where there is none.

    Raises: ConfigError if it cannot be written anew without loss.
    """
    try:
        page = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}") from None
    first, last = marks(kind)
    if (page.count(first), page.count(last)) not in ((0, 0), (1, 1)) or page.find(first) > page.find(last):
        raise ConfigError(f"{path} has not one {first} and then one {last}; put them right, or name another file")
    return page


def marks(kind: str) -> tuple[str, str]:
    """What stands before and after the tables of a kind of device."""
    return f"<!-- costs on {kind} -->", f"<!-- end of costs on {kind} -->"


def markdown(rows: Sequence[Row], facts: Mapping[str, Any]) -> str:
    """Conditions, the table of networks, and tables by size."""
    parts = [conditions(rows, facts), table_of_networks(rows)]
    if len({row.size for row in rows}) > 1:
        parts.append(
            "**GFLOP of one picture by size, and attention's share of them**\n\n" + _by_size(rows, _operations)
        )
    if len({(row.size, row.batch_size, row.mode, row.work) for row in rows}) > 1:
        for work, mode, batch in dict.fromkeys((row.work, row.mode, row.batch_size) for row in rows):
            chosen = [row for row in rows if (row.work, row.mode, row.batch_size) == (work, mode, batch)]
            heading = f"**{work.capitalize()}, {mode}, batch {batch}: milliseconds, times as fast as released, memory**"
            parts.append(f"{heading}\n\n{_by_size(chosen, _taken)}")
    return "\n\n".join(parts) + "\n"


def conditions(rows: Sequence[Row], facts: Mapping[str, Any]) -> str:
    """What the times were taken with."""
    rounds = sorted({row.rounds for row in rows if row.rounds})
    counted = f"{rounds[0]} to {rounds[-1]}" if len(rounds) > 1 else f"{rounds[0]}" if rounds else "no"
    words = [
        f"Taken in one run on {facts['device']}" + (f" ({facts['processor']})" if facts["kind"] == "cpu" else ""),
        f"{facts['threads']} CPU threads of {facts['cores']} cores",
        f"torch {facts['torch']}",
        f"{counted} rounds",
    ]
    load = facts.get("load")
    said = ", ".join(words) + (f". Load of the machine before the run: {load}." if load is not None else ".")
    spreads = [row.spread for row in rows if row.spread is not None]
    rough = statistics.median(spreads) > ROUGH if spreads else bool(load and load > facts["cores"] / 2)
    return said + (" **The machine was busy with other work: times and ratios are rough.**" if rough else "")


def table_of_networks(rows: Sequence[Row]) -> str:
    """All networks in the first cell: what they hold, what they compute, how long and with how much memory."""
    main = first_cell(rows)
    steps = {row.model: row for row in rows if _cell(row) == (*_cell(main[0])[:3], "training")}
    head = ["network", "", "parameters, M", "of the VFM", "trained", "GFLOP", "VFM", "attention", "generator"]
    head += ["memory, MiB", "forward, ms", "times as fast as released"]
    head += ["training step, ms", "times as fast as released"] if steps and main[0].work == "forward" else []
    names, lines = short_names(row.model for row in rows), []
    for row in (row for group in by_folder(main).values() for row in group):
        line = [f"`{names[row.model]}`", description(row.model), *_counts(row), _mib(row), *_time(row)]
        lines.append(line + (_time(steps[row.model]) if len(head) > 12 and row.model in steps else []))
    about = f"**Every network at {main[0].size} x {main[0].size}, batch {main[0].batch_size}, {main[0].mode}**"
    return f"{about}\n\n{markdown_table(head, lines, numbers=True)}"


def first_cell(rows: Sequence[Row]) -> list[Row]:
    """Of every network its first row, which is that of the smallest size."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.model, row)
    return list(first.values())


def description(model: str) -> str:
    """The comment that a config begins with."""
    if Path(model).suffix in (".yaml", ".yml"):
        return re.sub(r"\s*\|\s*", " ", first_comment(Path(model)))
    return DESCRIBED.get(model, "")


def _cell(row: Row) -> tuple[int, int, str, str]:
    return row.size, row.batch_size, row.mode, row.work


def _counts(row: Row) -> list[str]:
    millions = [row.parameters, row.vfm_parameters, row.trained]
    giga = [row.gflop, row.gflop_vfm, row.gflop_attention, row.gflop_generator]
    return [*(_of(it, 1e6) for it in millions), *(_of(it, 1) for it in giga)]


def _of(value: Number | None, unit: Number) -> str:
    """At least three digits of a value."""
    if value is None:
        return ""
    value /= unit
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _mib(row: Row) -> str:
    return _of(row.memory, MEBIBYTE)


def _time(row: Row) -> list[str]:
    if row.failed:
        return [row.failed.replace("|", "/"), ""]
    spread = "" if row.spread is None else f" ±{row.spread / 2:.0%}"
    return [_of(row.seconds, 1e-3) + spread, _of(row.times_faster, 1)]


def _operations(row: Row) -> str:
    share = row.gflop_attention / row.gflop if row.gflop and row.gflop_attention is not None else None
    return _of(row.gflop, 1) + ("" if share is None else f" ({share:.0%})")


def _taken(row: Row) -> str:
    if row.failed:
        return row.failed.replace("|", "/")
    faster = f"; {_of(row.times_faster, 1)}" if row.times_faster else ""
    return f"{_of(row.seconds, 1e-3)}{faster}" + (f"; {_mib(row)} MiB" if row.memory else "")


def _by_size(rows: Sequence[Row], shown: Any) -> str:
    """A line a network, a column a size."""
    sizes = sorted({row.size for row in rows})
    cells: dict[str, dict[int, str]] = {}
    for row in rows:
        cells.setdefault(row.model, {}).setdefault(row.size, shown(row))
    names = short_names(cells)
    lines = [[f"`{names[model]}`", *(at.get(size, "") for size in sizes)] for model, at in cells.items()]
    return markdown_table(["network", *map(str, sizes)], lines, numbers=True)
