"""Pictures from disk, by the rules in `pix2next.images`."""

import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, Shaped, UInt8, UInt16
from PIL import BmpImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from pix2next.errors import ImageError
from pix2next.images import tiff
from pix2next.images.pixels import Nir, Rgb, full_scale, unit_range

Pixels = UInt8[np.ndarray, "h w *c"] | UInt16[np.ndarray, "h w *c"] | Float32[np.ndarray, "h w *c"]
"""Grey [h, w] or colour [h, w, 3]."""

MAX_PIXELS = 2**30
"""More are refused before anything is decoded; it is OpenCV's own limit, too."""

_STARTS = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0"),
    "WebP": (b"RIFF",),
    "BMP": (b"BM",),
}
# The plugins are called directly: Image.open refuses large pictures by a limit that is global to the process.
_PLUGINS: dict[str, Any] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LOG: Any = getattr(cv2.utils, "logging", cv2)  # Where OpenCV 5 and OpenCV 4 have their log level; 0 is silent.
# What Pillow, and the parsing here, raise on damaged data.
DAMAGE = (OSError, EOFError, SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError, struct.error)


def read_rgb(path: str | Path) -> Rgb:
    """The picture as colour, upright, in the file's depth.

    Raises: ImageError, one sentence that names the file, if it is missing, damaged, cut short or of no known kind.
    """
    picture = _read(Path(path))
    return picture if picture.ndim == 3 else cv2.merge([picture] * 3)


def read_nir(path: str | Path) -> Nir:
    """The picture as one channel, upright, in the file's depth.

    Three equal channels are one; unequal ones (a grey picture that went through colour JPEG) are averaged, each with
    the same weight: none of them is nearer to near infrared, so a luma would be wrong.

    Raises: ImageError as `read_rgb`.
    """
    return one_channel(_read(Path(path)))


def one_channel(picture: Pixels) -> Nir:
    """Grey as it is; of colour the equal channels' one, or the average of unequal ones."""
    if picture.ndim == 2:
        return picture
    first, second, third = cv2.split(picture)
    if np.array_equal(first, second) and np.array_equal(first, third):
        return first
    return cv2.transform(picture, np.full((1, 3), 1 / 3))


def _read(path: Path) -> Pixels:
    kind = kind_of(path)
    try:
        picture = _decode(path, kind)
    except DAMAGE as error:
        raise ImageError(f"{path}: this {kind} file is damaged or cut short ({_reason(error)})") from error
    return unit_range(picture, str(path)) if picture.dtype == np.float32 else picture


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def kind_of(path: Path) -> str:
    """A name of `_STARTS`, by the file's first bytes.

    Raises: ImageError if it is missing, empty or of no known kind.
    """
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except (OSError, ValueError) as error:
        reason = "it is a folder" if path.is_dir() else getattr(error, "strerror", None) or error
        raise ImageError(f"cannot read {path}: {reason}") from None
    if not head:
        raise ImageError(f"{path} is empty (0 bytes)")
    for kind, starts in _STARTS.items():
        if head.startswith(starts) and (kind != "WebP" or head.endswith(b"WEBP")):
            return kind
    raise ImageError(f"{path} is not a picture of a known kind; known are {', '.join(_STARTS)}")


def _decode(path: Path, kind: str) -> Pixels:
    match kind:
        case "PNG":
            width, height, bits, colour = _png_header(path)
            _check_size(path, width, height)
            _check_png_chunks(path)
            if bits == 16:
                return _deep_png(path, grey=colour in (0, 4))
        case "TIFF":
            layout = tiff.read_layout(path)
            _check_size(path, layout.width, layout.height)
            tiff.refuse_unreadable(path, layout)
            if layout.for_opencv:
                return _opencv_tiff(path, inverted=layout.photometric == tiff.WHITE_IS_ZERO)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _PLUGINS[kind](path) as opened:
            _check_size(path, *opened.size)
            return _pixels(opened, str(path))


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(f"{path} has {width} x {height} pixels, more than the {MAX_PIXELS} that are read; cut it up")


