"""A training run, in the order it happens: data, state, steps, validation, saving."""

import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pix2next.config import Config
from pix2next.data.augment import TrainingCrops
from pix2next.data.pairs import Pair, configured_pairs, load_pair, overlap, readable
from pix2next.errors import ConfigError, PairError, Pix2NextError, WeightsError, one_line
from pix2next.evaluate.gallery import error_map
from pix2next.evaluate.metrics import HIGHER_IS_BETTER, full_names
from pix2next.evaluate.scorer import Example, Scorer
from pix2next.images import sweep, write_text
from pix2next.model.pix2next import BEST, Pix2Next
from pix2next.train.checkpoint import STATE, Ranking, has_state, load_state, save_state, writing
from pix2next.train.cycle import CycleState
from pix2next.train.cycle import update as update_cycle
from pix2next.train.journal import SHEET_ROWS, Journal, check_trackers, environment, sheet_of
from pix2next.train.step import Terms, TrainingState, start_accelerator, update
from pix2next.translate import Translator

Update = Callable[..., Terms]
LAST = "last.safetensors"
PATIENCE = 30.0
"""Seconds that a process that reads pictures goes on after it was told to end."""
KEPT = "best"
"""The folder of the best weights where more than one set is kept."""


def train(config: Config, out: Path, *, resume: bool = False) -> Path:
    """Train a network; returns the file of its best weights, `out/best.safetensors`.

    `out` also gets `config.json`, `environment.json`, `log.jsonl`, `samples/STEP.png` at every validation, and
    `last.safetensors` and `state.pt` every `train.checkpoint_minutes`. With `resume` the run in `out` goes on, with the
    settings given now. Under `accelerate launch` or `torchrun` every process calls this, and the main one writes.

    Raises:
        ConfigError: `out` holds a run and `resume` is not asked for, or the settings cannot be met here.
        PairError, WeightsError, ImageError: from what the settings name, or what cannot be written.
        Pix2NextError: a loss is no longer a finite number, or explodes.
        KeyboardInterrupt: the run was told to stop (SIGINT or SIGTERM), and has saved its state.
    """
    _check_out(out, resume)
    check_trackers(config.train.trackers)
    accelerator = start_accelerator(config.train, log_with=list(config.train.trackers) or None, project_dir=str(out))
    with ending(accelerator):
        _run(config, out, accelerator, resume)
    return out / BEST


def _run(config: Config, out: Path, accelerator: Accelerator, resume: bool) -> None:
    """`train` on an accelerator that has been started; nothing of the run is held once it returns."""
    pairs, val = checked_pairs(config)
    config = with_steps(config, len(pairs))
    validation = Validation(val, config)
    state, one_step = first_state(config, accelerator, resume=resume)
    check_crop(config.data.crop, state.ema.multiple)
    ranking = load_state(state, validation.choose_by, out, accelerator) if resume else []
    out.mkdir(parents=True, exist_ok=True)
    if accelerator.is_main_process:
        sweep(out)
    with Journal(out, config, state.step, accelerator) as journal, stopping_at_signals() as stop:
        run = Run(config, out, accelerator, state, journal, validation, ranking, stop, one_step)
        run.write_settings()
        if state.step >= config.train.steps:
            journal.say(f"nothing left to do: the run has taken {state.step} of {config.train.steps} steps")
        with in_plain_words():
            run.steps(batches(config, pairs, state.step, accelerator))


def first_state(config: Config, accelerator: Accelerator, *, resume: bool = False) -> tuple[TrainingState, Update]:
    """What is trained, as it is before the first step, and what takes a step: CycleGAN's with `loss.cycle`.

    Raises: as `TrainingState.start` and `CycleState.start`.
    """
    kind, one_step = (CycleState, update_cycle) if config.loss.cycle else (TrainingState, update)
    return kind.start(config, accelerator, resume=resume), one_step


@contextmanager
def ending(accelerator: Accelerator) -> Iterator[None]:
    """Close trackers and the group of processes, after the networks that talk through it are gone.

    A network that outlives its group takes the group down with it while it holds Python's lock, which the group's
    threads may be waiting for, and then nothing ever ends. An error's traceback holds networks too.
    """
    try:
        yield
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        accelerator.free_memory()
        accelerator.end_training()


