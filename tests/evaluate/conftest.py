"""Weights for the metrics' networks, or none of them."""

from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch


@pytest.fixture
def torch_home(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AlexNet, VGG16 and FID's Inception where torch's hub looks for them."""
    monkeypatch.setenv("TORCH_HOME", str(shared / "torch_home"))
    # The references build VGG16's classifier too: 124 million numbers, drawn at random only to be replaced.
    monkeypatch.setattr(torch.nn.Linear, "reset_parameters", lambda layer: None)


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty hub folder, and no network to fill it from."""

    def unreachable(*args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch_home"))
    monkeypatch.setattr(torch.hub, "urlopen", unreachable)


@pytest.fixture(scope="session")
def noisy() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Makes a picture with some structure, and the same with noise: made, true."""

    def make(size: tuple[int, int] = (48, 61), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        noise = np.random.default_rng(seed)
        nir = np.cumsum(noise.integers(-9, 10, size), axis=1).clip(-128, 127).astype(np.int16) + 128
        fake = (nir + noise.integers(-30, 31, size)).clip(0, 255)
        return fake.astype(np.uint8), nir.astype(np.uint8)

    return make
