"""Networks that turn a picture into a row of features, for the scores of whole sets.

Each takes pictures in [0, 1] of any size, one channel repeated to three, and resizes them as its own protocol says. One
picture passes at a time, so that no score depends on a batch size.
"""

from collections import OrderedDict
from typing import Literal

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from torch import Tensor, nn
from torch_fidelity import feature_extractor_inceptionv3 as inception

from pix2next.errors import ConfigError, WeightsError, one_line
from pix2next.evaluate.pretrained import file_name, missing_weights, weights_by_url

Resize = Literal["bilinear", "clean", "released"]

LAYERS = {64: "MaxPool_1", 192: "MaxPool_2", 768: "Mixed_6e", 2048: "Mixed_7c"}
"""Width and last module of the layers that Inception's features are taken from."""
INCEPTION_SIDE = 299


class Inception(nn.Module):
    """A layer of the FID Inception network, averaged over the picture; `width` is 64, 192, 768 or the customary 2048.

    The network and its weights are torch-fidelity's, converted from the TensorFlow network that defines FID. Pictures
    are rounded to 8 bits and brought to 299 x 299. `resize`: "bilinear" is antialiased bilinear (torchmetrics);
    "clean" is antialiased bicubic (clean-fid, PIL); "released" is bilinear without antialiasing, with pytorch-fid's
    scale to [-1, 1], which the released code used.

    Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule" (arXiv:1706.08500); Parmar et al., "On
        Aliased Resizing and Surprising Subtleties in GAN Evaluation" (arXiv:2104.11222).
    Raises: WeightsError when the weights are not on disk and cannot be downloaded, or are empty at this layer;
        ConfigError for no layer.
    """

    source = file_name(inception.URL_INCEPTION_V3)

    def __init__(self, width: int = 768, resize: Resize = "bilinear") -> None:
        super().__init__()
        if width not in LAYERS:
            raise ConfigError(f"no Inception layer of width {width}; known are {', '.join(map(str, LAYERS))}")
        self.resize: Resize = resize
        self.layers = _inception_until(LAYERS[width])

    def features(self, picture: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b d"]:
        """The layer's mean over a picture in [0, 1]."""
        x = inception_input(eight_bit(picture).float(), self.resize)
        return self.layers(x.expand(-1, 3, -1, -1)).mean(dim=(2, 3))


def inception_input(levels: Float[Tensor, "b 1 h w"], resize: Resize) -> Float[Tensor, "b 1 299 299"]:
    """8-bit levels, 0 to 255, to the size and range that the Inception network takes: about [-1, 1]."""
    sides = (INCEPTION_SIDE, INCEPTION_SIDE)
    match resize:
        case "bilinear":
            return (F.interpolate(levels, sides, mode="bilinear", antialias=True) - 128) / 128
        case "clean":
            return (F.interpolate(levels, sides, mode="bicubic", antialias=True).clamp(0, 255) - 128) / 128
        case "released":
            return F.interpolate(levels, sides, mode="bilinear") / 127.5 - 1


class VisionTransformer(nn.Module):
    """A transformer of timm with its published weights: the class token, or CLIP's image embedding of length one.

    Pictures are brought to the network's square by antialiased bicubic resizing, aspect not kept, and to the mean and
    deviation that it was trained with.

    Raises: WeightsError when the weights are neither in the Hugging Face cache nor to be downloaded.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        side: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        unit_length: bool,
    ) -> None:
        super().__init__()
        self.side, self.unit_length = side, unit_length
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        hub_name = f"timm/{name.replace('_quickgelu', '')}"
        self.source = f"{hub_name} on the Hugging Face hub"
        try:
            self.network = timm.create_model(name, pretrained=True, img_size=side).eval().requires_grad_(False)
        except Exception as error:  # hub, network and shape errors come in a dozen classes
            raise WeightsError(
                f"cannot load model.safetensors of {hub_name} ({one_line(error)}); run `hf download {hub_name}` where "
                "there is network, or set HF_HOME to the cache that holds it"
            ) from error

    def features(self, picture: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b d"]:
        """The embedding of a picture in [0, 1]."""
        square = F.interpolate(picture, (self.side, self.side), mode="bicubic", antialias=True).clamp(0, 1)
        embedding: Tensor = self.network((square - self.mean) / self.std)
        return F.normalize(embedding, dim=1) if self.unit_length else embedding


def dinov2() -> VisionTransformer:
    """DINOv2 ViT-L/14 at 224 x 224: its class token, 1024 wide.

    Source: Stein et al., "Exposing flaws of generative model evaluation metrics" (arXiv:2306.04675): FD-DINOv2.
    """
    mean, std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    return VisionTransformer("vit_large_patch14_dinov2.lvd142m", 224, mean, std, unit_length=False)


def clip() -> VisionTransformer:
    """OpenAI's CLIP ViT-L/14 at 336 x 336: its image embedding, 768 wide, of length one.

    Source: Jayasumana et al., "Rethinking FID" (arXiv:2401.09603): CMMD.
    """
    name = "vit_large_patch14_clip_quickgelu_336.openai"
    return VisionTransformer(name, 336, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, unit_length=True)


def eight_bit(picture: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """[0, 1] to 0 ... 255, rounded."""
    return picture.mul(255).round().to(torch.uint8)


def _inception_until(last: str) -> nn.Sequential:
    """The network's modules up to the one named, frozen, in eval mode; they stand in the order they run in."""
    state = weights_by_url(inception.URL_INCEPTION_V3)
    with torch.device("meta"):
        modules = OrderedDict(_modules())
    kept = list(modules)[: list(modules).index(last) + 1]
    layers = nn.Sequential(OrderedDict((name, modules[name]) for name in kept))
    try:
        layers.load_state_dict({k: v for k, v in state.items() if k.split(".")[0] in kept}, assign=True)
    except RuntimeError as error:
        raise missing_weights(inception.URL_INCEPTION_V3, error) from error
    weights = [parameter for name, parameter in layers.named_parameters() if name.startswith(last)]
    if weights and not any(weight.any() for weight in weights):
        raise WeightsError(
            f"the Inception weights on disk are all zero in {last}, so this layer has no features; "
            f"put {inception.URL_INCEPTION_V3} into the hub folder of torch (TORCH_HOME), or take a layer up to 768"
        )
    return layers.requires_grad_(False).eval()


def _modules() -> list[tuple[str, nn.Module]]:
    """Inception v3 as FID has it: TensorFlow's of 2015, with its average pools."""
    conv, a, c = inception.BasicConv2d, inception.InceptionA, inception.InceptionC
    return [
        ("Conv2d_1a_3x3", conv(3, 32, kernel_size=3, stride=2)),
        ("Conv2d_2a_3x3", conv(32, 32, kernel_size=3)),
        ("Conv2d_2b_3x3", conv(32, 64, kernel_size=3, padding=1)),
        ("MaxPool_1", nn.MaxPool2d(kernel_size=3, stride=2)),
        ("Conv2d_3b_1x1", conv(64, 80, kernel_size=1)),
        ("Conv2d_4a_3x3", conv(80, 192, kernel_size=3)),
        ("MaxPool_2", nn.MaxPool2d(kernel_size=3, stride=2)),
        ("Mixed_5b", a(192, pool_features=32)),
        ("Mixed_5c", a(256, pool_features=64)),
        ("Mixed_5d", a(288, pool_features=64)),
        ("Mixed_6a", inception.InceptionB(288)),
        ("Mixed_6b", c(768, channels_7x7=128)),
        ("Mixed_6c", c(768, channels_7x7=160)),
        ("Mixed_6d", c(768, channels_7x7=160)),
        ("Mixed_6e", c(768, channels_7x7=192)),
        ("Mixed_7a", inception.InceptionD(768)),
        ("Mixed_7b", inception.InceptionE_1(1280)),
        ("Mixed_7c", inception.InceptionE_2(2048)),
    ]
