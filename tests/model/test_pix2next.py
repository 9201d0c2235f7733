"""The whole network: one file is enough to have it back, and every kind of source is found or refused in words."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import pix2next
from pix2next.config import FusionConfig, GeneratorConfig, ModelConfig, VfmConfig
from pix2next.errors import WeightsError
from pix2next.model.pix2next import DEFAULT_MODEL, Pix2Next, load_model, read_card, shipped_models


def config(vfm: str = "timm:resnet18", weights: str = "none") -> ModelConfig:
    fusions = (FusionConfig(at="bottleneck", reads=(8, 16), heads=2, head_width=8),) if vfm != "none" else ()
    generator = GeneratorConfig(
        widths=(8, 8), encoder_blocks=(1, 1), decoder_blocks=(1, 1), bottleneck_blocks=1, fusions=fusions
    )
    return ModelConfig(vfm=VfmConfig(name=vfm, weights=weights), generator=generator)


@pytest.fixture
def model() -> Pix2Next:
    torch.manual_seed(0)
    return Pix2Next(config()).eval()


RGB = torch.linspace(-1, 1, 3 * 32 * 48).reshape(1, 3, 32, 48)


@torch.no_grad()
def test_multiple_covers_the_vfm_and_the_generator(model: Pix2Next) -> None:
    assert model.multiple == 16
    assert Pix2Next(config("none")).multiple == 2
    assert model(RGB).shape == (1, 1, 32, 48)


@torch.no_grad()
def test_a_saved_file_alone_is_enough(model: Pix2Next, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model.save(path, card={"data": "two pictures"})
    again = load_model(path)
    assert not again.training
    assert torch.equal(again(RGB), model(RGB))
    assert read_card(path)["data"] == "two pictures"
    assert json.loads(read_card(path)["config"])["vfm"]["name"] == "timm:resnet18"


def test_a_loaded_network_keeps_its_batch_statistics_when_trained_on(tmp_path: Path) -> None:
    weights = tmp_path / "resnet18.safetensors"
    save_file(timm.create_model("resnet18").state_dict(), weights)
    Pix2Next(config(weights=str(weights))).save(tmp_path / "model.safetensors")
    again = Pix2Next.load(tmp_path / "model.safetensors").train()
    norms = [module for module in again.vfm.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms and not any(norm.training for norm in norms)


@torch.no_grad()
def test_half_precision_files_load_as_float32(model: Pix2Next, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model.save(path, dtype=torch.float16)
    kinds = {name: tensor.dtype for name, tensor in load_file(path).items()}
    assert kinds["generator.head.weight"] == torch.float16
    assert kinds["vfm.backbone.bn1.running_var"] == torch.float32
    again = load_model(path)
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}
    torch.testing.assert_close(again(RGB), model(RGB), atol=0.05, rtol=0)


@torch.no_grad()
def test_joined_networks_give_their_mean_and_the_partner_sees_the_mirror_image(model: Pix2Next, tmp_path: Path) -> None:
    torch.manual_seed(1)
    partner = Pix2Next(config("none")).eval()
    both = Pix2Next.joined(model, partner)
    expected = (model(RGB) + partner(RGB.flip(-1)).flip(-1)) / 2
    assert (expected - model(RGB)).abs().max() > 1e-3 and not both.training
    torch.testing.assert_close(both(RGB), expected)
    assert both.multiple == 16 == Pix2Next.joined(partner, model).multiple
    both.save(tmp_path / "both.safetensors")
    assert torch.equal(load_model(tmp_path / "both.safetensors")(RGB), both(RGB))
    with pytest.raises(WeightsError, match="has one partner"):
        Pix2Next.joined(both, partner)


@torch.no_grad()
def test_hub_files_round_trip(model: Pix2Next, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "repository")
    again = Pix2Next.from_pretrained(tmp_path / "repository").eval()
    assert torch.equal(again(RGB), model(RGB))


@torch.no_grad()
def test_a_hub_repository_needs_no_other_weights(tmp_path: Path) -> None:
    """The VFM's own weights are in the file; neither a download nor a path on the author's machine is asked for."""
    weights = tmp_path / "resnet18.safetensors"
    save_file(timm.create_model("resnet18").state_dict(), weights)
    trained = Pix2Next(config(weights=str(weights)))
    trained.save_pretrained(tmp_path / "repository")
    weights.unlink()
    assert torch.equal(Pix2Next.from_pretrained(tmp_path / "repository").eval()(RGB), trained.eval()(RGB))


@torch.no_grad()
def test_a_runs_folder_gives_its_best(model: Pix2Next, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no training run"):
        load_model(tmp_path)
    model.save(tmp_path / "best.safetensors")
    assert torch.equal(load_model(tmp_path)(RGB), model(RGB))


def test_what_is_no_model_is_refused_in_words(model: Pix2Next, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match="no model nothing: not a file, nor a shipped one"):
        load_model("nothing")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="neither a pix2next-1 checkpoint nor one of the released"):
        load_model(tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(WeightsError, match=r"broken\.safetensors"):
        load_model(tmp_path / "broken.safetensors")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"cannot get owner/name .*model\.safetensors"):
        load_model("owner/name")


def test_a_truncated_file_is_refused(model: Pix2Next, tmp_path: Path) -> None:
    model.save(tmp_path / "whole.safetensors")
    (tmp_path / "half.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:-1000])
    with pytest.raises(WeightsError, match=r"half\.safetensors"):
        load_model(tmp_path / "half.safetensors")


def test_tensors_that_do_not_fit_their_config_are_refused(model: Pix2Next, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model.save(path)
    tensors = load_file(path)
    tensors.pop("generator.head.weight")
    save_file(tensors, path, metadata=read_card(path))
    with pytest.raises(WeightsError, match=r"do not fit its own config.*generator\.head\.weight"):
        Pix2Next.load(path)


def test_shipped_models_load_and_state_their_data() -> None:
    assert DEFAULT_MODEL in shipped_models()
    weights = Path(pix2next.__file__).parent / "weights"
    for name in shipped_models():
        assert read_card(weights / f"{name}.safetensors")["data"]
        model = load_model(name)
        assert model(torch.zeros(1, 3, model.multiple, model.multiple)).isfinite().all()
