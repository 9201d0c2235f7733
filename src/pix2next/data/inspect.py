"""A folder of pairs looked through: what is missing, broken, doubled, or does not lie on its partner."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from pix2next.data.duplicates import Duplicate, Fingerprint, find_duplicates, fingerprint
from pix2next.data.layouts import SPLITS
from pix2next.data.pairs import Pair, is_split
from pix2next.data.registration import Registration, register
from pix2next.errors import ImageError, PairError
from pix2next.images import Nir, Rgb, find_pictures, full_scale, luma, one_channel, read_rgb

FAKE = 0.999
"""NIR that correlates so much with the luma, or with one colour, is that one and no near infrared."""
COLOURED = 0.02
"""Mean spread of a pixel's channels, white being 1, above which a picture is coloured."""


class Facts(NamedTuple):
    """What was found in one pair."""

    rgb_size: tuple[int, int]
    nir_size: tuple[int, int]
    depths: tuple[str, str]
    remarks: tuple[str, ...]
    registration: Registration | None
    print: Fingerprint


@dataclass(frozen=True)
class Report:
    """What a folder holds."""

    root: Path
    pairs: dict[str, list[Pair]]
    """By split."""
    facts: dict[tuple[str, str], Facts]
    """By split and name, of the pairs that could be read."""
    problems: dict[str, list[str]]
    """By kind (unreadable, no partner, different sizes, in two splits), a sentence each."""
    remarks: dict[str, list[str]]
    """By kind, the pairs that a remark applies to; not wrong in themselves."""
    worst: list[tuple[str, Pair]]
    """Every pair whose registration could be judged, with its split, the least correlated edges first."""

    @property
    def whole(self) -> bool:
        """Whether no problem was found."""
        return not any(self.problems.values())


