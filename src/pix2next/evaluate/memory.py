"""Main memory: how much there is, and how much a piece of work takes of it at most.

A process only gives back what it likes, so a peak means something in a process that did nothing else before. The peak
is the operating system's own figure; on Linux it is set back first, elsewhere it includes whatever came before.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
MEMORY = Path("/proc/meminfo")
RESET_PEAK = "5"
SPARED = 0.9
"""Share of the free memory that a measured process may take, so that it fails before the machine does."""


def available() -> int | None:
    """Bytes that can be had without swapping, as far as the system tells."""
    return _field(MEMORY, "MemAvailable")


def resident() -> int | None:
    """Bytes that this process holds in main memory."""
    return _field(STATUS, "VmRSS") or _highest()


def peak_of(work: Callable[[], object]) -> int | None:
    """Most bytes that this process held while `work` ran; None where the system does not tell."""
    with suppress(OSError):  # The peak then includes what came before `work`.
        CLEAR.write_text(RESET_PEAK, encoding="utf-8")
    work()
    return _field(STATUS, "VmHWM") or _highest()


def limit_to_free() -> None:
    """Let allocations fail once this process takes most of what is free now, where the system can do that."""
    free, held = available(), _field(STATUS, "VmData")
    if free is None or held is None:
        return
    import resource

    limit = held + int(SPARED * free)
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))


def _field(file: Path, name: str) -> int | None:
    """A line `name: N kB` of one of Linux's files, in bytes."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    values = (line.split() for line in lines if line.startswith(f"{name}:"))
    return next((int(words[1]) * 1024 for words in values), None)


def _highest() -> int | None:
    """The highest so far, on systems like Unix without Linux's files."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
