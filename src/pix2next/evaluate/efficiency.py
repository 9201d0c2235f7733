"""What a network costs: parameters and floating-point operations, by part, and the rows of a table of costs.

Counting needs no memory and no weights: it is done on torch's meta device, where tensors have a shape and no values.
Times and memory come from `timing.py` and `memory.py`.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from rich.table import Table
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pix2next.images import write_text
from pix2next.model.blocks import Fusion
from pix2next.model.features import Vfm
from pix2next.model.internimage import InternImage
from pix2next.model.released_blocks import AttentionBlock as ReleasedAttention

RELEASED = "released"
"""The row of the released architecture, which all others are compared with."""
MEBIBYTE = 2**20
Part = Literal["vfm", "attention", "generator"]
Number = float | int


@dataclass(frozen=True)
class Parameters:
    """How many numbers a network holds."""

    total: int
    trained: int
    """Those that a gradient reaches: not of a frozen VFM, nor of its stages beyond the last map that is read."""
    vfm: int


@dataclass(frozen=True)
class Operations:
    """10^9 floating-point operations of a forward pass on one picture, a multiply-add counted as two."""

    vfm: float
    attention: float
    """Of the blocks that attend, feed-forward layers included; of those that concatenate VFM maps instead, too."""
    generator: float
    """Everything else."""

    @property
    def total(self) -> float:
        return self.vfm + self.attention + self.generator


@dataclass(frozen=True)
class Row:
    """One network's cost in one cell: a size, a batch size, a mode, and forward or training."""

    model: str
    size: int
    """Side of the square picture, rounded up to what the network takes."""
    batch_size: int
    mode: str
    work: str
    parameters: int | None = None
    trained: int | None = None
    vfm_parameters: int | None = None
    gflop: float | None = None
    """Of a forward pass on one picture, whatever `work` and `batch_size` are."""
    gflop_vfm: float | None = None
    gflop_attention: float | None = None
    gflop_generator: float | None = None
    memory: int | None = None
    """Peak, in bytes, the weights included; None where it was not measured."""
    seconds: float | None = None
    """Median over the rounds of what the whole batch took."""
    spread: float | None = None
    """Distance of the quartiles as a share of the median."""
    rounds: int = 0
    pictures_per_second: float | None = None
    times_faster: float | None = None
    """Than the released architecture in the same cell of the same run."""
    failed: str | None = None
    """Why there are no times."""


def count_flop(network: nn.Module, rgb: Float[Tensor, "b 3 h w"]) -> int:
    """Floating-point operations of one forward pass: convolutions and matrix products, as torch's counter counts.

    Attention runs as plain matrix products while counting, since fused kernels for CPU are unknown to the counter.
    What is no product of matrices (norms, activations, resizing, the sampling of deformable convolutions) counts as
    nothing.
    """
    return sum(count_parts(network, rgb).values())


@torch.inference_mode()
def count_parts(network: nn.Module, rgb: Float[Tensor, "b 3 h w"]) -> dict[Part, int]:
    """Operations as `count_flop` has them, of the VFM, of attention and of the rest of the generator."""
    counted: dict[Part, int] = {"vfm": 0, "attention": 0, "generator": 0}
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        counter = stack.enter_context(FlopCounterMode(display=False))
        for part, module in _parts(network):
            for hook in _count_inside(module, part, counter, counted):
                stack.callback(hook.remove)
        network(rgb)
        counted["generator"] = counter.get_total_flops() - counted["vfm"] - counted["attention"]
    return counted


