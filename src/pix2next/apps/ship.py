"""A training run into a checkpoint that ships: fp16, checked, with a card that says all there is to say.

The same run and card give the same file, byte for byte. A checkpoint that ships can be shipped again with newer scores.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError
from torch import nn

from pix2next.apps.demo import PHOTO
from pix2next.cards import (
    MEGABYTE,
    SHIPPED_MEGABYTES,
    Card,
    CardScores,
    card_of,
    checkpoint_file,
    read_card,
    weights_in,
)
from pix2next.config import ModelConfig
from pix2next.errors import ConfigError, WeightsError, one_line
from pix2next.evaluate.efficiency import count_flop, side_for
from pix2next.evaluate.protocols import DEFAULT_PROTOCOL
from pix2next.evaluate.scores import Cost
from pix2next.images import atomic_path, full_scale, read_rgb
from pix2next.model.pix2next import Pix2Next, read_config
from pix2next.model.views import Views
from pix2next.translate import Translator

SIDE = 256
MOST_DIFFERENCE = 1.0
"""Levels of 8 bits by which fp16 may change a picture on average: a twentieth of what a good network is off."""


@dataclass(frozen=True)
class Shipped:
    """What was written, and what fp16 changed in a picture."""

    path: Path
    bytes: int
    card: Card
    mean_difference: float
    """In levels of 8 bits."""
    greatest_difference: float


def ship(
    source: str | Path, target: Path, card: Card, more: Mapping[str, str] | None = None, picture: Path = PHOTO
) -> Shipped:
    """Write a run's best checkpoint to `target` with parameters in fp16, if it is fit to ship.

    Args:
        source: a run's folder, or a checkpoint of ours; what its metadata say (step, scores on val) stays.
        target: the file; those beside it ship, too, and count towards the most that they may take together.
        card: what is to be said of it; parameters and cost are counted here.
        more: further metadata, such as statistics of the training pictures.
        picture: what the two precisions are compared on.

    Raises:
        WeightsError: there is no such checkpoint; a value is not finite or beyond fp16; fp16 changes the picture by
            more than `MOST_DIFFERENCE` on average; or the checkpoints would take too much together.
        ConfigError: the card leaves something out. ImageError: the picture cannot be read. OSError: as `atomic_path`.
    """
    path = checkpoint_file(source)
    if path is None:
        raise WeightsError(f"no run or checkpoint {source}; give a run's folder or a file that training wrote")
    run, model = card_of(path), Pix2Next.load(path)
    check_fits_half(model, path)
    card = with_cost(card.model_copy(update={"step": run.step if card.step is None else card.step}), path)
    if card.missing:
        raise ConfigError(f"the card of {target.stem} leaves out {', '.join(card.missing)}; what ships states them")
    with atomic_path(target) as beside:
        model.save(beside, dtype=torch.float16)
        set_metadata(beside, {**read_card(path), **read_card(beside), **card.to_metadata(), **(more or {})})
        mean, greatest = difference(model, Pix2Next.load(beside), picture)
        if not mean <= MOST_DIFFERENCE:
            raise WeightsError(
                f"{path}: fp16 changes {picture.name} by {mean:.2g} levels of 8 bits on average, more than "
                f"{MOST_DIFFERENCE}; ship another checkpoint of the run"
            )
        size = check_total(beside, target)
    return Shipped(target, size, card, mean, greatest)


def with_cost(card: Card, path: Path) -> Card:
    """The card with parameters and operations counted where it does not state them; needs no weights."""
    if card.parameters and card.gflop:
        return card
    cost = cost_of(read_config(path))
    return card.model_copy(update={"parameters": cost.parameters, "gflop": round(cost.gflop, 3)})


def cost_of(config: ModelConfig) -> Cost:
    """Of a network that is built only for that, for one picture of 256 x 256 or the next size, in all of its views."""
    with torch.device("meta"):
        network = Views(Pix2Next(config, fetch=False).eval())
        side = side_for(network, SIDE)
        gflop = count_flop(network, torch.empty(1, 3, side, side)) / 1e9
    return Cost(gflop, sum(parameter.numel() for parameter in network.parameters()))


def check_fits_half(model: nn.Module, source: Path) -> None:
    """Raises: WeightsError for a value that is not finite, or a parameter beyond the range of fp16."""
    most = torch.finfo(torch.float16).max
    for name, value in model.state_dict().items():
        if not value.isfinite().all():
            raise WeightsError(f"{source}: {name} holds NaN or infinite values; ship an earlier checkpoint")
    for name, value in model.named_parameters():
        if (greatest := value.abs().max().item()) > most:
            raise WeightsError(f"{source}: {name} reaches {greatest:.3g}, and fp16 ends at {most:.0f}")


def set_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Give a safetensors file other metadata, sorted by name; its tensors stay as they are, byte for byte.

    `safetensors` itself writes metadata in another order every time. Raises: OSError.
    """
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    head = {**json.loads(whole[8:start]), "__metadata__": dict(sorted(metadata.items()))}
    text = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as beside:
        beside.write_bytes(len(text).to_bytes(8, "little") + text + whole[start:])


def difference(a: nn.Module, b: nn.Module, picture: Path) -> tuple[float, float]:
    """Between the NIR pictures that two networks make, in levels of 8 bits but not rounded to them: mean, greatest.

    Raises: ImageError; WeightsError if a network gives NaN.
    """
    stored = read_rgb(picture)
    rgb = (stored / full_scale(stored.dtype)).astype(np.float32)
    one, other = (Translator(model, device="cpu")(rgb) for model in (a, b))
    levels = 255 * np.abs(one - other)
    return float(levels.mean()), float(levels.max())


def check_total(new: Path, target: Path) -> int:
    """The size of `new`, which is to become `target`, in bytes.

    Raises: WeightsError if the checkpoints in the folder would then take more than they may.
    """
    size = new.stat().st_size
    total = size + sum(path.stat().st_size for path in weights_in(target.parent) if path.name != target.name)
    if total > SHIPPED_MEGABYTES * MEGABYTE:
        raise WeightsError(
            f"{target.name} ({size / MEGABYTE:.1f} MB) would bring the checkpoints in {target.parent} to "
            f"{total / MEGABYTE:.1f} MB, and all together may take {SHIPPED_MEGABYTES}"
        )
    return size


def read_scores(path: Path) -> CardScores:
    """The means of what was scored, from the `scores.json` of `pix2next evaluate` on a test split.

    Raises:
        ConfigError: it is no such file, of another protocol, without a metric that a card states, or pictures were
            left out.
    """
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        protocol, left_out = written["protocol_name"], written["left_out"]
        means = {"pictures": written["pairs"], **written["mean"][written["name"]]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is no scores.json of pix2next evaluate: {one_line(error)}") from error
    if protocol != DEFAULT_PROTOCOL or left_out:
        raise ConfigError(
            f"{path} holds scores of protocol {protocol} with {len(left_out)} pictures left out; "
            f"a card states those of {DEFAULT_PROTOCOL}, of all pictures"
        )
    try:
        return CardScores.model_validate(means)
    except ValidationError as error:
        wrong = ", ".join(str(it["loc"][0]) for it in error.errors())
        raise ConfigError(
            f"{path} has no usable {wrong}; score with the metrics that evaluate takes by itself"
        ) from error
