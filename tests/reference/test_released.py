"""The released generator against numbers from the released code, and what its checkpoints may look like."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pix2next.errors import WeightsError
from pix2next.model.released import ReleasedGenerator, is_released, load_generator, released_generator

SMALL: dict[str, Any] = {"norm_groups": 8, "heads": 4, "vfm_groups": (1, 2, 4, 8)}


@pytest.fixture
def state(goldens: Path) -> dict[str, Tensor]:
    return load_file(goldens / "generator.safetensors")


@pytest.fixture
def io(goldens: Path) -> dict[str, Tensor]:
    return load_file(goldens / "generator_io.safetensors")


def reload(state: Mapping[str, Tensor], folder: Path) -> ReleasedGenerator:
    save_file(dict(state), folder / "changed.safetensors")
    return load_generator(folder / "changed.safetensors", **SMALL)


@torch.no_grad()
def test_output_and_features(goldens: Path, io: dict[str, Tensor]) -> None:
    model = load_generator(goldens / "generator.safetensors", **SMALL)
    assert not any(module.training for module in model.modules())
    torch.testing.assert_close(model.vfm(model.stem(io["rgb"]))[3], io["vfm"], atol=1e-4, rtol=0)
    torch.testing.assert_close(model(io["rgb"]), io["out"], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("wrapper", "prefix"), [(None, ""), (None, "module."), ("model", ""), ("state_dict", "module."), ("G", "")]
)
@torch.no_grad()
def test_pt_files_bare_and_wrapped(
    state: dict[str, Tensor], io: dict[str, Tensor], tmp_path: Path, wrapper: str | None, prefix: str
) -> None:
    named = {prefix + name: value for name, value in state.items()}
    saved = {wrapper: named, "D": {"weight": torch.ones(1)}, "epoch": 600} if wrapper else named
    torch.save(saved, tmp_path / "checkpoint_epoch_600.pt")
    model = load_generator(tmp_path / "checkpoint_epoch_600.pt", **SMALL)
    torch.testing.assert_close(model(io["rgb"]), io["out"], atol=1e-4, rtol=0)
    assert is_released(saved)


def test_other_networks_are_not_released(state: dict[str, Tensor]) -> None:
    assert not is_released({})
    assert not is_released([1, 2])
    assert not is_released({"model": {"patch_embed.conv1.weight": torch.ones(1)}})
    assert not is_released({name: value for name, value in state.items() if "internimage" in name})


def test_full_size_is_the_published_one() -> None:
    with torch.device("meta"):
        model = released_generator()
    millions = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (model, model.vfm)]
    assert [round(count, 1) for count in millions] == [316.1, 127.1]
    assert not model.training
    assert model(torch.empty(1, 3, 64, 96, device="meta")).shape == (1, 3, 64, 96)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 40), (56, 24)])
@torch.no_grad()
def test_sides_are_multiples_of_8(goldens: Path, height: int, width: int) -> None:
    model = load_generator(goldens / "generator.safetensors", **SMALL)
    assert model.multiple == 8
    out = model(torch.rand(2, 3, height, width))
    assert out.shape == (2, 3, height, width)
    assert out.isfinite().all()


@torch.no_grad()
def test_a_smaller_network_is_told_by_its_tensors(
    state: dict[str, Tensor], io: dict[str, Tensor], tmp_path: Path
) -> None:
    # Without the last bottleneck stage, one block of the VFM's third stage, its classifier's last layer (its classes
    # may be 0), and for one channel.
    gone = ("unet.bottle_neck.2.", "unet.internimage.levels.2.blocks.1.", "unet.internimage.head")
    fewer = {name: value for name, value in state.items() if not any(part in name for part in gone)}
    for name in ("unet.output_block.conv.weight", "unet.output_block.conv.bias"):
        fewer[name] = fewer[name][:1].clone()
    model = reload(fewer, tmp_path)
    assert len(model.bottleneck) == 2
    assert [len(stage.blocks) for stage in model.vfm.stages] == [1, 1, 1, 1]
    assert model.vfm.classifier is None
    assert model(io["rgb"]).shape == (2, 1, 64, 64)


@torch.no_grad()
def test_the_variant_that_reads_a_map_per_part(state: dict[str, Tensor], io: dict[str, Tensor], tmp_path: Path) -> None:
    # Its encoder attends to the VFM's first map, a quarter of the size and 16 wide.
    narrow = {
        "attention_2.K.weight": (16, 16),
        "attention_2.V.weight": (16, 16),
        "conv_input_c.weight": (16, 16, 3, 3),
        "conv_input_c.bias": (16,),
        "group_norm_c.weight": (16,),
        "group_norm_c.bias": (16,),
    }
    model = reload(state | {f"unet.encoder.6.1.{k}": torch.ones(s) for k, s in narrow.items()}, tmp_path)
    assert [model.encoder[6][1].level, model.bottleneck[1][1].level, model.decoder[0][1].level] == [0, 3, 3]
    assert model(io["rgb"]).shape == (2, 3, 64, 64)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"norm_groups": 32}, "layers of 16 channels, which norm_groups=32 does not divide"),
        ({"heads": 3}, "attends over 16 channels, which heads=3 does not divide"),
        ({"vfm_groups": (8, 16, 32, 64)}, r"does not fit groups=\(8, 16, 32, 64\): its tensors show \(1, 2, 4, 8\)"),
    ],
)
def test_arguments_that_do_not_fit_are_named(goldens: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        load_generator(goldens / "generator.safetensors", **(SMALL | wrong))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"init_conv.weight": None}, "no whole released generator: init_conv.weight is missing"),
        ({"unet.decoder.6.1.norm.bias": None}, "decoder.6.1.norm1.bias is missing"),
        ({"unet.encoder.1.0.downsample_conv.weight": torch.ones(16, 16, 3, 3)}, "no kind of block"),
        ({"unet.encoder.6.1.attention_2.K.weight": torch.ones(16, 24)}, "features of 24 channels"),
        ({"unet.internimage.patch_embed.conv1.weight": None}, "no whole InternImage: stem.conv1.weight is missing"),
        ({"unet.internimage.patch_embed.conv2.weight": None}, "no whole InternImage"),
        ({"init_conv.weight": torch.ones(128)}, "no released generator: its first or last layer is no convolution"),
        ({"init_conv.bias": torch.full((128,), float("inf"))}, "stem.bias holds NaN or infinite values"),
        ({"unet.output_res_block.block1.proj.weight": None}, "does not hold the weights looked for"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(
    state: dict[str, Tensor], tmp_path: Path, change: dict[str, Tensor | None], message: str
) -> None:
    changed = {name: value for name, value in (state | change).items() if value is not None}
    with pytest.raises(WeightsError, match=message):
        reload(changed, tmp_path)
