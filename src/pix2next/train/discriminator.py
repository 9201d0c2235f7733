"""The discriminators: PatchGANs that judge an (RGB, NIR) pair at several resolutions.

Source: Pix2Next (arXiv:2409.16706), three PatchGANs at full, 1/2 and 1/4 resolution; the geometry is that of
pix2pixHD (arXiv:1711.11585), sec. 3.2, and of the released Pix2Next code (Yonsei-STL/pix2next, c95c865), so that
its checkpoints fit.
"""

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pix2next.errors import ConfigError, WeightsError
from pix2next.model.state_dicts import fit

Norm = Literal["batch", "instance", "spectral", "none"]
NORMS = ("batch", "instance", "spectral", "none")
WIDEST = 512
RELEASED_KEY = re.compile(r"(?:^|\.)scale(?P<scale>\d+)_layer(?P<stage>\d+)\.(?P<rest>.+)$")


Seen = Tensor | list[Tensor]
"""A picture as D sees it: itself, or the maps that a pretrained network has of it, finest first."""


class ScaleOutput(NamedTuple):
    """What one discriminator says of a batch: a map of logits, one a patch, and the activations that led to it."""

    logits: Float[Tensor, "b 1 h w"]
    features: list[Tensor]


class PatchDiscriminator(nn.Module):
    """One PatchGAN: `layers` halvings, one stage at full stride, then one logit a patch.

    A stage is conv 4x4, norm, leaky ReLU; the first has no norm and the last is the bare conv to the logits.
    With padding 2 every stage adds one row and one column, and a picture of any size >= 1 gives logits. With 1 the two
    stages that do not halve take one away: pix2pix's 70 x 70 PatchGAN (arXiv:1611.07004, appendix 6.1.2) is 3 layers.
    With `norm="none"` the convolutions start Kaiming-scaled: nothing else would keep the signal's size.
    """

    def __init__(self, in_channels: int, width: int, layers: int, norm: Norm, padding: int) -> None:
        super().__init__()
        widths = [min(width * 2**i, WIDEST) for i in range(layers + 1)]
        stages = [_stage(in_channels, widths[0], 2, "spectral" if norm == "spectral" else "none", padding)]
        for i in range(1, layers + 1):
            stages.append(_stage(widths[i - 1], widths[i], 2 if i < layers else 1, norm, padding))
        self.stages = nn.ModuleList(stages)
        self.to_logits = _conv(widths[-1], 1, 1, norm, padding)
        if norm == "none":
            self.apply(_kaiming)

    def forward(self, pair: Float[Tensor, "b c h w"]) -> ScaleOutput:
        """Logits and the activations of every stage before them."""
        features = []
        for stage in self.stages:
            pair = stage(pair)
            features.append(pair)
        return ScaleOutput(self.to_logits(pair), features)


class MultiScaleDiscriminator(nn.Module):
    """`scales` equal PatchGANs with weights of their own; each next one sees the pair at half the size.

    `in_channels` is RGB's 3 and the NIR's 1 (the released code repeats NIR to 3, so 6 there). The paper's setting
    is width 64, 3 layers, 3 scales, batch norm. For training on a CPU, `norm="none"` or "spectral" in channels-last
    memory under bf16 autocast is several times faster. Batch statistics move with every call in train mode, so the
    order of calls matters for `norm="batch"` alone.

    Raises: ConfigError for a norm that is not known or a count below one.
    """

    def __init__(
        self,
        in_channels: int = 4,
        width: int = 64,
        layers: int = 3,
        scales: int = 3,
        norm: str = "batch",
        padding: int = 2,
    ) -> None:
        super().__init__()
        for name, value in {"in_channels": in_channels, "width": width, "layers": layers, "scales": scales}.items():
            if value < 1:
                raise ConfigError(f"discriminator.{name} is {value}; it must be at least 1")
        if padding not in (1, 2):
            raise ConfigError(f"discriminator.padding is {padding}; it must be 1 or 2")
        self.scales = nn.ModuleList(
            PatchDiscriminator(in_channels, width, layers, _known(norm), padding) for _ in range(scales)
        )
        self.smallest = 1 if padding == 2 else 3 * 2 ** (layers + scales - 1)

    def forward(self, rgb: Float[Tensor, "b 3 h w"], nir: Float[Tensor, "b c h w"]) -> list[ScaleOutput]:
        """One output a scale, full resolution first; both pictures in [-1, 1]."""
        return self.judge(torch.cat([rgb, nir], dim=1))

    def judge(self, picture: Float[Tensor, "b c h w"]) -> list[ScaleOutput]:
        """The same of any picture with `in_channels` channels.

        Raises: ConfigError for a picture that is too small to give a logit at every scale.
        """
        if min(picture.shape[-2:]) < self.smallest:
            raise ConfigError(
                f"these discriminators judge pictures from {self.smallest} x {self.smallest} on, not "
                f"{picture.shape[-1]} x {picture.shape[-2]}; raise data.crop, or set discriminator.padding to 2"
            )
        outputs = []
        for scale, discriminator in enumerate(self.scales):
            picture = _halve(picture) if scale else picture
            outputs.append(discriminator(picture))
        return outputs


