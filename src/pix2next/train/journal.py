"""What a run says: a progress bar, JSON lines, sheets of sample pictures."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from pix2next.images import atomic_path, full_scale

SHEET_HEIGHT = 192
SHEET_ROWS = 6


class Journal:
    """Means of what was measured since the last line, to `log.jsonl` and the progress bar; use it in a `with`."""

    def __init__(self, out: Path, first: int, steps: int, *, enabled: bool = True) -> None:
        self.out = out
        self.enabled = enabled
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._waited = 0.0
        self._since = time.perf_counter()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, TimeRemainingColumn(), disable=not enabled)
        self._task = self._progress.add_task("training", total=steps, completed=first)

    def __enter__(self) -> "Journal":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def add(self, step: int, losses: Mapping[str, Tensor], waited: float) -> None:
        """Take in one step's losses and the seconds it waited for data."""
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(loss)) + loss
        self._count += 1
        self._waited += waited
        self._progress.update(self._task, completed=step)

    def write(self, step: int, **more: float) -> dict[str, float | int]:
        """A line with the means since the last one, steps per second, and the share of time spent waiting for data."""
        seconds = time.perf_counter() - self._since
        means = {name: round(float(total) / self._count, 5) for name, total in self._sums.items()}
        speed = {"steps_per_second": self._count / seconds, "data_wait": self._waited / seconds} if self._count else {}
        line = {"step": step, **means, **{name: round(value, 4) for name, value in (speed | more).items()}}
        self._sums, self._count, self._waited, self._since = {}, 0, 0.0, time.perf_counter()
        if self.enabled:
            with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        return line

    def say(self, text: str) -> None:
        """Print above the progress bar."""
        if self.enabled:
            self._progress.console.print(text, highlight=False)


def write_sheet(path: Path, rows: Sequence[Sequence[np.ndarray]]) -> None:
    """Pictures side by side, a row each, all of one height; grey or RGB of any depth."""
    fitted = [np.hstack([_fit(picture) for picture in row]) for row in rows]
    width = max(row.shape[1] for row in fitted)
    padded = [np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in fitted]
    _, data = cv2.imencode(".png", np.vstack(padded)[..., ::-1])
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.data)


def _fit(picture: np.ndarray) -> np.ndarray:
    eight_bit = np.rint(picture / full_scale(picture.dtype) * 255).astype(np.uint8)
    colour = eight_bit if picture.ndim == 3 else np.repeat(eight_bit[..., None], 3, axis=2)
    width = max(1, round(colour.shape[1] * SHEET_HEIGHT / colour.shape[0]))
    fitted = cv2.resize(colour, (width, SHEET_HEIGHT), interpolation=cv2.INTER_AREA)
    return np.pad(fitted, ((0, 0), (0, 4), (0, 0)), constant_values=255)
