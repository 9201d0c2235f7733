"""Fixed networks that pictures are compared through: torchvision's convolutions, from disk or by download."""

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.parse import urlparse

import torch
from jaxtyping import Float
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torchvision import models

from pix2next.errors import ConfigError, WeightsError, one_line

TAPS = {"alexnet": (1, 4, 7, 9, 11), "vgg16": (3, 8, 15, 22, 29), "vgg19": (1, 6, 11, 20, 29)}
"""The layers whose outputs are compared: vgg19's as in pix2pixHD (relu1_1 ... relu5_1), the others' as in LPIPS."""


def pretrained_convolutions(name: str) -> nn.Sequential:
    """The `features` part of torchvision's alexnet, vgg16 or vgg19 with its ImageNet weights, frozen, in eval mode.

    The classifier is never built. No activation works in place, so every one of them can be kept.

    Raises: ConfigError for another name; WeightsError when the file is not on disk and cannot be downloaded.
    """
    with torch.device("meta"):
        layers, url = _untrained(name)
    state = weights_by_url(url)
    convolutions = {k.removeprefix("features."): t for k, t in state.items() if k.startswith("features.")}
    try:
        layers.load_state_dict(convolutions, assign=True)
    except RuntimeError as error:
        raise missing_weights(url, error) from error
    for layer in layers:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    return layers.requires_grad_(False).eval()


def weights_by_url(url: str) -> dict[str, Any]:
    """A state dict from torch's hub folder, downloaded into it when it is not there.

    Raises: WeightsError naming the file and where it goes.
    """
    try:
        state: dict[str, Any] = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, weights_only=True
        )
        return state
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise missing_weights(url, error) from error


def missing_weights(url: str, error: Exception) -> WeightsError:
    """The one sentence for weights that cannot be had."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return WeightsError(
        f"cannot load {file_name(url)} ({one_line(error)}); put {url} into {folder}, or set TORCH_HOME to where it is"
    )


def file_name(url: str) -> str:
    """The file at the end of an address."""
    return Path(urlparse(url).path).name


def convolutions_file(name: str) -> str:
    """The file that `pretrained_convolutions(name)` reads.

    Raises: ConfigError for another name.
    """
    with torch.device("meta"):
        return file_name(_untrained(name)[1])


def fingerprint(network: nn.Module) -> str:
    """The first sixteen digits of `weights_sha256`."""
    return weights_sha256(network)[:16]


def weights_sha256(network: nn.Module) -> str:
    """SHA-256 of a network's weights in hexadecimal digits: equal for equal numbers, whatever file.

    Names and order count; the file format and the device do not.
    """
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()))
    return digest.hexdigest()


def imagenet_normalise(picture: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 h w"]:
    """[-1, 1], one channel or three, to ImageNet's zero mean and unit deviation, three channels."""
    mean = picture.new_tensor(IMAGENET_DEFAULT_MEAN).view(3, 1, 1)
    std = picture.new_tensor(IMAGENET_DEFAULT_STD).view(3, 1, 1)
    return (picture / 2 + 0.5 - mean) / std


def activations(
    layers: Iterable[nn.Module], x: Float[Tensor, "b c h w"], taps: Collection[int]
) -> list[Float[Tensor, "b _ _ _"]]:
    """What the layers at the indices `taps` give, shallow to deep, `x` passing through all of them."""
    tapped = []
    for index, layer in enumerate(layers):
        x = layer(x)
        if index in taps:
            tapped.append(x)
    return tapped


def _untrained(name: str) -> tuple[nn.Sequential, str]:
    match name:
        case "alexnet":
            return models.alexnet().features, models.AlexNet_Weights.IMAGENET1K_V1.url
        case "vgg16":
            return models.vgg16().features, models.VGG16_Weights.IMAGENET1K_V1.url
        case "vgg19":
            return models.vgg19().features, models.VGG19_Weights.IMAGENET1K_V1.url
    raise ConfigError(f"no perceptual network '{name}'; known are alexnet, vgg16, vgg19")
