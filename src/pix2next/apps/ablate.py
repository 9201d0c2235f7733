"""Studies: networks that differ in one thing each, trained on the same samples from the same seeds, scored together.

What a study knows lies in its folder, so it can be stopped at any moment and called again: `plan.json` says how many
samples every network is trained on, `runs/NAME-seedS/` is a training run each, `finished.json` in a run's folder says
that it came to its end, and `scores-SPLIT.pt` keeps what has been scored.
"""

import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pix2next.apps.ablation_plan import PLAN, Plan, Say, Variant, planned
from pix2next.apps.ablation_report import Outcome, Results, results_of, write_results
from pix2next.apps.ablation_scores import score_together
from pix2next.config import Config, DataConfig, first_comment, load_config
from pix2next.data.pairs import Pair, check_sizes, configured_pairs, find_split, read_pair_list, readable
from pix2next.errors import ConfigError, PairError, Pix2NextError
from pix2next.evaluate.baselines import BASELINES, Baselines
from pix2next.evaluate.scorer import TRUTH, Scorer
from pix2next.images import write_text
from pix2next.model.pix2next import BEST
from pix2next.train.checkpoint import PREVIOUS, STATE, has_state
from pix2next.train.loop import train
from pix2next.translate import pick_device

FINISHED = "finished.json"
SPLITS = ("val", "test")
METRICS = ("psnr", "ssim", "rmse", "lpips", "dists", "fid-768")
MAY_DIFFER = {"data": ("workers", "cache"), "train": ("checkpoint_minutes", "log_every", "trackers")}
"""Settings that change nothing of what is learnt, so that a run may go on with others of them."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A variant trained from one seed."""

    variant: Variant
    seed: int
    samples: int

    @property
    def name(self) -> str:
        return f"{self.variant.name}-seed{self.seed}"

    @property
    def config(self) -> Config:
        """The variant's settings at the study's length; `seed` is added to their own."""
        own = self.variant.config.train
        steps, seed = self.samples // own.batch_size, own.seed + self.seed
        length = {"steps": steps, "epochs": None, "validate_every": 0, "seed": seed}
        return self.variant.config.model_copy(update={"train": own.model_copy(update=length)})


def ablate(
    configs: Sequence[Path],
    out: Path,
    *,
    budget: float | None = None,
    samples: int | None = None,
    changes: Sequence[str] = (),
    split: str = "val",
    seeds: Sequence[int] = (0,),
    reference: str | None = None,
    device: str = "auto",
    say: Say = log.info,
) -> Results:
    """Train every config on the same number of samples, score all on one split, and write `out/ablation.md`.

    A variant that cannot be trained is reported with the reason, and the others go on. Called again with the same `out`
    the study goes on where it was; configs that have been added since are trained by the same plan.

    Args:
        configs: YAML files. A variant is called by its file's stem and described by the comment in its first line.
        out: the study's folder, new or of a study that began before.
        budget: minutes of training, all runs together, that the number of samples is chosen for. Timing before and
            scoring after come on top.
        samples: that number itself, brought to whole steps of every batch size.
        changes: `a.b=value`, for every config.
        split: what is scored. A study chooses, and what was chosen by `test` can no longer be judged by it.
        seeds: each is added to every config's own `train.seed`.
        reference: the variant that the others are compared with; the first if not given.
        device: where pictures are translated and scored; training takes the device that accelerate chooses.
        say: gets a line when something begins.

    Raises:
        ConfigError: a config or a number is impossible, or `out` holds something else.
        PairError, ImageError, WeightsError: from the data, and from the metrics' networks.
        KeyboardInterrupt: told to stop; the run in hand has saved its state.
    """
    variants = load_variants(configs, changes)
    reference = reference or variants[0].name
    _check(variants, reference, split, seeds, budget, samples, out)
    data = variants[0].config.data
    pairs, train_pairs = scored_pairs(data, split), readable(configured_pairs(data, "train"))
    scorer = Scorer(METRICS, device=pick_device(device))
    out.mkdir(parents=True, exist_ok=True)
    plan = planned(variants, train_pairs, out, budget, samples, seeds, say)
    runs = [Run(variant, seed, plan.samples) for variant in variants for seed in seeds]
    failed = train_all(runs, plan, out, say)
    folders = {run.name: _folder(out, run) for run in runs if run.name not in failed}
    say(f"scoring {len(folders)} networks on {len(pairs)} pictures")
    baselines, kept = Baselines.fit(pairs, train_pairs), out / f"scores-{split}.pt"
    pictures, rows = score_together(folders, pairs, baselines, scorer, device, kept)
    outcomes = [_outcome(variant, runs, folders, failed, plan) for variant in variants]
    results = results_of(outcomes, scorer, pictures, reference, split=split, samples=plan.samples, seeds=tuple(seeds))
    write_results(results, rows, out)
    return results


