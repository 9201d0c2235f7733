"""What the tests share: where the data of `../shared` lies, when it is there."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_sessionstart() -> None:
    """Let tests import torchvision, timm and torchmetrics themselves; the shape checks are in place by now."""
    import pix2next._torchvision  # noqa: F401


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real pairs, golden tensors and metric weights."""
    folder = Path(os.environ.get("PIX2NEXT_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"needs the data folder {folder} (or PIX2NEXT_SHARED)")
    return folder


@pytest.fixture(scope="session")
def goldens(shared: Path) -> Path:
    """Input and output tensors of the released code."""
    return shared / "goldens"


@pytest.fixture(scope="session")
def outdoor(shared: Path) -> Path:
    """Real pairs: {train,val,test}/{rgb,nir}."""
    return shared / "data" / "outdoor"
