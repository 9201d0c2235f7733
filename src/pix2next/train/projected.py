"""Discriminators that look through a pretrained network: small heads on its maps of both pictures of a pair.

Source: Projected GANs (arXiv:2111.01007): a frozen network's features at several strides, a discriminator on each. On
few pairs this is what can judge at all: PatchGANs that start from pixels are still at chance after thousands of steps
(docs/outdoor-and-aerial.md). Departures: the heads see the maps of the RGB and of the NIR picture side by side, as the
question is whether they belong together; they are fully convolutional, one logit a place; and there is no random
mixing across channels or scales, which keeps every head's map at the stride of its own. A FID from a network that was
trained on the same ImageNet may come out better for it than pictures look (arXiv:2203.06026).
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pix2next.config import ProjectedConfig
from pix2next.model.features import build_vfm
from pix2next.train.discriminator import ScaleOutput


class Eye(nn.Module):
    """A frozen VFM: a picture in [-1, 1] with one channel or three to its maps. Gradient flows to the picture."""

    def __init__(self, config: ProjectedConfig) -> None:
        """Raises: ConfigError or WeightsError where the VFM or its weights cannot be had."""
        super().__init__()
        vfm = build_vfm(config.vfm.name, config.reads, weights=config.vfm.weights)
        assert vfm is not None
        self.vfm = vfm.eval().requires_grad_(False)
        self.channels = [vfm.channels[stride] for stride in sorted(config.reads)]

    def train(self, mode: bool = True) -> "Eye":
        """Stay in eval mode whatever the module around it does."""
        return super().train(False)

    def forward(self, picture: Float[Tensor, "b c h w"]) -> list[Tensor]:
        maps: Mapping[int, Tensor] = self.vfm(picture.expand(-1, 3, -1, -1))
        return [maps[stride] for stride in sorted(maps)]


class ProjectedDiscriminator(nn.Module):
    """A head for each map of an `Eye`: logits of the pair at that stride, and the activations before them."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        """`channels` are those of the maps of one picture, finest first."""
        super().__init__()
        self.heads = nn.ModuleList(_Head(2 * count, width) for count in channels)

    def forward(self, rgb: list[Tensor], nir: list[Tensor]) -> list[ScaleOutput]:
        """One output a stride, finest first, of what the eye saw of both pictures."""
        return [head(torch.cat(pair, dim=1)) for head, *pair in zip(self.heads, rgb, nir, strict=True)]


class _Head(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        # Without weights: channels of pretrained maps differ in size by the network, not by what they say.
        self.norm = nn.GroupNorm(2, channels, affine=False)
        self.stages = nn.ModuleList(
            [nn.Conv2d(channels, width, 1), nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1)]
        )

    def forward(self, pair: Float[Tensor, "b c h w"]) -> ScaleOutput:
        first, second, to_logits = self.stages
        features = [nn.functional.leaky_relu(first(self.norm(pair)), 0.2)]
        features.append(nn.functional.leaky_relu(second(features[-1]), 0.2))
        return ScaleOutput(to_logits(features[-1]), features)
