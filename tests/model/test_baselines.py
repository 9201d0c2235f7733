"""The baselines' generators: sizes counted as in their papers' code, and one file to have each of them back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pix2next.config import ModelConfig, load_config
from pix2next.evaluate.efficiency import operations_of
from pix2next.model.baselines import Released, ResNetGenerator, UNet
from pix2next.model.pix2next import Pix2Next, load_model
from pix2next.model.released import Plan, ReleasedGenerator, StagePlan, residuals
from pix2next.translate import Translator

CONFIGS = Path(__file__).parents[2] / "configs"
KINDS: dict[str, dict[str, Any]] = {
    "unet": {"kind": "unet", "width": 4, "depth": 3},
    "resnet": {"kind": "resnet", "width": 4, "downs": 2, "blocks": 1},
    "released": {"kind": "released"},
}


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def small_released(monkeypatch: pytest.MonkeyPatch) -> None:
    """The released network, but 8 channels wide and with two levels."""
    attention: StagePlan = [("residual", 8, 8), ("attention", 8, 16), ("residual", 8, 8)]
    plan = Plan(
        channels=(3, 3),
        stem=8,
        encoder=[residuals(8, 8), [("down", 8, 8)], attention],
        bottleneck=[residuals(8, 8)],
        decoder=[residuals(16, 8), [("up", 8, 8)], residuals(16, 8)],
        last=(16, 8),
        vfm={"channels": 8, "depths": (1, 1), "classes": 3},
    )
    monkeypatch.setattr(
        "pix2next.model.baselines.released_generator",
        lambda: ReleasedGenerator(plan, norm_groups=4, heads=2, vfm_groups=(1, 2)).eval(),
    )


def model_of(kind: str) -> Pix2Next:
    torch.manual_seed(0)
    return Pix2Next(ModelConfig.model_validate({"generator": KINDS[kind]})).eval()


@pytest.mark.parametrize(
    ("network", "arguments", "parameters"),
    [
        (UNet, (64, 8, 0.5), 54_413_955),  # pix2pix: unet_256, batch norm, 3 to 3 channels: 54.414 M
        (ResNetGenerator, (64, 2, 9), 11_378_179),  # CycleGAN: resnet_9blocks, instance norm: 11.378 M
        (ResNetGenerator, (64, 4, 9), 182_443_267),  # pix2pixHD: global, 3 channels in
    ],
)
def test_as_many_parameters_as_the_papers_code(network: Any, arguments: tuple, parameters: int) -> None:
    with torch.device("meta"):
        assert count(network(*arguments, out_channels=3)) == parameters


def test_pix2pixhd_with_the_label_maps_of_its_paper() -> None:
    """35 labels and the edges of instances: the 182.5 M of its code's default."""
    with torch.device("meta"):
        assert count(ResNetGenerator(64, 4, 9, in_channels=36, out_channels=3)) == 182_546_755


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("pix2pix", 54_409_857), ("pix2pixhd", 182_436_993), ("cyclegan", 11_371_905)],
)
def test_the_configs_build_what_they_say(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = Pix2Next(load_config(CONFIGS / "baselines" / f"{name}.yaml").model)
    assert model.vfm is None
    assert count(model) == parameters
    assert f"{parameters / 1e6:.3f} M" in (CONFIGS / "baselines" / f"{name}.yaml").read_text()


def test_the_released_config_builds_the_published_size() -> None:
    with torch.device("meta"):
        model = Pix2Next(load_config(CONFIGS / "released.yaml").model)
    assert model.vfm is None
    assert count(model) == pytest.approx(316.1e6, rel=2e-4)
    assert model.multiple == 8


@pytest.mark.usefixtures("small_released")
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_one_file_is_enough_to_translate_a_picture_of_any_size(kind: str, tmp_path: Path) -> None:
    model = model_of(kind)
    model.save(tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    rgb = noise(2, 3, 4 * model.multiple, 3 * model.multiple)
    assert torch.equal(again(rgb), model(rgb))
    pixels = np.random.default_rng(0).integers(0, 256, (37, 41, 3), dtype=np.uint8)
    nir = Translator(again, device="cpu")(pixels)
    assert nir.shape == (37, 41) and nir.dtype == np.uint8
    assert np.array_equal(nir, Translator(model, device="cpu")(pixels))
    assert Translator(again, device="cpu")(pixels[:1, :1]).shape == (1, 1)


@pytest.mark.usefixtures("small_released")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns(kind: str) -> None:
    """All that is trained gets a gradient, and forty steps bring it nearer to a picture."""
    model = model_of(kind).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    rgb = noise(2, 3, 4 * model.multiple, 4 * model.multiple)
    nir = rgb.mean(dim=1, keepdim=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = (model(rgb) - nir).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-5:]) < 0.75 * losses[0]
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.usefixtures("small_released")
@pytest.mark.parametrize("kind", KINDS)
def test_the_operations_of_every_kind_are_counted(kind: str) -> None:
    assert operations_of(model_of(kind), noise(1, 3, 16, 16)).total > 0


@pytest.mark.parametrize("kind", ["unet", "resnet"])
@torch.no_grad()
def test_a_result_is_free_of_the_batch_and_within_range(kind: str) -> None:
    model = model_of(kind)
    rgb = noise(3, 3, 32, 48)
    together = model(rgb)
    torch.testing.assert_close(together[1:2], model(rgb[1:2]), atol=1e-5, rtol=0)
    assert together.shape == (3, 1, 32, 48)
    assert together.abs().max() < 1


@pytest.mark.parametrize("network", [UNet(4, 3, 0.0), ResNetGenerator(4, 2, 1)])
@torch.no_grad()
def test_training_and_use_compute_the_same_without_dropout(network: nn.Module) -> None:
    rgb = noise(2, 3, 16, 16)
    assert torch.equal(network.train()(rgb), network.eval()(rgb))


@torch.no_grad()
def test_dropout_is_in_the_three_innermost_decoder_layers() -> None:
    network = UNet(4, 5, 0.5)
    rates = [layer.p for up in network.decoder for layer in up if isinstance(layer, nn.Dropout)]
    assert rates == [0.5, 0.5, 0.5, 0.0]
    rgb = noise(1, 3, 32, 32)
    assert not torch.equal(network(rgb), network(rgb))
    network.eval()
    assert torch.equal(network(rgb), network(rgb))


@torch.no_grad()
def test_the_unet_halves_as_often_as_it_is_deep() -> None:
    """An edge that the first skip alone could pass on still reaches the output when all deeper layers are silent."""
    network = UNet(4, 4, 0.0).eval()
    sizes = []
    for down in network.encoder:
        down.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[1:])))
    network(noise(1, 3, 32, 16))
    assert sizes == [(4, 16, 8), (8, 8, 4), (16, 4, 2), (32, 2, 1)]
    before = network(noise(1, 3, 32, 16))
    network.decoder[-2][1].weight.zero_()
    assert network(noise(1, 3, 32, 16)).std() > 0
    assert not torch.equal(network(noise(1, 3, 32, 16)), before)


@pytest.mark.parametrize("downs", [1, 2, 4])
@torch.no_grad()
def test_the_smallest_picture_of_a_resnet(downs: int) -> None:
    network = ResNetGenerator(2, downs, 1, in_channels=1, out_channels=3)
    side = network.multiple
    assert network(noise(1, 1, side, 2 * side)).shape == (1, 3, side, 2 * side)


def test_weights_start_as_in_the_papers() -> None:
    torch.manual_seed(0)
    for network in (UNet(16, 4, 0.5), ResNetGenerator(16, 2, 2)):
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
                assert module.bias is None or not module.bias.any()
            if isinstance(module, nn.InstanceNorm2d) and module.affine:
                assert module.weight.mean().item() == pytest.approx(1, abs=0.02)


@pytest.mark.usefixtures("small_released")
@torch.no_grad()
def test_the_released_networks_channels_are_averaged() -> None:
    network = Released()
    rgb = noise(1, 3, 16, 16)
    three = network.network.eval()(rgb)
    assert three.shape[1] == 3
    torch.testing.assert_close(network(rgb), three.mean(dim=1, keepdim=True))
    assert network.network.encoder[0][0].conv1.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not any(parameter.requires_grad for parameter in network.network.vfm.classifier.parameters())
