"""How long a study trains: variants timed in turns, and the number of samples that fits the budget."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pix2next.config import Config
from pix2next.data.pairs import Pair
from pix2next.errors import ConfigError, Pix2NextError
from pix2next.images import write_text
from pix2next.train.speed import StepTime, speed_of, time_steps

PLAN = "plan.json"
ROUNDS = 2
TIMED_STEPS = 6

Say = Callable[[str], None]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Variant:
    """One of the networks that are compared."""

    name: str
    """The stem of its file."""
    description: str
    """The comment that the file begins with."""
    config: Config


class Plan(BaseModel):
    """What a study decided when it began, and keeps when it is called again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int
    """Crops that every network is trained on; a multiple of every batch size."""
    budget_minutes: float | None
    """None where the number of samples was given."""
    seeds: tuple[int, ...]
    batch_sizes: dict[str, int]
    steps: dict[str, int]
    seconds_per_step: dict[str, float]
    """Medians, taken in turns; of the variants that could be timed."""


def planned(
    variants: Sequence[Variant],
    pairs: Sequence[Pair],
    out: Path,
    budget: float | None,
    samples: int | None,
    seeds: Sequence[int],
    say: Say,
) -> Plan:
    """The plan in `out`, timed and written if there is none; variants that it does not know yet are timed and added.

    Raises:
        ConfigError: the budget is too small, or the plan there is another one.
    """
    before = _read_plan(out)
    fixed = _agreed(before, variants, budget, samples) if before else samples
    if fixed is None and budget is None:
        raise ConfigError("say how long to train: --budget MINUTES, or --samples N")
    known = before.seconds_per_step if before else {}
    new = [variant for variant in variants if variant.name not in known]
    seconds = known | time_variants(new, pairs, say)
    step = math.lcm(*(variant.config.train.batch_size for variant in variants))
    if before:
        count = before.samples
    elif fixed is not None:
        count = max(fixed // step, 1) * step
    else:
        assert budget is not None
        count = samples_for(budget, [_seconds_per_sample(it, seconds) for it in variants], len(seeds), step)
    sizes = {variant.name: variant.config.train.batch_size for variant in variants}
    plan = Plan(
        samples=count,
        budget_minutes=before.budget_minutes if before else (None if samples else budget),
        seeds=tuple(seeds),
        batch_sizes=sizes,
        steps={name: count // size for name, size in sizes.items()},
        seconds_per_step=seconds,
    )
    write_text(out / PLAN, plan.model_dump_json(indent=1) + "\n")
    return plan


def _read_plan(out: Path) -> Plan | None:
    if not (out / PLAN).is_file():
        return None
    try:
        return Plan.model_validate_json((out / PLAN).read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError):
        raise ConfigError(f"{out / PLAN} is no plan of a study; choose another --out") from None


def _agreed(plan: Plan, variants: Sequence[Variant], budget: float | None, samples: int | None) -> int:
    """The plan's number of samples, if what is asked for now can be met by it."""
    if samples is not None and samples != plan.samples:
        raise ConfigError(f"the study there trains on {plan.samples} samples, not {samples}; choose another --out")
    if budget is not None and budget != plan.budget_minutes:
        log.warning("the study goes on with the %d samples that it began with; --budget is not read", plan.samples)
    for variant in variants:
        if plan.samples % (size := variant.config.train.batch_size):
            raise ConfigError(
                f"{variant.name}: batches of {size} do not make up the study's {plan.samples} samples; "
                "choose another --out"
            )
    return plan.samples


def time_variants(variants: Sequence[Variant], pairs: Sequence[Pair], say: Say) -> dict[str, float]:
    """Seconds of a training step, in turns, a network at a time in memory; those that fail are left out."""
    times: dict[str, list[list[StepTime]]] = {}
    for turn in range(ROUNDS):
        for variant in variants:
            say(f"timing {variant.name}, round {turn + 1} of {ROUNDS}")
            with suppress(Pix2NextError):  # Training meets the same, and reports it.
                times.setdefault(variant.name, []).append(time_steps(variant.config, pairs, TIMED_STEPS))
    sizes = {variant.name: variant.config.train.batch_size for variant in variants}
    return {name: speed_of(name, sizes[name], taken).seconds_per_step for name, taken in times.items() if taken}


def _seconds_per_sample(variant: Variant, seconds: Mapping[str, float]) -> float:
    """Nothing for a variant that cannot be trained."""
    return seconds.get(variant.name, 0.0) / variant.config.train.batch_size


def samples_for(minutes: float, seconds_per_sample: Sequence[float], seeds: int, step: int) -> int:
    """The largest multiple of `step` that all runs together get through in `minutes`.

    Raises: ConfigError if that is none, or nothing can be trained.
    """
    one = step * seeds * math.fsum(seconds_per_sample)
    if not one:
        raise ConfigError("none of the configs can be trained; train one alone to see why")
    if 60 * minutes < one:
        raise ConfigError(f"--budget {minutes:g}: {step} samples each take {one / 60:.2g} minutes already")
    return int(60 * minutes / one) * step
