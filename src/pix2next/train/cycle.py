"""CycleGAN: two generators that undo each other, learnt from pictures that are no pairs.

Source: CycleGAN (arXiv:1703.10593), eq. 3: each generator fools the discriminator of the pictures it makes, and there
and back a picture is to stay what it was. Departure: the identity loss is left out; the paper has it for paintings
alone (sec. 5.2), and it feeds a generator pictures of the kind that it makes, where RGB and NIR differ in channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from jaxtyping import Float
from torch import Tensor, nn

from pix2next.config import AnyGeneratorConfig, Config, LossConfig, ResNetConfig, UNetConfig
from pix2next.errors import ConfigError
from pix2next.model.baselines import ResNetGenerator, UNet
from pix2next.train.discriminator import MultiScaleDiscriminator, ScaleOutput
from pix2next.train.losses import l1
from pix2next.train.step import (
    GAN,
    Terms,
    TrainingState,
    bare,
    close_step,
    critic,
    first_model,
    frozen,
    open_step,
    optimizers,
    ready,
    syncing,
    take_step,
    weighted,
)


class Judges(nn.Module):
    """A discriminator of NIR pictures and one of RGB pictures; neither sees the other kind."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.nir = MultiScaleDiscriminator(1, **settings)
        self.rgb = MultiScaleDiscriminator(3, **settings)

    def forward(
        self, nir: Float[Tensor, "b 1 h w"], rgb: Float[Tensor, "b 3 h w"]
    ) -> tuple[list[ScaleOutput], list[ScaleOutput]]:
        return self.nir.judge(nir), self.rgb.judge(rgb)


class Pool:
    """Up to `size` earlier fakes, for a discriminator that is not to forget what it has seen through.

    While it fills up, every fake is kept and shown; from then on, half of the time, an earlier one is shown instead
    and the fake takes its place. It draws from torch's generator. Source: CycleGAN, sec. 4, after arXiv:1612.07828.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.pictures: list[Tensor] = []

    def exchange(self, fakes: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """As many pictures as came, each a fake or an earlier one; without gradient."""
        return torch.cat([self._exchange(fake[None]) for fake in fakes.detach()]) if self.size else fakes.detach()

    def _exchange(self, fake: Float[Tensor, "1 c h w"]) -> Float[Tensor, "1 c h w"]:
        if len(self.pictures) < self.size:
            self.pictures.append(fake.clone())
            return fake
        if torch.rand(()) < 0.5:
            return fake
        place = int(torch.randint(self.size, ()))
        earlier = self.pictures[place]
        self.pictures[place] = fake.clone()
        return earlier.to(fake.device)

    def state_dict(self) -> dict[str, Any]:
        return {"pictures": list(self.pictures)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pictures = list(state["pictures"])[: self.size]


@dataclass(kw_only=True)
class CycleState(TrainingState):
    """What CycleGAN trains besides the generator to NIR: the one back to RGB, and what the judges are shown again.

    `discriminator` holds both judges, `optim_g` both generators, `ema` the generator to NIR. With several processes
    each has pools of its own, of which those of the main one are saved.
    """

    back: nn.Module
    nir_pool: Pool
    rgb_pool: Pool

    @classmethod
    def start(cls, config: Config, accelerator: Accelerator, *, resume: bool = False) -> "CycleState":
        """Networks from `train.seed`, the one to NIR as `first_model` has it, prepared for the accelerator.

        Raises:
            WeightsError: the weights to start from cannot be had or do not fit.
            ConfigError: the generator back cannot take crops of this size.
        """
        train = config.train
        set_seed(train.seed)
        model, back = first_model(config, resume=resume), generator_back(config.model.generator)
        if config.data.crop % back.multiple:
            raise ConfigError(
                f"data.crop: {config.data.crop} is no multiple of {back.multiple}, as loss.cycle needs it"
            )
        judges = Judges(**config.discriminator.model_dump(exclude={"kind"}))
        optim_g, optim_d = optimizers(model, judges, train)
        optim_g.add_param_group({"params": list(back.parameters()), "base_lr": train.learning_rate})
        ema, *prepared = ready(model, [back, judges], [optim_g, optim_d], train, accelerator)
        return cls(
            model=prepared[0],
            back=prepared[1],
            discriminator=prepared[2],
            ema=ema,
            optim_g=prepared[3],
            optim_d=prepared[4],
            fixed={},
            nir_pool=Pool(config.loss.pool),
            rgb_pool=Pool(config.loss.pool),
        )

    def parts(self, accelerator: Accelerator) -> dict[str, Any]:
        """Everything with a state of its own, by the name that it is saved under."""
        more = {"back": bare(accelerator, self.back), "nir_pool": self.nir_pool, "rgb_pool": self.rgb_pool}
        return super().parts(accelerator) | more


def generator_back(config: AnyGeneratorConfig) -> UNet | ResNetGenerator:
    """NIR to RGB, as the generator to NIR is built; CycleGAN's own where that one needs RGB for its VFM."""
    match config:
        case UNetConfig():
            return UNet(config.width, config.depth, config.dropout, in_channels=1, out_channels=3)
        case ResNetConfig():
            return ResNetGenerator(config.width, config.downs, config.blocks, in_channels=1, out_channels=3)
    return ResNetGenerator(64, 2, 9, in_channels=1, out_channels=3)


