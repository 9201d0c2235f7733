"""One outdoor photo and its NIR picture side by side: the first thing to look at after installing."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pix2next.errors import ImageError
from pix2next.images import atomic_path, read_rgb
from pix2next.model.pix2next import DEFAULT_MODEL
from pix2next.translate import Translator

PHOTO = Path(__file__).with_name("china.jpg")
"""Trees, sky, water and a roof, 640 x 427; source and licence in china.txt beside it."""


def write_demo(out: Path, photo: Path = PHOTO, model: str = DEFAULT_MODEL, device: str = "auto") -> None:
    """Write `photo` (left) and its NIR picture (right) into the file `out`, in the format of its suffix.

    `photo` has 8 bits. Raises: ImageError when it cannot be read or `out` cannot be written; WeightsError when there is
    no such model.
    """
    rgb = read_rgb(photo)
    nir = Translator.from_pretrained(model, device=device)(rgb)
    try:
        with atomic_path(out) as beside:
            Image.fromarray(side_by_side(rgb, nir)).save(beside)
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot write {out}: {getattr(error, 'strerror', None) or error}") from error


def side_by_side(rgb: UInt8[np.ndarray, "h w 3"], nir: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h v 3"]:
    """RGB left, NIR as grey right, a white line of eight pixels between them."""
    line = np.full((len(rgb), 8, 3), 255, np.uint8)
    return np.hstack([rgb, line, np.repeat(nir[..., None], 3, axis=2)])
