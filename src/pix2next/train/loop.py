"""A training run, in the order it happens: data, state, steps, validation, saving."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader

from pix2next.config import Config
from pix2next.data.augment import TrainingCrops
from pix2next.data.pairs import Pair, configured_pairs, load_pair, overlap, readable
from pix2next.errors import ConfigError, PairError, Pix2NextError, WeightsError
from pix2next.evaluate.metrics import LPIPS, psnr, ssim
from pix2next.images import atomic_path
from pix2next.model.pix2next import BEST, Pix2Next
from pix2next.train.checkpoint import STATE, load_state, save_state, writing
from pix2next.train.journal import SHEET_ROWS, Journal, write_sheet
from pix2next.train.step import TrainingState, update
from pix2next.translate import Translator

LAST = "last.safetensors"


def train(config: Config, out: Path, *, resume: bool = False) -> Path:
    """Train a network; returns the file of its best weights, `out/best.safetensors`.

    `out` also gets `config.json`, `log.jsonl`, `samples/STEP.png` at every validation, and `last.safetensors` and
    `state.pt` every `train.checkpoint_minutes`. With `resume` the run in `out` goes on, with the settings given now.

    Raises:
        ConfigError: `out` holds a run and `resume` is not asked for, or the network cannot take crops of this size.
        PairError, WeightsError, ImageError: from what the settings name, or what cannot be written.
    """
    accelerator = Accelerator(mixed_precision=config.train.mixed_precision)
    _check_out(out, resume)
    pairs, val = checked_pairs(config)
    state = TrainingState.start(config, accelerator)
    _check_crop(config.data.crop, state.ema.multiple)
    best = load_state(state, out, accelerator) if resume else None
    out.mkdir(parents=True, exist_ok=True)
    with Journal(out, state.step, config.train.steps, enabled=accelerator.is_main_process) as journal:
        run = Run(config, out, accelerator, state, journal, Validation(val, config.train.choose_by), best)
        run.write_config()
        with _said_of_batch_norm():
            run.steps(batches(config, pairs, state.step, accelerator))
    return out / BEST


@contextmanager
def _said_of_batch_norm() -> Iterator[None]:
    """Torch knows only when it computes that a batch norm is left with a single value a channel."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            "a batch norm is left with one value a channel; raise train.batch_size or data.crop, "
            "or set discriminator.norm to instance"
        ) from error


def checked_pairs(config: Config) -> tuple[list[Pair], list[Pair]]:
    """Training and validation pairs, none in both; those that cannot be read are named in the log and left out.

    Raises:
        PairError: pictures without a partner or of another size than their partner, or pictures in both.
    """
    pairs, val = configured_pairs(config.data, "train"), configured_pairs(config.data, "val")
    if shared := overlap(pairs, val):
        raise PairError(f"{len(shared)} pictures are in both train and val (first: {shared[0]})")
    return readable(pairs), readable(val)


def _check_out(out: Path, resume: bool) -> None:
    if resume and not (out / STATE).is_file():
        raise WeightsError(f"nothing to resume: no {out / STATE}")
    if (out / STATE).exists() and not resume:
        raise ConfigError(f"{out} holds a run already; add --resume to go on with it, or choose another --out")
    if (out / BEST).exists() and not resume:
        raise ConfigError(f"{out} holds a run that ended before its first checkpoint; choose another --out")


def _check_crop(crop: int, multiple: int) -> None:
    if crop % multiple:
        raise ConfigError(f"data.crop: {crop} is no multiple of {multiple}, which this network works in")


def batches(
    config: Config, pairs: Sequence[Pair], start: int, accelerator: Accelerator
) -> Iterator[tuple[float, dict[str, Tensor]]]:
    """The batches from step `start` on, each with the seconds it was waited for."""
    size = config.train.batch_size
    crops = TrainingCrops(pairs, config.data, config.train.seed)
    loader = DataLoader(
        crops,
        batch_size=size,
        sampler=range(start * size, config.train.steps * size),
        num_workers=config.data.workers,
        pin_memory=accelerator.device.type == "cuda",
    )
    iterator = iter(accelerator.prepare(loader))
    while True:
        asked = time.perf_counter()
        batch = next(iterator, None)
        if batch is None:
            return
        if config.train.channels_last:
            batch = {name: picture.to(memory_format=torch.channels_last) for name, picture in batch.items()}
        yield time.perf_counter() - asked, batch


