"""What the released `eval_all.py` computes, its mistakes kept: for comparing with printed tables, and nothing else.

Source: Yonsei-STL/pix2next, UNET/evaluation/eval_all.py (c95c865), whose three equal channels are one here: every
number is the same. Its SAM, the angle between pixels' colours, is 0 on grey pictures and left out.
"""

import math

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from pix2next.evaluate.pixelwise import Picture
from pix2next.images import full_scale

SIDE = 256
WINDOW = 7


def released_picture(picture: Picture) -> UInt8[np.ndarray, "256 256"]:
    """In 8 bits at 256 x 256: aspect not kept, and bilinear without antialiasing, so that a shrunk picture flickers.

    16-bit pictures lose their low byte, as OpenCV reads them.
    """
    if picture.dtype == np.uint16:
        levels = (picture >> 8).astype(np.uint8)
    else:
        levels = (picture * (255 / full_scale(picture.dtype))).round().astype(np.uint8)
    return cv2.resize(levels, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def released_square(picture: Picture) -> Float[Tensor, "1 1 256 256"]:
    """`released_picture` in [0, 1]."""
    return torch.from_numpy(released_picture(picture)).float()[None, None] / 255


def released_rmse(fake: UInt8[np.ndarray, "h w"], nir: UInt8[np.ndarray, "h w"]) -> float:
    """Root of the mean of squared differences that wrap around at 256, as do their squares: below 16, whatever comes.

    10 against 20 gives 10, but 0 against 200 gives 8 and 0 against 16 gives 0. It need not even rank pictures rightly.
    """
    wrapped = (fake - nir) ** 2
    return math.sqrt(wrapped.mean())


def released_ssim(fake: UInt8[np.ndarray, "h w"], nir: UInt8[np.ndarray, "h w"]) -> float:
    """SSIM with a flat window of 7 x 7 and sample variances, inside the picture: skimage's default, not Wang's."""
    x, y = (torch.from_numpy(picture.astype(np.float64))[None, None] for picture in (fake, nir))
    mean_x, mean_y, xx, yy, xy = (F.avg_pool2d(part, WINDOW, stride=1) for part in (x, y, x * x, y * y, x * y))
    sample = WINDOW**2 / (WINDOW**2 - 1)
    variances = sample * (xx - mean_x**2 + yy - mean_y**2)
    covariance = sample * (xy - mean_x * mean_y)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (luminance * (2 * covariance + c2) / (variances + c2)).mean().item()