def inspect_pairs(root: Path, *, on_progress: Callable[[int, int], None] | None = None) -> Report:
    """Look through `root`: a folder with `rgb` and `nir`, or one whose folders (train, val, test ...) are such.

    Every picture is decoded once, on several threads; of each a kilobyte is kept.

    Raises: PairError if `root` is laid out otherwise.
    """
    splits = _splits(root)
    pairs, lonely = {}, []
    for split, folder in splits.items():
        pairs[split], missing = match_up(folder)
        lonely += missing
    jobs = [(split, pair) for split, several in pairs.items() for pair in several]
    report = on_progress or (lambda done, total: None)
    report(0, len(jobs))
    facts: dict[tuple[str, str], Facts] = {}
    unreadable = []
    with ThreadPoolExecutor() as pool:
        try:
            for done, ((split, pair), found) in enumerate(zip(jobs, pool.map(_examine, jobs), strict=True), start=1):
                if isinstance(found, Facts):
                    facts[split, pair.name] = found
                else:
                    unreadable.append(found)
                report(done, len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    problems = {
        "unreadable": unreadable,
        "no partner": lonely,
        "different sizes": _different_sizes(pairs, facts),
        "in two splits": _in_two_splits(facts),
    }
    return Report(root, pairs, facts, problems, _remarks(facts), _worst(pairs, facts))


def _splits(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        raise PairError(f"no folder {root}")
    if is_split(root):
        return {root.resolve().name: root}
    below = {path.name: path for path in sorted(root.iterdir()) if path.is_dir() and is_split(path)}
    if not below:
        raise PairError(f"no pairs in {root}; expected {root / 'rgb'} and {root / 'nir'}, or folders that hold both")
    order = [*(split for split in SPLITS if split in below), *(name for name in below if name not in SPLITS)]
    return {name: below[name] for name in order}


def match_up(folder: Path) -> tuple[list[Pair], list[str]]:
    """The pairs of a split, and a sentence for each file that has no partner, or shares its name with another."""
    named: dict[str, dict[str, list[Path]]] = {"rgb": {}, "nir": {}}
    for kind, names in named.items():
        for path in find_pictures(folder / kind):
            names.setdefault(path.relative_to(folder / kind).with_suffix("").as_posix(), []).append(path)
    alone = [
        f"{paths[0]} has no {'NIR' if kind == 'rgb' else 'RGB'} partner"
        for kind, names in named.items()
        for name, paths in names.items()
        if name not in named["nir" if kind == "rgb" else "rgb"]
    ]
    several = [
        f"{', '.join(map(str, paths))} share one name"
        for names in named.values()
        for paths in names.values()
        if len(paths) > 1
    ]
    both = sorted(named["rgb"].keys() & named["nir"].keys())
    return [Pair(name, named["rgb"][name][0], named["nir"][name][0]) for name in both], alone + several


def _examine(job: tuple[str, Pair]) -> Facts | str:
    _, pair = job
    try:
        rgb, stored = read_rgb(pair.rgb), read_rgb(pair.nir)
    except ImageError as error:
        return str(error)
    except MemoryError:
        return f"{pair.rgb}: too little memory to hold the pair"
    grey, nir = luma(rgb), one_channel(stored)
    same_size = grey.shape == nir.shape
    return Facts(
        rgb_size=(grey.shape[1], grey.shape[0]),
        nir_size=(nir.shape[1], nir.shape[0]),
        depths=(rgb.dtype.name, nir.dtype.name),
        remarks=(*_flat_and_colour(rgb, stored), *(_likeness(rgb, grey, nir) if same_size else ())),
        registration=register(grey, nir) if same_size else None,
        print=fingerprint(rgb, grey),
    )


def _flat_and_colour(rgb: Rgb, stored: Shaped[np.ndarray, "H W 3"]) -> list[str]:
    flat = [name for name, picture in (("RGB", rgb), ("NIR", stored)) if picture.min() == picture.max()]
    remarks = [f"{name} of one value" for name in flat]
    remarks += ["grey RGB"] if "RGB" not in flat and (rgb[..., :1] == rgb).all() else []
    return remarks + (["coloured NIR"] if _spread(stored) > COLOURED else [])


def _likeness(rgb: Rgb, grey: Nir, nir: Nir) -> list[str]:
    """Which of the visible pictures the NIR is, if any, up to brightness and contrast."""
    visible = {"the luma": grey, "red": rgb[..., 0], "green": rgb[..., 1], "blue": rgb[..., 2]}
    alike = [f"NIR is {name}" for name, picture in visible.items() if correlation(picture, nir) >= FAKE]
    return alike[:1]


def _spread(picture: Rgb) -> float:
    return float((picture.max(2) - picture.min(2)).mean() / full_scale(picture.dtype))


def correlation(first: Shaped[np.ndarray, "h w"], second: Shaped[np.ndarray, "h w"]) -> float:
    """Pearson's, over all pixels (a million or so of a larger picture); 0 where a picture is of one value."""
    step = math.isqrt(first.size // 2**20) or 1
    x, y = (picture[::step, ::step].astype(np.float32).reshape(-1) for picture in (first, second))
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norm if norm else 0.0


def _different_sizes(pairs: dict[str, list[Pair]], facts: dict[tuple[str, str], Facts]) -> list[str]:
    return [
        f"{pair.rgb} is {by(found.rgb_size)}, {pair.nir} is {by(found.nir_size)}"
        for split, several in pairs.items()
        for pair in several
        if (found := facts.get((split, pair.name))) and found.rgb_size != found.nir_size
    ]


def by(size: tuple[int, int]) -> str:
    """`256 x 128`."""
    return f"{size[0]} x {size[1]}"


def _in_two_splits(facts: dict[tuple[str, str], Facts]) -> list[str]:
    keys = list(facts)
    groups = [list(dict.fromkeys(split for split, _ in keys)).index(split) for split, _ in keys]
    return [_twice(keys, twin) for twin in find_duplicates([found.print for found in facts.values()], groups)]


def _twice(keys: Sequence[tuple[str, str]], twin: Duplicate) -> str:
    first, second = ("/".join(keys[place]) for place in (twin.first, twin.second))
    how = "are the same picture" if twin.exact else f"show the same (thumbnails correlate by {twin.correlation:.3f})"
    return f"{first} and {second} {how}"


def _remarks(facts: dict[tuple[str, str], Facts]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, fact in facts.items():
        shifted = ("shifted",) if fact.registration and fact.registration.is_shifted else ()
        for remark in (*fact.remarks, *shifted):
            found.setdefault(remark, []).append("/".join(key))
    copies = Counter((split, fact.print.digest) for (split, _), fact in facts.items())
    several = ["/".join(key) for key, fact in facts.items() if copies[key[0], fact.print.digest] > 1]
    return found | ({"same RGB several times in a split": several} if several else {})


def _worst(pairs: dict[str, list[Pair]], facts: dict[tuple[str, str], Facts]) -> list[tuple[str, Pair]]:
    judged = []
    for split, several in pairs.items():
        for pair in several:
            fact = facts.get((split, pair.name))
            if fact and fact.registration:
                judged.append((fact.registration.edges, split, pair))
    return [(split, pair) for _, split, pair in sorted(judged, key=lambda entry: entry[:2])]
