"""The most main memory that a network takes, measured in a process that does nothing else.

`python -m pix2next.apps.cost_memory` is that process: what to measure comes in on standard input, the answer goes out
on standard output, both as JSON.
"""

import json
import signal
import subprocess
import sys
from typing import Any, NamedTuple

import torch

from pix2next.apps.cost_passes import Cell, start, subject_of
from pix2next.evaluate.memory import limit_to_free, peak_of, resident
from pix2next.evaluate.timing import reason

PASSES = {"forward": 1, "training": 2}
"""Adam's own memory is taken in the first step, and a second one shows what a step takes beside it."""


class Peak(NamedTuple):
    """Bytes above what the process held before the network was built; None with the reason where it failed."""

    memory: int | None
    failed: str | None = None


def peak_memory(model: str, cell: Cell, side: int, threads: int | None) -> Peak:
    """Build the network in a process of its own, run it, and tell the most that this took, weights included.

    The libraries that a process loads are not counted. None without a reason where the system tells no figures.
    """
    asked = {"model": model, "cell": cell._asdict(), "side": side, "threads": threads}
    command = [sys.executable, "-m", "pix2next.apps.cost_memory"]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True)
    if done.returncode == 0:
        return Peak(**json.loads(done.stdout.splitlines()[-1]))
    if done.returncode == -getattr(signal, "SIGKILL", 9):
        return Peak(None, "out of memory")  # The system ends what takes too much.
    said = done.stderr.strip().splitlines()
    return Peak(None, said[-1][:200] if said else f"its process ended with status {done.returncode}")


def measured(asked: dict[str, Any]) -> Peak:
    """What the process answers."""
    subject, cell = subject_of(asked["model"]), Cell(**asked["cell"])
    torch.set_num_threads(asked["threads"] or torch.get_num_threads())
    _load_libraries()
    limit_to_free()
    before = resident()

    def work() -> None:
        run = start(subject, cell, asked["side"], torch.device("cpu"))
        for _ in range(PASSES[cell.work]):
            run()

    try:
        peak = peak_of(work)
    except Exception as error:  # Whatever a network raises is what its cell says.
        return Peak(None, reason(error))
    return Peak(peak - before if peak is not None and before is not None else None)


def _load_libraries() -> None:
    """What torch loads and keeps when it first computes."""
    picture = torch.rand(1, 8, 64, 64, requires_grad=True)
    torch.nn.functional.conv2d(picture, torch.rand(8, 8, 3, 3)).flatten(2).matmul(
        torch.rand(62 * 62, 8)
    ).sum().backward()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measured(json.load(sys.stdin))._asdict()) + "\n")
