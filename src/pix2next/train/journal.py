"""What a run says: a progress bar, JSON lines, trackers, sheets of sample pictures, and what it ran on."""

import json
import logging
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from pix2next.config import Config
from pix2next.errors import ConfigError
from pix2next.evaluate.gallery import eight_bits, in_colour
from pix2next.images import atomic_path, write_text

LOG = "log.jsonl"
SHEET_HEIGHT = 192
SHEET_ROWS = 6
PACKAGES = ("pix2next", "torch", "torchvision", "timm", "accelerate", "torchmetrics", "numpy", "opencv-python-headless")

log = logging.getLogger(__name__)


class Journal:
    """Means of what was measured since the last line, to `log.jsonl`, trackers and a progress bar; use it in a `with`.

    Only the main process writes and shows; the others take part in the means.
    """

    def __init__(self, out: Path, config: Config, first: int, accelerator: Accelerator) -> None:
        """`first` is the step that the run goes on from: lines of the log beyond it are cut off."""
        self.out = out
        self.accelerator = accelerator
        self.enabled = accelerator.is_main_process
        self.terms: set[str] = set()
        self._start_window()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
        )
        self._progress = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), disable=not self.enabled)
        self._task = self._progress.add_task("training", total=config.train.steps, completed=first, rate="")
        if self.enabled:
            _cut_log(out / LOG, first)
        if config.train.trackers:
            accelerator.init_trackers("pix2next", config=dict(_flat(config.model_dump(mode="json"))))

    def __enter__(self) -> "Journal":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _start_window(self) -> None:
        self._sums: dict[str, tuple[Tensor, int]] = {}
        self._first_broken: dict[str, Tensor] = {}
        self._count, self._waited, self._since = 0, 0.0, time.perf_counter()

    def add(self, step: int, losses: Mapping[str, Tensor], waited: float) -> None:
        """Take in the losses of the step that led to `step`, and the seconds it waited for data.

        Nothing here waits for the device.
        """
        self.terms |= losses.keys()
        for name, loss in losses.items():
            total, count = self._sums.get(name, (torch.zeros_like(loss), 0))
            self._sums[name] = (total + loss, count + 1)
            never = torch.full_like(loss, torch.inf)
            broken = torch.where(loss.isfinite(), never, torch.full_like(loss, float(step)))
            self._first_broken[name] = torch.minimum(self._first_broken.get(name, never), broken)
        self._count += 1
        self._waited += waited
        self._progress.update(self._task, completed=step)

    def broken(self) -> tuple[str, int] | None:
        """The loss term that stopped being a finite number since the last line, and the step where it did."""
        first = {name: float(step) for name, step in self._first_broken.items()}
        name = min(first, key=first.__getitem__, default=None)
        return (name, int(first[name])) if name and first[name] < float("inf") else None

    def write_means(self, step: int, **more: float) -> dict[str, float]:
        """A line with the means since the last one, steps per second, and the share of time spent waiting for data.

        Every process must call it: the means are over all of them.
        """
        seconds = time.perf_counter() - self._since
        means = {name: total / count for name, (total, count) in self._sums.items()}
        if self.accelerator.num_processes > 1:
            means = self.accelerator.reduce(means, reduction="mean")
        speed = {"steps_per_second": self._count / seconds, "data_wait": self._waited / seconds} if self._count else {}
        self._progress.update(self._task, rate=f"{self._count / seconds:.2f}/s")
        self._start_window()
        return self.write(step, **{name: float(mean) for name, mean in means.items()}, **more, **speed)

    def write(self, step: int, **values: float) -> dict[str, float]:
        """A line of the log, as it is."""
        rounded = {name: float(f"{value:.6g}") for name, value in values.items()}
        if self.enabled:
            finite = {name: value if np.isfinite(value) else None for name, value in rounded.items()}
            _append(self.out / LOG, json.dumps({"step": step, **finite}) + "\n")
        self.accelerator.log(rounded, step=step)
        return rounded

    def skip_time(self) -> None:
        """Leave what passed since the last line (a validation, and the steps before it) out of the rates."""
        self._count, self._waited, self._since = 0, 0.0, time.perf_counter()

    def show(self, step: int, sheet: np.ndarray) -> None:
        """Sample pictures to `samples/STEP.png` and to the trackers that take pictures."""
        write_picture(self.out / "samples" / f"{step:07d}.png", sheet)
        for tracker in self.accelerator.trackers:
            if hasattr(tracker, "log_images"):
                tracker.log_images({"samples": sheet[None]}, step=step, **_layout(tracker.name))

    def say(self, text: str) -> None:
        """Print above the progress bar."""
        if self.enabled:
            self._progress.console.print(text, highlight=False)


def _layout(tracker: str) -> dict[str, str]:
    """TensorBoard has to be told that channels come last."""
    return {"dataformats": "NHWC"} if tracker == "tensorboard" else {}


def _append(path: Path, line: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line)
    except OSError as error:
        # A full disk is told of without a name.
        raise OSError(error.errno, error.strerror, str(path)) from error


def _cut_log(path: Path, step: int) -> None:
    """Leave out lines beyond `step`, which a resumed run writes again, and a last one cut short."""
    if not path.is_file():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
    write_text(path, "".join(line + "\n" for line in kept))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str | int | float | bool]]:
    """Settings by their full names, for trackers, which know no nested ones."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value if isinstance(value, (str, int, float, bool)) else json.dumps(value)


def check_trackers(names: Sequence[str]) -> None:
    """Accelerate leaves a tracker that is not installed out without a word.

    Raises:
        ConfigError: one is unknown or its package is missing.
    """
    available = [str(name) for name in get_available_trackers()]
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ConfigError(f"train.trackers: {name!r} is unknown; known are {', '.join(LOGGER_TYPE_TO_CLASS)}")
        if name not in available:
            raise ConfigError(f"train.trackers: the package for {name!r} is not installed; pip install {name}")


def environment(accelerator: Accelerator) -> dict[str, Any]:
    """What a run's numbers may depend on besides its settings."""
    cuda = accelerator.device.type == "cuda"
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name(accelerator.device) if cuda else str(accelerator.device),
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "mixed_precision": accelerator.mixed_precision,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def sheet_of(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Pictures side by side, a row each, all of one height, as uint8 RGB; grey or RGB of any depth come in."""
    fitted = [np.hstack([_fit(picture) for picture in row]) for row in rows]
    width = max(row.shape[1] for row in fitted)
    return np.vstack([np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in fitted])


def write_picture(path: Path, rgb: np.ndarray) -> None:
    """An 8-bit RGB picture to a PNG file, whole or not at all."""
    _, data = cv2.imencode(".png", rgb[..., ::-1])
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.data)


def write_sheet(path: Path, rows: Sequence[Sequence[np.ndarray]]) -> None:
    """`sheet_of` the rows to a PNG file."""
    write_picture(path, sheet_of(rows))


def _fit(picture: np.ndarray) -> np.ndarray:
    colour = in_colour(eight_bits(picture))
    width = max(1, round(colour.shape[1] * SHEET_HEIGHT / colour.shape[0]))
    fitted = cv2.resize(colour, (width, SHEET_HEIGHT), interpolation=cv2.INTER_AREA)
    return np.pad(fitted, ((0, 0), (0, 4), (0, 0)), constant_values=255)
