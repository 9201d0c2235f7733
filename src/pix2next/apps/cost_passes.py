"""What a benchmark times and measures: a network's forward pass or training step on noise, ready to run."""

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pix2next.config import Config, ModelConfig, ReleasedConfig, VfmConfig, load_config
from pix2next.errors import ConfigError
from pix2next.evaluate.efficiency import RELEASED
from pix2next.evaluate.timing import Pass
from pix2next.model.pix2next import Pix2Next, load_model
from pix2next.model.released import released_generator
from pix2next.train.speed import start_training

MODES = ("eager", "bf16", "compiled", "compiled+bf16")
"""In float32 or under autocast to bfloat16, as it stands or through torch.compile; channels last in any case."""
WORKS = ("forward", "training")


class Cell(NamedTuple):
    """What is measured of every network."""

    size: int
    """Side of the square picture; a network may need it rounded up."""
    batch_size: int
    mode: str
    work: str


@dataclass(frozen=True)
class Subject:
    """A network to be measured, known by how it is built: only those whose turn it is take memory."""

    name: str
    build: Callable[[], nn.Module]
    config: Config | None
    """How it is trained; None where nothing here trains it."""


def subject_of(name: str) -> Subject:
    """A config in YAML, built untrained; the released architecture; or anything `load_model` takes.

    Raises: WeightsError or ConfigError for what is not to be had.
    """
    if name == RELEASED:
        model = ModelConfig(vfm=VfmConfig(name="none"), generator=ReleasedConfig(kind="released"))
        return Subject(name, released_generator, Config(model=model))
    if Path(name).suffix in (".yaml", ".yml"):
        config = load_config(Path(name), ["model.vfm.weights=none"])
        return Subject(name, lambda: Pix2Next(config.model), config)
    network = load_model(name)
    trained = Config(model=network.config) if isinstance(network, Pix2Next) else None
    return Subject(name, lambda: copy.deepcopy(network), trained)


def outline_of(subject: Subject) -> nn.Module:
    """The network on torch's meta device: shapes without values, which is all that counting needs.

    Raises: ConfigError or WeightsError where its parts do not fit together.
    """
    with torch.device("meta"):
        return subject.build().to("meta")


def start(subject: Subject, cell: Cell, side: int, device: torch.device) -> Pass:
    """Build the network on the device; the pass to be timed.

    Raises: ConfigError or WeightsError for what cannot be trained; whatever torch raises where memory runs out.
    """
    if cell.work == "training":
        return _training_step(subject, cell, side, device)
    network: Any = subject.build().eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if "compiled" in cell.mode:
        network = torch.compile(network, dynamic=False)
    rgb = _noise(cell.batch_size, 3, side, device)

    @torch.inference_mode()
    def run() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled="bf16" in cell.mode):
            network(rgb)

    return run


def _training_step(subject: Subject, cell: Cell, side: int, device: torch.device) -> Pass:
    """An update of G and D with the losses of the config; a checkpoint's and the released network's are the default."""
    if subject.config is None:
        raise ConfigError("a checkpoint of the released code is not trained here")
    with _trained_on(device):
        training = start_training(_sized(subject.config, cell, side))
    place = torch.empty(0, device=training.accelerator.device).device
    if place != device:
        raise ConfigError(f"training runs on {place} here, not on {device}")
    rgb, nir = (_noise(cell.batch_size, channels, side, device) for channels in (3, 1))
    return lambda: training.step(rgb, nir)


def _sized(config: Config, cell: Cell, side: int) -> Config:
    """The config with the cell's batch, size and mode, from untrained weights, D taking part from the first step on."""
    changes = {
        "batch_size": cell.batch_size,
        "accumulate": 1,
        "discriminator_starts": 0,
        "epochs": None,
        "warmup_epochs": None,
        "init_from": None,
        "mixed_precision": "bf16" if "bf16" in cell.mode else "no",
        "compile": "compiled" in cell.mode,
        "trackers": (),
    }
    vfm = config.model.vfm.model_copy(update={"weights": "none"})
    return config.model_copy(
        update={
            "model": config.model.model_copy(update={"vfm": vfm}),
            "data": config.data.model_copy(update={"crop": side}),
            "train": config.train.model_copy(update=changes),
        }
    )


def _noise(count: int, channels: int, side: int, device: torch.device) -> Float[Tensor, "b c h w"]:
    """Pictures in [-1, 1], the same every time."""
    noise = torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0)).mul_(2).sub_(1)
    return noise.to(device, memory_format=torch.channels_last)


@contextmanager
def _trained_on(device: torch.device) -> Iterator[None]:
    """Training picks its device by itself; inside, it is kept from an accelerator where the CPU is measured."""
    name = "ACCELERATE_USE_CPU"
    before = os.environ.get(name)
    if device.type == "cpu":
        os.environ[name] = "1"
    try:
        yield
    finally:
        with suppress(KeyError):
            del os.environ[name]
        if before is not None:
            os.environ[name] = before
