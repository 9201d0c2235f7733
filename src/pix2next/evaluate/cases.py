"""What is scored, as files: a true NIR picture each, its RGB picture, and pictures that other tools made of it."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pix2next.data.pairs import Pair, check_same_size, find_pairs, is_split, partners
from pix2next.errors import ImageError, PairError
from pix2next.images import Nir, Rgb, read_nir, read_rgb


@dataclass(frozen=True)
class Case:
    """One scene's files."""

    name: str
    nir: Path
    rgb: Path | None = None
    """None where only the pictures that were made of it are known."""
    made: Mapping[str, Path] = field(default_factory=dict)
    """Method, file, for methods whose pictures lie ready."""

    @property
    def pair(self) -> Pair:
        """Only for a case with an RGB picture."""
        assert self.rgb is not None
        return Pair(self.name, self.rgb, self.nir)


class LeftOut(NamedTuple):
    """A picture that was not scored."""

    name: str
    reason: str


class Loaded(NamedTuple):
    """A case's pixels."""

    rgb: Rgb | None
    nir: Nir
    made: dict[str, Nir]


def load_case(case: Case) -> Loaded:
    """All of a case's pictures in the depth that they are stored in.

    Raises:
        ImageError: a file cannot be read.
        PairError: two of them differ in size.
    """
    nir = read_nir(case.nir)
    rgb = read_rgb(case.rgb) if case.rgb else None
    if rgb is not None:
        check_same_size(case.pair, rgb, nir)
    made = {}
    for method, path in case.made.items():
        made[method] = read_nir(path)
        check_same_size(Pair(case.name, path, case.nir), made[method], nir)
    return Loaded(rgb, nir, made)


def find_cases(
    rgb: Path | None, nir: Path, made: Mapping[str, Path], skip_bad: bool = False
) -> tuple[list[Case], list[LeftOut]]:
    """The scenes that every folder has a picture of, matched by name, and what was left out.

    Raises: PairError when a folder is missing or empty, or, unless `skip_bad`, a picture has no partner.
    """
    found: dict[str, dict[str, Pair]] = {}
    lonely: dict[str, str] = {}
    for method, folder in {**made, **({"": rgb} if rgb else {})}.items():
        kind = "made" if method else "RGB"
        if skip_bad:
            pairs, without = partners(folder, nir, kind=kind)
            lonely = without | lonely
        else:
            pairs = find_pairs(folder, nir, kind=kind)
        found[method] = {pair.name: pair for pair in pairs}
    common = sorted(set.intersection(*(set(pairs) for pairs in found.values())))
    if not common:
        raise PairError(f"no NIR picture of {nir} has a partner in each of the other folders")
    cases = [
        Case(
            name,
            next(iter(found.values()))[name].nir,
            found[""][name].rgb if rgb else None,
            {method: found[method][name].rgb for method in made},
        )
        for name in common
    ]
    return cases, [LeftOut(name, reason) for name, reason in sorted(lonely.items())]


def usable(cases: Sequence[Case], skip_bad: bool = False) -> tuple[list[Case], list[LeftOut]]:
    """Decode every picture once, before time goes into scores: the cases that can be scored, and what was left out.

    Raises: ImageError or PairError for the first bad one, unless `skip_bad`; and in any case when all are bad.
    """
    with ThreadPoolExecutor() as pool:
        problems = list(pool.map(_problem, cases))
    bad = [(case, problem) for case, problem in zip(cases, problems, strict=True) if problem]
    if bad and (not skip_bad or len(bad) == len(cases)):
        first = bad[0][1]
        if len(bad) == 1:
            raise first
        raise type(first)(f"{len(bad)} of {len(cases)} pictures cannot be scored (first: {first})")
    left = [case for case, problem in zip(cases, problems, strict=True) if not problem]
    return left, [LeftOut(case.name, str(problem)) for case, problem in bad]


def scored_split(data: Path) -> Path:
    """The folder with `rgb/` and `nir/` that is scored: `data` itself, or its split `test`.

    Raises: PairError when `data` is of neither layout.
    """
    for folder in (data, data / "test"):
        if is_split(folder):
            return folder
    raise PairError(f"no pairs in {data}; expected the folders rgb and nir there, or test/rgb and test/nir")


def train_beside(split: Path, skip_bad: bool = False) -> tuple[list[Pair], list[LeftOut]]:
    """The pairs of the train split that is a sibling of `split`; none if there is none, or it is `split` itself.

    Raises: PairError when its pictures do not pair up, unless `skip_bad`.
    """
    train = split.resolve().parent / "train"
    if train == split.resolve() or not is_split(train):
        return [], []
    cases, lonely = find_cases(train / "rgb", train / "nir", {}, skip_bad)
    if not skip_bad:
        return [case.pair for case in cases], []
    good, bad = usable(cases, skip_bad)
    return [case.pair for case in good], [LeftOut(f"train/{name}", reason) for name, reason in [*lonely, *bad]]


def _problem(case: Case) -> ImageError | PairError | None:
    try:
        load_case(case)
    except (ImageError, PairError) as error:
        return error
    return None
