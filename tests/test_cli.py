"""The verbs as a user meets them: what they write, what they say, and their exit status."""

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from pix2next import cli
from pix2next.model.pix2next import DEFAULT_MODEL, Pix2Next

from .command import run

VERBS = (
    "translate",
    "translate-dataset",
    "translate-raster",
    "translate-video",
    "prepare",
    "inspect",
    "train",
    "ablate",
    "evaluate",
    "compare",
    "matrix",
    "regions",
    "benchmark",
    "throughput",
    "models",
    "demo",
)


def save_noise(path, height=20, width=30, channels=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (height, width, channels) if channels > 1 else (height, width)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)).save(path)
    return path


def test_help_names_every_verb():
    shown = run("--help")
    assert shown.exit_code == 0
    assert all(verb in shown.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb):
    assert run(verb, "--help").exit_code == 0


def test_help_does_not_wait_for_torch():
    script = "import sys, pix2next.cli; print('torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "False"


def test_the_package_is_a_command():
    shown = subprocess.run([sys.executable, "-m", "pix2next", "--help"], capture_output=True, text=True)
    assert shown.returncode == 0
    assert "Usage: pix2next" in shown.stdout


def test_the_default_model_is_the_librarys():
    assert cli.program.DEFAULT_MODEL == DEFAULT_MODEL


def test_translate_keeps_tree_names_and_sizes(tmp_path, network):
    save_noise(tmp_path / "in" / "a.png")
    save_noise(tmp_path / "in" / "deep" / "b.png", 7, 5)
    done = run("translate", tmp_path / "in", "-o", tmp_path / "out", "--model", network, "--device", "cpu")
    assert done.exit_code == 0, done.stderr
    assert Image.open(tmp_path / "out" / "a.png").size == (30, 20)
    assert Image.open(tmp_path / "out" / "deep" / "b.png").size == (5, 7)


def test_translate_skips_a_bad_file_and_says_so(tmp_path, network):
    save_noise(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"not a picture")
    done = run("translate", tmp_path / "in", "-o", tmp_path / "out", "--model", network, "--device", "cpu")
    assert done.exit_code == 1
    assert (tmp_path / "out" / "good.png").is_file()
    assert "bad.png" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["translate", "absent.png", "-o", "out", "--model", "absent"], "absent"),
        (["train", "absent.yaml", "--out", "run"], "absent.yaml"),
        (["evaluate", "--model", "any", "--out", "scores"], "--data"),
        (["evaluate", "--fake", "a", "--nir", "b", "--data", "c", "--out", "scores"], "--data"),
        (["demo", "--model", "absent"], "absent"),
        (["benchmark", "absent", "--no-compare"], "absent"),
        (["benchmark", "absent", "--no-compare", "--device", "toaster"], "toaster"),
    ],
)
def test_an_error_is_one_sentence(tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    failed = run(*arguments)
    assert failed.exit_code == 2
    assert failed.stderr.startswith("error: ")
    assert said in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert "Traceback" not in failed.stderr


def test_a_wrong_setting_is_named(tmp_path):
    (tmp_path / "run.yaml").write_text("train: {steps: 1}")
    failed = run("train", tmp_path / "run.yaml", "--set", "train.stepz=2", "--out", tmp_path / "run")
    assert failed.exit_code == 2
    assert "train.stepz" in failed.stderr


def test_an_interrupt_has_its_own_status(monkeypatch, tmp_path):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("pix2next.config.load_config", interrupt)
    stopped = run("train", tmp_path / "run.yaml", "--out", tmp_path / "run")
    assert stopped.exit_code == 130
    assert "Traceback" not in stopped.stderr


def test_an_operating_system_error_without_a_file_is_one_sentence(monkeypatch, tmp_path):
    def fill_the_disk(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pix2next.config.load_config", fill_the_disk)
    failed = run("train", tmp_path / "run.yaml", "--out", tmp_path / "run")
    assert (failed.exit_code, failed.stderr) == (2, "error: No space left on device\n")


def test_evaluate_scores_pictures_made_elsewhere(tmp_path, shared, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", os.fspath(shared / "torch_home"))
    for name in ("a.png", "b.png"):
        save_noise(tmp_path / "fake" / name, 64, 64, channels=1)
        save_noise(tmp_path / "nir" / name, 64, 64, channels=1)
    folders = ("--fake", tmp_path / "fake", "--nir", tmp_path / "nir")
    done = run("evaluate", *folders, "--out", tmp_path / "scores")
    assert done.exit_code == 0, done.stderr
    assert json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert "PSNR" in done.stdout.upper()


def test_an_output_that_cannot_be_is_named(tmp_path, network):
    (tmp_path / "file").touch()
    size = ("--size", 16, "--repeats", 1, "--no-compare")
    failed = run("benchmark", network, *size, "--out", tmp_path / "file" / "costs.json")
    assert failed.exit_code == 2
    assert failed.stderr.startswith(f"error: {tmp_path / 'file'}")


@pytest.mark.parametrize("name", ["demo.xyz", "file/demo.png"])
def test_a_demo_that_cannot_be_written_is_one_sentence(tmp_path, network, name):
    (tmp_path / "file").touch()
    failed = run("demo", "-o", tmp_path / name, "--model", network, "--device", "cpu")
    assert failed.exit_code == 2
    assert failed.stderr.startswith(f"error: cannot write {tmp_path / name}")
    assert {path.name for path in tmp_path.iterdir()} == {"file"}


def test_benchmark_writes_its_numbers(tmp_path, network):
    size = ("--size", 16, "--repeats", 1, "--no-compare")
    done = run("benchmark", network, *size, "--out", tmp_path / "costs.json")
    assert done.exit_code == 0, done.stderr
    (row,) = json.loads((tmp_path / "costs.json").read_text())["rows"]
    assert row["parameters"] == sum(p.numel() for p in Pix2Next.load(network).parameters())


def test_demo_puts_rgb_and_nir_side_by_side(tmp_path, network):
    done = run("demo", "-o", tmp_path / "demo.png", "--model", network, "--device", "cpu")
    assert done.exit_code == 0, done.stderr
    assert "demo.png" in done.stdout
    picture = np.asarray(Image.open(tmp_path / "demo.png"))
    assert picture.shape == (427, 640 + 8 + 640, 3)
    right = picture[:, 648:]
    assert (right == right[..., :1]).all()
    assert (picture[:, :640] != picture[:, :640, :1]).any()
