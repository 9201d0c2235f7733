"""A whole run on a few real-looking pairs: it learns, it writes what it says it writes, and it resumes exactly."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file

from pix2next.config import Config, FusionConfig, ModelConfig, VfmConfig
from pix2next.errors import ConfigError, PairError, Pix2NextError, WeightsError
from pix2next.model.pix2next import load_model
from pix2next.train.checkpoint import load_state, writing
from pix2next.train.loop import train
from pix2next.train.step import TrainingState


def put_pairs(root: Path, split: str, count: int, first: int) -> None:
    """Smooth colour fields whose NIR is a function of them."""
    for index in range(first, first + count):
        rgb = np.random.default_rng(index).integers(0, 256, (6, 6, 3)).astype(np.uint8)
        rgb = cv2.resize(rgb, (48, 40), interpolation=cv2.INTER_CUBIC)
        nir = np.clip(220.0 - rgb[..., 0] * 0.6 + rgb[..., 1] * 0.2, 0, 255).astype(np.uint8)
        for kind, picture in {"rgb": rgb[..., ::-1], "nir": nir}.items():
            folder = root / split / kind
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{index}.png"), picture)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    put_pairs(tmp_path / "data", "train", 2, 0)
    put_pairs(tmp_path / "data", "val", 2, 10)
    return tmp_path / "data"


def config(data: Path, loss: dict[str, float] | None = None, **settings: object) -> Config:
    generator = {
        "widths": [12, 16],
        "encoder_blocks": [1, 1],
        "decoder_blocks": [1, 1],
        "bottleneck_blocks": 1,
        "fusions": [],
    }
    return Config.model_validate(
        {
            "model": {"vfm": {"name": "none"}, "generator": generator},
            "data": {"root": data, "crop": 32, "workers": 0, "cache": True, "jitter": 0.0},
            "discriminator": {"width": 4, "layers": 2, "norm": "none"},
            "loss": {"l1": 10.0, **(loss or {})},
            "train": {
                "steps": 6,
                "batch_size": 2,
                "learning_rate": 2e-3,
                "warmup_steps": 2,
                "log_every": 2,
                "validate_every": 3,
                **settings,
            },
        }
    )


def lines(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_a_run_writes_what_it_says(data: Path, tmp_path: Path) -> None:
    best = train(config(data), tmp_path / "run")
    assert best == tmp_path / "run" / "best.safetensors"
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"best.safetensors", "last.safetensors", "state.pt", "config.json", "log.jsonl", "samples"}
    assert {path.name for path in (tmp_path / "run" / "samples").iterdir()} == {"0000003.png", "0000006.png"}
    sheet = cv2.imread(str(tmp_path / "run" / "samples" / "0000006.png"))
    assert sheet.shape[0] == 2 * (192 + 4)
    logged = lines(tmp_path / "run")
    assert [line["step"] for line in logged if "gan" in line] == [2, 3, 4, 6]
    assert [line["step"] for line in logged if "val_psnr" in line] == [3, 6]
    assert all(
        {"psnr", "ssim"} <= {name.removeprefix("val_") for name in line} for line in logged if "val_psnr" in line
    )
    assert Config.model_validate_json((tmp_path / "run" / "config.json").read_text()) == config(data)
    assert load_model(tmp_path / "run").multiple == 2


def test_two_pairs_are_learnt(data: Path, tmp_path: Path) -> None:
    """100 steps on two pairs bring the L1 loss to a fifth, with all the paper's terms at work."""
    train(config(data, steps=100, log_every=10, validate_every=100, ema=0.9), tmp_path / "run")
    logged = [line["l1"] for line in lines(tmp_path / "run") if "l1" in line]
    assert logged[-1] < 0.2 * logged[0]


def test_a_resumed_run_takes_the_same_steps(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = config(data)
    train(whole, tmp_path / "whole")

    class Stopped(Exception):
        pass

    from pix2next.train import loop

    original = loop.update
    counter = iter(range(100))

    def stopping(*arguments: object) -> dict[str, torch.Tensor]:
        if next(counter) == 4:
            raise Stopped
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "update", stopping)
    hurried = whole.model_copy(update={"train": whole.train.model_copy(update={"checkpoint_minutes": 1e-9})})
    with pytest.raises(Stopped):
        train(hurried, tmp_path / "part")
    monkeypatch.setattr(loop, "update", original)
    train(whole, tmp_path / "part", resume=True)
    one, other = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "part"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    states = [torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "part")]
    for part in ("model", "discriminator", "ema"):
        assert all(torch.equal(states[0][part][name], states[1][part][name]) for name in states[0][part])


