"""A watched folder: what comes and changes is translated once it is whole, and nothing is read half."""

import os
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest

from pix2next.apps import bulk
from pix2next.apps.bulk import BulkResult
from pix2next.apps.events import Done, End, Existing, Failed, Start
from pix2next.apps.jobs import Output
from pix2next.apps.watch import SECONDS_BETWEEN_LOOKS, watch_pictures
from pix2next.errors import ConfigError, ImageError
from pix2next.images import read_nir
from pix2next.translate import Translator

from .networks import Green


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with an empty one to watch."""
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    return tmp_path


def encoded(green, ending=".png"):
    bgr = np.zeros((9, 14, 3), np.uint8)
    bgr[..., 1] = green
    return cv2.imencode(ending, bgr)[1].tobytes()


def write(path, data, age=None):
    """`age` stands for the time of change: a test is quicker than a file system's clock ticks."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(data)
    if age is not None:
        os.utime(path, ns=(age, age))


def watch(*steps, inputs=("in",), out="out", output=None):
    """Watch while `steps` happen, one between two looks each, and interrupt two looks after the last."""
    seen, waits = [], []
    remaining = [*steps, lambda: None, lambda: None]

    def wait(seconds):
        waits.append(seconds)
        if not remaining:
            raise KeyboardInterrupt
        remaining.pop(0)()

    translator = Translator(Green(), device="cpu")
    result = watch_pictures(list(inputs), Path(out), translator, output, on_event=seen.append, wait=wait)
    assert min(waits) >= SECONDS_BETWEEN_LOOKS
    assert seen[0] == Start(None, out)
    assert isinstance(seen[-1], End)
    return result, seen[1:-1]


def green_of(name):
    return read_nir(Path("out", name))[0, 0]


def test_what_is_there_what_comes_and_what_changes(here):
    write("in/a.png", encoded(10), age=1)
    result, seen = watch(
        lambda: write("in/deep/b.png", encoded(20), age=2),
        lambda: None,
        lambda: write("in/a.png", encoded(30), age=3),
    )
    assert result == BulkResult(3, [])
    assert [Path(event.path).name for event in seen] == ["a.png", "b.png", "a.png"]
    assert (green_of("a.png"), green_of("deep/b.png")) == (30, 20)


def test_a_file_that_grows_is_left_alone_until_it_is_whole(here):
    whole = encoded(50)
    parts = [lambda size=size: write("in/a.png", whole[:size], age=size) for size in range(0, len(whole), 9)]
    looks = iter(range(len(parts)))

    def nothing_yet():
        assert not Path("out/a.png").exists()

    growing = [lambda part=part: (part(), nothing_yet()) for part, _ in zip(parts, looks, strict=True)]
    result, seen = watch(*growing, lambda: write("in/a.png", whole, age=10_000))
    assert result == BulkResult(1, [])
    assert len(seen) == 1
    assert green_of("a.png") == 50


def test_an_empty_file_that_stays_for_a_while_is_no_failure(here):
    result, seen = watch(
        lambda: write("in/a.png", b"", age=1),
        lambda: None,
        lambda: None,
        lambda: write("in/a.png", encoded(5), age=2),
    )
    assert (result, len(seen)) == (BulkResult(1, []), 1)


@pytest.mark.parametrize("spoilt", [True, False], ids=["halved", "whole"])
def test_a_file_that_changes_while_it_is_read_is_read_again(here, monkeypatch, spoilt):
    """A copy paused for longer than two looks, and went on at the moment of reading."""
    write("in/a.png", encoded(10)[: -20 if spoilt else None], age=1)
    read = bulk.read_rgb

    def read_late(path, value_range):
        monkeypatch.setattr(bulk, "read_rgb", read)
        try:
            return read(path, value_range)
        finally:
            write(path, encoded(60), age=2)

    monkeypatch.setattr(bulk, "read_rgb", read_late)
    result, seen = watch(lambda: None, lambda: None)
    assert result == BulkResult(1, [])
    assert [type(event) for event in seen] == [Done]
    assert green_of("a.png") == 60


