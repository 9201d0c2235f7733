"""How a run over many pictures shows: as a bar, in lines, or in JSON for other programs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.filesize import decimal

from pix2next.cli.program import STREAM, progress, say

if TYPE_CHECKING:
    from pix2next.apps.bulk import BulkResult
    from pix2next.apps.events import Event, OnEvent, Plan, Unlike

IN_WHAT = {"content": "in what it shows", "look": "in colour, light or sharpness"}


@contextmanager
def listener(model: str, *, json: bool, watch: bool, to_stdout: bool) -> Iterator["OnEvent"]:
    """Tells what happens: in JSON (on stderr where standard output is the picture's), in lines, or with a bar."""
    from pix2next.apps.events import as_json

    if json:
        yield lambda event: typer.echo(as_json(event), err=to_stdout)
    elif watch:
        yield partial(_say_what_happens, model=model)
    else:
        with progress("translating") as on_progress:
            yield _counter(on_progress)


def _counter(on_progress: Callable[[int, int | None], None]) -> "OnEvent":
    from pix2next.apps.events import Done, Existing, Failed, Start

    through, total = 0, None

    def count(event: "Event") -> None:
        nonlocal through, total
        match event:
            case Start():
                total = event.total
            case Done() | Existing() | Failed(target=str()):
                through += 1
        on_progress(through, total)

    return count


def _say_what_happens(event: "Event", *, model: str) -> None:
    from pix2next.apps.events import Done, Failed, Start, Unlike

    match event:
        case Start(_, out):
            say(f"watching; pictures that come or change are written to {out}, and Ctrl-C ends it")
        case Done(_, target, _, _, seconds):
            say(f"written: {target} ({seconds:.2f} s)")
        case Unlike():
            say(unlike_sentence([event], 1, model))
        case Failed(_, _, reason):
            say(f"skipped: {reason}")


def show(result: "BulkResult", out: Path, model: str, *, told: bool) -> None:
    """What was left out and what to distrust, unless it has been told already, and how many pictures were written."""
    for _, reason in [] if told else result.failed:
        say(f"skipped: {reason}")
    if result.unlike and not told:
        say(unlike_sentence(result.unlike, result.done, model))
    if str(out) != STREAM:
        existing = f", {result.existing} already there" if result.existing else ""
        say(f"{result.done} written to {out}, {len(result.failed)} skipped{existing}")


def unlike_sentence(unlike: list["Unlike"], done: int, model: str) -> str:
    """A warning of pictures, among `done` ones, that the model was not made for."""
    farthest = max(unlike, key=lambda event: event.distance)
    name = "standard input" if farthest.path == STREAM else farthest.path
    if len(unlike) == 1:
        return (
            f"warning: {name} is unlike the pictures that {model} was trained on, above all {IN_WHAT[farthest.part]} "
            f"(distance {farthest.distance:.2f}; 95 % of pictures like them stay below 1): do not trust its tones"
        )
    return (
        f"warning: {len(unlike)} of {done} pictures are unlike those that {model} was trained on (farthest: {name}, "
        f"distance {farthest.distance:.2f}; of pictures like them 5 % come out as unlike, too): "
        "do not trust their tones"
    )


def show_plan(plan: "Plan", failed: list[tuple[str, str]], *, json: bool) -> None:
    """What a dry run found."""
    from pix2next.apps.events import Failed, as_json

    if json:
        for path, reason in failed:
            typer.echo(as_json(Failed(path, None, reason)))
        typer.echo(as_json(plan))
        return
    for _, reason in failed:
        say(f"skipped: {reason}")
    left_out = f"{plan.existing} already there, {plan.failed} skipped"
    size = f"{plan.pixels / 1e6:.1f} megapixels, {decimal(plan.bytes)}"
    typer.echo(f"{plan.total} to translate ({size}), {left_out}")
    if plan.estimated_seconds is not None:
        typer.echo(f"about {_span(plan.estimated_seconds)}: an estimate, for the network alone, from {plan.sample}")


def _span(seconds: float) -> str:
    """In the unit that people would use: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
