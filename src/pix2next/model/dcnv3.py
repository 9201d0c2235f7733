"""Deformable convolution v3: a convolution whose taps move and whose weights come from the input.

`dcnv3` does what the original's CUDA extension does, with `F.grid_sample`: on any device torch runs on,
forward and backward, and through `torch.export`. `DeformableConv` is InternImage's layer around it.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

KERNEL = 3
"""The only size of kernel that InternImage uses."""


def dcnv3(
    input: Float[Tensor, "b h w c"],
    offset: Float[Tensor, "b h_out w_out offsets"],
    mask: Float[Tensor, "b h_out w_out taps"],
    *,
    kernel_size: int,
    stride: int,
    padding: int,
    dilation: int,
    groups: int,
    offset_scale: float,
) -> Float[Tensor, "b h_out w_out c"]:
    """Sample `input` at K = kernel_size^2 moved taps per group and add the samples up, weighted by `mask`.

        out[p] = sum_k mask[p, k] * input[stride * p + offset_scale * (tap_k + offset[p, k])]

    Args:
        input: channels last; the channels are `groups` equal runs that move independently.
        offset: the last axis is (group, tap, xy), in input pixels before scaling.
        mask: the last axis is (group, tap). It is used as it comes: a softmax over the taps is the caller's.
        kernel_size: width and height of the grid of taps.
        stride: input pixels from one output pixel to the next.
        padding: zeros around the input; sampling outside of them gives 0 as well.
        dilation: pixels between neighbouring taps.
        groups: how many runs of channels have taps of their own.
        offset_scale: stretches the taps' grid as well as the offsets, as in the original.

    Taps are numbered column by column: x slowest, y fastest. With zero offsets, an offset scale of 1 and a
    mask of ones this is a sum over each window. Positions are computed in float32 at least, since bfloat16
    cannot tell neighbouring pixels of a large map apart; the result has the input's dtype.

    Raises:
        ValueError: the channels, offsets or masks do not fit `groups` and `kernel_size`, or the output.

    Source: InternImage (arXiv:2211.05778), eq. 2.
    """
    _check_sizes(input, offset, mask, kernel_size, stride, padding, dilation, groups)
    dtype = torch.promote_types(input.dtype, torch.float32)
    padded = F.pad(input.to(dtype), (0, 0, padding, padding, padding, padding))
    positions = _tap_positions(
        offset.to(dtype),
        padded,
        kernel_size=kernel_size,
        stride=stride,
        dilation=dilation,
        groups=groups,
        offset_scale=offset_scale,
    )
    samples = F.grid_sample(
        rearrange(padded, "b h w (g c) -> (b g) c h w", g=groups),
        rearrange(2 * positions - 1, "b h w g k xy -> (b g) (h w) k xy"),
        align_corners=False,
    )
    weights = rearrange(mask.to(dtype), "b h w (g k) -> (b g) 1 (h w) k", g=groups)
    output = rearrange(
        (samples * weights).sum(dim=-1),
        "(b g) c (h w) -> b h w (g c)",
        g=groups,
        h=offset.shape[1],
    )
    return output.to(input.dtype).contiguous()


def _tap_positions(
    offset: Float[Tensor, "b h w offsets"],
    padded: Float[Tensor, "b h_in w_in c"],
    *,
    kernel_size: int,
    stride: int,
    dilation: int,
    groups: int,
    offset_scale: float,
) -> Float[Tensor, "b h w g k xy"]:
    """Where each tap reads: (x, y) as fractions of the padded input's width and height, from edge to edge.

    They are divided before they are added, in the original's order: its rounding errors are as large as the
    digits that its checkpoints' results are compared to, and so are repeated.
    """
    height, width = padded.shape[1:3]
    arange = torch.arange(kernel_size, dtype=offset.dtype, device=offset.device)
    # The middle tap of an odd kernel; of an even one, the original rounds down.
    middle = dilation * (kernel_size - 1) // 2
    taps = dilation * arange - middle
    x_out, y_out = (
        torch.arange(length, dtype=offset.dtype, device=offset.device) * stride + (middle + 0.5)
        for length in (offset.shape[2], offset.shape[1])
    )
    moved = rearrange(offset, "b h w (g kx ky xy) -> b h w g kx ky xy", g=groups, kx=kernel_size, xy=2)
    x = rearrange(x_out, "w -> 1 1 w 1 1 1") / width + offset_scale * (taps[:, None] / width)
    y = rearrange(y_out, "h -> 1 h 1 1 1 1") / height + offset_scale * (taps[None, :] / height)
    x, y = x + offset_scale * moved[..., 0] / width, y + offset_scale * moved[..., 1] / height
    return torch.stack([x.flatten(-2), y.flatten(-2)], dim=-1)


def _check_sizes(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    kernel_size: int,
    stride: int,
    padding: int,
    dilation: int,
    groups: int,
) -> None:
    channels, taps = input.shape[3], groups * kernel_size**2
    if channels % groups:
        raise ValueError(f"dcnv3: {channels} channels cannot be split into {groups} equal groups")
    if (offset.shape[3], mask.shape[3]) != (2 * taps, taps):
        raise ValueError(
            f"dcnv3: {groups} groups of {kernel_size} x {kernel_size} taps need {2 * taps} offsets and "
            f"{taps} masks per pixel, but got {offset.shape[3]} and {mask.shape[3]}"
        )
    expected = [(length + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1 for length in input.shape[1:3]]
    if list(offset.shape[1:3]) != expected:
        raise ValueError(
            f"dcnv3: an input of {input.shape[1]} x {input.shape[2]} gives an output of {expected[0]} x "
            f"{expected[1]}, but the offsets are for {offset.shape[1]} x {offset.shape[2]}"
        )


class DeformableConv(nn.Module):
    """DCNv3 between two projections; its offsets and masks come from a depthwise convolution of the input.

    It starts as an average over the undeformed window, as offsets and masks start from zero.
    """

    def __init__(self, channels: int, groups: int, offset_scale: float) -> None:
        super().__init__()
        self.groups, self.offset_scale = groups, offset_scale
        self.depthwise = nn.Conv2d(channels, channels, KERNEL, padding=KERNEL // 2, groups=channels)
        self.norm = layer_norm(channels)
        self.offset = zero_linear(channels, 2 * groups * KERNEL**2)
        self.mask = zero_linear(channels, groups * KERNEL**2)
        self.input_proj = xavier_linear(channels, channels)
        self.output_proj = xavier_linear(channels, channels)

    def forward(self, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w c"]:
        context = self.depthwise(rearrange(x, "b h w c -> b c h w"))
        context = F.gelu(self.norm(rearrange(context, "b c h w -> b h w c")))
        mask = rearrange(self.mask(context), "b h w (g k) -> b h w g k", g=self.groups).softmax(dim=-1)
        x = dcnv3(
            self.input_proj(x),
            self.offset(context),
            mask.flatten(-2),
            kernel_size=KERNEL,
            stride=1,
            padding=KERNEL // 2,
            dilation=1,
            groups=self.groups,
            offset_scale=self.offset_scale,
        )
        return self.output_proj(x)


def layer_norm(channels: int) -> nn.LayerNorm:
    """Over the last axis, with the small epsilon that InternImage uses."""
    return nn.LayerNorm(channels, eps=1e-6)


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """Build a linear layer that starts by giving zeros."""
    linear = nn.Linear(inputs, outputs)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def xavier_linear(inputs: int, outputs: int) -> nn.Linear:
    """Build a linear layer that starts by keeping its input's variance."""
    linear = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
