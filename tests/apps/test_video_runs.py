"""Runs over a video: what a killed one leaves, what overlaps, what is said of damage and bad input, and the verb."""

import os
import signal
import subprocess
import sys
from fractions import Fraction
from itertools import count
from pathlib import Path

import av
import pytest
import torch

from pix2next.apps.video import joining, translating
from pix2next.apps.video.encoding import Encoding, segment_path
from pix2next.apps.video.reading import picture_of
from pix2next.apps.video.translating import VideoResult, ahead, behind, translate_video
from pix2next.errors import ConfigError, ImageError
from pix2next.translate import Translator

from .. import command
from .clips import (
    RATE,
    SOUND_RATE,
    Green,
    damaged,
    greens,
    greys,
    lossless,
    moved_head,
    names,
    rgb,
    seconds_of,
    translator,
    write_clip,
    write_tone,
)

EXACT = Encoding("ffv1")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("fail_after", [0, 13, 24])
@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_a_stopped_run_goes_on_and_ends_as_a_clean_one(here, name, fail_after):
    write_clip("in.mp4")
    translate_video(Path("in.mp4"), Path("clean") / name, translator(), segment_seconds=0.2)
    with pytest.raises(KeyboardInterrupt):
        translate_video(Path("in.mp4"), Path(name), translator(fail_after=fail_after), segment_seconds=0.2)
    finished = fail_after // 5
    assert names(f"{name}.parts") == [*(f"{i:06d}.packets" for i in range(finished)), "job.json"]
    assert not Path(name).exists()
    again = translator()
    result = translate_video(Path("in.mp4"), Path(name), again, segment_seconds=0.2)
    assert again.model.seen == 25 - 5 * finished
    assert result == VideoResult(25, 1.0, [], [])
    assert Path(name).read_bytes() == (Path("clean") / name).read_bytes()
    assert not Path(f"{name}.parts").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
import pix2next
from pix2next.apps.video.translating import translate_video
from pix2next.translate import Translator
from torch import nn

class Green(nn.Module):
    multiple = 8
    seen = 0

    def forward(self, rgb):
        self.seen += 1
        if self.seen == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        return rgb[:, 1:2]

