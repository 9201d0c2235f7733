"""The generators that Pix2Next is compared with, and the one of its own released code.

None reads a VFM of ours, so the features that a generator is handed are left unread here.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pix2next.model.released import released_generator

DEVIATION = 0.02
"""Of the normal distribution that convolutions start from, as all of their code has it."""


class UNet(nn.Module):
    """pix2pix's U-Net: picture in [-1, 1] to picture in (-1, 1), with a skip at every size.

    Encoder: convolution 4x4 at stride 2, norm, leaky ReLU; the first and the innermost convolution have no norm.
    Decoder: ReLU, transposed convolution 4x4, norm; the three innermost drop channels' values while training; the
    last ends in tanh. Height and width must be multiples of `multiple`.

    Source: pix2pix (arXiv:1611.07004), appendix 6.1.1; 54.414 M parameters for 3 to 3 channels, as in its PyTorch code
    (which drops one layer further out than the paper). Departures: the norm is instance norm with weights, in training
    and in use alike. That is the paper's batch norm at its batch size of 1 (sec. 3.3), without the result depending on
    what else is in a batch. Dropout is for training alone, so that a picture has one result.
    """

    def __init__(self, width: int, depth: int, dropout: float, *, in_channels: int = 3, out_channels: int = 1) -> None:
        super().__init__()
        self.multiple = 2**depth
        widths = [width * min(2**i, 8) for i in range(depth)]
        self.encoder = nn.ModuleList([nn.Conv2d(in_channels, widths[0], 4, 2, 1, bias=False)])
        for i in range(1, depth):
            self.encoder.append(_unet_down(widths[i - 1], widths[i], innermost=i == depth - 1))
        self.decoder = nn.ModuleList()
        for i in reversed(range(1, depth)):
            channels = widths[i] if i == depth - 1 else 2 * widths[i]
            self.decoder.append(_unet_up(channels, widths[i - 1], dropout if i >= depth - 3 else 0.0))
        last = nn.ConvTranspose2d(2 * widths[0], out_channels, 4, 2, 1)
        self.decoder.append(nn.Sequential(nn.ReLU(), last, nn.Tanh()))
        self.apply(_start)

    def forward(
        self, picture: Float[Tensor, "b in h w"], features: Mapping[int, Tensor] | None = None
    ) -> Float[Tensor, "b out h w"]:
        x, skips = picture, []
        for down in self.encoder:
            x = down(x)
            skips.append(x)
        x = skips.pop()
        for up in self.decoder:
            x = up(x)
            x = torch.cat([skips.pop(), x], dim=1) if skips else x
        return x


def _unet_down(channels: int, out_channels: int, *, innermost: bool) -> nn.Sequential:
    """The innermost map is one cell of a picture of the smallest size: a norm would leave nothing of it."""
    norm = nn.Identity() if innermost else nn.InstanceNorm2d(out_channels, affine=True)
    return nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(channels, out_channels, 4, 2, 1, bias=False), norm)


def _unet_up(channels: int, out_channels: int, dropout: float) -> nn.Sequential:
    conv = nn.ConvTranspose2d(channels, out_channels, 4, 2, 1, bias=False)
    return nn.Sequential(nn.ReLU(), conv, nn.InstanceNorm2d(out_channels, affine=True), nn.Dropout(dropout))


class ResNetGenerator(nn.Module):
    """The generator of pix2pixHD (its global one) and CycleGAN: picture in [-1, 1] to picture in (-1, 1), no skips.

    7x7 convolution; `downs` halvings by 3x3 convolutions, channels doubled; residual blocks; as many transposed
    convolutions; 7x7 convolution and tanh. Edges are mirrored at the 7x7 convolutions and in the blocks; every
    convolution but the last is followed by instance norm and ReLU (in a block's second: norm alone).
    Height and width must be multiples of `multiple`.

    Source: pix2pixHD (arXiv:1711.11585), sec. 3.2 and appendix, with 4 halvings: 182.443 M parameters for 3 to 3
    channels; CycleGAN (arXiv:1703.10593), appendix 7.2, with 2: 11.378 M; both as in their code.
    """

    def __init__(self, width: int, downs: int, blocks: int, *, in_channels: int = 3, out_channels: int = 1) -> None:
        super().__init__()
        # One more than the halvings: the coarsest map needs two cells a side, to be mirrored and normalised.
        self.multiple = 2 ** (downs + 1)
        widths = [width * 2**i for i in range(downs + 1)]
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(in_channels, width, 7), *_norm_act(width)]
        for i in range(downs):
            layers += [nn.Conv2d(widths[i], widths[i + 1], 3, 2, 1), *_norm_act(widths[i + 1])]
        layers += [_MirroredBlock(widths[-1]) for _ in range(blocks)]
        for i in reversed(range(downs)):
            up = nn.ConvTranspose2d(widths[i + 1], widths[i], 3, 2, 1, output_padding=1)
            layers += [up, *_norm_act(widths[i])]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, out_channels, 7), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.apply(_start)

    def forward(
        self, picture: Float[Tensor, "b in h w"], features: Mapping[int, Tensor] | None = None
    ) -> Float[Tensor, "b out h w"]:
        return self.layers(picture)


class _MirroredBlock(nn.Module):
    """Residual block with mirrored edges: convolution, norm, ReLU, convolution, norm; added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), *_norm_act(channels)]
        second = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels)]
        self.layers = nn.Sequential(*first, *second)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.layers(x)


def _norm_act(channels: int) -> list[nn.Module]:
    return [nn.InstanceNorm2d(channels), nn.ReLU()]


def _start(module: nn.Module) -> None:
    """Convolutions from N(0, 0.02), a norm's weights from N(1, 0.02), no biases.

    pix2pixHD's code leaves the biases at torch's default; the norms cancel all of them but the last convolution's.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, DEVIATION)
    elif isinstance(module, nn.InstanceNorm2d) and module.affine:
        nn.init.normal_(module.weight, 1.0, DEVIATION)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


class Released(nn.Module):
    """The released Pix2Next network at its published size, untrained: RGB in [-1, 1] to one NIR channel, about [-1, 1].

    Its VFM is inside it and untrained as well. All weights of convolutions start from N(0, 0.02), everything else as
    torch starts it, which is what the released training script does. Departure: its three channels, which mean the
    same, are averaged to one, so that it trains, is judged and is saved like any other generator.
    """

    def __init__(self) -> None:
        super().__init__()
        self.network = released_generator()
        self.multiple = self.network.multiple
        assert self.network.vfm.classifier is not None
        # Nothing uses it: several processes would wait for a gradient that never comes.
        self.network.vfm.classifier.requires_grad_(False)
        for module in self.network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, DEVIATION)

    def forward(
        self, rgb: Float[Tensor, "b 3 h w"], features: Mapping[int, Tensor] | None = None
    ) -> Float[Tensor, "b 1 h w"]:
        return self.network(rgb).mean(dim=1, keepdim=True)
