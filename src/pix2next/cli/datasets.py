"""Data sets in, data sets out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pix2next.cli.program import (
    DEFAULT_MODEL,
    Device,
    Json,
    Model,
    OutFormat,
    Quality,
    Range,
    Threads,
    Views,
    Warn,
    app,
    console,
    progress,
)
from pix2next.cli.telling import listener, show
from pix2next.errors import ConfigError

if TYPE_CHECKING:
    from pix2next.apps.datasets import Cluster
    from pix2next.apps.local_engine import Settings

Tile = Annotated[int | None, typer.Option(min=1, help="Side of a tile; chosen by itself if not given.")]
BatchSize = Annotated[
    int | None, typer.Option(min=1, help="Pictures, or tiles of one, that go through at once; 1 on a CPU, else 16.")
]
RayAddress = Annotated[str | None, typer.Option(help="A running Ray cluster; else one is started on this machine.")]


@app.command("translate-dataset")
def translate_dataset(
    src: Annotated[str, typer.Argument(help="A data set of RGB pictures.")],
    dst: Annotated[str, typer.Argument(help="Where the same data set in NIR goes, beside a manifest.jsonl.")],
    labels: Annotated[str, typer.Option("--format", metavar="coco|yolo|bdd100k|folder", help="Of the labels.")],
    resume: Annotated[
        bool, typer.Option("--resume/--force", help="Only what is missing or has changed, or everything anew.")
    ] = True,
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
    tile: Tile = None,
    batch_size: BatchSize = None,
    views: Views = None,
    value_range: Range = None,
    out_format: OutFormat = None,
    quality: Quality = None,
    engine: Annotated[str, typer.Option(metavar="local|ray", help="This process, or workers on Ray.")] = "local",
    ray_address: RayAddress = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="With --engine ray: how many hold the model; chosen if not given.")
    ] = None,
    threads: Threads = None,
    warn: Warn = True,
    json: Json = False,
) -> None:
    """Make the NIR twin of a data set: every picture translated, tree, names, splits and labels kept."""
    cluster = _cluster(engine, ray_address, workers, threads)
    from pix2next.apps import datasets
    from pix2next.apps.jobs import Output
    from pix2next.apps.local_engine import Settings
    from pix2next.evaluate.timing import cpu_threads

    output = Output(out_format=out_format.lower().removeprefix(".") if out_format else None, quality=quality)
    settings = Settings(model, device, tile, batch_size, value_range, quality, views=views, warn=warn)
    with cpu_threads(threads), listener(model, json=json, watch=False, to_stdout=False) as on_event:
        result = datasets.translate_dataset(
            src, dst, labels, settings, output=output, force=not resume, cluster=cluster, on_event=on_event
        )
    if not json:
        show(result, Path(dst), model, told=False)
    if result.failed:
        raise typer.Exit(1)


def _cluster(engine: str, address: str | None, workers: int | None, threads: int | None) -> "Cluster | None":
    if engine not in ("local", "ray"):
        raise ConfigError(f"no engine is known as {engine}; known are local and ray")
    if engine == "local" and (address or workers):
        raise ConfigError("--ray-address and --workers go with --engine ray")
    from pix2next.apps.datasets import Cluster

    return Cluster(address, workers, threads) if engine == "ray" else None


@app.command()
def throughput(
    data: Annotated[
        Path | None, typer.Argument(help="A folder of pictures; if not given, 1920 x 1080 JPEGs are made.")
    ] = None,
    pictures: Annotated[int | None, typer.Option(min=1, help="So many of them.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Each of the pipeline, and of the network alone.")] = 3,
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
    tile: Tile = None,
    batch_size: BatchSize = None,
    views: Views = None,
    threads: Threads = None,
    workers: Annotated[
        list[int] | None, typer.Option(min=1, help="So many on Ray instead; to compare, give several: --workers 1 ...")
    ] = None,
    ray_address: RayAddress = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A JSON file for the numbers.")] = None,
) -> None:
    """Time translating from files to files beside the network alone, and tell what each stage takes."""
    from pix2next.apps import throughput as bench
    from pix2next.apps.local_engine import Settings

    settings = Settings(model, device, tile, batch_size, views=views)
    if workers:
        _throughput_of_workers(settings, data, workers, pictures, ray_address, threads, out)
        return
    with progress("timing") as on_progress:
        found, facts = bench.measure(
            settings, data, pictures=pictures, rounds=rounds, threads=threads, on_progress=on_progress
        )
    if out:
        bench.write_throughput(found, facts, out)
    console.print(bench.throughput_table(found))


def _throughput_of_workers(
    settings: "Settings",
    data: Path | None,
    workers: list[int],
    pictures: int | None,
    address: str | None,
    threads: int | None,
    out: Path | None,
) -> None:
    from pix2next.apps import ray_throughput as bench

    with progress("timing") as on_progress:
        rates = bench.measure_workers(
            settings, data, workers, pictures=pictures, address=address, threads=threads, on_progress=on_progress
        )
    if out:
        bench.write_workers(rates, out)
    console.print(bench.workers_table(rates))
