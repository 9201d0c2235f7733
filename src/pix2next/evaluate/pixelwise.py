"""Scores of one made NIR picture against the true one, pixel by pixel: pure functions of two pictures of one size.

Pictures have one channel and any depth; mixed depths are brought to one scale. Everything is computed in floating
point, in 8-bit units (0 is black, 255 is white), and nothing is rounded before.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from pix2next.evaluate.similarity import SIDE, Border, similarity_maps, ssim_map
from pix2next.images import full_scale

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of MS-SSIM's five scales, the picture itself first."""
MS_SSIM_LEAST = (SIDE - 1) * 2 ** (len(SCALE_WEIGHTS) - 1) + 1
"""Shortest side of which the coarsest scale still holds a window."""
EQUAL = 1e-4
"""Errors below this many 8-bit units are the rounding of a fit, not a difference."""

Picture = Shaped[np.ndarray, "h w"]


def eight_bit_units(picture: Picture) -> Float[np.ndarray, "h w"]:
    """[0, full scale] of the picture's dtype to [0, 255], not rounded."""
    return picture.astype(np.float64) * (255 / full_scale(picture.dtype))


def rmse(fake: Picture, nir: Picture) -> float:
    """Root of the mean squared difference of two pictures, in 8-bit units: 0 when equal, at most 255.

    The released `eval_all.py` subtracts uint8 arrays, where 10 - 20 is 246 and the square wraps again: its RMSE column
    contradicts its PSNR column. Here the difference is taken in floating point.
    """
    return math.sqrt(np.mean((eight_bit_units(fake) - eight_bit_units(nir)) ** 2))


def psnr(fake: Picture, nir: Picture) -> float:
    """Peak signal-to-noise ratio, 20 log10(255 / RMSE), in dB: infinite when equal, 0 for black against white."""
    return _decibels(rmse(fake, nir))


def aligned_psnr(fake: Picture, nir: Picture) -> float:
    """PSNR after the gain and offset of the made picture that suit the true one best, in dB: never below PSNR.

    How bright a scene is in NIR depends on an exposure that is not in the RGB picture; this takes it out, by least
    squares over the picture's pixels. The gain is not negative (an inverted picture is no exposure) and nothing is
    clipped. Infinite when the fit is exact.
    """
    x, y = eight_bit_units(fake), eight_bit_units(nir)
    dx, dy = x - x.mean(), y - y.mean()
    power = (dx**2).sum()
    gain = max((dx * dy).sum() / power, 0.0) if power else 0.0
    error = math.sqrt(np.mean((gain * dx - dy) ** 2))
    return _decibels(error if error > EQUAL else 0.0)


def mae(fake: Picture, nir: Picture) -> float:
    """Mean absolute difference in 8-bit units: 0 when equal, at most 255."""
    return float(np.abs(eight_bit_units(fake) - eight_bit_units(nir)).mean())


def error_std(fake: Picture, nir: Picture) -> float:
    """Standard deviation of the difference over the picture's pixels, in 8-bit units: 0 for a constant offset.

    With the mean difference, the bias: RMSE^2 = bias^2 + STD^2. The paper prints an STD without saying of what, and
    the released code computes none.
    """
    return float((eight_bit_units(fake) - eight_bit_units(nir)).std())


def pcc(fake: Picture, nir: Picture) -> float:
    """Pearson's correlation of the pixels, in [-1, 1]: free of gain and offset; NaN for a picture of one value."""
    x, y = (eight_bit_units(picture) for picture in (fake, nir))
    dx, dy = x - x.mean(), y - y.mean()
    scale = math.sqrt((dx**2).sum() * (dy**2).sum())
    return float(np.clip((dx * dy).sum() / scale, -1, 1)) if scale else math.nan


def ssim(fake: Picture, nir: Picture, border: Border = "reflect") -> float:
    """Structural similarity, Gaussian window of 11 x 11 and sigma 1.5, data range 255; 1 when equal, at least -1.

    The mean over one window a pixel, pictures mirrored beyond their edges, is what torchmetrics computes;
    `border="valid"` gives skimage's mean, over the windows that lie inside.
    """
    return ssim_map(_as_batch(fake), _as_batch(nir), 255.0, border).double().mean().item()


def ms_ssim(fake: Picture, nir: Picture) -> float:
    """SSIM over five scales, each half the size of the one before: 1 when equal, at least 0.

    Windows inside the picture, 8-bit units, data range 255; halved by the mean of 2 x 2 pixels, an odd last row or
    column being dropped; a negative mean counts as 0. NaN for a side below `MS_SSIM_LEAST`, 161 pixels.

    Source: Wang et al. 2003, "Multiscale structural similarity for image quality assessment", eq. 7.
    """
    if min(nir.shape) < MS_SSIM_LEAST:
        return math.nan
    x, y = _as_batch(fake), _as_batch(nir)
    score = 1.0
    for scale, weight in enumerate(SCALE_WEIGHTS):
        luminance, structure = similarity_maps(x, y, 255.0)
        last = scale == len(SCALE_WEIGHTS) - 1
        agreement = (luminance * structure if last else structure).double().mean().item()
        score *= max(agreement, 0.0) ** weight
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return score


def ndvi(red: Picture, nir: Picture) -> Float[np.ndarray, "h w"]:
    """(NIR - R) / (NIR + R) per pixel, in [-1, 1]; 0 where both are black.

    A vegetation index of reflectances. Of photographs, whose channels are neither linear nor calibrated, it is an
    index of the same form, to be compared with itself alone.

    Source: Rouse et al. 1974, "Monitoring vegetation systems in the Great Plains with ERTS".
    """
    r, n = eight_bit_units(red), eight_bit_units(nir)
    total = r + n
    return np.divide(n - r, total, out=np.zeros_like(total), where=total > 0)


def ndvi_error_map(red: Picture, fake: Picture, nir: Picture) -> Float[np.ndarray, "h w"]:
    """NDVI with the made NIR minus NDVI with the true one, in [-2, 2]: above 0 where too much is called vegetation."""
    return ndvi(red, fake) - ndvi(red, nir)


def ndvi_error(red: Picture, fake: Picture, nir: Picture) -> float:
    """Mean absolute value of `ndvi_error_map`: 0 when equal, at most 2. `red` is the red channel of the RGB picture."""
    return float(np.abs(ndvi_error_map(red, fake, nir)).mean())


def _as_batch(picture: Picture) -> Float[Tensor, "1 1 h w"]:
    return torch.from_numpy(eight_bit_units(picture)).float()[None, None]


def _decibels(error: float) -> float:
    return 20 * math.log10(255 / error) if error else math.inf
