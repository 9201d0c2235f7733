"""Regions of known material: boxes on RGB pictures, and what the made, the true and the grey picture hold there.

A file of regions is a CSV with the columns of `COLUMNS`: a picture's name without suffix, what the box shows, and the
box in pixels of the native picture, right and bottom being the first ones outside. A last column `scene` may name what
several pictures show alike (frames of a drive, crops of one photo, years of one place); without it every picture is a
scene of its own. Lines that start with # are comments.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from pix2next.data.pairs import Pair, find_pairs, load_pair
from pix2next.errors import LabelError
from pix2next.evaluate.baselines import Baselines
from pix2next.evaluate.cases import scored_split, train_beside
from pix2next.evaluate.contest import Progress, check_names
from pix2next.evaluate.pixelwise import eight_bit_units, ndvi_error_map, pcc
from pix2next.evaluate.scorer import TRUTH
from pix2next.images import Nir, Rgb

SIDES = ("left", "top", "right", "bottom")
COLUMNS = ("picture", "class", *SIDES)
ByMethod = dict[str, float]
"""A number for each of: the truth, the model by its name, luma, linear."""


@dataclass(frozen=True)
class Region:
    """A box inside one material of one picture."""

    picture: str
    material: str
    left: int
    top: int
    right: int
    bottom: int
    scene: str

    def cut(self, picture: Shaped[np.ndarray, "h w"]) -> Shaped[np.ndarray, "rows columns"]:
        """The pixels inside."""
        return picture[self.top : self.bottom, self.left : self.right]


@dataclass(frozen=True)
class Measured:
    """A region's numbers by method, in 8-bit units but for those of NDVI; `TRUTH` is a method where it makes sense."""

    region: Region
    level: ByMethod
    """Mean of the pixels."""
    less_luma: ByMethod
    """Level minus that of luma."""
    darker_than_luma: ByMethod
    """1 where that is below 0, else 0."""
    level_error: ByMethod
    """|level - level of the truth|."""
    ndvi_error: ByMethod
    """Mean absolute error over the pixels."""


@dataclass(frozen=True)
class Likeness:
    """Pearson's correlations over all pixels of a picture: of two of made, true and grey; NaN for one of one value."""

    picture: str
    scene: str
    made_true: float
    made_luma: float
    """With inverted luma it is this one, its sign turned round."""
    luma_true: float


@dataclass(frozen=True)
class Measurements:
    """All regions of a file, measured for one model and the baselines."""

    name: str
    """The model's."""
    regions: list[Measured]
    likeness: list[Likeness]
    """A row a picture."""
    linear_map: dict[str, object]
    """What the linear map was fitted on, and its weights."""


