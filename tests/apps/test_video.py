"""A video in, its NIR out: what is kept of it, and what becomes of a frame."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from av.video.reformatter import Colorspace

from pix2next.apps.video import encoding
from pix2next.apps.video.encoding import Encoding, frame_of, open_encoder, to_bits
from pix2next.apps.video.reading import look, picture_of
from pix2next.apps.video.translating import VideoResult, translate_video

from .clips import RATE, greens, greys, lossless, names, rgb, seconds_of, sound_of, translator, write_clip

EXACT = Encoding("ffv1")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_ten_seconds_keep_rate_length_and_sound(here):
    write_clip("in.mp4", 250)
    result = translate_video(Path("in.mp4"), Path("out.mp4"), translator())
    assert result == VideoResult(250, 10.0, [], [])
    assert seconds_of("out.mp4") == seconds_of("in.mp4") == [Fraction(i, RATE) for i in range(250)]
    assert sound_of("out.mp4") == sound_of("in.mp4")
    with av.open("in.mp4") as before, av.open("out.mp4") as after:
        assert before.duration == after.duration == 10_000_000
        assert after.streams.video[0].average_rate == RATE
        assert after.streams.video[0].frames == 250
        assert after.streams.audio[0].codec_context.name == "aac"
    assert names(here) == ["in.mp4", "out.mp4"]


@pytest.mark.parametrize("name", ["out.mov", "out.mkv", "out.mp4"])
def test_pcm_sound_is_copied_into_what_can_hold_it(here, name):
    write_clip("in.mov", sound="pcm_s16le")
    assert translate_video(Path("in.mov"), Path(name), translator()).damage == []
    assert b"".join(sound_of(name)[0]) == b"".join(sound_of("in.mov")[0])
    assert seconds_of(name) == seconds_of("in.mov")


@pytest.mark.parametrize("size", [(48, 64), (47, 63), (1, 1)])
def test_ffv1_holds_the_networks_very_values(here, size):
    lossless("in.mkv", 6, size=size)
    translate_video(Path("in.mkv"), Path("out.mkv"), translator(), encoding=EXACT)
    assert (greys("out.mkv") == greens(6, size)).all()


def test_ten_bits(here):
    lossless("in.mkv", 6)
    translate_video(Path("in.mkv"), Path("out.mkv"), translator(), encoding=Encoding("ffv1", bits=10))
    assert (greys("out.mkv", bits=10) == to_bits(greens(6).astype(np.uint16) * 257, 10)).all()
    translate_video(Path("in.mkv"), Path("out.mp4"), translator(), encoding=Encoding("h264", bits=10, quality=1))
    with av.open("out.mp4") as file:
        assert file.streams.video[0].format.name == "yuv420p10le"
    assert np.abs(greys("out.mp4", bits=10) / 1023 - greens(6) / 255).max() < 0.02


def test_bits_by_hand():
    assert to_bits(np.array([[0, 31, 33, 65535, 32768]], np.uint16), 10).tolist() == [[0, 0, 1, 1023, 512]]


@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
@pytest.mark.parametrize("codec", ["h264", "h265", "av1"])
def test_players_get_full_range_luma(here, codec, size):
    def ramp(index, height, width):
        return np.tile(np.linspace(0, 255, width).astype(np.uint8)[None, :, None], (height, 1, 3))

    lossless("in.mkv", 3, picture=ramp, size=size)
    translate_video(Path("in.mkv"), Path("out.mp4"), translator(), encoding=Encoding(codec, quality=5))
    with av.open("out.mp4") as file:
        frame = next(file.decode(video=0))
        assert (frame.width, frame.height) == size[::-1]
        seen = frame.to_ndarray(format="rgb24").astype(int)
    assert np.abs(seen - ramp(0, *size)).max() <= 6


def test_vector_code_encodes_what_plain_code_does(here, monkeypatch):
    def packets():
        encoder = open_encoder(clip, Encoding())
        made = []
        for index in range(5):
            moved = np.roll(waves, index, axis=1).astype(int) + 3 * index + grain[index]
            frame = frame_of(moved.clip(0, 255).astype(np.uint8), "yuv420p", 8)
            frame.pts, frame.time_base = round(index / RATE / clip.time_base), clip.time_base
            made += encoder.encode(frame)
        return [bytes(packet) for packet in made + encoder.encode(None)]

    write_clip("in.mp4", sound=None)
    clip = look(Path("in.mp4"))
    random = np.random.default_rng(0)
    waves = random.integers(0, 255, (12, 16)).astype(np.uint8)
    waves = cv2.resize(waves, (64, 48), interpolation=cv2.INTER_CUBIC)
    grain = random.integers(0, 6, (5, 48, 64))
    ours = packets()
    monkeypatch.setattr(encoding, "WITHOUT_AVX512", "asm=0")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert ours == packets()


def test_a_static_clip_gives_a_static_clip(here):
    lossless("in.mkv", 50, picture=lambda index, *size: rgb(0, *size))
    translate_video(Path("in.mkv"), Path("exact.mkv"), translator(), encoding=EXACT, segment_seconds=0.6)
    assert (greys("exact.mkv") == greys("exact.mkv")[0]).all()
    translate_video(Path("in.mkv"), Path("out.mp4"), translator(), segment_seconds=0.6)
    assert np.abs(np.diff(greys("out.mp4").astype(float), axis=0)).mean() < 0.1


def test_uneven_times_are_kept_across_segments(here):
    times = [0, 7, 19, 20, 41, 70, 71, 90]
    write_clip("in.mp4", 8, times=times, time_base=Fraction(1, 50), sound=None)
    for name in ("out.mp4", "out.mkv"):
        translate_video(Path("in.mp4"), Path(name), translator(), segment_seconds=0.5)
        assert seconds_of(name) == [Fraction(time, 50) for time in times]


def test_milliseconds_become_a_steady_rate_again(here):
    write_clip("in.mkv", 30, rate=Fraction(30_000, 1001), sound=None)
    translate_video(Path("in.mkv"), Path("out.mp4"), translator(), segment_seconds=0.3)
    with av.open("out.mp4") as file:
        assert file.streams.video[0].average_rate == Fraction(30_000, 1001)


def test_a_stream_that_begins_late_begins_at_zero(here):
    write_clip("in.ts", sound="mp2")
    with av.open("in.ts") as file:
        assert file.start_time > 0
        apart = float(file.streams.audio[0].start_time - file.streams.video[0].start_time) / 90_000
    translate_video(Path("in.ts"), Path("out.mkv"), translator())
    assert min(seconds_of("out.mkv")[0], sound_of("out.mkv")[1][0]) == 0
    assert sound_of("out.mkv")[1][0] - float(seconds_of("out.mkv")[0]) == pytest.approx(apart, abs=0.002)
    assert len(seconds_of("out.mkv")) == 25


@pytest.mark.skipif(not hasattr(av.VideoStream, "set_display_rotation"), reason="PyAV 18 is the first that writes it")
@pytest.mark.parametrize(("degrees", "lit"), [(90, np.s_[:, :24]), (180, np.s_[24:]), (-90, np.s_[:, 24:])])
def test_rotated_frames_come_out_upright(here, degrees, lit):
    def top(index, height, width):
        picture = np.zeros((height, width, 3), np.uint8)
        picture[: height // 2, :, 1] = 200
        return picture

    write_clip("in.mp4", 3, picture=top, rotation=degrees, sound=None)
    translate_video(Path("in.mp4"), Path("out.mp4"), translator())
    frame = greys("out.mp4")[0]
    assert frame.shape == ((48, 64) if degrees == 180 else (64, 48))
    assert frame[lit].min() > 180
    assert frame.mean() == pytest.approx(100, abs=4)
    with av.open("out.mp4") as file:
        assert next(file.decode(video=0)).rotation == 0


def test_subtitles_tags_chapters_and_languages_are_kept(here):
    write_clip("plain.mp4")
    Path("s.srt").write_text("1\n00:00:00,200 --> 00:00:00,900\nHello\n\n2\n00:00:00,950 --> 00:00:00,990\nagain\n")
    chapter = {"id": 1, "start": 0, "end": 500, "time_base": Fraction(1, 1000), "metadata": {"title": "one"}}
    with av.open("in.mkv", "w") as out, av.open("plain.mp4") as clip, av.open("s.srt") as text:
        out.metadata.update(title="A drive", comment="mine")
        out.set_chapters([chapter])
        pairs = [(stream, out.add_stream_from_template(stream)) for file in (clip, text) for stream in file.streams]
        pairs[1][1].metadata["language"] = "ger"
        copies = dict(pairs)
        for file in (clip, text):
            for packet in file.demux():
                packet.stream = copies[packet.stream]
                if packet.dts is not None:
                    out.mux(packet)
    assert translate_video(Path("in.mkv"), Path("out.mkv"), translator()).notes == []
    with av.open("out.mkv") as file:
        assert [bytes(packet) for packet in file.demux(subtitles=0) if packet.size] == [b"Hello", b"again"]
        assert file.streams.audio[0].language == "ger"
        assert file.metadata["title"] == "A drive"
        assert file.metadata["COMMENT"].startswith("mine; synthetic near infrared, pix2next ")
        assert [each["metadata"] for each in file.chapters()] == [{"title": "one"}]
    result = translate_video(Path("in.mkv"), Path("out.mp4"), translator())
    assert result.damage == []
    assert result.notes == ["left out, as .mp4 cannot hold it: subtitle stream 2 (srt)"]


@pytest.mark.parametrize(("space", "values"), [(Colorspace.ITU709, (63, 102, 240)), (Colorspace.ITU601, (81, 90, 240))])
def test_colours_by_the_matrix_the_video_names(space, values):
    frame = av.VideoFrame(64, 48, "yuv420p")
    for plane, value in zip(frame.planes, values, strict=True):
        np.frombuffer(plane, np.uint8)[:] = value
    frame.colorspace = space
    assert np.abs(picture_of(frame, 8)[10, 10].astype(int) - [255, 0, 0]).max() <= 3
    if space == Colorspace.ITU601:  # A small video that names none is taken for BT.601.
        frame.colorspace = 2
        assert np.abs(picture_of(frame, 16)[10, 10] / 257 - [255, 0, 0]).max() <= 3


def test_webm_without_sound(here):
    write_clip("in.mp4", 5)
    translate_video(Path("in.mp4"), Path("out.webm"), translator(), sound=False)
    with av.open("out.webm") as file:
        assert [stream.type for stream in file.streams] == ["video"]
    assert len(seconds_of("out.webm")) == 5
