"""What a run would do and about how long it would take, without doing it."""

import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pix2next.apps.bulk import split_existing
from pix2next.apps.events import Plan
from pix2next.apps.jobs import Job, Output, plan_jobs
from pix2next.errors import ImageError
from pix2next.images import read_size
from pix2next.translate import Translator

TIMED_PASSES = 3
TIMED_SECONDS = 2.0
"""Passes are repeated until there are so many or they took so long; one before them warms up."""


class Size(NamedTuple):
    """Of a picture, in pixels."""

    width: int
    height: int


def dry_run(
    inputs: Sequence[str], out: Path, translator: Translator, output: Output | None = None, *, batch_size: int = 1
) -> tuple[Plan, list[tuple[str, str]]]:
    """What `translate_pictures` would do, and the inputs and pictures it would leave out as far as heads of files tell.

    The time is that of the network alone, for reading and writing happen beside it: a picture of noise, as large as the
    middle one but at most a tile, is timed here and now, and scaled by the pixels that the network would get. It is an
    estimate; deeper pictures than of 8 bits take longer on a GPU.

    Raises: as `translate_pictures`.
    """
    output = output or Output()
    jobs, failed = plan_jobs(inputs, out, output)
    to_do, existing = split_existing(jobs, output)
    sizes, unreadable = _sizes(to_do)
    seconds, sample = _estimate(sizes, translator, batch_size)
    plan = Plan(
        total=len(sizes),
        existing=len(existing),
        failed=len(failed) + len(unreadable),
        pixels=sum(width * height for width, height in sizes.values()),
        bytes=sum(os.path.getsize(path) for path in sizes),
        estimated_seconds=seconds,
        sample=sample,
    )
    return plan, failed + unreadable


def _sizes(jobs: Sequence[Job]) -> tuple[dict[Path, Size], list[tuple[str, str]]]:
    sizes: dict[Path, Size] = {}
    failed = []
    for source, _ in jobs:
        try:
            sizes[source] = Size(*read_size(source))
        except ImageError as error:
            failed.append((str(source), str(error)))
    return sizes, failed


def _estimate(sizes: dict[Path, Size], translator: Translator, batch_size: int) -> tuple[float | None, str]:
    """Seconds for pictures of these sizes, and what was timed."""
    if not sizes:
        return None, "nothing"
    loads = sorted((translator.network_pixels(height, width), width, height) for width, height in sizes.values())
    _, width, height = loads[len(loads) // 2]
    sample = Size(min(width, translator.tile), min(height, translator.tile))
    together = batch_size if (width, height) == sample else 1
    seconds = _time(sample, translator, together)
    per_pixel = seconds / (together * translator.network_pixels(sample.height, sample.width))
    total = per_pixel * sum(load for load, _, _ in loads)
    what = f"{together} x {sample.width} x {sample.height} pixels in {seconds:.2g} s on {translator.device}"
    return float(f"{total:.3g}"), what


def _time(size: Size, translator: Translator, together: int) -> float:
    """The middle one of a few passes with so many pictures of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (size.height, size.width, 3), dtype=np.uint8)
    taken: list[float] = []
    while len(taken) <= TIMED_PASSES and sum(taken[1:]) < TIMED_SECONDS:
        begun = time.perf_counter()
        translator.many([noise] * together)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken[1:])
