"""A video in, its NIR out."""

from pathlib import Path
from typing import Annotated

import typer

from pix2next.cli.program import DEFAULT_MODEL, Device, Model, Views, app, messages, progress


@app.command("translate-video")
def translate_video(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A video.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="The video to write: .mp4, .m4v, .mov, .mkv, .webm.")],
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
    tile: Annotated[int | None, typer.Option(min=1, help="Side of a tile; chosen by itself if not given.")] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Frames, or tiles of one, at once; 1 on a CPU and 8 elsewhere if not given."),
    ] = None,
    views: Views = None,
    codec: Annotated[
        str | None, typer.Option(help="h264, h265, av1 or ffv1 (nothing lost); h264 if not given.")
    ] = None,
    bits: Annotated[int, typer.Option(help="8 or 10.")] = 8,
    quality: Annotated[int | None, typer.Option(help="The codec's CRF: 0 is best; 18 for h264 if not given.")] = None,
    preset: Annotated[str | None, typer.Option(help="The encoder's preset, as slow or fast.")] = None,
    segment: Annotated[float, typer.Option(help="Seconds of video that a killed run loses at most.")] = 10.0,
    sound: Annotated[bool, typer.Option(help="Copy the sound.")] = True,
    force: Annotated[bool, typer.Option(help="Begin anew where another run left segments.")] = False,
) -> None:
    """Make a NIR video of an RGB one; rate, length and sound stay."""
    from dataclasses import replace

    from pix2next.apps.local_engine import Settings
    from pix2next.apps.video.translating import default_encoding
    from pix2next.apps.video.translating import translate_video as translate

    encoding = default_encoding(target)
    encoding = replace(encoding, codec=codec or encoding.codec, bits=bits, quality=quality, preset=preset)
    encoding.check()
    translator = Settings(model, device, tile, batch_size, views=views).translator()
    with progress("translating frames") as on_progress:
        result = translate(
            source,
            target,
            translator,
            encoding=encoding,
            segment_seconds=segment,
            sound=sound,
            force=force,
            on_progress=on_progress,
        )
    for sentence in result.notes:
        messages.print("note:", sentence, markup=False)
    for sentence in result.damage:
        messages.print(f"damaged: {source}: {sentence}", markup=False)
    messages.print(f"{result.frames} frames, {result.seconds:.2f} s, written to {target}", markup=False)
    if result.damage:
        raise typer.Exit(1)
