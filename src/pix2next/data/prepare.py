"""Any data set of the catalog into the project's own layout: `DST/{train,val,test}/{rgb,nir}/NAME`.

Lossless: files that hold one picture are copied byte for byte, bands and halves are written as PNG in their own depth.
The split is drawn by place, from a hash, so it depends on the names and the seed alone. A preparation that was stopped
goes on where it was: each file is there whole or not at all, and `dataset.json` says which preparation it is.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Shaped

from pix2next.data.catalog import Dataset, Options, count_notes, dataset
from pix2next.data.layouts import SPLITS, Sample
from pix2next.errors import ImageError, PairError
from pix2next.images import (
    Rgb,
    atomic_path,
    full_scale,
    one_channel,
    read_bands,
    read_rgb,
    sweep,
    write_nir,
    write_text,
)

RECORD = "dataset.json"
_FORMAT = 1
_COLOURFUL = 0.02


@dataclass(frozen=True)
class Prepared:
    """What came of a preparation."""

    counts: dict[str, int]
    """Pairs that are there, by split."""
    failed: list[tuple[str, str]]
    """What was left out: the file, and a sentence that names it and says why."""
    notes: list[str]
    """What departs from the published data set, or is good to know."""


def prepare(
    name: str,
    src: Path,
    dst: Path,
    options: Options | None = None,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Convert the data set `name` in the folder `src` to `dst`, and describe it in `dst/dataset.json`.

    Pictures that cannot be used (unreadable, without a partner, halves of different size) are reported and left out.

    Args:
        name: of an entry in the catalog.
        src: the data set as it is published, or the folder it was unpacked into.
        dst: a new or empty folder, or one where the same preparation (data set, options, files) began.
        options: what applies to this data set.
        on_progress: called with how many of how many pairs are through, first with 0.

    Raises:
        ConfigError: an unknown data set, or an option that does not apply.
        PairError: `src` is laid out otherwise, places are too few for the split, or `dst` holds something else.
    """
    entry = dataset(name)
    chosen = (options or Options()).resolved(entry.takes)
    _refuse_nested(src, dst)
    found = entry.find(src, chosen)
    samples = assign_splits(found.samples, chosen)
    _refuse_clashes(samples)
    record = _record(entry, chosen, src, samples)
    _begin(dst, record)
    failed = [*found.lonely, *_convert_all(entry, chosen, samples, dst, on_progress or (lambda done, total: None))]
    notes = [*count_notes(entry, found), *found.notes]
    left_out = {path for path, _ in failed}
    kept = [sample for sample in samples if str(sample.rgb) not in left_out]
    counts = {split: sum(sample.split == split for sample in kept) for split in SPLITS}
    record |= {"complete": True, "counts": counts, "places": _places(kept), "left_out": failed, "notes": notes}
    _write_json(dst / RECORD, record)
    return Prepared(counts, failed, notes)


def assign_splits(samples: Sequence[Sample], options: Options) -> list[Sample]:
    """Every sample with its split: the published one, or one drawn for its whole place.

    Places without a published split are put in the order of a hash of seed and place. Test is filled first, then val,
    each with whole places as long as that brings it nearer to its share of the drawn pairs; the rest is train. Where
    nothing is published, each wanted split gets a place at least.

    Raises: PairError if there are fewer places than splits that should not be empty.
    """
    sizes = Counter(sample.place for sample in samples if sample.split is None)
    if not sizes:
        return list(samples)
    shares = dict(zip(SPLITS, options.splits or (100.0, 0.0, 0.0), strict=True))
    wanted = [split for split in reversed(SPLITS) if shares[split] > 0 and split != "train"]
    nothing_published = all(sample.split is None for sample in samples)
    if len(sizes) <= len(wanted) and nothing_published:
        first = ", ".join(sorted(sizes))
        raise PairError(
            f"{len(sizes)} places ({first}) are too few for {len(wanted) + 1} splits that share none; "
            "give --splits 100,0,0, or --place with a regular expression that tells more places apart"
        )
    drawn: dict[str, str] = {}
    order = sorted(sizes, key=lambda place: hashlib.sha256(f"{options.seed}/{place}".encode()).digest())
    for split in wanted:
        target, have = shares[split] / sum(shares.values()) * sizes.total(), 0
        left = [place for place in order if place not in drawn]
        for place in left[: len(left) - (len(wanted) - wanted.index(split))]:
            if (nothing_published and have == 0) or abs(have + sizes[place] - target) < abs(have - target):
                drawn[place] = split
                have += sizes[place]
    return [sample if sample.split else sample._replace(split=drawn.get(sample.place, "train")) for sample in samples]


