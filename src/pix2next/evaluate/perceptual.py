"""Distances of two pictures in the eyes of a network that was trained on photographs.

Both networks see pictures of 256 x 256 (`network_input`), one at a time, so that no score depends on a batch size.
"""

from collections.abc import Sequence
from importlib.resources import as_file, files
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pix2next.errors import ConfigError, WeightsError
from pix2next.evaluate.pixelwise import Picture
from pix2next.evaluate.pretrained import (
    TAPS,
    activations,
    convolutions_file,
    imagenet_normalise,
    pretrained_convolutions,
)
from pix2next.images import full_scale

Square = Float[Tensor, "b 1 256 256"]

NETWORK_SIDE = 256


def network_input(picture: Picture) -> Square:
    """The picture in [0, 1] at 256 x 256, its aspect not kept, by bilinear resizing with antialiasing."""
    unit = unit_tensor(picture)
    if unit.shape[-2:] == (NETWORK_SIDE, NETWORK_SIDE):
        return unit
    return F.interpolate(unit, (NETWORK_SIDE, NETWORK_SIDE), mode="bilinear", antialias=True).clamp(0, 1)


def unit_tensor(picture: Picture) -> Float[Tensor, "1 1 h w"]:
    """The picture in [0, 1], at its own size."""
    return torch.from_numpy(picture.astype(np.float32) / np.float32(full_scale(picture.dtype)))[None, None]


class LPIPS(nn.Module):
    """Learned perceptual distance on AlexNet (or VGG16): 0 when equal, about 1 for unrelated pictures.

    Version 0.1, with the linear weights, in evaluation mode; the network gets [-1, 1], or with `released` [0, 1] as
    the released `eval_all.py` has it, as if every picture were washed out. The grey picture is repeated to three
    channels.

    Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (arXiv:1801.03924).
    Raises: WeightsError when a file of weights is not on disk and cannot be downloaded.
    """

    def __init__(self, net: str = "alex", released: bool = False) -> None:
        super().__init__()
        self.released = released
        match net:
            case "alex":
                network = "alexnet"
            case "vgg":
                network = "vgg16"
            case _:
                raise ConfigError(f"no LPIPS network '{net}'; known are alex, vgg")
        self.layers = pretrained_convolutions(network)
        self.taps = TAPS[network]
        self.source = convolutions_file(network)
        weights = _learned_weights(f"lpips_models/{net}.pth")
        self.weights = nn.ParameterList(weights[f"lin{i}.model.1.weight"] for i in range(len(self.taps)))
        self.requires_grad_(False)

    def features(self, picture: Float[Tensor, "b 1 h w"]) -> list[Tensor]:
        """Five activations of a picture in [0, 1], each pixel's channels brought to length one."""
        fed = picture if self.released else picture * 2 - 1
        maps = (x.float() for x in activations(self.layers, imagenet_normalise(fed), self.taps))
        return [x / (x.square().sum(dim=1, keepdim=True) + 1e-8).sqrt() for x in maps]

    def distance(self, fake_features: Sequence[Tensor], nir_features: Sequence[Tensor]) -> Float[Tensor, " b"]:
        """Weighted squared distance of the activations, averaged over pixels and summed over layers."""
        layers = zip(self.weights, fake_features, nir_features, strict=True)
        terms = [((fake - nir).square() * weight).sum(dim=1).mean(dim=(1, 2)) for weight, fake, nir in layers]
        return torch.stack(terms).sum(dim=0)

    @torch.inference_mode()
    def forward(self, fake: Picture, nir: Picture) -> float:
        """The distance of two pictures of any size and depth."""
        both = (self.features(network_input(picture).to(_place(self))) for picture in (fake, nir))
        return self.distance(*both).item()


class DISTS(nn.Module):
    """Deep image structure and texture similarity, as a distance: 0 when equal, about 1 for unrelated pictures.

    VGG16 on [0, 1] at ImageNet's mean and deviation, max pooling replaced by L2 pooling, with the published weights
    (torchmetrics carries them). The grey picture is repeated to three channels.

    Source: Ding et al., "Image Quality Assessment: Unifying Structure and Texture Similarity" (arXiv:2004.07728).
    Raises: WeightsError when VGG16's weights are not on disk and cannot be downloaded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.source = convolutions_file("vgg16")
        layers = list(pretrained_convolutions("vgg16"))[: TAPS["vgg16"][-1] + 1]
        self.layers = nn.Sequential(*(_L2Pool() if isinstance(layer, nn.MaxPool2d) else layer for layer in layers))
        weights = _learned_weights("dists_models/weights.pt")
        total = weights["alpha"].sum() + weights["beta"].sum()
        self.alpha, self.beta = (nn.Parameter(weights[name] / total, False) for name in ("alpha", "beta"))

    def features(self, picture: Float[Tensor, "b 1 h w"]) -> list[Tensor]:
        """The picture in [0, 1] itself and five activations."""
        maps = activations(self.layers, imagenet_normalise(picture * 2 - 1), TAPS["vgg16"])
        return [picture.float().expand(-1, 3, -1, -1), *(x.float() for x in maps)]

    def distance(self, fake_features: Sequence[Tensor], nir_features: Sequence[Tensor]) -> Float[Tensor, " b"]:
        """1 minus the weighted similarity of the channels' means (texture) and of their covariances (structure)."""
        pairs = [_moments_similarity(x, y) for x, y in zip(fake_features, nir_features, strict=True)]
        texture, structure = (torch.cat(parts, dim=1) for parts in zip(*pairs, strict=True))
        return 1 - (self.alpha.flatten() * texture + self.beta.flatten() * structure).sum(dim=1)

    @torch.inference_mode()
    def forward(self, fake: Picture, nir: Picture) -> float:
        """The distance of two pictures of any size and depth."""
        both = (self.features(network_input(picture).to(_place(self))) for picture in (fake, nir))
        return self.distance(*both).item()


class _L2Pool(nn.Module):
    """Root of the locally weighted mean of squares, at stride 2; DISTS' alias-free pooling."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        weights = x.new_tensor([0.25, 0.5, 0.25])
        window = torch.outer(weights, weights).expand(x.shape[1], 1, 3, 3)
        return (F.conv2d(x.square(), window, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()


def _moments_similarity(x: Float[Tensor, "b c h w"], y: Float[Tensor, "b c h w"]) -> tuple[Tensor, Tensor]:
    """Per channel, the agreement of means and that of variances; 1 when equal. DISTS, eqs. 5 and 6."""
    small = 1e-6
    mean_x, mean_y = x.mean(dim=(2, 3)), y.mean(dim=(2, 3))
    variance_x, variance_y = x.var(dim=(2, 3), correction=0), y.var(dim=(2, 3), correction=0)
    covariance = (x * y).mean(dim=(2, 3)) - mean_x * mean_y
    texture = (2 * mean_x * mean_y + small) / (mean_x**2 + mean_y**2 + small)
    return texture, (2 * covariance + small) / (variance_x + variance_y + small)


def _place(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def _learned_weights(name: str) -> dict[str, Any]:
    """What LPIPS and DISTS learned on top of the networks; torchmetrics carries both."""
    try:
        with as_file(files("torchmetrics.functional.image") / name) as path:
            weights: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            return weights
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"torchmetrics has no {name} ({error}); install torchmetrics >= 1.8") from error
