"""The parts of the released Pix2Next generator that differ from ours in what they compute.

Source: github.com/Yonsei-STL/pix2next at c95c865, `UNET/models/unet_modules.py` and `common/common_modules.py`.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


class AttentionBlock(nn.Module):
    """Convolution, norm, self-attention, cross-attention to one VFM map, GEGLU, convolution; added to the input.

    Source: `SDAttentionBlock`.
    """

    def __init__(self, channels: int, context_channels: int, level: int, *, heads: int, norm_groups: int) -> None:
        super().__init__()
        self.level = level
        self.conv_in = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm_in = nn.GroupNorm(norm_groups, channels, eps=1e-6)
        self.context_conv = nn.Conv2d(context_channels, context_channels, 3, padding=1)
        self.context_norm = nn.GroupNorm(1, context_channels, eps=1e-6)
        self.norm1 = nn.LayerNorm(channels)
        self.self_attention = SelfAttention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.cross_attention = CrossAttention(channels, context_channels, heads)
        self.norm3 = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, 8 * channels)
        self.shrink = nn.Linear(4 * channels, channels)
        self.conv_out = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(
        self, x: Float[Tensor, "b c h w"], maps: Sequence[Float[Tensor, "b _ _ _"]]
    ) -> Float[Tensor, "b c h w"]:
        context = self.context_norm(self.context_conv(maps[self.level]))
        context = rearrange(context, "b c h w -> b (h w) c")
        y = rearrange(self.norm_in(self.conv_in(x)), "b c h w -> b (h w) c")
        y = y + self.self_attention(self.norm1(y))
        y = y + self.cross_attention(self.norm2(y), context)
        value, gate = self.expand(self.norm3(y)).chunk(2, dim=-1)
        y = y + self.shrink(value * F.gelu(gate))
        y = rearrange(y, "b (h w) c -> b c h w", h=x.shape[2])
        return x + self.conv_out(y)


class SelfAttention(nn.Module):
    """Of tokens to each other, in heads."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        query, key, value = rearrange(self.qkv(x), "b n (qkv heads d) -> qkv b heads n d", qkv=3, heads=self.heads)
        y = F.scaled_dot_product_attention(query, key, value)
        return self.out(rearrange(y, "b heads n d -> b n (heads d)"))


class CrossAttention(nn.Module):
    """Of tokens to those of a VFM map, in heads.

    The released code reads the result, laid out head by head, as if it lay token by token: each output token is made
    of a run of one head's results for `heads` neighbouring tokens. Its weights are trained with that, so it stays.
    """

    def __init__(self, channels: int, context_channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(context_channels, channels, bias=False)
        self.value = nn.Linear(context_channels, channels, bias=False)
        self.out = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Float[Tensor, "b n c"], context: Float[Tensor, "b m d"]) -> Float[Tensor, "b n c"]:
        query, key, value = (
            rearrange(tokens, "b n (heads d) -> b heads n d", heads=self.heads)
            for tokens in (self.query(x), self.key(context), self.value(context))
        )
        y = F.scaled_dot_product_attention(query, key, value)
        return self.out(y.reshape(x.shape))


class LastBlock(nn.Module):
    """Residual block over decoder output and stem: twice (weight-standardised convolution, instance norm, SiLU)."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = StandardizedConv(channels, out_channels, 3, padding=1)
        self.conv2 = StandardizedConv(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h w"]:
        y = F.silu(F.instance_norm(self.conv1(x)))
        y = F.silu(F.instance_norm(self.conv2(y)))
        return y + self.shortcut(x)


class StandardizedConv(nn.Conv2d):
    """Convolution whose weights have zero mean and unit deviation per output channel. Source: arXiv:1903.10520."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h w"]:
        mean = self.weight.mean(dim=(1, 2, 3), keepdim=True)
        deviation = self.weight.std(dim=(1, 2, 3), keepdim=True)
        return F.conv2d(x, (self.weight - mean) / (deviation + 1e-5), self.bias, padding=self.padding)
