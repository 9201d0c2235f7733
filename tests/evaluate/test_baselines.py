"""The trivial translations."""

import numpy as np
import pytest

from pix2next.evaluate.baselines import LinearMap
from pix2next.images import luma


def rgb(seed: int = 0, dtype: type = np.uint8, size: tuple[int, int] = (30, 41)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (*size, 3), endpoint=True).astype(dtype)


def test_fit_finds_the_mixture_that_made_the_pictures():
    truth = LinearMap(0.2, 0.5, -0.3, 0.3)
    pairs = [(picture, truth.apply(picture)) for picture in (rgb(0, np.uint16), rgb(1, np.uint16))]
    assert LinearMap.fit(pairs) == pytest.approx(truth, abs=1e-4)


def test_fit_agrees_with_numpys_least_squares():
    pictures, noise = [rgb(0), rgb(1, size=(7, 90))], np.random.default_rng(5)
    nirs = [noise.integers(0, 256, picture.shape[:2]).astype(np.uint8) for picture in pictures]
    columns = np.concatenate([np.c_[p.reshape(-1, 3) / 255, np.ones(p.size // 3)] for p in pictures])
    expected = np.linalg.lstsq(columns, np.concatenate([n.reshape(-1) for n in nirs]) / 255, rcond=None)[0]
    assert LinearMap.fit(zip(pictures, nirs, strict=True)) == pytest.approx(expected, abs=1e-8)


def test_fit_does_not_depend_on_order_or_depth():
    pairs = [(rgb(seed), luma(rgb(seed + 9))) for seed in range(3)]
    deep = [tuple(picture.astype(np.uint16) * 257 for picture in pair) for pair in pairs]
    assert LinearMap.fit(pairs[::-1]) == pytest.approx(LinearMap.fit(pairs))
    assert LinearMap.fit(deep) == pytest.approx(LinearMap.fit(pairs))


def test_grey_pictures_are_mapped_all_the_same():
    grey = np.repeat(rgb()[:, :, :1], 3, axis=2)
    inverted = 255 - grey[:, :, 0]
    fitted = LinearMap.fit([(grey, inverted)])
    assert fitted.red == pytest.approx(-1 / 3)
    assert np.array_equal(fitted.apply(grey), inverted)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_apply_keeps_size_and_depth_and_cuts_off(dtype):
    made = LinearMap(3, 3, 3, -0.5).apply(rgb(dtype=dtype))
    assert made.shape == (30, 41)
    assert made.dtype == dtype
    assert made.min() == 0
    assert made.max() == np.iinfo(dtype).max


def test_apply_to_floating_point():
    picture = (rgb() / 255).astype(np.float32)
    made = LinearMap(0.25, 0.5, 0.25, 0).apply(picture)
    assert made.dtype == np.float32
    assert made == pytest.approx(picture @ np.array([0.25, 0.5, 0.25]), abs=1e-6)