def read_regions(path: Path) -> list[Region]:
    """The regions of a CSV as the module describes it.

    Raises: LabelError when it cannot be read, lacks a column, holds no region, or a line is not a region.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # Spreadsheets put a byte order mark first.
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise LabelError(f"cannot read the regions {path}: {reason}") from None
    used = [(number, line) for number, line in enumerate(lines, start=1) if line.strip() and line[0] != "#"]
    header, *rows = [_cells(line) for _, line in used] or [[]]
    lacking = [column for column in COLUMNS if rows and column not in header]
    if lacking:
        raise LabelError(f"{path} has no column '{lacking[0]}'; expected {','.join(COLUMNS)} and perhaps scene")
    if not rows:
        raise LabelError(f"{path} holds no region; expected lines of {','.join(COLUMNS)} below a line with these names")
    named = [dict(zip(header, row, strict=False)) for row in rows]
    regions = [_region(row, f"{path}, line {number}") for row, (number, _) in zip(named, used[1:], strict=True)]
    _check_scenes(regions, path)
    return regions


def _cells(line: str) -> list[str]:
    """Line by line, so that a quote that is never closed spoils one region and not all."""
    return [cell.strip() for cell in next(csv.reader([line]))]


def _region(row: Mapping[str, str], where: str) -> Region:
    text = {column: row.get(column, "") for column in (*COLUMNS, "scene")}
    for column in ("picture", "class"):
        if not text[column]:
            raise LabelError(f"{where}: no {column} is named")
    for side in SIDES:
        if not text[side].isdecimal():
            raise LabelError(f"{where}: {side} is '{text[side]}', and a box is given in whole pixels from 0 on")
    left, top, right, bottom = (int(text[side]) for side in SIDES)
    if left >= right or top >= bottom:
        raise LabelError(f"{where}: there is no pixel between {left},{top} and {right},{bottom}")
    return Region(text["picture"], text["class"], left, top, right, bottom, text["scene"] or text["picture"])


def _check_scenes(regions: Sequence[Region], path: Path) -> None:
    scenes: dict[str, str] = {}
    for region in regions:
        if scenes.setdefault(region.picture, region.scene) != region.scene:
            raise LabelError(f"{path}: {region.picture} is of two scenes, {scenes[region.picture]} and {region.scene}")


def measure_regions(
    model: Callable[[Rgb], Nir], data: Path, file: Path, name: str = "model", on_progress: Progress | None = None
) -> Measurements:
    """Translate every picture that a file of regions names, and measure it there beside truth, luma and linear map.

    `data` is what `evaluate_model` takes; the linear map is fitted as there. Every picture and box is checked before
    the first is translated.

    Raises:
        LabelError: as `read_regions`; also when a picture is not there or a box reaches out of its picture.
        PairError, ImageError: the pictures of `data` do not pair up, or cannot be read.
        ConfigError: `name` is a baseline's.
    """
    check_names({name: model})
    regions = read_regions(file)
    split = scored_split(data)
    pairs = _named_pairs(regions, find_pairs(split / "rgb", split / "nir"), f"{file} and {split / 'rgb'}")
    baselines = Baselines.fit(list(pairs), train_beside(split)[0])
    for pair, inside in pairs.items():
        _check_fit(inside, load_pair(pair)[1], file)
    measured, likeness = [], []
    for done, (pair, inside) in enumerate(pairs.items(), start=1):
        rgb, nir = load_pair(pair)
        made = {name: model(rgb), **baselines.of(pair, rgb)}
        measured += [_measured(region, rgb, nir, made) for region in inside]
        fake, grey = made[name], made["luma"]
        likeness.append(Likeness(pair.name, inside[0].scene, pcc(fake, nir), pcc(fake, grey), pcc(grey, nir)))
        if on_progress:
            on_progress(done, len(pairs))
    return Measurements(name, measured, likeness, baselines.note())


def _named_pairs(regions: Sequence[Region], found: Sequence[Pair], where: str) -> dict[Pair, list[Region]]:
    """The pairs that regions name, in order, each with its regions."""
    by_name: dict[str, list[Region]] = {}
    for region in regions:
        by_name.setdefault(region.picture, []).append(region)
    unknown = sorted(by_name.keys() - {pair.name for pair in found})
    if unknown:
        raise LabelError(
            f"{where} do not go together: {len(unknown)} of the {len(by_name)} pictures with regions are not there "
            f"(first: {unknown[0]}); pictures are named without suffix"
        )
    return {pair: by_name[pair.name] for pair in found if pair.name in by_name}


def _check_fit(inside: Sequence[Region], nir: Nir, file: Path) -> None:
    height, width = nir.shape
    for region in inside:
        if region.right > width or region.bottom > height:
            box = ",".join(str(getattr(region, side)) for side in SIDES)
            raise LabelError(
                f"{file}: the box {box} reaches out of {region.picture}, which has {width} x {height} pixels"
            )


def _measured(region: Region, rgb: Rgb, nir: Nir, made: Mapping[str, Nir]) -> Measured:
    red, cuts = region.cut(rgb[..., 0]), {method: region.cut(picture) for method, picture in made.items()}
    true = region.cut(nir)
    level = {method: float(eight_bit_units(cut).mean()) for method, cut in {TRUTH: true, **cuts}.items()}
    return Measured(
        region,
        level,
        {method: mean - level["luma"] for method, mean in level.items()},
        {method: float(mean < level["luma"]) for method, mean in level.items()},
        {method: abs(level[method] - level[TRUTH]) for method in made},
        {method: float(np.abs(ndvi_error_map(red, cut, true)).mean()) for method, cut in cuts.items()},
    )
