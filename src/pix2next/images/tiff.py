"""What a TIFF says about itself, and which of OpenCV and Pillow reads such a one as it is meant.

Neither reads every TIFF rightly, and both can give wrong pixels without a word. Measured with OpenCV 5.0 and
Pillow 13.0, and the reason for each rule here:

* Pillow cuts no depth but opens no colour of 16 bits or floating point; OpenCV does.
* OpenCV multiplies 8-bit colours by unassociated alpha; Pillow divides them by associated alpha. GIS software
  commonly labels a near-infrared fourth band as either, so each goes to the one that leaves the colours alone.
* OpenCV mixes up the bands of 16-bit colour stored plane by plane, and cuts grey of 16 bits with a second band to 8.
"""

from typing import Any, NamedTuple

import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pix2next.errors import ImageError
from pix2next.images.stored import Stored, silent_warnings

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
UNASSOCIATED_ALPHA = 2
_FORMATS = {1: "unsigned integer", 2: "signed integer", 3: "floating-point", 4: "unsigned integer", 5: "complex"}


class TiffLayout(NamedTuple):
    """The first page's tags that decide how to read it."""

    width: int
    height: int
    bits: tuple[int, ...]
    formats: tuple[int, ...]
    photometric: int
    samples: int
    extra: tuple[int, ...]
    planes: bool
    thumbnail: bool
    end: int

    @property
    def floating(self) -> bool:
        """Whether pixels are floating-point numbers."""
        return self.formats[0] == 3

    @property
    def deep(self) -> bool:
        """Whether pixels are of more than 8 bits."""
        return max(self.bits) > 8

    @property
    def for_opencv(self) -> bool:
        """Whether OpenCV is the one to read it; Pillow if not."""
        alpha_pillow_undoes = self.samples == 4 and self.extra != (UNASSOCIATED_ALPHA,)
        return self.deep or (self.photometric == RGB and alpha_pillow_undoes)


def read_layout(file: Stored) -> TiffLayout:
    """The layout of the first page.

    Raises: ImageError if there is no whole page; whatever Pillow raises on damaged tags.
    """
    tags = read_tags(file)
    if 256 not in tags or 257 not in tags:
        raise ImageError(f"{file}: this TIFF file is damaged or cut short (its first page has no size)")
    offsets, counts = chunks(tags)
    whole = len(offsets) == len(counts) > 0
    return TiffLayout(
        width=int(tags[256]),
        height=int(tags[257]),
        bits=tuple(np.atleast_1d(tags.get(258, 1)).tolist()),
        formats=tuple(np.atleast_1d(tags.get(339, 1)).tolist()),
        photometric=int(tags.get(262, BLACK_IS_ZERO)),
        samples=int(tags.get(277, 1)),
        extra=tuple(np.atleast_1d(tags.get(338, ())).tolist()),
        planes=tags.get(284, 1) == 2,
        thumbnail=bool(tags.get(254, 0) & 1),
        end=int((np.array(offsets, np.int64) + np.array(counts, np.int64)).max()) if whole else 0,
    )


def read_tags(file: Stored) -> ImageFileDirectory_v2:
    """The first page's tags. Raises: whatever Pillow raises on damaged ones."""
    with file.open() as opened, silent_warnings:
        head = opened.read(8)
        head += opened.read(8) if head[2:3] == b"+" else b""
        tags = ImageFileDirectory_v2(head)
        opened.seek(tags.next)
        tags.load(opened)
    return tags


def chunks(tags: ImageFileDirectory_v2) -> tuple[list[Any], list[Any]]:
    """Where each strip or tile begins, and how many bytes it has."""
    starts, counts = tags.get(273, tags.get(324, ())), tags.get(279, tags.get(325, ()))
    return list(np.atleast_1d(starts)), list(np.atleast_1d(counts))


def refuse_unreadable(file: Stored, layout: TiffLayout) -> None:
    """Raises: ImageError if the file is cut short, or if no decoder here would give the pixels that are meant."""
    refuse_cut_short(file, layout)
    if layout.thumbnail:
        raise ImageError(f"{file} begins with a thumbnail (a camera's raw file?); convert it to a 16-bit TIFF first")
    _refuse_depth(file, layout)
    _refuse_bands(file, layout)


def refuse_cut_short(file: Stored, layout: TiffLayout) -> None:
    """Raises: ImageError if the file ends before its pixels do."""
    size = file.size()
    if layout.end > size:
        raise ImageError(f"{file} is cut short: its pixels reach to byte {layout.end}, the file ends at {size}")


def _refuse_depth(file: Stored, layout: TiffLayout) -> None:
    bits = set(layout.bits)
    formats = {_FORMATS.get(code, "unknown") for code in layout.formats}
    whole_numbers = formats == {"unsigned integer"} and (max(bits) <= 8 or bits == {16})
    if whole_numbers or (formats == {"floating-point"} and bits in ({32}, {64})):
        return
    came = f"{'/'.join(map(str, sorted(bits)))}-bit {'/'.join(sorted(formats))} pixels"
    raise ImageError(f"{file} has {came}; convert them to 8- or 16-bit unsigned or 32-bit floating-point ones")


def _refuse_bands(file: Stored, layout: TiffLayout) -> None:
    match layout.photometric:
        case _ if layout.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO):
            if layout.samples > 2:
                raise ImageError(
                    f"{file} has {layout.samples} bands and does not say which are red, green and blue; "
                    "write those three as an RGB TIFF (gdal_translate -b R -b G -b B -colorinterp red,green,blue)"
                )
            fits = layout.samples == 1 or not layout.deep
        case _ if layout.photometric == RGB:
            fits = layout.samples in (3, 4) if layout.deep or layout.planes else layout.samples >= 3
            fits = fits and not (layout.deep and layout.planes)
        case _:
            fits = layout.photometric in (PALETTE, CMYK, YCBCR) and not layout.deep
    if not fits:
        raise ImageError(
            f"{file} is a kind of TIFF that is not read ({layout.samples} samples of {max(layout.bits)} bits, "
            f"photometric {layout.photometric}, {'planar' if layout.planes else 'interleaved'}); write it as plain "
            "interleaved RGB or grey"
        )
