"""How many pictures a second go from files to files here, and what the network alone would do.

Both are taken in turns in one run, since times of different runs do not compare. The network alone means its forward
passes one after the other, of the same shapes that the pictures gave it, on tensors that lie on the device already,
with as many threads. Whatever the ratio of the two lacks to 1 is reading, converting, blending, writing and waiting.
"""

import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.table import Table
from torch import Tensor, nn

from pix2next.apps.demo import PHOTO
from pix2next.apps.local_engine import Job, Settings, translate_all
from pix2next.apps.pipeline import StageTimes
from pix2next.apps.stores import FolderSink, FolderSource
from pix2next.errors import ConfigError
from pix2next.evaluate.timing import cpu_threads, machine_facts, synchronize
from pix2next.images import read_rgb, write_text
from pix2next.model.pix2next import load_model
from pix2next.model.views import habit_of
from pix2next.translate import Translator

FULL_HD = (1920, 1080)
PICTURES = {"cpu": 4, "cuda": 256}
"""That are made where none come: on a GPU enough for some seconds."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Throughput:
    """Medians over rounds."""

    pictures: int
    batch_size: int
    rate: float
    """Pictures a second, from files to files."""
    network_rate: float
    """The same for the network alone."""
    of_network: float
    """The first as a share of the second."""
    busy: float
    """Share of the time in which a forward pass was in progress on the device."""
    decode: float
    """Seconds a picture that a thread spent on reading and decoding."""
    network: float
    """The same for conversion, forward passes and blending."""
    encode: float
    """The same for encoding."""
    waiting: float
    """The same for network threads without a picture."""


class Watched(nn.Module):
    """A network that notes when it works, and on what."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.multiple = model, model.multiple
        self.views, self.turned, self.shrunk = habit_of(model)
        self.inputs: dict[Any, Tensor] = {}
        self.calls: list[Any] = []
        self.marks: list[tuple[Any, Any]] = []

    def forward(self, rgb: Tensor) -> Tensor:
        """What the network gives."""
        half = torch.is_autocast_enabled(rgb.device.type)
        call = (tuple(rgb.shape), half)
        self.inputs.setdefault(call, rgb)
        self.calls.append(call)
        begin = _mark(rgb.device)
        fake = self.model(rgb)
        self.marks.append((begin, _mark(rgb.device)))
        return fake

    def forget(self) -> None:
        """Start anew, but for the inputs."""
        self.calls, self.marks = [], []

    @torch.inference_mode()
    def again(self, calls: Sequence[Any], device: torch.device) -> float:
        """Seconds that the network alone takes for the same calls."""
        synchronize(device)
        start = time.perf_counter()
        for call in calls:
            with torch.autocast(device.type, torch.bfloat16, enabled=call[1]):
                self.model(self.inputs[call])
        synchronize(device)
        return time.perf_counter() - start


def measure(
    settings: Settings,
    data: Path | None = None,
    *,
    pictures: int | None = None,
    rounds: int = 3,
    threads: int | None = None,
    on_progress: Progress | None = None,
) -> tuple[Throughput, dict[str, Any]]:
    """Time the pipeline and the network alone in turns; the numbers, and facts about the machine.

    Args:
        settings: what is measured.
        data: a folder of pictures; photos of 1920 x 1080 pixels as JPEG are made if None.
        pictures: so many of the folder, or made; all of it, or `PICTURES`, if None.
        rounds: of each; one that is not timed comes first.
        threads: torch's, for both.
        on_progress: called with how many of how many rounds are done.

    Raises:
        ConfigError: a number is below 1, or `data` holds no pictures.
        WeightsError: there is no such model.
    """
    if rounds < 1 or (pictures is not None and pictures < 1):
        raise ConfigError(f"rounds and pictures are at least 1, not {rounds} and {pictures}")
    report = on_progress or (lambda done, total: None)
    watched = Watched(load_model(settings.model))
    with cpu_threads(threads), tempfile.TemporaryDirectory() as scratch:
        translator = settings.translator(watched)
        count = pictures or PICTURES.get(translator.device.type, PICTURES["cuda"])
        folder = data or make_pictures(Path(scratch, "in"), count)
        bench = _Bench(FolderSource(folder), settings, translator, watched, Path(scratch), pictures)
        bench.once()
        calls = list(watched.calls)
        every, busy, alone = [], [], [watched.again(calls, translator.device)]
        for done in range(rounds):
            report(done, rounds)
            begin = _mark(translator.device)
            every.append(bench.once())
            busy.append(_busy(watched.marks, begin, translator.device) / every[-1].wall)
            alone.append(watched.again(calls, translator.device))
        report(rounds, rounds)
        facts = machine_facts(translator.device)
    return _summary(every, busy, alone, len(bench.jobs), translator.batch_size), facts