def test_a_bad_picture_is_told_once_and_done_when_it_is_mended(here):
    write("in/a.png", b"no picture", age=1)
    result, seen = watch(
        lambda: None, lambda: None, lambda: None, lambda: write("in/a.png", encoded(7), age=2), lambda: None
    )
    assert [type(event) for event in seen] == [Failed, Done]
    assert "not a picture" in seen[0].reason
    assert (result.done, len(result.failed)) == (1, 1)


def test_files_that_are_there_are_passed_over_until_their_pictures_change(here):
    write("in/a.png", encoded(10), age=1)
    write("out/a.png", encoded(99))
    before = Path("out/a.png").read_bytes()
    skip = Output(overwrite=False)
    result, seen = watch(lambda: None, output=skip)
    assert (result, [type(event) for event in seen]) == (BulkResult(0, [], existing=1), [Existing])
    assert Path("out/a.png").read_bytes() == before
    result, _ = watch(lambda: write("in/a.png", encoded(20), age=2), output=skip)
    assert result == BulkResult(1, [], existing=1)
    assert green_of("a.png") == 20


def test_a_folder_that_goes_and_comes_back_is_waited_for(here, caplog):
    write("in/a.png", encoded(10), age=1)
    result, seen = watch(
        lambda: None,
        lambda: shutil.move("in", "away"),
        lambda: None,
        lambda: (shutil.move("away", "in"), write("in/b.png", encoded(20), age=2)),
        lambda: None,
    )
    assert result == BulkResult(2, [])
    assert [Path(event.path).name for event in seen] == ["a.png", "b.png"]
    assert [record.getMessage() for record in caplog.records] == ["in is not there; waiting for it"]


def test_a_clash_of_names_that_arises_costs_the_second_picture(here):
    write("in/a.png", encoded(10), age=1)
    as_tiff = Output(out_format="tif")
    result, seen = watch(
        lambda: None,
        lambda: write("in/a.jpg", encoded(200, ".jpg"), age=2),
        lambda: write("in/c.png", encoded(30), age=3),
        output=as_tiff,
    )
    assert [type(event) for event in seen] == [Done, Failed, Done]
    assert "would both be written to" in seen[1].reason
    assert (green_of("a.tif"), green_of("c.tif")) == (10, 30)
    assert (result.done, len(result.failed)) == (2, 1)
    with pytest.raises(ImageError, match="would both be written to"):
        watch(output=as_tiff)


def test_an_interrupt_in_the_middle_of_a_picture_ends_the_watch_and_leaves_whole_files(here, monkeypatch):
    for number in range(4):
        write(f"in/{number}.png", encoded(number), age=1)
    calls = []

    def forward(self, rgb):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return rgb[:, 1:2]

    monkeypatch.setattr(Green, "forward", forward)
    result, seen = watch(lambda: None)
    written = sorted(path.name for path in Path("out").iterdir())
    assert written == ["0.png", "1.png"]
    assert result.done == len(seen) <= 2


@pytest.fixture
def interruptible():
    """As in a terminal; a job in the background inherits a SIGINT that is ignored."""
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, inherited)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_that_ask_for_an_end_end_it(here, interruptible, number):
    write("in/a.png", encoded(10), age=1)
    before = signal.getsignal(number)
    result, _ = watch(lambda: None, lambda: signal.raise_signal(number), lambda: pytest.fail("it went on"))
    assert result == BulkResult(1, [])
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(
    ("inputs", "out", "error", "words"),
    [
        (["in/a.png"], "out", ConfigError, "is no folder, and only folders can be watched"),
        (["absent"], "out", ConfigError, "absent is no folder"),
        (["in"], "out.png", ConfigError, "is the name of one file"),
        (["in"], "in/nir", ImageError, "lies in in, whose pictures are read"),
    ],
)
def test_refused_at_the_start(here, inputs, out, error, words):
    write("in/a.png", encoded(1))
    with pytest.raises(error, match=words):
        watch(inputs=inputs, out=out)
    assert not Path(out).exists()