def _places(samples: Iterable[Sample]) -> dict[str, list[str]]:
    return {split: sorted({sample.place for sample in samples if sample.split == split}) for split in SPLITS}


def _refuse_nested(src: Path, dst: Path) -> None:
    source, target = src.resolve(), dst.resolve()
    if target.is_relative_to(source) or source.is_relative_to(target):
        raise PairError(f"{dst} and {src} lie in one another; give a folder outside of the data set")


def _refuse_clashes(samples: Sequence[Sample]) -> None:
    seen: dict[tuple[str | None, str], Path] = {}
    for sample in samples:
        other = seen.setdefault((sample.split, sample.name), sample.rgb)
        if other != sample.rgb:
            raise PairError(f"{other} and {sample.rgb} would get one name, {sample.name}; rename one")


def _record(entry: Dataset, options: Options, src: Path, samples: Sequence[Sample]) -> dict[str, Any]:
    """What `dataset.json` says before anything is converted: enough to know the same preparation again."""
    files = sorted({path for sample in samples for path in _files(sample)})
    listed = "\n".join(f"{path.relative_to(src).as_posix()}\t{path.stat().st_size}" for path in files)
    return {
        "format": _FORMAT,
        "complete": False,
        "name": entry.name,
        "title": entry.title,
        "citation": entry.citation,
        "terms": entry.terms,
        "obtain": entry.obtain,
        "split": entry.split,
        "options": {name: value for name, value in asdict(options).items() if value is not None},
        "versions": {"pix2next": version("pix2next"), "opencv": cv2.__version__},
        "source": {"files": len(files), "names_and_sizes_sha256": hashlib.sha256(listed.encode()).hexdigest()},
    }


def _files(sample: Sample) -> list[Path]:
    return [sample.rgb, *([sample.nir] if sample.nir else []), *(path for _, path in sample.labels)]


def _begin(dst: Path, record: Mapping[str, Any]) -> None:
    """Make `dst`, or go on in it if the same preparation began there. Raises: PairError if it holds anything else."""
    if dst.exists() and not dst.is_dir():
        raise PairError(f"{dst} exists and is no folder; give a folder")
    if dst.is_dir() and any(dst.iterdir()):
        other = _read_record(dst)
        told = json.loads(json.dumps(record))
        for key in ("format", "name", "options", "source"):
            if other.get(key) != told[key]:
                came = f"{key} {json.dumps(other.get(key))} instead of {json.dumps(told[key])}"
                raise PairError(f"{dst} holds another preparation ({came}); give a new folder")
        sweep(dst)
    _write_json(dst / RECORD, record)


