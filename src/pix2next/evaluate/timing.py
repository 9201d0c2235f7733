"""The clock: passes of several networks, timed in turns on one device.

Times only compare when they were taken in one run on one machine, so every network takes its turn in every round.
"""

import ctypes
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pix2next.errors import one_line
from pix2next.translate import out_of_memory

PATIENCE = 20.0
"""Seconds that a network's turns may take together before it sits out further rounds."""
ENOUGH = 2
"""Rounds that every network takes part in, however long they are."""
WARMUP = {"cpu": 1, "cuda": 3}
"""Passes before the clock starts: memory is laid out, kernels are chosen or compiled."""

Pass = Callable[[], object]
Start = Callable[[], Pass]
"""Builds whatever a pass needs and gives the pass, to be called any number of times."""


@dataclass
class Times:
    """What became of a network's turns."""

    seconds: list[float] = field(default_factory=list)
    memory: int | None = None
    """Most bytes that its tensors took on a GPU, weights included; None on other devices."""
    failed: str | None = None
    """Why its passes ended; what was timed before does not count."""

    @property
    def median(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds and not self.failed else None

    @property
    def spread(self) -> float | None:
        """Distance of the quartiles as a share of the median; None below three rounds."""
        if len(self.seconds) < 3 or self.failed:
            return None
        low, middle, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / middle

    @property
    def waits(self) -> bool:
        """Whether it takes part in another round."""
        patient = len(self.seconds) < ENOUGH or sum(self.seconds) < PATIENCE
        return patient and not self.failed


def in_turns(starts: Mapping[str, Start], rounds: int, device: torch.device, *, keep: bool = True) -> dict[str, Times]:
    """Time a pass of each in every round. A failing one is out, and says why; the others go on.

    Without `keep` one is in memory at a time: each is started anew for its turn, and warmed up again.
    """
    taken = {name: Times() for name in starts}
    kept: dict[str, Pass] = {}
    for _ in range(rounds):
        for name, start in starts.items():
            if taken[name].waits:
                _take_turn(name, start, taken[name], kept, device)
            if not keep or taken[name].failed:
                kept.pop(name, None)
                release(device)
    kept.clear()
    release(device)
    return taken


def _take_turn(name: str, start: Start, taken: Times, kept: dict[str, Pass], device: torch.device) -> None:
    try:
        if name not in kept:
            kept[name], memory = started(start, device)
            taken.memory = max(filter(None, (taken.memory, memory)), default=None)
        taken.seconds.append(time_once(kept[name], device))
    except Exception as error:  # Whatever a network, a compiler or a device raises is what its cell says.
        taken.failed = reason(error)


def started(start: Start, device: torch.device) -> tuple[Pass, int | None]:
    """A pass that has been warmed up, and the most bytes of a GPU that it took until then; None on other devices."""
    cuda = device.type == "cuda"
    before = torch.cuda.memory_allocated(device) if cuda else 0
    run = start()
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(WARMUP.get(device.type, 1)):
        run()
    synchronize(device)
    return run, torch.cuda.max_memory_allocated(device) - before if cuda else None


def time_once(run: Pass, device: torch.device) -> float:
    """Seconds of one pass, until the device is done; on CUDA by its own clock."""
    synchronize(device)
    if device.type == "cuda":
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with torch.cuda.device(device):
            first.record()
            run()
            last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1e3
    start = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait until a device that works on its own is done."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def release(device: torch.device) -> None:
    """Give back the memory of what is no longer used."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):  # Linux alone keeps freed memory for later and has a way to ask for it.
        ctypes.CDLL(None).malloc_trim(0)


def reason(error: BaseException) -> str:
    """An error as the few words that stand in a cell."""
    return "out of memory" if out_of_memory(error) else one_line(error)


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Inside, torch computes with so many threads; with its own choice for None."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def machine_facts(device: torch.device) -> dict[str, Any]:
    """What times depend on, to stand beside them; the load is that before the measurement."""
    cuda = device.type == "cuda"
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
        "kind": device.type,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "cuda": torch.version.cuda if cuda else None,
        "tf32": torch.backends.cudnn.allow_tf32 if cuda else None,
    }


def _processor() -> str:
    """The processor's name; platform knows it on some systems only."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
