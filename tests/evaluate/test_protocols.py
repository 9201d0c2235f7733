"""What a protocol's name promises, and the released code's numbers, mistakes and all."""

import math
from pathlib import Path

import cv2
import lpips
import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image.dists import DISTSNetwork

from pix2next.errors import ConfigError
from pix2next.evaluate.metrics import METRICS
from pix2next.evaluate.pixelwise import psnr, rmse, ssim
from pix2next.evaluate.protocols import PROTOCOLS, protocol_named
from pix2next.evaluate.released import released_picture, released_rmse, released_ssim
from pix2next.evaluate.scorer import Example, Scorer


def flat(value: int) -> np.ndarray:
    return np.full((20, 20), value, np.uint8)


def scores(protocol: str, fake: np.ndarray, nir: np.ndarray, *metrics: str) -> dict[str, float | None]:
    return Scorer(metrics, protocol).score(Example("a", nir, {"fake": fake})).scores["fake"]


def test_the_released_rmse_is_what_its_formula_gives_and_ours_is_the_true_one():
    """10 - 20 is 246 modulo 256, and 246 squared is 100; 0 - 200 is 56, and 56 squared is 64."""
    assert (released_rmse(flat(10), flat(20)), rmse(flat(10), flat(20))) == (10, 10)
    assert (released_rmse(flat(0), flat(200)), rmse(flat(0), flat(200))) == (8, 200)
    assert (released_rmse(flat(0), flat(16)), rmse(flat(0), flat(16))) == (0, 16)


def test_the_released_rmse_contradicts_psnr(noisy):
    """As in the paper's table, where PSNR 20.83 stands beside RMSE 8.24."""
    fake, nir = noisy()
    wrapped = released_rmse(fake, nir)
    assert wrapped < 16
    assert 20 * math.log10(255 / wrapped) > psnr(fake, nir) + 3
    assert 20 * math.log10(255 / rmse(fake, nir)) == pytest.approx(psnr(fake, nir))


def as_the_released_script(fake: Path, nir: Path) -> tuple[dict[str, float], list[torch.Tensor]]:
    """The steps of `eval_all.py` with the packages that it uses, on three channels; what it feeds to networks."""
    x, y = (cv2.resize(cv2.imread(str(path)), (256, 256)) for path in (fake, nir))
    pixelwise = {
        "psnr": peak_signal_noise_ratio(x, y),
        "ssim": structural_similarity(x, y, channel_axis=2),
        "rmse": float(np.mean(np.sqrt(np.mean((x - y) ** 2, axis=(0, 1))))),
    }
    return pixelwise, [torch.from_numpy(p).permute(2, 0, 1)[None].float() / 255 for p in (x, y)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_released_gives_the_released_scripts_numbers(dtype, tmp_path, torch_home, noisy):
    pictures = noisy((300, 341))
    if dtype == np.uint16:
        low = np.random.default_rng(1).integers(0, 256, (300, 341))
        pictures = tuple(picture.astype(np.uint16) * 256 + low.astype(np.uint16) for picture in pictures)
    for name, picture in zip(("fake", "nir"), pictures, strict=True):
        assert cv2.imwrite(str(tmp_path / f"{name}.png"), picture)
    expected, tensors = as_the_released_script(tmp_path / "fake.png", tmp_path / "nir.png")
    if dtype == np.uint8:
        with torch.no_grad():
            expected["lpips"] = lpips.LPIPS(net="alex", verbose=False)(*tensors).item()
            expected["dists"] = DISTSNetwork()(*tensors).item()
    assert scores("released", *pictures, *expected) == pytest.approx(expected, abs=1e-4)


def test_released_pictures_are_aliased():
    stripes = np.tile(np.array([0, 0, 0, 255], np.uint8), (64, 256))
    assert released_picture(stripes).std() < 1  # every fourth column is missed
    assert PROTOCOLS["paper-256"].pixels(stripes).mean() == pytest.approx(0.25, abs=0.01)


def test_floating_point_pictures_are_released_as_bytes(noisy):
    fake, _ = noisy((300, 341))
    assert np.array_equal(released_picture((fake / 255).astype(np.float32)), released_picture(fake))


def test_released_ssim_agrees_with_skimages_default(noisy):
    fake, nir = noisy()
    assert released_ssim(fake, nir) == pytest.approx(structural_similarity(fake, nir), abs=1e-9)
    assert abs(released_ssim(fake, nir) - ssim(fake, nir)) > 1e-3


def test_standard_is_at_native_size(noisy):
    fake, nir = noisy((300, 341))
    found = scores("standard", fake, nir, "psnr", "ssim", "rmse")
    assert found == {"psnr": psnr(fake, nir), "ssim": ssim(fake, nir), "rmse": rmse(fake, nir)}


def test_paper_256_is_the_squash_with_true_metrics(noisy):
    fake, nir = noisy((300, 341))
    small = [np.asarray(Image.fromarray(picture.astype(np.float32)).resize((256, 256), Image.Resampling.BILINEAR)) / 255
             for picture in (fake, nir)]  # fmt: skip
    found = scores("paper-256", fake, nir, "psnr", "ssim", "rmse")
    assert found["psnr"] == pytest.approx(psnr(*small), abs=1e-4)
    assert found["psnr"] == pytest.approx(20 * math.log10(255 / found["rmse"]))
    assert found["psnr"] > psnr(fake, nir) + 0.5  # shrinking averages noise away


def test_protocols_agree_on_pictures_of_256_but_for_the_mistakes(torch_home, noisy):
    fake, nir = noisy((256, 256))
    metrics = ("psnr", "ssim", "rmse", "lpips")
    standard, paper, released = (scores(name, fake, nir, *metrics) for name in PROTOCOLS)
    assert paper == pytest.approx(standard, rel=1e-5)
    assert released["psnr"] == pytest.approx(standard["psnr"])
    for name in ("ssim", "rmse", "lpips"):
        assert released[name] != pytest.approx(standard[name], rel=0.01)


def test_ndvi_sees_red_as_the_protocol_has_it(noisy):
    fake, nir = noisy((300, 341))
    rgb = np.repeat(fake[:, :, None], 3, axis=2)
    for protocol in PROTOCOLS:
        found = Scorer(["ndvi"], protocol).score(Example("a", nir, {"fake": fake, "same": nir}, rgb)).scores
        assert found["same"]["ndvi"] == 0
        assert 0 < found["fake"]["ndvi"] < 1


def test_every_metric_is_described_under_every_protocol():
    for protocol in PROTOCOLS.values():
        for name in METRICS:
            assert protocol.describe(name).count(";") >= 2
    assert "wraps" in PROTOCOLS["released"].describe("rmse")
    assert "[0, 1]" in PROTOCOLS["released"].describe("lpips")
    assert "pytorch-fid" in PROTOCOLS["released"].describe("fid-768")
    assert "pytorch-fid" not in PROTOCOLS["released"].describe("clean-fid-768")
    assert "[-1, 1]" in PROTOCOLS["standard"].describe("lpips")
    assert PROTOCOLS["standard"].describe("psnr").startswith("native size")
    assert PROTOCOLS["paper-256"].describe("psnr").startswith("256 x 256")


def test_unknown_protocols_list_the_known():
    with pytest.raises(ConfigError, match="^no protocol 'fast'; known are standard, paper-256, released$"):
        protocol_named("fast")
