"""Is it just inverted grey? What measured regions say: which material is the brighter one, and by how much.

Everything is averaged within a scene first; scenes are what is counted, and what the intervals resample.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from pathlib import Path

from pix2next.evaluate.regions import ByMethod, Measured, Measurements
from pix2next.evaluate.report import make_folder
from pix2next.evaluate.scorer import TRUTH
from pix2next.evaluate.tables import escaped, markdown_table
from pix2next.evaluate.uncertainty import Interval, bootstrap_interval, known
from pix2next.images import write_text

OF_REGIONS = ("level", "less_luma", "darker_than_luma", "level_error", "ndvi_error")
"""What is known of every region, by method."""
OF_PICTURES = ("made_true", "made_luma", "luma_true")
"""Correlations that are known of every picture."""
BARE = ("level", "darker_than_luma")
"""Shown without their intervals, to keep the table narrow; regions.json has them."""
LEAST = 5
"""Scenes from which on a mean has an interval: a bootstrap of fewer says little more than their extremes."""


@dataclass(frozen=True)
class Estimate:
    """A mean over scenes, NaN where a scene has no value, and its 95 % interval, if there are `LEAST` scenes."""

    mean: float
    interval: Interval | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """The mean of one value a scene."""
        return cls(_mean(values), known(bootstrap_interval(values)) if len(values) >= LEAST else None)

    def text(self, form: str, bare: bool = False) -> str:
        """Every number in the form, as `+.1f`, without the interval if `bare`; `-` for no mean."""
        if math.isnan(self.mean):
            return "-"
        between = f" ({self.interval.low:{form}} to {self.interval.high:{form}})" if self.interval and not bare else ""
        return f"{self.mean:{form}}{between}"


@dataclass(frozen=True)
class Contrast:
    """Two materials, over the scenes that show both; the first is the brighter one in the true pictures' mean."""

    brighter: str
    darker: str
    scenes: int
    share: ByMethod
    """Share of the scenes in which the first is the brighter one, in [0, 1]."""
    difference: dict[str, Estimate]
    """Level of the first minus that of the second, by method."""


@dataclass(frozen=True)
class Material:
    """One material, over all scenes that show it, with or without another one beside it."""

    name: str
    scenes: int
    numbers: dict[str, dict[str, Estimate]]
    """Each of `OF_REGIONS`, by method."""


@dataclass(frozen=True)
class Findings:
    """What regions.json holds besides the numbers of every region and picture."""

    contrasts: list[Contrast]
    materials: list[Material]
    correlation: dict[str, Estimate]
    """Each of `OF_PICTURES`."""


def find_out(measurements: Measurements) -> Findings:
    """The means over scenes with their intervals, and how often one material is brighter than another."""
    by_material: dict[str, list[Measured]] = {}
    for measured in measurements.regions:
        by_material.setdefault(measured.region.material, []).append(measured)
    levels = {name: _by_scene(regions, "level") for name, regions in by_material.items()}
    rows = _grouped((each.scene, {kind: getattr(each, kind) for kind in OF_PICTURES}) for each in measurements.likeness)
    return Findings(
        [_contrast(a, b, levels) for a, b in permutations(sorted(levels), 2) if _is_brighter(levels[a], levels[b])],
        [_material(name, by_material[name]) for name in sorted(levels)],
        _estimates(rows.values()),
    )


def write_findings(measurements: Measurements, out: Path) -> str:
    """`regions.json` and `regions.md` in the folder `out`, each whole; gives back the text of the latter.

    Raises: ConfigError when nothing can be written there.
    """
    make_folder(out)
    findings = find_out(measurements)
    # JSON has no NaN.
    written = json.loads(json.dumps({**asdict(findings), **asdict(measurements)}), parse_constant=lambda _: None)
    text = markdown(measurements, findings)
    write_text(out / "regions.json", json.dumps(written, indent=1) + "\n")
    write_text(out / "regions.md", text)
    return text


def _by_scene(regions: Iterable[Measured], kind: str) -> dict[str, ByMethod]:
    return _grouped((measured.region.scene, getattr(measured, kind)) for measured in regions)


def _grouped(rows: Iterable[tuple[str, ByMethod]]) -> dict[str, ByMethod]:
    """The mean row of every scene."""
    found: dict[str, list[ByMethod]] = {}
    for scene, row in rows:
        found.setdefault(scene, []).append(row)
    return {scene: {name: _mean([row[name] for row in of]) for name in of[0]} for scene, of in found.items()}


