"""A video's file: the segments' packets and the source's sound, subtitles, chapters and tags, all as they are."""

import heapq
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.stream import Stream
from av.video.stream import VideoStream

from pix2next.apps.video.encoding import Encoding, Packet, configure, open_encoder, read_packets
from pix2next.apps.video.reading import Clip, open_video
from pix2next.errors import ConfigError, ImageError, one_line
from pix2next.images import atomic_path

CONTAINERS = {".m4v": "mp4", ".mkv": "matroska", ".mov": "mov", ".mp4": "mp4", ".webm": "webm"}
DEFAULT_CODECS = {".webm": "av1"}
OF_THE_FILE = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration"}
"""Tags that tell of the source's container and not of what it holds."""
OF_THE_STREAM = ("language", "title")

logger = logging.getLogger(__name__)


class Timed(NamedTuple):
    """A packet and the second at which it is decoded."""

    seconds: float
    packet: "av.Packet[Any]"


def container_of(target: Path) -> str:
    """The container a target's suffix names. Raises: ConfigError if it names none."""
    name = CONTAINERS.get(target.suffix.lower())
    if name is None:
        raise ConfigError(f"{target} names no container of video; end it in one of {', '.join(CONTAINERS)}")
    return name


def check_joinable(clip: Clip, target: Path, encoding: Encoding, *, sound: bool) -> list[str]:
    """What of the source the target cannot hold and goes without, before any work is done.

    Raises: ConfigError, one sentence, if it cannot hold the codec or the sound, or if the encoder refuses its settings.
    """
    open_encoder(clip, encoding)
    with open_video(clip.path) as (source, stream), _opened(BytesIO(), target) as out:
        _, _, left_out = _streams(source, stream, out, clip, target, encoding, sound)
        try:
            out.start_encoding()
        except (FFmpegError, ValueError) as error:
            raise ConfigError(
                f"{target.suffix} cannot hold {encoding.codec} of {encoding.bits} bits; give another codec, or .mkv"
            ) from error
    return left_out


def join(clip: Clip, segments: list[Path], target: Path, encoding: Encoding, *, sound: bool, comment: str) -> None:
    """Write `target`, whole or not at all, by way of the segments' folder: a killed run leaves all it has in one place.

    Raises: ImageError if it cannot be written; OSError as `atomic_path`.
    """
    joined = joined_path(segments[0].parent, target)
    with atomic_path(joined) as beside, open_video(clip.path) as (source, stream):
        try:
            with _opened(str(beside.absolute()), target) as out:
                video, copies, _ = _streams(source, stream, out, clip, target, encoding, sound)
                _tags(source, out, comment)
                out.start_encoding()
                start = Fraction(source.start_time or 0, av.time_base)
                made, kept = _made(segments, video, clip.time_base), _kept(source, copies, start)
                # By time, so that the container can write as it goes instead of waiting for a stream to begin.
                for timed in heapq.merge(made, kept, key=lambda timed: timed.seconds):
                    out.mux(timed.packet)
        except FFmpegError as error:
            raise ImageError(f"{target} cannot be written ({one_line(error)})") from error
    os.replace(joined, target)


def joined_path(folder: Path, target: Path) -> Path:
    """Where the whole video lies until it is moved to its place."""
    return folder / f"joined{target.suffix}"


@contextmanager
def _opened(file: Any, target: Path) -> Iterator[OutputContainer]:
    # Without bitexact Matroska would draw random numbers, and no two files be equal.
    options = {"fflags": "+bitexact"}
    out = av.open(file, "w", format=container_of(target), container_options=options, metadata_errors="replace")
    with out:
        yield out


