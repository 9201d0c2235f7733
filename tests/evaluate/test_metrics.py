"""Scores by hand, by their properties, and against the packages that define them."""

import math
from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image.dists import DISTSNetwork
from torchmetrics.image.fid import FrechetInceptionDistance

from pix2next.data.pairs import find_split, load_pair
from pix2next.errors import ConfigError, WeightsError
from pix2next.evaluate.metrics import DISTS, FID, LPIPS, network_input, psnr, rmse, ssim
from pix2next.images import luma


def noisy(size: tuple[int, int] = (48, 61), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    noise = np.random.default_rng(seed)
    nir = np.cumsum(noise.integers(-9, 10, size), axis=1).clip(-128, 127).astype(np.int16) + 128
    fake = (nir + noise.integers(-30, 31, size)).clip(0, 255)
    return fake.astype(np.uint8), nir.astype(np.uint8)


def as_rgb(picture: np.ndarray) -> torch.Tensor:
    return network_input(picture).expand(-1, 3, -1, -1)


def flat(value: int, dtype: type = np.uint8) -> np.ndarray:
    return np.full((20, 20), value, dtype)


def test_rmse_and_psnr_by_hand():
    assert rmse(flat(10), flat(20)) == 10
    assert rmse(flat(0), flat(255)) == 255
    assert psnr(flat(0), flat(255)) == 0
    assert psnr(flat(10), flat(20)) == pytest.approx(20 * math.log10(25.5))
    assert psnr(flat(7), flat(7)) == math.inf


def test_rmse_does_not_wrap_as_the_released_one_does():
    fake, nir = flat(10), flat(20)
    released = math.sqrt(np.mean((fake - nir) ** 2))
    assert released == pytest.approx(10)  # 246 squared is 100 again, modulo 256
    fake, nir = flat(0), flat(200)
    released = math.sqrt(np.mean((fake - nir) ** 2))
    assert released < 16
    assert rmse(fake, nir) == 200


def test_psnr_agrees_with_skimage():
    fake, nir = noisy()
    assert psnr(fake, nir) == pytest.approx(peak_signal_noise_ratio(nir, fake, data_range=255))


def test_ssim_agrees_with_skimage():
    fake, nir = noisy()
    expected = structural_similarity(
        fake, nir, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(fake, nir, border="valid") == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("score", [psnr, ssim, rmse])
def test_depths_score_alike(score):
    fake, nir = noisy()
    deep = [picture.astype(np.uint16) * 257 for picture in (fake, nir)]
    real = [(picture / 255).astype(np.float32) for picture in (fake, nir)]
    assert score(*deep) == pytest.approx(score(fake, nir), rel=1e-5)
    assert score(*real) == pytest.approx(score(fake, nir), rel=1e-5)
    assert score(deep[0], nir) == pytest.approx(score(fake, nir), rel=1e-5)


@pytest.mark.parametrize("score", [psnr, ssim, rmse])
def test_flipping_both_changes_nothing(score):
    fake, nir = noisy()
    flipped = [np.ascontiguousarray(picture[:, ::-1]) for picture in (fake, nir)]
    assert score(*flipped) == pytest.approx(score(fake, nir), rel=1e-5)


def test_one_pixel():
    assert ssim(np.array([[9]], np.uint8), np.array([[9]], np.uint8)) == pytest.approx(1)
    assert rmse(np.array([[9]], np.uint8), np.array([[12]], np.uint8)) == 3


def test_network_input():
    fake, _ = noisy((256, 256))
    assert torch.equal(network_input(fake)[0, 0] * 255, torch.from_numpy(fake).float())
    stripes = np.tile(np.array([0, 255], np.uint8), (512, 256))
    assert (network_input(stripes)[..., 2:-2] - 0.5).abs().max() < 0.02  # antialiased: neither black nor white


def test_lpips_agrees_with_the_lpips_package(torch_home):
    fake, nir = noisy()
    ours = LPIPS()
    reference = lpips.LPIPS(net="alex", verbose=False)
    expected = reference(as_rgb(fake) * 2 - 1, as_rgb(nir) * 2 - 1).item()
    assert ours(fake, nir) == pytest.approx(expected, abs=1e-5)
    assert ours(nir, nir) == 0


def test_lpips_is_fed_minus_one_to_one(torch_home):
    fake, nir = noisy()
    reference = lpips.LPIPS(net="alex", verbose=False)
    assert abs(LPIPS()(fake, nir) - reference(as_rgb(fake), as_rgb(nir)).item()) > 1e-3


def test_dists_agrees_with_torchmetrics(torch_home):
    fake, nir = noisy((256, 256))
    ours = DISTS()
    assert ours(fake, nir) == pytest.approx(DISTSNetwork()(as_rgb(fake), as_rgb(nir)).item(), abs=1e-5)
    assert ours(nir, nir) == pytest.approx(0, abs=1e-6)


def test_fid_agrees_with_torchmetrics_in_any_order(torch_home):
    fakes, nirs = zip(*(noisy((64, 64), seed) for seed in range(3)), strict=True)
    ours = FID(64)
    reference = FrechetInceptionDistance(feature=64)
    for pictures, real in ((fakes, False), (nirs, True)):
        reference.update(torch.cat([as_rgb(picture) for picture in pictures]).mul(255).round().byte(), real=real)
    assert ours(fakes, nirs) == pytest.approx(reference.compute().item(), rel=1e-3)
    assert ours(fakes[::-1], nirs) == pytest.approx(ours(fakes, nirs), rel=1e-6)
    assert ours(nirs, nirs) == pytest.approx(0, abs=1e-4)
    assert ours.name == "FID-64"


def test_networks_leave_the_random_state_alone(torch_home):
    before = torch.get_rng_state()
    for network in (LPIPS, DISTS, FID):
        network()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("network", "file"), [(LPIPS, "alexnet-.*pth"), (DISTS, "vgg16-.*pth"), (FID, "weights-inception-.*pth")]
)
def test_missing_weights_are_named(network, file, no_weights):
    with pytest.raises(WeightsError, match=f"cannot load {file} .* put https://.*{file} into .*TORCH_HOME") as error:
        network()
    assert "\n" not in str(error.value)


def test_unknown_networks_are_refused():
    with pytest.raises(ConfigError, match="known are alex, vgg"):
        LPIPS("squeeze")
    with pytest.raises(ConfigError, match="known are 64, 192, 768, 2048"):
        FID(512)


def test_luma_on_the_outdoor_test_set(outdoor: Path, torch_home):
    perceptual = LPIPS()
    scores = []
    for pair in find_split(outdoor, "test"):
        rgb, nir = load_pair(pair)
        grey = luma(rgb)
        scores.append([psnr(grey, nir), ssim(grey, nir), perceptual(grey, nir)])
    assert np.mean(scores, axis=0) == pytest.approx([16.38, 0.7060, 0.1901], rel=3e-4)
