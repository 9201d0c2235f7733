"""What ships is better than what needs no learning, on places it has not seen."""

from pathlib import Path

import pytest

from pix2next.evaluate.report import evaluate_model
from pix2next.model.pix2next import DEFAULT_MODEL
from pix2next.translate import Translator

EVERY = 4
"""The whole test set is a command's work: pix2next evaluate --model tiny-outdoor --data outdoor/test --out scores."""


@pytest.fixture
def some(outdoor: Path, tmp_path: Path) -> Path:
    """Every fourth pair of the test set, the train split beside it."""
    for kind in ("rgb", "nir"):
        (tmp_path / "test" / kind).mkdir(parents=True)
        for picture in sorted((outdoor / "test" / kind).iterdir())[::EVERY]:
            (tmp_path / "test" / kind / picture.name).symlink_to(picture.resolve())
    (tmp_path / "train").symlink_to((outdoor / "train").resolve())
    return tmp_path / "test"


@pytest.mark.usefixtures("torch_home")
def test_the_default_model_beats_luma_and_the_linear_map(some: Path, tmp_path: Path) -> None:
    model = Translator.from_pretrained(DEFAULT_MODEL, device="cpu")
    mean = evaluate_model(model, some, tmp_path / "out", metrics=("psnr", "ssim", "lpips", "dists")).mean
    for baseline in ("luma", "linear"):
        for metric in ("psnr", "ssim"):
            assert mean["model"][metric] > mean[baseline][metric], (metric, baseline)
        for metric in ("lpips", "dists"):
            assert mean["model"][metric] < mean[baseline][metric], (metric, baseline)
