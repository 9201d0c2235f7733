"""Networks that learn: one, or a study of many."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pix2next.cli.program import Changes, Device, app, messages, say
from pix2next.errors import ConfigError


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A YAML file, such as configs/tiny-outdoor.yaml.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The run's folder: checkpoints, log and samples.")],
    changes: Changes = None,
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
        say=say,
    )
    messages.print(f"the table: {out / REPORT}", markup=False)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--seeds {text}: expected whole numbers with commas between them") from None
