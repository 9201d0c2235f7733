"""Pictures scored against the true NIR ones, the trivial baselines always beside them: scores.json and a table."""

import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from rich.table import Table
from torchmetrics.image.fid import FrechetInceptionDistance

from pix2next.data.pairs import Pair, check_same_size, check_sizes, find_pairs, is_split, load_pair
from pix2next.errors import ConfigError, PairError
from pix2next.evaluate.baselines import BASELINES, Baselines
from pix2next.evaluate.metrics import DISTS, FID, LPIPS, network_input, psnr, rmse, ssim
from pix2next.images import Nir, Rgb, atomic_path, read_nir

Progress = Callable[[int, int], None]
Values = dict[str, float | None]
"""Metric, value; None where it has none."""

PROTOCOL = {
    "PSNR": "dB; native size, 8-bit units, peak 255; mean of the pictures' values",
    "SSIM": "native size, 8-bit units, Gaussian 11 x 11 window of sigma 1.5, data range 255, mirrored borders",
    "RMSE": "8-bit units (0 to 255), native size, floating-point difference; mean of the pictures' values",
    "LPIPS": "AlexNet, v0.1; pictures in [-1, 1] at 256 x 256 (antialiased bilinear), grey repeated to 3 channels",
    "DISTS": "VGG16; pictures in [0, 1] at 256 x 256 (antialiased bilinear), grey repeated to 3 channels",
    "FID-768": "torchmetrics' Inception at its 768-wide layer; uint8 at 256 x 256 (antialiased bilinear), grey "
    "repeated to 3 channels, then 299 x 299; does not compare with the customary FID-2048",
}
HIGHER_IS_BETTER = ("PSNR", "SSIM")


@dataclass(frozen=True)
class Scores:
    """What scores.json holds. A value is None where it has none; `notes` say why."""

    name: str
    """What is scored beside `luma` and `linear`."""
    pairs: int
    mean: dict[str, Values]
    """Method, metric, value."""
    pictures: list["PictureScores"]
    linear_map: dict[str, object] | None = None
    """What the linear map was fitted on, and its weights."""
    notes: list[str] = field(default_factory=list)
    protocol: dict[str, str] = field(default_factory=lambda: dict(PROTOCOL))


@dataclass(frozen=True)
class PictureScores:
    """One picture's part of scores.json."""

    name: str
    width: int
    height: int
    scores: dict[str, Values]
    """Method, metric, value."""


@dataclass(frozen=True)
class Example:
    """One picture to score: the truth, and what each method made of it."""

    name: str
    nir: Nir
    fakes: Mapping[str, Nir]


def evaluate_model(
    model: Callable[[Rgb], Nir],
    data: Path,
    out: Path,
    name: str = "model",
    on_progress: Progress | None = None,
) -> Scores:
    """Translate every RGB picture of a data set and score the results; writes `out/scores.json`.

    `data` holds `rgb/` and `nir/`, or splits that do, of which `test` is scored. The linear map is fitted on the
    `train` split (inside `data` or beside it); without one, on the half of the pictures that it is not scored on.

    Raises:
        PairError: no pairs there, a picture without a partner, or partners of different sizes.
        ImageError: a picture cannot be read.
        WeightsError: a metric's network is neither on disk nor to be had.
        ConfigError: `out` cannot be written to, or `name` is a baseline's.
    """
    _check_settings(name, out)
    scored, train = find_scored(data)
    check_sizes(scored)
    scorer = _Scorer()
    _make_folder(out)
    baselines = Baselines.fit(scored, train)

    def examples() -> Iterator[Example]:
        for pair in scored:
            rgb, nir = load_pair(pair)
            yield Example(pair.name, nir, {name: model(rgb), **baselines.of(pair, rgb)})

    pictures = scorer.score_all(examples(), len(scored), on_progress)
    return _report(scorer, pictures, name, baselines.note(), [], out)


def evaluate_folders(
    fake: Path,
    nir: Path,
    out: Path,
    rgb: Path | None = None,
    name: str = "fake",
    on_progress: Progress | None = None,
) -> Scores:
    """Score a folder of pictures made by anything against the true ones; writes `out/scores.json`.

    The baselines need the RGB pictures: `rgb`, or the folder `rgb` beside `nir` if there is one.

    Raises:
        PairError: a picture without a partner, or partners of different sizes.
        ImageError: a picture cannot be read.
        WeightsError: a metric's network is neither on disk nor to be had.
        ConfigError: `out` cannot be written to, or `name` is a baseline's.
    """
    _check_settings(name, out)
    made = find_pairs(fake, nir, kind="made")
    beside = nir.parent / "rgb"
    rgb = rgb or (beside if beside.is_dir() else None)
    _check_made(made)
    scorer = _Scorer()
    _make_folder(out)
    if rgb is None:
        notes = [f"no baselines: there is no folder {beside}, and no other RGB folder was given"]
        alone = (Example(pair.name, read_nir(pair.nir), {name: read_nir(pair.rgb)}) for pair in made)
        return _report(scorer, scorer.score_all(alone, len(made), on_progress), name, None, notes, out)
    true = find_pairs(rgb, nir)
    check_sizes(true)
    baselines = Baselines.fit(true, _train_beside(nir.parent))

    def examples() -> Iterator[Example]:
        for pair, source in zip(made, true, strict=True):
            rgb_picture, nir_picture = load_pair(source)
            fakes = {name: read_nir(pair.rgb), **baselines.of(source, rgb_picture)}
            yield Example(pair.name, nir_picture, fakes)

    pictures = scorer.score_all(examples(), len(made), on_progress)
    return _report(scorer, pictures, name, baselines.note(), [], out)


