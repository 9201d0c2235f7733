"""How public RGB-NIR data sets lie on disk: each function finds the pairs of one layout and what they lack.

No picture is opened here. Two files are partners when their names say so, never because they sort alike.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pix2next.data.pairs import pair_name
from pix2next.errors import PairError
from pix2next.images import find_pictures

SPLITS = ("train", "val", "test")
NIRSCENE1_CATEGORIES = ("country", "field", "forest", "indoor", "mountain", "oldbuilding", "street", "urban", "water")


class Sample(NamedTuple):
    """One pair to be: the name it gets, where it was taken, and the files it comes from."""

    name: str
    place: str
    """What may not be divided among splits: a scene, a sequence, a spot on the map."""
    split: str | None
    """As published; None where the split is to be drawn."""
    rgb: Path
    nir: Path | None
    """None where `rgb` holds both, as bands or side by side."""
    labels: tuple[tuple[str, Path], ...] = ()
    """What else belongs to it, by the folder it goes to."""


class Found(NamedTuple):
    """The pairs of a layout; the files left without a partner, each with a sentence; what a user should know."""

    samples: list[Sample]
    lonely: list[tuple[str, str]]
    notes: list[str]


def find_ranus(src: Path) -> Found:
    """`RGB/01/*_rgb.png`, `NIR/01/*_nir.png` and `GT/01/*_gt.png`, folders 01 to 50; a folder is a place."""
    root = find_root(src, ("RGB", "NIR"), "RANUS: RGB/01/*_rgb.png and NIR/01/*_nir.png, one folder a scene")
    labels = _keyed(root / "GT", ("_gt",)) if (root / "GT").is_dir() else {}
    keys, rgb, nir, lonely = _partners(_keyed(root / "RGB", ("_rgb",)), _keyed(root / "NIR", ("_nir",)))
    samples = [
        Sample(key, key.split("/")[0], None, rgb[key], nir[key], (("gt", labels[key]),) if key in labels else ())
        for key in keys
    ]
    return Found(samples, lonely, [])


def find_idd_aw(src: Path) -> Found:
    """`{train,val}/{FOG,RAIN,LOWLIGHT,SNOW}/{rgb,nir,gtSeg}/SEQUENCE/FRAME_{rgb.png,nir.png,mask.json}`."""
    expected = "IDD-AW: train/FOG/rgb/SEQUENCE/*_rgb.png and train/FOG/nir/SEQUENCE/*_nir.png"
    root = find_root(src, ("train",), expected)
    weathers = [(split, folder) for split in SPLITS for folder in _folders(root / split) if (folder / "rgb").is_dir()]
    if not weathers:
        raise PairError(f"{root / 'train'} is not laid out as {expected}")
    samples, lonely, notes = [], [], []
    for split, weather in weathers:
        if not (weather / "nir").is_dir():
            notes.append(f"{weather} has no folder nir, so it was passed over")
            continue
        keys, rgb, nir, missing = _partners(_keyed(weather / "rgb", ("_rgb",)), _keyed(weather / "nir", ("_nir",)))
        lonely += missing
        for key in keys:
            sequence, mask = f"{weather.name}/{key.rpartition('/')[0]}", weather / "gtSeg" / f"{key}_mask.json"
            labels = (("gtSeg", mask),) if mask.is_file() else ()
            samples.append(Sample(f"{weather.name}/{key}", sequence, split, rgb[key], nir[key], labels))
    return Found(samples, lonely, [*notes, *_divided(samples)])


def find_nirscene1(src: Path) -> Found:
    """`CATEGORY/0000_rgb.tiff` and `CATEGORY/0000_nir.tiff`; ten numbers in a row of a category are one place."""
    expected = "nirscene1: country/0000_rgb.tiff and country/0000_nir.tiff, one folder a category"
    root = find_root(src, NIRSCENE1_CATEGORIES, expected, enough=any)
    rgb, nir = _by_ending(root, ("_rgb",)), _by_ending(root, ("_nir",))
    keys, rgb, nir, lonely = _partners(rgb, nir)
    return Found([Sample(key, _decade(key), None, rgb[key], nir[key]) for key in keys], lonely, [])


def _decade(key: str) -> str:
    folder, _, number = key.rpartition("/")
    return f"{folder}/{int(number) // 10}x" if number.isdecimal() else key


def find_vcip2020(src: Path) -> Found:
    """`NIR/*_nir.png` with `RGB-Registered/*_rgb_reg.png`; `Validation` and `Testing` hold both kinds in one folder."""
    expected = "VCIP 2020: NIR/country_0000_nir.png and RGB-Registered/country_0000_rgb_reg.png"
    root = find_root(src, ("NIR",), expected)
    registered = next((root / name for name in ("RGB-Registered", "RGB-Resgistered") if (root / name).is_dir()), None)
    if registered is None:
        raise PairError(f"{root} has no folder RGB-Registered; it is not laid out as {expected}")
    colour, infrared = ("_rgb_reg", "_rgb"), ("_nir_reg", "_nir")
    parts = {"train": (_by_ending(registered, colour), _by_ending(root / "NIR", infrared))}
    for split, name in (("val", "Validation"), ("test", "Testing")):
        if (root / name).is_dir():
            parts[split] = (_by_ending(root / name, colour), _by_ending(root / name, infrared))
    samples, lonely, notes = [], [], []
    for split, (of_rgb, of_nir) in parts.items():
        if not of_rgb:
            notes.append(f"the {split} pictures come without RGB ones, so they were passed over")
            continue
        keys, rgb, nir, missing = _partners(of_rgb, of_nir)
        lonely += missing
        samples += [Sample(key, key, split, rgb[key], nir[key]) for key in keys]
    return Found(samples, lonely, notes)


def find_naip_trees(src: Path) -> Found:
    """`images/CITY_YEAR_NUMBER.tif`, `csv/CITY_YEAR_NUMBER.csv`, and names in `train.txt`, `val.txt`, `test.txt`.

    A place is a city's crop number, whatever the year. It goes whole to the most held-out split (test, then val) that
    lists any of its years; places in no list are drawn.
    """
    root = find_root(src, ("images",), "the NAIP urban trees: images/*.tif, csv/*.csv and train.txt, val.txt, test.txt")
    listed: dict[str, set[str]] = {}
    for split in SPLITS:
        for name in _lines(root / f"{split}.txt"):
            listed.setdefault(_spot(name), set()).add(split)
    samples: list[Sample] = []
    for path in rasters(root / "images"):
        label = root / "csv" / f"{path.stem}.csv"
        held_out = max(listed.get(_spot(path.stem), ()), key=SPLITS.index, default=None)
        labels = (("trees", label),) if label.is_file() else ()
        samples.append(Sample(path.stem, _spot(path.stem), held_out, path, None, labels))
    present = {sample.place for sample in samples}
    gone = sorted(set(listed) - present)
    moved = sum(len(splits) > 1 for splits in listed.values())
    notes = [f"{moved} places stand in several lists; each went whole to the most held-out one"] if moved else []
    if gone:
        notes.append(f"{len(gone)} places of the lists have no picture here (first: {gone[0]})")
    return Found(samples, [], notes)


def _spot(name: str) -> str:
    """`long_beach_2016_36` and `long_beach_2020_36` are both `long_beach 36`; so is `long_beach36`."""
    found = re.fullmatch(r"(.*?)_?(?:_(\d{4}))?_?(\d+)", name)
    return f"{found[1]} {found[3]}" if found else name


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split() if path.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        raise PairError(f"cannot read the list {path}: {error}") from None


def find_folder(src: Path, files: Sequence[Path], place: str | None, *, divided: bool) -> Found:
    """Any folder of files that hold both pictures.

    Folders train, val and test on top are a published split. Otherwise what `place` finds in a name, or else the
    folder a file lies in, is its place.

    Raises: PairError if places cannot be told apart though the files are to be `divided` among splits.
    """
    paths = [path.relative_to(src) for path in files]
    published = {path.parts[0] for path in paths} <= set(SPLITS)
    names = {path: path.relative_to(path.parts[0]) if published else path for path in paths}
    folders = {path.parent for path in paths}
    if divided and not (published or place or len(folders) > 1):
        raise PairError(
            f"nothing in {src} tells places apart: all files lie in one folder; give --place with a regular expression "
            r"whose groups name the place (as '(.+)_\d+'), or --splits 100,0,0 to take all for training"
        )
    samples = []
    for path in paths:
        spot = pair_name(path, place) if place else path.parent.as_posix()
        if spot is None:
            raise PairError(f"--place {place!r} finds nothing in {src / path}")
        name = names[path].with_suffix("").as_posix()
        samples.append(Sample(name, spot, path.parts[0] if published else None, src / path, None))
    return Found(samples, [], [])


def rasters(folder: Path) -> list[Path]:
    """Every TIFF below `folder`. Raises: PairError if there is none."""
    found = [path for path in pictures(folder) if path.suffix.lower() in (".tif", ".tiff")]
    if not found:
        raise PairError(f"no .tif or .tiff in {folder}")
    return found


def pictures(folder: Path) -> list[Path]:
    """Every picture below `folder`. Raises: PairError if there is none."""
    found = find_pictures(folder) if folder.is_dir() else []
    if not found:
        raise PairError(f"no pictures in {folder}" if folder.is_dir() else f"no folder {folder}")
    return found


def find_root(
    src: Path, marks: Sequence[str], expected: str, *, enough: Callable[[Iterable[bool]], bool] = all
) -> Path:
    """`src`, or the folder in it that an archive unpacked into, which holds all (or `any`) of the folders `marks`.

    Raises: PairError, which names the layout that was `expected`.
    """
    if not src.is_dir():
        raise PairError(f"no folder {src}")
    fitting = [folder for folder in (src, *_folders(src)) if enough((folder / mark).is_dir() for mark in marks)]
    if not fitting:
        raise PairError(f"{src} is not laid out as {expected}")
    return fitting[0]


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _keyed(folder: Path, endings: Sequence[str]) -> dict[str, Path]:
    """Pictures below `folder` by their path without suffix and without the ending that says which of a pair it is."""
    found: dict[str, Path] = {}
    for path in pictures(folder):
        key = path.relative_to(folder).with_suffix("").as_posix()
        key = next((key.removesuffix(ending) for ending in endings if key.endswith(ending)), key)
        if key in found:
            raise PairError(f"{found[key]} and {path} stand for the same picture; keep one")
        found[key] = path
    return found


def _by_ending(folder: Path, endings: Sequence[str]) -> dict[str, Path]:
    """As `_keyed`, of those alone whose name has one of the endings."""
    found = _keyed(folder, ())
    ending_of = {key: next((end for end in endings if key.endswith(end)), None) for key in found}
    return {key.removesuffix(end): found[key] for key, end in ending_of.items() if end}


def _partners(
    rgb: dict[str, Path], nir: dict[str, Path]
) -> tuple[list[str], dict[str, Path], dict[str, Path], list[tuple[str, str]]]:
    lonely = [(str(rgb[key]), f"{rgb[key]} has no NIR partner") for key in sorted(rgb.keys() - nir.keys())]
    lonely += [(str(nir[key]), f"{nir[key]} has no RGB partner") for key in sorted(nir.keys() - rgb.keys())]
    return sorted(rgb.keys() & nir.keys()), rgb, nir, lonely


def _divided(samples: Sequence[Sample]) -> list[str]:
    splits: dict[str, set[str | None]] = {}
    for sample in samples:
        splits.setdefault(sample.place, set()).add(sample.split)
    shared = sorted(place for place, several in splits.items() if len(several) > 1)
    return [f"{len(shared)} sequences stand in several published splits (first: {shared[0]})"] if shared else []