def update(
    state: CycleState,
    rgb: Float[Tensor, "b 3 h w"],
    nir: Float[Tensor, "b 1 h w"],
    config: Config,
    accelerator: Accelerator,
) -> Terms:
    """One step of both generators and one of both judges on a batch in [-1, 1]; the terms by name, detached.

    `rgb` and `nir` need not belong together. Otherwise as `step.update`: generators first, as in the paper's code too.
    """
    train, weights = config.train, config.loss
    parts = open_step(state, rgb, nir, train, accelerator)
    judged = state.step >= train.discriminator_starts and bool(weights.gan)
    fakes: list[tuple[Tensor, Tensor]] = []
    terms: list[Terms] = []

    # G and back: fool the judge of what each makes, and undo each other.
    both = zip(*(syncing(accelerator, network, len(parts)) for network in (state.model, state.back)), strict=True)
    for (rgb_part, nir_part), (synced, back_synced) in zip(parts, both, strict=True):
        with synced, back_synced:
            fake_nir, fake_rgb = state.model(rgb_part), state.back(nir_part)
            losses = {"cycle": cycle_term(state, rgb_part, nir_part, fake_nir, fake_rgb)}
            if judged:
                losses["gan"] = fooling_term(critic(accelerator, state.discriminator), fake_nir, fake_rgb, weights)
            accelerator.backward(weighted(losses, weights) / len(parts))
        fakes.append((fake_nir.detach(), fake_rgb.detach()))
        terms.append(losses)
    take_step(accelerator, state.optim_g, train.clip_norm)

    # Judges: tell pictures from fakes, of now and of earlier.
    if judged:
        contexts = syncing(accelerator, state.discriminator, len(parts))
        for (rgb_part, nir_part), (fake_nir, fake_rgb), losses, synced in zip(
            parts, fakes, terms, contexts, strict=True
        ):
            with synced:
                shown = state.nir_pool.exchange(fake_nir), state.rgb_pool.exchange(fake_rgb)
                losses["discriminator"] = judging_term(state.discriminator, nir_part, rgb_part, *shown, weights)
                accelerator.backward(losses["discriminator"] / len(parts))
        take_step(accelerator, state.optim_d, train.clip_norm)

    return close_step(state, terms, train, accelerator)


def cycle_term(
    state: CycleState,
    rgb: Float[Tensor, "b 3 h w"],
    nir: Float[Tensor, "b 1 h w"],
    fake_nir: Float[Tensor, "b 1 h w"],
    fake_rgb: Float[Tensor, "b 3 h w"],
) -> Float[Tensor, ""]:
    """How far RGB to NIR to RGB, and NIR to RGB to NIR, end from where they began: eq. 2, each side a mean."""
    return l1(state.back(fake_nir), rgb) + l1(state.model(fake_rgb), nir)


def fooling_term(
    judges: nn.Module, fake_nir: Float[Tensor, "b 1 h w"], fake_rgb: Float[Tensor, "b 3 h w"], weights: LossConfig
) -> Float[Tensor, ""]:
    """What both judges' verdicts mean to the generators; the judges themselves are taught nothing."""
    fool = GAN[weights.gan_kind][1]
    with frozen(judges):
        on_nir, on_rgb = judges(fake_nir, fake_rgb)
    return fool(_logits(on_nir)) + fool(_logits(on_rgb))


def judging_term(
    judges: nn.Module,
    nir: Float[Tensor, "b 1 h w"],
    rgb: Float[Tensor, "b 3 h w"],
    fake_nir: Float[Tensor, "b 1 h w"],
    fake_rgb: Float[Tensor, "b 3 h w"],
    weights: LossConfig,
) -> Float[Tensor, ""]:
    """Both judges' own losses, summed."""
    tell = GAN[weights.gan_kind][0]
    on_nir, on_rgb = judges(nir, rgb)
    on_fake_nir, on_fake_rgb = judges(fake_nir, fake_rgb)
    return tell(_logits(on_nir), _logits(on_fake_nir)) + tell(_logits(on_rgb), _logits(on_fake_rgb))


def _logits(outputs: Sequence[ScaleOutput]) -> list[Tensor]:
    return [output.logits for output in outputs]
