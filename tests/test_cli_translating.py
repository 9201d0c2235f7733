"""`pix2next translate` as a user and as another program meet it: streams, lines of JSON, and what is refused."""

import errno
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pix2next import cli


def encoded(kind="PNG", height=20, width=30):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(data := io.BytesIO(), kind)
    return data.getvalue()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with two pictures and a file that is none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / name).write_bytes(encoded())
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    return tmp_path


@pytest.fixture
def translate(network, here):
    """Run the verb on a network that takes milliseconds, with something in standard input."""

    def call(*arguments, stdin=b""):
        words = ["translate", *map(str, arguments), "--model", str(network), "--device", "cpu"]
        return CliRunner().invoke(cli.app, words, input=stdin)

    return call


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_a_picture_in_and_a_picture_out(translate):
    done = translate("-", "-o", "-", stdin=encoded())
    assert (done.exit_code, done.stderr) == (0, "")
    picture = Image.open(io.BytesIO(done.stdout_bytes))
    assert (picture.format, picture.size, picture.mode) == ("PNG", (30, 20), "L")
    webp = translate("in/a.png", "-o", "-", "--out-format", "webp")
    assert Image.open(io.BytesIO(webp.stdout_bytes)).format == "WEBP"
    named = translate("-", "-o", "new/nir.tif", stdin=encoded("JPEG"))
    assert (named.exit_code, named.stdout_bytes, named.stderr) == (0, b"", "1 written to new/nir.tif, 0 skipped\n")
    assert Image.open("new/nir.tif").size == (30, 20)


