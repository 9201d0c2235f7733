"""Small videos to translate, and what is in those that come out."""

from fractions import Fraction
from itertools import count
from pathlib import Path

import av
import numpy as np
from torch import nn

from pix2next.translate import Translator

RATE = 25
SOUND_RATE = 16_000


class Green(nn.Module):
    """NIR is the green channel; `seen` counts pictures, `batches` lists how many came at once."""

    multiple = 8

    def __init__(self, fail_after=None):
        super().__init__()
        self.seen, self.batches, self.fail_after = 0, [], fail_after

    def forward(self, rgb):
        self.seen += len(rgb)
        self.batches.append(len(rgb))
        if self.fail_after is not None and self.seen > self.fail_after:
            raise KeyboardInterrupt
        return rgb[:, 1:2]


def translator(batch_size=1, **options):
    return Translator(Green(**options), device="cpu", batch_size=batch_size)


def rgb(index, height=48, width=64):
    """A picture that differs from frame to frame."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns * 3 % 256, (rows * 4 + index * 5) % 256, 0 * rows + index * 9 % 256], -1).astype(np.uint8)


def write_clip(
    path,
    frames=25,
    *,
    picture=rgb,
    rate=RATE,
    codec="libx264",
    pixels="yuv420p",
    sound="aac",
    times=None,
    time_base=None,
    size=(48, 64),
    rotation=None,
    options=None,
):
    """A small video; `times` are pts in `time_base`."""
    time_base = time_base or 1 / Fraction(rate)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=Fraction(rate), options=options or {})
        stream.height, stream.width = size
        stream.pix_fmt = pixels
        stream.codec_context.time_base = time_base
        if rotation is not None:
            stream.set_display_rotation(rotation)
        track = out.add_stream(sound, rate=SOUND_RATE, layout="mono") if sound else None
        for pts, index in zip(times or count(), range(frames), strict=False):
            frame = av.VideoFrame.from_ndarray(picture(index, *size), format="rgb24")
            frame.pts, frame.time_base = pts, time_base
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
        if track:
            write_tone(out, track, frames / float(rate))
    return Path(path)


def write_tone(out, track, seconds):
    samples = np.sin(np.arange(round(SOUND_RATE * seconds)) * 0.17) * 8000
    for start in range(0, len(samples), 1024):
        part = samples[None, start : start + 1024].astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, start, Fraction(1, SOUND_RATE)
        out.mux(track.encode(frame))
    out.mux(track.encode())


def seconds_of(path):
    """When each frame is shown."""
    with av.open(str(path)) as file:
        return [frame.pts * frame.time_base for frame in file.decode(video=0)]


def sound_of(path):
    """Each packet of sound, and when it is played."""
    with av.open(str(path)) as file:
        packets = [packet for packet in file.demux(audio=0) if packet.size]
        return [bytes(packet) for packet in packets], [float(packet.pts * packet.time_base) for packet in packets]


def greys(path, bits=8):
    """Luma as it is stored."""
    dtype = np.uint8 if bits == 8 else np.uint16
    found = []
    with av.open(str(path)) as file:
        for frame in file.decode(video=0):
            plane = frame.planes[0]
            values = np.frombuffer(plane, dtype)[: plane.height * plane.line_size // dtype().itemsize]
            found.append(values.reshape(plane.height, -1)[:, : frame.width].copy())
    return np.stack(found)


def greens(frames, size=(48, 64)):
    return np.stack([rgb(index, *size)[..., 1] for index in range(frames)])


def lossless(path, frames=25, **options):
    """A clip whose frames are decoded as they were drawn."""
    return write_clip(path, frames, codec="ffv1", pixels="bgr0", **{"sound": None, **options})


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def moved_head(path, source):
    """`source` with its index before its pictures, so that a file cut short can still be opened."""
    with av.open(str(source)) as file, av.open(str(path), "w", container_options={"movflags": "+faststart"}) as out:
        copies = {stream: out.add_stream_from_template(stream) for stream in file.streams}
        for packet in file.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream]
                out.mux(packet)
    return Path(path)


def damaged(path, start=0.5):
    """A file whose middle is noise."""
    whole = bytearray(moved_head("whole.mp4", write_clip("a.mp4", 75, sound=None, options={"g": "10"})).read_bytes())
    middle = int(len(whole) * start)
    whole[middle : middle + 1500] = np.random.default_rng(0).bytes(1500)
    Path(path).write_bytes(whole)
