"""The generator's building blocks: residual, attention and fusion blocks, down and up."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


def make_norm(kind: str, channels: int, groups: int) -> nn.Module:
    """Group normalisation in as many of `groups` groups as divide `channels`, or none."""
    match kind:
        case "group":
            while channels % groups:
                groups -= 1
            return nn.GroupNorm(groups, channels)
        case "none":
            return nn.Identity()
    raise ValueError(f"norm {kind!r} is unknown; known: group, none")


class ResidualBlock(nn.Module):
    """Pre-norm residual block: (norm, SiLU, 3x3 convolution) twice, plus the input.

    Without norms its second convolution starts at zero, so that a deep stack starts as the identity.
    Source: Pix2Next (arXiv 2409.16706), sec. 3, and its released code alike.
    """

    def __init__(self, channels: int, out_channels: int, *, norm: str = "group", groups: int = 32) -> None:
        super().__init__()
        self.norm1 = make_norm(norm, channels, groups)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm2 = make_norm(norm, out_channels, groups)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, out_channels, 1) if channels != out_channels else nn.Identity()
        if norm == "none":
            nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h w"]:
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return self.shortcut(x) + y


class Down(nn.Module):
    """Halve the size: space to depth, then a convolution."""

    def __init__(self, channels: int, out_channels: int, *, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4 * channels, out_channels, kernel, padding=kernel // 2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h2 w2"]:
        return self.conv(F.pixel_unshuffle(x, 2))


class Up(nn.Module):
    """Double the size.

    With kernel 3 as released: nearest neighbour, then a 3x3 convolution. With kernel 1 a pointwise convolution, which
    commutes with resampling and so comes first, at a quarter of the pixels, then bilinear interpolation.
    """

    def __init__(self, channels: int, out_channels: int, *, kernel: int = 3) -> None:
        super().__init__()
        pointwise = kernel == 1
        self.before = nn.Identity() if pointwise else nn.Upsample(scale_factor=2.0, mode="nearest")
        self.conv = nn.Conv2d(channels, out_channels, kernel, padding=kernel // 2)
        self.after = nn.Upsample(scale_factor=2.0, mode="bilinear") if pointwise else nn.Identity()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h2 w2"]:
        return self.after(self.conv(self.before(x)))


def rotary(
    tokens: Float[Tensor, "b heads n d"], y: Float[Tensor, " n"], x: Float[Tensor, " n"]
) -> Float[Tensor, "b heads n d"]:
    """Rotate pairs of channels by angles that grow with the position: one half of them with y, the other with x.

    The product of a rotated query and key then depends on where they lie relative to each other. Positions are in cells
    of the coarsest map read. Source: RoFormer (arXiv 2104.09864), eq. 34, along two axes.
    """
    quarter = tokens.shape[-1] // 4
    rates = torch.pi * 0.02 ** (torch.arange(quarter, device=y.device, dtype=y.dtype) / quarter)
    angles = torch.cat([y[:, None] * rates, x[:, None] * rates], dim=-1)
    cos, sin = angles.cos().to(tokens.dtype), angles.sin().to(tokens.dtype)
    first, second = tokens.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def _grid(height: int, width: int, cell: float, like: Tensor) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Y and x of the centres of a map's cells, row by row; a cell's side is `cell`."""
    rows = (torch.arange(height, device=like.device, dtype=torch.float32) + 0.5) * cell
    columns = (torch.arange(width, device=like.device, dtype=torch.float32) + 0.5) * cell
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return y.flatten(), x.flatten()


