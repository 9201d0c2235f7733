"""Pictures in, pictures out."""

import sys
from pathlib import Path
from typing import Annotated, TextIO

import typer

from pix2next.cli.program import (
    DEFAULT_MODEL,
    STREAM,
    Device,
    Json,
    Model,
    OutFormat,
    Quality,
    Range,
    Views,
    Warn,
    app,
    console,
)
from pix2next.cli.telling import listener, show, show_plan
from pix2next.errors import ConfigError


@app.command()
def translate(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Pictures, globs or folders; - is standard input.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="A folder, or a file for a single picture; - is standard output.")
    ],
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
    tile: Annotated[int | None, typer.Option(min=1, help="Side of a tile; chosen by itself if not given.")] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Tiles, or pictures of one size, that go through the network at once.")
    ] = 1,
    views: Views = None,
    value_range: Range = None,
    suffix: Annotated[str, typer.Option(help="Comes between name and ending: _nir makes a_nir.jpg of a.jpg.")] = "",
    out_format: OutFormat = None,
    quality: Quality = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite/--skip-existing", help="What happens to pictures that are there already.")
    ] = True,
    watch: Annotated[bool, typer.Option("--watch", help="Go on with what comes or changes, until Ctrl-C.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell how much it is and about how long.")] = False,
    warn: Warn = True,
    json: Json = False,
) -> None:
    """Make NIR pictures of RGB ones; folders keep their tree and names."""
    from pix2next.apps import bulk, streams
    from pix2next.apps import watch as watching
    from pix2next.apps.jobs import Output
    from pix2next.translate import Translator

    output = Output(suffix, out_format.lower().removeprefix(".") if out_format else None, quality, overwrite)
    streaming = STREAM in (str(out), *inputs)
    _refuse_contradictions(inputs, out, streaming=streaming, watch=watch, dry_run=dry_run)
    translator = Translator.from_pretrained(
        model, device=device, tile=tile, batch_size=batch_size, value_range=value_range, views=views
    )
    if not warn:
        translator.domain = None
    if dry_run:
        from pix2next.apps.estimate import dry_run as estimate

        plan, failed = estimate(inputs, out, translator, output, batch_size=batch_size)
        show_plan(plan, failed, json=json)
        raise typer.Exit(1 if failed else 0)
    with listener(model, json=json, watch=watch, to_stdout=str(out) == STREAM) as on_event:
        if streaming:
            result = streams.translate_stream(
                inputs[0],
                str(out),
                translator,
                output,
                read=sys.stdin.buffer.read,
                write=write_picture,
                on_event=on_event,
            )
        else:
            run = watching.watch_pictures if watch else bulk.translate_pictures
            result = run(inputs, out, translator, output, batch_size=batch_size, on_event=on_event)
    if not json:
        show(result, out, model, told=watch)
    if result.failed:
        raise typer.Exit(1)


def _refuse_contradictions(inputs: list[str], out: Path, *, streaming: bool, watch: bool, dry_run: bool) -> None:
    if watch and dry_run:
        raise ConfigError(
            "--watch never knows how much is to come, so there is no --dry-run of it; leave out one of them"
        )
    if not streaming:
        return
    if watch or dry_run:
        raise ConfigError(f"{'--watch' if watch else '--dry-run'} is for folders and files; - is a single picture")
    if len(inputs) > 1:
        raise ConfigError(
            f"- is a single picture, but {len(inputs)} inputs came; give one, and a folder to write many to"
        )
    if inputs[0] == STREAM and (where := nowhere(sys.stdin)):
        raise ConfigError(
            f"standard input is {where}; send a picture into it, as in: pix2next translate - -o nir.png < a.jpg"
        )
    if str(out) == STREAM and (where := nowhere(sys.stdout)):
        raise ConfigError(f"standard output is {where}; send the picture into a file or another program")


def nowhere(stream: TextIO | None) -> str | None:
    """What there is instead of a file or another program at the other end."""
    if stream is None:  # As `<&-` and `>&-` leave it.
        return "closed"
    return "a terminal" if stream.isatty() else None


def write_picture(data: bytes) -> None:
    """To standard output, whatever it is connected to. Raises: OSError."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture to write.")] = Path("demo.png"),
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
) -> None:
    """Translate the photo that comes along; RGB and NIR side by side."""
    from pix2next.apps.demo import write_demo

    write_demo(out, model=model, device=device)
    console.print(f"RGB and NIR side by side: {out.resolve()}", markup=False, soft_wrap=True, highlight=False)
