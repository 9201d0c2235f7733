"""The throughput benchmark: what it counts, and that its numbers fit together."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from pix2next.apps import throughput
from pix2next.apps.local_engine import Settings
from pix2next.apps.pipeline import StageTimes
from pix2next.apps.throughput import Watched, make_pictures, measure
from pix2next.errors import ConfigError
from pix2next.images import read_rgb
from pix2next.model.views import habit_of

from ..command import run

CPU = torch.device("cpu")


@pytest.fixture
def pictures(tmp_path):
    for number, size in enumerate([(64, 48), (64, 48), (100, 200)]):
        noise = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        (tmp_path / "in").mkdir(exist_ok=True)
        assert cv2.imwrite(str(tmp_path / "in" / f"{number}.png"), noise)
    return tmp_path / "in"


def test_numbers_fit_together(pictures, network):
    seen = []
    it, facts = measure(
        Settings(str(network), "cpu", tile=64, batch_size=2), pictures, rounds=2, threads=1,
        on_progress=lambda *counts: seen.append(counts),
    )  # fmt: skip
    assert (it.pictures, it.batch_size) == (3, 2)
    assert it.rate == pytest.approx(it.of_network * it.network_rate, rel=0.5)
    assert 0 < it.busy <= 1
    assert 0 < it.busy / it.rate <= it.network
    assert min(it.decode, it.encode) > 0
    assert it.waiting >= 0
    assert facts["threads"] == 1
    assert seen == [(0, 2), (1, 2), (2, 2)]


def test_the_network_alone_does_the_same_calls():
    calls = []

    class Counted(nn.Module):
        multiple = 8

        def forward(self, rgb):
            calls.append(tuple(rgb.shape))
            return rgb[:, :1]

    watched = Watched(Counted())
    for shape in ((1, 3, 8, 8), (2, 3, 8, 16), (1, 3, 8, 8)):
        watched(torch.zeros(shape))
    assert len(watched.marks) == 3
    assert len(watched.inputs) == 2
    before = list(calls)
    calls.clear()
    assert watched.again(watched.calls, CPU) > 0
    assert calls == before


def test_a_watched_network_keeps_its_views():
    model = torch.nn.Conv2d(3, 1, 1)
    model.multiple, model.views, model.shrunk = 8, 3, True
    assert habit_of(Watched(model)) == habit_of(model)


def test_busy_counts_time_once():
    marks = [(11.0, 13.0), (12.0, 14.0), (12.5, 12.6), (17.0, 18.0)]
    assert throughput._busy(marks, 10.0, CPU) == pytest.approx(4.0)


def test_medians_of_rounds_beside_the_turns_around_them():
    rounds = [StageTimes(1.0, 8.0, 2.0, 10.0), StageTimes(3.0, 9.0, 2.0, 20.0)]
    it = throughput._summary(rounds, [0.7, 0.9], [8.0, 10.0, 26.0], count=5, batch_size=1)
    assert it.rate == pytest.approx((5 / 10 + 5 / 20) / 2)
    assert it.network_rate == pytest.approx((5 / 9 + 5 / 18) / 2)
    assert it.of_network == pytest.approx((9 / 10 + 18 / 20) / 2)
    assert (it.busy, it.decode, it.network, it.waiting) == pytest.approx((0.8, 0.4, 1.7, 1.3))


def test_pictures_that_are_made_are_full_hd_and_differ(tmp_path):
    folder = make_pictures(tmp_path / "made", 2)
    first, second = (read_rgb(path) for path in sorted(folder.iterdir()))
    assert first.shape == second.shape == (1080, 1920, 3)
    assert not np.array_equal(first, second)
    assert 300_000 < (folder / "0000.jpg").stat().st_size < 3_000_000


@pytest.mark.parametrize(
    ("options", "words"),
    [({"rounds": 0}, "at least 1"), ({"pictures": 0}, "at least 1"), ({"data": Path("absent")}, "holds no pictures")],
)
def test_refused(network, options, words):
    with pytest.raises(ConfigError, match=words):
        measure(Settings(str(network), "cpu"), **{"data": Path("."), **options})


def test_a_corrupt_picture_is_named(pictures, network):
    (pictures / "9.png").write_text("no picture")
    with pytest.raises(ConfigError, match=r"9\.png is not a picture"):
        measure(Settings(str(network), "cpu"), pictures, rounds=1)


def test_the_verb_shows_and_writes_the_numbers(pictures, network, tmp_path):
    done = run(
        "throughput", pictures, "--model", network, "--device", "cpu", "--rounds", 1, "--pictures", 2,
        "--threads", 1, "--out", tmp_path / "t.json",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert all(word in done.stdout for word in ("2 pictures", "the network alone", "device busy", "decode", "waiting"))
    assert json.loads((tmp_path / "t.json").read_text())["pictures"] == 2
