"""The discriminators' geometry, and what each setting does."""

import pytest
import torch

from pix2next.errors import ConfigError, WeightsError
from pix2next.train.discriminator import NORMS, MultiScaleDiscriminator, load_released_discriminator


def pair(h: int = 64, w: int = 64, channels: int = 1, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    noise = torch.rand(batch, 3 + channels, h, w, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return noise[:, :3], noise[:, 3:].clone()


def released_names(model: MultiScaleDiscriminator, prefix: str = "discriminator.") -> dict[str, torch.Tensor]:
    """The state dict as the released code would have written it: scales counted from the coarsest."""
    count, renamed = len(model.scales), {}
    for name, tensor in model.state_dict().items():
        _, scale, rest = name.split(".", 2)
        last = len(model.scales[0].stages)
        part = rest.replace("to_logits", f"{last}.0").removeprefix("stages.")
        renamed[f"{prefix}scale{count - 1 - int(scale)}_layer{part}"] = tensor
    return renamed


@pytest.mark.parametrize("norm", NORMS)
def test_logits_and_features_per_scale(norm: str) -> None:
    outputs = MultiScaleDiscriminator(width=8, norm=norm)(*pair())
    assert [tuple(scale.logits.shape) for scale in outputs] == [(2, 1, 11, 11), (2, 1, 7, 7), (2, 1, 5, 5)]
    assert [f.shape[1] for f in outputs[0].features] == [8, 16, 32, 64]
    assert [f.shape[-1] for f in outputs[0].features] == [33, 17, 9, 10]


def test_pix2pixs_discriminator() -> None:
    """One scale, 3 layers, padding 1: 30 x 30 logits of 256 x 256 pixels, each of 70 x 70 of them.

    Its code leaves out the biases of the three convolutions that a norm follows (and cancels): 2,768,705 parameters.
    """
    model = MultiScaleDiscriminator(6, scales=1, padding=1)
    assert sum(p.numel() for p in model.parameters()) == 2_768_705 + 128 + 256 + 512
    flat = MultiScaleDiscriminator(6, width=2, scales=1, padding=1, norm="none").double()
    picture = torch.randn(1, 6, 256, 256, dtype=torch.double, requires_grad=True)
    (output,) = flat.judge(picture)
    assert output.logits.shape == (1, 1, 30, 30)
    output.logits[0, 0, 15, 15].backward()
    seen = picture.grad.abs().sum(dim=(0, 1)).nonzero()
    assert (seen.max(dim=0).values - seen.min(dim=0).values + 1).tolist() == [70, 70]


def test_a_picture_may_be_judged_alone() -> None:
    model = MultiScaleDiscriminator(4, width=4, norm="none")
    rgb, nir = pair()
    for one, other in zip(model(rgb, nir), model.judge(torch.cat([rgb, nir], dim=1)), strict=True):
        assert torch.equal(one.logits, other.logits)
    alone = MultiScaleDiscriminator(1, width=4, norm="instance", padding=1, scales=1)
    assert alone.judge(nir)[0].logits.shape == (2, 1, 6, 6)


@pytest.mark.parametrize(("layers", "scales", "smallest"), [(3, 1, 24), (2, 1, 12), (2, 2, 24)])
def test_pictures_too_small_for_padding_1_are_refused(layers: int, scales: int, smallest: int) -> None:
    model = MultiScaleDiscriminator(4, 4, layers, scales, "none", 1)
    assert all(it.logits.numel() >= 1 for it in model.judge(torch.zeros(1, 4, smallest, smallest)))
    with pytest.raises(ConfigError, match=rf"{smallest} x {smallest} on, not {smallest - 1} x 90; raise data\.crop"):
        model.judge(torch.zeros(1, 4, 90, smallest - 1))


@pytest.mark.parametrize(("h", "w"), [(1, 1), (3, 50), (37, 21)])
def test_any_size_gives_logits(h: int, w: int) -> None:
    outputs = MultiScaleDiscriminator(width=4, norm="none")(*pair(h, w))
    assert all(scale.logits.shape[:2] == (2, 1) and scale.logits.isfinite().all() for scale in outputs)


def test_widths_stop_growing_at_512() -> None:
    model = MultiScaleDiscriminator(width=256, layers=2, scales=1, norm="none")
    assert [stage[0].out_channels for stage in model.scales[0].stages] == [256, 512, 512]


def test_paper_setting_has_the_released_codes_parameters() -> None:
    with torch.device("meta"):
        model = MultiScaleDiscriminator(in_channels=6)
    one_scale = sum(16 * i * o + o for i, o in [(6, 64), (64, 128), (128, 256), (256, 512), (512, 1)])
    assert sum(p.numel() for p in model.parameters()) == 3 * (one_scale + 2 * (128 + 256 + 512))


def test_each_scale_has_its_own_weights_and_sees_half_the_size() -> None:
    model = MultiScaleDiscriminator(width=4, scales=2, norm="none").eval()
    rgb, nir = pair()
    halved = [torch.nn.functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False) for x in (rgb, nir)]
    torch.testing.assert_close(model(rgb, nir)[1].logits, model.scales[1](torch.cat(halved, 1)).logits)
    assert not torch.equal(model.scales[0].to_logits.weight, model.scales[1].to_logits.weight)


def test_gradient_reaches_the_picture_and_every_parameter() -> None:
    model = MultiScaleDiscriminator(width=4, norm="spectral")
    rgb, nir = pair()
    nir.requires_grad_()
    sum(scale.logits.sum() for scale in model(rgb, nir)).backward()
    assert nir.grad is not None
    assert nir.grad.abs().sum() > 0
    assert all(p.grad is not None for p in model.parameters())


def test_spectral_norm_bounds_every_convolution() -> None:
    model = MultiScaleDiscriminator(width=4, norm="spectral")
    for _ in range(30):
        model(*pair())
    model.eval()
    for stage in model.scales[0].stages:
        assert torch.linalg.matrix_norm(stage[0].weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)


def test_without_norm_the_signal_keeps_its_size() -> None:
    torch.manual_seed(0)
    full_resolution = MultiScaleDiscriminator(width=32, norm="none")(*pair())[0]
    assert all(0.3 < feature.std() < 1 for feature in full_resolution.features)


def test_bf16_channels_last_agrees_with_fp32() -> None:
    torch.manual_seed(0)
    model = MultiScaleDiscriminator(width=8, norm="none")
    rgb, nir = pair()
    exact = model(rgb, nir)
    model = model.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        fast = model(rgb.contiguous(memory_format=torch.channels_last), nir)
    for one, other in zip(exact, fast, strict=True):
        assert other.logits.dtype == torch.bfloat16
        torch.testing.assert_close(other.logits.float(), one.logits, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(("layers", "scales", "width"), [(3, 3, 8), (2, 1, 4), (4, 2, 16)])
def test_released_state_of_any_size(layers: int, scales: int, width: int) -> None:
    model = MultiScaleDiscriminator(6, width, layers, scales)
    loaded = load_released_discriminator(released_names(model) | {"criterionVGG.vgg.slice1.0.bias": torch.zeros(64)})
    assert loaded.training
    rgb, nir = pair(channels=3)
    for one, other in zip(model.eval()(rgb, nir), loaded.eval()(rgb, nir), strict=True):
        torch.testing.assert_close(one.logits, other.logits, rtol=0, atol=0)


def test_released_state_with_instance_norm() -> None:
    model = MultiScaleDiscriminator(6, 4, norm="instance")
    loaded = load_released_discriminator(released_names(model, prefix=""))
    rgb, nir = pair(channels=3)
    torch.testing.assert_close(loaded(rgb, nir)[2].logits, model(rgb, nir)[2].logits, rtol=0, atol=0)


def test_states_that_do_not_fit_are_refused() -> None:
    with pytest.raises(WeightsError, match="scale0_layer0"):
        load_released_discriminator({"encoder.weight": torch.zeros(1)})
    state = released_names(MultiScaleDiscriminator(6, 4))
    state.pop("discriminator.scale1_layer2.0.weight")
    with pytest.raises(WeightsError, match=r"scales\.1\.stages\.2\.0\.weight"):
        load_released_discriminator(state)


def test_impossible_settings_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"discriminator\.norm is 'layer'; known are batch, instance, spectral, none"):
        MultiScaleDiscriminator(norm="layer")
    with pytest.raises(ConfigError, match=r"discriminator\.scales is 0"):
        MultiScaleDiscriminator(scales=0)
    with pytest.raises(ConfigError, match=r"discriminator\.padding is 0; it must be 1 or 2"):
        MultiScaleDiscriminator(padding=0)
