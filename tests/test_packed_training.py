"""The script that trains from one folder: packed here, run there, stopped and gone on with."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from pix2next.config import Config, load_config
from pix2next.errors import ConfigError

SCRIPT = Path(__file__).parents[1] / "scripts" / "packed_training.py"
SMALL = """
model:
  vfm: {name: none}
  generator: {widths: [8, 8], encoder_blocks: [1, 1], decoder_blocks: [1, 1], bottleneck_blocks: 1, fusions: []}
discriminator: {kind: projected, reads: [4, 8], width: 8}
data: {crop: 32, workers: 0}
train: {steps: 4, batch_size: 2, warmup_steps: 0, validate_every: 4, validation_metrics: [psnr], choose_by: psnr}
"""


def run(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split, count in {"train": 3, "val": 1}.items():
        for kind, shape in {"rgb": (40, 48, 3), "nir": (40, 48)}.items():
            (tmp_path / "pairs" / split / kind).mkdir(parents=True)
            for index in range(count):
                picture = rng.integers(0, 256, shape, dtype=np.uint8)
                cv2.imwrite(str(tmp_path / "pairs" / split / kind / f"{split}{index}.png"), picture)
    (tmp_path / "small.yaml").write_text(SMALL)
    return tmp_path / "pairs"


def test_a_packed_folder_is_all_that_a_run_needs(data: Path, tmp_path: Path) -> None:
    packed, out = tmp_path / "packed", tmp_path / "out"
    done = run("pack", tmp_path / "small.yaml", packed, "--data", data)
    assert done.returncode == 0, done.stderr
    assert {it.name for it in packed.iterdir()} == {"pairs.tar", "run.yaml", "torch_home", "eye.pth"}
    settings = load_config(packed / "run.yaml")
    assert isinstance(settings, Config) and settings.discriminator.kind == "projected"
    assert settings.discriminator.vfm.weights == "eye.pth" and settings.data.crop == 32
    data.rename(tmp_path / "elsewhere")
    assert run("run", packed, out, "--set", "train.steps=2").returncode == 0
    assert run("run", packed, out).returncode == 0
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert steps[0] == 2 and steps[-1] == 4 and (out / "best.safetensors").is_file()


SAVES = """
import pathlib, signal, sys, time
def save(*_):
    pathlib.Path("saved").touch()
    sys.exit(130)
signal.signal(signal.SIGTERM, save)
time.sleep(600)
"""


def test_after_its_minutes_a_run_is_told_to_stop_and_waited_for(tmp_path: Path) -> None:
    for_minutes = runpy.run_path(str(SCRIPT))["for_minutes"]
    assert for_minutes([sys.executable, "-c", SAVES], 0.05, dict(os.environ), tmp_path) == 0
    assert (tmp_path / "saved").exists()
    assert for_minutes([sys.executable, "-c", "raise SystemExit(2)"], 1.0, dict(os.environ), tmp_path) == 2


def test_what_is_missing_is_said_in_a_sentence(data: Path, tmp_path: Path) -> None:
    script = runpy.run_path(str(SCRIPT))
    with pytest.raises(ConfigError, match="no folder .*nowhere/train/rgb"):
        script["pack"](tmp_path / "small.yaml", tmp_path / "out", tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="exists already"):
        script["pack"](tmp_path / "small.yaml", tmp_path, data)
    done = run("run", tmp_path / "nowhere", tmp_path / "out")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: no ") and "the folder was not made by pack" in done.stderr
