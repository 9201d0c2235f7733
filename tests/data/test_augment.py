"""Crops: one draw for both pictures, an order fixed by seed and number, bad files named and passed over."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pix2next.config import DataConfig
from pix2next.data.augment import TrainingCrops, colour_cast, crop_and_flip, jitter, through_jpeg
from pix2next.data.pairs import Pair, find_pairs
from pix2next.errors import PairError

CONFIG = DataConfig(crop=16, scale=(0.5, 1.0), jitter=0.0)


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    """Five pairs whose NIR is the RGB's green."""
    rng = np.random.default_rng(0)
    for index in range(5):
        rgb = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        for kind, picture in {"rgb": rgb[..., ::-1], "nir": rgb[..., 1]}.items():
            (tmp_path / kind).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / kind / f"{index}.png"), picture)
    return find_pairs(tmp_path / "rgb", tmp_path / "nir")


def test_both_pictures_get_the_same_draw(pairs: list[Pair]) -> None:
    config = CONFIG.model_copy(update={"rotate": True})
    for n in range(20):
        sample = TrainingCrops(pairs, config, seed=1)[n]
        assert sample["rgb"].shape == (3, 16, 16) and sample["nir"].shape == (1, 16, 16)
        assert torch.equal(sample["rgb"][1], sample["nir"][0])


def test_samples_depend_on_seed_and_number_alone(pairs: list[Pair]) -> None:
    one, other = TrainingCrops(pairs, CONFIG, seed=1), TrainingCrops(pairs, CONFIG, seed=1)
    backwards = {n: other[n]["rgb"] for n in reversed(range(12))}
    assert all(torch.equal(one[n]["rgb"], backwards[n]) for n in range(12))
    assert not torch.equal(one[0]["rgb"], TrainingCrops(pairs, CONFIG, seed=2)[0]["rgb"])
    cached = TrainingCrops(pairs, CONFIG.model_copy(update={"cache": True}), seed=1)
    assert all(torch.equal(cached[n]["rgb"], backwards[n]) for n in range(12))


def test_unpaired_samples_take_both_pictures_from_orders_of_their_own(tmp_path: Path) -> None:
    """Pictures that are flat at their pair's number say which pair they are of."""
    for index in range(6):
        for kind, shape in {"rgb": (20, 20, 3), "nir": (20, 20)}.items():
            (tmp_path / kind).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / kind / f"{index}.png"), np.full(shape, 20 * index, np.uint8))
    pairs = find_pairs(tmp_path / "rgb", tmp_path / "nir")
    config = CONFIG.model_copy(update={"unpaired": True})
    crops = TrainingCrops(pairs, config, seed=3)
    shown = [
        tuple(round((sample[kind].mean().item() + 1) / 2 * 255 / 20) for kind in ("rgb", "nir"))
        for sample in map(crops.__getitem__, range(36))
    ]
    for epoch in range(6):
        rgbs, nirs = zip(*shown[6 * epoch : 6 * epoch + 6], strict=True)
        assert sorted(rgbs) == sorted(nirs) == list(range(6))
    assert sum(rgb == nir for rgb, nir in shown) < 18
    again = TrainingCrops(pairs, config, seed=3)
    assert all(torch.equal(again[n][kind], crops[n][kind]) for n in (30, 2, 17) for kind in ("rgb", "nir"))
    paired = TrainingCrops(pairs, CONFIG, seed=3)
    assert all(torch.equal(paired[n]["rgb"], crops[n]["rgb"]) for n in range(6))


def test_unpaired_samples_are_cropped_apart(pairs: list[Pair]) -> None:
    crops = TrainingCrops(pairs[:1], CONFIG.model_copy(update={"unpaired": True}), seed=1)
    assert not any(torch.equal(crops[n]["rgb"][1], crops[n]["nir"][0]) for n in range(10))


