"""How good networks are, and what they cost."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pix2next.cli.program import DEFAULT_MODEL, Device, Model, Threads, Views, app, console, messages, progress
from pix2next.errors import ConfigError

Metrics = Annotated[
    str | None, typer.Option(metavar="A,B,C", help="Names of metrics, as psnr,ms-ssim,fid; an unknown one lists them.")
]
Protocol = Annotated[str, typer.Option(help="standard, paper-256 or released (its mistakes kept).")]
Reports = Annotated[Path, typer.Option("--out", "-o", help="Folder for scores.json, scores.csv, report.md, .html.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out pictures that cannot be scored, and say which.")]


@app.command()
def evaluate(
    out: Reports,
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
    views: Views = None,
) -> None:
    """Score NIR pictures against the truth, the trivial baselines beside them."""
    from pix2next.evaluate import report

    how = _how_to_score(metrics, protocol, device, skip_bad)
    if model and data and not (fake or nir or rgb):
        from pix2next.translate import Translator

        translator = Translator.from_pretrained(model, device=device, views=views)
        with progress("scoring") as on_progress:
            name = Path(model).name or Path(model).resolve().name
            scores = report.evaluate_model(translator, data, out, name=name, on_progress=on_progress, **how)
    elif fake and nir and not (model or data):
        with progress("scoring") as on_progress:
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
    out: Reports,
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
    with progress("scoring") as on_progress:
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
    scores = score_matrix(named, sets, out, progress_of=progress, **how)
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
def regions(
    file: Annotated[
        Path, typer.Option("--regions", help="A CSV of boxes: picture,class,left,top,right,bottom and perhaps scene.")
    ],
    data: Annotated[Path, typer.Option(help="A folder with rgb/ and nir/, or with test/rgb/ and test/nir/.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for regions.json and regions.md.")],
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
) -> None:
    """Is it just inverted grey? Levels over regions of known material: made, true, luma, linear map."""
    from rich.markdown import Markdown

    from pix2next.evaluate.region_report import write_findings
    from pix2next.evaluate.regions import measure_regions
    from pix2next.evaluate.report import check_out
    from pix2next.translate import Translator

    check_out(out)
    translator = Translator.from_pretrained(model, device=device)
    with progress("measuring") as on_progress:
        measured = measure_regions(
            translator, data, file, name=Path(model).name or Path(model).resolve().name, on_progress=on_progress
        )
    console.print(Markdown(write_findings(measured, out)))
    messages.print(f"reports: {out}", markup=False)


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
    with progress("measuring") as on_progress:
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
    with progress("timing") as on_progress:
        speeds, facts = speed.training_speeds(configs, steps=steps, threads=threads, on_progress=on_progress)
    if out:
        speed.write_speeds(speeds, facts, out)
    console.print(speed.speeds_table(speeds))