def _is_brighter(a: Mapping[str, ByMethod], b: Mapping[str, ByMethod]) -> bool:
    """Whether a is, in the true pictures of the scenes that show both; of equals neither is."""
    return math.fsum(a[scene][TRUTH] - b[scene][TRUTH] for scene in a.keys() & b.keys()) > 0


def _contrast(brighter: str, darker: str, levels: Mapping[str, Mapping[str, ByMethod]]) -> Contrast:
    a, b = levels[brighter], levels[darker]
    rows = [{method: a[scene][method] - b[scene][method] for method in a[scene]} for scene in a if scene in b]
    share = {method: _mean([float(row[method] > 0) for row in rows]) for method in rows[0]}
    return Contrast(brighter, darker, len(rows), share, _estimates(rows))


def _material(name: str, regions: Sequence[Measured]) -> Material:
    scenes = len({measured.region.scene for measured in regions})
    return Material(name, scenes, {kind: _estimates(_by_scene(regions, kind).values()) for kind in OF_REGIONS})


def _estimates(rows: Iterable[ByMethod]) -> dict[str, Estimate]:
    every = list(rows)
    return {name: Estimate.of([row[name] for row in every]) for name in every[0]}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def markdown(measurements: Measurements, findings: Findings) -> str:
    """The tables of regions.md, and how each is read."""
    name, methods = measurements.name, (TRUTH, measurements.name, "luma", "linear")
    shown = escaped(name)
    levels = [(method, "level", method, ".1f") for method in methods]
    levels += [(f"{method} - luma", "less_luma", method, "+.1f") for method in methods[:2]]
    levels += [(f"{method} below luma", "darker_than_luma", method, ".0%") for method in methods[:2]]
    errors = [(f"level, {method}", "level_error", method, ".1f") for method in methods[1:]]
    errors += [(f"NDVI, {method}", "ndvi_error", method, ".3f") for method in methods[1:]]
    parts = [
        f"# {shown}: is it just inverted grey?",
        f"{len(measurements.regions)} regions in {len(measurements.likeness)} pictures of "
        f"{len({each.scene for each in measurements.likeness})} scenes; levels in 8-bit units. Regions are averaged "
        f"within a scene; means and 95 % intervals are over scenes, from {LEAST} "
        f"of them on. The linear map was fitted on "
        f"{escaped(str(measurements.linear_map['fitted_on']))}.",
        "## Which material is the brighter one",
        "In scenes that show both: the share in which the first is the brighter one, and by how much.",
        _contrast_table(findings, methods),
        "## Level of each material",
        "In all scenes that show it, with or without another one beside it; below luma: the share of its regions that "
        "are darker than in the grey picture.",
        _material_table(findings, levels),
        "## Error of each material",
        "Mean absolute error of a region's level, and of (NIR - R) / (NIR + R) at its pixels.",
        _material_table(findings, errors),
        "## Correlation over whole pictures",
        f"With inverted luma it is that with luma, its sign turned round: inverted grey would have {shown} at -1.",
        _correlation_table(findings, shown),
    ]
    return "\n\n".join(parts) + "\n"


def _contrast_table(findings: Findings, methods: Sequence[str]) -> str:
    rows = [
        [
            f"{escaped(each.brighter)} over {escaped(each.darker)}",
            str(each.scenes),
            *(f"{each.share[method]:.0%}; {each.difference[method].text('+.1f')}" for method in methods),
        ]
        for each in findings.contrasts
    ]
    return markdown_table(["", "scenes", *map(escaped, methods)], rows)


def _material_table(findings: Findings, columns: Sequence[tuple[str, str, str, str]]) -> str:
    """Columns are a heading, one of `OF_REGIONS`, a method and a form."""
    rows = [
        [
            escaped(each.name),
            str(each.scenes),
            *(each.numbers[kind][method].text(form, kind in BARE) for _, kind, method, form in columns),
        ]
        for each in findings.materials
    ]
    return markdown_table(["", "scenes", *(escaped(heading) for heading, *_ in columns)], rows)


def _correlation_table(findings: Findings, shown: str) -> str:
    labels = (f"{shown} with the truth", f"{shown} with luma", "luma with the truth")
    rows = [[label, findings.correlation[kind].text("+.3f")] for label, kind in zip(labels, OF_PICTURES, strict=True)]
    return markdown_table(["", "correlation"], rows)
