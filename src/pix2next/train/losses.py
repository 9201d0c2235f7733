"""Losses, as pure functions of what the networks gave: no weights, no devices, no state.

Everything returns a float32 scalar, also under bf16 autocast. The GAN losses take one logit map a scale and sum over
scales, as pix2pixHD (arXiv:1711.11585) and the released Pix2Next code do; each states its value at the extremes.
The paper's generator loss is GAN + SSIM + feature matching (arXiv:2409.16706); the released code weighs them
1, 10 and 5, and adds 5 x a VGG19 distance between the RGB *input* and the output, which no paper names and whose
gradient it cuts off, so that the term trains nothing: `perceptual` here is meant for the true NIR.
"""

from collections.abc import Sequence
from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pix2next.evaluate.perceptual import DISTS, LPIPS
from pix2next.evaluate.pretrained import TAPS, imagenet_normalise, pretrained_convolutions
from pix2next.evaluate.similarity import Border, ssim_map

Scalar = Float[Tensor, ""]

# pix2pixHD, sec. 3.3: deep maps count most.
PIX2PIXHD_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)


def least_squares(logits: Sequence[Tensor], target: float) -> Scalar:
    """Mean squared distance of the logits from `target`, summed over scales."""
    return _total(F.mse_loss(scale.float(), torch.full_like(scale, target, dtype=torch.float32)) for scale in logits)


def lsgan_discriminator(real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor]) -> Scalar:
    """Half the sum of (real - 1)^2 and fake^2; 0 when D is right everywhere, one a scale when it is wrong everywhere.

    Source: LSGAN (arXiv:1611.04076), eq. 9 (a = 0, b = c = 1). The released code halves it too, in its trainer.
    """
    return 0.5 * (least_squares(real_logits, 1.0) + least_squares(fake_logits, 0.0))


def lsgan_generator(fake_logits: Sequence[Tensor]) -> Scalar:
    """(fake - 1)^2; 0 when D takes every patch for real, one a scale when it takes none.

    Not halved, as in the released code (LSGAN's eq. 9 halves this side as well).
    """
    return least_squares(fake_logits, 1.0)


def hinge_discriminator(real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor]) -> Scalar:
    """max(0, 1 - real) + max(0, 1 + fake); 0 when real >= 1 and fake <= -1 everywhere, 2 a scale at logits of 0.

    Source: Geometric GAN (arXiv:1705.02894), as in SAGAN (arXiv:1805.08318), eq. 3.
    """
    real = _total(F.relu(1 - scale.float()).mean() for scale in real_logits)
    return real + _total(F.relu(1 + scale.float()).mean() for scale in fake_logits)


def hinge_generator(fake_logits: Sequence[Tensor]) -> Scalar:
    """Minus the mean logit, summed over scales; unbounded below."""
    return _total(-scale.float().mean() for scale in fake_logits)


def vanilla_discriminator(real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor]) -> Scalar:
    """Half of -log s(real) - log(1 - s(fake)), s the sigmoid; log 2 a scale at logits of 0, towards 0 when D is right.

    Source: GAN (arXiv:1406.2661), eq. 1; halved as in pix2pix (arXiv:1611.07004), sec. 3.3.
    """
    real = _total(F.softplus(-scale.float()).mean() for scale in real_logits)
    return 0.5 * (real + _total(F.softplus(scale.float()).mean() for scale in fake_logits))


def vanilla_generator(fake_logits: Sequence[Tensor]) -> Scalar:
    """-log s(fake), s the sigmoid; log 2 a scale at logits of 0, towards 0 when D takes every patch for real.

    Source: GAN, sec. 3: the form that does not saturate, which pix2pix trains with too.
    """
    return _total(F.softplus(-scale.float()).mean() for scale in fake_logits)


def gradient_penalty(logits: Sequence[Tensor], nir: Float[Tensor, "b c h w"]) -> Scalar:
    """Squared length of the gradient of D's logits at the true pictures, averaged over them; 0 for a D that is flat.

    The logits of a picture are summed, over patches and scales. `nir` must have required gradient when D saw it; the
    penalty itself carries gradient to D. R1 is this, times its weight over 2.
    Source: arXiv:1801.04406, eq. 9; it has one logit a picture.
    """
    total = _total(scale.float().sum() for scale in logits)
    (gradient,) = torch.autograd.grad(total, nir, create_graph=True)
    return gradient.float().square().sum(dim=(1, 2, 3)).mean()


def feature_matching(real_features: Sequence[Sequence[Tensor]], fake_features: Sequence[Sequence[Tensor]]) -> Scalar:
    """Mean absolute distance of D's activations, summed over its layers and averaged over its scales.

    The real side is detached: gradient reaches only what made the fake side. 0 when the activations agree.
    Source: pix2pixHD, eq. 3; the released code computes this value times 5 (its logits are left out, as here).
    """
    scales = [
        _total(F.l1_loss(fake.float(), real.detach().float()) for real, fake in zip(reals, fakes, strict=True))
        for reals, fakes in zip(real_features, fake_features, strict=True)
    ]
    return _total(scales) / len(scales)


def l1(fake: Float[Tensor, "*shape"], real: Float[Tensor, "*shape"]) -> Scalar:
    """Mean absolute distance; 0 when equal, at most 2 for pictures in [-1, 1]."""
    return F.l1_loss(fake.float(), real.float())


