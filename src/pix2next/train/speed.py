"""How fast networks train here: whole steps with real pictures.

Times of two runs do not compare, so several configs are timed in turns in one. What is timed is the trainer's own: its
data pipeline, its update of G and D, its precision. A step counts from asking for its batch until the device is done.
"""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import Accelerator
from rich.table import Table
from torch import Tensor

from pix2next.config import Config
from pix2next.data.pairs import Pair, configured_pairs, readable
from pix2next.errors import ConfigError
from pix2next.evaluate.timing import cpu_threads, machine_facts, synchronize
from pix2next.images import write_text
from pix2next.train.loop import batches, check_crop, first_state, in_plain_words
from pix2next.train.step import start_accelerator
from pix2next.translate import pick_device

WARMUP = 3
"""Steps before the clock starts: memory is laid out, kernels are chosen, workers are started."""

Progress = Callable[[int, int], None]


class StepTime(NamedTuple):
    """Seconds that one step took, and those of them spent waiting for its batch."""

    seconds: float
    waited: float


@dataclass(frozen=True)
class Speed:
    """How fast one config trains."""

    config: str
    batch_size: int
    seconds_per_step: float
    """Median over the steps of all rounds."""
    steps_per_second: float
    samples_per_second: float
    data_wait: float
    """Share of all the time that was spent waiting for data."""
    spread: float
    """Largest distance of a round's median from the median, as a share of it."""


def training_speeds(
    configs: Mapping[str, Config],
    rounds: int = 3,
    steps: int = 20,
    threads: int | None = None,
    on_progress: Progress | None = None,
) -> tuple[list[Speed], dict[str, Any]]:
    """How fast each config trains, timed over `steps` steps in every round, and facts about the run.

    One network is in memory at a time. A loader works ahead, so many steps are needed to see whether it keeps up.

    Discriminators take part from the first step on, whatever `train.discriminator_starts` says.

    Raises:
        ConfigError: a number is below 1, or a config cannot be trained as it is.
        PairError, ImageError, WeightsError: from what a config names.
    """
    if rounds < 1 or steps < 1:
        raise ConfigError(f"timing takes at least one round of one step, not {rounds} of {steps}")
    pairs = {name: readable(configured_pairs(config.data, "train")) for name, config in configs.items()}
    times: dict[str, list[list[StepTime]]] = {name: [] for name in configs}
    turns = [name for _ in range(rounds) for name in configs]
    with cpu_threads(threads):
        facts = machine_facts(pick_device("auto"))
        for done, name in enumerate(turns, start=1):
            times[name].append(time_steps(configs[name], pairs[name], steps))
            if on_progress:
                on_progress(done, len(turns))
    return [speed_of(name, config.train.batch_size, times[name]) for name, config in configs.items()], facts


class Training(NamedTuple):
    """A run that is ready for its steps."""

    step: Callable[[Tensor, Tensor], object]
    """One update of G and D, of an RGB and a NIR batch in [-1, 1] on the accelerator's device."""
    accelerator: Accelerator
    multiple: int
    """What the pictures' sides must divide by."""


def start_training(config: Config) -> Training:
    """Networks, optimisers and device of a run, in training mode.

    Raises: ConfigError or WeightsError for a run that cannot start.
    """
    accelerator = start_accelerator(config.train)
    state, one_step = first_state(config, accelerator)
    state.model.train()
    state.discriminator.train()
    return Training(lambda rgb, nir: one_step(state, rgb, nir, config, accelerator), accelerator, state.ema.multiple)


def time_steps(config: Config, pairs: Sequence[Pair], steps: int) -> list[StepTime]:
    """Seconds of each of `steps` training steps from a fresh start, those of the warm-up left out.

    Raises: as `training_speeds`.
    """
    length = {"steps": WARMUP + steps, "epochs": None, "warmup_epochs": None, "discriminator_starts": 0}
    train = config.train.model_copy(update=length)
    config = config.model_copy(update={"train": train})
    training = start_training(config)
    check_crop(config.data.crop, training.multiple)
    times, before = [], 0.0
    with in_plain_words():
        for waited, batch in batches(config, pairs, 0, training.accelerator):
            training.step(batch["rgb"], batch["nir"])
            synchronize(training.accelerator.device)
            now = time.perf_counter()
            times.append(StepTime(now - before, waited))
            before = now
    return times[WARMUP:]


def speed_of(name: str, batch_size: int, rounds: Sequence[Sequence[StepTime]]) -> Speed:
    """What the times of a config's rounds come to."""
    every = [step for taken in rounds for step in taken]
    seconds = statistics.median(step.seconds for step in every)
    medians = [statistics.median(step.seconds for step in taken) for taken in rounds]
    return Speed(
        config=name,
        batch_size=batch_size,
        seconds_per_step=seconds,
        steps_per_second=1 / seconds,
        samples_per_second=batch_size / seconds,
        data_wait=sum(step.waited for step in every) / sum(step.seconds for step in every),
        spread=max(abs(median - seconds) for median in medians) / seconds,
    )


def speeds_table(speeds: Sequence[Speed]) -> Table:
    """The speeds for a terminal."""
    table = Table(title="training, in turns in one run")
    table.add_column("config")
    for heading in ("batch", "ms a step", "steps/s", "samples/s", "data wait", "spread of rounds"):
        table.add_column(heading, justify="right")
    for it in speeds:
        numbers = f"{it.seconds_per_step * 1e3:.0f}", f"{it.steps_per_second:.2f}", f"{it.samples_per_second:.2f}"
        table.add_row(it.config, str(it.batch_size), *numbers, f"{it.data_wait:.1%}", f"±{it.spread:.0%}")
    return table


def write_speeds(speeds: Sequence[Speed], facts: Mapping[str, Any], path: Path) -> None:
    """The speeds as JSON, after what is known of the machine they were taken on."""
    write_text(path, json.dumps({**facts, "speeds": [asdict(it) for it in speeds]}, indent=1) + "\n")
