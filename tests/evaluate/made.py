"""Small data and quick stand-ins for the metrics' networks."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pix2next.evaluate import scorer
from pix2next.evaluate.baselines import LinearMap

NAMES = ["b", "a", "sub/c"]
TRUTH = LinearMap(0.1, 0.6, 0.1, 0.1)


class Brightness(torch.nn.Module):
    """Stands for a network: fast, needs no weights, and is 0 for equal pictures."""

    source = "brightness.pth"

    def __init__(self, *options):
        super().__init__()

    def features(self, picture):
        return [picture.mean(dim=(2, 3))]

    def distance(self, fake, nir):
        return (fake[0] - nir[0]).abs().flatten()


class Moments(torch.nn.Module):
    """Stands for Inception."""

    source = "moments.pth"

    def __init__(self, *options):
        super().__init__()

    def features(self, picture):
        return torch.stack([picture.mean(), picture.square().mean()])[None]


def lighten(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, network in {"LPIPS": Brightness, "DISTS": Brightness, "Inception": Moments}.items():
        monkeypatch.setattr(scorer, name, network)


def write(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture[..., ::-1] if picture.ndim == 3 else picture)


def make_split(folder: Path, names: list[str] = NAMES, seed: int = 0, size: tuple[int, int] = (40, 50)) -> Path:
    noise = np.random.default_rng(seed)
    for name in names:
        rgb = noise.integers(0, 256, (*size, 3)).astype(np.uint8)
        write(folder / "rgb" / f"{name}.png", rgb)
        write(folder / "nir" / f"{name}.png", TRUTH.apply(rgb))
    return folder


def make_folder(folder: Path, split: Path, gain: float = 0.8) -> Path:
    """Pictures of another tool: the truth, darker."""
    for path in (split / "nir").rglob("*.png"):
        nir = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        write(folder / path.relative_to(split / "nir"), (nir * gain).astype(np.uint8))
    return folder


def red(rgb: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rgb[..., 0])


def lose_a_partner(data: Path) -> None:
    (data / "nir" / "a.png").unlink()


def change_a_size(data: Path) -> None:
    write(data / "nir" / "a.png", np.zeros((9, 9), np.uint8))


def cut_short(data: Path) -> None:
    path = data / "rgb" / "a.png"
    path.write_bytes(path.read_bytes()[:200])
