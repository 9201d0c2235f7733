"""The weighted average of checkpoints of one architecture: short runs from the same weights, that differ by their seed.

python scripts/average.py average.safetensors runs/a runs/b runs/c
python scripts/average.py mixed.safetensors average.safetensors=0.7 runs/augmented=0.3
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

from pix2next.cards import checkpoint_file
from pix2next.config import ModelConfig
from pix2next.errors import ConfigError, Pix2NextError, WeightsError
from pix2next.model.pix2next import Pix2Next


def average(sources: Sequence[tuple[str, float]]) -> Pix2Next:
    """The network whose floating-point tensors are the mean of those of `sources` (a run or file, and its weight).

    Weights are scaled to a sum of 1. Sums are taken in float64. Tensors of integers and the views are the first
    source's.

    Raises: WeightsError where a source is no checkpoint of ours, or of another architecture than the first.
    """
    total = math.fsum(weight for _, weight in sources)
    networks = [(name, load(name), weight / total) for name, weight in sources]
    first_name, first, _ = networks[0]
    for name, network, _ in networks:
        if architecture(network) != architecture(first):
            raise WeightsError(f"{name} has another architecture than {first_name}: they have no average")
    states = [(network.state_dict(), share) for _, network, share in networks]
    mean = {
        key: torch.stack([state[key].double() * share for state, share in states]).sum(0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for key, tensor in first.state_dict().items()
    }
    first.load_state_dict(mean)
    return first


def architecture(network: Pix2Next) -> ModelConfig:
    """The config without what leaves the weights as they are."""
    return network.config.model_copy(update={"views": 1, "turned": False, "shrunk": False})


def load(source: str) -> Pix2Next:
    """Raises: WeightsError where it is no checkpoint of ours."""
    path = checkpoint_file(source)
    if path is None:
        raise WeightsError(f"no run or checkpoint {source}")
    return Pix2Next.load(path)


def weighted(source: str) -> tuple[str, float]:
    """`runs/a=0.3` taken apart; the weight is 1 where none is given.

    Raises: ConfigError where it is not a number above 0.
    """
    name, equals, text = source.rpartition("=")
    if not equals:
        return source, 1.0
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise ConfigError(f"{source}: what follows = is a weight, a number above 0")
    return name, weight


def write(out: Path, make: Callable[[], Pix2Next]) -> None:
    """Save the network that `make` gives in fp32 and tell where; what fails is one sentence and exit status 2."""
    try:
        make().save(out)
    except (Pix2NextError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(out)


def main(
    out: Annotated[Path, typer.Argument(help="The checkpoint to write, .safetensors.")],
    sources: Annotated[list[str], typer.Argument(help="Runs or checkpoints, each with =WEIGHT if not 1.")],
) -> None:
    """Write the average, in fp32; what the sources' cards said of scores does not hold for it and is left out."""
    write(out, lambda: average([weighted(source) for source in sources]))


if __name__ == "__main__":
    typer.run(main)
