"""The program itself: errors into exit statuses, what is shown and where, and the options that several verbs share."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from typer.core import TyperGroup

from pix2next.errors import Pix2NextError

DEFAULT_MODEL = "tiny-outdoor"
STREAM = "-"
"""What stands for standard input and standard output."""

console = Console()
messages = Console(stderr=True, soft_wrap=True, highlight=False)


class Verbs(TyperGroup):
    """Turns errors into one sentence and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; `ctx` is the context that typer hands on."""
        logging.basicConfig(
            level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=messages, show_path=False)]
        )
        try:
            return super().invoke(ctx)
        except Pix2NextError as error:
            messages.print(f"error: {error}", markup=False)
            raise typer.Exit(2) from None
        except OSError as error:
            forget_unwritten()
            where = f"{error.filename}: " if error.filename is not None else ""
            messages.print(f"error: {where}{error.strerror or error}", markup=False)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            messages.print("interrupted", markup=False)
            raise typer.Exit(130) from None


def forget_unwritten() -> None:
    """Drop what standard output cannot take (a closed pipe, a full disk); Python would fail once more at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    name="pix2next",
    cls=Verbs,
    help="RGB photographs to near-infrared pictures: translate, train, evaluate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Model = Annotated[
    str,
    typer.Option(help="A shipped model's name, a checkpoint (ours or a released .pt), a run's folder or OWNER/NAME."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")]
Views = Annotated[
    int | None,
    typer.Option(min=1, max=4, help="Views of a picture that are averaged, a pass each; the model's own if not given."),
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; torch's choice if not given.")]
Range = Annotated[
    tuple[float, float] | None,
    typer.Option(
        "--range",
        metavar="LOW HIGH",
        help="Pixel values that mean black and white; 0 and the full scale of each depth if not given.",
    ),
]
OutFormat = Annotated[
    str | None, typer.Option(metavar="png|tif|jpg|...", help="Format of the results; each picture's own if not given.")
]
Quality = Annotated[
    int | None, typer.Option(min=1, max=100, help="Of JPEG (95 if not given) and WebP (lossless if not given).")
]
Json = Annotated[bool, typer.Option("--json", help="One line of JSON for everything that happens, for other programs.")]
Warn = Annotated[
    bool, typer.Option("--warn/--no-warn", help="Tell of pictures that are unlike those the model was trained on.")
]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting, as data.root=pairs.")
]


@contextmanager
def progress(what: str) -> Iterator[Any]:
    """A bar on stderr; gives the function to call with how many are done of how many."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Into a file or a pipe even a bar that never moved would leave an empty line.
    with Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def say(text: str) -> None:
    """A line on stderr, as it is."""
    messages.print(text, markup=False)
