"""The generator: RGB and VFM features to NIR, in the order it runs.

Source: Pix2Next (arXiv 2409.16706), sec. 3, with its released code's shape: a stem at full size, levels of residual
blocks joined by space-to-depth, a bottleneck, the same levels upwards with skips concatenated, a last residual block
over the decoder's output and the stem's, and one convolution without tanh. Where VFM features enter is a setting.
Departures from the released code: one output channel instead of three that mean the same; one width a level; attention
blocks come after the first residual block of their level, without convolutions of their own; the last block is of the
same kind as the others.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pix2next.config import FusionConfig, GeneratorConfig
from pix2next.model.blocks import AttentionBlock, ConcatBlock, Down, Fusion, ResidualBlock, Up, make_norm


class Level(nn.Module):
    """Residual blocks at one size, none to pass through; fusions follow the first of them."""

    def __init__(self, blocks: Sequence[nn.Module], fusions: Sequence[Fusion]) -> None:
        super().__init__()
        self.first = nn.Sequential(*blocks[:1])
        self.fusions = nn.ModuleList(fusions)
        self.rest = nn.Sequential(*blocks[1:])
        self.recomputes = False

    def forward(self, x: Float[Tensor, "b c h w"], features: Mapping[int, Tensor]) -> Float[Tensor, "b out h w"]:
        if self.recomputes and self.training:
            return checkpoint(self._through, x, features, use_reentrant=False)
        return self._through(x, features)

    def _through(self, x: Float[Tensor, "b c h w"], features: Mapping[int, Tensor]) -> Float[Tensor, "b out h w"]:
        x = self.first(x)
        for fusion in self.fusions:
            x = fusion(x, features)
        return self.rest(x)


class Generator(nn.Module):
    """Encoder, bottleneck and decoder with skips; RGB in [-1, 1] to one NIR channel, about [-1, 1] (not clamped)."""

    def __init__(self, config: GeneratorConfig, vfm_channels: Mapping[int, int]) -> None:
        """`vfm_channels` gives the width of the VFM's map at every stride that a fusion reads."""
        super().__init__()
        self.multiple = 2 ** (len(config.widths) - 1)
        widths, kernel = config.widths, config.resample_kernel
        self.stem = nn.Conv2d(3, widths[0], config.stem_kernel, padding=config.stem_kernel // 2)

        def level(site: str, channels: int, width: int, count: int) -> Level:
            inputs = [channels, *[width] * count]
            blocks = [_residual(config, inputs[index], width) for index in range(count)]
            fusions = [_fusion(config, it, width, vfm_channels) for it in config.fusions if it.at == site]
            return Level(blocks, fusions)

        count = len(widths)
        self.encoder = nn.ModuleList(
            level(f"encoder.{i}", widths[i], widths[i], config.encoder_blocks[i]) for i in range(count)
        )
        self.downs = nn.ModuleList(Down(widths[i], widths[i + 1], kernel=kernel) for i in range(count - 1))
        self.bottleneck = level("bottleneck", widths[-1], widths[-1], config.bottleneck_blocks)
        self.decoder = nn.ModuleList(
            level(f"decoder.{i}", 2 * widths[i], widths[i], config.decoder_blocks[i]) for i in range(count)
        )
        self.takes_skip = tuple(blocks > 0 for blocks in config.decoder_blocks)
        self.ups = nn.ModuleList(Up(widths[i + 1], widths[i], kernel=kernel) for i in range(count - 1))
        self.last = _residual(config, 2 * widths[0], widths[0])
        self.norm = make_norm(config.norm, widths[0], config.norm_groups)
        self.head = nn.Conv2d(widths[0], 1, 3, padding=1)

    def forward(
        self, rgb: Float[Tensor, "b 3 h w"], features: Mapping[int, Float[Tensor, "b _ _ _"]]
    ) -> Float[Tensor, "b 1 h w"]:
        x = stem = self.stem(rgb)
        skips = []
        for index, level in enumerate(self.encoder):
            x = level(self.downs[index - 1](x) if index else x, features)
            skips.append(x)
        x = self.bottleneck(x, features)
        for index, level in reversed(list(enumerate(self.decoder))):
            x = level(torch.cat([x, skips[index]], dim=1) if self.takes_skip[index] else x, features)
            x = self.ups[index - 1](x) if index else x
        return self.head(self.norm(self.last(torch.cat([x, stem], dim=1))))


def _residual(config: GeneratorConfig, channels: int, width: int) -> ResidualBlock:
    return ResidualBlock(channels, width, norm=config.norm, groups=config.norm_groups)


def _fusion(config: GeneratorConfig, fusion: FusionConfig, width: int, vfm_channels: Mapping[int, int]) -> Fusion:
    context = [vfm_channels[stride] for stride in fusion.reads]
    if fusion.how == "concat":
        return Fusion(ConcatBlock(width, context), fusion.reads)
    block = AttentionBlock(
        width,
        context,
        how=fusion.how,
        heads=fusion.heads,
        head_width=fusion.head_width,
        positions=fusion.positions,
        norm_groups=config.norm_groups,
        expansion=fusion.expansion,
    )
    return Fusion(block, fusion.reads)
