"""The script that makes worse copies of a test split."""

import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from pix2next.images import read_nir, read_rgb

SCRIPT = Path(__file__).parents[1] / "scripts" / "disturb.py"


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By disturbance, the RGB and the NIR copy; `taken` is what they were made of."""
    folder = tmp_path_factory.mktemp("disturbed")
    rng = np.random.default_rng(0)
    rgb = cv2.resize(rng.integers(40, 160, (8, 8, 3), dtype=np.uint8), (64, 48))
    nir = rng.integers(0, 65536, (48, 64), dtype=np.uint16)
    for kind, picture in {"rgb": rgb, "nir": nir}.items():
        (folder / "test" / kind / "day").mkdir(parents=True)
        cv2.imwrite(str(folder / "test" / kind / "day" / "one.png"), picture)
    command = [sys.executable, str(SCRIPT), str(folder / "test"), str(folder / "out")]
    subprocess.run(command, check=True, capture_output=True)
    names = [it.name for it in (folder / "out").iterdir()]
    assert set(names) == set(runpy.run_path(str(SCRIPT))["DISTURBANCES"])
    splits = {name: folder / "out" / name for name in names} | {"taken": folder / "test"}
    one = Path("day", "one.png")
    return {name: (read_rgb(it / "rgb" / one), read_nir(it / "nir" / one)) for name, it in splits.items()}


def test_only_the_rgb_changes(copies):
    rgb, nir = copies["taken"]
    for name in copies.keys() - {"taken"}:
        changed, kept = copies[name]
        assert changed.shape == rgb.shape and changed.dtype == np.uint8
        assert np.abs(changed.astype(float) - rgb).mean() > 0.5, name
        np.testing.assert_array_equal(kept, nir)


@pytest.mark.parametrize(
    ("name", "gains"), [("warm", (1.15, 1, 0.7)), ("cold", (0.7, 1, 1.15)), ("dark", 0.4), ("bright", 1.5)]
)
def test_lamps_and_exposures_multiply_the_light(copies, name, gains):
    wanted = (copies["taken"][0] * np.array(gains)).clip(0, 255)
    np.testing.assert_allclose(copies[name][0], wanted, atol=0.5)


def test_haze_noise_blur_and_jpeg(copies):
    rgb = copies["taken"][0].astype(float)
    np.testing.assert_allclose(copies["hazy"][0], rgb / 2 + 0.4 * 255, atol=0.5)
    noise = copies["noisy"][0] - rgb
    assert abs(noise.mean()) < 1 and noise.std() == pytest.approx(0.05 * 255, rel=0.1)
    edges = {name: np.abs(np.diff(copies[name][0].astype(float), axis=1)).mean() for name in ("taken", "soft")}
    assert edges["soft"] < 0.95 * edges["taken"]
    assert np.abs(copies["jpeg"][0] - rgb).max() > 4


def test_pairs_that_are_none_are_one_sentence(tmp_path):
    command = [sys.executable, str(SCRIPT), str(tmp_path / "absent"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "absent" in done.stderr
    assert not (tmp_path / "out").exists()
