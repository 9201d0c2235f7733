"""Frames out of a video file: upright, in order, each with its time.

A file is read from its beginning to its end, also where a part of it is not wanted: to seek lands where the container
and the codec allow, and not every pair of them gives the very frames then that reading through gives. Frames are
decoded one by one: several at a time is quicker, but what is lost of a damaged file then hangs on the cores.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream
from jaxtyping import Shaped

from pix2next.errors import ImageError, one_line

MISSING_END = 0.5
"""Seconds that a file may end before its header says; containers round, and pad sound."""
LONG_GAP = 8
"""Frames at the video's average rate; where fewer are missing, a slow scene may have had none."""
COARSE = Fraction(1, 5000)
"""Time bases above this (Matroska's is a millisecond) cannot hold the times of common frame rates."""
UNSPECIFIED = 2
PRECISE = 4 | 0x40000 | 0x2000
"""Bicubic chroma, accurate rounding and full chroma: swscale's other ways are off by up to two in 255."""
HDR = {16: "PQ", 18: "HLG"}
"""Transfer functions by their number in ITU-T H.273."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clip:
    """What is known of a video once its first frame is decoded; width and height are those of upright frames."""

    path: Path
    width: int
    height: int
    pixel_aspect: Fraction
    rate: Fraction
    """Frames a second on average; 25 where nothing tells."""
    time_base: Fraction
    """Seconds that a tick lasts in which frames are timed here."""
    frames: int
    """As far as the header tells; 0 if it does not."""


class Timed(NamedTuple):
    """A decoded frame and its time from the beginning of the file, in ticks of the clip's time base."""

    frame: VideoFrame
    pts: int
    duration: int


@dataclass
class Reading:
    """What reading a file has met with so far."""

    frames: int = 0
    seconds: float = 0.0
    """At which the last frame ends."""
    undecodable: int = 0
    first_undecodable: float = 0.0
    end: float = 0.0
    """Seconds at which the last packet of any stream ends."""
    promised_end: float | None = None
    stopped: str | None = None
    """Why the file could not be read any further."""
    longest_gap: float = 0.0
    gap_start: float = 0.0

    def damage(self) -> list[str]:
        """A sentence for each way in which the file is not whole."""
        read = f"{self.frames} frames could be read"
        found = []
        if self.undecodable:
            found.append(
                f"damaged packets of video: {self.undecodable}, the first near {self.first_undecodable:.2f} s; {read}"
            )
        if self.stopped:
            found.append(f"reading broke off at {self.end:.2f} s ({self.stopped}); {read}")
        elif self.promised_end is not None and self.end < self.promised_end - MISSING_END:
            found.append(f"the file ends at {self.end:.2f} s of {self.promised_end:.2f} s; {read}")
        return found

    def gap(self, rate: Fraction) -> list[str]:
        """A sentence if frames are missing for long, of which nobody but their maker can tell why."""
        if self.longest_gap * rate < LONG_GAP:
            return []
        return [
            f"no frame for {self.longest_gap:.2f} s after {self.gap_start:.2f} s: the recording paused, "
            "or the container passed over damage"
        ]


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file and the stream of it that is translated: the first that is no cover picture.

    Raises: ImageError, one sentence, if there is no such file, it is no video, or none that can be decoded here.
    """
    if not path.is_file():
        raise ImageError(f"{path} is a folder; give a video file" if path.is_dir() else f"{path}: no such file")
    try:
        # An absolute path cannot be mistaken for a protocol (`take:1.mp4`).
        container = av.open(str(path.absolute()), metadata_errors="replace")
    except FFmpegError as error:
        raise ImageError(
            f"{path} is no video, or the recording broke off before its index was written ({error.strerror})"
        ) from error
    with container:
        yield container, _video_stream(path, container)


def _video_stream(path: Path, container: InputContainer) -> VideoStream:
    if container.format.name == "image2" or container.format.name.endswith("_pipe"):
        raise ImageError(f"{path} is a picture and no video; `pix2next translate` takes it")
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        raise ImageError(f"{path} holds no video stream")
    if streams[0].codec_context is None:
        raise ImageError(f"{path}: its video is of a codec that cannot be decoded here")
    return streams[0]


def look(path: Path) -> Clip:
    """What there is to know before the first frame is translated.

    Raises: ImageError as `open_video`, and if not one frame can be decoded.
    """
    with open_video(path) as (container, stream):
        first = next(_frames(container, stream, Reading()), None)
        if first is None:
            raise ImageError(f"{path}: not one frame of its video can be decoded")
        if first.color_trc in HDR:
            logger.warning("%s is %s video; its values go to the network as they are", path, HDR[first.color_trc])
        rate = _known(stream.average_rate) or _known(stream.guessed_rate) or Fraction(25)
        aspect = _known(stream.sample_aspect_ratio) or Fraction(1)
        turned = bool(_quarter_turns(first) % 2)
        width, height = (first.height, first.width) if turned else (first.width, first.height)
        seconds = (container.duration or 0) / av.time_base
        return Clip(
            path=path,
            width=width,
            height=height,
            pixel_aspect=1 / aspect if turned else aspect,
            rate=rate,
            time_base=_fine_enough(_known(stream.time_base) or 1 / rate, rate),
            frames=stream.frames or round(seconds * rate),
        )


def _known(ratio: Fraction | None) -> Fraction | None:
    return ratio if ratio is not None and ratio > 0 else None


def _fine_enough(time_base: Fraction, rate: Fraction) -> Fraction:
    """`time_base`, or where it is coarse one that holds both its ticks and a steady rate's frames exactly."""
    both = lcm(time_base.denominator, rate.numerator)
    return Fraction(1, both) if time_base > COARSE and both <= 1_000_000 else time_base