class Attention(nn.Module):
    """Multi-head attention of a map's cells to the cells of one or several maps (its own, for self-attention).

    With `positions`, queries and keys know where on the picture they lie; `head_width` is then a multiple of 4.
    """

    def __init__(
        self, channels: int, context_channels: Sequence[int], heads: int, head_width: int, *, positions: bool
    ) -> None:
        super().__init__()
        inner = heads * head_width
        self.heads = heads
        self.positions = positions
        self.query = nn.Linear(channels, inner, bias=False)
        self.keys_values = nn.ModuleList(nn.Linear(width, 2 * inner, bias=False) for width in context_channels)
        self.out = nn.Linear(inner, channels)

    def forward(
        self, x: Float[Tensor, "b c h w"], context: Sequence[Float[Tensor, "b _ _ _"]]
    ) -> Float[Tensor, "b c h w"]:
        height, width = x.shape[-2:]
        unit = min(source.shape[-2] for source in context)
        query = self._split(self.query(rearrange(x, "b c h w -> b (h w) c")))
        query = self._place(query, x, unit)
        keys, values = [], []
        for project, source in zip(self.keys_values, context, strict=True):
            key, value = project(rearrange(source, "b c h w -> b (h w) c")).chunk(2, dim=-1)
            keys.append(self._place(self._split(key), source, unit))
            values.append(self._split(value))
        y = F.scaled_dot_product_attention(query, torch.cat(keys, dim=2), torch.cat(values, dim=2))
        y = self.out(rearrange(y, "b heads n d -> b n (heads d)"))
        return rearrange(y, "b (h w) c -> b c h w", h=height, w=width)

    def _split(self, tokens: Float[Tensor, "b n inner"]) -> Float[Tensor, "b heads n d"]:
        return rearrange(tokens, "b n (heads d) -> b heads n d", heads=self.heads)

    def _place(
        self, tokens: Float[Tensor, "b heads n d"], source: Float[Tensor, "b c h w"], unit: int
    ) -> Float[Tensor, "b heads n d"]:
        """The tokens of `source`, turned by where they lie on a picture that is `unit` high."""
        if not self.positions:
            return tokens
        height, width = source.shape[-2:]
        return rotary(tokens, *_grid(height, width, unit / height, source))


class GEGLU(nn.Module):
    """Gated feed-forward layer on every cell. Source: GLU variants improve transformer (arXiv 2002.05202)."""

    def __init__(self, channels: int, *, factor: int = 4) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, 2 * factor * channels, 1)
        self.shrink = nn.Conv2d(factor * channels, channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        value, gate = self.expand(x).chunk(2, dim=1)
        return self.shrink(value * F.gelu(gate))


class AttentionBlock(nn.Module):
    """Attend to the VFM's maps, to itself, or first to itself and then to them; then a GEGLU; each added to the input.

    Source: Pix2Next (arXiv 2409.16706), sec. 3: queries from the generator's layer, keys and values from the VFM.
    Departures from the released code: group norms instead of layer norms, none over the VFM's maps, and rotary
    positions where `positions` asks for them.
    """

    def __init__(
        self,
        channels: int,
        context_channels: Sequence[int],
        *,
        how: str,
        heads: int,
        head_width: int,
        positions: bool = False,
        norm_groups: int = 32,
        expansion: int = 4,
    ) -> None:
        super().__init__()
        sources: list[Sequence[int]] = []
        if how in ("self", "self_cross"):
            sources.append(())
        if how in ("cross", "self_cross"):
            sources.append(context_channels)
        self.norms = nn.ModuleList(make_norm("group", channels, norm_groups) for _ in sources)
        self.attentions = nn.ModuleList(
            Attention(channels, source or (channels,), heads, head_width, positions=positions) for source in sources
        )
        self.to_self = tuple(not source for source in sources)
        self.norm = make_norm("group", channels, norm_groups)
        self.feed_forward = GEGLU(channels, factor=expansion)

    def forward(
        self, x: Float[Tensor, "b c h w"], context: Sequence[Float[Tensor, "b _ _ _"]]
    ) -> Float[Tensor, "b c h w"]:
        for norm, attention, to_self in zip(self.norms, self.attentions, self.to_self, strict=True):
            query = norm(x)
            x = x + attention(query, [query] if to_self else context)
        return x + self.feed_forward(self.norm(x))


class ConcatBlock(nn.Module):
    """Features without attention: resized to the layer's size, concatenated to it, mixed by a 1x1 convolution."""

    def __init__(self, channels: int, context_channels: Sequence[int]) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in context_channels)
        self.mix = nn.Conv2d((1 + len(context_channels)) * channels, channels, 1)

    def forward(
        self, x: Float[Tensor, "b c h w"], context: Sequence[Float[Tensor, "b _ _ _"]]
    ) -> Float[Tensor, "b c h w"]:
        size = x.shape[-2:]
        projected = [project(source) for project, source in zip(self.project, context, strict=True)]
        resized = [F.interpolate(source, size=size, mode="bilinear", align_corners=False) for source in projected]
        return x + self.mix(F.silu(torch.cat([x, *resized], dim=1)))


class Fusion(nn.Module):
    """One place where VFM maps enter: which strides it reads, and the block that takes them in."""

    def __init__(self, block: nn.Module, reads: Sequence[int]) -> None:
        super().__init__()
        self.block = block
        self.reads = tuple(reads)

    def forward(self, x: Float[Tensor, "b c h w"], features: Mapping[int, Tensor]) -> Float[Tensor, "b c h w"]:
        return self.block(x, [features[stride] for stride in self.reads])
