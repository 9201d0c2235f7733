"""Scores of pixels by hand, by their properties, and against the packages that define them."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from pix2next.evaluate.pixelwise import (
    MS_SSIM_LEAST,
    aligned_psnr,
    error_std,
    mae,
    ms_ssim,
    ndvi,
    ndvi_error,
    ndvi_error_map,
    pcc,
    psnr,
    rmse,
    ssim,
)

EVERY = [psnr, aligned_psnr, ssim, ms_ssim, rmse, mae, error_std, pcc]
SYMMETRIC = [psnr, ssim, ms_ssim, rmse, mae, error_std, pcc]
AT_EQUAL = {psnr: math.inf, aligned_psnr: math.inf, ssim: 1, ms_ssim: 1, rmse: 0, mae: 0, error_std: 0, pcc: 1}
LARGE = (176, 208)


def flat(value: int, dtype: type = np.uint8) -> np.ndarray:
    return np.full((20, 20), value, dtype)


def as_batch(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture.astype(np.float32))[None, None]


def test_rmse_and_psnr_by_hand():
    assert rmse(flat(10), flat(20)) == 10
    assert rmse(flat(0), flat(255)) == 255
    assert psnr(flat(0), flat(255)) == 0
    assert psnr(flat(10), flat(20)) == pytest.approx(20 * math.log10(25.5))


def test_mae_and_std_by_hand():
    fake, nir = np.array([[10, 20]], np.uint8), np.array([[13, 29]], np.uint8)
    assert mae(fake, nir) == 6
    assert error_std(fake, nir) == 3
    assert error_std(flat(10), flat(20)) == 0  # an offset has no spread


def test_the_error_is_bias_and_spread(noisy):
    fake, nir = noisy()
    bias = fake.mean() - nir.mean()
    assert rmse(fake, nir) ** 2 == pytest.approx(bias**2 + error_std(fake, nir) ** 2)


@pytest.mark.parametrize("score", EVERY)
def test_equal_pictures(score, noisy):
    _, nir = noisy(LARGE)
    assert score(nir, nir) == pytest.approx(AT_EQUAL[score], abs=1e-6)


@pytest.mark.parametrize("score", SYMMETRIC)
def test_symmetry(score, noisy):
    fake, nir = noisy(LARGE)
    assert score(fake, nir) == pytest.approx(score(nir, fake), rel=1e-5)


@pytest.mark.parametrize("score", EVERY)
def test_depths_score_alike(score, noisy):
    fake, nir = noisy(LARGE)
    deep = [picture.astype(np.uint16) * 257 for picture in (fake, nir)]
    real = [(picture / 255).astype(np.float32) for picture in (fake, nir)]
    assert score(*deep) == pytest.approx(score(fake, nir), rel=1e-5)
    assert score(*real) == pytest.approx(score(fake, nir), rel=1e-5)
    assert score(deep[0], nir) == pytest.approx(score(fake, nir), rel=1e-5)


@pytest.mark.parametrize("score", EVERY)
def test_flipping_both_changes_nothing(score, noisy):
    fake, nir = noisy(LARGE)
    flipped = [np.ascontiguousarray(picture[:, ::-1]) for picture in (fake, nir)]
    assert score(*flipped) == pytest.approx(score(fake, nir), rel=1e-5)


def test_psnr_rmse_and_mae_agree_with_skimage_and_numpy(noisy):
    fake, nir = noisy()
    assert psnr(fake, nir) == pytest.approx(peak_signal_noise_ratio(nir, fake, data_range=255))
    assert rmse(fake, nir) == pytest.approx(math.sqrt(mean_squared_error(nir.astype(float), fake.astype(float))))
    assert mae(fake, nir) == pytest.approx(np.abs(fake.astype(int) - nir).mean())


def test_pcc_agrees_with_numpy(noisy):
    fake, nir = noisy()
    assert pcc(fake, nir) == pytest.approx(np.corrcoef(fake.ravel(), nir.ravel())[0, 1])
    assert pcc(255 - nir, nir) == pytest.approx(-1)
    assert math.isnan(pcc(flat(9), nir[:20, :20]))


def test_ssim_agrees_with_skimage(noisy):
    fake, nir = noisy()
    expected = structural_similarity(
        fake, nir, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(fake, nir, border="valid") == pytest.approx(expected, abs=1e-4)


def test_ms_ssim_agrees_with_torchmetrics(noisy):
    fake, nir = noisy((176, 192))
    expected = multiscale_structural_similarity_index_measure(as_batch(fake), as_batch(nir), data_range=255.0)
    assert ms_ssim(fake, nir) == pytest.approx(expected.item(), abs=2e-3)  # which mirrors the borders


def test_ms_ssim_agrees_with_the_package_of_that_name(noisy):
    reference = pytest.importorskip("pytorch_msssim", reason="needs pytorch-msssim")
    fake, nir = noisy((176, 192))
    expected = reference.ms_ssim(as_batch(fake), as_batch(nir), data_range=255).item()
    assert ms_ssim(fake, nir) == pytest.approx(expected, abs=1e-4)


def test_ms_ssim_of_small_and_of_inverted_pictures(noisy):
    fake, nir = noisy((MS_SSIM_LEAST - 1, 200))
    assert math.isnan(ms_ssim(fake, nir))
    fake, nir = noisy((MS_SSIM_LEAST, MS_SSIM_LEAST))
    assert 0 < ms_ssim(fake, nir) < 1
    assert ms_ssim(255 - nir, nir) == 0  # structure is negative at every scale


def test_alignment_takes_gain_and_offset_out(noisy):
    fake, nir = noisy()
    darker = (nir * 0.25 + 30).astype(np.float32) / 255
    assert psnr(darker, nir) < 20
    assert aligned_psnr(darker, nir) == math.inf
    columns = np.c_[fake.ravel(), np.ones(fake.size)].astype(float)
    fitted = columns @ np.linalg.lstsq(columns, nir.ravel().astype(float), rcond=None)[0]
    expected = 20 * math.log10(255 / math.sqrt(np.mean((fitted - nir.ravel()) ** 2)))
    assert aligned_psnr(fake, nir) == pytest.approx(expected)
    assert aligned_psnr(fake, nir) > psnr(fake, nir)


def test_alignment_does_not_invert(noisy):
    _, nir = noisy()
    flat_at_best = 20 * math.log10(255 / nir.std())
    assert aligned_psnr(255 - nir, nir) == pytest.approx(flat_at_best)
    assert aligned_psnr(np.full_like(nir, 7), nir) == pytest.approx(flat_at_best)


def test_ndvi_by_hand():
    red, nir = np.array([[50, 0, 10]], np.uint8), np.array([[150, 0, 0]], np.uint8)
    fake = np.array([[50, 40, 0]], np.uint8)
    assert ndvi(red, nir).tolist() == [[0.5, 0, -1]]
    assert ndvi_error_map(red, fake, nir).tolist() == [[-0.5, 1, 0]]
    assert ndvi_error(red, fake, nir) == pytest.approx(0.5)
    assert ndvi_error(red, nir, nir) == 0


def test_ndvi_does_not_depend_on_depth(noisy):
    red, nir = noisy()
    assert np.allclose(ndvi(red.astype(np.uint16) * 257, nir), ndvi(red, nir))


def test_one_pixel():
    one, other = np.array([[9]], np.uint8), np.array([[12]], np.uint8)
    assert ssim(one, one) == pytest.approx(1)
    assert rmse(one, other) == 3
    assert aligned_psnr(one, other) == math.inf