def side_for(network: nn.Module, size: int) -> int:
    """`size` rounded up to what the network takes."""
    multiple = int(getattr(network, "multiple", 1))
    return -(-size // multiple) * multiple


def operations_of(network: nn.Module, rgb: Float[Tensor, "1 3 h w"]) -> Operations:
    """`count_parts` in 10^9."""
    return Operations(**{part: count / 1e9 for part, count in count_parts(network, rgb).items()})


def parameters_of(network: nn.Module, rgb: Float[Tensor, "b 3 h w"]) -> Parameters:
    """Count parameters, and try which of them a gradient reaches; `network` is in training mode afterwards.

    Two pictures keep batch norms content that are left with a single cell.
    """
    network.train()
    with torch.enable_grad():
        network(torch.cat([rgb, rgb])).float().mean().backward()
    sizes = {parameter: parameter.numel() for parameter in network.parameters()}
    trained = sum(size for parameter, size in sizes.items() if parameter.grad is not None)
    vfm = sum(it.numel() for part, module in _parts(network) if part == "vfm" for it in module.parameters())
    network.zero_grad(set_to_none=True)
    return Parameters(sum(sizes.values()), trained, vfm)


def _parts(network: nn.Module) -> Iterator[tuple[Part, nn.Module]]:
    """The outermost modules that are a VFM or that attend."""
    for module in network.children():
        match module:
            case Vfm() | InternImage():
                yield "vfm", module
            case Fusion() | ReleasedAttention():
                yield "attention", module
            case _:
                yield from _parts(module)


def _count_inside(module: nn.Module, part: Part, counter: FlopCounterMode, counted: dict[Part, int]) -> Iterable[Any]:
    """Hooks by which what `counter` counts while `module` runs is added to its part."""

    def move(sign: int, *_: object) -> None:
        counted[part] += sign * counter.get_total_flops()

    yield module.register_forward_pre_hook(partial(move, -1))
    yield module.register_forward_hook(partial(move, 1))


def benchmark_table(rows: Sequence[Row]) -> Table:
    """The rows for a terminal; what all cells have in common stands in the title."""
    columns = [
        [f"{row.size} x {row.size}" for row in rows],
        [f"batch {row.batch_size}" for row in rows],
        [row.mode for row in rows],
        [row.work for row in rows],
    ]
    common = [column[0] for column in columns if len(set(column)) == 1]
    varied = [column for column in columns if len(set(column)) > 1]
    table = Table(title=", ".join(common))
    table.add_column("model", overflow="fold", min_width=10)
    if varied:
        table.add_column("cell", justify="right")
    for heading in ("M param.", "GFLOP", "MiB", "ms", "per s", "faster"):
        # A failure is told in the place of the milliseconds, and may take lines.
        table.add_column(heading, justify="right", no_wrap=heading != "ms", min_width=9 if heading == "ms" else None)
    names = short_names(row.model for row in rows)
    for index, row in enumerate(rows):
        cell = [", ".join(column[index] for column in varied)] if varied else []
        table.add_row(names[row.model], *cell, *_numbers(row))
    return table


def short_names(models: Iterable[str]) -> dict[str, str]:
    """A config's stem, or the model's name; with its folder where others are called the same."""
    models = list(dict.fromkeys(models))
    names = {model: short_name(model) for model in models}
    called = Counter(names.values())
    return {model: f"{Path(model).parent.name}/{name}" if called[name] > 1 else name for model, name in names.items()}


def short_name(model: str) -> str:
    """A config's stem, or the model's name."""
    path = Path(model)
    return path.stem if path.suffix in (".yaml", ".yml") else path.name or model


def _numbers(row: Row) -> list[str]:
    counts = [number(row.parameters, 1e6, 2), number(row.gflop, 1, 2), number(row.memory, MEBIBYTE, 0)]
    if row.failed:
        return [*counts, row.failed, "", ""]
    spread = "" if row.spread is None else f" ±{row.spread / 2:.0%}"
    time = number(row.seconds, 1e-3, 1) + spread
    return [*counts, time, number(row.pictures_per_second, 1, 2), number(row.times_faster, 1, 1)]


def number(value: Number | None, unit: Number, digits: int) -> str:
    """A value in its unit, or nothing where there is none."""
    return "" if value is None else f"{value / unit:.{digits}f}"


def write_benchmark(rows: Sequence[Row], facts: Mapping[str, Any], path: Path) -> None:
    """The rows as JSON, after what is known of the machine they were taken on."""
    report = {**facts, "rows": [asdict(row) for row in rows]}
    write_text(path, json.dumps(report, indent=1) + "\n")
