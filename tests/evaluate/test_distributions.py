"""Distances of sets of features, by hand and against scipy, torch-fidelity and torchmetrics."""

import itertools
import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from pix2next.evaluate.distributions import (
    frechet_distance,
    gaussian_kernel_distance,
    kernel_distance,
    precision,
    rank_deficient,
    recall,
)

EVERY = [frechet_distance, kernel_distance, precision, recall, gaussian_kernel_distance]


def sets(count: int = 40, width: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    noise = np.random.default_rng(seed)
    mixing = noise.normal(size=(width, width)) / 4
    nir = noise.normal(size=(count, width)) @ mixing
    fake = noise.normal(size=(count, width)) @ (mixing * 0.9) + 0.2
    return fake.astype(np.float32), nir.astype(np.float32)


def by_sqrtm(fake: np.ndarray, nir: np.ndarray) -> float:
    x, y = fake.astype(np.float64), nir.astype(np.float64)
    c1, c2 = np.cov(x.T), np.cov(y.T)
    root = scipy.linalg.sqrtm(c1 @ c2).real
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * root)


def test_frechet_by_hand():
    """One feature: (m1 - m2)^2 + (s1 - s2)^2."""
    fake, nir = np.array([[0.0], [2.0]]), np.array([[10.0], [16.0]])
    assert frechet_distance(fake, nir) == pytest.approx(12**2 + (18**0.5 - 2**0.5) ** 2)


@pytest.mark.parametrize(("count", "width"), [(40, 16), (300, 16), (17, 16)])
def test_frechet_agrees_with_scipy(count, width):
    fake, nir = sets(count, width)
    assert frechet_distance(fake, nir) == pytest.approx(by_sqrtm(fake, nir), abs=1e-6)


def test_frechet_of_few_pictures_agrees_with_torch_fidelity():
    """Fewer pictures than features: the covariance has lost rank, where a matrix root is hard."""
    fake, nir = sets(20, 64)
    statistics = [fid_features_to_statistics(torch.from_numpy(x).double()) for x in (fake, nir)]
    expected = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(fake, nir) == pytest.approx(expected, abs=1e-4)


def test_kernel_distance_agrees_with_torch_fidelity():
    fake, nir = sets()
    options = {"kid_subsets": 1, "kid_subset_size": len(fake), "kid_kernel": "poly", "kid_kernel_poly_degree": 3}
    expected = kid_features_to_metric(
        torch.from_numpy(fake).double(),
        torch.from_numpy(nir).double(),
        kid_kernel_poly_gamma=None,
        kid_kernel_poly_coef0=1,
        rng_seed=0,
        verbose=False,
        **options,
    )
    assert kernel_distance(fake, nir) == pytest.approx(expected["kernel_inception_distance_mean"], abs=1e-6)


@pytest.mark.parametrize("shift", [0.0, 0.6, 20.0])
def test_precision_and_recall_agree_with_torch_fidelity(shift):
    fake, nir = sets()
    fake = (fake * 0.5 + shift).astype(np.float32)
    expected = prc_features_to_metric(
        torch.from_numpy(fake), torch.from_numpy(nir), prc_neighborhood=3, prc_batch_size=7, save_cpu_ram=True,
        verbose=False,
    )  # fmt: skip
    assert precision(fake, nir) == pytest.approx(expected["precision"])
    assert recall(fake, nir) == pytest.approx(expected["recall"])


def test_precision_and_recall_by_hand():
    """Four made pictures in one corner of the true ones: all look true, and the rest of the truth is missed."""
    nir = np.array([[0.0], [1.0], [2.0], [3.0], [100.0], [101.0], [102.0], [103.0]])
    fake = np.array([[0.0], [1.0], [2.0], [3.0]])
    assert precision(fake, nir) == 1
    assert recall(fake, nir) == 0.5


def test_gaussian_kernel_distance_by_brute_force():
    fake, nir = sets(9, 5)

    def mean_kernel(xs, ys):
        return np.mean([math.exp(-((x - y) ** 2).sum() / 200) for x, y in itertools.product(xs, ys)])

    x, y = fake.astype(float), nir.astype(float)
    expected = 1000 * (mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y))
    assert gaussian_kernel_distance(fake, nir) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("score", EVERY)
def test_order_does_not_matter(score):
    fake, nir = sets()
    shuffled = np.random.default_rng(1).permutation(len(fake))
    assert score(fake[shuffled], nir) == pytest.approx(score(fake, nir), rel=1e-9)
    assert score(fake, nir[::-1]) == pytest.approx(score(fake, nir), rel=1e-9)


@pytest.mark.parametrize("score", [frechet_distance, kernel_distance, gaussian_kernel_distance])
def test_symmetry(score):
    fake, nir = sets()
    assert score(fake, nir) == pytest.approx(score(nir, fake))


def test_equal_sets():
    _, nir = sets()
    assert frechet_distance(nir, nir) == pytest.approx(0, abs=1e-9)
    assert gaussian_kernel_distance(nir, nir) == pytest.approx(0, abs=1e-9)
    assert kernel_distance(nir, nir) < 0  # without bias, so below 0 for a set and itself
    assert precision(nir, nir) == recall(nir, nir) == 1


def test_more_rows_than_are_held_at_a_time(monkeypatch):
    fake, nir = sets()
    whole = [score(fake, nir) for score in EVERY]
    monkeypatch.setattr("pix2next.evaluate.distributions._ROWS", 7)
    assert [score(fake, nir) for score in EVERY] == pytest.approx(whole)


def test_sets_that_are_too_small():
    fake, nir = sets(1)
    assert math.isnan(frechet_distance(fake, nir))
    assert math.isnan(kernel_distance(fake, nir))
    fake, nir = sets(3)
    assert math.isnan(precision(fake, nir))
    assert math.isnan(recall(fake, nir))


def test_rank_of_the_covariance():
    for count, width in ((16, 16), (17, 16), (5, 16)):
        _, nir = sets(count, width)
        rank = np.linalg.matrix_rank(np.cov(nir.astype(np.float64).T))
        assert rank_deficient(count, width) == (rank < width)
