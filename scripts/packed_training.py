"""Train where there is neither network nor installed weights: everything that a run needs travels as one folder.

python scripts/packed_training.py pack configs/small-outdoor.yaml packed --data pairs/outdoor
python scripts/packed_training.py run packed runs/small-outdoor --minutes 9

`run` takes bf16 and torch.compile where there is a GPU, goes on where the last call ended, and ends by itself with its
state saved, so that a machine can be had for minutes at a time.
"""

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
import yaml

import pix2next._torchvision  # noqa: F401  before torchvision is imported, whoever does it
from pix2next.config import Config, ProjectedConfig, VfmConfig, load_config
from pix2next.errors import ConfigError, Pix2NextError
from pix2next.evaluate.embeddings import Inception
from pix2next.evaluate.metrics import full_names
from pix2next.evaluate.pretrained import convolutions_file
from pix2next.images import atomic_path, write_text
from pix2next.model.features import find_weights
from pix2next.train.checkpoint import has_state
from pix2next.train.step import COMPILERS

app = typer.Typer(add_completion=False, help=__doc__.splitlines()[0])
PAIRS, SETTINGS, HUB = "pairs.tar", "run.yaml", Path("torch_home", "hub", "checkpoints")
GRACE = 120.0
"""Seconds that a run has to validate and to save its state once it was told to stop."""


@app.command()
def pack(
    config: Annotated[Path, typer.Argument(help="The run's YAML file.")],
    out: Annotated[Path, typer.Argument(help="The folder to make.")],
    data: Annotated[Path, typer.Option(help="A folder with train/{rgb,nir} and val/{rgb,nir}.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Settings, as for train.")
    ] = None,
) -> None:
    """Bring a run's pairs, settings and pretrained weights together in one folder."""
    settings = load_config(config, set_ or [])
    if out.exists():
        raise ConfigError(f"{out} exists already; choose another folder, or remove it")
    (out / HUB).mkdir(parents=True)
    pack_pairs(data, out / PAIRS)
    for name in hub_files(settings):
        copy_hub_file(name, out / HUB)
    packed = packed_weights(settings, out)
    write_text(out / SETTINGS, yaml.safe_dump(packed.model_dump(mode="json", exclude_defaults=True)))
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    typer.echo(f"{out}: {size / 1e6:.1f} MB")


@app.command()
def run(
    packed: Annotated[Path, typer.Argument(help="A folder that pack made.")],
    out: Annotated[Path, typer.Argument(help="The run's folder; a run that is in it goes on.")],
    minutes: Annotated[float, typer.Option(min=0.01, help="Stop after so long, state saved.")] = 60.0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Settings, as for train.")
    ] = None,
) -> None:
    """Train from a packed folder for so many minutes, or to the end of the run."""
    pairs = packed / "pairs"
    if not pairs.is_dir():
        unpack(packed / PAIRS, pairs)
    chosen = [f"data.root={pairs.resolve()}", *fast_settings(), *(set_ or [])]
    command = [sys.executable, "-m", "pix2next", "train", SETTINGS, "--out", str(out.resolve())]
    command += [it for setting in chosen for it in ("--set", setting)] + ["--resume"] * has_state(out)
    environment = os.environ | {"TORCH_HOME": str((packed / HUB).resolve().parents[1]), "HF_HUB_OFFLINE": "1"}
    raise typer.Exit(for_minutes(command, minutes, environment, packed))


def for_minutes(command: Sequence[str], minutes: float, environment: dict[str, str], folder: Path) -> int:
    """Run it, tell it to stop after so long and let it save; 0 where it came to its end or was stopped in time."""
    with subprocess.Popen(command, env=environment, cwd=folder) as process:
        try:
            return process.wait(60 * minutes)
        except subprocess.TimeoutExpired:
            process.terminate()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            return 1
        return 0


def fast_settings() -> list[str]:
    """bf16 where it can be had, and compiled networks on a GPU that finds a compiler."""
    if not torch.cuda.is_available():
        return ["train.mixed_precision=bf16"]
    compiles = any(map(shutil.which, COMPILERS))
    return ["train.mixed_precision=bf16", f"train.compile={str(compiles).lower()}", "data.cache=true"]


def hub_files(config: Config) -> set[str]:
    """The files of the fixed networks that losses and validation look through."""
    loss = config.loss
    metrics = full_names([*config.train.validation_metrics, config.train.choose_by])
    networks = {
        loss.perceptual_network: bool(loss.perceptual),
        "alexnet": bool(loss.lpips) or "lpips" in metrics,
        "vgg16": bool(loss.dists) or "dists" in metrics or "lpips-vgg" in metrics,
    }
    files = {convolutions_file(name) for name, wanted in networks.items() if wanted}
    return files | ({Inception.source} if any("id-" in name for name in metrics) else set())


def copy_hub_file(name: str, folder: Path) -> None:
    """A file of torch's hub folder.

    Raises: ConfigError where it is not there.
    """
    source = Path(torch.hub.get_dir(), "checkpoints", name)
    if not source.is_file():
        raise ConfigError(f"no {source}; fetch it first (pix2next evaluate does), or set TORCH_HOME to where it is")
    with atomic_path(folder / source.name) as temporary:
        shutil.copyfile(source, temporary)


def packed_weights(config: Config, out: Path) -> Config:
    """The settings with the pretrained weights of VFM and discriminator, and what training starts from, in `out`."""
    there: dict[Path, str] = {}

    def brought(path: Path, name: str) -> str:
        if path not in there:
            there[path] = f"{name}{path.suffix}"
            with atomic_path(out / there[path]) as temporary:
                shutil.copyfile(path, temporary)
        return there[path]

    def vfm(settings: VfmConfig, name: str) -> VfmConfig:
        if settings.weights in ("none", "download"):
            return settings
        return settings.model_copy(update={"weights": brought(find_weights(settings.weights), name)})

    model = config.model.model_copy(update={"vfm": vfm(config.model.vfm, "vfm")})
    judge, train = config.discriminator, config.train
    if isinstance(judge, ProjectedConfig):
        judge = judge.model_copy(update={"vfm": vfm(judge.vfm, "eye")})
    if train.init_from and Path(train.init_from).is_file():
        train = train.model_copy(update={"init_from": brought(Path(train.init_from), "init")})
    return config.model_copy(update={"model": model, "discriminator": judge, "train": train})


def pack_pairs(data: Path, target: Path) -> None:
    """Training and validation pictures in one tar.

    Raises: ConfigError where the folders are not there.
    """
    folders = [Path(split, kind) for split in ("train", "val") for kind in ("rgb", "nir")]
    for folder in folders:
        if not (data / folder).is_dir():
            raise ConfigError(f"no folder {data / folder}; --data takes one with train/{{rgb,nir}} and val/{{rgb,nir}}")
    with atomic_path(target) as temporary, tarfile.open(temporary, "w") as tar:
        for folder in folders:
            tar.add(data / folder, folder)


def unpack(source: Path, target: Path) -> None:
    """The pairs as files again, whole or not at all.

    Raises: ConfigError where there is no packed folder.
    """
    if not source.is_file():
        raise ConfigError(f"no {source}: the folder was not made by pack")
    temporary = target.with_name(f"{target.name}.unpacking")
    shutil.rmtree(temporary, ignore_errors=True)
    with tarfile.open(source) as tar:
        tar.extractall(temporary, filter="data")
    temporary.rename(target)


if __name__ == "__main__":
    try:
        app(standalone_mode=True)
    except Pix2NextError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
