"""The training state, and one update of the generator and its discriminators."""

import copy
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from math import cos, pi
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DataLoaderConfiguration, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import parse_flag_from_env, set_seed
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from pix2next.config import Config, DiscriminatorConfig, LossConfig, ProjectedConfig, TrainConfig
from pix2next.errors import ConfigError, WeightsError
from pix2next.evaluate.perceptual import DISTS, LPIPS
from pix2next.model.pix2next import Pix2Next, load_model
from pix2next.model.state_dicts import fit
from pix2next.train.discriminator import MultiScaleDiscriminator, Seen
from pix2next.train.losses import (
    PerceptualFeatures,
    best_shift,
    feature_matching,
    gradient_penalty,
    hinge_discriminator,
    hinge_generator,
    l1,
    learned_distance,
    lsgan_discriminator,
    lsgan_generator,
    perceptual,
    seen_distance,
    ssim_loss,
    vanilla_discriminator,
    vanilla_generator,
)
from pix2next.train.projected import Eye, ProjectedDiscriminator

log = logging.getLogger(__name__)

GAN = {
    "lsgan": (lsgan_discriminator, lsgan_generator),
    "hinge": (hinge_discriminator, hinge_generator),
    "vanilla": (vanilla_discriminator, vanilla_generator),
}
LONGEST_VALIDATION = timedelta(hours=6)
"""The other processes wait for the main one while it validates."""
COMPILER = "inductor"
COMPILERS = (os.environ.get("CXX") or "g++", "clang++")
"""What torch looks for."""
Terms = dict[str, Tensor]


def start_accelerator(train: TrainConfig, **options: Any) -> Accelerator:
    """The engine that knows devices, processes and precision; each process takes its share of every batch.

    Accelerate keeps the first precision of a process for its life, so what an earlier run left is cleared away.

    Raises:
        ConfigError: the batch does not divide among the processes, or the precision cannot be had here.
    """
    AcceleratorState._reset_state()
    if train.mixed_precision == "fp16" and not torch.accelerator.is_available():
        raise ConfigError("train.mixed_precision: fp16 needs a GPU; on a CPU set bf16 or no")
    if train.compile and not torch.accelerator.is_available() and not any(map(shutil.which, COMPILERS)):
        raise ConfigError(f"train.compile needs a C++ compiler on a CPU, and none is found ({', '.join(COMPILERS)})")
    if train.mixed_precision == "bf16" and slow_in_bf16():
        log.warning("this processor has no bf16 instructions, and bf16 is many times slower on it than fp32; set no")
    # Several processes without an accelerator only find each other when they are told that it is the CPU they are on.
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    group = InitProcessGroupKwargs(timeout=LONGEST_VALIDATION).to_kwargs()
    count = PartialState(cpu=cpu, **group).num_processes
    part = train.batch_size // train.accumulate
    if part % count:
        raise ConfigError(
            f"train.batch_size: {part} pairs at a time ({train.batch_size} in {train.accumulate} parts) do not divide "
            f"among {count} processes"
        )
    try:
        return Accelerator(
            cpu=cpu,
            mixed_precision=train.mixed_precision,
            dynamo_backend=COMPILER if train.compile else "no",
            dataloader_config=DataLoaderConfiguration(split_batches=True),
            # Two forward passes of D to one backward pass: buffers must stay as they are in between.
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
            **options,
        )
    except (ValueError, ImportError) as error:
        raise ConfigError(f"train.mixed_precision {train.mixed_precision}, trackers or device: {error}") from error


def slow_in_bf16() -> bool:
    """Whether networks run here on a CPU that can only imitate bf16."""
    return not torch.accelerator.is_available() and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


@dataclass
class TrainingState:
    """All that changes during training, and the fixed networks that pictures are compared through."""

    model: nn.Module
    discriminator: nn.Module
    ema: Pix2Next
    optim_g: Optimizer
    optim_d: Optimizer
    fixed: Mapping[str, nn.Module]
    """By the name of the loss term that each serves."""
    eye: nn.Module = field(default_factory=nn.Identity)
    """What D sees pictures through: nothing, for PatchGANs."""
    step: int = 0

    @classmethod
    def start(cls, config: Config, accelerator: Accelerator, *, resume: bool = False) -> "TrainingState":
        """Networks as `first_model` has them, prepared for the accelerator's devices and precision.

        Raises:
            WeightsError: the weights to start from cannot be had or do not fit.
        """
        set_seed(config.train.seed)
        model = first_model(config, resume=resume)
        eye, discriminator = judges(config.discriminator)
        fixed = fixed_networks(config.loss)
        steppers = optimizers(model, discriminator, config.train)
        ema, *prepared = ready(model, [discriminator], steppers, config.train, accelerator)
        fixed = {name: network.to(accelerator.device) for name, network in fixed.items()}
        return cls(prepared[0], prepared[1], ema, prepared[2], prepared[3], fixed, eye.to(accelerator.device))

    def parts(self, accelerator: Accelerator) -> dict[str, Any]:
        """Everything with a state of its own, by the name that it is saved under."""
        scaler = {"scaler": accelerator.scaler} if accelerator.scaler else {}
        return {
            "model": bare(accelerator, self.model),
            "discriminator": bare(accelerator, self.discriminator),
            "ema": self.ema,
            "optim_g": self.optim_g,
            "optim_d": self.optim_d,
            **scaler,
        }


