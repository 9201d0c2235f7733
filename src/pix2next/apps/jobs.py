"""Which pictures an input stands for, and which file each becomes."""

import glob
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pix2next.errors import ConfigError, ImageError
from pix2next.images import PICTURE_SUFFIXES, find_pictures
from pix2next.images.files import is_picture_name

OUT_FORMATS = tuple(sorted(suffix[1:] for suffix in PICTURE_SUFFIXES))
LOSSY = ("jpeg", "jpg", "webp")
"""Formats with a quality."""


class Job(NamedTuple):
    """One picture to translate, and the file to write."""

    source: Path
    target: Path


class Found(NamedTuple):
    """A picture that an input stands for, and the name it has below the output folder if names are kept."""

    source: Path
    name: Path


@dataclass(frozen=True)
class Output:
    """How translated pictures are named and written. Nothing given keeps names and formats, and replaces files.

    Raises: ConfigError if a value is impossible.
    """

    suffix: str = ""
    """Comes between a name's stem and its ending: `_nir` makes `a_nir.jpg` of `a.jpg`."""
    out_format: str | None = None
    """One of `OUT_FORMATS`; each picture's own if None."""
    quality: int | None = None
    """1 to 100, for JPEG (95 if None) and WebP (lossless if None)."""
    overwrite: bool = True
    """Whether a picture whose file is there already is translated again."""

    def __post_init__(self) -> None:
        if any(character in self.suffix for character in "/\\\0"):
            raise ConfigError(f"a suffix is a part of a name, as _nir; {self.suffix!r} would lead to another folder")
        if self.out_format is not None and self.out_format not in OUT_FORMATS:
            raise ConfigError(f"{self.out_format!r} is no format that is written; known are {', '.join(OUT_FORMATS)}")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ConfigError(f"a quality is between 1 and 100, not {self.quality}")
        if self.quality is not None and self.out_format not in (None, *LOSSY):
            raise ConfigError(f"{self.out_format} keeps every pixel and knows no quality; jpg and webp do")

    def renamed(self, name: Path) -> Path:
        """The name of a picture's translation, below the output folder."""
        ending = name.suffix if name.suffix.lower() in PICTURE_SUFFIXES else ""
        stem = name.name.removesuffix(ending)
        return name.with_name(f"{stem}{self.suffix}{f'.{self.out_format}' if self.out_format else ending}")

    def refuse_other_name(self, file: Path) -> None:
        """Raises: ConfigError if `file`, named in full, contradicts what is said about names here."""
        if self.suffix:
            raise ConfigError(
                f"{file} is the whole name of the result; leave out the suffix {self.suffix}, or give a folder"
            )
        if self.out_format is not None and file.suffix.lower() != f".{self.out_format}":
            raise ConfigError(f"{file} would not be named after its format {self.out_format}; leave out one of the two")


def plan_jobs(
    inputs: Sequence[str], out: Path, output: Output | None = None
) -> tuple[list[Job], list[tuple[str, str]]]:
    """What to translate into which file, and the inputs that stand for no picture, each with a sentence that says why.

    Raises:
        ImageError: two pictures would get one name, a picture would be overwritten, or `out` cannot be what it would
            have to be.
        ConfigError: `out` names a file, and `output` another one.
    """
    output = output or Output()
    found = {text: list(_pictures_of(text, out)) for text in inputs}
    failed = [(text, _why_none(text)) for text, pictures in found.items() if not pictures]
    pictures = [picture for several in found.values() for picture in several]
    if names_a_file(out):
        if len(inputs) != 1 or os.path.isdir(inputs[0]) or len(pictures) > 1:
            raise ImageError(f"{out} is the name of one file, but not one file came; give a folder")
        output.refuse_other_name(out)
        jobs = [Job(source, out) for source, _ in pictures]
    elif out.exists() and not out.is_dir():
        raise ImageError(f"{out} exists and is no folder; give a folder")
    else:
        jobs = [Job(source, out / output.renamed(name)) for source, name in pictures]
    return _without_clashes(jobs), failed


def names_a_file(out: Path) -> bool:
    """Whether `out` stands for a picture, not for a folder of them."""
    return out.suffix.lower() in PICTURE_SUFFIXES and not out.is_dir()


def _why_none(text: str) -> str:
    try:
        os.stat(text)
    except FileNotFoundError:
        return f"{text}: no such file or folder"
    except OSError as error:  # No permission, too long a name, a link that leads to itself.
        return f"{text}: {error.strerror}"
    return f"{text}: no pictures in this folder"


def _pictures_of(text: str, out: Path) -> Iterator[Found]:
    path = Path(text)
    if os.path.isdir(path):
        refuse_inside(out, path)
        yield from (Found(picture, picture.relative_to(path)) for picture in find_pictures(path))
    elif os.path.exists(path):
        yield Found(path, Path(path.name))
    elif glob.has_magic(text):
        yield from _matches(path, out)


def refuse_inside(out: Path, folder: Path) -> None:
    """Raises: ImageError if translations in `out` would be among the pictures of `folder` the next time."""
    if real(out).is_relative_to(real(folder)):
        raise ImageError(f"{out} lies in {folder}, whose pictures are read; give a folder outside of it")


def _matches(pattern: Path, out: Path) -> Iterator[Found]:
    fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts))
    for picture in _each_folder_once(Path(match) for match in glob.glob(str(pattern), recursive=True)):
        if not is_picture_name(picture.name) or picture.is_dir():
            continue
        if real(picture).is_relative_to(real(out)):
            raise ImageError(f"{pattern} also matches {picture} in the output folder; give another folder")
        yield Found(picture, picture.relative_to(fixed))


def _each_folder_once(paths: Iterable[Path]) -> list[Path]:
    """Sorted; of paths that links to folders lead to again and again (`**` follows them) the shortest."""
    found: dict[Path, Path] = {}
    for path in sorted(paths, key=lambda path: (len(path.parts), path)):
        found.setdefault(real(path.parent) / path.name, path)
    return sorted(found.values())


def real(path: Path) -> Path:
    """Absolute and free of links; unlike `Path.resolve`, a link that leads to itself is left as it is."""
    return Path(os.path.realpath(path))


def _without_clashes(jobs: Sequence[Job]) -> list[Job]:
    """Each job once; refuses two sources for one target, and a target that is a source."""
    sources: dict[Path, Path] = {}
    for source, target in jobs:
        other = sources.setdefault(target, source)
        if real(other) != real(source):
            raise ImageError(clash(other, source, target))
    read = {real(path) for path in sources.values()}
    for target, source in sorted(sources.items()):
        if real(target) in read:
            whose = "its own translation" if real(target) == real(source) else f"the translation of {source}"
            raise ImageError(f"{real(target)} would be overwritten by {whose}; give another folder")
    return [Job(source, target) for target, source in sources.items()]


def clash(first: Path, second: Path, target: Path) -> str:
    """The sentence that two pictures would become one file."""
    advice = (
        "give the folder or a quoted glob that holds both, or an output folder for each"
        if first.name == second.name
        else "rename one of them, or name the results otherwise"
    )
    return f"{first} and {second} would both be written to {target}; {advice}"