def test_real_pipes_carry_the_picture_and_nothing_else(network, tmp_path):
    command = [sys.executable, "-m", "pix2next", "translate", "-", "-o", "-", "--model", network, "--device", "cpu"]
    done = subprocess.run(command, input=encoded("BMP"), capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(done.stdout) == int.from_bytes(done.stdout[2:6], "little")  # A BMP names its own length.
    assert Image.open(io.BytesIO(done.stdout)).size == (30, 20)


def test_nobody_reads_the_output(translate, monkeypatch):
    """One sentence, and no second complaint when Python closes its end."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stdout, monkeypatch.context() as patched:
        patched.setattr("pix2next.cli.translating.sys.stdout", stdout)
        with pytest.raises(BrokenPipeError):
            cli.translating.write_picture(b"picture")
        cli.program.forget_unwritten()
    monkeypatch.setattr("pix2next.cli.translating.write_picture", raise_broken_pipe)
    failed = translate("-", "-o", "-", stdin=encoded())
    assert (failed.exit_code, failed.stderr) == (2, "error: Broken pipe\n")


def raise_broken_pipe(data):
    raise BrokenPipeError(errno.EPIPE, "Broken pipe")


@pytest.mark.parametrize("data", [b"", b"no picture", encoded()[:-30]], ids=["empty", "text", "cut"])
def test_a_bad_picture_in_standard_input(translate, data):
    failed = translate("-", "-o", "-", stdin=data)
    assert (failed.exit_code, failed.stdout_bytes) == (1, b"")
    assert failed.stderr.startswith("skipped: standard input")
    assert failed.stderr.count("\n") == 1


def test_json_tells_every_picture(translate):
    done = translate("in", "absent", "-o", "out", "--suffix", "_nir", "--out-format", ".TIF", "--json")
    assert (done.exit_code, done.stderr) == (1, "")
    start, absent, *pictures, end = lines(done.stdout)
    assert start == {"event": "start", "total": 3, "out": "out"}
    assert (absent["event"], absent["path"], absent["target"]) == ("failed", "absent", None)
    assert [picture["event"] for picture in pictures] == ["done", "done", "failed"]
    first = pictures[0]
    assert first == {
        "event": "done",
        "path": os.path.join("in", "a.png"),
        "target": os.path.join("out", "a_nir.tif"),
        "width": 30,
        "height": 20,
        "seconds": first["seconds"],
    }
    assert end == {"event": "end", "done": 2, "failed": 2, "existing": 0, "seconds": end["seconds"]}
    assert sorted(os.listdir("out")) == ["a_nir.tif", "b_nir.tif"]


def test_json_leaves_standard_output_to_the_picture(translate):
    done = translate("-", "-o", "-", "--json", stdin=encoded())
    assert Image.open(io.BytesIO(done.stdout_bytes)).size == (30, 20)
    assert [event["event"] for event in lines(done.stderr)] == ["start", "done", "end"]


def test_files_that_are_there_are_replaced_unless_told_otherwise(translate):
    translate("in/a.png", "-o", "out")
    with open("out/a.png", "wb") as file:
        file.write(b"older")
    skipped = translate("in/a.png", "-o", "out", "--skip-existing")
    assert (skipped.exit_code, skipped.stderr) == (0, "0 written to out, 0 skipped, 1 already there\n")
    assert os.path.getsize("out/a.png") == 5
    for flags in ([], ["--overwrite"]):
        assert translate("in/a.png", "-o", "out", *flags).stderr == "1 written to out, 0 skipped\n"
    assert os.path.getsize("out/a.png") > 5


def test_a_dry_run_writes_nothing(translate):
    shown = translate("in", "-o", "out", "--dry-run")
    assert shown.exit_code == 1
    first, second = shown.stdout.splitlines()
    assert first.startswith("2 to translate (0.0 megapixels, ")
    assert first.endswith(", 0 already there, 1 skipped")
    assert second.startswith("about ")
    assert "an estimate" in second
    assert shown.stderr.startswith("skipped: " + os.path.join("in", "bad.png"))
    failed, plan = lines(translate("in", "-o", "out", "--dry-run", "--json").stdout)
    assert (failed["event"], plan["event"]) == ("failed", "plan")
    assert (plan["total"], plan["pixels"], plan["failed"]) == (2, 1200, 1)
    assert plan["estimated_seconds"] > 0
    assert not os.path.exists("out")


def test_a_watch_ends_with_an_interrupt_and_tells_what_it_did(translate, monkeypatch):
    looks = []

    def wait(seconds):
        looks.append(seconds)
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("pix2next.apps.watch.time.sleep", wait)
    os.remove("in/bad.png")
    ended = translate("in", "-o", "out", "--watch")
    assert ended.exit_code == 0
    assert sorted(os.listdir("out")) == ["a.png", "b.png"]
    started, *pictures, summary = ended.stderr.splitlines()
    assert "Ctrl-C ends it" in started
    assert len(pictures) == 2
    assert all(line.startswith("written: out") for line in pictures)
    assert summary == "2 written to out, 0 skipped"


def test_a_watch_with_failures_ends_with_1(translate, monkeypatch):
    looks = []

    def wait(seconds):
        looks.append(seconds)
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("pix2next.apps.watch.time.sleep", wait)
    ended = translate("in", "-o", "out", "--watch", "--json")
    assert (ended.exit_code, ended.stderr) == (1, "")
    events = [event["event"] for event in lines(ended.stdout)]
    assert (events[0], sorted(events[1:-1]), events[-1]) == ("start", ["done", "done", "failed"], "end")


def test_a_range_of_values(translate):
    Image.fromarray(np.full((20, 30), 3000, np.uint16)).save("deep.png")
    assert translate("deep.png", "-o", "nir.png", "--range", 0, 4095).exit_code == 0
    assert np.asarray(Image.open("nir.png")).max() <= 4095
    failed = translate("in/a.png", "-o", "b.png", "--range", 0, 4095)
    assert failed.exit_code == 1
    assert "uint8 pixels hold 0 to 255, not the range 0 to 4095" in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-", "in/a.png", "-o", "out"], "- is a single picture, but 2 inputs came"),
        (["in/a.png", "in/b.png", "-o", "-"], "- is a single picture, but 2 inputs came"),
        (["in", "-o", "-"], "standard output takes one picture, and in is a folder"),
        (["-", "-o", "out"], "a picture from standard input has no name"),
        (["-", "-o", "-", "--suffix", "_nir"], "standard output has no name"),
        (["-", "-o", "-", "--watch"], "--watch is for folders and files"),
        (["-", "-o", "-", "--dry-run"], "--dry-run is for folders and files"),
        (["in", "-o", "out", "--watch", "--dry-run"], "leave out one of them"),
        (["in/a.png", "-o", "out", "--watch"], "is no folder, and only folders can be watched"),
        (["in", "-o", "in/nir", "--watch"], "whose pictures are read"),
        (["in", "-o", "out", "--suffix", "a/b"], "would lead to another folder"),
        (["in", "-o", "out", "--out-format", "gif"], "'gif' is no format that is written"),
        (["in", "-o", "out", "--out-format", "png", "--quality", "80"], "knows no quality"),
        (["in/a.png", "-o", "b.png", "--out-format", "jpg"], "would not be named after its format jpg"),
        (["in/a.png", "-o", "b.png", "--suffix", "_nir"], "leave out the suffix _nir"),
        (["in", "-o", "out", "--range", "5", "1"], "from a lower to a higher finite number, not from 5 to 1"),
        (["in", "-o", "out", "--range", "0", "inf"], "finite number, not from 0 to inf"),
    ],
)
def test_what_cannot_be_is_one_sentence(translate, arguments, said):
    failed = translate(*arguments)
    assert failed.exit_code == 2
    assert failed.stderr.startswith("error: ")
    assert said in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert failed.stdout_bytes == b""
    assert sorted(os.listdir()) == ["in"]


def test_a_terminal_is_no_picture(translate, monkeypatch):
    monkeypatch.setattr("pix2next.cli.translating.nowhere", lambda stream: "a terminal")
    for arguments, words in (
        (["-", "-o", "a.png"], "send a picture into"),
        (["in/a.png", "-o", "-"], "send the picture"),
    ):
        failed = translate(*arguments)
        assert (failed.exit_code, failed.stdout_bytes) == (2, b"")
        assert f"is a terminal; {words}" in failed.stderr


def test_what_is_at_the_other_end():
    with open(os.devnull) as file:
        assert cli.translating.nowhere(file) is None
    assert cli.translating.nowhere(None) == "closed"
    if hasattr(os, "openpty"):
        ends = os.openpty()
        with os.fdopen(ends[1]) as terminal:
            assert cli.translating.nowhere(terminal) == "a terminal"
        os.close(ends[0])