def with_steps(config: Config, pairs: int) -> Config:
    """The settings in steps alone: `steps` and `warmup_steps` are what epochs over so many pairs are, rounded up."""
    train = config.train
    epochs = {"steps": train.epochs, "warmup_steps": train.warmup_epochs}
    steps = {name: -(-count * pairs // train.batch_size) for name, count in epochs.items() if count is not None}
    return config.model_copy(update={"train": train.model_copy(update={**steps, "epochs": None})})


@contextmanager
def stopping_at_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that a run can end between two steps; the second SIGINT ends at once.

    Schedulers send SIGTERM before they take a machine away. Only a program's main thread hears signals.
    """
    stop = threading.Event()

    def heed(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, heed) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def in_plain_words() -> Iterator[None]:
    """What torch finds out only as it computes: a batch norm left with one value a channel, a worker that failed."""
    try:
        yield
    except PairError as error:
        # A worker's error comes with its whole traceback.
        raise PairError(str(error).strip().rpartition("PairError: ")[2]) from error
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise ConfigError(
            f"a process that reads pictures has died, perhaps for want of memory ({one_line(error)}); "
            "lower data.workers, or set data.cache to false"
        ) from error
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
    pairs = configured_pairs(config.data, "train")
    val = configured_pairs(config.data, "val") if config.train.validate_every else []
    if shared := overlap(pairs, val):
        raise PairError(f"{len(shared)} pictures are in both train and val (first: {shared[0]})")
    return readable(pairs), readable(val) if val else []


def _check_out(out: Path, resume: bool) -> None:
    if resume and not has_state(out):
        raise WeightsError(f"nothing to resume: no {out / STATE}")
    if has_state(out) and not resume:
        raise ConfigError(f"{out} holds a run already; add --resume to go on with it, or choose another --out")
    if (out / BEST).exists() and not resume:
        raise ConfigError(f"{out} holds a run that ended before its first checkpoint; choose another --out")


def check_crop(crop: int, multiple: int) -> None:
    """Raises: ConfigError where the network cannot take crops of this size."""
    if crop % multiple:
        raise ConfigError(f"data.crop: {crop} is no multiple of {multiple}, which this network works in")


def batches(
    config: Config, pairs: Sequence[Pair], start: int, accelerator: Accelerator
) -> Iterator[tuple[float, dict[str, Tensor]]]:
    """The batches from step `start` on, this process's share of them, each with the seconds it was waited for."""
    size = config.train.batch_size
    crops = TrainingCrops(pairs, config.data, config.train.seed)
    loader = DataLoader(
        crops,
        batch_size=size,
        sampler=range(start * size, config.train.steps * size),
        num_workers=config.data.workers,
        worker_init_fn=_patient,
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


def _patient(_: int) -> None:
    """Have a process that reads pictures outlive the signals that a scheduler and Ctrl-C send to all of a run at once.

    The process that it works for saves then, and lets it go. Where that does not happen, it must not stay for ever: an
    interpreter that exits sends SIGTERM to such processes and waits for them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: threading.Timer(PATIENCE, os._exit, (0,)).start())


class Validation:
    """Scores of `evaluate` on the validation pairs at native size, and a few of the pictures."""

    def __init__(self, pairs: Sequence[Pair], config: Config) -> None:
        """Raises: ConfigError for a metric that is not known; WeightsError when its network is not to be had."""
        self.pairs = pairs
        self.choose_by = full_names([config.train.choose_by])[0]
        self.scorer = Scorer((*config.train.validation_metrics, self.choose_by))

    def is_better(self, score: float, than: float) -> bool:
        """Whether `score` is the better one of the metric that the best weights are chosen by."""
        return score > than if self.choose_by in HIGHER_IS_BETTER else score < than

    def __call__(self, model: Pix2Next) -> tuple[dict[str, float], list[list[np.ndarray]]]:
        """The mean of every metric, and rows of RGB, fake, truth and error map."""
        translator = Translator(model, device=str(next(model.parameters()).device))
        shown = range(0, len(self.pairs), max(1, len(self.pairs) // SHEET_ROWS))[:SHEET_ROWS]
        pictures, rows = [], []
        for index, pair in enumerate(self.pairs):
            rgb, nir = load_pair(pair)
            fake = translator(rgb)
            pictures.append(self.scorer.score(Example(pair.name, nir, {"fake": fake}, rgb)))
            if index in shown:
                rows.append([rgb, fake, nir, error_map(fake, nir)])
        means = self.scorer.mean(pictures)[0]["fake"]
        return {name: float("inf") if value is None else value for name, value in means.items()}, rows


@dataclass
class Run:
    """What one run holds in hand, and what it does between steps."""

    config: Config
    out: Path
    accelerator: Accelerator
    state: TrainingState
    journal: Journal
    validation: Validation
    ranking: Ranking
    """The best validations so far."""
    stop: threading.Event
    """Set when the run is to end after the step in hand."""
    update: Update
    """One step on a batch."""
    saved: float = field(default_factory=time.monotonic)
    """When the last checkpoint was written."""
    first_means: dict[str, float] = field(default_factory=dict)
    """Each term's first mean in this process's log, that an explosion is told by."""

    def steps(self, batches: Iterator[tuple[float, dict[str, Tensor]]]) -> None:
        """Update on every batch; log, validate and save when it is time, and at the end."""
        train = self.config.train
        self.state.model.train()
        self.state.discriminator.train()
        for waited, batch in batches:
            losses = self.update(self.state, batch["rgb"], batch["nir"], self.config, self.accelerator)
            step = self.state.step
            self.journal.add(step, losses, waited)
            last = step == train.steps
            if step % train.log_every == 0 or last:
                self.check()
                self.log()
            if last or (train.validate_every and step % train.validate_every == 0):
                self.check()
                self.validate()
            stopped = self.told_to_stop()
            if stopped or last or time.monotonic() - self.saved > 60 * train.checkpoint_minutes:
                self.check()
                self.save()
            if stopped:
                raise KeyboardInterrupt

    def log(self) -> None:
        """A line of means; ends the run where one has exploded."""
        rate = self.state.optim_g.param_groups[0]["lr"]
        line = self.journal.write_means(self.state.step, rate=rate)
        terms = {name: value for name, value in line.items() if name in self.journal.terms}
        for name, value in terms.items():
            first = self.first_means.setdefault(name, max(abs(value), 1.0))
            if abs(value) > self.config.train.exploding * first:
                self._end(f"{name} exploded to {value:.3g} by step {self.state.step}")

    def check(self) -> None:
        """Ends the run if a loss or a weight is no number, before anything is written that could hold such weights.

        A finite loss can have a gradient that is not, and the loss of another process is not known here.
        """
        if broken := self.journal.broken():
            self._end(f"{broken[0]} is not finite at step {broken[1]}")
        groups = (*self.state.optim_g.param_groups, *self.state.optim_d.param_groups)
        if not nn.utils.get_total_norm([it for group in groups for it in group["params"]]).isfinite():
            self._end(f"weights are not finite after step {self.state.step}")

    def _end(self, reason: str) -> None:
        state = self.out / STATE
        saved = f"the last good checkpoint is {state}" if state.exists() else "no checkpoint was written before"
        raise Pix2NextError(f"{reason}; {saved}")

    def told_to_stop(self) -> bool:
        """Whether to end after this step; several processes agree on it every `log_every` steps."""
        if self.accelerator.num_processes == 1:
            return self.stop.is_set()
        if self.state.step % self.config.train.log_every:
            return False
        heard = torch.tensor(float(self.stop.is_set()), device=self.accelerator.device)
        return bool(self.accelerator.reduce(heard, reduction="sum") > 0)

    def validate(self) -> None:
        """Score the averaged weights and keep them if they are among the best; without validation they count as best.

        The other processes wait at their next step.
        """
        if not self.accelerator.is_main_process:
            return
        step = self.state.step
        if not self.config.train.validate_every:
            self.save_average(self.out / BEST, {"step": str(step)})
            return
        scores, rows = self.validation(self.state.ema)
        self.journal.write(step, **{f"val_{name}": value for name, value in scores.items()})
        self.journal.say(f"step {step}: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
        self.journal.show(step, sheet_of(rows))
        self.rank(scores)
        self.journal.skip_time()

    def rank(self, scores: Mapping[str, float]) -> None:
        """Keep the averaged weights if their score is among the `keep_best` best, and drop those that are no more."""
        train, step = self.config.train, self.state.step
        score = scores[self.validation.choose_by]
        others = [entry for entry in self.ranking if entry[1] != step]
        better = [entry for entry in others if not self.validation.is_better(score, entry[0])]
        worse = [entry for entry in others if entry not in better]
        self.ranking[:] = [*better, (score, step), *worse][: train.keep_best]
        card = {"step": str(step), **{f"val_{name}": f"{value:.4f}" for name, value in scores.items()}}
        kept = {step: self.out / KEPT / f"{step:07d}.safetensors" for _, step in self.ranking}
        if train.keep_best > 1 and step in kept:
            self.save_average(kept[step], card)
        if self.ranking[0][1] == step:
            self.save_average(self.out / BEST, card)
        for path in (self.out / KEPT).glob("*.safetensors"):
            if path not in kept.values():
                path.unlink()

    def save(self) -> None:
        """Write the state and the averaged weights as they are now."""
        if self.accelerator.is_main_process:
            self.save_average(self.out / LAST, {"step": str(self.state.step)})
            save_state(self.state, self.ranking, self.validation.choose_by, self.out, self.accelerator)
        self.saved = time.monotonic()

    def save_average(self, path: Path, card: Mapping[str, str]) -> None:
        """Write the averaged weights to a file."""
        with writing(path):
            self.state.ema.save(path, card=card)

    def write_settings(self) -> None:
        """The resolved settings and versions, beside what they lead to."""
        if not self.accelerator.is_main_process:
            return
        texts = {
            "config.json": self.config.model_dump_json(indent=1),
            "environment.json": json.dumps(environment(self.accelerator), indent=1),
        }
        for name, text in texts.items():
            write_text(self.out / name, text + "\n")
