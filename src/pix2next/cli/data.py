"""Pairs to learn from: bring them into one layout, and look through them."""

from pathlib import Path
from typing import Annotated

import typer

from pix2next.cli.program import app, console, messages, progress
from pix2next.errors import ConfigError


@app.command()
def prepare(
    name: Annotated[str | None, typer.Argument(help="A data set of the catalog; without one, all are listed.")] = None,
    src: Annotated[Path | None, typer.Argument(help="The data set as it is published, unpacked.")] = None,
    dst: Annotated[Path | None, typer.Argument(help="A new folder for {train,val,test}/{rgb,nir}.")] = None,
    about: Annotated[bool, typer.Option("--about", help="How NAME is obtained, its terms and layout.")] = False,
    catalog: Annotated[bool, typer.Option("--list", help="List the catalog.")] = False,
    splits: Annotated[str | None, typer.Option(help="Shares of train, val and test, as 80,10,10.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the drawn split; 0 if not given.")] = None,
    bands: Annotated[str | None, typer.Option(help="Where R, G, B and NIR stand in a raster, as 1,2,3,4.")] = None,
    left: Annotated[str | None, typer.Option(help="The left half of ab pictures: rgb or nir.")] = None,
    place: Annotated[str | None, typer.Option(help="Regular expression; its groups name the place of a file.")] = None,
) -> None:
    """Convert a public data set, split by place, into pairs to train on."""
    from pix2next.data import catalog as known

    if catalog or name is None:
        console.print(known.catalog_table())
        return
    entry = known.dataset(name)
    if about:
        console.print(known.about(entry), markup=False, soft_wrap=True, highlight=False)
        return
    if src is None or dst is None:
        raise ConfigError(f"prepare {name} takes the folder it lies in and a new folder; --about says how to obtain it")
    from pix2next.data.prepare import prepare as convert

    options = known.options(splits=splits, seed=seed, bands=bands, left=left, place=place)
    with progress("preparing") as on_progress:
        result = convert(name, src, dst, options, on_progress=on_progress)
    for note in result.notes:
        messages.print("note:", note, markup=False)
    for _, reason in result.failed:
        messages.print("left out:", reason, markup=False)
    counts = ", ".join(f"{count} {split}" for split, count in result.counts.items())
    messages.print(f"{counts} pairs in {dst}, {len(result.failed)} left out; terms: {entry.terms}", markup=False)
    if result.failed:
        raise typer.Exit(1)


@app.command()
def inspect(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder with rgb/ and nir/, or with such splits.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for inspect.json and worst.png.")] = None,
) -> None:
    """Look through pairs: missing, broken or doubled pictures, and how well RGB and NIR lie on one another."""
    from pix2next.data import report as reports
    from pix2next.data.inspect import inspect_pairs

    with progress("inspecting") as on_progress:
        report = inspect_pairs(folder, on_progress=on_progress)
    if out:
        reports.write_report(report, out)
        messages.print(f"report and contact sheet: {out}", markup=False)
    console.print(reports.summary_table(report))
    console.print(reports.worst_table(report))
    for line in reports.findings(report):
        console.print(line, markup=False, soft_wrap=True, highlight=False)
    if not report.whole:
        raise typer.Exit(1)