def read_frames(clip: Clip, reading: Reading) -> Iterator[Timed]:
    """Every frame that can be decoded, in the order of display, at strictly rising times.

    The file's earliest stream begins at 0, so that sound and picture stay together. A packet that cannot be decoded is
    counted in `reading` and passed over.

    Raises: ImageError if frames change their size, which no container keeps within a stream.
    """
    with open_video(clip.path) as (container, stream):
        clock = _Clock(clip, container, stream)
        if container.duration:
            reading.promised_end = (container.duration + (container.start_time or 0)) / av.time_base
        size = None
        for frame in _frames(container, stream, reading):
            size = size or (frame.width, frame.height)
            if (frame.width, frame.height) != size:
                raise ImageError(
                    f"{clip.path} changes from {size[0]} x {size[1]} to {frame.width} x {frame.height} pixels "
                    f"after {reading.frames} frames; cut it there first"
                )
            reading.frames += 1
            timed = clock(frame)
            _note(reading, timed, clip.time_base)
            yield timed


def _note(reading: Reading, frame: Timed, time_base: Fraction) -> None:
    start = float(frame.pts * time_base)
    if reading.frames > 1 and start - reading.seconds > reading.longest_gap:
        reading.longest_gap, reading.gap_start = start - reading.seconds, reading.seconds
    reading.seconds = start + float(frame.duration * time_base)


def _frames(container: InputContainer, stream: VideoStream, reading: Reading) -> Iterator[VideoFrame]:
    decoded = 0
    packets = container.demux()
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError as error:
            reading.stopped = one_line(error)
            packet = None
        if packet is None:
            return
        if packet.pts is not None and packet.time_base:
            reading.end = max(reading.end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream.index != stream.index:
            continue
        try:
            frames = stream.decode(packet)
        except FFmpegError:
            # A recording that begins in the middle of a group of pictures is not damaged.
            if decoded and not reading.undecodable:
                reading.first_undecodable = float((packet.pts or 0) * packet.time_base)
            reading.undecodable += bool(decoded)
            continue
        decoded += len(frames)
        yield from frames


class _Clock:
    """Times of frames that come one after the other, where the file is vague about them, too."""

    def __init__(self, clip: Clip, container: InputContainer, stream: VideoStream) -> None:
        self.clip = clip
        self.read_base = _known(stream.time_base) or clip.time_base
        self.is_coarse = self.read_base > COARSE
        self.start = Fraction(container.start_time or 0, av.time_base)
        self.step = max(1, round(1 / clip.rate / clip.time_base))
        self.next = 0

    def __call__(self, frame: VideoFrame) -> Timed:
        pts = max(self.next, self._ticks(frame.pts)) if frame.pts is not None else self.next
        duration = round((frame.duration or 0) * self.read_base / self.clip.time_base)
        if not duration or (self.is_coarse and abs(duration - self.step) * self.clip.time_base <= self.read_base):
            duration = self.step
        # Where a frame has no time it follows the one before; where it has, the next needs only be later.
        self.next = pts + (duration if frame.pts is None else 1)
        return Timed(frame, pts, duration)

    def _ticks(self, pts: int) -> int:
        time = pts * self.read_base - self.start
        if self.is_coarse:
            steady = Fraction(round(time * self.clip.rate)) / self.clip.rate
            time = steady if abs(steady - time) <= self.read_base else time
        return round(time / self.clip.time_base)


def picture_of(frame: VideoFrame, bits: int) -> Shaped[np.ndarray, "h w 3"]:
    """The frame as upright RGB: uint8 for 8 bits, else uint16 over its full range.

    The conversion is the one the video names. Where it names none it is BT.709 for high definition and BT.601 below,
    as players take it.
    """
    space = frame.colorspace
    if space == UNSPECIFIED:
        high_definition = max(frame.width, frame.height) >= 1280 or min(frame.width, frame.height) > 576
        space = Colorspace.ITU709 if high_definition else Colorspace.ITU601
    # 8 bits of RGB are brought to 16 here, which swscale would do by way of YUV and not exactly.
    widened = bits > 8 and frame.format.is_rgb and frame.format.components[0].bits == 8
    pixels = "rgb24" if bits == 8 or widened else "rgb48le"
    rgb = frame.reformat(format=pixels, src_colorspace=space, interpolation=PRECISE).to_ndarray()
    upright = np.rot90(rgb.astype(np.uint16) * 257 if widened else rgb, _quarter_turns(frame))
    return np.ascontiguousarray(upright)


def _quarter_turns(frame: VideoFrame) -> int:
    """Counter-clockwise, to make the frame upright."""
    return round(frame.rotation / 90) % 4
