"""Many pictures in one call: files, globs and folder trees, their names and tree kept."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pix2next.apps.events import Done, End, Event, Existing, Failed, OnEvent, Start, Unlike
from pix2next.apps.jobs import Job, Output, plan_jobs
from pix2next.apps.pipeline import Loaded, run_pipeline
from pix2next.images import check_holds, read_rgb, write_nir
from pix2next.model.domain import Distance
from pix2next.translate import Translator


@dataclass(frozen=True)
class BulkResult:
    """How many pictures were written; for each input left out its path and a sentence that names it and says why."""

    done: int
    failed: list[tuple[str, str]]
    existing: int = 0
    """How many were passed over, since their files were there."""
    unlike: list[Unlike] = field(default_factory=list)
    """Those of the written ones that are unlike what the model was trained on."""


@dataclass
class Tally:
    """Counts events on their way to whoever listens."""

    listener: OnEvent | None = None
    done: int = 0
    existing: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    unlike: list[Unlike] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    def __call__(self, event: Event) -> None:
        """Count the event and pass it on."""
        match event:
            case Done():
                self.done += 1
            case Unlike():
                self.unlike.append(event)
            case Existing():
                self.existing += 1
            case Failed(path, _, reason):
                self.failed.append((path, reason))
        if self.listener:
            self.listener(event)

    def end(self, order: Sequence[str] = ()) -> BulkResult:
        """Tell the end. Failures come in the given order of paths, inputs that are none of them first."""
        seconds = round(time.monotonic() - self.begun, 3)
        self(End(self.done, len(self.failed), self.existing, seconds))
        place = {path: number for number, path in enumerate(order)}
        failed = sorted(self.failed, key=lambda failure: place.get(failure[0], -1))
        return BulkResult(self.done, failed, self.existing, self.unlike)


def translate_pictures(
    inputs: Sequence[str],
    out: Path,
    translator: Translator,
    output: Output | None = None,
    *,
    batch_size: int = 1,
    on_event: OnEvent | None = None,
) -> BulkResult:
    """Translate every picture that `inputs` stand for; one that cannot be used is reported and left out.

    A file keeps its name, a folder and a glob keep the tree below the folder or below the part of the glob without
    wildcards. Names keep their suffixes, as labels refer to them, and pictures already there are replaced, each at
    once; `output` can say otherwise. One named file may be given a file for `out`.

    Args:
        inputs: files, globs (`photos/**/*.png`) and folders, the latter with all below. Hidden files, and other files
            than pictures in a folder or glob, are passed over.
        out: a folder, made where it is missing.
        translator: what each picture goes through.
        output: other names, another format, and what happens to files that are there.
        batch_size: pictures of one size that go through the network at once.
        on_event: told what happens, first `Start`, last `End`.

    Raises:
        ImageError: two pictures would get one name, a picture would be overwritten by its translation, or `out` cannot
            be what it would have to be; nothing has been written then.
        ConfigError: `out` names a file, and `output` another one.
    """
    output = output or Output()
    jobs, missing = plan_jobs(inputs, out, output)
    tally = Tally(on_event)
    tally(Start(len(jobs), str(out)))
    for path, reason in missing:
        tally(Failed(path, None, reason))
    to_do, existing = split_existing(jobs, output)
    for source, target in existing:
        tally(Existing(str(source), str(target)))
    for event in translated(to_do, translator, output, batch_size=batch_size):
        tally(event)
    return tally.end(order=[str(source) for source, _ in jobs])


def unlike(path: str, distance: Distance | None) -> list[Unlike]:
    """The event, if there is anything to tell."""
    if distance is None or not distance.unlike:
        return []
    return [Unlike(path, round(distance.greatest, 2), distance.part)]


def split_existing(jobs: Sequence[Job], output: Output) -> tuple[list[Job], list[Job]]:
    """Jobs to do, and those to pass over since their files are there."""
    there = [not output.overwrite and os.path.isfile(target) for _, target in jobs]
    pairs = list(zip(jobs, there, strict=True))
    return [job for job, passed in pairs if not passed], [job for job, passed in pairs if passed]


def translated(
    jobs: Sequence[Job],
    translator: Translator,
    output: Output,
    *,
    batch_size: int = 1,
    verify: Callable[[Path], None] = lambda source: None,
) -> Iterator[Done | Unlike | Failed]:
    """Translate and write; what became of each, in about the order of the jobs.

    `verify` is called after each reading, whatever came of it; what it raises becomes the reason why there is nothing.
    """

    def load(job: Job) -> Loaded:
        try:
            rgb = read_rgb(job.source, translator.value_range)
        finally:
            verify(job.source)
        check_holds(job.target, rgb.dtype, rgb.shape[:2])
        return Loaded(rgb)

    def save(job: Job, loaded: Loaded, nir: np.ndarray) -> tuple[int, int, Distance | None]:
        write_nir(job.target, nir, output.quality)
        return nir.shape[1], nir.shape[0], loaded.distance

    for (source, target), result, error, seconds in run_pipeline(jobs, load, translator, save, batch_size=batch_size):
        if result is None:
            named = error is not None and str(source) in error
            yield Failed(str(source), str(target), str(error) if named else f"{source}: {error}")
        else:
            width, height, distance = result
            yield Done(str(source), str(target), width, height, seconds=round(seconds, 4))
            yield from unlike(str(source), distance)