def fixed_networks(loss: LossConfig) -> dict[str, nn.Module]:
    """The networks that terms with a weight compare pictures through, by the term's name.

    Raises: WeightsError when their weights cannot be had.
    """
    builders: dict[str, Callable[[], nn.Module]] = {
        "perceptual": lambda: PerceptualFeatures(loss.perceptual_network),
        "lpips": LPIPS,
        "dists": DISTS,
    }
    return {name: build() for name, build in builders.items() if getattr(loss, name)}


def judges(config: DiscriminatorConfig | ProjectedConfig) -> tuple[nn.Module, nn.Module]:
    """What D sees pictures through, and D.

    Raises: ConfigError or WeightsError where the network that D looks through cannot be had.
    """
    if isinstance(config, DiscriminatorConfig):
        return nn.Identity(), MultiScaleDiscriminator(4, **config.model_dump(exclude={"kind"}))
    eye = Eye(config)
    return eye, ProjectedDiscriminator(eye.channels, config.width)


def bare(accelerator: Accelerator, network: nn.Module) -> nn.Module:
    """The network without what distribution and compilation wrapped around it."""
    return accelerator.unwrap_model(network, keep_torch_compile=False)


def critic(accelerator: Accelerator, discriminator: nn.Module) -> nn.Module:
    """D as G's part of a step calls it, where D itself learns nothing and processes share nothing of it.

    Among several processes it is not the compiled one: accelerate unwraps a compiled network in place, and D's own
    gradients would not be shared any more.
    """
    return discriminator if accelerator.num_processes == 1 else bare(accelerator, discriminator)


def first_model(config: Config, *, resume: bool = False) -> Pix2Next:
    """The network that training starts with: `train.init_from`, or drawn from `train.seed` with its VFM's weights.

    With `resume` every weight is still to come, so none is looked for. Of two joined networks, the first is trained on.

    Raises:
        WeightsError: `train.init_from` is no network of ours, or one of another architecture.
        ConfigError: the config asks for a partner, which is trained on its own.
    """
    if config.model.partner is not None:
        raise ConfigError("model.partner: networks are trained one at a time and joined afterwards; set it to null")
    source = None if resume else config.train.init_from
    model = Pix2Next(config.model, fetch=not resume and source is None)
    if source is not None:
        known = load_model(source)
        if not isinstance(known, Pix2Next):
            raise WeightsError(
                f"train.init_from: {source} is a checkpoint of the released code, which is not trained here"
            )
        known.partner = None
        fit(model, known.state_dict(), f"train.init_from {source}")
    model.recomputes(config.train.recompute)
    return model


def optimizers(model: Pix2Next, discriminator: nn.Module, train: TrainConfig) -> tuple[Optimizer, Optimizer]:
    """Adam for G, its VFM with a rate of its own, and Adam for D."""
    rate = train.learning_rate
    groups = [{"params": list(model.generator.parameters()), "base_lr": rate}]
    tuned = [parameter for parameter in (model.vfm.parameters() if model.vfm else ()) if parameter.requires_grad]
    if tuned:
        groups.append({"params": tuned, "base_lr": train.vfm_learning_rate or rate})
    discriminators = [{"params": list(discriminator.parameters()), "base_lr": train.discriminator_learning_rate}]
    return Adam(groups, lr=rate, betas=train.betas), Adam(discriminators, lr=rate, betas=train.betas)


