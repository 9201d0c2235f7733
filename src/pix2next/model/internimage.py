"""InternImage: a convolutional backbone of deformable convolutions (DCNv3), reading the released checkpoints.

Source: InternImage (arXiv:2211.05778) and its released code (OpenGVLab/InternImage, classification). Sizes T
to XL; the larger H and G have parts that are not here.
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from pix2next.errors import ConfigError, WeightsError
from pix2next.model.dcnv3 import KERNEL, DeformableConv, layer_norm
from pix2next.model.state_dicts import Rename, count_numbered, fit, read_state_dict, rename

# Source: the released code's `classification/configs`.
POST = {"post_norm": True, "layer_scale": 1e-5}
WIDE = POST | {"offset_scale": 2.0}
PUBLISHED: dict[str, dict[str, Any]] = {
    "t": {"channels": 64, "depths": (4, 4, 18, 4), "groups": (4, 8, 16, 32)},
    "s": {"channels": 80, "depths": (4, 4, 21, 4), "groups": (5, 10, 20, 40)} | POST,
    "b": {"channels": 112, "depths": (4, 4, 21, 4), "groups": (7, 14, 28, 56)} | POST,
    "l": {"channels": 160, "depths": (5, 5, 22, 5), "groups": (10, 20, 40, 80)} | WIDE,
    "xl": {"channels": 192, "depths": (5, 5, 24, 5), "groups": (12, 24, 48, 96)} | WIDE,
}

# In this order, from the released names to ours. Their norms sit in a Sequential beside a permutation, hence
# the numbers; `layer_scale1` is what the Hugging Face conversions call `gamma1`.
RELEASED_NAMES: tuple[Rename, ...] = (
    (r"^head\.", "classifier.linear."),
    (r"^conv_head\.0\.", "classifier.conv."),
    (r"^conv_head\.1\.0\.", "classifier.norm."),
    (r"^patch_embed\.", "stem."),
    (r"^levels\.", "stages."),
    (r"\.dw_conv\.0\.", ".depthwise."),
    (r"\.dw_conv\.1\.1\.", ".norm."),
    (r"\.(norm\d?)\.[01]\.", r".\1."),
    (r"\.layer_scale(\d)$", r".gamma\1"),
)
# Names that only InternImage-H and -G have.
LARGER_ONLY = ("center_feature_scale", "clip_projector", "res_post_norm", "post_norms", "dcnv3_head")


class InternImage(nn.Module):
    """Picture to four feature maps, at strides 4, 8, 16 and 32, each twice as wide as the one before.

    Any height and width; sides that no stride divides are rounded up. `channels` lists the maps' widths;
    `published_options` are the arguments that `load_internimage` needs, as no tensor tells them.
    """

    strides = (4, 8, 16, 32)

    def __init__(
        self,
        channels: int,
        depths: Sequence[int],
        groups: Sequence[int],
        *,
        mlp_ratio: float = 4.0,
        layer_scale: float | None = None,
        offset_scale: float = 1.0,
        post_norm: bool = False,
        in_channels: int = 3,
        classes: int = 0,
        drop_path: float = 0.0,
    ) -> None:
        """Build it untrained, as the released code initialises it.

        Args:
            channels: width of the first stage, a multiple of every stage's groups.
            depths: blocks in each of the four stages.
            groups: DCNv3 groups of each stage.
            mlp_ratio: hidden width of a block's MLP over the stage's width, rounded down.
            layer_scale: initial gain of every branch; None for branches without a gain.
            offset_scale: DCNv3's.
            post_norm: norms after each branch instead of before it and after each stage.
            in_channels: 3 for RGB in ImageNet normalisation.
            classes: width of the classifier's output; 0 for no classifier.
            drop_path: share of samples that skip the last block in training; falls linearly to 0 at the
                first.
        """
        super().__init__()
        self.channels = [channels * 2**i for i in range(len(depths))]
        self.published_options: dict[str, Any] = {
            "groups": tuple(groups),
            "offset_scale": offset_scale,
            "post_norm": post_norm,
            "layer_scale": layer_scale,
        }
        self.stem = Stem(in_channels, channels)
        rates = torch.linspace(0, drop_path, sum(depths), device="cpu").split(list(depths))
        self.stages = nn.ModuleList(
            Stage(
                width,
                rate.tolist(),
                groups=stage_groups,
                mlp_ratio=mlp_ratio,
                layer_scale=layer_scale,
                offset_scale=offset_scale,
                post_norm=post_norm,
                downsample=width < self.channels[-1],
            )
            for width, rate, stage_groups in zip(self.channels, rates, groups, strict=True)
        )
        self.classifier = classifier(self.channels[-1], classes) if classes else None

    def forward(self, x: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Give the map at the end of each stage, before it is halved for the next."""
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x, following = stage(x)
            maps.append(rearrange(x, "b h w c -> b c h w"))
            x = following
        return maps

    def logits(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        """Class scores; only for a model built or loaded with its classifier."""
        assert self.classifier is not None
        return self.classifier(self(x)[-1])


class Stem(nn.Module):
    """Two strided convolutions, to a quarter of the size; channels first in, channels last out."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels // 2, 3, stride=2, padding=1)
        self.norm1 = layer_norm(channels // 2)
        self.conv2 = nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1)
        self.norm2 = layer_norm(channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h4 w4 d"]:
        x = self.norm1(rearrange(self.conv1(x), "b c h w -> b h w c"))
        x = self.conv2(F.gelu(rearrange(x, "b h w c -> b c h w")))
        return self.norm2(rearrange(x, "b c h w -> b h w c"))


class Stage(nn.Module):
    """Blocks at one width and stride, and the halving that leads to the next stage."""

    def __init__(
        self, channels: int, drop_paths: Sequence[float], *, post_norm: bool, downsample: bool, **block: Any
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(Block(channels, drop_path=rate, post_norm=post_norm, **block) for rate in drop_paths)
        )
        self.norm = nn.Identity() if post_norm else layer_norm(channels)
        self.downsample = Downsample(channels) if downsample else nn.Identity()

    def forward(self, x: Float[Tensor, "b h w c"]) -> tuple[Float[Tensor, "b h w c"], Float[Tensor, "b h2 w2 c2"]]:
        """Give the stage's own map and the next stage's input; the last stage gives its own map twice."""
        x = self.norm(self.blocks(x))
        return x, self.downsample(x)


class Downsample(nn.Module):
    """Half the size, twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False)
        self.norm = layer_norm(2 * channels)

    def forward(self, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h2 w2 2*c"]:
        x = self.conv(rearrange(x, "b h w c -> b c h w"))
        return self.norm(rearrange(x, "b c h w -> b h w c"))


class Block(nn.Module):
    """A deformable convolution and an MLP, each a residual branch with its norm before or after it."""

    def __init__(
        self,
        channels: int,
        *,
        groups: int,
        mlp_ratio: float,
        layer_scale: float | None,
        offset_scale: float,
        post_norm: bool,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.post_norm, self.drop_path = post_norm, drop_path
        self.norm1 = layer_norm(channels)
        self.dcn = DeformableConv(channels, groups, offset_scale)
        self.norm2 = layer_norm(channels)
        self.mlp = mlp(channels, int(channels * mlp_ratio))
        self.gamma1 = self.gamma2 = None
        if layer_scale is not None:
            self.gamma1 = nn.Parameter(torch.full((channels,), float(layer_scale)))
            self.gamma2 = nn.Parameter(torch.full((channels,), float(layer_scale)))

    def forward(self, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w c"]:
        x = x + self._branch(x, self.dcn, self.norm1, self.gamma1)
        return x + self._branch(x, self.mlp, self.norm2, self.gamma2)

    def _branch(self, x: Tensor, body: nn.Module, norm: nn.Module, gamma: Tensor | None) -> Tensor:
        x = norm(body(x)) if self.post_norm else body(norm(x))
        if gamma is not None:
            x = gamma * x
        if self.training and self.drop_path:
            # Dropout of a one per sample drops whole branches and scales up those that stay.
            x = x * F.dropout(x.new_ones(len(x), 1, 1, 1), self.drop_path)
        return x


def mlp(channels: int, hidden: int) -> nn.Sequential:
    """Build two linear layers with GELU between them."""
    first, second = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
    for linear in (first, second):
        nn.init.trunc_normal_(linear.weight, std=0.02)
        nn.init.zeros_(linear.bias)
    return nn.Sequential(OrderedDict(fc1=first, act=nn.GELU(), fc2=second))


def classifier(channels: int, classes: int) -> nn.Sequential:
    """Build the released head: a wider pointwise convolution, the mean over the map, a linear layer."""
    hidden = int(1.5 * channels)
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, hidden, 1, bias=False),
            norm=nn.BatchNorm2d(hidden),
            act=nn.GELU(),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            linear=nn.Linear(hidden, classes),
        )
    )