def load_released_discriminator(state: Mapping[str, Tensor]) -> MultiScaleDiscriminator:
    """The discriminator of a released state dict, in train mode; every size is read from the tensors.

    Keys end in `scale{i}_layer{j}.{...}` whatever stands before; the released code counts its scales from the
    coarsest, this one from the finest. Entries that belong to no scale (the released class also holds its VGG)
    are left out.

    Raises: WeightsError if no such key is there or a tensor does not fit.
    """
    found = [(RELEASED_KEY.search(name), tensor) for name, tensor in state.items() if isinstance(tensor, Tensor)]
    tensors = {(int(key["scale"]), int(key["stage"]), key["rest"]): tensor for key, tensor in found if key}
    if not tensors:
        raise WeightsError(
            f"no released discriminator among {len(state)} tensors; expected keys like 'scale0_layer0.0.weight'"
        )
    scales = 1 + max(scale for scale, _, _ in tensors)
    last = max(stage for _, stage, _ in tensors)
    first = tensors.get((0, 0, "0.weight"))
    if first is None or first.ndim != 4 or 0 in first.shape:
        raise WeightsError("the released discriminator's 'scale0_layer0.0.weight' is missing or no convolution")
    if last < 2:
        raise WeightsError(f"the released discriminator has {last + 1} layers a scale; it needs at least 3")
    norm = "batch" if (0, 1, "1.running_mean") in tensors else "instance"
    with torch.device("meta"):
        model = MultiScaleDiscriminator(first.shape[1], first.shape[0], last - 1, scales, norm)
    # Copies, as training changes them in place.
    renamed = {
        _our_name(scales - 1 - scale, stage, last, rest): tensor.clone()
        for (scale, stage, rest), tensor in tensors.items()
    }
    fit(model, renamed, "the released discriminator")
    return model


def _our_name(scale: int, stage: int, last: int, rest: str) -> str:
    if stage == last:
        return f"scales.{scale}.to_logits.{rest.removeprefix('0.')}"
    return f"scales.{scale}.stages.{stage}.{rest}"


def _stage(in_channels: int, out_channels: int, stride: int, norm: Norm, padding: int) -> nn.Sequential:
    conv = _conv(in_channels, out_channels, stride, norm, padding)
    return nn.Sequential(conv, *_norm(out_channels, norm), nn.LeakyReLU(0.2, inplace=True))


def _conv(in_channels: int, out_channels: int, stride: int, norm: Norm, padding: int) -> nn.Module:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=4, stride=stride, padding=padding)
    return nn.utils.parametrizations.spectral_norm(conv) if norm == "spectral" else conv


def _norm(channels: int, norm: Norm) -> list[nn.Module]:
    match norm:
        case "batch":
            return [nn.BatchNorm2d(channels)]
        case "instance":
            return [nn.InstanceNorm2d(channels)]
        case _:
            return []


def _known(norm: str) -> Norm:
    for choice in NORMS:
        if norm == choice:
            return choice  # type: ignore[return-value]
    raise ConfigError(f"discriminator.norm is '{norm}'; known are {', '.join(NORMS)}")


def _kaiming(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, a=0.2)
        assert module.bias is not None
        nn.init.zeros_(module.bias)


def _halve(pair: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    """3x3 mean at stride 2 over what lies inside the picture (pix2pixHD's pyramid)."""
    return F.avg_pool2d(pair, 3, stride=2, padding=1, count_include_pad=False)
