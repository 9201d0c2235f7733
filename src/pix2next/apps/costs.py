"""`pix2next benchmark`: networks in every size, batch size and mode that is asked for, in turns in one run.

A cell that a network cannot take, or that there is too little memory for, says so in its row; all others go on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pix2next.apps.cost_memory import Peak, peak_memory
from pix2next.apps.cost_passes import MODES, WORKS, Cell, Subject, outline_of, start, subject_of
from pix2next.errors import ConfigError
from pix2next.evaluate.efficiency import (
    RELEASED,
    Number,
    Operations,
    Parameters,
    Row,
    operations_of,
    parameters_of,
    side_for,
    write_benchmark,
)
from pix2next.evaluate.memory import available
from pix2next.evaluate.timing import Times, cpu_threads, in_turns, machine_facts, reason
from pix2next.translate import pick_device

FLOAT = 4
"""Bytes of a parameter."""
COPIES = {"forward": 1, "training": 5}
"""Of the parameters: in training with their gradients, Adam's two averages, and the average over steps."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Grid:
    """Which cells are measured, and how thoroughly."""

    sizes: tuple[int, ...] = (256,)
    batch_sizes: tuple[int, ...] = (1,)
    modes: tuple[str, ...] = ("eager",)
    works: tuple[str, ...] = ("forward",)
    rounds: int = 20
    """0 counts parameters and operations alone, which takes seconds and no memory whatever the networks' size."""
    longest: Number | None = None
    """Seconds: a cell whose pass would take longer, judging by the network's cells before, is left out."""
    memory: bool = True
    """On a CPU this starts a process for every network in every cell; on a GPU it comes by the way."""

    def cells(self) -> list[Cell]:
        """Small ones first, so that they tell how long the large ones would take."""
        sizes, batches = sorted(set(self.sizes)), sorted(set(self.batch_sizes))
        return [
            Cell(size, batch, mode, work)
            for mode in dict.fromkeys(self.modes)
            for work in dict.fromkeys(self.works)
            for size in sizes
            for batch in batches
        ]


def grid(sizes: str, batch_sizes: str, modes: str, works: str, **options: Any) -> Grid:
    """A grid from what a user typed: values with commas between them.

    Raises: ConfigError, naming the option and what is known there.
    """
    return Grid(
        _numbers("--sizes", sizes),
        _numbers("--batch-sizes", batch_sizes),
        _words("--modes", modes, MODES),
        _words("--passes", works, WORKS),
        **options,
    )


def benchmark(
    models: Sequence[str],
    grid: Grid | None = None,
    *,
    threads: int | None = None,
    device: str = "cpu",
    compare: bool = True,
    out: Path | None = None,
    on_progress: Progress | None = None,
) -> tuple[list[Row], dict[str, Any]]:
    """The rows of all models in all cells and, with `compare`, those of the released architecture; facts about the run.

    What is done so far is in `out` after every cell.

    Raises: WeightsError or ConfigError for a model or a device that is not to be had; OSError for `out`.
    """
    grid = grid or Grid()
    place = pick_device(device)
    names = list(dict.fromkeys([*models, *([RELEASED] if compare else [])]))
    rows: list[Row] = []
    with cpu_threads(threads):
        facts = machine_facts(place)
        subjects = {name: subject_of(name) for name in names}
        bench = _Bench(subjects, {name: outline_of(it) for name, it in subjects.items()}, grid, place, threads)
        for done, cell in enumerate(cells := grid.cells(), start=1):
            rows += bench.measured(cell)
            if out:
                write_benchmark(rows, facts, out)
            if on_progress:
                on_progress(done, len(cells))
    return rows, facts


