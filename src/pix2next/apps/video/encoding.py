"""NIR frames into encoded packets, a file of them for each segment of a video.

A segment's file holds packets and their times and nothing else, so that joining changes neither: containers round times
or move them to begin at zero. Encoders are told not to reorder frames. A segment's packets then follow those of the
one before as if one encoder had written both, and each segment begins with a frame that needs no other.
"""

import os
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from av.codec.codec import Codec, UnknownCodecError
from av.codec.context import CodecContext, Flags
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from jaxtyping import Shaped, UInt8, UInt16

from pix2next.apps.video.reading import Clip
from pix2next.errors import ConfigError, ImageError, one_line
from pix2next.images import atomic_path

FULL_RANGE = 2
"""PyAV's number for: black is 0 and white the largest value, where television leaves room on both sides."""
HEAD = struct.Struct("<qq?I")
LAST = HEAD.pack(-1, -1, False, 0)


class Kind(NamedTuple):
    """How a codec is asked for NIR: its encoder, pixel formats by depth, and the scale of its quality."""

    encoder: str
    formats: dict[int, str]
    odd_formats: dict[int, str]
    """For a width or height that is odd."""
    quality: int | None
    worst: int
    presets: tuple[str, ...]
    options: dict[str, str]


PLAYED = {8: "yuv420p", 10: "yuv420p10le"}
GREY = {8: "gray", 10: "gray10le"}
X26X = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")
KINDS = {
    "h264": Kind("libx264", PLAYED, GREY, 18, 51, X26X, {}),
    "h265": Kind("libx265", PLAYED, GREY, 20, 51, X26X, {"x265-params": "log-level=none"}),
    "av1": Kind("libsvtav1", PLAYED, PLAYED, 25, 63, tuple(map(str, range(14))), {}),
    "ffv1": Kind("ffv1", GREY, GREY, None, 0, (), {}),
}
"""Players expect colour, so grey is written as colour without any, which costs a few bytes a frame. FFV1 is for those
who count with the values."""
WITHOUT_AVX512 = "asm=MMX2,SSE2Fast,SSSE3,SSE4.2,AVX,FMA3,BMI1,BMI2,AVX2"
"""For processors with AVX-512, which have all of these. x264's AVX-512 code for its macroblock tree reads memory that
nobody wrote: now and then equal frames become unequal packets, even on one thread, and a resumed run would differ."""


@dataclass(frozen=True)
class Encoding:
    """How NIR frames are encoded: a name of `KINDS`, 8 or 10 bits, quality on the codec's own scale (0 is best)."""

    codec: str = "h264"
    bits: int = 8
    quality: int | None = None
    preset: str | None = None

    def check(self) -> None:
        """Raises: ConfigError if there is no such codec, depth, quality or preset."""
        kind = KINDS.get(self.codec)
        if kind is None:
            raise ConfigError(f"no codec {self.codec!r}; there are {', '.join(KINDS)}")
        if self.bits not in kind.formats:
            raise ConfigError(f"{self.bits} bits is no depth of a video here; give 8 or 10")
        if kind.quality is None and (self.quality is not None or self.preset is not None):
            raise ConfigError(f"{self.codec} loses nothing and has neither quality nor preset; leave them out")
        if self.quality is not None and not 0 <= self.quality <= kind.worst:
            raise ConfigError(f"quality of {self.codec} is from 0 (best) to {kind.worst}, not {self.quality}")
        if self.preset is not None and self.preset not in kind.presets:
            raise ConfigError(f"{self.codec} has no preset {self.preset!r}; there are {', '.join(kind.presets)}")

    @property
    def kind(self) -> Kind:
        """What the codec's name stands for."""
        return KINDS[self.codec]

    @property
    def options(self) -> dict[str, str]:
        """What the encoder is told by name."""
        told = dict(self.kind.options)
        quality = self.kind.quality if self.quality is None else self.quality
        if quality is not None:
            told["crf"] = str(quality)
        if self.preset is not None:
            told["preset"] = self.preset
        return told


class Packet(NamedTuple):
    """An encoded frame; times are ticks of the clip's time base."""

    pts: int
    duration: int
    is_keyframe: bool
    data: bytes


def open_encoder(clip: Clip, encoding: Encoding) -> VideoCodecContext:
    """Raises: ConfigError, one sentence, if this PyAV has no such encoder or it refuses the settings."""
    try:
        context = CodecContext.create(Codec(encoding.kind.encoder, "w"))
        assert isinstance(context, VideoCodecContext)
        configure(context, clip, encoding)
        context.open()
    except UnknownCodecError as error:
        raise ConfigError(f"this PyAV comes without {encoding.kind.encoder}; give another codec") from error
    except (FFmpegError, ValueError) as error:
        frames = f"frames of {clip.width} x {clip.height} pixels and {encoding.bits} bits"
        raise ConfigError(f"{encoding.kind.encoder} does not take {frames} ({one_line(error)})") from error
    return context


