"""Registered RGB-NIR pairs on disk: found, matched by name, checked, loaded."""

import csv
import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from pix2next.config import DataConfig
from pix2next.errors import ImageError, PairError
from pix2next.images import Nir, Rgb, find_pictures, read_nir, read_rgb

NAMED = 50
"""So many mismatched pictures are named in a message; the rest are counted."""

log = logging.getLogger(__name__)


class Pair(NamedTuple):
    """Two files that show the same scene, pixel on pixel, and the name they share."""

    name: str
    rgb: Path
    nir: Path


def find_pairs(rgb: Path, nir: Path, match: str | None = None, *, kind: str = "RGB") -> list[Pair]:
    """All pairs of two folders (searched through), in the order of their names; `kind` says what the first one holds.

    Two pictures pair up when their paths inside the folders are equal but for the suffix; or, given the regular
    expression `match`, when its groups, joined by `/`, find the same in both paths.

    Raises:
        PairError: a folder is missing or empty, or a picture has no partner or several; the message counts them and
            names the first of each kind.
    """
    rgbs, nirs = _by_name(rgb, match), _by_name(nir, match)
    problems = [
        *_lonely(rgbs, nirs, f"no NIR picture in {nir} for", f"{kind} pictures of {rgb}"),
        *_lonely(nirs, rgbs, f"no {kind} picture in {rgb} for", f"NIR pictures of {nir}"),
    ]
    if problems:
        raise PairError("; ".join(problems))
    return [Pair(name, rgbs[name], nirs[name]) for name in sorted(rgbs)]


def partners(rgb: Path, nir: Path, match: str | None = None, *, kind: str = "RGB") -> tuple[list[Pair], dict[str, str]]:
    """As `find_pairs`, but pictures without a partner are left out: by name, a sentence that says what is missing.

    Raises:
        PairError: a folder is missing or empty, a name stands for several files, or no two pictures pair up.
    """
    rgbs, nirs = _by_name(rgb, match), _by_name(nir, match)
    lonely = {name: f"{rgbs[name]} has no NIR picture in {nir}" for name in rgbs.keys() - nirs.keys()}
    lonely |= {name: f"{nirs[name]} has no {kind} picture in {rgb}" for name in nirs.keys() - rgbs.keys()}
    pairs = [Pair(name, rgbs[name], nirs[name]) for name in sorted(rgbs.keys() & nirs.keys())]
    if not pairs:
        raise PairError(f"no {kind} picture of {rgb} has a partner in {nir}")
    return pairs, dict(sorted(lonely.items()))


def _by_name(folder: Path, match: str | None) -> dict[str, Path]:
    if not folder.is_dir():
        raise PairError(f"no folder {folder}")
    named = [(pair_name(path.relative_to(folder), match), path) for path in find_pictures(folder)]
    unnamed = [path for name, path in named if name is None]
    if unnamed:
        raise PairError(
            f"{match!r} finds nothing in the names of {len(unnamed)} of {len(named)} files (first: {unnamed[0]})"
        )
    if not named:
        raise PairError(f"no pictures in {folder}")
    counts = Counter(name for name, _ in named)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        files = ", ".join(str(path) for name, path in named if name == twice[0])
        raise PairError(f"{len(twice)} names stand for several files in {folder} (first: {files})")
    return {name: path for name, path in named if name is not None}


def pair_name(path: Path, match: str | None) -> str | None:
    """What a picture's partner shares: its path without suffix, or the joined groups of `match`; None without a find.

    Raises:
        PairError: `match` is no regular expression, or has no group.
    """
    if match is None:
        return path.with_suffix("").as_posix()
    try:
        pattern = re.compile(match)
    except re.error as error:
        raise PairError(f"data.match: {match!r} is no regular expression ({error})") from None
    if not pattern.groups:
        raise PairError(f"data.match: {match!r} has no group; put what both names share in parentheses")
    found = pattern.search(path.as_posix())
    return "/".join(group or "" for group in found.groups()) if found else None


def _lonely(these: dict[str, Path], those: dict[str, Path], what: str, of: str) -> list[str]:
    names = sorted(these.keys() - those.keys())
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    shown = ", ".join(these[name].name for name in names[:NAMED]) + more
    return [f"{what} {len(names)} of {len(these)} {of} ({shown})"] if names else []