def _streams(
    source: InputContainer,
    video: VideoStream,
    out: OutputContainer,
    clip: Clip,
    target: Path,
    encoding: Encoding,
    sound: bool,
) -> tuple[VideoStream, dict[int, Stream], list[str]]:
    """The NIR stream, copies of the source's others by their index there, and which of them have none."""
    try:
        made = out.add_stream(encoding.kind.encoder, rate=clip.rate)
    except ValueError as error:
        raise ConfigError(f"{target.suffix} cannot hold {encoding.codec}; give another codec, or .mkv") from error
    assert isinstance(made, VideoStream)
    configure(made.codec_context, clip, encoding)
    if encoding.codec == "h265" and container_of(target) in ("mp4", "mov"):
        made.codec_context.codec_tag = "hvc1"  # Apple's players know no other.
    _describe(video, made)
    copies: dict[int, Stream] = {}
    left_out = []
    for stream in source.streams:
        if stream.index == video.index or (stream.type == "audio" and not sound):
            continue
        if copy := _copied(stream, out):
            copies[stream.index] = copy
        elif stream.type == "audio":
            raise ConfigError(
                f"{target.suffix} cannot hold the {_codec(stream)} sound; give .mkv, or leave sound out (--no-sound)"
            )
        else:
            left_out.append(f"{stream.type} stream {stream.index} ({_codec(stream)})")
    return made, copies, left_out


def _copied(stream: Stream, out: OutputContainer) -> Stream | None:
    if stream.type not in ("audio", "subtitle", "attachment"):
        return None
    try:
        copy = out.add_stream_from_template(stream)
    except (ValueError, AttributeError, FFmpegError):  # Not in this container, or of no known codec.
        return None
    _describe(stream, copy)
    return copy


def _codec(stream: Stream) -> str:
    return stream.codec_context.name if stream.codec_context is not None else "unknown"


def _describe(stream: Stream, copy: Stream) -> None:
    copy.metadata.update({key: stream.metadata[key] for key in OF_THE_STREAM if key in stream.metadata})
    copy.disposition = stream.disposition.value  # type: ignore[assignment]  # PyAV reads flags and takes a number.


def _tags(source: InputContainer, out: OutputContainer, comment: str) -> None:
    kept = {key: value for key, value in source.metadata.items() if key.lower() not in OF_THE_FILE}
    before = kept.pop("comment", kept.pop("COMMENT", None))
    out.metadata.update(kept, comment=f"{before}; {comment}" if before else comment)
    if chapters := source.chapters():
        out.set_chapters(chapters)


def _made(segments: list[Path], stream: VideoStream, time_base: Fraction) -> Iterator[Timed]:
    for segment in segments:
        for packet in read_packets(segment):
            yield Timed(float(packet.pts * time_base), _packet(packet, stream, time_base))


def _packet(made: Packet, stream: VideoStream, time_base: Fraction) -> "av.Packet[Any]":
    packet: "av.Packet[Any]" = av.Packet(made.data)
    packet.stream, packet.time_base = stream, time_base
    packet.pts = packet.dts = made.pts
    packet.duration, packet.is_keyframe = made.duration, made.is_keyframe
    return packet


def _kept(source: InputContainer, copies: dict[int, Stream], start: Fraction) -> Iterator[Timed]:
    """The source's packets for each copy, moved to begin with the file."""
    last: dict[int, int] = {}
    for packet in _readable(source, copies):
        if packet.dts is None or packet.pts is None:
            continue
        moved = round(start / packet.time_base)
        packet.pts, packet.dts = packet.pts - moved, packet.dts - moved
        index = packet.stream.index
        # A damaged file may step back in time, which no container takes.
        if packet.dts < last.get(index, packet.dts):
            continue
        last[index] = packet.dts
        seconds = float(packet.dts * packet.time_base)
        packet.stream = copies[index]
        yield Timed(seconds, packet)


def _readable(source: InputContainer, copies: dict[int, Stream]) -> Iterator["av.Packet[Any]"]:
    streams = [source.streams[index] for index in copies]
    if not streams:
        return
    try:
        yield from source.demux(streams)
    except FFmpegError as error:
        logger.debug("sound and subtitles end where the file breaks off (%s)", one_line(error))
