"""GeoTIFFs and other rasters."""

import logging
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from pix2next.cli.program import DEFAULT_MODEL, Device, Model, Views, app, progress, say
from pix2next.errors import ConfigError


@app.command("translate-raster")
def translate_raster(
    src: Annotated[str, typer.Argument(metavar="SRC", help="A GeoTIFF or another raster, or a folder of them.")],
    dst: Annotated[Path, typer.Argument(metavar="DST", help="The GeoTIFF to write, or a folder.")],
    output: Annotated[
        str, typer.Option(help="nir, rgbnir (the colours and NIR) or ndvi; what is made is named synthetic.")
    ] = "nir",
    bands: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Red, green and blue, counted from 1; else as the file says.")
    ] = None,
    value_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--range",
            metavar="LOW HIGH",
            help="Stored values that mean black and white, as 0 10000; else what the file, or its depth, says.",
        ),
    ] = None,
    cog: Annotated[
        bool | None, typer.Option("--cog/--no-cog", help="Cloud-optimised or not; as SRC is if not given.")
    ] = None,
    compress: Annotated[str, typer.Option(help="deflate, lzw, zstd or none; all without loss.")] = "deflate",
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
    tile: Annotated[int | None, typer.Option(min=1, help="Side of a tile; chosen by itself if not given.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Tiles that go through the network at once.")] = 1,
    views: Views = None,
) -> None:
    """Make NIR or NDVI rasters of RGB ones of any size; georeference, nodata, masks and tags are kept."""
    from pix2next.apps import rasters
    from pix2next.translate import Translator

    # What GDAL has to say reaches the user within our own sentence.
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)
    translator = Translator.from_pretrained(model, device=device, tile=tile, batch_size=batch_size, views=views)
    options: dict[str, Any] = {
        "bands": None if bands is None else _numbers(bands),
        "value_range": value_range,
        "output": output,
        "cog": cog,
        "compress": compress,
        "model": model,
    }
    failed: list[tuple[str, str]] = []
    with progress("translating") as on_progress:
        if os.path.isdir(src):
            failed = rasters.translate_rasters(Path(src), dst, translator, on_progress=on_progress, **options).failed
        else:
            dst = dst / Path(src).with_suffix(".tif").name if dst.is_dir() else dst
            rasters.translate_raster(src, dst, translator, on_progress=on_progress, **options)
    for _, reason in failed:
        say(f"skipped: {reason}")
    say(f"written to {dst}" + (f", {len(failed)} skipped" if failed else ""))
    if failed:
        raise typer.Exit(1)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--bands {text}: expected numbers with commas between them, as 1,2,3") from None