def test_an_epoch_shows_every_pair_once(pairs: list[Pair], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def record(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        seen.append(pair.name)
        return np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20), np.uint8)

    monkeypatch.setattr("pix2next.data.augment.load_pair", record)
    crops = TrainingCrops(pairs, CONFIG, seed=0)
    for n in range(15):
        crops[n]
    epochs = [seen[start : start + 5] for start in (0, 5, 10)]
    assert all(sorted(epoch) == list("01234") for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_a_corrupt_file_is_named_once_and_passed_over(pairs: list[Pair], caplog: pytest.LogCaptureFixture) -> None:
    pairs[2].nir.write_bytes(b"gone")
    crops = TrainingCrops(pairs, CONFIG, seed=0)
    for n in range(10):
        crops[n]
    assert ["2.png" in record.getMessage() for record in caplog.records] == [True]
    for pair in pairs:
        pair.rgb.write_bytes(b"gone")
    with pytest.raises(PairError, match="none of the 5 training pairs can be read"):
        TrainingCrops(pairs, CONFIG, seed=0)[0]


@pytest.mark.parametrize("shape", [(1, 1), (5, 300), (16, 16), (33, 17)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pictures_smaller_than_the_crop_grow(shape: tuple[int, int], dtype: type) -> None:
    rgb, nir = crop_and_flip(np.ones((*shape, 3), dtype), np.ones(shape, dtype), CONFIG, np.random.default_rng(0))
    assert rgb.shape == (16, 16, 3) and nir.shape == (16, 16)
    assert rgb.dtype == nir.dtype == dtype
    assert np.all(rgb == 1)


def test_windows_have_the_size_that_scale_says() -> None:
    column = np.broadcast_to(np.arange(200, dtype=np.float32), (200, 200))
    config = DataConfig(crop=16, scale=(0.25, 0.25), flip=False)
    _, nir = crop_and_flip(np.zeros((200, 200, 3), np.float32), column, config, np.random.default_rng(0))
    assert np.diff(nir[0]).mean() == pytest.approx(4)


def test_stretched_windows_keep_their_area_and_the_pairing() -> None:
    """Ramps over rows and columns tell how much of a picture a crop shows either way."""
    nir = np.add.outer(1000 * np.arange(200, dtype=np.float32), np.arange(200, dtype=np.float32))
    rgb = np.stack([nir] * 3, axis=2)
    config = DataConfig(crop=16, scale=(0.25, 0.25), stretch=0.5, flip=False)
    shapes = []
    for n in range(200):
        both = crop_and_flip(rgb, nir, config, np.random.default_rng(n))
        assert both[1].shape == (16, 16) and np.array_equal(both[0][..., 1], both[1])
        shapes.append((np.diff(both[1], axis=0).mean() / 1000, np.diff(both[1], axis=1).mean()))
    tall, wide = np.array(shapes).T
    assert tall * wide == pytest.approx(16, rel=0.05)
    ratios = tall / wide
    assert 1 / 1.55 < ratios.min() < 0.7 and 1.43 < ratios.max() < 1.55
    assert np.log(ratios).mean() == pytest.approx(0, abs=0.06)


@pytest.mark.parametrize("shape", [(1, 1), (5, 300), (16, 16), (33, 17)])
def test_stretched_windows_end_where_the_picture_does(shape: tuple[int, int]) -> None:
    config = CONFIG.model_copy(update={"stretch": 1.0})
    for n in range(20):
        rgb, nir = crop_and_flip(np.ones((*shape, 3)), np.ones(shape), config, np.random.default_rng(n))
        assert rgb.shape == (16, 16, 3) and nir.shape == (16, 16)


@pytest.mark.parametrize("shape", [(1, 1), (5, 300), (16, 16), (33, 17), (64, 32)])
def test_squashed_pictures_are_shown_whole(shape: tuple[int, int]) -> None:
    config = CONFIG.model_copy(update={"fit": "squash", "flip": False})
    nir = np.random.default_rng(0).random(shape, dtype=np.float32)
    rgb = np.stack([nir] * 3, axis=2)
    both = crop_and_flip(rgb, nir, config, np.random.default_rng(1))
    squashed = both[1]
    assert squashed.shape == (16, 16)
    assert np.array_equal(both[0][..., 1], squashed)
    assert np.array_equal(squashed, crop_and_flip(rgb, nir, config, np.random.default_rng(2))[1])
    if shape == (64, 32):
        assert np.allclose(squashed, nir.reshape(16, 4, 16, 2).mean(axis=(1, 3)), atol=1e-6)
    if shape == (5, 300):
        assert squashed.mean() == pytest.approx(nir.mean(), abs=0.02)
    if shape == (16, 16):
        assert np.array_equal(squashed, nir)


def test_squashed_pictures_flip_and_turn_by_their_own_settings() -> None:
    nir = np.arange(256, dtype=np.float32).reshape(16, 16)
    rgb = np.stack([nir] * 3, axis=2)
    seen = {}
    for flip, rotate in [(False, False), (True, False), (False, True), (True, True)]:
        config = CONFIG.model_copy(update={"fit": "squash", "flip": flip, "rotate": rotate})
        draws = [crop_and_flip(rgb, nir, config, np.random.default_rng(n))[1] for n in range(60)]
        seen[flip, rotate] = len({draw.tobytes() for draw in draws})
    assert seen == {(False, False): 1, (True, False): 2, (False, True): 4, (True, True): 8}


def test_jitter_is_bounded_and_leaves_range() -> None:
    grey = torch.zeros(3, 8, 8)
    rng = np.random.default_rng(0)
    levels = torch.stack([(jitter(grey, 0.2, rng) + 1) / 2 for _ in range(200)])
    assert levels.min() >= 0.5 * 0.8 * 0.9 and levels.max() <= 0.5 * 1.2 * 1.1
    assert levels.std() > 0.02
    assert torch.equal(jitter(grey, 0.0, rng), grey)
    assert jitter(torch.ones(3, 4, 4), 0.5, rng).max() <= 1


def test_a_colour_cast_keeps_the_light_and_changes_the_colour() -> None:
    grey = torch.zeros(3, 8, 8)
    tinted = [colour_cast(grey, 0.4, np.random.default_rng(seed)) for seed in range(20)]
    assert all(it.mean().item() == pytest.approx(0, abs=1e-5) for it in tinted)
    spreads = [(it.amax(0) - it.amin(0)).max().item() for it in tinted]
    assert min(spreads) > 0.01 and max(spreads) < 1
    assert torch.equal(colour_cast(grey - 1, 0.4, np.random.default_rng(0)), grey - 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_jpeg_is_eight_bits_and_near(dtype: type[np.unsignedinteger]) -> None:
    scale = np.iinfo(dtype).max // 255
    ramp = np.broadcast_to(np.arange(64, dtype=dtype)[:, None, None] * 3 * scale, (64, 48, 3))
    back = through_jpeg(ramp, 95)
    assert back.dtype == np.uint8 and back.shape == ramp.shape
    assert np.abs(back.astype(int) - ramp // scale).max() <= 6


def test_disturbances_touch_the_rgb_alone_and_are_drawn_by_number(pairs: list[Pair]) -> None:
    plain = TrainingCrops(pairs, CONFIG, seed=1)
    disturbed = TrainingCrops(pairs, CONFIG.model_copy(update={"jpeg": 1.0, "cast": 0.3}), seed=1)
    for n in range(5):
        assert torch.equal(plain[n]["nir"], disturbed[n]["nir"])
        assert not torch.equal(plain[n]["rgb"], disturbed[n]["rgb"])
        assert torch.equal(disturbed[n]["rgb"], disturbed[n]["rgb"])
