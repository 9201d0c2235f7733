"""Losses by hand, by their properties, and against references."""

from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from pix2next.errors import ConfigError
from pix2next.evaluate.perceptual import DISTS, LPIPS
from pix2next.evaluate.similarity import ssim_map
from pix2next.train import losses


def maps(value: float, scales: int = 3) -> list[Tensor]:
    return [torch.full((2, 1, 9 - scale, 7), value) for scale in range(scales)]


def pictures(channels: int = 1, size: tuple[int, int] = (40, 52)) -> tuple[Tensor, Tensor]:
    noise = torch.Generator().manual_seed(1)
    real = torch.rand(2, channels, *size, generator=noise) * 2 - 1
    fake = (real + 0.4 * torch.randn(real.shape, generator=noise)).clamp(-1, 1)
    return fake, real


@pytest.mark.parametrize(
    ("real", "fake", "d", "g"),
    [(1, 0, 0, 3), (0, 1, 3, 0), (0.5, 0.5, 0.75, 0.75), (1, 1, 1.5, 0), (-1, 2, 12, 3)],
)
def test_lsgan_by_hand(real: float, fake: float, d: float, g: float) -> None:
    assert losses.lsgan_discriminator(maps(real), maps(fake)).item() == pytest.approx(d)
    assert losses.lsgan_generator(maps(fake)).item() == pytest.approx(g)


@pytest.mark.parametrize(("real", "fake", "d", "g"), [(1, -1, 0, 3), (0, 0, 6, 0), (-1, 1, 12, -3), (5, -5, 0, 15)])
def test_hinge_by_hand(real: float, fake: float, d: float, g: float) -> None:
    assert losses.hinge_discriminator(maps(real), maps(fake)).item() == pytest.approx(d)
    assert losses.hinge_generator(maps(fake)).item() == pytest.approx(g)


@pytest.mark.parametrize(
    ("real", "fake", "d", "g"),
    [
        (0, 0, 3 * log(2), 3 * log(2)),
        (log(3), -log(3), 3 * log(4 / 3), 3 * log(4)),
        (-log(3), log(3), 3 * log(4), 3 * log(4 / 3)),
        (200, -200, 0, 600),
    ],
)
def test_vanilla_by_hand(real: float, fake: float, d: float, g: float) -> None:
    """A logit of log 3 is a probability of 3/4."""
    assert losses.vanilla_discriminator(maps(real), maps(fake)).item() == pytest.approx(d, abs=1e-6)
    assert losses.vanilla_generator(maps(fake)).item() == pytest.approx(g, abs=1e-6)


def test_vanilla_is_binary_cross_entropy() -> None:
    real, fake = [scale + torch.linspace(-2, 2, scale.numel()).view_as(scale) for scale in maps(0.3)], maps(-0.7)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits
    taken_for_real = sum(entropy(scale, torch.ones_like(scale)) for scale in real)
    taken_for_fake = sum(entropy(scale, torch.zeros_like(scale)) for scale in fake)
    torch.testing.assert_close(losses.vanilla_discriminator(real, fake), (taken_for_real + taken_for_fake) / 2)
    torch.testing.assert_close(losses.vanilla_generator(real), taken_for_real)


def test_gradient_penalty_of_a_linear_discriminator_by_hand() -> None:
    """D = sum(w * x) at two scales: the gradient is 2 w at every picture, whatever the picture."""
    weight = torch.tensor([[1.0, -2.0], [0.5, 3.0]], requires_grad=True)
    nir = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    logits = [(weight * nir).sum(dim=(2, 3), keepdim=True), weight * nir]
    penalty = losses.gradient_penalty(logits, nir)
    assert penalty.item() == pytest.approx(4 * (1 + 4 + 0.25 + 9))
    penalty.backward()
    torch.testing.assert_close(weight.grad, 8 * weight.detach())


def test_gradient_penalty_is_a_mean_over_pictures() -> None:
    """D = x^2 / 2 has the gradient x."""
    nir = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1).requires_grad_()
    assert losses.gradient_penalty([nir**2 / 2], nir).item() == pytest.approx((1 + 4 + 9) / 3)
    assert losses.gradient_penalty([0 * nir], nir).item() == 0


def test_feature_matching_sums_layers_and_averages_scales() -> None:
    zeros = [[torch.zeros(2, 4, 5, 5), torch.zeros(2, 8, 3, 3)] for _ in range(2)]
    ones = [[torch.full_like(layer, 1.0) for layer in zeros[0]], [torch.full_like(layer, 3.0) for layer in zeros[1]]]
    assert losses.feature_matching(zeros, ones).item() == pytest.approx((2 * 1 + 2 * 3) / 2)
    assert losses.feature_matching(ones, ones).item() == 0