def read_pair_list(path: Path, split: str) -> list[Pair]:
    """The pairs of one split in a CSV with the columns `split`, `rgb` and `nir`; paths are relative to the CSV.

    Raises:
        PairError: a column, a file or the split is missing.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # Spreadsheets put a byte order mark first.
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise PairError(f"cannot read the list of pairs {path}: {reason}") from None
    lacking = [name for name in ("split", "rgb", "nir") if not rows or not rows[0].get(name)]
    if lacking:
        raise PairError(f"{path} has no column {lacking[0]!r}; expected split,rgb,nir")
    chosen = [row for row in rows if row["split"] == split]
    pairs = [Pair(row["rgb"], path.parent / row["rgb"], path.parent / (row["nir"] or "")) for row in chosen]
    missing = [file for pair in pairs for file in (pair.rgb, pair.nir) if not file.is_file()]
    if missing:
        raise PairError(f"{path} names {len(missing)} files that are not there (first: {missing[0]})")
    if not pairs:
        known = ", ".join(sorted({row["split"] for row in rows}))
        raise PairError(f"{path} has no pair of split {split!r} (it has {known})")
    return pairs


def find_split(root: Path, split: str, match: str | None = None) -> list[Pair]:
    """The pairs under `root/split/rgb` and `root/split/nir`.

    Raises:
        PairError: as `find_pairs`; also when the layout is another, with the one expected.
    """
    folder = root / split
    if not is_split(folder):
        raise PairError(f"no {split} pairs in {root}; expected {folder / 'rgb'} and {folder / 'nir'}")
    return find_pairs(folder / "rgb", folder / "nir", match)


def is_split(folder: Path) -> bool:
    """Whether `folder` is laid out as a split: with `rgb` and `nir` in it."""
    return (folder / "rgb").is_dir() and (folder / "nir").is_dir()


def configured_pairs(config: DataConfig, split: str) -> list[Pair]:
    """The pairs that the settings name for `train` or `val`: a list, two folders, or a root with splits.

    Raises:
        PairError: nothing is named, or what is named is not whole.
    """
    rgb, nir = getattr(config, f"{split}_rgb"), getattr(config, f"{split}_nir")
    if config.pairs:
        return read_pair_list(config.pairs, split)
    if rgb and nir:
        return find_pairs(rgb, nir, config.match)
    if config.root:
        return find_split(config.root, split, config.match)
    raise PairError(f"no {split} data: set data.root, data.pairs, or data.{split}_rgb and data.{split}_nir")


def load_pair(pair: Pair) -> tuple[Rgb, Nir]:
    """RGB and NIR in the depth that they are stored in.

    Raises:
        ImageError: a file cannot be read.
        PairError: the two differ in size.
    """
    rgb, nir = read_rgb(pair.rgb), read_nir(pair.nir)
    check_same_size(pair, rgb, nir)
    return rgb, nir


def check_same_size(pair: Pair, first: Shaped[np.ndarray, "..."], second: Shaped[np.ndarray, "..."]) -> None:
    """Raises: PairError when the two pictures of `pair` differ in size."""
    if first.shape[:2] != second.shape[:2]:
        sizes = " and ".join(f"{picture.shape[1]} x {picture.shape[0]}" for picture in (first, second))
        raise PairError(f"{pair.rgb} and {pair.nir} differ in size: {sizes}")


def check_sizes(pairs: Sequence[Pair]) -> None:
    """Decode every pair once.

    Raises:
        PairError: the sizes of pairs differ; the message counts them and names the first.
        ImageError: a file cannot be read.
    """
    if unreadable := _check(pairs):
        raise next(iter(unreadable.values()))


def readable(pairs: Sequence[Pair]) -> list[Pair]:
    """Decode every pair once; those with a file that cannot be read are named in the log and left out.

    Raises:
        PairError: the sizes of pairs differ, or none is left.
    """
    unreadable = _check(pairs)
    for error in unreadable.values():
        log.warning("left out: %s", error)
    left = [pair for pair in pairs if pair not in unreadable]
    if not left:
        raise PairError(f"none of the {len(pairs)} pairs can be read (first: {pairs[0].rgb})")
    return left


def _check(pairs: Sequence[Pair]) -> dict[Pair, ImageError]:
    """The pairs that cannot be read, and why."""
    with ThreadPoolExecutor() as pool:
        found = dict(zip(pairs, pool.map(_problem, pairs), strict=True))
    mispaired = [problem for problem in found.values() if isinstance(problem, PairError)]
    if mispaired:
        raise PairError(f"{len(mispaired)} of {len(pairs)} pairs differ in size (first: {mispaired[0]})")
    return {pair: problem for pair, problem in found.items() if isinstance(problem, ImageError)}


def _problem(pair: Pair) -> ImageError | PairError | None:
    try:
        load_pair(pair)
    except (ImageError, PairError) as error:
        return error
    return None


def overlap(train: Sequence[Pair], val: Sequence[Pair]) -> list[str]:
    """Files that stand in both splits: a score on them would say nothing."""
    seen = {os.path.realpath(pair.rgb) for pair in train}
    return [str(pair.rgb) for pair in val if os.path.realpath(pair.rgb) in seen]