def load_variants(paths: Sequence[Path], changes: Sequence[str]) -> list[Variant]:
    """The configs with their names and descriptions.

    Raises:
        ConfigError: a file is no config, two have one name, a name is taken, or they name different data.
    """
    if not paths:
        raise ConfigError("a study needs at least one config")
    variants = [Variant(path.stem, first_comment(path), load_config(path, changes)) for path in paths]
    files: dict[str, Path] = {}
    for path, variant in zip(paths, variants, strict=True):
        if variant.name in files:
            raise ConfigError(f"{files[variant.name]} and {path} would both be called {variant.name}; rename one")
        if variant.name in (*BASELINES, TRUTH):
            raise ConfigError(f"{path}: '{variant.name}' stands for something else in the table; rename the file")
        if _source(variant.config.data) != _source(variants[0].config.data):
            raise ConfigError(f"{path} names other data than {paths[0]}; one --set data.root=... gives all the same")
        files[variant.name] = path
    return variants


def _source(data: DataConfig) -> dict[str, object]:
    """Where the pictures come from, as opposed to how crops are drawn."""
    return data.model_dump(include={"root", "train_rgb", "train_nir", "val_rgb", "val_nir", "pairs", "match"})


def _check(
    variants: Sequence[Variant],
    reference: str,
    split: str,
    seeds: Sequence[int],
    budget: float | None,
    samples: int | None,
    out: Path,
) -> None:
    """Raises: ConfigError for what can be refused before anything is read or timed."""
    names = [variant.name for variant in variants]
    if reference not in names:
        raise ConfigError(f"--reference {reference}: no such config; known here are {', '.join(names)}")
    if split not in SPLITS:
        raise ConfigError(f"--split {split}: known are {', '.join(SPLITS)}")
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ConfigError("--seeds takes different numbers from 0 on, such as 0,1,2")
    if budget is not None and not (math.isfinite(budget) and budget > 0):
        raise ConfigError(f"--budget {budget}: give minutes above 0")
    if samples is not None and samples < 1:
        raise ConfigError(f"--samples {samples}: give a number above 0")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; --out takes a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / PLAN).is_file():
        raise ConfigError(f"{out} is not empty and holds no study ({PLAN}); choose another --out")


def scored_pairs(data: DataConfig, split: str) -> list[Pair]:
    """The pairs of `split`, every one of which can be read.

    Raises: PairError, ImageError when there are none, or one cannot be used.
    """
    if split != "test":
        pairs = configured_pairs(data, split)
    elif data.pairs:
        pairs = read_pair_list(data.pairs, split)
    elif data.root:
        pairs = find_split(data.root, split, data.match)
    else:
        raise PairError("--split test needs data.root or data.pairs")
    check_sizes(pairs)
    return pairs


def train_all(runs: Sequence[Run], plan: Plan, out: Path, say: Say) -> dict[str, str]:
    """Train every run to its end; the names of those that cannot be, with the reason."""
    failed = {}
    for count, run in enumerate(runs, start=1):
        steps = run.config.train.steps
        minutes = steps * plan.seconds_per_step.get(run.variant.name, 0.0) / 60
        say(f"{count} of {len(runs)}: {run.name}, {steps} steps, about {minutes:.0f} minutes")
        try:
            train_run(run.config, _folder(out, run))
        except Pix2NextError as error:
            failed[run.name] = str(error)
            say(f"{run.name} failed: {error}")
    return failed


def train_run(config: Config, folder: Path) -> None:
    """Train a run to its end, wherever it is; a finished one is left as it is.

    The state that only a resumed run needs is removed at the end: it is many times the size of the weights.

    Raises: Pix2NextError if it cannot be trained, or was begun with other settings.
    """
    if has_state(folder) or (folder / FINISHED).is_file():
        _check_same(config, folder)
    elif folder.exists():
        shutil.rmtree(folder)  # It was stopped before its first checkpoint.
    if (folder / FINISHED).is_file() and (folder / BEST).is_file():
        return
    train(config, folder, resume=has_state(folder))
    write_text(folder / FINISHED, json.dumps({"steps": config.train.steps}) + "\n")
    for name in (STATE, PREVIOUS):
        (folder / name).unlink(missing_ok=True)


def _check_same(config: Config, folder: Path) -> None:
    try:
        before = Config.model_validate_json((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        raise ConfigError(f"{folder} holds a run whose config.json cannot be read; remove the folder") from None
    if _learnt_with(before) != _learnt_with(config):
        raise ConfigError(f"{folder} was trained with other settings; remove it, or choose another --out")


def _learnt_with(config: Config) -> dict[str, Any]:
    settings: dict[str, Any] = config.model_dump(mode="json")
    for group, names in MAY_DIFFER.items():
        for name in names:
            del settings[group][name]
    if config.train.warmup_epochs is not None:
        del settings["train"]["warmup_steps"]  # Follows from the number of pairs.
    return settings


def _outcome(
    variant: Variant, runs: Sequence[Run], folders: Mapping[str, Path], failed: Mapping[str, str], plan: Plan
) -> Outcome:
    names = [run.name for run in runs if run.variant == variant]
    reasons = list(dict.fromkeys(failed[name] for name in names if name in failed))
    return Outcome(
        name=variant.name,
        description=variant.description,
        batch_size=variant.config.train.batch_size,
        seconds_per_step=plan.seconds_per_step.get(variant.name),
        folders={name: folders[name] for name in names if name in folders},
        failed="; ".join(reasons) or None,
    )


def _folder(out: Path, run: Run) -> Path:
    return out / "runs" / run.name
