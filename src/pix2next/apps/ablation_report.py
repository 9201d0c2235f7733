"""What a study found: means with intervals, differences to a reference, costs; as JSON, Markdown and a sheet."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from pix2next.evaluate.baselines import BASELINES
from pix2next.evaluate.efficiency import count_flop, parameters_of, side_for
from pix2next.evaluate.metrics import METRICS
from pix2next.evaluate.scorer import PictureScores, Scorer, Values
from pix2next.evaluate.tables import heading, markdown_table, shown, shown_interval
from pix2next.evaluate.uncertainty import Interval, PairedTest, bootstrap_interval, known, paired_difference
from pix2next.images import write_text
from pix2next.model.pix2next import load_model
from pix2next.model.views import Views
from pix2next.train.journal import SHEET_HEIGHT, write_sheet

REPORT = "ablation.md"
NUMBERS = "ablation.json"
SHEET = "ablation.png"
SIDE = 256
"""Of the picture that operations are counted for."""
TABLE = ("psnr", "ssim", "lpips", "dists", "fid-768")
LEVEL = 0.05
BASELINE_NAMES = {"luma": "The grey picture", "linear": "The best fixed mix of the colours, by least squares"}


@dataclass(frozen=True)
class Outcome:
    """What became of a variant's training."""

    name: str
    description: str
    batch_size: int
    seconds_per_step: float | None
    folders: Mapping[str, Path]
    """Its runs that came to their end, a seed each."""
    failed: str | None
    """Why others did not."""


@dataclass(frozen=True)
class Cost:
    """What a network takes."""

    parameters: int
    trained: int
    """Of them those that a gradient reaches."""
    gflop: float
    """10^9 operations for a 256 x 256 picture (or the next size that the network takes), a multiply-add being two."""


@dataclass(frozen=True)
class Result:
    """One row: a variant, its runs taken together, or a baseline."""

    name: str
    description: str
    batch_size: int | None = None
    seconds_per_step: float | None = None
    cost: Cost | None = None
    mean: Values = field(default_factory=dict)
    """Over pictures and seeds; empty where nothing was trained."""
    interval: dict[str, Interval | None] = field(default_factory=dict)
    """Of the mean, at 95 %, over pictures."""
    seed_means: dict[str, list[float | None]] = field(default_factory=dict)
    difference: dict[str, PairedTest | None] = field(default_factory=dict)
    """To the reference, picture by picture; not for metrics of whole sets."""
    failed: str | None = None


@dataclass(frozen=True)
class Results:
    """What ablation.json holds."""

    split: str
    samples: int
    seeds: tuple[int, ...]
    reference: str
    results: list[Result]
    pictures: list[PictureScores]
    notes: list[str]


def results_of(
    outcomes: Sequence[Outcome],
    scorer: Scorer,
    pictures: Sequence[PictureScores],
    reference: str,
    *,
    split: str,
    samples: int,
    seeds: tuple[int, ...],
) -> Results:
    """Means, intervals and differences out of the pictures' scores; costs out of the runs' weights.

    Scores of several seeds are averaged picture by picture first, so an interval is over pictures alone.
    """
    methods = {it.name: list(it.folders) for it in outcomes} | {name: [name] for name in BASELINES}
    means, notes = scorer.mean(pictures)
    intervals = scorer.intervals(pictures)
    yardstick = methods[reference]
    rows = []
    for name, runs in methods.items():
        outcome = next((it for it in outcomes if it.name == name), None)
        row: dict[str, Any] = {"name": name, "description": BASELINE_NAMES.get(name, "")}
        if outcome:
            row |= {"description": outcome.description, "batch_size": outcome.batch_size, "failed": outcome.failed}
            row |= {"seconds_per_step": outcome.seconds_per_step, "cost": cost_of(outcome.folders)}
        if runs:
            columns = {metric: _column(metric, runs, pictures) for metric in pictures[0].scores[runs[0]]}
            row["mean"] = {metric: _mean([means[run][metric] for run in runs]) for metric in means[runs[0]]}
            row["interval"] = {
                metric: _interval(columns.get(metric), [intervals[run][metric] for run in runs])
                for metric in row["mean"]
            }
            row["seed_means"] = {metric: [means[run][metric] for run in runs] for metric in row["mean"]}
            if yardstick and name != reference:
                row["difference"] = {
                    metric: known(paired_difference(column, _column(metric, yardstick, pictures)))
                    for metric, column in columns.items()
                }
        rows.append(Result(**row))
    first = [row for row in rows if row.name == reference]
    ordered = first + [row for row in rows if row.name != reference]
    return Results(split, samples, seeds, reference, ordered, list(pictures), notes)


def _column(metric: str, runs: Sequence[str], pictures: Sequence[PictureScores]) -> list[float | None]:
    """A metric of every picture, averaged over the runs."""
    return [_mean([picture.scores[run][metric] for run in runs]) for picture in pictures]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None


def _interval(column: Sequence[float | None] | None, of_runs: Sequence[Interval | None]) -> Interval | None:
    """By bootstrap over pictures; for a metric of whole sets what the scorer gives, averaged over the runs."""
    if len(of_runs) == 1:
        return of_runs[0]
    if column is not None:
        return known(bootstrap_interval(column))
    found = [interval for interval in of_runs if interval]
    if len(found) < len(of_runs):
        return None
    return Interval(*(math.fsum(bounds) / len(found) for bounds in zip(*found, strict=True)))