def ssim_loss(
    fake: Float[Tensor, "b c h w"],
    real: Float[Tensor, "b c h w"],
    data_range: float | None = 2.0,
    border: Border = "reflect",
) -> Scalar:
    """1 - SSIM: 0 for equal pictures, about 1 for unrelated ones, at most 2.

    `data_range` is the distance between the largest and the smallest value a pixel can have: 2 for [-1, 1]. None
    takes the larger of the two batches' own ranges, gradient and all, as the released code does (torchmetrics called
    without a range); the loss of a picture then depends on what else is in its batch.
    `border` is `ssim_map`'s: "reflect" gives every pixel of a training crop the same say, as torchmetrics does;
    "valid" is what Wang et al., skimage and this package's SSIM score average over.
    """
    if data_range is None:
        spread = torch.maximum(fake.max() - fake.min(), real.max() - real.min()).float()
        return 1 - ssim_map(fake, real, spread, border).mean()
    return 1 - ssim_map(fake, real, data_range, border).mean()


def perceptual(
    fake_features: Sequence[Tensor], real_features: Sequence[Tensor], weights: Sequence[float] = PIX2PIXHD_WEIGHTS
) -> Scalar:
    """Weighted sum of the mean absolute distances of a fixed network's activations; the real side is detached.

    Source: pix2pixHD, sec. 3.3, there between the output and the truth. The released Pix2Next code compares the
    output with the RGB input instead, times 5, and detaches the output's side: no gradient comes of it.
    """
    pairs = zip(weights, fake_features, real_features, strict=True)
    return _total(weight * F.l1_loss(fake.float(), real.detach().float()) for weight, fake, real in pairs)


def learned_distance(network: LPIPS | DISTS, fake: Float[Tensor, "b 1 h w"], nir: Float[Tensor, "b 1 h w"]) -> Scalar:
    """LPIPS or DISTS of pictures in [-1, 1], at their own size, averaged over the batch; the real side is detached.

    0 for equal pictures, about 1 for unrelated ones. The scores of the same name are taken at 256 x 256.
    """
    with torch.no_grad():
        target = network.features(nir / 2 + 0.5)
    return network.distance(network.features(fake / 2 + 0.5), target).mean()


def seen_distance(fake_maps: Sequence[Tensor], nir_maps: Sequence[Tensor]) -> Scalar:
    """Squared distance of a network's maps, each place's channels brought to length one; averaged over the maps.

    0 when equal, 2 for unrelated maps, at most 4; the real side is detached. LPIPS (arXiv:1801.03924) without learned
    weights, through what a projected discriminator looks through, whose maps are there already.
    """
    pairs = zip(fake_maps, nir_maps, strict=True)
    terms = [F.normalize(fake.float()) - F.normalize(nir.detach().float()) for fake, nir in pairs]
    return _total(term.square().sum(dim=1).mean() for term in terms) / len(terms)


def best_shift(
    fake: Float[Tensor, "b c h w"], nir: Float[Tensor, "b c h w"], radius: int
) -> tuple[Float[Tensor, "b c h2 w2"], Float[Tensor, "b c h2 w2"]]:
    """Both without a border of `radius` pixels, each NIR moved by up to `radius` to where it fits its fake best in L1.

    For pairs that are off by a pixel or two: blurring is otherwise the best answer to a truth whose place is not known.
    Not moving wins where all fit alike. Gradient flows through the fake's window alone.

    Raises: ValueError when the border leaves nothing.
    """
    height, width = fake.shape[-2] - 2 * radius, fake.shape[-1] - 2 * radius
    if height < 1 or width < 1:
        raise ValueError(f"a border of {radius} leaves nothing of {fake.shape[-2]} x {fake.shape[-1]}")
    middle = fake[..., radius : radius + height, radius : radius + width]
    steps = sorted(range(-radius, radius + 1), key=abs)
    starts = [(radius + down, radius + right) for down, right in product(steps, steps)]
    windows = torch.stack([nir[..., top : top + height, left : left + width] for top, left in starts])
    best = (windows - middle.detach()).abs().mean(dim=(2, 3, 4)).argmin(dim=0)
    return middle, windows[best, torch.arange(len(fake), device=fake.device)]


class PerceptualFeatures(nn.Module):
    """Five activations of an ImageNet network, for `perceptual`; frozen, and always in eval mode.

    Takes pictures in [-1, 1] with one channel (repeated to three) or three, brought to ImageNet's mean and deviation
    (the released code leaves that out). Gradient flows to the picture, never to the network.

    Raises: WeightsError when torchvision's weights are neither on disk nor to be had; ConfigError for another name.
    """

    def __init__(self, name: str = "vgg19") -> None:
        super().__init__()
        layers = list(pretrained_convolutions(name))
        self.taps = TAPS[name]
        self.layers = nn.ModuleList(layers[: self.taps[-1] + 1])

    def train(self, mode: bool = True) -> "PerceptualFeatures":
        """Stay in eval mode whatever the module around it does."""
        return super().train(False)

    def forward(self, picture: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """The activations, shallow to deep."""
        x = imagenet_normalise(picture)
        features = []
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in self.taps:
                features.append(x)
        return features


def _total(terms) -> Scalar:  # type: ignore[no-untyped-def]
    return torch.stack(list(terms)).sum()