def _read_record(dst: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((dst / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise PairError(f"{dst} is not empty and holds no {RECORD} of a preparation; give a new folder") from None


def _write_json(path: Path, record: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def _convert_all(
    entry: Dataset, options: Options, samples: Sequence[Sample], dst: Path, report: Callable[[int, int], None]
) -> list[tuple[str, str]]:
    def one(sample: Sample) -> tuple[str, str] | None:
        try:
            _convert(entry, options, sample, dst / str(sample.split))
        except (ImageError, PairError) as error:
            return str(sample.rgb), str(error)
        except MemoryError:
            return str(sample.rgb), f"{sample.rgb}: too little memory to hold the picture"
        return None

    report(0, len(samples))
    failed = []
    with ThreadPoolExecutor() as pool:
        try:
            for done, problem in enumerate(pool.map(one, samples), start=1):
                failed += [problem] if problem else []
                report(done, len(samples))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return failed


def _convert(entry: Dataset, options: Options, sample: Sample, folder: Path) -> None:
    """Write what is not there yet; nothing at all if the pair cannot be used."""
    rgb_to = folder / "rgb" / f"{sample.name}{sample.rgb.suffix if sample.nir else '.png'}"
    nir_to = folder / "nir" / f"{sample.name}{sample.nir.suffix if sample.nir else '.png'}"
    copies = [(path, folder / kind / f"{sample.name}{path.suffix}") for kind, path in sample.labels]
    if not (rgb_to.exists() and nir_to.exists()):
        match entry.holds:
            case "pairs":
                assert sample.nir is not None
                rgb, nir = read_rgb(sample.rgb), read_rgb(sample.nir)
                copies = [(sample.rgb, rgb_to), (sample.nir, nir_to), *copies]
            case "bands":
                rgb, nir = _from_bands(sample.rgb, options)
            case "halves":
                rgb, nir = _from_halves(sample.rgb, options)
        _check(entry, sample, rgb, nir)
        if sample.nir is None:
            _write_rgb(rgb_to, rgb)
            write_nir(nir_to, one_channel(nir))
    for source, target in copies:
        if not target.exists():
            with atomic_path(target) as beside:
                shutil.copyfile(source, beside)


def _from_bands(path: Path, options: Options) -> tuple[Rgb, Shaped[np.ndarray, "h w"]]:
    bands, places = read_bands(path), options.bands or (1, 2, 3, 4)
    if bands.shape[2] < max(places):
        told = ", ".join(map(str, places))
        raise ImageError(f"{path} has {bands.shape[2]} bands; R, G, B and NIR were looked for at {told} (--bands)")
    rgb = np.ascontiguousarray(bands[:, :, [place - 1 for place in places[:3]]])
    return rgb, np.ascontiguousarray(bands[:, :, places[3] - 1])


def _from_halves(path: Path, options: Options) -> tuple[Rgb, Rgb]:
    whole = read_rgb(path)
    if whole.shape[1] % 2:
        raise ImageError(f"{path} is {whole.shape[1]} pixels wide, which are no two equal halves")
    left, right = np.hsplit(whole, 2)
    rgb, nir = (right, left) if options.left == "nir" else (left, right)
    return np.ascontiguousarray(rgb), np.ascontiguousarray(nir)


def _check(entry: Dataset, sample: Sample, rgb: Rgb, nir: Shaped[np.ndarray, "..."]) -> None:
    """Raises: PairError or ImageError if these two are no pair of this data set."""
    height, width = rgb.shape[:2]
    if nir.shape[:2] != (height, width):
        sizes = f"{width} x {height} and {nir.shape[1]} x {nir.shape[0]}"
        raise PairError(f"{sample.rgb} and {sample.nir} differ in size: {sizes}")
    if entry.size and (width, height) != entry.size:
        published = f"{entry.size[0]} x {entry.size[1]}"
        raise ImageError(f"{sample.rgb} is {width} x {height}; the pictures of {entry.name} are {published}")
    if nir.ndim == 3 and _colour(rgb) < _COLOURFUL < _colour(nir):
        hint = "; give --left nir" if entry.holds == "halves" else "; are they swapped?"
        raise PairError(f"{sample.rgb}: what should be RGB is grey and what should be NIR is coloured{hint}")


def _colour(picture: Rgb) -> float:
    """Mean spread of a pixel's channels on the scale where white is 1; JPEG's noise of grey stays below 0.02."""
    return float((picture.max(2) - picture.min(2)).mean() / full_scale(picture.dtype))


def _write_rgb(path: Path, rgb: Rgb) -> None:
    whole, data = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    if not whole:
        raise ImageError(f"cannot write {path}: OpenCV could not encode {rgb.shape[1]} x {rgb.shape[0]} pixels")
    with atomic_path(path) as beside:
        beside.write_bytes(data.data)