def cost_of(folders: Mapping[str, Path]) -> Cost | None:
    """The cost of the network in the first of the folders; None without one."""
    if not folders:
        return None
    model = load_model(next(iter(folders.values()))).to("meta")
    side = side_for(model, SIDE)
    rgb = torch.empty(1, 3, side, side, device="meta")
    gflop = count_flop(Views(model), rgb) / 1e9
    parameters = parameters_of(model, rgb)
    return Cost(parameters.total, parameters.trained, gflop)


def write_results(results: Results, rows: Sequence[Sequence[np.ndarray]], out: Path) -> None:
    """`ablation.json`, `ablation.md` and, where there are rows of pictures, `ablation.png`."""
    texts = {NUMBERS: json.dumps(as_json(results), indent=1, allow_nan=False), REPORT: markdown(results)}
    for name, text in texts.items():
        write_text(out / name, text + "\n")
    if rows:
        write_sheet(out / SHEET, rows)


def as_json(results: Results) -> dict[str, Any]:
    """Plain values, with everything but the features that metrics of whole sets were computed from."""
    return {
        "split": results.split,
        "samples": results.samples,
        "seeds": list(results.seeds),
        "reference": results.reference,
        "notes": results.notes,
        "results": [_plain(vars(row)) for row in results.results],
        "pictures": [
            {"name": it.name, "width": it.width, "height": it.height, "scores": it.scores} for it in results.pictures
        ],
    }


def _plain(value: Any) -> Any:
    match value:
        case tuple() if hasattr(value, "_asdict"):
            return _plain(value._asdict())
        case dict():
            return {name: _plain(inner) for name, inner in value.items()}
        case Cost():
            return vars(value)
    return value


def markdown(results: Results) -> str:
    """The tables, and how to read them."""
    metrics = [metric for metric in TABLE if any(metric in row.mean for row in results.results)]
    compared = [metric for metric in metrics if any(metric in row.difference for row in results.results)]
    tests = sum(row.difference.get(metric) is not None for row in results.results for metric in compared)
    parts = [_preamble(results), markdown_table(["", "", *COSTS, *map(heading, metrics)], _rows(results, metrics))]
    if compared:
        legend = (
            f"Differences to {results.reference}, picture by picture. \\*: p < {LEVEL}; \\*\\*: also after correction "
            f"for {tests} tests (Bonferroni)."
        )
        lines = [
            [_cell(row.name), *(_difference(metric, row.difference.get(metric), tests) for metric in compared)]
            for row in results.results
            if row.difference
        ]
        parts += [legend, markdown_table(["", *map(heading, compared)], lines)]
    if failed := [[_cell(row.name), _cell(row.failed)] for row in results.results if row.failed]:
        parts += ["Not trained:", markdown_table(["", "reason"], failed)]
    return "\n\n".join([*parts, *results.notes])


COSTS = ("parameters, M", "trained, M", "GFLOP", "steps/s")


def _preamble(results: Results) -> str:
    sizes = {row.name: row.batch_size for row in results.results if row.batch_size}
    batches = ", ".join(f"{name} {size}" for name, size in sizes.items())
    batch = f"batches of {next(iter(sizes.values()))}" if len(set(sizes.values())) == 1 else f"batch sizes: {batches}"
    seeds = ", ".join(map(str, results.seeds))
    spread = " ± is the standard deviation between seeds." if len(results.seeds) > 1 else ""
    return (
        f"Trained on {results.samples} samples each ({batch}; seeds {seeds}), scored on {len(results.pictures)} "
        f"pictures of `{results.split}`. In parentheses the 95 % interval over pictures.{spread}"
    )


def _rows(results: Results, metrics: Sequence[str]) -> Iterable[list[str]]:
    for row in results.results:
        scores = [_score(row, metric) for metric in metrics]
        yield [_cell(row.name), _cell(row.description), *_costs(row), *scores]


def _costs(row: Result) -> list[str]:
    speed = f"{1 / row.seconds_per_step:.2f}" if row.seconds_per_step else ""
    if row.cost is None:
        return ["", "", "", speed]
    cost = row.cost
    return [f"{cost.parameters / 1e6:.2f}", f"{cost.trained / 1e6:.2f}", f"{cost.gflop:.2f}", speed]


def _score(row: Result, metric: str) -> str:
    mean, interval = row.mean.get(metric), row.interval.get(metric)
    if mean is None:
        return "-"
    bounds = f" ({shown_interval(metric, interval)})" if interval else ""
    seeds = [value for value in row.seed_means[metric] if value is not None]
    spread = f" ± {shown(metric, float(np.std(seeds, ddof=1)))}" if len(seeds) > 1 else ""
    return f"{shown(metric, mean)}{spread}{bounds}"


def _difference(metric: str, test: PairedTest | None, tests: int) -> str:
    if test is None:
        return "-"
    digits = METRICS[metric].digits
    marks = "\\*" * ((test.p_value < LEVEL) + (test.p_value < LEVEL / tests))
    low, high = test.interval
    return f"{test.difference:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f}){marks}"


def _cell(text: str) -> str:
    """Names and sentences may hold what divides cells."""
    return text.replace("|", "\\|")


def label(text: str) -> np.ndarray:
    """A white picture with a line of text, to stand at the head of a sheet's row."""
    picture = np.full((SHEET_HEIGHT, 330, 3), 255, np.uint8)
    return cv2.putText(picture, text, (6, SHEET_HEIGHT // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
