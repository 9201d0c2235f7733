"""Weights for the metrics' networks, or none of them."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch


@pytest.fixture
def torch_home(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AlexNet, VGG16 and FID's Inception where torch's hub looks for them."""
    monkeypatch.setenv("TORCH_HOME", str(shared / "torch_home"))


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty hub folder, and no network to fill it from."""

    def unreachable(*args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch_home"))
    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
