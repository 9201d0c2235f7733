"""Pictures of two kinds, to be told apart."""

from pathlib import Path

import cv2
import numpy as np


def meadow(seed: int, side: int = 128) -> np.ndarray:
    """Sky above grass, each in a shade of its own."""
    rng = np.random.default_rng(seed)
    picture = np.empty((side, side, 3), np.uint8)
    horizon = int(side * rng.uniform(0.3, 0.6))
    picture[:horizon] = rng.normal([120, 160, 220], 8)
    picture[horizon:] = rng.normal([70, 130, 60], 8)
    return cv2.add(picture, rng.integers(0, 12, picture.shape, dtype=np.uint8))


def noise(seed: int, side: int = 128) -> np.ndarray:
    """Each pixel of any colour."""
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def write_meadows(folder: Path, seed: int, count: int) -> Path:
    """So many files in a new folder."""
    folder.mkdir(parents=True)
    for number in range(seed, seed + count):
        cv2.imwrite(str(folder / f"{number}.png"), meadow(number)[:, :, ::-1])
    return folder