def ready(
    model: Pix2Next,
    others: Sequence[nn.Module],
    steppers: Sequence[Optimizer],
    train: TrainConfig,
    accelerator: Accelerator,
) -> tuple[Any, ...]:
    """The average to be of the model; then model, others and optimizers, prepared for the accelerator."""
    networks = [model, *others]
    if train.channels_last:
        for network in networks:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = copy.deepcopy(model).eval().requires_grad_(False).to(accelerator.device)
    if accelerator.num_processes > 1:
        rest_unread(model)
        if accelerator.device.type == "cuda":
            networks = [nn.SyncBatchNorm.convert_sync_batchnorm(network) for network in networks]
    return ema, *accelerator.prepare(*networks, *steppers)


def rest_unread(model: Pix2Next) -> None:
    """Ask for no gradient of what the output does not depend on, as a VFM's stages beyond the last map that is read.

    Processes that share gradients would wait for these for ever. A small picture sent through tells them.
    """
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    side = 2 * model.multiple
    shown = model.eval()(torch.zeros(1, 3, side, side))
    model.train()
    for parameter, gradient in zip(wanted, torch.autograd.grad(shown.sum(), wanted, allow_unused=True), strict=True):
        parameter.requires_grad_(gradient is not None)


def learning_rate(step: int, train: TrainConfig) -> float:
    """The share of the full rate at `step`: linear over the warm-up, then along `schedule` down to `final_rate`.

    The released code means the same as `cosine`, but steps its schedule once an epoch, so that its rate only ever
    warms up.
    """
    if step < train.warmup_steps:
        return (step + 1) / train.warmup_steps
    progress = min((step - train.warmup_steps) / max(train.steps - train.warmup_steps, 1), 1.0)
    match train.schedule:
        case "constant":
            left = 1.0
        case "linear":
            left = min(1.0, 2 * (1 - progress))
        case "cosine":
            left = (1 + cos(pi * progress)) / 2
    return train.final_rate + (1 - train.final_rate) * left


def update(
    state: TrainingState,
    rgb: Float[Tensor, "b 3 h w"],
    nir: Float[Tensor, "b 1 h w"],
    config: Config,
    accelerator: Accelerator,
) -> Terms:
    """One step of G and one of D on a batch in [-1, 1]; the loss terms by name (unweighted), detached.

    Both are judged by D as it was before the step, as in pix2pixHD. The batch goes through in `train.accumulate` parts.
    All that is random in the networks follows from the seed, the step and the process, so a resumed run draws the same.
    """
    train = config.train
    parts = open_step(state, rgb, nir, train, accelerator)
    judged = state.step >= train.discriminator_starts and config.loss.judged
    shown: list[tuple[Any, Any, Any]] = []
    terms: list[Terms] = []

    # G: look like the truth, and to D like the truth does.
    for (rgb_part, nir_part), synced in zip(parts, syncing(accelerator, state.model, len(parts)), strict=True):
        with synced:
            fake = state.model(rgb_part)
            with accelerator.autocast():
                losses = direct_terms(state.fixed, rgb_part, fake, nir_part, config.loss)
            if judged:
                with accelerator.autocast():
                    seen = state.eye(rgb_part), state.eye(fake), state.eye(nir_part)
                losses |= adversarial_terms(critic(accelerator, state.discriminator), *seen, config.loss)
                shown.append((seen[0], detached(seen[1]), seen[2]))
            accelerator.backward(weighted(losses, config.loss) / len(parts))
        terms.append(losses)
    take_step(accelerator, state.optim_g, train.clip_norm)

    # D: tell real pairs from fake ones.
    if judged:
        contexts = syncing(accelerator, state.discriminator, len(parts))
        for seen, losses, synced in zip(shown, terms, contexts, strict=True):
            with synced:
                verdict = discriminator_terms(state.discriminator, *seen, config.loss, state.step)
                accelerator.backward(weighted_discriminator(verdict, config.loss) / len(parts))
            losses |= verdict
        take_step(accelerator, state.optim_d, train.clip_norm)

    return close_step(state, terms, train, accelerator)


def open_step(
    state: TrainingState,
    rgb: Float[Tensor, "b 3 h w"],
    nir: Float[Tensor, "b 1 h w"],
    train: TrainConfig,
    accelerator: Accelerator,
) -> list[tuple[Tensor, Tensor]]:
    """Set random generators and rates as this step has them; gives the batch in its parts."""
    seed_step(train.seed, state.step, accelerator.process_index)
    set_rate(state, learning_rate(state.step, train))
    return list(zip(rgb.chunk(train.accumulate), nir.chunk(train.accumulate), strict=True))


def close_step(state: TrainingState, terms: Sequence[Terms], train: TrainConfig, accelerator: Accelerator) -> Terms:
    """Let the average follow and count the step; gives every term's mean over the parts, detached."""
    update_average(state.ema, bare(accelerator, state.model), average_share(state.step, train.ema))
    state.step += 1
    return {name: torch.stack([losses[name].detach() for losses in terms]).mean() for name in terms[0]}


