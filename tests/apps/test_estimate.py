"""A dry run: what would be done, counted from the heads of files, and an estimate that scales with the pixels."""

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch import nn

from pix2next.apps.estimate import dry_run
from pix2next.apps.jobs import Output
from pix2next.errors import ImageError
from pix2next.images import read_size
from pix2next.translate import Translator


class Steady(nn.Module):
    """Takes a second of a stopped clock for every thousand pixels."""

    multiple = 8
    calls = 0
    now = 0.0

    def forward(self, rgb):
        self.calls += 1
        self.now += rgb[:, 0].numel() / 1000
        return rgb[:, 1:2]


@pytest.fixture
def model(monkeypatch):
    model = Steady()
    monkeypatch.setattr(time, "perf_counter", lambda: model.now)
    return model


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(path, width=40, height=24):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((height, width, 3), 9, np.uint8))


def test_counts_sizes_and_bytes(here, model):
    picture("in/a.png", 40, 24)
    picture("in/deep/b.jpg", 80, 16)
    picture("in/c.png")
    picture("out/c.png")
    Path("in/bad.png").write_text("no picture")
    before = sorted(Path(".").rglob("*"))
    plan, failed = dry_run(["in", "absent"], Path("out"), Translator(model, device="cpu"), Output(overwrite=False))
    assert (plan.total, plan.existing, plan.failed) == (2, 1, 2)
    assert plan.pixels == 40 * 24 + 80 * 16
    assert plan.bytes == sum(Path(name).stat().st_size for name in ("in/a.png", "in/deep/b.jpg"))
    assert [path for path, _ in failed] == ["absent", str(Path("in/bad.png"))]
    assert sorted(Path(".").rglob("*")) == before


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_estimate_is_what_the_network_takes(here, model, batch_size):
    """A network whose time is proportional to its pixels is foretold exactly: padding and shared tiles included."""
    for number, (width, height) in enumerate([(37, 25), (40, 24), (40, 24), (300, 200)]):
        picture(f"in/{number}.png", width, height)
    translator = Translator(model, device="cpu", tile=64)
    plan, _ = dry_run(["in"], Path("out"), translator, batch_size=batch_size)
    before = model.now
    for number in range(4):
        translator(cv2.imread(f"in/{number}.png"))
    assert plan.estimated_seconds == pytest.approx(model.now - before, rel=0.01)
    assert f"{batch_size} x 37 x 25 pixels" in plan.sample


def test_what_is_timed_is_warm_and_does_not_take_long(here, model):
    for size, calls in ((24, 4), (640, 2)):  # 0.6 and 410 seconds a pass, of which 3, or as many as fill 2 seconds.
        picture(f"in{size}/a.png", size, size)
        model.calls = 0
        dry_run([f"in{size}"], Path("out"), Translator(model, device="cpu"))
        assert model.calls == calls


def test_nothing_to_do_takes_no_time(here, model):
    Path("in").mkdir()
    plan, failed = dry_run(["in"], Path("out"), Translator(model, device="cpu"))
    assert (plan.total, plan.pixels, plan.estimated_seconds, model.calls) == (0, 0, None, 0)
    assert failed == [("in", "in: no pictures in this folder")]


def test_what_a_run_would_refuse_is_refused(here, model):
    picture("in/a.png")
    with pytest.raises(ImageError, match="lies in in"):
        dry_run(["in"], Path("in/nir"), Translator(model, device="cpu"))


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".webp", ".bmp"])
def test_the_head_tells_the_size(here, ending):
    picture(f"a{ending}", 41, 23)
    assert read_size(f"a{ending}") == (41, 23)


def test_a_damaged_head_is_one_sentence(here):
    Path("a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    with pytest.raises(ImageError, match=r"^a\.png: this PNG file is damaged"):
        read_size("a.png")


def test_pixels_that_the_network_gets():
    translator = Translator(Steady(), device="cpu", tile=64)
    assert translator.network_pixels(1, 1) == 64
    assert translator.network_pixels(64, 33) == 64 * 40
    assert translator.network_pixels(8, 120) > 8 * 120