translate_video(Path("in.mp4"), Path("out.mp4"), Translator(Green(), device="cpu"), segment_seconds=0.2)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a signal that cannot be caught")
def test_a_killed_run_loses_one_segment_at_most(here):
    write_clip("in.mp4")
    translate_video(Path("in.mp4"), Path("clean.mp4"), translator(), segment_seconds=0.2)
    killed = subprocess.run([sys.executable, "-c", KILLED, "18"], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = translator()
    translate_video(Path("in.mp4"), Path("out.mp4"), again, segment_seconds=0.2)
    # 17 frames were translated; whole segments of 5 remain, but for what the threads behind had not written yet.
    assert again.model.seen <= 25 - 10
    assert Path("out.mp4").read_bytes() == Path("clean.mp4").read_bytes()
    assert not Path("out.mp4.parts").exists()


def stop(target="out.mp4", **options):
    with pytest.raises(KeyboardInterrupt):
        translate_video(Path("in.mp4"), Path(target), translator(fail_after=13), segment_seconds=0.2, **options)


def test_a_segment_that_is_not_whole_is_made_again(here):
    write_clip("in.mp4")
    translate_video(Path("in.mp4"), Path("clean.mp4"), translator(), segment_seconds=0.2)
    stop()
    segment = segment_path(Path("out.mp4.parts"), 1)
    segment.write_bytes(segment.read_bytes()[:-30])
    segment_path(Path("out.mp4.parts"), 0).write_bytes(b"")
    again = translator()
    translate_video(Path("in.mp4"), Path("out.mp4"), again, segment_seconds=0.2)
    assert again.model.seen == 25
    assert Path("out.mp4").read_bytes() == Path("clean.mp4").read_bytes()


def test_a_run_killed_while_it_joins_leaves_all_in_one_folder(here, monkeypatch):
    write_clip("in.mp4")
    translate_video(Path("in.mp4"), Path("clean.mp4"), translator(), segment_seconds=0.2)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(joining.heapq, "merge", lambda *streams, key: interrupted())
        translate_video(Path("in.mp4"), Path("out.mp4"), translator(), segment_seconds=0.2)
    (here / "out.mp4.parts" / f".{'0' * 32}.mp4").write_text("what a kill leaves behind")
    assert names(here) == ["clean.mp4", "in.mp4", "out.mp4.parts"]
    again = translator()
    translate_video(Path("in.mp4"), Path("out.mp4"), again, segment_seconds=0.2)
    assert again.model.seen == 0
    assert Path("out.mp4").read_bytes() == Path("clean.mp4").read_bytes()
    assert names(here) == ["clean.mp4", "in.mp4", "out.mp4"]


def interrupted():
    raise KeyboardInterrupt


def test_segments_of_another_run_are_not_mixed_in(here):
    write_clip("in.mp4")
    stop()
    with pytest.raises(ConfigError, match="another segment seconds"):
        translate_video(Path("in.mp4"), Path("out.mp4"), translator(), segment_seconds=0.3)
    with pytest.raises(ConfigError, match="another encoding; repeat .* --force"):
        translate_video(
            Path("in.mp4"), Path("out.mp4"), translator(), segment_seconds=0.2, encoding=Encoding(quality=3)
        )
    other = translator()
    other.model.register_buffer("weight", torch.ones(1))
    with pytest.raises(ConfigError, match="another network"):
        translate_video(Path("in.mp4"), Path("out.mp4"), other, segment_seconds=0.2)
    os.utime("in.mp4", (1, 1))
    with pytest.raises(ConfigError, match="another source"):
        translate_video(Path("in.mp4"), Path("out.mp4"), translator(), segment_seconds=0.2)
    (here / "out.mp4.parts" / "notes.txt").write_text("mine")
    fresh = translator()
    translate_video(Path("in.mp4"), Path("out.mp4"), fresh, segment_seconds=0.3, force=True)
    assert fresh.model.seen == 25
    assert names("out.mp4.parts") == ["notes.txt"]


def test_frames_go_in_batches_that_are_always_full(here):
    lossless("in.mkv", 23)
    many = translator(batch_size=4)
    translate_video(Path("in.mkv"), Path("out.mkv"), many, encoding=EXACT, segment_seconds=0.4)
    assert many.model.batches == [4] * 7  # 10, 10 and 3 frames
    assert (greys("out.mkv") == greens(23)).all()


def test_frames_larger_than_a_tile_go_in_tiles(here):
    lossless("in.mkv", 2, size=(72, 150))
    tiles = Translator(Green(), device="cpu", tile=64, batch_size=2)
    translate_video(Path("in.mkv"), Path("out.mkv"), tiles, encoding=EXACT)
    assert (greys("out.mkv") == greens(2, (72, 150))).all()


def test_only_a_few_frames_are_held(here, monkeypatch):
    write_clip("in.mp4", 60, sound=None)
    converted = count(1)
    ahead_of_network = []

    class Watching(Green):
        def forward(self, rgb):
            ahead_of_network.append(self.newest - len(self.batches))
            return super().forward(rgb)

    model = Watching()
    model.newest = 0

    def counted(frame, bits):
        model.newest = next(converted)
        return picture_of(frame, bits)

    monkeypatch.setattr(translating, "picture_of", counted)
    translate_video(Path("in.mp4"), Path("out.mp4"), Translator(model, device="cpu"))
    assert len(ahead_of_network) == 60
    assert max(ahead_of_network) <= translating.DEPTH + 2


def test_progress_ends_with_what_there_was(here):
    write_clip("in.mp4")
    told = []
    translate_video(Path("in.mp4"), Path("out.mp4"), translator(), on_progress=lambda *each: told.append(each))
    assert told[0] == (0, 25)
    assert told[-1] == (25, 25)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_file_cut_short_gives_what_it_holds(here):
    whole = moved_head("whole.mp4", write_clip("a.mp4", 75, sound=None)).read_bytes()
    Path("in.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    result = translate_video(Path("in.mp4"), Path("out.mp4"), translator())
    assert 25 < result.frames < 75
    assert result.frames == len(seconds_of("out.mp4"))
    *_, sentence = result.damage  # The packet that was cut in two may be named before.
    assert sentence.startswith("the file ends at ")
    assert sentence.endswith(f" s of 3.00 s; {result.frames} frames could be read")


def test_damage_in_the_middle_costs_the_frames_there(here):
    damaged("in.mp4")
    result = translate_video(Path("in.mp4"), Path("out.mp4"), translator(), segment_seconds=0.5)
    assert 50 < result.frames < 75
    assert seconds_of("out.mp4")[-1] == Fraction(74, RATE)
    (sentence,) = result.damage
    assert sentence.startswith("damaged packets of video: ")
    assert sentence.endswith(f"; {result.frames} frames could be read")


def test_a_pause_is_noted(here):
    write_clip("in.mp4", 20, times=[*range(10), *range(60, 70)], sound=None)
    result = translate_video(Path("in.mp4"), Path("out.mp4"), translator())
    assert result.damage == []
    (note,) = result.notes
    assert note.startswith("no frame for 2.00 s after 0.40 s")


def test_frames_that_change_their_size_are_refused(here):
    small, large = write_clip("a.ts", 10, sound=None), write_clip("b.ts", 10, sound=None, size=(96, 128))
    Path("in.ts").write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(ImageError, match="changes from 64 x 48 to 128 x 96 pixels after 10 frames"):
        translate_video(Path("in.ts"), Path("out.mp4"), translator())


def no_index(path):
    path.write_bytes(write_clip("a.mp4").read_bytes()[:5000])


def only_sound(path):
    with av.open(str(path), "w", format="mp4") as out:
        write_tone(out, out.add_stream("aac", rate=SOUND_RATE, layout="mono"), 0.5)


def a_picture(path):
    with av.open("a.png", "w", format="image2") as out:
        stream = out.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(rgb(0), format="rgb24")))
        out.mux(stream.encode())
    os.replace("a.png", path)


