"""What a network costs: parameters, floating-point operations and time, beside the released architecture's.

Times only compare when they were taken in one run on one machine, so every network is timed in every round.
"""

import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from rich.table import Table
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pix2next.config import load_config
from pix2next.images import atomic_path
from pix2next.model.pix2next import Pix2Next, load_model
from pix2next.model.released import released_generator
from pix2next.translate import pick_device

RELEASED = "released"
RELEASED_REPEATS = 2
"""Rounds that the released architecture takes part in: it takes seconds a picture, and its times spread little."""


@dataclass(frozen=True)
class Row:
    """One network's cost for one RGB picture."""

    model: str
    size: int
    """Side of the square picture."""
    parameters: int
    gflop: float
    """10^9 operations, a multiply-add counted as two."""
    seconds: float
    """Median over the rounds."""
    times_faster: float | None
    """Than the released architecture in the same run; None when that was left out."""


def benchmark(
    models: Sequence[str],
    size: int = 256,
    repeats: int = 20,
    threads: int | None = None,
    device: str = "cpu",
    compare: bool = True,
) -> list[Row]:
    """Cost of each model, and of the released architecture (untrained: weights change nothing here) with `compare`.

    A model is anything `load_model` takes, or a config in YAML, which is then built untrained.

    Raises: WeightsError or ConfigError for a model or device that is not to be had.
    """
    place = pick_device(device)
    networks = {name: _network(name) for name in models}
    if compare:
        networks[RELEASED] = released_generator()
    # Channels last, as the Translator runs them; on CPU it is the faster layout for each of them.
    for network in networks.values():
        network.eval().to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    with _threads(threads):
        return measure(networks, size, repeats)


def measure(networks: Mapping[str, nn.Module], size: int, repeats: int) -> list[Row]:
    """Rows for networks that are ready to run, timed in turns; `RELEASED`, if among them, is the yardstick."""
    pictures = {name: _noise(network, size) for name, network in networks.items()}
    gflop = {name: count_flop(network, pictures[name]) / 1e9 for name, network in networks.items()}
    times: dict[str, list[float]] = {name: [] for name in networks}
    for turn in range(repeats):
        for name, network in networks.items():
            if name != RELEASED or turn < RELEASED_REPEATS:
                times[name].append(time_once(network, pictures[name]))
    seconds = {name: statistics.median(taken) for name, taken in times.items()}
    yardstick = seconds.get(RELEASED)
    return [
        Row(
            model=name,
            size=pictures[name].shape[-1],
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            gflop=gflop[name],
            seconds=seconds[name],
            times_faster=yardstick / seconds[name] if yardstick else None,
        )
        for name, network in networks.items()
    ]


@torch.inference_mode()
def count_flop(network: nn.Module, rgb: Float[Tensor, "b 3 h w"]) -> int:
    """Floating-point operations of one forward pass: convolutions and matrix products, as torch's counter counts.

    Attention runs as plain matrix products while counting, since fused kernels for CPU are unknown to the counter.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(rgb)
    return counter.get_total_flops()


@torch.inference_mode()
def time_once(network: nn.Module, rgb: Float[Tensor, "b 3 h w"]) -> float:
    """Seconds of one forward pass, until the device is done."""
    _wait(rgb.device)
    start = time.perf_counter()
    network(rgb)
    _wait(rgb.device)
    return time.perf_counter() - start


def benchmark_table(rows: Sequence[Row]) -> Table:
    """The rows for a terminal."""
    table = Table(title=f"One {rows[0].size} x {rows[0].size} picture" if rows else None)
    table.add_column("model")
    for heading in ("parameters, M", "GFLOP", "ms", "times faster"):
        table.add_column(heading, justify="right")
    for row in rows:
        faster = "" if row.times_faster is None else f"{row.times_faster:.1f}"
        table.add_row(row.model, f"{row.parameters / 1e6:.2f}", f"{row.gflop:.2f}", f"{row.seconds * 1e3:.1f}", faster)
    return table


def write_benchmark(rows: Sequence[Row], path: Path) -> None:
    """The rows as JSON with the torch version and thread count they were taken with."""
    report = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "rows": [asdict(row) for row in rows],
    }
    with atomic_path(path) as beside:
        beside.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _network(name: str) -> nn.Module:
    if Path(name).suffix in (".yaml", ".yml"):
        return Pix2Next(load_config(Path(name), ["model.vfm.weights=none"]).model)
    return load_model(name)


def _noise(network: nn.Module, size: int) -> Float[Tensor, "1 3 h w"]:
    """A picture for `network`, its side rounded up to what the network takes."""
    multiple = int(getattr(network, "multiple", 1))
    side = -(-size // multiple) * multiple
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    rgb = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).mul(2).sub(1)
    return rgb.to(device, memory_format=torch.channels_last)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
