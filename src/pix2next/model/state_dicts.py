"""Weight files that other code wrote: read safely, unwrapped, and fitted to our modules or refused."""

import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pix2next.errors import WeightsError

Rename = tuple[str, str]
"""A regular expression and what takes its place."""


def read_state_dict(path: Path, anchor: str) -> dict[str, Tensor]:
    """Read the state dict in `path` that has the tensor `anchor`, which every file of its kind has.

    It may lie bare or in any wrapper (`model`, `state_dict`, ...), and every name may carry a prefix
    (`module.` of DataParallel, `backbone.`, ...), which is cut off; what lies beside it is left out.

    Raises:
        WeightsError: the file is missing or unreadable, holds more than tensors and plain containers
            (pickled code is never run), or has no such tensor.
    """
    return pick_state_dict(read_weights(path), anchor, path)


def pick_state_dict(weights: Any, anchor: str, path: Path) -> dict[str, Tensor]:
    """Take from `weights`, which were read from `path`, what `read_state_dict` gives.

    Raises:
        WeightsError: nothing in them has the tensor `anchor`.
    """
    found = find_state(weights, anchor)
    if found is None:
        raise WeightsError(f"{path} does not hold the weights looked for: it has no tensor {anchor}")
    state, prefix = found
    return {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if isinstance(value, Tensor) and name.startswith(prefix)
    }


def read_weights(path: Path) -> Any:
    """Read what a `.safetensors` or torch file holds: tensors and plain containers, on the CPU.

    Raises:
        WeightsError: as `read_state_dict`.
    """
    if not path.is_file():
        raise WeightsError(f"no weights file at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise WeightsError(f"{path} is no weights file that can be read without running code from it") from None
    except Exception as error:  # a broken pickle can raise nearly anything
        reason = re.split(r"\.?\s*\n|\. ", str(error).strip())[0] or "it ends too early"
        raise WeightsError(f"cannot read weights from {path}: {reason}") from None


def find_state(tree: Any, anchor: str) -> tuple[Mapping[str, Any], str] | None:
    """Find, depth first, the mapping that has the tensor `anchor`, and the prefix that it carries there."""
    if not isinstance(tree, Mapping):
        return None
    for name, value in tree.items():
        if isinstance(value, Tensor) and (name == anchor or str(name).endswith("." + anchor)):
            return tree, name.removesuffix(anchor)
    inner = (find_state(value, anchor) for value in tree.values())
    return next((found for found in inner if found), None)


def rename(state: Mapping[str, Tensor], renames: Sequence[Rename]) -> dict[str, Tensor]:
    """Give every name with all of `renames` applied to it, in order."""
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def count_numbered(names: Iterable[str], prefix: str) -> int:
    """Count the different numbers that follow `prefix`: the length of a list of modules."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return len({match[1] for name in names if (match := pattern.match(name))})


def fit(module: nn.Module, state: Mapping[str, Tensor], source: Path | str) -> None:
    """Give `module`, built on the meta device, the tensors of `state` as float32.

    Raises:
        WeightsError: a tensor is missing, left over, of another shape or kind, or not finite; the message names
            `source` and the first of them.
    """
    wanted = module.state_dict()
    problems = [
        *(f"{name} is missing" for name in wanted if name not in state),
        *(f"{name} has no place" for name in state if name not in wanted),
        *(
            f"{name} is {_size(value)} instead of {_size(wanted[name])}"
            for name, value in state.items()
            if name in wanted and _kind(value) != _kind(wanted[name])
        ),
    ]
    floats = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    problems += [f"{name} holds NaN or infinite values" for name, value in floats.items() if not value.isfinite().all()]
    if problems:
        raise WeightsError(f"{source} does not fit {type(module).__name__}: {_first(problems)}")
    module.load_state_dict(floats, assign=True)


def _kind(tensor: Tensor) -> tuple[torch.Size, bool]:
    return tensor.shape, tensor.is_floating_point()


def _size(tensor: Tensor) -> str:
    kind = "" if tensor.is_floating_point() else f" {str(tensor.dtype).removeprefix('torch.')}"
    return (" x ".join(map(str, tensor.shape)) or "a single number") + kind


def _first(problems: Sequence[str]) -> str:
    more = len(problems) - 1
    return problems[0] + (f" (and {more} more)" if more else "")