class _Bench:
    """What is run again and again: pictures of a folder into a new one."""

    def __init__(
        self,
        source: FolderSource,
        settings: Settings,
        translator: Translator,
        watched: Watched,
        scratch: Path,
        pictures: int | None,
    ) -> None:
        self.source, self.settings, self.translator, self.watched = source, settings, translator, watched
        self.scratch, self.runs = scratch, 0
        self.jobs = [Job(key, key) for key in source.pictures()[:pictures]]
        if not self.jobs:
            raise ConfigError(f"{source.root} holds no pictures; give a folder that does")

    def once(self) -> StageTimes:
        """Translate them all. Raises: ConfigError if one cannot be used."""
        stages, self.runs = StageTimes(), self.runs + 1
        self.watched.forget()
        sink = FolderSink(self.scratch / f"out{self.runs}")
        outcomes = translate_all(self.jobs, self.source, self.settings, translator=self.translator, stages=stages)
        for job, result, error, _ in outcomes:
            if result is None:
                raise ConfigError(f"{error}; leave it out of what is measured")
            sink.write(job.target, result.data)
        return stages


def _summary(
    every: Sequence[StageTimes], busy: Sequence[float], alone: Sequence[float], count: int, batch_size: int
) -> Throughput:
    """Each round is compared with the network's turns before and after it."""
    beside = [(before + after) / 2 for before, after in itertools.pairwise(alone)]
    per_picture = {
        name: statistics.median(getattr(stages, name) / count for stages in every)
        for name in ("decode", "network", "encode", "waiting")
    }
    return Throughput(
        pictures=count,
        batch_size=batch_size,
        rate=statistics.median(count / stages.wall for stages in every),
        network_rate=statistics.median(count / seconds for seconds in beside),
        of_network=statistics.median(seconds / stages.wall for seconds, stages in zip(beside, every, strict=True)),
        busy=statistics.median(busy),
        **per_picture,
    )


def make_pictures(folder: Path, count: int) -> Path:
    """JPEGs of 1920 x 1080 pixels that cost a decoder about what photos do: the shipped one, enlarged, with noise."""
    folder.mkdir(parents=True)
    photo = cv2.resize(read_rgb(PHOTO), FULL_HD, interpolation=cv2.INTER_CUBIC).astype(np.int16)
    for number in range(count):
        noise = np.random.default_rng(number).integers(-12, 13, photo.shape, dtype=np.int16)
        picture = (photo + noise).clip(0, 255).astype(np.uint8)[..., ::-1]
        cv2.imwrite(str(folder / f"{number:04d}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return folder


def throughput_table(it: Throughput) -> Table:
    """The numbers for a terminal."""
    table = Table(title=f"{it.pictures} pictures from files to files, {it.batch_size} at once")
    table.add_column("")
    table.add_column("", justify="right")
    table.add_row("pictures/s", f"{it.rate:.3g}")
    table.add_row("the network alone", f"{it.network_rate:.3g}")
    table.add_row("share of that", f"{it.of_network:.1%}")
    table.add_row("device busy", f"{it.busy:.1%}")
    stages = {name: getattr(it, name) for name in ("decode", "network", "encode", "waiting")}
    for name, seconds in stages.items():
        table.add_row(f"{name}, ms a picture", f"{seconds * 1e3:.1f} ({seconds / sum(stages.values()):.1%})")
    return table


def write_throughput(it: Throughput, facts: dict[str, Any], path: Path) -> None:
    """Numbers and facts as JSON. Raises: OSError."""
    write_text(path, json.dumps({**facts, **asdict(it)}, indent=1) + "\n")


def _mark(device: torch.device) -> Any:
    """A moment on the device's own clock."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def _busy(marks: Sequence[tuple[Any, Any]], zero: Any, device: torch.device) -> float:
    """Seconds that at least one of the spans between two marks covers."""
    synchronize(device)
    spans = sorted((_since(zero, begin), _since(zero, end)) for begin, end in marks)
    covered, reached = 0.0, 0.0
    for begin, end in spans:
        covered += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return covered


def _since(zero: Any, mark: Any) -> float:
    return mark - zero if isinstance(mark, float) else zero.elapsed_time(mark) / 1e3
