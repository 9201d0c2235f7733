"""Parity with the released discriminator and its losses (Yonsei-STL/pix2next, c95c865)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pix2next.errors import WeightsError
from pix2next.train.discriminator import MultiScaleDiscriminator, ScaleOutput, load_released_discriminator
from pix2next.train.losses import feature_matching, least_squares, lsgan_generator, ssim_loss


@pytest.fixture
def golden(goldens: Path) -> dict[str, Tensor]:
    return load_file(goldens / "discriminator.safetensors")


def released_losses(d: MultiScaleDiscriminator, rgb: Tensor, nir: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """The released code's order of calls and its weights: fake, real, then the generator's pass."""
    on_fake = d(rgb, fake.detach())
    on_real = d(rgb, nir)
    for_g = d(rgb, fake)
    return {
        "loss_D_fake": least_squares(logits(on_fake), 0.0),
        "loss_D_real": least_squares(logits(on_real), 1.0),
        "loss_G_GAN": lsgan_generator(logits(for_g)),
        "loss_G_GAN_Feat": 5 * feature_matching([s.features for s in on_real], [s.features for s in for_g]),
        "loss_G_SSIM": 10 * ssim_loss(fake, nir, data_range=None),
    }


def logits(outputs: list[ScaleOutput]) -> list[Tensor]:
    return [scale.logits for scale in outputs]


def test_losses_and_gradient(golden: dict[str, Tensor]) -> None:
    state = {k.removeprefix("state."): t for k, t in golden.items() if k.startswith("state.")}
    fake = golden["fake"].requires_grad_()
    losses = released_losses(load_released_discriminator(state), golden["rgb"], golden["nir"], fake)
    for name, loss in losses.items():
        torch.testing.assert_close(loss, golden[f"loss.{name}"], rtol=1e-4, atol=0)
    (losses["loss_G_GAN"] + losses["loss_G_GAN_Feat"] + losses["loss_G_SSIM"]).backward()
    expected = golden["grad_of_generator_losses_wrt_fake"]
    assert fake.grad is not None
    torch.testing.assert_close(fake.grad, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_every_tensor_is_used(golden: dict[str, Tensor]) -> None:
    state = {k: t for k, t in golden.items() if k.startswith("state.")}
    model = load_released_discriminator(state)
    assert len(model.state_dict()) == len(state)
    assert sum(t.numel() for t in model.state_dict().values()) == sum(t.numel() for t in state.values())


def test_the_state_that_was_read_stays_as_it_is(golden: dict[str, Tensor]) -> None:
    state = {k: t for k, t in golden.items() if k.startswith("state.")}
    before = {k: t.clone() for k, t in state.items()}
    model = load_released_discriminator(state)
    model(golden["rgb"], golden["nir"])
    assert all(torch.equal(t, before[k]) for k, t in state.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale1_layer2.0.weight": None}, "scales.1.stages.2.0.weight is missing"),
        ({"scale1_layer2.0.weight": torch.ones(3)}, "scales.1.stages.2.0.weight is 3 instead of 32 x 16 x 4 x 4"),
        ({"scale2_layer0.0.bias": torch.full((8,), float("nan"))}, "scales.0.stages.0.0.bias holds NaN"),
        ({"scale0_layer0.0.weight": torch.ones(())}, "missing or no convolution"),
    ],
)
def test_states_that_do_not_fit_are_refused_in_one_sentence(
    golden: dict[str, Tensor], change: dict[str, Tensor | None], message: str
) -> None:
    state = {k.removeprefix("state.discriminator."): t for k, t in golden.items() if k.startswith("state.")}
    changed = {k: t for k, t in (state | change).items() if t is not None}
    with pytest.raises(WeightsError, match=message) as error:
        load_released_discriminator(changed)
    assert "\n" not in str(error.value)


def test_a_single_layer_is_no_discriminator(golden: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match="has 1 layers a scale; it needs at least 3"):
        load_released_discriminator({k: t for k, t in golden.items() if "layer0" in k})
