"""Arrays of pixels and the tensors the network works on."""

import cv2
import einops
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Shaped, UInt8, UInt16
from numpy.typing import DTypeLike
from torch import Tensor

from pix2next.errors import ConfigError, ImageError

Rgb = UInt8[np.ndarray, "h w 3"] | UInt16[np.ndarray, "h w 3"] | Float32[np.ndarray, "h w 3"]
Nir = UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"] | Float32[np.ndarray, "h w"]
ValueRange = tuple[int | float, int | float]
"""The pixel values that mean black and white, where they are not 0 and the full scale of the dtype."""


def full_scale(dtype: DTypeLike) -> float:
    """The value that means white: 255, 65535, or 1 for floating point."""
    return float(np.iinfo(np.dtype(dtype)).max) if np.issubdtype(dtype, np.integer) else 1.0


def check_value_range(value_range: ValueRange) -> None:
    """Raises: ConfigError unless it is a lower and a higher finite number."""
    low, high = value_range
    if not (np.isfinite([low, high]).all() and low < high):
        raise ConfigError(
            f"a range of values goes from a lower to a higher finite number, not from {low:g} to {high:g}"
        )


def black_and_white(dtype: DTypeLike, value_range: ValueRange | None = None) -> ValueRange:
    """The values of black and white: `value_range`, or 0 and the full scale of `dtype`; never the picture's own.

    Raises: ImageError if integers of `dtype` do not hold the range.
    """
    low, high = value_range or (0.0, full_scale(dtype))
    if np.issubdtype(dtype, np.integer) and not (low >= 0 and high <= full_scale(dtype)):
        depth = np.dtype(dtype)
        raise ImageError(f"{depth} pixels hold 0 to {full_scale(dtype):g}, not the range {low:g} to {high:g}")
    return low, high


def usable(
    picture: Shaped[np.ndarray, "..."], name: str, value_range: ValueRange | None = None
) -> Shaped[np.ndarray, "..."]:
    """`picture`, by the rule of `unit_range` if it is floating point and nobody named a range.

    With a range the values beyond it are clipped later, on the way to the network, however many they are.

    Raises: ImageError on NaN or infinite values; without a range as `unit_range`, with one as `black_and_white`.
    """
    if value_range is not None:
        black_and_white(picture.dtype, value_range)
    if picture.dtype.kind != "f":
        return picture
    if value_range is None:
        return unit_range(picture, name)
    _refuse_not_finite(picture, name)
    return picture


def unit_range(picture: Float[np.ndarray, "..."], name: str) -> Float[np.ndarray, "..."]:
    """Floating-point pixels as they may be used: clipped to [0, 1].

    A few values beyond (ringing of a resize, a specular highlight) are clipped; if they are more than one in a
    hundred, the picture has another scale, and guessing it would be worse than saying so.

    Raises: ImageError on NaN or infinite values and on another scale.
    """
    low, high = _refuse_not_finite(picture, name)
    if low >= 0 and high <= 1:
        return picture
    if np.mean((picture < 0) | (picture > 1)) > 0.01:
        came = f"floating-point values from {low:g} to {high:g}"
        raise ImageError(f"{name} has {came}; scale them to [0, 1] first, or give their range")
    return picture.clip(0, 1)


def _refuse_not_finite(picture: Float[np.ndarray, "..."], name: str) -> ValueRange:
    """The lowest and the highest value. Raises: ImageError if one of them is NaN or infinite."""
    low, high = float(picture.min()), float(picture.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError(f"{name} holds NaN or infinite values; fill them first")
    return low, high


def to_model_range(
    picture: Shaped[np.ndarray, "h w"] | Shaped[np.ndarray, "h w c"],
    value_range: ValueRange | None = None,
    device: torch.device | None = None,
) -> Float32[Tensor, "c h w"]:
    """Black to white to [-1, 1], channels first; values beyond a named range are clipped.

    8 bits are converted on `device`: there is four times less to bring there.

    Raises: ImageError as `black_and_white`, which says what is black and white.
    """
    low, high = black_and_white(picture.dtype, value_range)
    channels_last = picture[:, :, None] if picture.ndim == 2 else picture
    # float64 keeps its digits until a range that may lie far from zero is taken off.
    working = np.result_type(picture.dtype, np.float32)
    if picture.dtype == np.uint8:
        pixels = torch.from_numpy(np.array(channels_last)).to(device).float()
    else:
        pixels = torch.from_numpy(np.array(channels_last, working, order="C"))
    scaled = pixels.sub(low).mul(2 / (high - low)).sub(1).float()
    clipped = scaled if value_range is None else scaled.clamp(-1, 1)
    return einops.rearrange(clipped, "h w c -> c h w").to(device).contiguous()


def from_model_range(
    tensor: Float[Tensor, "h w"] | Float[Tensor, "1 h w"], dtype: DTypeLike, value_range: ValueRange | None = None
) -> Shaped[np.ndarray, "h w"]:
    """[-1, 1] to black to white: clamped, and rounded for integers.

    Raises: ImageError as `black_and_white`, which says what is black and white.
    """
    low, high = black_and_white(dtype, value_range)
    plane = tensor.detach().reshape(tensor.shape[-2:]).float()
    scaled = plane.add(1).div(2).clamp(0, 1).mul(high - low)
    lifted = scaled.double().add(low) if low else scaled
    rounded = lifted.round() if np.issubdtype(dtype, np.integer) else lifted
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
