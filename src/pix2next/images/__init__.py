"""Pixels: pictures from disk and back, the range the network works in, any size, and tiles.

What is read: PNG, JPEG, TIFF, WebP and BMP, told apart by their content, never by their name. Rules, once for all:

* The picture is turned upright (EXIF or TIFF orientation); of an animation or a multi-page TIFF the first is read.
* Grey becomes three equal channels; palettes are resolved; CMYK goes to RGB through Pillow (Adobe's inverted CMYK
  included). Colour profiles are not applied.
* Alpha and any further band are left out and the colours are taken as stored. To composite would need a background,
  which the network would take for a part of the scene.
* A TIFF's first three samples are red, green and blue if, and only if, it calls itself RGB; bands without a colour
  interpretation may stand in any order and are refused.
* Depth is kept: 1 to 8 bits are uint8, 16 bits uint16, floating point float32. Black is 0, and white the dtype's full
  scale (1 for floating point), unless a range of values is named; never the picture's own lowest and highest.
"""

from pix2next.images.bands import Bands, read_bands
from pix2next.images.files import PICTURE_SUFFIXES, atomic_path, find_pictures, sweep, write_text
from pix2next.images.pixels import (
    Nir,
    Rgb,
    ValueRange,
    check_value_range,
    from_model_range,
    full_scale,
    luma,
    pad_to_multiple,
    to_model_range,
    unit_range,
    usable,
)
from pix2next.images.read import (
    decode_rgb,
    ending_of,
    from_pillow,
    one_channel,
    read_nir,
    read_rgb,
    read_size,
)
from pix2next.images.tiles import blended_bands, plan_spans
from pix2next.images.write import check_holds, encode_nir, write_nir

__all__ = [
    "PICTURE_SUFFIXES",
    "Bands",
    "Nir",
    "Rgb",
    "ValueRange",
    "atomic_path",
    "blended_bands",
    "check_holds",
    "check_value_range",
    "decode_rgb",
    "encode_nir",
    "ending_of",
    "find_pictures",
    "from_model_range",
    "from_pillow",
    "full_scale",
    "luma",
    "one_channel",
    "pad_to_multiple",
    "plan_spans",
    "read_bands",
    "read_nir",
    "read_rgb",
    "read_size",
    "sweep",
    "to_model_range",
    "unit_range",
    "usable",
    "write_nir",
    "write_text",
]
