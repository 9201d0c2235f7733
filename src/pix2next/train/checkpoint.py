"""A run's state to disk and back, so that the next step is the one that would have been."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from torch.optim import Optimizer

from pix2next.errors import WeightsError, one_line
from pix2next.images import atomic_path
from pix2next.model.state_dicts import read_weights
from pix2next.train.step import TrainingState

STATE = "state.pt"


def save_state(state: TrainingState, best: float | None, out: Path, accelerator: Accelerator) -> None:
    """Write everything that changes to `out/state.pt`, whole or not at all; call it on the main process.

    The data order needs nothing but the step: sample n of the stream is a function of the seed and n.
    """
    content = {
        "step": state.step,
        "best": best,
        "model": accelerator.unwrap_model(state.model).state_dict(),
        "discriminator": accelerator.unwrap_model(state.discriminator).state_dict(),
        "ema": state.ema.state_dict(),
        "optim_g": state.optim_g.state_dict(),
        "optim_d": state.optim_d.state_dict(),
        "random": torch.get_rng_state(),
    }
    with writing(out / STATE), atomic_path(out / STATE) as temporary:
        torch.save(content, temporary)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Inside, what torch and safetensors raise on a full disk becomes a WeightsError that names `path`."""
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        raise WeightsError(f"cannot write {path}, perhaps for want of space: {one_line(error)}") from error


def load_state(state: TrainingState, out: Path, accelerator: Accelerator) -> float | None:
    """Put `out/state.pt` into `state`; gives the best validation score so far.

    Raises:
        WeightsError: there is no such file, or it is another network's.
    """
    path = out / STATE
    if not path.is_file():
        raise WeightsError(f"nothing to resume: no {path}")
    content = read_weights(path)
    try:
        accelerator.unwrap_model(state.model).load_state_dict(content["model"])
        accelerator.unwrap_model(state.discriminator).load_state_dict(content["discriminator"])
        state.ema.load_state_dict(content["ema"])
        _load_optimizer(state.optim_g, content["optim_g"])
        _load_optimizer(state.optim_d, content["optim_d"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{path} was made with other settings: {one_line(error)}") from error
    torch.set_rng_state(content["random"])
    state.step = content["step"]
    best: float | None = content["best"]
    return best


def _load_optimizer(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Moments and counts from the checkpoint; rates from the settings of now."""
    rates = [group["base_lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(saved)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["base_lr"] = rate
