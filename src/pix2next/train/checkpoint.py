"""A run's state to disk and back, so that the next step is the one that would have been."""

import logging
import os
from collections.abc import Iterator, Mapping
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
PREVIOUS = "state.previous.pt"
Ranking = list[tuple[float, int]]
"""Score and step of the best validations, best first."""

log = logging.getLogger(__name__)


def save_state(state: TrainingState, ranking: Ranking, chosen_by: str, out: Path, accelerator: Accelerator) -> None:
    """Write everything that changes to `out/state.pt`, whole or not at all; call it on the main process.

    The file before it stays as `out/state.previous.pt`. Neither the order of the data nor random generators need
    saving: both follow from the seed and the step. `chosen_by` is the metric of the ranking.
    """
    parts = {name: part.state_dict() for name, part in state.parts(accelerator).items()}
    content = {"step": state.step, "ranking": ranking, "chosen_by": chosen_by, **parts}
    with writing(out / STATE), atomic_path(out / STATE) as temporary:
        torch.save(content, temporary)
        if (out / STATE).exists():
            os.replace(out / STATE, out / PREVIOUS)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Inside, what torch and safetensors raise on a full disk becomes a WeightsError that names `path`."""
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        raise WeightsError(f"cannot write {path}, perhaps for want of space: {one_line(error)}") from error


def has_state(out: Path) -> bool:
    """Whether `out` holds a run that can be resumed."""
    return any((out / name).is_file() for name in (STATE, PREVIOUS))


def load_state(state: TrainingState, chosen_by: str, out: Path, accelerator: Accelerator) -> Ranking:
    """Put the last state that can be read into `state`; gives the ranking of its validations.

    The ranking is empty where it was made by another metric than `chosen_by`: scores of two metrics do not compare.

    Raises:
        WeightsError: there is none, none can be read, or it is another network's.
    """
    path, content = _read_last(out)
    parts = state.parts(accelerator)
    if lacking := [name for name in (*parts, "step", "ranking") if name not in content]:
        raise WeightsError(f"{path} was made with other settings: it holds no {lacking[0]}")
    try:
        for name, part in parts.items():
            if isinstance(part, Optimizer):
                _load_optimizer(part, content[name])
            else:
                part.load_state_dict(content[name])
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"{path} was made with other settings: {one_line(error)}") from error
    state.step = content["step"]
    if content.get("chosen_by", chosen_by) != chosen_by:
        return []
    return [(float(score), int(step)) for score, step in content["ranking"]]


def _read_last(out: Path) -> tuple[Path, Mapping[str, Any]]:
    """The state in `out`, or the one before it where the last was cut short."""
    there = [out / name for name in (STATE, PREVIOUS) if (out / name).is_file()]
    if not there:
        raise WeightsError(f"nothing to resume: no {out / STATE}")
    try:
        return there[0], read_weights(there[0])
    except WeightsError as error:
        if len(there) == 1:
            raise
        log.warning("%s; going on from %s", error, there[1])
        return there[1], read_weights(there[1])


def _load_optimizer(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Moments and counts from the checkpoint; rates and betas from the settings of now."""
    chosen = [{name: group[name] for name in ("base_lr", "betas")} for group in optimizer.param_groups]
    optimizer.load_state_dict(saved)
    for group, settings in zip(optimizer.param_groups, chosen, strict=True):
        group.update(settings)