def test_the_real_side_carries_no_gradient() -> None:
    real, fake = torch.zeros(1, 2, 3, 3, requires_grad=True), torch.ones(1, 2, 3, 3, requires_grad=True)
    (losses.feature_matching([[real]], [[fake]]) + losses.perceptual([fake], [real], [1.0])).backward()
    assert real.grad is None
    assert fake.grad is not None
    assert fake.grad.abs().sum() > 0


def test_mismatched_scales_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        losses.feature_matching([[torch.zeros(1)]], [[torch.zeros(1)], [torch.zeros(1)]])


def test_l1_by_hand() -> None:
    assert losses.l1(torch.full((1, 1, 2, 2), -1.0), torch.ones(1, 1, 2, 2)).item() == 2


def test_perceptual_by_hand() -> None:
    fake, real = [torch.full((1, 1, 2, 2), float(i)) for i in range(5)], [torch.zeros(1, 1, 2, 2)] * 5
    assert losses.perceptual(fake, real).item() == pytest.approx(0 / 32 + 1 / 16 + 2 / 8 + 3 / 4 + 4)


@pytest.mark.parametrize("border", ["reflect", "valid"])
def test_ssim_of_equal_pictures(border: losses.Border) -> None:
    _, real = pictures(3)
    assert losses.ssim_loss(real, real, border=border).item() == pytest.approx(0, abs=1e-6)
    flat = torch.full((1, 1, 20, 20), 0.25)
    assert losses.ssim_loss(flat, flat, border=border).item() == pytest.approx(0, abs=1e-6)


def test_ssim_of_black_against_white_by_hand() -> None:
    c1 = (0.01 * 2) ** 2
    black, white = torch.full((1, 1, 16, 16), -1.0), torch.ones(1, 1, 16, 16)
    assert losses.ssim_loss(black, white).item() == pytest.approx(1 - (-2 + c1) / (2 + c1), abs=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_agrees_with_torchmetrics(channels: int) -> None:
    fake, real = pictures(channels)
    for data_range in (2.0, None):
        expected = 1 - structural_similarity_index_measure(fake, real, data_range=data_range)
        torch.testing.assert_close(losses.ssim_loss(fake, real, data_range), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(40, 52), (11, 11), (11, 90)])
def test_ssim_agrees_with_skimage(size: tuple[int, int]) -> None:
    fake, real = pictures(size=size)
    expected = np.mean(
        [
            structural_similarity(
                f.numpy(), r.numpy(), data_range=2.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
            )
            for f, r in zip(fake[:, 0], real[:, 0], strict=True)
        ]
    )
    assert losses.ssim_loss(fake, real, border="valid").item() == pytest.approx(1 - expected, abs=1e-4)


def test_ssim_has_one_window_a_pixel_or_those_inside() -> None:
    fake, real = pictures()
    whole = ssim_map(fake, real, 2.0, "reflect")
    assert whole.shape == fake.shape
    torch.testing.assert_close(whole[..., 5:-5, 5:-5], ssim_map(fake, real, 2.0, "valid"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (7, 7)])
@pytest.mark.parametrize("border", ["reflect", "valid"])
def test_ssim_of_small_pictures(size: tuple[int, int], border: losses.Border) -> None:
    fake, real = pictures(size=size)
    assert losses.ssim_loss(real, real, border=border).item() == pytest.approx(0, abs=1e-5)
    assert 0 < losses.ssim_loss(fake, real, border=border).item() <= 2


def test_ssim_is_free_of_batch_size_and_symmetric() -> None:
    fake, real = pictures()
    singles = torch.stack([losses.ssim_loss(fake[i : i + 1], real[i : i + 1]) for i in range(2)]).mean()
    torch.testing.assert_close(losses.ssim_loss(fake, real), singles)
    torch.testing.assert_close(losses.ssim_loss(fake, real), losses.ssim_loss(real, fake))


def test_ssim_stays_in_float32_under_autocast() -> None:
    fake, real = pictures()
    fake.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = losses.ssim_loss(fake, real)
    torch.testing.assert_close(loss, losses.ssim_loss(fake, real), rtol=0, atol=0)
    loss.backward()
    assert fake.grad is not None
    assert fake.grad.isfinite().all()


def test_bf16_inputs_give_float32_losses() -> None:
    half = [scale.bfloat16() for scale in maps(0.5)]
    for loss in (
        losses.lsgan_discriminator(half, half),
        losses.hinge_generator(half),
        losses.vanilla_discriminator(half, half),
        losses.vanilla_generator(half),
        losses.feature_matching([half], [half]),
        losses.l1(half[0], half[0]),
        losses.ssim_loss(half[0], half[0]),
    ):
        assert loss.dtype == torch.float32


