"""Scores of made NIR pictures against the true ones; each says what it takes and how it was computed.

PSNR, SSIM and RMSE: at the pictures' own size, in 8-bit units. LPIPS, DISTS and FID: on pictures of 256 x 256
(`network_input`). Every picture passes the networks alone, so no score depends on a batch size, and every mean is over
pictures, each with the same weight.
"""

import math
from collections.abc import Sequence
from importlib.resources import as_file, files
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
from torchmetrics.image.fid import FrechetInceptionDistance

from pix2next.errors import ConfigError, WeightsError
from pix2next.evaluate.pretrained import (
    TAPS,
    activations,
    imagenet_normalise,
    missing_weights,
    pretrained_convolutions,
)
from pix2next.evaluate.similarity import Border, ssim_map
from pix2next.images import full_scale

Picture = Shaped[np.ndarray, "h w"]
Square = Float[Tensor, "b 1 256 256"]

NETWORK_SIDE = 256


def eight_bit_units(picture: Picture) -> Float[np.ndarray, "h w"]:
    """[0, full scale] of the picture's dtype to [0, 255], not rounded."""
    return picture.astype(np.float64) * (255 / full_scale(picture.dtype))


def rmse(fake: Picture, nir: Picture) -> float:
    """Root of the mean squared difference of two pictures, in 8-bit units: 0 when equal, at most 255.

    The released `eval_all.py` subtracts uint8 arrays, where 10 - 20 is 246 and the square wraps again: its RMSE column
    contradicts its PSNR column. Here the difference is taken in floating point.
    """
    return math.sqrt(np.mean((eight_bit_units(fake) - eight_bit_units(nir)) ** 2))


def psnr(fake: Picture, nir: Picture) -> float:
    """Peak signal-to-noise ratio, 20 log10(255 / RMSE), in dB: infinite when equal, 0 for black against white."""
    error = rmse(fake, nir)
    return 20 * math.log10(255 / error) if error else math.inf


def ssim(fake: Picture, nir: Picture, border: Border = "reflect") -> float:
    """Structural similarity, Gaussian window of 11 x 11 and sigma 1.5, data range 255; 1 when equal, at least -1.

    The mean over one window a pixel, pictures mirrored beyond their edges, is what torchmetrics computes;
    `border="valid"` gives skimage's mean, over the windows that lie inside.
    """
    x, y = (torch.from_numpy(eight_bit_units(picture)).float()[None, None] for picture in (fake, nir))
    return ssim_map(x, y, 255.0, border).double().mean().item()


def network_input(picture: Picture) -> Square:
    """The picture in [0, 1] at 256 x 256, its aspect not kept, by bilinear resizing with antialiasing."""
    unit = torch.from_numpy(picture.astype(np.float32) / np.float32(full_scale(picture.dtype)))[None, None]
    if unit.shape[-2:] == (NETWORK_SIDE, NETWORK_SIDE):
        return unit
    return F.interpolate(unit, (NETWORK_SIDE, NETWORK_SIDE), mode="bilinear", antialias=True).clamp(0, 1)