def strange_codec(path):
    path.write_bytes(write_clip("a.mp4").read_bytes().replace(b"avc1", b"zzz1"))


def no_frame(path):
    whole = bytearray(moved_head("whole.mp4", write_clip("a.mp4", sound=None)).read_bytes())
    start = whole.find(b"mdat") + 4
    whole[start:] = bytes(len(whole) - start)
    path.write_bytes(whole)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "in.mp4: no such file"),
        (Path.mkdir, "in.mp4 is a folder; give a video file"),
        (Path.touch, "in.mp4 is no video, or the recording broke off"),
        (lambda path: path.write_text("a note " * 99), "in.mp4 is no video, or the recording broke off"),
        (no_index, "in.mp4 is no video, or the recording broke off before its index was written"),
        (only_sound, "in.mp4 holds no video stream"),
        (a_picture, "in.mp4 is a picture and no video; `pix2next translate` takes it"),
        (strange_codec, "in.mp4: its video is of a codec that cannot be decoded here"),
        (no_frame, "in.mp4: not one frame of its video can be decoded"),
    ],
)
def test_what_is_no_video_is_refused_in_a_sentence(here, make, said):
    make(Path("in.mp4"))
    before = names(here)
    with pytest.raises(ImageError, match=said) as refused:
        translate_video(Path("in.mp4"), Path("out.mkv"), translator())
    assert "\n" not in str(refused.value)
    assert names(here) == before


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        ("out.gif", {}, "names no container of video; end it in one of .m4v, .mkv, .mov, .mp4, .webm"),
        ("out", {}, "names no container"),
        ("in.mp4", {}, "in.mp4 would be overwritten by its own translation"),
        ("folder.mp4", {}, "folder.mp4 is a folder; give a file"),
        ("out.webm", {}, ".webm cannot hold the aac sound; give .mkv, or leave sound out"),
        ("out.webm", {"encoding": Encoding("h264"), "sound": False}, ".webm cannot hold h264; give another codec"),
        ("out.mov", {"encoding": Encoding("av1", bits=10)}, ".mov cannot hold av1 of 10 bits"),
        ("out.mp4", {"encoding": Encoding("vp7")}, "no codec 'vp7'; there are h264, h265, av1, ffv1"),
        ("out.mp4", {"encoding": Encoding(bits=12)}, "12 bits is no depth of a video here; give 8 or 10"),
        ("out.mp4", {"encoding": Encoding(quality=52)}, "quality of h264 is from 0 .best. to 51, not 52"),
        ("out.mkv", {"encoding": Encoding("ffv1", quality=3)}, "ffv1 loses nothing and has neither quality nor preset"),
        ("out.mp4", {"encoding": Encoding(preset="quick")}, "h264 has no preset 'quick'; there are ultrafast"),
        ("out.mp4", {"segment_seconds": 0.0}, "a segment is longer than 0 s"),
        ("out.mp4", {"segment_seconds": float("nan")}, "a segment is longer than 0 s"),
    ],
)
def test_what_cannot_be_written_is_refused_before_any_work(here, target, options, said):
    write_clip("in.mp4", 5)
    Path("folder.mp4").mkdir()
    before = names(here)
    unused = translator()
    with pytest.raises((ConfigError, ImageError), match=said):
        translate_video(Path("in.mp4"), Path(target), unused, **options)
    assert unused.model.seen == 0
    assert names(here) == before