def internimage(variant: str, **settings: Any) -> InternImage:
    """Build a published size, untrained; `settings` are further arguments of `InternImage`.

    Raises:
        ConfigError: no such size.
    """
    if variant not in PUBLISHED:
        raise ConfigError(f"no InternImage of size {variant!r}; known: {', '.join(PUBLISHED)}")
    return InternImage(**(PUBLISHED[variant] | settings))


def load_internimage(
    path: Path | str,
    *,
    groups: Sequence[int],
    offset_scale: float,
    post_norm: bool,
    layer_scale: float | None,
    head: bool = True,
) -> InternImage:
    """Read a released checkpoint; every size not given here comes from its tensors. In eval mode.

    `.pth` or `.safetensors`; the state dict bare or under `model`. `head=False` leaves a classifier out.

    Raises:
        WeightsError: the file cannot be read, is no InternImage of size T to XL, or does not fit the
            arguments.
    """
    path = Path(path)
    released = read_state_dict(path, "patch_embed.conv1.weight")
    if any(part in name for name in released for part in LARGER_ONLY):
        raise WeightsError(f"{path} is an InternImage-H or -G, which is not supported; T, S, B, L and XL are")
    state = rename(released, RELEASED_NAMES)
    check_settings(state, {"groups": groups, "post_norm": post_norm, "layer_scale": layer_scale}, path)
    if not head or "classifier.linear.weight" not in state:
        state = {name: value for name, value in state.items() if not name.startswith("classifier.")}
    with torch.device("meta"):
        model = InternImage(
            groups=groups,
            offset_scale=offset_scale,
            post_norm=post_norm,
            layer_scale=layer_scale,
            **sizes(state, path),
        )
    fit(model, state, path)
    return model.eval()