class _Bench:
    """The networks of a run and what is known of them so far."""

    def __init__(
        self,
        subjects: Mapping[str, Subject],
        outlines: Mapping[str, torch.nn.Module],
        grid: Grid,
        device: torch.device,
        threads: int | None,
    ) -> None:
        self.subjects, self.outlines = subjects, outlines
        self.grid, self.device, self.threads = grid, device, threads
        self.parameters: dict[str, Parameters] = {}
        self.operations: dict[tuple[str, int], Operations] = {}
        self.pace: dict[tuple[str, str, str], float] = {}
        """Seconds for 10^9 operations, by network, mode and work."""

    def measured(self, cell: Cell) -> list[Row]:
        """The rows of a cell: counted, weighed in memory, then timed in turns."""
        rows = {name: self._weighed(self._counted(name, cell), cell) for name in self.subjects}
        fit = [name for name, row in rows.items() if not row.failed]
        starts = {name: partial(start, self.subjects[name], cell, rows[name].size, self.device) for name in fit}
        with _specialised("compiled" in cell.mode):
            taken = in_turns(starts, self.grid.rounds, self.device, keep=self._all_fit(fit, rows, cell))
        for name, times in taken.items():
            rows[name] = self._timed(rows[name], times)
        yardstick = rows[RELEASED].seconds if RELEASED in rows else None
        return [replace(row, times_faster=_ratio(yardstick, row.seconds)) for row in rows.values()]

    def _counted(self, name: str, cell: Cell) -> Row:
        """The row with what is counted, or with why the network cannot take a picture of this size."""
        side = side_for(self.outlines[name], cell.size)
        row = Row(name, side, cell.batch_size, cell.mode, cell.work)
        try:
            self._count(name, side)
        except Exception as error:  # Whatever a network raises is what its cell says.
            return replace(row, failed=reason(error))
        parameters, gflop = self.parameters[name], self.operations[name, side]
        return replace(
            row,
            parameters=parameters.total,
            trained=parameters.trained,
            vfm_parameters=parameters.vfm,
            gflop=gflop.total,
            gflop_vfm=gflop.vfm,
            gflop_attention=gflop.attention,
            gflop_generator=gflop.generator,
        )

    def _count(self, name: str, side: int) -> None:
        outline, rgb = self.outlines[name], torch.empty(1, 3, side, side, device="meta")
        if (name, side) not in self.operations:
            self.operations[name, side] = operations_of(outline.eval(), rgb)
        if name not in self.parameters:
            self.parameters[name] = parameters_of(outline, rgb)

    def _weighed(self, row: Row, cell: Cell) -> Row:
        """The row with its peak memory, or the reason why it is left out."""
        pace = self.pace.get((row.model, row.mode, row.work))
        if row.failed or row.gflop is None or not self.grid.rounds:
            return row
        expected = pace * row.gflop * row.batch_size if pace else 0.0
        if self.grid.longest and expected > self.grid.longest:
            return replace(row, failed=f"left out: about {expected:.{1 if expected < 10 else 0}f} s a pass")
        # What compiling takes is no part of a network's own memory, and a process cannot tell them apart.
        if self.device.type != "cpu" or not self.grid.memory or "compiled" in cell.mode:
            return row
        peak: Peak = peak_memory(row.model, cell, row.size, self.threads)
        return replace(row, memory=peak.memory, failed=peak.failed)

    def _timed(self, row: Row, times: Times) -> Row:
        seconds = times.median
        if seconds and row.gflop:
            self.pace[row.model, row.mode, row.work] = seconds / (row.gflop * row.batch_size)
        return replace(
            row,
            memory=times.memory or row.memory,
            seconds=seconds,
            spread=times.spread,
            rounds=len(times.seconds) if seconds else 0,
            pictures_per_second=_ratio(row.batch_size, seconds),
            failed=times.failed,
        )

    def _all_fit(self, names: Sequence[str], rows: Mapping[str, Row], cell: Cell) -> bool:
        """Whether all can be kept in memory at once: their weights take no more than a quarter of what is free."""
        weights = sum(rows[name].parameters or 0 for name in names) * FLOAT * COPIES[cell.work]
        free = torch.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else available()
        return free is None or 4 * weights <= free


def _specialised(compiled: bool) -> Any:
    """Inside, torch compiles anew for every network and size instead of giving up after a few."""
    import torch._dynamo as dynamo

    if compiled:
        dynamo.reset()
    return dynamo.config.patch(recompile_limit=1000, accumulated_recompile_limit=10_000)


def _ratio(value: Number | None, other: Number | None) -> float | None:
    return value / other if value and other else None


def _numbers(option: str, text: str) -> tuple[int, ...]:
    parts = _split(option, text)
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"{option} {text}: expected whole numbers above 0 with commas between them, as 256,512")
    return tuple(map(int, parts))


def _words(option: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    parts = _split(option, text)
    for part in parts:
        if part not in known:
            raise ConfigError(f"{option}: {part!r} is unknown; known: {', '.join(known)}")
    return tuple(parts)


def _split(option: str, text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise ConfigError(f"{option} is empty; give at least one value")
    return parts