def test_ssim_gradient_descends() -> None:
    fake, real = pictures()
    fake.requires_grad_()
    before = losses.ssim_loss(fake, real)
    before.backward()
    assert losses.ssim_loss(fake.detach() - 20 * fake.grad, real) < before


def test_perceptual_features(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(shared / "torch_home"))
    network = losses.PerceptualFeatures("alexnet").train()
    grey = pictures(size=(64, 64))[0].requires_grad_()
    features = network(grey)
    assert [f.shape[1] for f in features] == [64, 192, 384, 256, 256]
    for one, other in zip(features, network(grey.expand(-1, 3, -1, -1)), strict=True):
        torch.testing.assert_close(one, other)
    losses.perceptual(features, [f * 0 for f in features]).backward()
    assert grey.grad is not None
    assert grey.grad.abs().sum() > 0
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("kind", [LPIPS, DISTS])
def test_learned_distances_are_the_scores_of_that_name(
    kind: type[LPIPS] | type[DISTS], shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(shared / "torch_home"))
    network = kind()
    eight = [np.random.default_rng(n).integers(0, 256, (256, 256), dtype=np.uint8) for n in range(2)]
    fake, real = (torch.from_numpy(picture).float()[None, None] / 127.5 - 1 for picture in eight)
    fake.requires_grad_()
    loss = losses.learned_distance(network, fake, real)
    assert loss.item() == pytest.approx(network(*eight), abs=1e-5)
    loss.backward()
    assert fake.grad is not None and fake.grad.isfinite().all() and fake.grad.abs().sum() > 0
    assert losses.learned_distance(network, real, real).item() == pytest.approx(0, abs=1e-5)
    small = fake[..., :72, :72], real[..., :72, :72]  # Processors without bf16 take minutes for a whole picture.
    with torch.autocast("cpu", torch.bfloat16):
        half = losses.learned_distance(network, *small)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(losses.learned_distance(network, *small).item(), rel=0.05)


def test_seen_distance_by_hand() -> None:
    along, across = torch.tensor([3.0, 0.0]).view(1, 2, 1, 1), torch.tensor([0.0, 0.5]).view(1, 2, 1, 1)
    assert losses.seen_distance([along], [2 * along]).item() == 0, "the size of a map says nothing"
    assert losses.seen_distance([along, along], [across, along]).item() == pytest.approx((2 + 0) / 2)
    assert losses.seen_distance([along], [-along]).item() == pytest.approx(4)
    mixed = torch.cat([along, across], dim=3)
    assert losses.seen_distance([mixed], [mixed.flip(3)]).item() == pytest.approx(2), "a mean over places"


def test_seen_distance_teaches_the_fake_alone() -> None:
    fake, real = (torch.randn(2, 4, 3, 3, requires_grad=True) for _ in range(2))
    losses.seen_distance([fake], [real]).backward()
    assert real.grad is None
    assert fake.grad is not None and fake.grad.isfinite().all() and fake.grad.abs().sum() > 0


def test_best_shift_finds_where_each_picture_fits() -> None:
    _, real = pictures(size=(20, 24))
    fake = torch.stack([torch.roll(real[0], (-1, 2), dims=(1, 2)), real[1]]).requires_grad_()
    middle, moved = losses.best_shift(fake, real, 2)
    assert middle.shape == moved.shape == (2, 1, 16, 20)
    assert torch.equal(middle, moved)
    assert torch.equal(moved[1], real[1, :, 2:-2, 2:-2])
    middle.sum().backward()
    assert fake.grad is not None and fake.grad.sum() == middle.numel()


def test_best_shift_stays_where_all_places_fit_alike() -> None:
    ramp = torch.arange(12.0).expand(1, 1, 12, 12)
    _, moved = losses.best_shift(torch.zeros(1, 1, 12, 12), ramp * 0 + 0.5, 3)
    assert moved.shape == (1, 1, 6, 6)
    _, moved = losses.best_shift(ramp, ramp.roll(2, dims=2), 3)
    assert torch.equal(moved[0, 0, 0], torch.arange(3.0, 9.0))
    with pytest.raises(ValueError, match="leaves nothing of 12 x 12"):
        losses.best_shift(ramp, ramp, 6)


def test_unknown_perceptual_network() -> None:
    with pytest.raises(ConfigError, match="known are alexnet, vgg16, vgg19"):
        losses.PerceptualFeatures("vgg11")
