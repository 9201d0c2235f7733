"""How many pictures a second workers on Ray give, for several numbers of workers in one run."""

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from pix2next.apps.local_engine import Job, Settings
from pix2next.apps.ray_cluster import cluster, nodes_of, place
from pix2next.apps.ray_engine import chunks_of, translate_all
from pix2next.apps.stores import FolderSource
from pix2next.apps.throughput import Progress, make_pictures
from pix2next.errors import ConfigError
from pix2next.images import write_text

PICTURES = 8
"""For each of the most workers, where none come."""


@dataclass(frozen=True)
class WorkersRate:
    """What so many workers did."""

    workers: int
    pictures: int
    startup: float
    """Seconds until as many chunks of pictures had come as there are workers: starting, loading, warming up."""
    rate: float
    """Pictures a second from then on."""


def measure_workers(
    settings: Settings,
    data: Path | None,
    counts: Sequence[int],
    *,
    pictures: int | None = None,
    address: str | None = None,
    threads: int | None = None,
    on_progress: Progress | None = None,
) -> list[WorkersRate]:
    """Translate the same pictures with each number of workers in turn, on one cluster; what comes back is dropped.

    Args:
        settings: what is measured.
        data: a folder of pictures; photos of 1920 x 1080 pixels as JPEG are made if None.
        counts: numbers of workers.
        pictures: so many of the folder, or made; all of it, or `PICTURES` for each worker, if None.
        address: as `cluster`.
        threads: as `ray_engine.translate_all`.
        on_progress: called with how many of how many numbers of workers are through.

    Raises:
        ConfigError: there are too few pictures, one cannot be used, or there is no room for so many workers.
        WeightsError: there is no such model.
    """
    if data is None and address is not None:
        raise ConfigError("name a folder of pictures that every machine of the cluster sees; none was given")
    report = on_progress or (lambda done, total: None)
    rates: list[WorkersRate] = []
    with ExitStack() as stack:
        source = FolderSource(data or make_pictures(_scratch(stack), pictures or PICTURES * max(counts)))
        jobs = [Job(key, key) for key in source.pictures()[:pictures]]
        if not jobs:
            raise ConfigError(f"{source.root} holds no pictures; give a folder that does")
        ray = stack.enter_context(cluster(address))
        firsts = [_first(ray, jobs, settings, count, threads) for count in counts]
        for count, first in zip(counts, firsts, strict=True):
            report(len(rates), len(counts))
            outcomes = translate_all(jobs, source, settings, workers=count, threads=threads)
            rates.append(_timed(outcomes, count, first))
    report(len(rates), len(counts))
    return rates


def _scratch(stack: ExitStack) -> Path:
    return Path(stack.enter_context(tempfile.TemporaryDirectory()), "in")


def _first(ray: Any, jobs: list[Job], settings: Settings, workers: int, threads: int | None) -> int:
    """How many pictures are a chunk for each worker. Raises: ConfigError if not more than that are there."""
    placement = place(nodes_of(ray), settings.device, workers, threads or torch.get_num_threads())
    first = sum(len(chunk.jobs) for chunk in chunks_of(jobs, settings, placement)[:workers])
    if len(jobs) <= first:
        raise ConfigError(f"{len(jobs)} pictures are too few to time {workers} workers; give more than {first}")
    return first


def _timed(outcomes: Iterator[Any], workers: int, first: int) -> WorkersRate:
    begin, came = time.perf_counter(), []
    for outcome in outcomes:
        if outcome.result is None:
            raise ConfigError(f"{outcome.error}; leave it out of what is measured")
        came.append(time.perf_counter())
    warm = came[first - 1]
    return WorkersRate(workers, len(came), warm - begin, (len(came) - first) / (came[-1] - warm))


def workers_table(rates: Sequence[WorkersRate]) -> Table:
    """The numbers for a terminal."""
    table = Table(title=f"{rates[0].pictures} pictures, workers on Ray")
    for name in ("workers", "pictures/s", "of the first", "seconds to start"):
        table.add_column(name, justify="right")
    for it in rates:
        table.add_row(f"{it.workers}", f"{it.rate:.3g}", f"{it.rate / rates[0].rate:.2f}", f"{it.startup:.1f}")
    return table


def write_workers(rates: Sequence[WorkersRate], path: Path) -> None:
    """Numbers as JSON. Raises: OSError."""
    write_text(path, json.dumps([asdict(it) for it in rates], indent=1) + "\n")
