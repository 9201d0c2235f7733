"""The verbs of the command line: each parses, makes one call and shows what came back.

An error that a user can cause becomes one sentence on stderr and exit status 2; 1 means that some pictures failed,
130 that the run was interrupted. Whatever is slow to import is imported by the verb that needs it.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from typer.core import TyperGroup

from pix2next.errors import ConfigError, Pix2NextError

DEFAULT_MODEL = "tiny-outdoor"

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
            where = f"{error.filename}: " if error.filename is not None else ""
            messages.print(f"error: {where}{error.strerror or error}", markup=False)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            messages.print("interrupted", markup=False)
            raise typer.Exit(130) from None


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
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; torch's choice if not given.")]


@app.command()
def translate(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Pictures, globs or folders.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A folder, or a file for a single picture.")],
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
    tile: Annotated[int | None, typer.Option(min=1, help="Side of a tile; chosen by itself if not given.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Tiles that go through the network at once.")] = 1,
) -> None:
    """Make NIR pictures of RGB ones; folders keep their tree and names."""
    from pix2next.apps.bulk import translate_pictures
    from pix2next.translate import Translator

    translator = Translator.from_pretrained(model, device=device, tile=tile, batch_size=batch_size)
    with _progress("translating") as on_progress:
        result = translate_pictures(inputs, out, translator, on_progress=on_progress)
    for path, reason in result.failed:
        messages.print("skipped:", reason if path in reason else f"{path}: {reason}", markup=False)
    messages.print(f"{result.done} written to {out}, {len(result.failed)} skipped", markup=False)
    if result.failed:
        raise typer.Exit(1)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A YAML file, such as configs/tiny-outdoor.yaml.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The run's folder: checkpoints, log and samples.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting, as data.root=pictures.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
) -> None:
    """Train a network on RGB-NIR pairs."""
    from pix2next.config import load_config

    settings = load_config(config, changes or [])
    from pix2next.train import loop

    best = loop.train(settings, out, resume=resume)
    messages.print(f"weights: {best}", markup=False)


@app.command()
def evaluate(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for scores.json.")],
    model: Annotated[str | None, typer.Option(help="With --data: the model that makes the pictures.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="With --model: a folder with rgb/ and nir/, or with test/rgb/ and test/nir/.")
    ] = None,
    fake: Annotated[Path | None, typer.Option(help="With --nir: a folder of pictures made elsewhere.")] = None,
    nir: Annotated[Path | None, typer.Option(help="With --fake: the true NIR pictures.")] = None,
    rgb: Annotated[Path | None, typer.Option(help="With --fake: the RGB ones, for the baselines.")] = None,
    device: Device = "auto",
) -> None:
    """Score NIR pictures against the truth, the trivial baselines beside them."""
    from pix2next.evaluate import report

    if model and data and not (fake or nir or rgb):
        from pix2next.translate import Translator

        translator = Translator.from_pretrained(model, device=device)
        with _progress("scoring") as on_progress:
            scores = report.evaluate_model(translator, data, out, name=Path(model).name, on_progress=on_progress)
    elif fake and nir and not (model or data):
        with _progress("scoring") as on_progress:
            scores = report.evaluate_folders(fake, nir, out, rgb=rgb, on_progress=on_progress)
    else:
        raise ConfigError("evaluate takes either --model and --data, or --fake and --nir (and --rgb)")
    console.print(report.scores_table(scores))


@app.command()
def benchmark(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Models, or configs to build untrained.")
    ] = None,
    size: Annotated[int, typer.Option(min=1, help="Side of the square picture.")] = 256,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; the released architecture takes part in two.")] = 20,
    threads: Threads = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps ...")] = "cpu",
    compare: Annotated[
        bool, typer.Option(help="Time the released architecture too: 316 M parameters, 2.5 GB of memory.")
    ] = True,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A JSON file for the numbers.")] = None,
) -> None:
    """Parameters, operations and time of models, in turns in one run."""
    from pix2next.evaluate import efficiency

    rows = efficiency.benchmark(models or [DEFAULT_MODEL], size, repeats, threads, device, compare)
    if out:
        efficiency.write_benchmark(rows, out)
    console.print(efficiency.benchmark_table(rows))


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


@contextmanager
def _progress(what: str) -> Iterator[Any]:
    """A bar on stderr; gives the function to call with how many are done of how many."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=messages, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