def from_pillow(picture: Image.Image) -> Pixels:
    """The pixels of a Pillow image, upright, by the same rules as a file's.

    Raises: ImageError if its file is damaged, or its pixels are of a kind that is not used.
    """
    try:
        pixels = _pixels(picture, "the Pillow image")
    except DAMAGE as error:
        raise ImageError(f"the Pillow image is damaged or cut short ({_reason(error)})") from error
    return unit_range(pixels, "the Pillow image") if pixels.dtype == np.float32 else pixels


def _pixels(picture: Image.Image, name: str) -> Pixels:
    if 0 in picture.size:
        raise ImageError(f"{name} has no pixels ({picture.width} x {picture.height})")
    picture.load()
    turn = _turn(picture)
    upright = picture if turn is None else picture.transpose(turn)
    match upright.mode:
        case "L" | "RGB" | "F":
            return np.array(upright)
        case "I;16" | "I;16L" | "I;16B" | "I;16N":
            return np.array(upright).astype(np.uint16)
        case "1" | "LA" | "La":
            return np.array(upright.convert("L"))
        case "P" | "PA" | "RGBA" | "RGBX" | "RGBa" | "CMYK" | "YCbCr":
            return np.array(upright.convert("RGB"))
    raise ImageError(
        f"{name} has pixels of Pillow's mode {upright.mode}, which is not used; convert it to L, RGB, I;16 or F"
    )


def _turn(picture: Image.Image) -> Image.Transpose | None:
    try:
        return _UPRIGHT.get(picture.getexif().get(_ORIENTATION, 1))
    except DAMAGE:  # Damaged EXIF makes the pixels no worse.
        return None


def _png_header(path: Path) -> tuple[int, int, int, int]:
    """Width, height, bits, colour type."""
    with path.open("rb") as file:
        file.seek(16)
        width, height, bits, colour = struct.unpack(">IIBB", file.read(10))
        return width, height, bits, colour


def _deep_png(path: Path, *, grey: bool) -> Pixels:
    """16 bits, of which Pillow would drop half in colour. Alpha goes, and the EXIF orientation is applied."""
    picture = _imdecode(path, cv2.IMREAD_ANYDEPTH | (cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR))
    return picture if grey else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=picture)


def _check_png_chunks(path: Path) -> None:
    """Raises: ValueError or struct.error where the file ends early or a chunk is damaged.

    Pillow lets the end be missing, and of damage libpng writes to stderr.
    """
    with path.open("rb") as file:
        file.seek(8)
        kind = b""
        while kind != b"IEND":
            length, kind = struct.unpack(">I4s", file.read(8))
            body, checksum = file.read(length), file.read(4)
            if zlib.crc32(kind + body) != int.from_bytes(checksum, "big"):
                raise ValueError("a checksum is wrong")


def _opencv_tiff(path: Path, *, inverted: bool) -> Pixels:
    picture = _imdecode(path, cv2.IMREAD_UNCHANGED)
    if picture.dtype == np.float64:
        picture = picture.astype(np.float32)
    if picture.ndim == 2:
        return (full_scale(picture.dtype) - picture).astype(picture.dtype) if inverted else picture
    if picture.shape[2] == 4:
        return cv2.cvtColor(picture, cv2.COLOR_BGRA2RGB)
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=picture)


def _imdecode(path: Path, flags: int) -> Shaped[np.ndarray, "h w *c"]:
    data = np.memmap(path, dtype=np.uint8, mode="r")
    if data.size >= 2**31:
        raise ImageError(f"{path} has {data.size} bytes, and only up to 2 GiB can be decoded; compress it or cut it up")
    return decode_bytes(data, flags)


def decode_bytes(data: UInt8[np.ndarray, "bytes"], flags: int) -> Shaped[np.ndarray, "h w *c"]:
    """What OpenCV makes of an encoded picture, without its messages. Raises: ValueError if it cannot decode it."""
    level = _LOG.setLogLevel(0)
    try:
        picture = cv2.imdecode(data, flags)
    except cv2.error as error:
        raise ValueError(error.err) from None
    finally:
        _LOG.setLogLevel(level)
    if picture is None:
        raise ValueError("OpenCV cannot decode it")
    return picture