def check_settings(state: dict[str, Tensor], given: dict[str, Any], path: Path) -> None:
    """Compare the settings that were given with what the tensors (by our names) show of them.

    Raises:
        WeightsError: one differs.
    """
    masks = [f"stages.{i}.blocks.0.dcn.mask.bias" for i in range(count_numbered(state, "stages."))]
    shown = {
        "groups": tuple(state[name].numel() // KERNEL**2 for name in masks if name in state),
        "post_norm": "stages.0.norm.weight" not in state,
        "layer_scale": "stages.0.blocks.0.gamma1" in state,
    }
    scaled = given["layer_scale"] is not None
    for name, value in (given | {"groups": tuple(given["groups"]), "layer_scale": scaled}).items():
        if shown[name] != value:
            raise WeightsError(f"{path} does not fit {name}={given[name]!r}: its tensors show {shown[name]!r}")


def sizes(state: dict[str, Tensor], path: Path) -> dict[str, Any]:
    """Give those arguments of `InternImage` that its tensors (by our names) tell.

    Raises:
        WeightsError: the tensors from which they are read are not all there.
    """
    stages = count_numbered(state, "stages.")
    mlp_name = f"stages.{stages - 1}.blocks.0.mlp.fc1.weight"
    for name, axes in {"stem.conv1.weight": 4, "stem.conv2.weight": 4, mlp_name: 2}.items():
        if name not in state or state[name].ndim != axes or 0 in state[name].shape:
            raise WeightsError(f"{path} is no whole InternImage: {name} is missing or has not {axes} axes")
    hidden, widest = state[mlp_name].shape
    head = state.get("classifier.linear.bias")
    return {
        "channels": len(state["stem.conv2.weight"]),
        "depths": [count_numbered(state, f"stages.{i}.blocks.") for i in range(stages)],
        # The widest stage tells the ratio best: rounded down, it gives the narrower ones. Half a unit more keeps the
        # division from falling below the whole number.
        "mlp_ratio": (hidden + 0.5) / widest,
        "in_channels": state["stem.conv1.weight"].shape[1],
        "classes": 0 if head is None else head.numel(),
    }
