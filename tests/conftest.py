"""What the tests share: a network, and where the data of `../shared` lies, when it is there."""

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
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a network that takes milliseconds."""
    import torch

    from pix2next.config import GeneratorConfig, ModelConfig, VfmConfig
    from pix2next.model.pix2next import Pix2Next

    torch.manual_seed(0)
    generator = GeneratorConfig(
        widths=(8, 8), encoder_blocks=(1, 1), bottleneck_blocks=1, decoder_blocks=(1, 1), norm="none", fusions=()
    )
    model = Pix2Next(ModelConfig(vfm=VfmConfig(name="none"), generator=generator))
    path = tmp_path_factory.mktemp("network") / "noise.safetensors"
    model.save(path)
    return path


@pytest.fixture(scope="session")
def goldens(shared: Path) -> Path:
    """Input and output tensors of the released code."""
    return shared / "goldens"


@pytest.fixture(scope="session")
def outdoor(shared: Path) -> Path:
    """Real pairs: {train,val,test}/{rgb,nir}."""
    return shared / "data" / "outdoor"