def find_scored(data: Path) -> tuple[list[Pair], list[Pair]]:
    """The pairs to score, and those of the train split (none if there is none, or it is what is scored).

    Raises: PairError when `data` is of neither layout, or its pictures do not pair up.
    """
    if is_split(data):
        return find_pairs(data / "rgb", data / "nir"), _train_beside(data)
    test = data / "test"
    if is_split(test):
        return find_pairs(test / "rgb", test / "nir"), _train_beside(test)
    raise PairError(f"no pairs in {data}; expected the folders rgb and nir there, or test/rgb and test/nir")


def scores_table(scores: Scores) -> Table:
    """The means, one row a method."""
    caption = [f"linear map fitted on {scores.linear_map['fitted_on']}"] if scores.linear_map else []
    table = Table(title=f"mean of {scores.pairs} pictures", caption="\n".join([*caption, *scores.notes]) or None)
    table.add_column("")
    for metric in scores.protocol:
        table.add_column(f"{metric} {'↑' if metric in HIGHER_IS_BETTER else '↓'}", justify="right")
    for method, values in scores.mean.items():
        table.add_row(method, *(_shown(metric, values[metric]) for metric in scores.protocol))
    return table


def _shown(metric: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:z.2f}" if metric in ("PSNR", "RMSE") else f"{value:z.4f}"


def _train_beside(split: Path) -> list[Pair]:
    """The pairs of the train split that is a sibling of `split`."""
    train = split.resolve().parent / "train"
    if train == split.resolve() or not is_split(train):
        return []
    return find_pairs(train / "rgb", train / "nir")


def _check_made(made: Sequence[Pair]) -> None:
    """Decode every made picture and its truth once.

    Raises: PairError naming the first two that differ in size.
    """
    for pair in made:
        check_same_size(pair, read_nir(pair.rgb), read_nir(pair.nir))


def _check_settings(name: str, out: Path) -> None:
    """Raises: ConfigError for what would only fail once everything is scored."""
    if name in BASELINES:
        raise ConfigError(f"'{name}' is the name of a baseline; give what is scored another one")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; --out takes a folder")


def _make_folder(out: Path) -> None:
    """Raises: ConfigError if nothing can be written there, before time goes into scores."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {out}: {error.strerror}") from error
    if not os.access(out, os.W_OK):
        raise ConfigError(f"cannot write to the folder {out}: no permission")


def _report(
    scorer: "_Scorer",
    pictures: list[PictureScores],
    name: str,
    linear_map: dict[str, object] | None,
    notes: list[str],
    out: Path,
) -> Scores:
    """Take the means, and write everything down."""
    mean, missing = scorer.mean(pictures)
    scores = Scores(name, len(pictures), mean, pictures, linear_map, notes + missing)
    with atomic_path(out / "scores.json") as beside:
        beside.write_text(json.dumps(asdict(scores), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return scores


class _Scorer:
    """The metrics' networks, and the sets' running statistics."""

    def __init__(self) -> None:
        self.lpips, self.dists, self.fid = LPIPS(), DISTS(), FID()
        self.sets: dict[str, FrechetInceptionDistance] = defaultdict(self.fid.statistics)

    def score_all(self, examples: Iterable[Example], count: int, on_progress: Progress | None) -> list[PictureScores]:
        """One picture at a time in memory."""
        pictures = []
        for example in examples:
            pictures.append(self.score(example))
            if on_progress:
                on_progress(len(pictures), count)
        return pictures

    @torch.inference_mode()
    def score(self, example: Example) -> PictureScores:
        """The metrics of every method on one picture; the truth passes each network once."""
        nir = network_input(example.nir)
        lpips_nir, dists_nir, fid_nir = self.lpips.features(nir), self.dists.features(nir), self.fid.features(nir)
        scores: dict[str, Values] = {}
        for method, fake in example.fakes.items():
            square = network_input(fake)
            self.sets[method].update(fid_nir, real=True)
            self.sets[method].update(self.fid.features(square), real=False)
            scores[method] = {
                "PSNR": _finite(psnr(fake, example.nir)),
                "SSIM": ssim(fake, example.nir),
                "RMSE": rmse(fake, example.nir),
                "LPIPS": self.lpips.distance(self.lpips.features(square), lpips_nir).item(),
                "DISTS": self.dists.distance(self.dists.features(square), dists_nir).item(),
            }
        height, width = example.nir.shape
        return PictureScores(example.name, width, height, scores)

    def mean(self, pictures: Sequence[PictureScores]) -> tuple[dict[str, Values], list[str]]:
        """Method, metric, value, and why a value is missing."""
        notes = []
        if len(pictures) < 2:
            notes.append(f"no {self.fid.name}: it needs at least 2 pictures, and there is {len(pictures)}")
        means = {}
        for method, statistics in self.sets.items():
            values = _means([picture.scores[method] for picture in pictures])
            values[self.fid.name] = statistics.compute().item() if len(pictures) > 1 else None
            if values["PSNR"] is None:
                notes.append(f"no mean PSNR of {method}: a picture equals the truth, and its PSNR is infinite")
            means[method] = values
        return means, notes


def _means(pictures: Sequence[Values]) -> Values:
    """The mean of every metric; None where a picture has none."""
    means: Values = {}
    for metric in pictures[0]:
        column = [value for picture in pictures if (value := picture[metric]) is not None]
        means[metric] = math.fsum(column) / len(column) if len(column) == len(pictures) else None
    return means


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None