def test_ahead_keeps_order_and_passes_errors_on():
    assert list(ahead(iter(range(9)), 3)) == list(range(9))
    assert list(ahead(iter(()), 3)) == []

    def breaks():
        yield 1
        raise ImageError("broken")

    items = ahead(breaks(), 2)
    assert next(items) == 1
    with pytest.raises(ImageError, match="broken"):
        next(items)


def test_behind_keeps_order_and_passes_errors_on():
    assert list(behind(lambda item: item * item, range(9), 3)) == [item * item for item in range(9)]
    with pytest.raises(ZeroDivisionError):
        list(behind(lambda item: 1 // item, [1, 0, 1], 2))


def run(*arguments):
    return command.run("translate-video", *arguments)


def test_the_verb_writes_a_video(here, network):
    write_clip("in.mp4", 10)
    done = run("in.mp4", "new/out.mkv", "--model", network, "--device", "cpu", "--bits", 10, "--codec", "ffv1")
    assert done.exit_code == 0, done.stderr
    assert done.stderr == "10 frames, 0.40 s, written to new/out.mkv\n"
    assert greys("new/out.mkv", bits=10).max() > 255


def test_the_verb_tells_of_damage_and_fails(here, network):
    damaged("in.mp4")
    done = run("in.mp4", "out.mp4", "--model", network, "--device", "cpu", "--preset", "ultrafast")
    assert done.exit_code == 1
    note, said, summary = done.stderr.splitlines()
    assert note.startswith("note: no frame for ")
    assert said.startswith("damaged: in.mp4: damaged packets of video: ")
    assert summary.endswith("written to out.mp4")


def test_the_verb_says_what_is_wrong(here, network):
    write_clip("in.mp4", 5)
    for arguments in (["absent.mp4", "out.mp4"], ["in.mp4", "out.doc"], ["in.mp4", "out.mp4", "--codec", "rv40"]):
        failed = run(*arguments, "--model", network, "--device", "cpu")
        assert failed.exit_code == 2
        assert failed.stderr.startswith("error: ")
        assert failed.stderr.count("\n") == 1


def test_without_pyav_the_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("pix2next.apps.video") or name.split(".")[0] == "av"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "av", None)
    failed = run("in.mp4", "out.mp4")
    assert failed.exit_code == 2
    assert failed.stderr.startswith("error: video needs PyAV (")
    assert failed.stderr.endswith("; pip install 'pix2next[video]'\n")
