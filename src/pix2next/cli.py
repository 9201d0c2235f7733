"""The verbs of the command line: each parses, makes one call and shows what came back.

An error that a user can cause becomes one sentence on stderr and exit status 2; 1 means that some pictures failed,
130 that the run was interrupted. Whatever is slow to import is imported by the verb that needs it.
"""

import json
import logging
from collections.abc import Iterator, Mapping
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
Metrics = Annotated[
    str | None, typer.Option(metavar="A,B,C", help="Names of metrics, as psnr,ms-ssim,fid; an unknown one lists them.")
]
Protocol = Annotated[str, typer.Option(help="standard, paper-256 or released (its mistakes kept).")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out pictures that cannot be scored, and say which.")]


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
    init_from: Annotated[
        str | None, typer.Option(help="Start from a model's weights, which must all fit: train.init_from.")
    ] = None,
) -> None:
    """Train a network on RGB-NIR pairs."""
    from pix2next.config import load_config

    settings = load_config(
        config,
        [*(changes or []), *([f"train.init_from={json.dumps(init_from, ensure_ascii=False)}"] if init_from else [])],
    )
    from pix2next.train import loop

    best = loop.train(settings, out, resume=resume)
    messages.print(f"weights: {best}", markup=False)


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
    with _progress("preparing") as on_progress:
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

    with _progress("inspecting") as on_progress:
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


@app.command()
def evaluate(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for scores.json, scores.csv, report.md, .html.")],
    model: Annotated[str | None, typer.Option(help="With --data: the model that makes the pictures.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="With --model: a folder with rgb/ and nir/, or with test/rgb/ and test/nir/.")
    ] = None,
    fake: Annotated[Path | None, typer.Option(help="With --nir: a folder of pictures made elsewhere.")] = None,
    nir: Annotated[Path | None, typer.Option(help="With --fake: the true NIR pictures.")] = None,
    rgb: Annotated[Path | None, typer.Option(help="With --fake: the RGB ones, for the baselines.")] = None,
    metrics: Metrics = None,
    protocol: Protocol = "standard",
    skip_bad: SkipBad = False,
    device: Device = "auto",
) -> None:
    """Score NIR pictures against the truth, the trivial baselines beside them."""
    from pix2next.evaluate import report

    how = _how_to_score(metrics, protocol, device, skip_bad)
    if model and data and not (fake or nir or rgb):
        from pix2next.translate import Translator

        translator = Translator.from_pretrained(model, device=device)
        with _progress("scoring") as on_progress:
            name = Path(model).name or Path(model).resolve().name
            scores = report.evaluate_model(translator, data, out, name=name, on_progress=on_progress, **how)
    elif fake and nir and not (model or data):
        with _progress("scoring") as on_progress:
            scores = report.evaluate_folders(fake, nir, out, rgb=rgb, on_progress=on_progress, **how)
    else:
        raise ConfigError("evaluate takes either --model and --data, or --fake and --nir (and --rgb)")
    _show_scores({"": scores}, out)


@app.command()
def compare(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="[NAME=]SOURCE...", help="Models, and folders of pictures that other tools made."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for scores.json, scores.csv, report.md, .html.")],
    data: Annotated[
        Path | None, typer.Option(help="A folder with rgb/ and nir/, or with test/rgb/ and test/nir/.")
    ] = None,
    nir: Annotated[Path | None, typer.Option(help="Instead of --data: the true NIR pictures.")] = None,
    rgb: Annotated[Path | None, typer.Option(help="With --nir: the RGB ones; else the folder rgb beside it.")] = None,
    metrics: Metrics = None,
    protocol: Protocol = "standard",
    skip_bad: SkipBad = False,
    device: Device = "auto",
) -> None:
    """Score several models and folders on the same pictures, every trivial baseline beside; tests against the first."""
    from pix2next.evaluate import compare as comparison

    how = _how_to_score(metrics, protocol, device, skip_bad)
    named = comparison.named_competitors(sources, device)
    with _progress("scoring") as on_progress:
        scores = comparison.compare(named, out, data=data, nir=nir, rgb=rgb, on_progress=on_progress, **how)
    _show_scores({"": scores}, out)


@app.command()
def matrix(
    models: Annotated[list[str], typer.Argument(metavar="[NAME=]MODEL...", help="Models, as translate takes them.")],
    data: Annotated[
        list[str], typer.Option(metavar="NAME=DIR", help="A data set, once for each; its split test is scored.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for matrix.json, .md, .html and each set's report.")],
    metrics: Metrics = None,
    protocol: Protocol = "standard",
    skip_bad: SkipBad = False,
    device: Device = "auto",
) -> None:
    """Score every model on every data set, also on those that it was not trained on."""
    from pix2next.evaluate import compare as comparison
    from pix2next.evaluate.matrix import score_matrix

    how = _how_to_score(metrics, protocol, device, skip_bad)
    sets = comparison.named_folders(data)
    named = comparison.named_competitors(models, device)
    scores = score_matrix(named, sets, out, progress_of=_progress, **how)
    _show_scores(scores, out)


def _how_to_score(metrics: str | None, protocol: str, device: str, skip_bad: bool) -> dict[str, Any]:
    from pix2next.evaluate.metrics import DEFAULT_METRICS

    names = [name.strip().lower() for name in metrics.split(",")] if metrics else DEFAULT_METRICS
    return {"metrics": names, "protocol": protocol, "device": device, "skip_bad": skip_bad}


def _show_scores(every: Mapping[str, Any], out: Path) -> None:
    """The tables, where the reports are, and what was left out; that has its own exit status."""
    from pix2next.evaluate.tables import scores_table

    left_out = []
    for name, scores in every.items():
        console.print(scores_table(scores, of=name))
        left_out += scores.left_out
    for _, reason in left_out:
        messages.print("left out:", reason, markup=False)
    messages.print(f"reports: {out}", markup=False)
    if left_out:
        raise typer.Exit(1)


@app.command()
def benchmark(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Models, or configs to build untrained.")
    ] = None,
    sizes: Annotated[
        str, typer.Option("--sizes", "--size", metavar="N,N", help="Sides of the square pictures, as 256,512,1024.")
    ] = "256",
    batch_sizes: Annotated[str, typer.Option(metavar="N,N", help="Pictures that go through at once.")] = "1",
    modes: Annotated[str, typer.Option(metavar="A,B", help="eager, bf16, compiled, compiled+bf16.")] = "eager",
    passes: Annotated[
        str, typer.Option(metavar="A,B", help="forward, training (steps of G and D on noise).")
    ] = "forward",
    repeats: Annotated[int, typer.Option(min=0, help="Rounds; two of what takes long; 0 only counts.")] = 20,
    longest: Annotated[
        float | None,
        typer.Option(min=0, help="Leave out what would take more seconds a pass, judging by smaller sizes."),
    ] = None,
    threads: Threads = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps ...")] = "cpu",
    compare: Annotated[
        bool, typer.Option(help="Measure the released architecture too: 316 M parameters, 2.5 GB of memory.")
    ] = True,
    memory: Annotated[bool, typer.Option(help="Peak memory; on a CPU each time in a process of its own.")] = True,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A JSON file for the numbers.")] = None,
    plot: Annotated[Path | None, typer.Option(help="An SVG file for a picture of them.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="A page for the tables, between marks if it has them.")] = None,
    training: Annotated[
        bool,
        typer.Option("--training", help="Instead: time training steps of configs on pairs, --repeats in each turn."),
    ] = False,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="With --training: as data.root=pairs.")
    ] = None,
) -> None:
    """Parameters, operations, memory and time of models, in turns in one run."""
    if training or changes:
        _benchmark_training(models or [], changes or [], repeats, threads, out, training=training)
        return
    from pix2next.apps import costs
    from pix2next.apps.cost_report import benchmark_and_write
    from pix2next.evaluate.efficiency import benchmark_table

    grid = costs.grid(sizes, batch_sizes, modes, passes, rounds=repeats, longest=longest, memory=memory)
    files: dict[str, Any] = {"out": out, "picture": plot, "page": markdown}
    where: dict[str, Any] = {"device": device, "threads": threads, "compare": compare}
    with _progress("measuring") as on_progress:
        rows = benchmark_and_write(models or [DEFAULT_MODEL], grid, on_progress=on_progress, **files, **where)
    console.print(benchmark_table(rows))
    if all(row.failed for row in rows):
        raise typer.Exit(1)


