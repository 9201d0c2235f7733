"""Arrays of pixels and the tensors the network works on."""

import cv2
import einops
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Shaped, UInt8, UInt16
from numpy.typing import DTypeLike
from torch import Tensor

from pix2next.errors import ImageError

Rgb = UInt8[np.ndarray, "h w 3"] | UInt16[np.ndarray, "h w 3"] | Float32[np.ndarray, "h w 3"]
Nir = UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"] | Float32[np.ndarray, "h w"]


def full_scale(dtype: DTypeLike) -> float:
    """The value that means white: 255, 65535, or 1 for floating point."""
    return float(np.iinfo(np.dtype(dtype)).max) if np.issubdtype(dtype, np.integer) else 1.0


def unit_range(picture: Float[np.ndarray, "..."], name: str) -> Float[np.ndarray, "..."]:
    """Floating-point pixels as they may be used: clipped to [0, 1].

    A few values beyond (ringing of a resize, a specular highlight) are clipped; if they are more than one in a
    hundred, the picture has another scale, and guessing it would be worse than saying so.

    Raises: ImageError on NaN or infinite values and on another scale.
    """
    low, high = picture.min(), picture.max()
    if low >= 0 and high <= 1:
        return picture
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError(f"{name} holds NaN or infinite values; fill them first")
    if np.mean((picture < 0) | (picture > 1)) > 0.01:
        raise ImageError(f"{name} has floating-point values from {low:g} to {high:g}; scale them to [0, 1] first")
    return picture.clip(0, 1)


def to_model_range(
    picture: Shaped[np.ndarray, "h w"] | Shaped[np.ndarray, "h w c"],
) -> Float32[Tensor, "c h w"]:
    """[0, full scale] of the picture's dtype to [-1, 1], channels first."""
    channels_last = picture[:, :, None] if picture.ndim == 2 else picture
    scaled = channels_last.astype(np.float32) * np.float32(2 / full_scale(picture.dtype)) - 1
    return torch.from_numpy(einops.rearrange(scaled, "h w c -> c h w").copy())


def from_model_range(
    tensor: Float[Tensor, "h w"] | Float[Tensor, "1 h w"], dtype: DTypeLike
) -> Shaped[np.ndarray, "h w"]:
    """[-1, 1] to [0, full scale] of `dtype`: clamped, and rounded for integers."""
    plane = tensor.detach().reshape(tensor.shape[-2:]).float()
    scaled = plane.add(1).div(2).clamp(0, 1).mul(full_scale(dtype))
    rounded = scaled.round() if np.issubdtype(dtype, np.integer) else scaled
    return rounded.cpu().numpy().astype(dtype)


def luma(rgb: Rgb) -> Nir:
    """Rec. 601 luma, 0.299 R + 0.587 G + 0.114 B, in the picture's own depth."""
    return cv2.transform(rgb, np.array([[0.299, 0.587, 0.114]]))


def pad_to_multiple(x: Float[Tensor, "b c h w"], multiple: int) -> Float[Tensor, "b c H W"]:
    """Grown to the right and below until both sides are multiples; `x[..., :h, :w]` of the result is the input.

    Mirrored where the side is long enough for it, the last row or column repeated otherwise.
    """
    down, right = -x.shape[-2] % multiple, -x.shape[-1] % multiple
    if right:
        x = F.pad(x, (0, right, 0, 0), mode="reflect" if right < x.shape[-1] else "replicate")
    if down:
        x = F.pad(x, (0, 0, 0, down), mode="reflect" if down < x.shape[-2] else "replicate")
    return x
