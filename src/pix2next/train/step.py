"""The training state, and one update of the generator and its discriminators."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import cos, pi

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from pix2next.config import Config, LossConfig, TrainConfig
from pix2next.model.pix2next import Pix2Next
from pix2next.train.discriminator import MultiScaleDiscriminator
from pix2next.train.losses import (
    PerceptualFeatures,
    feature_matching,
    hinge_discriminator,
    hinge_generator,
    l1,
    lsgan_discriminator,
    lsgan_generator,
    perceptual,
    ssim_loss,
)

GAN = {"lsgan": (lsgan_discriminator, lsgan_generator), "hinge": (hinge_discriminator, hinge_generator)}


@dataclass
class TrainingState:
    """All that changes during training, and the fixed network that perceptual distance is taken in."""

    model: nn.Module
    discriminator: nn.Module
    ema: Pix2Next
    optim_g: Optimizer
    optim_d: Optimizer
    perceptual_network: PerceptualFeatures | None
    step: int = 0

    @classmethod
    def start(cls, config: Config, accelerator: Accelerator) -> "TrainingState":
        """Fresh networks from `train.seed`, prepared for the accelerator's devices and precision."""
        torch.manual_seed(config.train.seed)
        model = Pix2Next(config.model)
        discriminator = MultiScaleDiscriminator(4, **config.discriminator.model_dump())
        fixed = PerceptualFeatures(config.loss.perceptual_network) if config.loss.perceptual else None
        ema = copy.deepcopy(model).eval().requires_grad_(False)
        if config.train.channels_last:
            for network in (model, discriminator, ema):
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optim_g, optim_d = _optimizers(model, discriminator, config.train)
        prepared = accelerator.prepare(model, discriminator, optim_g, optim_d)
        fixed = fixed.to(accelerator.device) if fixed else None
        return cls(prepared[0], prepared[1], ema.to(accelerator.device), prepared[2], prepared[3], fixed)


def _optimizers(model: Pix2Next, discriminator: nn.Module, train: TrainConfig) -> tuple[Optimizer, Optimizer]:
    rate = train.learning_rate
    groups = [{"params": list(model.generator.parameters()), "base_lr": rate}]
    tuned = [parameter for parameter in (model.vfm.parameters() if model.vfm else ()) if parameter.requires_grad]
    if tuned:
        groups.append({"params": tuned, "base_lr": train.vfm_learning_rate or rate})
    discriminators = [{"params": list(discriminator.parameters()), "base_lr": train.discriminator_learning_rate}]
    return Adam(groups, lr=rate, betas=train.betas), Adam(discriminators, lr=rate, betas=train.betas)


def learning_rate(step: int, train: TrainConfig) -> float:
    """The share of the full rate at `step`: linear over the warm-up, then half a cosine down to `final_rate`.

    The released code means the same, but steps its schedule once an epoch, so that its rate only ever warms up.
    """
    if step < train.warmup_steps:
        return (step + 1) / train.warmup_steps
    progress = (step - train.warmup_steps) / max(train.steps - train.warmup_steps, 1)
    return train.final_rate + (1 - train.final_rate) * (1 + cos(pi * min(progress, 1.0))) / 2


def update(
    state: TrainingState,
    rgb: Float[Tensor, "b 3 h w"],
    nir: Float[Tensor, "b 1 h w"],
    config: Config,
    accelerator: Accelerator,
) -> dict[str, Tensor]:
    """One step of G and one of D on a batch in [-1, 1]; the loss terms by name (unweighted), detached.

    Both are judged by D as it was before the step, as in pix2pixHD: its view of the truth is computed once, and serves
    D's loss and, detached, feature matching.
    """
    weights = config.loss
    gan_d, gan_g = GAN[weights.gan_kind]
    started = state.step >= config.train.discriminator_starts
    adversarial = started and bool(weights.gan or weights.feature_matching)
    set_rate(state, learning_rate(state.step, config.train))

    # G: look like the truth, and to D like the truth does.
    fake = state.model(rgb)
    parts = direct_terms(state.perceptual_network, fake, nir, weights)
    if adversarial:
        on_real = state.discriminator(rgb, nir)
        with frozen(state.discriminator):
            on_fake = state.discriminator(rgb, fake)
        parts["gan"] = gan_g([it.logits for it in on_fake])
        parts["feature_matching"] = feature_matching([it.features for it in on_real], [it.features for it in on_fake])
    take_step(accelerator, state.optim_g, weighted(parts, weights))

    # D: tell real pairs from fake ones.
    if adversarial:
        on_fake = state.discriminator(rgb, fake.detach())
        parts["discriminator"] = gan_d([it.logits for it in on_real], [it.logits for it in on_fake])
        take_step(accelerator, state.optim_d, parts["discriminator"])

    update_average(state.ema, accelerator.unwrap_model(state.model), average_share(state.step, config.train.ema))
    state.step += 1
    return {name: term.detach() for name, term in parts.items()}


def direct_terms(
    perceptual_network: PerceptualFeatures | None,
    fake: Float[Tensor, "b 1 h w"],
    nir: Float[Tensor, "b 1 h w"],
    weights: LossConfig,
) -> dict[str, Tensor]:
    """The terms that need no discriminator, those with weight zero left out."""
    parts = {}
    if weights.ssim:
        parts["ssim"] = ssim_loss(fake, nir)
    if weights.l1:
        parts["l1"] = l1(fake, nir)
    if perceptual_network:
        with torch.no_grad():
            truth = perceptual_network(nir)
        parts["perceptual"] = perceptual(perceptual_network(fake), truth)
    return parts


def weighted(parts: Mapping[str, Tensor], weights: LossConfig) -> Tensor:
    """The generator's loss: every term times the weight of its name."""
    return torch.stack([getattr(weights, name) * term for name, term in parts.items()]).sum()


def take_step(accelerator: Accelerator, optimizer: Optimizer, loss: Tensor) -> None:
    """Clear, backward, step."""
    optimizer.zero_grad(set_to_none=True)
    accelerator.backward(loss)
    optimizer.step()


def set_rate(state: TrainingState, share: float) -> None:
    """Every group's rate becomes `share` of its own full rate."""
    for optimizer in (state.optim_g, state.optim_d):
        for group in optimizer.param_groups:
            group["lr"] = share * group["base_lr"]


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Inside, gradient flows through the module to its input, and none is computed for its parameters."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def average_share(step: int, decay: float) -> float:
    """How much of the average stays at `step`: little at first, so that it soon forgets the untrained weights."""
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, stays: float) -> None:
    """Move the average's parameters towards the model's by `1 - stays`; buffers are copied."""
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - stays)
    for mine, theirs in zip(average.buffers(), model.buffers(), strict=True):
        mine.copy_(theirs)