def test_a_run_is_not_overwritten(data: Path, tmp_path: Path) -> None:
    train(config(data, steps=2), tmp_path / "run")
    before = (tmp_path / "run" / "last.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="holds a run already; add --resume"):
        train(config(data, steps=4), tmp_path / "run")
    assert (tmp_path / "run" / "last.safetensors").read_bytes() == before


def test_weights_without_a_checkpoint_are_not_overwritten(data: Path, tmp_path: Path) -> None:
    train(config(data, steps=2), tmp_path / "run")
    (tmp_path / "run" / "state.pt").unlink()
    with pytest.raises(ConfigError, match="ended before its first checkpoint; choose another --out"):
        train(config(data, steps=2), tmp_path / "run")


def test_a_crop_that_the_network_cannot_take_is_refused(data: Path, tmp_path: Path) -> None:
    odd = config(data)
    odd = odd.model_copy(update={"data": odd.data.model_copy(update={"crop": 31})})
    with pytest.raises(ConfigError, match=r"data\.crop: 31 is no multiple of 2"):
        train(odd, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("error", [RuntimeError("unexpected pos 640 vs 534"), SafetensorError("No space left")])
def test_a_checkpoint_that_cannot_be_written_is_one_sentence(tmp_path: Path, error: Exception) -> None:
    said = r"cannot write .*state\.pt, perhaps for want of space"
    with pytest.raises(WeightsError, match=said), writing(tmp_path / "state.pt"):
        raise error


def test_what_cannot_be_resumed_is_said(data: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="nothing to resume"):
        train(config(data), tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()
    train(config(data, steps=2), tmp_path / "run")
    other = config(data)
    generator = other.model.generator.model_copy(update={"widths": (8, 8)})
    other = other.model_copy(update={"model": other.model.model_copy(update={"generator": generator})})
    with pytest.raises(WeightsError, match="made with other settings"):
        train(other, tmp_path / "run", resume=True)
    (tmp_path / "run" / "state.pt").write_bytes(b"half a file")
    with pytest.raises(WeightsError, match=r"state\.pt"):
        train(config(data), tmp_path / "run", resume=True)


def test_bad_data_stops_a_run_before_it_starts(data: Path, tmp_path: Path) -> None:
    (data / "val" / "nir" / "11.png").unlink()
    with pytest.raises(PairError, match=r"11\.png"):
        train(config(data), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_pictures_in_train_and_val_are_refused(data: Path, tmp_path: Path) -> None:
    shared = config(data).data.model_copy(update={"val_rgb": data / "train" / "rgb", "val_nir": data / "train" / "nir"})
    with pytest.raises(PairError, match="2 pictures are in both train and val"):
        train(config(data).model_copy(update={"data": shared}), tmp_path / "run")


def test_a_loss_that_is_no_number_stops_the_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pix2next.train.step.l1", lambda fake, nir: (fake - nir).abs().mean() * float("nan"))
    with pytest.raises(Pix2NextError, match="ssim is not finite at step 2"):
        train(config(data), tmp_path / "run")


def test_a_batch_norm_without_a_batch_is_said(data: Path, tmp_path: Path) -> None:
    base = config(data, batch_size=1)
    fusion = FusionConfig(at="bottleneck", heads=1, head_width=8)
    generator = base.model.generator.model_copy(update={"fusions": (fusion,)})
    model = ModelConfig(vfm=VfmConfig(name="timm:resnet18", weights="none"), generator=generator)
    with pytest.raises(ConfigError, match=r"raise train\.batch_size or data\.crop"):
        train(base.model_copy(update={"model": model}), tmp_path / "run")


def test_a_resumed_run_takes_its_rates_from_the_settings_of_now(data: Path, tmp_path: Path) -> None:
    train(config(data, steps=2), tmp_path / "run")
    accelerator = Accelerator(cpu=True)
    state = TrainingState.start(config(data, discriminator_learning_rate=7e-4), accelerator)
    load_state(state, tmp_path / "run", accelerator)
    assert state.step == 2
    assert [group["base_lr"] for group in state.optim_d.param_groups] == [7e-4]