def syncing(accelerator: Accelerator, network: nn.Module, count: int) -> list[Any]:
    """The contexts for a step's `count` backward passes: processes share gradients at the last one alone."""
    return [*(accelerator.no_sync(network) for _ in range(count - 1)), nullcontext()]


def direct_terms(
    fixed: Mapping[str, nn.Module],
    rgb: Float[Tensor, "b 3 h w"],
    fake: Float[Tensor, "b 1 h w"],
    nir: Float[Tensor, "b 1 h w"],
    weights: LossConfig,
) -> Terms:
    """The terms that need no discriminator, those with weight zero left out."""
    parts = {}
    if weights.shift:
        fake, nir = best_shift(fake, nir, weights.shift)
    if weights.ssim:
        parts["ssim"] = ssim_loss(fake, nir, None if weights.ssim_range == "batch" else 2.0)
    if weights.l1:
        parts["l1"] = l1(fake, nir)
    if network := fixed.get("perceptual"):
        with torch.no_grad():
            target = network(nir if weights.perceptual_target == "nir" else rgb)
        parts["perceptual"] = perceptual(network(fake), target)
    for name, network in fixed.items():
        if isinstance(network, LPIPS | DISTS):
            shown = slice(weights.dists_pictures if isinstance(network, DISTS) else None)
            parts[name] = learned_distance(network, fake[shown], nir[shown])
    return parts


def detached(seen: Seen) -> Seen:
    """What D sees of a fake, without the way back to G."""
    return seen.detach() if isinstance(seen, Tensor) else [it.detach() for it in seen]


def adversarial_terms(discriminator: nn.Module, rgb: Seen, fake: Seen, nir: Seen, weights: LossConfig) -> Terms:
    """What D's verdict means to G, and what its `Eye` sees; those with weight zero left out. D is taught nothing.

    The pictures are as D sees them: themselves for PatchGANs, the maps of an `Eye` for projected ones.
    """
    parts = {}
    with frozen(discriminator):
        on_fake = discriminator(rgb, fake)
    if weights.gan:
        parts["gan"] = GAN[weights.gan_kind][1]([it.logits for it in on_fake])
    if weights.seen:
        assert not isinstance(fake, Tensor) and not isinstance(nir, Tensor), "PatchGANs have no maps"
        parts["seen"] = seen_distance(fake, nir)
    if weights.feature_matching:
        with torch.no_grad():
            on_real = discriminator(rgb, nir)
        parts["feature_matching"] = feature_matching([it.features for it in on_real], [it.features for it in on_fake])
    return parts


def discriminator_terms(
    discriminator: nn.Module,
    rgb: Seen,
    fake: Seen,
    nir: Seen,
    weights: LossConfig,
    step: int,
) -> Terms:
    """D's own loss, and the penalty on its gradient at the steps that it is due at, for one that sees pictures."""
    penalised = weights.r1 and step % weights.r1_every == 0
    if isinstance(nir, Tensor) and penalised:
        nir = nir.detach().requires_grad_()
    real, fakes = ([it.logits for it in discriminator(rgb, picture)] for picture in (nir, fake))
    parts = {"discriminator": GAN[weights.gan_kind][0](real, fakes)}
    if isinstance(nir, Tensor) and penalised:
        parts["r1"] = gradient_penalty(real, nir)
    return parts


def weighted(parts: Mapping[str, Tensor], weights: LossConfig) -> Tensor:
    """The generator's loss: every term times the weight of its name."""
    return torch.stack([getattr(weights, name) * term for name, term in parts.items()]).sum()


def weighted_discriminator(parts: Mapping[str, Tensor], weights: LossConfig) -> Tensor:
    """D's loss; the penalty stands for the steps that go without it as well."""
    if "r1" not in parts:
        return parts["discriminator"]
    return parts["discriminator"] + weights.r1 / 2 * weights.r1_every * parts["r1"]


def take_step(accelerator: Accelerator, optimizer: Optimizer, clip_norm: float | None) -> None:
    """Shorten the gradient if it is too long, step, and clear it."""
    if clip_norm is not None:
        accelerator.clip_grad_norm_([it for group in optimizer.param_groups for it in group["params"]], clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def seed_step(seed: int, step: int, process: int) -> None:
    """Set every random generator as step `step` of a run with `seed` has it in this process."""
    set_seed(int(np.random.SeedSequence((seed, step, process)).generate_state(1)[0]))


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
