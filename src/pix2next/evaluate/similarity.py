"""Structural similarity, written once for the loss and for the scores."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Border = Literal["valid", "reflect"]
SIDE = 11
SIGMA = 1.5


def ssim_map(
    fake: Float[Tensor, "b c h w"],
    real: Float[Tensor, "b c h w"],
    data_range: float | Float[Tensor, ""],
    border: Border = "valid",
) -> Float[Tensor, "b c h2 w2"]:
    """SSIM of the 11 x 11 windows (Gaussian, sigma 1.5, population variance) of two pictures, in [-1, 1].

    The product of the two maps of `similarity_maps`.

    Source: Wang et al. 2004, "Image quality assessment", eq. 13, K1 = .01, K2 = .03.
    """
    luminance, structure = similarity_maps(fake, real, data_range, border)
    return luminance * structure


def similarity_maps(
    fake: Float[Tensor, "b c h w"],
    real: Float[Tensor, "b c h w"],
    data_range: float | Float[Tensor, ""],
    border: Border = "valid",
) -> tuple[Float[Tensor, "b c h2 w2"], Float[Tensor, "b c h2 w2"]]:
    """How the windows agree in their means, in [0, 1], and in contrast and structure together, in [-1, 1].

    `border`: "valid" takes the windows that lie inside the picture (skimage, Wang et al.) and extends one narrower
    than a window by its edge; "reflect" takes one window a pixel, the picture being mirrored beyond its edge
    (torchmetrics). Computed in float32 or float64, whatever autocast says.
    """
    with torch.autocast(fake.device.type, enabled=False):
        x, y = _extend(fake, border), _extend(real, border)
        # Variances are taken around each picture's mean: the same numbers, without the loss of digits.
        centre_x, centre_y = (picture.detach().mean(dim=(-2, -1), keepdim=True) for picture in (x, y))
        x, y = x - centre_x, y - centre_y
        mean_x, mean_y, xx, yy, xy = _window_means(torch.stack([x, y, x * x, y * y, x * y]))
        variances = (xx - mean_x**2).clamp(min=0) + (yy - mean_y**2).clamp(min=0)
        covariance = xy - mean_x * mean_y
        mean_x, mean_y = mean_x + centre_x, mean_y + centre_y
        c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
        luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
        return luminance, (2 * covariance + c2) / (variances + c2)


def _extend(picture: Float[Tensor, "b c h w"], border: Border) -> Float[Tensor, "b c h2 w2"]:
    picture = picture if picture.dtype == torch.float64 else picture.float()
    if border == "reflect":
        mode = "reflect" if min(picture.shape[-2:]) > SIDE // 2 else "replicate"
        return F.pad(picture, (SIDE // 2,) * 4, mode=mode)
    missing_h, missing_w = (max(SIDE - size, 0) for size in picture.shape[-2:])
    if missing_h or missing_w:
        around = (missing_w // 2, missing_w - missing_w // 2, missing_h // 2, missing_h - missing_h // 2)
        return F.pad(picture, around, mode="replicate")
    return picture


def _window_means(maps: Float[Tensor, "n b c h w"]) -> Float[Tensor, "n b c h2 w2"]:
    """The window's mean of every map, as one grouped convolution (on a CPU faster than two separable ones)."""
    count = maps.shape[:3].numel()
    offset = torch.arange(SIDE, dtype=maps.dtype, device=maps.device) - SIDE // 2
    weights = torch.softmax(-(offset**2) / (2 * SIGMA**2), dim=0)
    window = torch.outer(weights, weights).expand(count, 1, SIDE, SIDE)
    means = F.conv2d(maps.reshape(1, count, *maps.shape[-2:]), window, groups=count)
    return means.reshape(*maps.shape[:3], *means.shape[-2:])
