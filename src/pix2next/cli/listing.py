"""Which checkpoints there are."""

from dataclasses import replace
from typing import Annotated

import typer

from pix2next.cli.program import app, console


@app.command()
def models(
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Further checkpoints of ours, or runs' folders.")
    ] = None,
    count: Annotated[
        bool, typer.Option("--count", help="Build networks to count what their cards do not say of their cost.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One line of JSON a checkpoint, for other programs.")] = False,
) -> None:
    """List the checkpoints that ship: what each is for, its cost, scores and terms."""
    from pix2next.apps import models as listing

    found = listing.list_models(more or ())
    if count:
        from pix2next.apps.ship import with_cost

        found = [replace(model, card=with_cost(model.card, model.path)) for model in found]
    if json:
        for model in found:
            typer.echo(listing.as_json(model))
    elif console.is_terminal:
        console.print(listing.models_table(found))
    else:
        typer.echo(listing.as_text(found))
