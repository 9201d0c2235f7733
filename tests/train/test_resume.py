"""A run cannot be lost: killed at any moment it goes on bit for bit, and what would spoil it ends it in words."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from pix2next.config import Config
from pix2next.errors import PairError, Pix2NextError, WeightsError
from pix2next.train import loop
from pix2next.train.checkpoint import load_state
from pix2next.train.loop import train
from pix2next.train.step import TrainingState

Settings = Callable[..., Config]


class Stopped(Exception):
    pass


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`stop_at(n)` breaks the run off when it asks for its step n + 1; `stop_at(-1)` never does."""
    original = loop.update

    def arm(steps: int) -> None:
        counter = iter(range(10**6))

        def stopping(*arguments: object) -> dict[str, torch.Tensor]:
            if next(counter) == steps:
                raise Stopped
            return original(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(loop, "update", stopping)

    return arm


def saving_always(config: Config) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update={"checkpoint_minutes": 1e-9})})


def same_state(one: Path, other: Path) -> None:
    """Networks, average, optimizers, ranking and step are equal to the last bit."""
    states = [torch.load(folder / "state.pt", weights_only=True) for folder in (one, other)]
    assert states[0].keys() == states[1].keys() >= {"model", "discriminator", "ema", "optim_g", "optim_d", "step"}
    assert states[0].pop("chosen_by") == states[1].pop("chosen_by") == "ssim"
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0, equal_nan=True)
    weights = [load_file(folder / "best.safetensors") for folder in (one, other)]
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)


@pytest.mark.parametrize("stopped", [1, 4])
def test_a_resumed_run_takes_the_same_steps(
    data: Path, settings: Settings, tmp_path: Path, stop_at: Callable[[int], None], stopped: int
) -> None:
    config = settings(data, {"r1": 1.0, "r1_every": 2}, clip_norm=1.0, keep_best=2)
    train(config, tmp_path / "whole")
    stop_at(stopped)
    with pytest.raises(Stopped):
        train(saving_always(config), tmp_path / "part")
    stop_at(-1)
    train(config, tmp_path / "part", resume=True)
    same_state(tmp_path / "whole", tmp_path / "part")


def test_a_network_with_randomness_resumes_exactly(
    data: Path, settings: Settings, tmp_path: Path, stop_at: Callable[[int], None]
) -> None:
    """The U-Net's dropout draws in every step."""
    base = settings(data)
    model = {"vfm": {"name": "none"}, "generator": {"kind": "unet", "width": 4, "depth": 4}}
    config = Config.model_validate({**base.model_dump(), "model": model})
    train(config, tmp_path / "whole")
    stop_at(4)
    with pytest.raises(Stopped):
        train(saving_always(config), tmp_path / "part")
    stop_at(-1)
    train(config, tmp_path / "part", resume=True)
    same_state(tmp_path / "whole", tmp_path / "part")


def command(config: Config, folder: Path, out: Path, *more: str) -> list[str]:
    """The command line that trains by `config`, in a process of its own."""
    path = folder / "run.yaml"
    path.write_text(config.model_dump_json(), encoding="utf-8")  # JSON is YAML.
    return [sys.executable, "-m", "pix2next", "train", str(path), "--out", str(out), *more]


def one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def test_killed_with_9_at_a_random_step_it_ends_with_identical_weights(
    data: Path, settings: Settings, tmp_path: Path
) -> None:
    config = saving_always(settings(data, steps=60, validate_every=30))
    subprocess.run(command(config, tmp_path, tmp_path / "whole"), check=True, env=one_thread(), capture_output=True)
    killed = subprocess.Popen(
        command(config, tmp_path, tmp_path / "part"),
        env=one_thread(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (tmp_path / "part" / "state.pt").exists():
        assert killed.poll() is None, "the run ended before its first checkpoint"
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.5))
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL, "the run was over before it could be killed"
    (tmp_path / "part" / f".{'0a' * 16}.pt").write_bytes(b"half a file")
    resume = command(config, tmp_path, tmp_path / "part", "--resume")
    subprocess.run(resume, check=True, env=one_thread(), capture_output=True)
    assert not list((tmp_path / "part").rglob(".*"))
    same_state(tmp_path / "whole", tmp_path / "part")


