"""A few pairs that a network learns within seconds, and the settings of such a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pix2next.config import Config

GENERATOR = {
    "widths": [12, 16],
    "encoder_blocks": [1, 1],
    "decoder_blocks": [1, 1],
    "bottleneck_blocks": 1,
    "fusions": [],
}


def put_pairs(root: Path, split: str, count: int, first: int) -> None:
    """Smooth colour fields whose NIR is a function of them."""
    for index in range(first, first + count):
        rgb = np.random.default_rng(index).integers(0, 256, (6, 6, 3)).astype(np.uint8)
        rgb = cv2.resize(rgb, (48, 40), interpolation=cv2.INTER_CUBIC)
        nir = np.clip(220.0 - rgb[..., 0] * 0.6 + rgb[..., 1] * 0.2, 0, 255).astype(np.uint8)
        for kind, picture in {"rgb": rgb[..., ::-1], "nir": nir}.items():
            folder = root / split / kind
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{index}.png"), picture)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two training and two validation pairs."""
    put_pairs(tmp_path / "data", "train", 2, 0)
    put_pairs(tmp_path / "data", "val", 2, 10)
    return tmp_path / "data"


@pytest.fixture
def eight_pairs(tmp_path: Path) -> Path:
    """Eight training pairs and two for validation."""
    put_pairs(tmp_path / "eight", "train", 8, 0)
    put_pairs(tmp_path / "eight", "val", 2, 10)
    return tmp_path / "eight"


@pytest.fixture
def settings() -> Callable[..., Config]:
    """`settings(data, loss={...}, discriminator={...}, **train)`: a run of six steps on a network of seconds."""

    def make(data: Path, loss: dict[str, Any] | None = None, **train: Any) -> Config:
        discriminator = train.pop("discriminator", {})
        defaults = {"steps": 6, "batch_size": 2, "learning_rate": 2e-3, "warmup_steps": 2}
        return Config.model_validate(
            {
                "model": {"vfm": {"name": "none"}, "generator": GENERATOR},
                "data": {"root": data, "crop": 32, "workers": 0, "cache": True, "jitter": 0.0},
                "discriminator": {"width": 4, "layers": 2, "norm": "none", **discriminator},
                "loss": {"l1": 10.0, **(loss or {})},
                "train": {**defaults, "log_every": 2, "validate_every": 3, **train},
            }
        )

    return make