class LPIPS(nn.Module):
    """Learned perceptual distance on AlexNet (or VGG16): 0 when equal, about 1 for unrelated pictures.

    Version 0.1, with the linear weights, in evaluation mode; the network gets [-1, 1] (the released `eval_all.py`
    feeds it [0, 1]). The grey picture is repeated to three channels.

    Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (arXiv:1801.03924).
    Raises: WeightsError when a file of weights is not on disk and cannot be downloaded.
    """

    def __init__(self, net: str = "alex") -> None:
        super().__init__()
        match net:
            case "alex":
                network = "alexnet"
            case "vgg":
                network = "vgg16"
            case _:
                raise ConfigError(f"no LPIPS network '{net}'; known are alex, vgg")
        self.layers = pretrained_convolutions(network)
        self.taps = TAPS[network]
        weights = _learned_weights(f"lpips_models/{net}.pth")
        self.weights = nn.ParameterList(weights[f"lin{i}.model.1.weight"] for i in range(len(self.taps)))
        self.requires_grad_(False)

    def features(self, picture: Float[Tensor, "b 1 h w"]) -> list[Tensor]:
        """Five activations of a picture in [0, 1], each pixel's channels brought to length one."""
        maps = activations(self.layers, imagenet_normalise(picture * 2 - 1), self.taps)
        return [x / (x.square().sum(dim=1, keepdim=True) + 1e-8).sqrt() for x in maps]

    def distance(self, fake_features: Sequence[Tensor], nir_features: Sequence[Tensor]) -> Float[Tensor, " b"]:
        """Weighted squared distance of the activations, averaged over pixels and summed over layers."""
        layers = zip(self.weights, fake_features, nir_features, strict=True)
        terms = [((fake - nir).square() * weight).sum(dim=1).mean(dim=(1, 2)) for weight, fake, nir in layers]
        return torch.stack(terms).sum(dim=0)

    @torch.inference_mode()
    def forward(self, fake: Picture, nir: Picture) -> float:
        """The distance of two pictures of any size and depth."""
        both = (self.features(network_input(picture)) for picture in (fake, nir))
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
        layers = list(pretrained_convolutions("vgg16"))[: TAPS["vgg16"][-1] + 1]
        self.layers = nn.Sequential(*(_L2Pool() if isinstance(layer, nn.MaxPool2d) else layer for layer in layers))
        weights = _learned_weights("dists_models/weights.pt")
        total = weights["alpha"].sum() + weights["beta"].sum()
        self.alpha, self.beta = (nn.Parameter(weights[name] / total, False) for name in ("alpha", "beta"))

    def features(self, picture: Float[Tensor, "b 1 h w"]) -> list[Tensor]:
        """The picture in [0, 1] itself and five activations."""
        maps = activations(self.layers, imagenet_normalise(picture * 2 - 1), TAPS["vgg16"])
        return [picture.expand(-1, 3, -1, -1), *maps]

    def distance(self, fake_features: Sequence[Tensor], nir_features: Sequence[Tensor]) -> Float[Tensor, " b"]:
        """1 minus the weighted similarity of the channels' means (texture) and of their covariances (structure)."""
        pairs = [_moments_similarity(x, y) for x, y in zip(fake_features, nir_features, strict=True)]
        texture, structure = (torch.cat(parts, dim=1) for parts in zip(*pairs, strict=True))
        return 1 - (self.alpha.flatten() * texture + self.beta.flatten() * structure).sum(dim=1)

    @torch.inference_mode()
    def forward(self, fake: Picture, nir: Picture) -> float:
        """The distance of two pictures of any size and depth."""
        both = (self.features(network_input(picture)) for picture in (fake, nir))
        return self.distance(*both).item()


class FID(nn.Module):
    """Fréchet distance of two sets of pictures, as Gaussians in a layer of the FID Inception network: 0 when equal.

    `feature` names the layer by its width: 64, 192, 768 or the customary 2048. The values of layers do not compare, so
    the layer is part of the name: `FID-768`. Computed by torchmetrics (network and weights of torch-fidelity) on uint8
    pictures of 256 x 256 with three equal channels, which it resizes to 299 x 299 (bilinear, antialiased).

    The distance is biased upwards in small sets: compare it only between sets of the same pictures.

    Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule" (arXiv:1706.08500).
    Raises: WeightsError when Inception's weights are not on disk and cannot be downloaded; ConfigError for no layer.
    """

    def __init__(self, feature: int = 768) -> None:
        super().__init__()
        if feature not in (64, 192, 768, 2048):
            raise ConfigError(f"no FID layer of width {feature}; known are 64, 192, 768, 2048")
        self.feature = feature
        self.name = f"FID-{feature}"
        try:
            with torch.random.fork_rng(devices=[]):
                self.network = FrechetInceptionDistance(feature=feature).inception
        except (OSError, RuntimeError, EOFError) as error:
            raise missing_weights(URL_INCEPTION_V3, error) from error

    def features(self, picture: Square) -> Float[Tensor, "b c"]:
        """The layer's mean over a picture in [0, 1]."""
        return self.network(eight_bit(picture).expand(-1, 3, -1, -1)).reshape(len(picture), self.feature)

    def statistics(self) -> FrechetInceptionDistance:
        """Running mean and covariance of two sets of `features`: `update(features, real=...)`, then `compute()`.

        One picture or none in a set has no covariance.
        """
        return FrechetInceptionDistance(feature=_Given(self.feature))

    @torch.inference_mode()
    def forward(self, fakes: Sequence[Picture], nirs: Sequence[Picture]) -> float:
        """The distance of two sets of at least two pictures each, of any sizes and depths."""
        statistics = self.statistics()
        for pictures, real in ((fakes, False), (nirs, True)):
            for picture in pictures:
                statistics.update(self.features(network_input(picture)), real=real)
        return statistics.compute().item()


def eight_bit(picture: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """[0, 1] to 0 ... 255, rounded."""
    return picture.mul(255).round().to(torch.uint8)


class _Given(nn.Module):
    """Stands where torchmetrics wants a network, and passes on the features that were computed before."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        return features


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


def _learned_weights(name: str) -> dict[str, Any]:
    """What LPIPS and DISTS learned on top of the networks; torchmetrics carries both."""
    try:
        with as_file(files("torchmetrics.functional.image") / name) as path:
            weights: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            return weights
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"torchmetrics has no {name} ({error}); install torchmetrics >= 1.8") from error