def test_told_to_end_it_saves_and_leaves_with_130(data: Path, settings: Settings, tmp_path: Path) -> None:
    config = settings(data, steps=5_000, validate_every=0, log_every=1)
    run = subprocess.Popen(
        command(config, tmp_path, tmp_path / "run"), env=one_thread(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    while not (tmp_path / "run" / "log.jsonl").exists():
        assert run.poll() is None
        time.sleep(0.01)
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate()
    assert run.returncode == 130
    assert b"interrupted" in said
    step = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"]
    assert 0 < step < 5_000


def test_a_state_cut_short_costs_one_interval(
    data: Path, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture, stop_at: Callable[[int], None]
) -> None:
    config = settings(data)
    train(config, tmp_path / "whole")
    stop_at(4)
    with pytest.raises(Stopped):
        train(saving_always(config), tmp_path / "part")
    stop_at(-1)
    state = tmp_path / "part" / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    train(config, tmp_path / "part", resume=True)
    assert "going on from" in caplog.text and "state.previous.pt" in caplog.text
    same_state(tmp_path / "whole", tmp_path / "part")


def test_a_full_disk_leaves_the_last_state(
    data: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(data)
    train(config.model_copy(update={"train": config.train.model_copy(update={"steps": 2})}), tmp_path / "run")
    before = (tmp_path / "run" / "state.pt").read_bytes()

    def full(content: object, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file: unexpected pos 64 vs 0")

    monkeypatch.setattr("pix2next.train.checkpoint.torch.save", full)
    with pytest.raises(WeightsError, match=r"cannot write .*state\.pt, perhaps for want of space"):
        train(config, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "state.pt").read_bytes() == before
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]


def test_a_resumed_log_says_every_step_once(
    data: Path, settings: Settings, tmp_path: Path, stop_at: Callable[[int], None]
) -> None:
    config = settings(data, log_every=1, checkpoint_minutes=1000.0)
    train(config.model_copy(update={"train": config.train.model_copy(update={"steps": 2})}), tmp_path / "run")
    stop_at(2)
    with pytest.raises(Stopped):
        train(config, tmp_path / "run", resume=True)
    with (tmp_path / "run" / "log.jsonl").open("a") as file:
        file.write('{"step": 5, "l1"')
    stop_at(-1)
    train(config, tmp_path / "run", resume=True)
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 2, 3, 3, 4, 5, 6, 6]  # With a line for each validation: at the first end, at 3 and at 6.


def test_a_run_at_its_end_has_nothing_left_to_do(
    data: Path, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(settings(data, steps=2), tmp_path / "run")
    before = (tmp_path / "run" / "state.pt").read_bytes()
    assert train(settings(data, steps=2), tmp_path / "run", resume=True).is_file()
    assert "nothing left to do: the run has taken 2 of 2 steps" in capsys.readouterr().out
    assert (tmp_path / "run" / "state.pt").read_bytes() == before


def test_what_cannot_be_resumed_is_said(data: Path, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="nothing to resume"):
        train(settings(data), tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()
    train(settings(data, steps=2), tmp_path / "run")
    other = settings(data)
    generator = other.model.generator.model_copy(update={"widths": (8, 8)})
    other = other.model_copy(update={"model": other.model.model_copy(update={"generator": generator})})
    with pytest.raises(WeightsError, match="made with other settings"):
        train(other, tmp_path / "run", resume=True)
    (tmp_path / "run" / "state.pt").write_bytes(b"half a file")
    with pytest.raises(WeightsError, match=r"state\.pt"):
        train(settings(data), tmp_path / "run", resume=True)


def test_a_resumed_run_takes_its_rates_from_the_settings_of_now(data: Path, settings: Settings, tmp_path: Path) -> None:
    train(settings(data, steps=2), tmp_path / "run")
    accelerator = Accelerator(cpu=True)
    state = TrainingState.start(settings(data, discriminator_learning_rate=7e-4, betas=(0.0, 0.9)), accelerator)
    load_state(state, "ssim", tmp_path / "run", accelerator)
    assert state.step == 2
    assert [group["base_lr"] for group in state.optim_d.param_groups] == [7e-4]
    assert [group["betas"] for group in state.optim_g.param_groups] == [(0.0, 0.9)]


def test_a_loss_that_is_no_number_is_named_with_its_step_and_the_last_checkpoint(
    data: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(settings(data, steps=2), tmp_path / "run")
    good = (tmp_path / "run" / "best.safetensors").read_bytes()
    calls = iter(range(100))
    original = loop.update

    def spoilt(*arguments: object) -> dict[str, torch.Tensor]:
        losses = original(*arguments)  # type: ignore[arg-type]
        return losses if next(calls) < 1 else losses | {"ssim": torch.tensor(float("nan"))}

    monkeypatch.setattr(loop, "update", spoilt)
    said = r"ssim is not finite at step 4; the last good checkpoint is .*run/state\.pt"
    with pytest.raises(Pix2NextError, match=said):
        train(settings(data, steps=9, log_every=50, validate_every=5), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "best.safetensors").read_bytes() == good
    with pytest.raises(Pix2NextError, match="no checkpoint was written before"):
        train(settings(data, validate_every=0), tmp_path / "other")


def test_an_exploding_loss_ends_the_run(
    data: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = loop.update

    def growing(*arguments: object) -> dict[str, torch.Tensor]:
        losses = original(*arguments)  # type: ignore[arg-type]
        step: int = arguments[0].step  # type: ignore[attr-defined]
        return losses | {"gan": torch.tensor(10.0**step)}

    monkeypatch.setattr(loop, "update", growing)
    with pytest.raises(Pix2NextError, match=r"gan exploded to 1e\+04 by step 4"):
        train(settings(data, log_every=1, validate_every=0), tmp_path / "run")


def test_a_run_goes_on_without_what_it_started_from(
    data: Path, settings: Settings, tmp_path: Path, stop_at: Callable[[int], None]
) -> None:
    """Every weight is in the state, so neither `init_from` nor the VFM's own weights are looked for again."""
    first = train(settings(data, steps=2), tmp_path / "first")
    config = settings(data, init_from=str(first))
    train(config, tmp_path / "whole")
    stop_at(4)
    with pytest.raises(Stopped):
        train(saving_always(config), tmp_path / "part")
    stop_at(-1)
    first.unlink()
    train(config, tmp_path / "part", resume=True)
    same_state(tmp_path / "whole", tmp_path / "part")


def test_the_network_of_a_resumed_run_looks_for_no_weights(data: Path, settings: Settings) -> None:
    base = settings(data).model_dump()
    vfm = {"name": "timm:resnet18", "weights": "nowhere.pth"}
    generator = {**base["model"]["generator"], "fusions": [{"at": "bottleneck", "heads": 1, "head_width": 8}]}
    config = Config.model_validate({**base, "model": {"vfm": vfm, "generator": generator}})
    with pytest.raises(WeightsError, match=r"nowhere\.pth"):
        TrainingState.start(config, Accelerator(cpu=True))
    assert TrainingState.start(config, Accelerator(cpu=True), resume=True).ema.vfm.pretrained


def test_scores_of_another_metric_are_not_compared(data: Path, settings: Settings, tmp_path: Path) -> None:
    """An SSIM below 1 would beat every RMSE, where less is better."""
    train(settings(data, keep_best=2), tmp_path / "run")
    train(settings(data, steps=8, keep_best=2, choose_by="rmse"), tmp_path / "run", resume=True)
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert state["chosen_by"] == "rmse"
    assert [step for _, step in state["ranking"]] == [8]
    assert [path.name for path in (tmp_path / "run" / "best").iterdir()] == ["0000008.safetensors"]


def test_weights_that_are_no_numbers_are_not_saved(
    data: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of a step is finite where only its gradient is not."""
    train(settings(data, steps=2), tmp_path / "run")
    before = {name: (tmp_path / "run" / name).read_bytes() for name in ("state.pt", "best.safetensors")}
    original = loop.update

    def spoiling(*arguments: object) -> dict[str, torch.Tensor]:
        losses = original(*arguments)  # type: ignore[arg-type]
        with torch.no_grad():
            next(arguments[0].model.parameters()).view(-1)[0] = torch.nan  # type: ignore[attr-defined]
        return losses

    monkeypatch.setattr(loop, "update", spoiling)
    with pytest.raises(Pix2NextError, match=r"weights are not finite after step 3; the last good checkpoint is"):
        train(settings(data, log_every=50), tmp_path / "run", resume=True)
    assert {name: (tmp_path / "run" / name).read_bytes() for name in before} == before


def test_told_to_end_with_its_readers_it_saves(data: Path, settings: Settings, tmp_path: Path) -> None:
    """Schedulers and torchrun send SIGTERM to every process of a run, those that read pictures too."""
    base = settings(data, steps=5_000, validate_every=0, log_every=1).model_dump()
    config = Config.model_validate({**base, "data": {**base["data"], "workers": 1}})
    run = subprocess.Popen(
        command(config, tmp_path, tmp_path / "run"),
        env=one_thread(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while not (tmp_path / "run" / "log.jsonl").exists():
        assert run.poll() is None
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGTERM)
    _, said = run.communicate()
    assert run.returncode == 130, said.decode()
    assert (tmp_path / "run" / "state.pt").exists()


def test_a_reader_outlives_the_signals_of_its_run_but_not_for_ever() -> None:
    script = """
import signal, time
from pix2next.train import loop
loop.PATIENCE = 0.5
loop._patient(0)
signal.raise_signal(signal.SIGINT)
signal.raise_signal(signal.SIGTERM)
print("goes on", flush=True)
while True:
    time.sleep(0.01)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "goes on\n"), done.stderr


def test_pictures_that_vanish_are_said_in_a_sentence(data: Path, settings: Settings, tmp_path: Path) -> None:
    base = settings(data).model_dump()
    config = Config.model_validate({**base, "data": {**base["data"], "workers": 1, "cache": False}})
    pairs, _ = loop.checked_pairs(config)
    for pair in pairs:
        pair.rgb.unlink()
    said = r"^none of the 2 training pairs can be read \(first: .*\.png\)$"
    with pytest.raises(PairError, match=said), loop.in_plain_words():
        next(loop.batches(config, pairs, 0, Accelerator(cpu=True)))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_a_log_that_cannot_be_written_is_named(data: Path, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as failed:
        train(settings(data), tmp_path / "run")
    assert failed.value.filename == str(tmp_path / "run" / "log.jsonl")
