"""A video in, its NIR out: frame by frame, with the frame rate, the length and the sound it had.

Frames are read, translated and encoded at the same time, each in its order. Every few seconds of them become a file of
their own beside the target; when all are there they are joined. A run that was killed goes on with the first segment
that is missing.
"""

import json
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import groupby, islice
from math import inf
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from pix2next.apps import pipeline
from pix2next.apps.video.encoding import Encoding, SegmentWriter, finished_segments, segment_path
from pix2next.apps.video.joining import DEFAULT_CODECS, check_joinable, container_of, join, joined_path
from pix2next.apps.video.reading import Clip, Reading, Timed, look, picture_of, read_frames
from pix2next.errors import ConfigError, ImageError
from pix2next.evaluate.pretrained import fingerprint
from pix2next.images import sweep, write_text
from pix2next.translate import Translator

SEGMENT_SECONDS = 10.0
JOB = "job.json"
DEPTH = 2
"""So many batches wait between two stages: enough that none waits for another's slow one, and no more memory."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class VideoResult:
    """What was written, and sentences on how the source is damaged, and on what else a user may want to know."""

    frames: int
    seconds: float
    damage: list[str]
    notes: list[str]


class Batch(NamedTuple):
    """Frames of one segment, RGB and then NIR; none of a segment that is there already."""

    segment: int
    pictures: list[np.ndarray]
    times: list[tuple[int, int]]
    frames: int


def default_encoding(target: Path) -> Encoding:
    """What a target is encoded as if nothing is said. Raises: ConfigError if its suffix names no container."""
    container_of(target)
    return Encoding(DEFAULT_CODECS.get(target.suffix.lower(), "h264"))


def translate_video(
    source: Path,
    target: Path,
    translator: Translator,
    *,
    encoding: Encoding | None = None,
    segment_seconds: float = SEGMENT_SECONDS,
    sound: bool = True,
    force: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> VideoResult:
    """Write the NIR video of `source`.

    What cannot be decoded of a damaged file is missed out, and the rest keeps its time; the result says so.

    Args:
        source: any video that PyAV decodes. Its first video stream is translated; rotated ones come out upright.
        target: .mp4, .m4v, .mov, .mkv or .webm. A folder named like it with `.parts` holds the segments.
        translator: what each frame goes through; `batch_size` of them at once if they fit into a tile.
        encoding: `default_encoding` if not given.
        segment_seconds: how much at most is lost when the run is killed.
        sound: whether sound is copied.
        force: begin anew where segments of another run lie.
        on_progress: called with how many of how many frames are through; the second is what the file says of itself.

    Raises:
        ImageError: the source is no video, not one frame can be decoded, or the target cannot be written.
        ConfigError: the target's suffix names no container, it cannot hold the sound, the encoder refuses its settings,
            or segments made with other settings lie there.
    """
    encoding = encoding or default_encoding(target)
    encoding.check()
    container_of(target)
    if not 0 < segment_seconds < inf:
        raise ConfigError(f"a segment is longer than 0 s and not endless, not {segment_seconds:g} s")
    clip = look(source)
    _refuse_target(source, target)
    left_out = check_joinable(clip, target, encoding, sound=sound)
    folder = target.with_name(target.name + ".parts")
    if force:
        _clear(folder, target)
    _claim(folder, _job(clip, translator, encoding, segment_seconds))
    reading = Reading()
    segments = _make_segments(folder, clip, reading, translator, encoding, segment_seconds, on_progress)
    paths = [segment_path(folder, segment) for segment in sorted(segments)]
    join(clip, paths, target, encoding, sound=sound, comment=f"synthetic near infrared, pix2next {version('pix2next')}")
    _clear(folder, target)
    notes = [f"left out, as {target.suffix} cannot hold it: {stream}" for stream in left_out] + reading.gap(clip.rate)
    return VideoResult(reading.frames, reading.seconds, reading.damage(), notes)


def _refuse_target(source: Path, target: Path) -> None:
    if target.is_dir():
        raise ImageError(f"{target} is a folder; give a file")
    if target.exists() and target.samefile(source):
        raise ImageError(f"{source} would be overwritten by its own translation; give another name")


def _job(clip: Clip, translator: Translator, encoding: Encoding, segment_seconds: float) -> dict[str, object]:
    """What must be the same for segments of two runs to belong together; device and batch size change rounding only."""
    about = clip.path.stat()
    return {
        "source": {"bytes": about.st_size, "modified_ns": about.st_mtime_ns},
        "network": fingerprint(translator.model),
        "tile": translator.tile,
        "views": translator.views,
        "encoding": asdict(encoding),
        "segment_seconds": segment_seconds,
        "versions": {name: version(name) for name in ("pix2next", "av")},
    }


def _claim(folder: Path, job: dict[str, object]) -> None:
    """`folder` is there for segments of this job. Raises: ConfigError if it holds those of another."""
    note = folder / JOB
    if any(folder.glob("*.packets")):
        changed = _changed(note, job)
        if changed:
            raise ConfigError(
                f"{folder} holds segments of a run with another {changed}; "
                "repeat that run's settings, or give --force to begin anew"
            )
    sweep(folder)
    write_text(note, json.dumps(job, indent=1) + "\n")


def _clear(folder: Path, target: Path) -> None:
    """Remove the segments, and their folder unless somebody put something else there."""
    sweep(folder)
    for path in [*folder.glob("*.packets"), folder / JOB, joined_path(folder, target)]:
        path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _changed(note: Path, job: dict[str, object]) -> str:
    try:
        before = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "job"
    return ", ".join(key.replace("_", " ") for key in job if before.get(key) != job[key])


def _make_segments(
    folder: Path,
    clip: Clip,
    reading: Reading,
    translator: Translator,
    encoding: Encoding,
    segment_seconds: float,
    on_progress: Callable[[int, int], None] | None,
) -> set[int]:
    """Every segment of the clip is a file afterwards; returns which there are."""
    report = on_progress or (lambda done, total: None)
    report(0, clip.frames)
    there = finished_segments(folder)
    ticks = round(segment_seconds / clip.time_base)
    read = _batches(clip, reading, max(1, ticks), encoding.bits, translator.batch_size, there)
    frames = 0
    with _written(SegmentWriter(folder, clip, encoding)) as writer, closing(ahead(read, DEPTH)) as ready:
        translated = (_translated(batch, translator) for batch in ready)
        with closing(behind(lambda batch: _write(writer, batch), translated, DEPTH)) as written:
            for batch in written:
                there.add(batch.segment)
                frames += batch.frames
                report(frames, max(frames, clip.frames))
    report(frames, frames)
    return there


def _batches(clip: Clip, reading: Reading, ticks: int, bits: int, batch_size: int, there: set[int]) -> Iterator[Batch]:
    """Frames by segment; segments that are there are decoded, too, and only counted."""

    def segment_of(frame: Timed) -> int:
        return frame.pts // ticks

    done = frozenset(there)
    for segment, frames in groupby(read_frames(clip, reading), segment_of):
        while some := list(islice(frames, batch_size)):
            times = [(frame.pts, frame.duration) for frame in some]
            if segment in done:
                yield Batch(segment, [], [], len(some))
            else:
                yield Batch(segment, [picture_of(frame.frame, bits) for frame in some], times, len(some))


def _translated(batch: Batch, translator: Translator) -> Batch:
    """A batch that is not full goes with copies: what becomes of a frame does not depend on how many came with it."""
    if not batch.pictures:
        return batch
    missing = translator.batch_size - len(batch.pictures) if translator.fits(batch.pictures[0]) else 0
    nirs = translator.many(batch.pictures + [batch.pictures[0]] * missing)
    return batch._replace(pictures=nirs[: batch.frames])


def _write(writer: SegmentWriter, batch: Batch) -> Batch:
    if batch.pictures:
        writer.write(batch.segment, batch.pictures, batch.times)
    return batch._replace(pictures=[])


@contextmanager
def _written(writer: SegmentWriter) -> Iterator[SegmentWriter]:
    """The last segment is finished at the end, and left out on any failure."""
    try:
        yield writer
        writer.finish()
    finally:
        writer.abandon()


def ahead(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    """`items` in their order, up to `depth` of them made on a thread of their own before they are asked for."""
    end = object()
    with _one_thread() as pool:
        made = deque(pool.submit(next, items, end) for _ in range(depth))
        while (item := made.popleft().result()) is not end:
            made.append(pool.submit(next, items, end))
            yield item  # type: ignore[misc]


def behind(work: Callable[[T], R], items: Iterable[T], depth: int) -> Generator[R, None, None]:
    """What `work` makes of `items`, in their order, on a thread of its own while the next items are made."""
    with _one_thread() as pool:
        yield from pipeline.ahead(pool, work, items, depth)


@contextmanager
def _one_thread() -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(1, "video")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
