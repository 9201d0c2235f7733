"""Turn a training run into a checkpoint that ships with the package.

python scripts/ship.py runs/outdoor tiny-outdoor --domain "photos by daylight" --licence "..." --data "..." \
    --data-terms "..." --vfm "..." --scores scores/scores.json --training train/rgb --held-out val/rgb
"""

from pathlib import Path
from typing import Annotated

import typer

from pix2next.apps.ship import read_scores, ship
from pix2next.cards import MEGABYTE, Card, weights_folder
from pix2next.errors import ConfigError, Pix2NextError, WeightsError
from pix2next.model.domain import DOMAIN
from pix2next.model.domain_fit import fit_domain
from pix2next.model.pix2next import Pix2Next, load_model


def statistics(run: str, training: Path | None, held_out: Path | None) -> str:
    """What the training pictures are like, as text.

    Raises: ConfigError, WeightsError or ImageError, as `fit_domain`, or where one of the folders is not named.
    """
    if training is None or held_out is None:
        raise ConfigError("--training and --held-out belong together: give both, or neither")
    model = load_model(run)
    if not isinstance(model, Pix2Next):
        raise WeightsError(f"{run} is no network of ours, and others do not ship")
    return fit_domain(model, training, held_out).to_metadata()


def main(
    run: Annotated[str, typer.Argument(help="A run's folder, or a checkpoint of ours.")],
    name: Annotated[str, typer.Argument(help="What the checkpoint will be called; its card is docs/models/NAME.md.")],
    domain: Annotated[str, typer.Option(help="The pictures it is for, in a phrase.")],
    licence: Annotated[str, typer.Option(help="Of the weights.")],
    data: Annotated[str, typer.Option(help="What it was trained on, with the source to name.")],
    data_terms: Annotated[str, typer.Option(help="On which terms the data are to be had.")],
    vfm: Annotated[str, typer.Option(help="The vision foundation model, and the terms of its first weights.")],
    scores: Annotated[Path, typer.Option(help="The scores.json of pix2next evaluate on the test split.")],
    training: Annotated[
        Path | None, typer.Option(help="The RGB pictures it was trained on: it will warn of others. With --held-out.")
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option(help="RGB pictures of the same kind, from other places than those.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Another folder than the package's weights.")] = None,
) -> None:
    """Write a run's best checkpoint in fp16, checked and with its card, to where shipped ones lie."""
    texts = {"domain": domain, "licence": licence, "data": data, "data_terms": data_terms, "vfm": vfm}
    try:
        more = {DOMAIN: statistics(run, training, held_out)} if training or held_out else {}
        card = Card(name=name, card=f"docs/models/{name}.md", scores=read_scores(scores), **texts)
        shipped = ship(run, (out or weights_folder()) / f"{name}.safetensors", card, more)
    except (Pix2NextError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(f"{shipped.path}: {shipped.bytes / MEGABYTE:.1f} MB")
    typer.echo(
        f"fp16 changes a picture by {shipped.mean_difference:.3f} levels of 8 bits on average, "
        f"{shipped.greatest_difference:.2f} at most"
    )


if __name__ == "__main__":
    typer.run(main)
