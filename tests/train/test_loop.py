"""A whole run on a few real-looking pairs: it learns, it writes what it says it writes, and it resumes exactly."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from safetensors import SafetensorError

from pix2next.config import Config, FusionConfig, ModelConfig, VfmConfig
from pix2next.errors import ConfigError, PairError, WeightsError
from pix2next.model.pix2next import load_model
from pix2next.train.checkpoint import writing
from pix2next.train.loop import train

Settings = Callable[..., Config]


def lines(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_a_run_writes_what_it_says(data: Path, settings: Settings, tmp_path: Path) -> None:
    best = train(settings(data), tmp_path / "run")
    assert best == tmp_path / "run" / "best.safetensors"
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "best.safetensors",
        "last.safetensors",
        "state.pt",
        "config.json",
        "environment.json",
        "log.jsonl",
        "samples",
    }
    assert {path.name for path in (tmp_path / "run" / "samples").iterdir()} == {"0000003.png", "0000006.png"}
    sheet = cv2.imread(str(tmp_path / "run" / "samples" / "0000006.png"))
    assert sheet.shape[0] == 2 * (192 + 4)
    logged = lines(tmp_path / "run")
    assert [line["step"] for line in logged if "gan" in line] == [2, 4, 6]
    assert [line["step"] for line in logged if "val_psnr" in line] == [3, 6]
    assert all(
        {"psnr", "ssim"} <= {name.removeprefix("val_") for name in line} for line in logged if "val_psnr" in line
    )
    assert Config.model_validate_json((tmp_path / "run" / "config.json").read_text()) == settings(data)
    assert load_model(tmp_path / "run").multiple == 2


def test_eight_pairs_are_learnt(eight_pairs: Path, settings: Settings, tmp_path: Path) -> None:
    """150 steps on eight pairs end below an L1 of 0.07 (of 2), with all the paper's terms at work; first: 0.28."""
    train(settings(eight_pairs, batch_size=4, steps=150, log_every=25, validate_every=0), tmp_path / "run")
    logged = [line["l1"] for line in lines(tmp_path / "run")]
    assert logged[0] > 0.2
    assert logged[-1] < 0.07


def test_a_run_is_not_overwritten(data: Path, settings: Settings, tmp_path: Path) -> None:
    train(settings(data, steps=2), tmp_path / "run")
    before = (tmp_path / "run" / "last.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="holds a run already; add --resume"):
        train(settings(data, steps=4), tmp_path / "run")
    assert (tmp_path / "run" / "last.safetensors").read_bytes() == before


def test_weights_without_a_checkpoint_are_not_overwritten(data: Path, settings: Settings, tmp_path: Path) -> None:
    train(settings(data, steps=2), tmp_path / "run")
    (tmp_path / "run" / "state.pt").unlink()
    with pytest.raises(ConfigError, match="ended before its first checkpoint; choose another --out"):
        train(settings(data, steps=2), tmp_path / "run")


def test_a_crop_that_the_network_cannot_take_is_refused(data: Path, settings: Settings, tmp_path: Path) -> None:
    odd = settings(data)
    odd = odd.model_copy(update={"data": odd.data.model_copy(update={"crop": 31})})
    with pytest.raises(ConfigError, match=r"data\.crop: 31 is no multiple of 2"):
        train(odd, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("error", [RuntimeError("unexpected pos 640 vs 534"), SafetensorError("No space left")])
def test_a_checkpoint_that_cannot_be_written_is_one_sentence(tmp_path: Path, error: Exception) -> None:
    said = r"cannot write .*state\.pt, perhaps for want of space"
    with pytest.raises(WeightsError, match=said), writing(tmp_path / "state.pt"):
        raise error


def test_bad_data_stops_a_run_before_it_starts(data: Path, settings: Settings, tmp_path: Path) -> None:
    (data / "val" / "nir" / "11.png").unlink()
    with pytest.raises(PairError, match=r"11\.png"):
        train(settings(data), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_pictures_in_train_and_val_are_refused(data: Path, settings: Settings, tmp_path: Path) -> None:
    shared = settings(data).data.model_copy(
        update={"val_rgb": data / "train" / "rgb", "val_nir": data / "train" / "nir"}
    )
    with pytest.raises(PairError, match="2 pictures are in both train and val"):
        train(settings(data).model_copy(update={"data": shared}), tmp_path / "run")


def test_a_batch_norm_without_a_batch_is_said(data: Path, settings: Settings, tmp_path: Path) -> None:
    base = settings(data, batch_size=1)
    fusion = FusionConfig(at="bottleneck", heads=1, head_width=8)
    generator = base.model.generator.model_copy(update={"fusions": (fusion,)})
    model = ModelConfig(vfm=VfmConfig(name="timm:resnet18", weights="none"), generator=generator)
    with pytest.raises(ConfigError, match=r"raise train\.batch_size or data\.crop"):
        train(base.model_copy(update={"model": model}), tmp_path / "run")