def configure(context: VideoCodecContext, clip: Clip, encoding: Encoding) -> None:
    """Settings of an encoder that is not open yet; the same for every segment and for the file they are joined in."""
    if encoding.codec == "av1":
        # SVT-AV1 writes to stderr past everybody and listens to nothing else.
        os.environ.setdefault("SVT_LOG", "1")
    odd = clip.width % 2 or clip.height % 2
    context.width, context.height = clip.width, clip.height
    context.pix_fmt = (encoding.kind.odd_formats if odd else encoding.kind.formats)[encoding.bits]
    context.time_base, context.framerate = clip.time_base, clip.rate
    context.sample_aspect_ratio = clip.pixel_aspect
    context.color_range = FULL_RANGE
    context.bit_rate = 0
    context.max_b_frames = 0
    context.flags |= Flags.global_header
    context.options = encoding.options
    if encoding.codec == "h264" and torch.backends.cpu.get_cpu_capability() == "AVX512":
        context.options |= {"x264-params": WITHOUT_AVX512}


class SegmentWriter:
    """Encodes frames as they come into `folder`, one file a segment, each there when it is whole and not before."""

    def __init__(self, folder: Path, clip: Clip, encoding: Encoding) -> None:
        self.folder, self.clip, self.encoding = folder, clip, encoding
        self._segment: int | None = None
        self._times: deque[tuple[int, int]] = deque()

    def write(self, segment: int, nirs: Sequence[np.ndarray], times: Sequence[tuple[int, int]]) -> None:
        """Add frames and their (pts, duration); a new segment finishes the one before."""
        if segment != self._segment:
            self.finish()
            self._begin(segment)
        for nir, (pts, duration) in zip(nirs, times, strict=True):
            self._times.append((pts, duration))
            frame = frame_of(nir, self._encoder.pix_fmt or "", self.encoding.bits)
            frame.pts, frame.time_base = pts, self.clip.time_base
            self._save(frame)

    def finish(self) -> None:
        """The segment in work becomes a file."""
        if self._segment is not None:
            self._save(None)
            assert not self._times, "an encoder kept frames to itself"
            self._file.write(LAST)
            self._open.close()
            self._segment = None

    def abandon(self) -> None:
        """The segment in work vanishes, if there is one."""
        if self._segment is not None:
            unfinished = InterruptedError("the segment is not whole")
            self._open.__exit__(type(unfinished), unfinished, None)
            self._segment = None

    def _begin(self, segment: int) -> None:
        with ExitStack() as stack:
            path = stack.enter_context(atomic_path(segment_path(self.folder, segment)))
            self._file: BinaryIO = stack.enter_context(path.open("wb"))
            self._encoder = open_encoder(self.clip, self.encoding)
            self._open = stack.pop_all()
        self._segment = segment
        self._times.clear()

    def _save(self, frame: VideoFrame | None) -> None:
        for packet in self._encoder.encode(frame):
            pts, duration = self._times.popleft()
            assert packet.pts == pts, "an encoder changed the order of frames"
            data = bytes(packet)
            self._file.write(HEAD.pack(pts, duration, packet.is_keyframe, len(data)) + data)


def frame_of(nir: UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"], pixel_format: str, bits: int) -> VideoFrame:
    """A frame whose luma is `nir`, and whose chroma, if it has any, is none."""
    frame = VideoFrame(nir.shape[1], nir.shape[0], pixel_format)
    luma, *chroma = (_rows(plane, nir.dtype) for plane in frame.planes)
    luma[: nir.shape[0], : nir.shape[1]] = to_bits(nir, bits)
    for plane in chroma:
        plane[:] = 1 << (bits - 1)
    return frame


def _rows(plane: object, dtype: np.dtype) -> Shaped[np.ndarray, "h w"]:
    width = plane.line_size // dtype.itemsize  # type: ignore[attr-defined]
    values = np.frombuffer(plane, dtype)  # type: ignore[call-overload]
    return values[: plane.height * width].reshape(plane.height, width)  # type: ignore[attr-defined]


def to_bits(nir: Shaped[np.ndarray, "..."], bits: int) -> Shaped[np.ndarray, "..."]:
    """uint16's full range to 0 .. 2^bits - 1, rounded; uint8 as it is."""
    if nir.dtype == np.uint8:
        return nir
    most = (1 << bits) - 1
    return ((nir.astype(np.uint32) * most + 32767) // 65535).astype(np.uint16)


def segment_path(folder: Path, segment: int) -> Path:
    """Where a segment's packets lie."""
    return folder / f"{segment:06d}.packets"


def finished_segments(folder: Path) -> set[int]:
    """The segments whose files are whole; others are removed (a power cut can leave a name without its content)."""
    found = set()
    for path in folder.glob("*.packets"):
        try:
            for _ in read_packets(path):
                pass
            found.add(int(path.stem))
        except ImageError:
            path.unlink()
    return found


def read_packets(path: Path) -> Iterator[Packet]:
    """A segment's packets in their order. Raises: ImageError if the file is not whole."""
    with path.open("rb") as file:
        while (head := file.read(HEAD.size)) != LAST:
            if len(head) < HEAD.size:
                raise ImageError(f"{path} is cut off; remove it and run again")
            pts, duration, is_keyframe, size = HEAD.unpack(head)
            data = file.read(size)
            if len(data) < size:
                raise ImageError(f"{path} is cut off; remove it and run again")
            yield Packet(pts, duration, is_keyframe, data)