class Validation:
    """Scores on the validation pairs at native size, and a few of the pictures."""

    def __init__(self, pairs: Sequence[Pair], choose_by: str) -> None:
        self.pairs = pairs
        self.choose_by = choose_by
        self.lpips = LPIPS() if choose_by == "lpips" else None

    def __call__(self, model: Pix2Next) -> tuple[dict[str, float], list[list[np.ndarray]]]:
        """Mean PSNR, SSIM (and LPIPS where the best is chosen by it), and rows of RGB, fake and truth."""
        translator = Translator(model, device=str(next(model.parameters()).device))
        scores: dict[str, list[float]] = {"psnr": [], "ssim": [], **({"lpips": []} if self.lpips else {})}
        shown = range(0, len(self.pairs), max(1, len(self.pairs) // SHEET_ROWS))[:SHEET_ROWS]
        rows: list[list[np.ndarray]] = []
        for index, pair in enumerate(self.pairs):
            rgb, nir = load_pair(pair)
            fake = translator(rgb)
            scores["psnr"].append(psnr(fake, nir))
            scores["ssim"].append(ssim(fake, nir))
            if self.lpips:
                scores["lpips"].append(self.lpips(fake, nir))
            if index in shown:
                rows.append([rgb, fake, nir])
        return {name: fmean(values) for name, values in scores.items()}, rows

    def is_better(self, score: float, best: float | None) -> bool:
        """Whether `score` beats the best so far; LPIPS is a distance, the others grow with quality."""
        if best is None:
            return True
        return score < best if self.choose_by == "lpips" else score > best


@dataclass
class Run:
    """What one run holds in hand, and what it does between steps."""

    config: Config
    out: Path
    accelerator: Accelerator
    state: TrainingState
    journal: Journal
    validation: Validation
    best: float | None
    """The best validation score so far."""
    saved: float = field(default_factory=time.monotonic)
    """When the last checkpoint was written."""

    def steps(self, batches: Iterator[tuple[float, dict[str, Tensor]]]) -> None:
        """Update on every batch; log, validate and save when it is time, and at the end."""
        train = self.config.train
        self.state.model.train()
        self.state.discriminator.train()
        for waited, batch in batches:
            losses = update(self.state, batch["rgb"], batch["nir"], self.config, self.accelerator)
            step = self.state.step
            self.journal.add(step, losses, waited)
            last = step == train.steps
            due = time.monotonic() - self.saved > 60 * train.checkpoint_minutes
            if step % train.log_every == 0 or due or last:
                self._check(self.journal.write(step))
            if step % train.validate_every == 0 or last:
                self.validate()
            if due or last:
                self.save()

    def _check(self, line: Mapping[str, float | int]) -> None:
        broken = [name for name, value in line.items() if not np.isfinite(value)]
        if broken:
            raise Pix2NextError(
                f"{broken[0]} is not finite at step {self.state.step}; the last whole checkpoint is in {self.out}"
            )

    def validate(self) -> None:
        """Score the averaged weights; keep them if they are the best so far."""
        if not self.accelerator.is_main_process:
            return
        scores, rows = self.validation(self.state.ema)
        step = self.state.step
        self.journal.write(step, **{f"val_{name}": value for name, value in scores.items()})
        self.journal.say(f"step {step}: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
        write_sheet(self.out / "samples" / f"{step:07d}.png", rows)
        score = scores[self.validation.choose_by]
        if self.validation.is_better(score, self.best):
            self.best = score
            card = {"step": str(step), **{f"val_{name}": f"{value:.4f}" for name, value in scores.items()}}
            self.save_average(BEST, card)

    def save(self) -> None:
        """Write the state and the averaged weights as they are now."""
        if self.accelerator.is_main_process:
            self.save_average(LAST, {"step": str(self.state.step)})
            save_state(self.state, self.best, self.out, self.accelerator)
        self.saved = time.monotonic()

    def save_average(self, name: str, card: Mapping[str, str]) -> None:
        """Write the averaged weights to the file `name`."""
        with writing(self.out / name):
            self.state.ema.save(self.out / name, card=card)

    def write_config(self) -> None:
        """The resolved settings, beside what they lead to."""
        if self.accelerator.is_main_process:
            with atomic_path(self.out / "config.json") as temporary:
                temporary.write_text(self.config.model_dump_json(indent=1) + "\n", encoding="utf-8")
