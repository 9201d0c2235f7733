"""The released Pix2Next generator, read from the checkpoints that its training script writes.

What it computes differs from the paper's text and from `generator.py` in ways its weights depend on; they are said
where they stand. Source: github.com/Yonsei-STL/pix2next at c95c865, `UNET/models` and `common`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pix2next.errors import WeightsError
from pix2next.model import internimage
from pix2next.model.blocks import Down, ResidualBlock, Up
from pix2next.model.internimage import InternImage
from pix2next.model.released_blocks import AttentionBlock, LastBlock
from pix2next.model.state_dicts import Rename, count_numbered, find_state, fit, pick_state_dict, read_weights, rename

VFM = "unet.internimage."
SIGNATURE = "unet.output_res_block.block1.proj.weight"
"""A tensor that no other network has."""

# In this order, from the released names to ours; the VFM's are InternImage's own.
RELEASED_NAMES: tuple[Rename, ...] = (
    (r"^init_conv\.", "stem."),
    (r"^unet\.output_res_block\.block(\d)\.proj\.", r"last.conv\1."),
    (r"^unet\.output_block\.conv\.", "out."),
    (r"^unet\.bottle_neck\.", "bottleneck."),
    (r"^unet\.output_res_block\.", "last."),
    (r"^unet\.", ""),
    (r"\.residual_layer\.", ".shortcut."),
    (r"\.norm\.", ".norm1."),
    (r"\.conv_feature\.", ".conv1."),
    (r"\.norm_merged\.", ".norm2."),
    (r"\.conv_merged\.", ".conv2."),
    (r"\.(down|up)sample_conv\.", ".conv."),
    (r"\.conv_input\.", ".conv_in."),
    (r"\.group_norm\.", ".norm_in."),
    (r"\.conv_input_c\.", ".context_conv."),
    (r"\.group_norm_c\.", ".context_norm."),
    (r"\.layer_norm_(\d)\.", r".norm\1."),
    (r"\.attention_1\.in_proj\.", ".self_attention.qkv."),
    (r"\.attention_1\.out_proj\.", ".self_attention.out."),
    (r"\.attention_2\.Q\.", ".cross_attention.query."),
    (r"\.attention_2\.K\.", ".cross_attention.key."),
    (r"\.attention_2\.V\.", ".cross_attention.value."),
    (r"\.attention_2\.O\.", ".cross_attention.out."),
    (r"\.linear_geglu_1\.", ".expand."),
    (r"\.linear_geglu_2\.", ".shrink."),
    (r"\.conv_output\.", ".conv_out."),
)

BlockPlan = tuple[str, int, int]
"""`residual` with its width before and after, `attention` with its width and the VFM map's, or `down` or `up`."""
StagePlan = Sequence[BlockPlan]


@dataclass(frozen=True)
class Plan:
    """Everything about the network that its tensors' shapes tell."""

    channels: tuple[int, int]
    """Of the input and the output picture."""
    stem: int
    encoder: Sequence[StagePlan]
    bottleneck: Sequence[StagePlan]
    decoder: Sequence[StagePlan]
    last: tuple[int, int]
    """Width of the last residual block, before and after."""
    vfm: Mapping[str, Any]
    """Arguments of `InternImage`."""


def residuals(*widths: int) -> StagePlan:
    """Plan residual blocks from each width to the next."""
    return [("residual", before, after) for before, after in pairwise(widths)]


def attending(channels: int) -> StagePlan:
    """Plan residual block, attention and residual block; the attention reads the last VFM map."""
    return [("residual", channels, 512), ("attention", 512, 1024), ("residual", 512, 512)]


# Source: `config_gan_base_internimage.yaml`, skips added to the widths that decoder stages start from.
PUBLISHED = Plan(
    channels=(3, 3),
    stem=128,
    encoder=[
        residuals(128, 128, 256, 256),
        [("down", 256, 256)],
        residuals(256, 256, 512, 512),
        [("down", 512, 512)],
        residuals(512, 512, 512, 512),
        [("down", 512, 512)],
        attending(512),
    ],
    bottleneck=[residuals(512, 512, 512, 512), attending(512), residuals(512, 512, 512, 512)],
    decoder=[
        attending(512 + 512),
        [("up", 512, 512)],
        residuals(512 + 512, 512, 256, 256),
        [("up", 256, 256)],
        residuals(256 + 512, 256, 256, 256),
        [("up", 256, 256)],
        residuals(256 + 256, 256, 128, 128),
    ],
    last=(128 + 128, 128),
    vfm={"channels": 128, "depths": (4, 4, 21, 4), "classes": 1000},
)