def _benchmark_training(
    names: list[str], changes: list[str], steps: int, threads: int | None, out: Path | None, *, training: bool
) -> None:
    if not (training and names):
        raise ConfigError("benchmark --training takes configs, and --set goes with it")
    from pix2next.config import load_config
    from pix2next.train import speed

    configs = {name: load_config(Path(name), changes) for name in names}
    with _progress("timing") as on_progress:
        speeds = speed.training_speeds(configs, steps=steps, threads=threads, on_progress=on_progress)
    if out:
        speed.write_speeds(speeds, out)
    console.print(speed.speeds_table(speeds))


@app.command()
def ablate(
    configs: Annotated[list[Path], typer.Argument(metavar="CONFIG...", help="YAML files; their stems name the rows.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The study's folder; one that began before goes on.")],
    budget: Annotated[float | None, typer.Option(help="Minutes of training, all runs together.")] = None,
    samples: Annotated[int | None, typer.Option(help="Instead of --budget: crops that each is trained on.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting for all, as data.root=pairs.")
    ] = None,
    split: Annotated[str, typer.Option(help="What is scored: val or test.")] = "val",
    seeds: Annotated[str, typer.Option(help="Numbers added to each config's train.seed, as 0,1,2.")] = "0",
    reference: Annotated[str | None, typer.Option(help="What the others are compared with; else the first.")] = None,
    device: Device = "auto",
) -> None:
    """Train networks on the same samples, score them together, and write one table with intervals."""
    from pix2next.apps import ablate as study
    from pix2next.apps.ablation_report import REPORT

    study.ablate(
        configs,
        out,
        budget=budget,
        samples=samples,
        changes=changes or [],
        split=split,
        seeds=_numbers(seeds),
        reference=reference,
        device=device,
        say=_say,
    )
    messages.print(f"the table: {out / REPORT}", markup=False)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--seeds {text}: expected whole numbers with commas between them") from None


def _say(text: str) -> None:
    messages.print(text, markup=False)


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
    # Into a file or a pipe even a bar that never moved would leave an empty line.
    with Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