class ReleasedGenerator(nn.Module):
    """RGB to NIR in three equal channels (about), both in [-1, 1]; there is no tanh, so NIR can lie outside.

    Sides must be multiples of `multiple`, 8 for the published network.
    """

    def __init__(self, plan: Plan, *, norm_groups: int, heads: int, vfm_groups: Sequence[int]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(plan.channels[0], plan.stem, 1)
        # An InternImage of no published size that sees the stem's output, not the picture. The released one has a
        # classifier that is never used: it is built at the published size, which counts it, and not loaded.
        self.vfm = InternImage(
            **plan.vfm, groups=vfm_groups, post_norm=True, layer_scale=1e-5, in_channels=plan.stem, drop_path=0.2
        )
        options = {"norm_groups": norm_groups, "heads": heads, "vfm_channels": self.vfm.channels}
        self.encoder = nn.ModuleList(Stage(stage, **options) for stage in plan.encoder)
        self.bottleneck = nn.ModuleList(Stage(stage, **options) for stage in plan.bottleneck)
        self.decoder = nn.ModuleList(Stage(stage, **options) for stage in plan.decoder)
        self.last = LastBlock(*plan.last)
        self.out = nn.Conv2d(plan.last[1], plan.channels[1], 3, padding=1)
        self.multiple = 2 ** sum(stage[0][0] == "down" for stage in plan.encoder)

    def forward(self, rgb: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h w"]:
        stem = self.stem(rgb)
        maps = self.vfm(stem)
        x, skips = stem, []
        for stage in self.encoder:
            x = stage(x, maps)
            if not stage.resamples:
                skips.append(x)
        for stage in self.bottleneck:
            x = stage(x, maps)
        for stage in self.decoder:
            if not stage.resamples:
                x = torch.cat([x, skips.pop()], dim=1)
            x = stage(x, maps)
        x = self.last(torch.cat([x, stem], dim=1))
        return self.out(x)


class Stage(nn.ModuleList):
    """Blocks in a row, each given the VFM's maps if it attends to them. `resamples`: it only halves or doubles."""

    def __init__(self, plan: StagePlan, **options: Any) -> None:
        super().__init__(build_block(*block, **options) for block in plan)
        self.resamples = plan[0][0] in ("down", "up")

    def forward(
        self, x: Float[Tensor, "b c h w"], maps: Sequence[Float[Tensor, "b _ _ _"]]
    ) -> Float[Tensor, "b out h2 w2"]:
        for block in self:
            x = block(x, maps) if isinstance(block, AttentionBlock) else block(x)
        return x


def build_block(
    kind: str, channels: int, other: int, *, norm_groups: int, heads: int, vfm_channels: Sequence[int]
) -> nn.Module:
    """Build one block of a plan. An attention block reads that VFM map which is as wide as its context."""
    match kind:
        case "residual":
            return ResidualBlock(channels, other, norm="group", groups=norm_groups)
        case "attention":
            level = list(vfm_channels).index(other)
            return AttentionBlock(channels, other, level, heads=heads, norm_groups=norm_groups)
        case "down":
            return Down(channels, other)
        case "up":
            return Up(channels, other)
    raise ValueError(f"block {kind!r} is unknown; known: residual, attention, down, up")


def released_generator() -> ReleasedGenerator:
    """Build the network at its published size, untrained: 316.1 M parameters, of which InternImage 127.1 M."""
    return ReleasedGenerator(PUBLISHED, norm_groups=32, heads=4, vfm_groups=(8, 16, 32, 64)).eval()


def load_generator(
    path: Path | str,
    *,
    norm_groups: int = 32,
    heads: int = 4,
    vfm_groups: Sequence[int] = (8, 16, 32, 64),
) -> ReleasedGenerator:
    """Read a checkpoint of the released code, of any size; what is not given here its tensors tell. In eval mode.

    `.pt`, `.pth` or `.safetensors`; the state dict bare, as the released training script saves it, or wrapped.
    Each attention block reads the VFM map as wide as its context, so both released variants work: that which
    reads the last map everywhere, and that which reads the first in the encoder and the second in the bottleneck.

    Args:
        path: the file.
        norm_groups: of every group norm.
        heads: of every attention; each is (width of the layer / heads) wide.
        vfm_groups: DCNv3 groups of InternImage's four stages.

    Raises:
        WeightsError: the file cannot be read, is none of the released generator, or does not fit the arguments.
    """
    path = Path(path)
    return generator_of(read_weights(path), path, norm_groups=norm_groups, heads=heads, vfm_groups=vfm_groups)


def generator_of(
    weights: Any,
    path: Path,
    *,
    norm_groups: int = 32,
    heads: int = 4,
    vfm_groups: Sequence[int] = (8, 16, 32, 64),
) -> ReleasedGenerator:
    """Build the generator of `weights` that were read from `path`; see `load_generator`.

    Raises:
        WeightsError: they are none of the released generator, or do not fit the arguments.
    """
    released = pick_state_dict(weights, SIGNATURE, path)
    plan = read_plan(released, path)
    check_arguments(plan, norm_groups, heads, path)
    with torch.device("meta"):
        model = ReleasedGenerator(plan, norm_groups=norm_groups, heads=heads, vfm_groups=vfm_groups)
    vfm, own = split_vfm(released)
    internimage.check_settings(vfm, {"groups": vfm_groups, "post_norm": True, "layer_scale": 1e-5}, path)
    fit(model, rename(own, RELEASED_NAMES) | {f"vfm.{name}": value for name, value in vfm.items()}, path)
    return model.eval()


def is_released(weights: Any) -> bool:
    """Tell whether `weights`, a state dict or one in a wrapper, is of the released generator."""
    return find_state(weights, SIGNATURE) is not None


def split_vfm(released: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Give InternImage's tensors by our names, without its unused classifier, and the others by theirs."""
    vfm = {name.removeprefix(VFM): value for name, value in released.items() if name.startswith(VFM)}
    vfm = rename(vfm, internimage.RELEASED_NAMES)
    return {name: value for name, value in vfm.items() if not name.startswith("classifier.")}, {
        name: value for name, value in released.items() if not name.startswith(VFM)
    }


def read_plan(released: Mapping[str, Tensor], path: Path) -> Plan:
    """Read the network's sizes off its tensors, by their released names.

    Raises:
        WeightsError: tensors are missing, or a block is of a kind that the published network has not.
    """
    vfm = internimage.sizes(split_vfm(released)[0], path)
    try:
        stem, last = released["init_conv.weight"], released["unet.output_res_block.block1.proj.weight"]
        return Plan(
            channels=(stem.shape[1], len(released["unet.output_block.conv.weight"])),
            stem=len(stem),
            encoder=read_stages(released, "unet.encoder."),
            bottleneck=read_stages(released, "unet.bottle_neck."),
            decoder=read_stages(released, "unet.decoder."),
            last=(last.shape[1], len(last)),
            vfm={name: size for name, size in vfm.items() if name != "in_channels"},
        )
    except KeyError as error:
        raise WeightsError(f"{path} is no whole released generator: {error.args[0]} is missing") from None
    except (IndexError, TypeError):
        raise WeightsError(f"{path} is no released generator: its first or last layer is no convolution") from None
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from None


def read_stages(released: Mapping[str, Tensor], prefix: str) -> list[StagePlan]:
    """Read the blocks of every stage whose tensors' names start with `prefix`."""
    stages = range(count_numbered(released, prefix))
    return [
        [read_block(released, f"{prefix}{i}.{j}.") for j in range(count_numbered(released, f"{prefix}{i}."))]
        for i in stages
    ]


def read_block(released: Mapping[str, Tensor], prefix: str) -> BlockPlan:
    """Read one block's kind and widths.

    Raises:
        ValueError: it is of a kind that the published network has not.
    """
    shapes = {name.removeprefix(prefix): value.shape for name, value in released.items() if name.startswith(prefix)}
    match shapes:
        case {"conv_feature.weight": (out, channels, 3, 3)}:
            return "residual", channels, out
        case {"attention_2.K.weight": (channels, context)}:
            return "attention", channels, context
        case {"downsample_conv.weight": (out, unshuffled, 3, 3)} if unshuffled == 4 * out:
            return "down", out, out
        case {"upsample_conv.weight": (out, channels, 3, 3)}:
            return "up", channels, out
    raise ValueError(f"{prefix}* is no kind of block that the published network has")


def check_arguments(plan: Plan, norm_groups: int, heads: int, path: Path) -> None:
    """Compare the widths with the arguments that divide them.

    Raises:
        WeightsError: they do not, or a block attends to features of a width that no VFM map has.
    """
    maps = [plan.vfm["channels"] * 2**i for i in range(len(plan.vfm["depths"]))]
    for kind, width, other in (block for stage in (*plan.encoder, *plan.bottleneck, *plan.decoder) for block in stage):
        normed = {"residual": (width, other), "attention": (width,)}.get(kind, ())
        for channels in normed:
            if channels % norm_groups:
                raise WeightsError(
                    f"{path} has layers of {channels} channels, which norm_groups={norm_groups} does not divide; "
                    "no tensor tells the number it was trained with, so pass that to load_generator"
                )
        if kind == "attention" and width % heads:
            raise WeightsError(
                f"{path} attends over {width} channels, which heads={heads} does not divide; "
                "no tensor tells the number it was trained with, so pass that to load_generator"
            )
        if kind == "attention" and other not in maps:
            raise WeightsError(f"{path} attends to features of {other} channels, but its VFM's maps have {maps}")
