"""Many pictures in one call: files, globs and folder trees, their names and tree kept."""

import glob
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pix2next.errors import ImageError
from pix2next.images import PICTURE_SUFFIXES, check_holds, find_pictures, read_rgb, write_nir
from pix2next.images.files import is_picture_name
from pix2next.translate import Translator


@dataclass(frozen=True)
class BulkResult:
    """How many pictures were written; for each input left out its path and a sentence that names it and says why."""

    done: int
    failed: list[tuple[str, str]]


class Job(NamedTuple):
    """One picture to translate, and the file to write."""

    source: Path
    target: Path


class Found(NamedTuple):
    """A picture that an input stands for, and the name it keeps below the output folder."""

    source: Path
    name: Path


def translate_pictures(
    inputs: Sequence[str],
    out: Path,
    translator: Translator,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> BulkResult:
    """Translate every picture that `inputs` stand for; one that cannot be used is reported and left out.

    A file keeps its name, a folder and a glob keep the tree below the folder or below the part of the glob without
    wildcards. Names keep their suffixes, as labels refer to them, and pictures already there are replaced, each at
    once. One named file may be given a file for `out`.

    Args:
        inputs: files, globs (`photos/**/*.png`) and folders, the latter with all below. Hidden files, and other files
            than pictures in a folder or glob, are passed over.
        out: a folder, made where it is missing.
        translator: what each picture goes through, one at a time.
        on_progress: called with how many of how many pictures are through, first with 0.

    Raises:
        ImageError: two pictures would get one name, a picture would be overwritten by its translation, or `out` cannot
            be what it would have to be; nothing has been written then.
    """
    jobs, failed = plan_jobs(inputs, out)
    report = on_progress or (lambda done, total: None)
    report(0, len(jobs))
    missing = len(failed)
    for count, job in enumerate(jobs, start=1):
        try:
            _translate(job, translator)
        except ImageError as error:
            failed.append((str(job.source), str(error)))
        except MemoryError:
            failed.append((str(job.source), f"{job.source}: too little memory to hold the picture"))
        report(count, len(jobs))
    return BulkResult(done=len(jobs) + missing - len(failed), failed=failed)


def _translate(job: Job, translator: Translator) -> None:
    rgb = read_rgb(job.source)
    check_holds(job.target, rgb.dtype, rgb.shape[:2])
    write_nir(job.target, translator(rgb))


def plan_jobs(inputs: Sequence[str], out: Path) -> tuple[list[Job], list[tuple[str, str]]]:
    """What to translate into which file, and the inputs that stand for no picture.

    Raises: ImageError as `translate_pictures`.
    """
    found = {text: list(_pictures_of(text, out)) for text in inputs}
    failed = [(text, _why_none(text)) for text, pictures in found.items() if not pictures]
    pictures = [picture for several in found.values() for picture in several]
    if _names_a_file(out):
        if len(inputs) != 1 or os.path.isdir(inputs[0]) or len(pictures) > 1:
            raise ImageError(f"{out} is the name of one file, but not one file came; give a folder")
        jobs = [Job(source, out) for source, _ in pictures]
    elif out.exists() and not out.is_dir():
        raise ImageError(f"{out} exists and is no folder; give a folder")
    else:
        jobs = [Job(source, out / name) for source, name in pictures]
    return _without_clashes(jobs), failed


def _names_a_file(out: Path) -> bool:
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
        if _real(out).is_relative_to(_real(path)):
            raise ImageError(f"{out} lies in {path}, whose pictures are read; give a folder outside of it")
        yield from (Found(picture, picture.relative_to(path)) for picture in find_pictures(path))
    elif os.path.exists(path):
        yield Found(path, Path(path.name))
    elif glob.has_magic(text):
        yield from _matches(path, out)


def _matches(pattern: Path, out: Path) -> Iterator[Found]:
    fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts))
    for picture in _each_folder_once(Path(match) for match in glob.glob(str(pattern), recursive=True)):
        if not is_picture_name(picture.name) or picture.is_dir():
            continue
        if _real(picture).is_relative_to(_real(out)):
            raise ImageError(f"{pattern} also matches {picture} in the output folder; give another folder")
        yield Found(picture, picture.relative_to(fixed))


def _each_folder_once(paths: Iterable[Path]) -> list[Path]:
    """Sorted; of paths that links to folders lead to again and again (`**` follows them) the shortest."""
    found: dict[Path, Path] = {}
    for path in sorted(paths, key=lambda path: (len(path.parts), path)):
        found.setdefault(_real(path.parent) / path.name, path)
    return sorted(found.values())


def _real(path: Path) -> Path:
    """Absolute and free of links; unlike `Path.resolve`, a link that leads to itself is left as it is."""
    return Path(os.path.realpath(path))


def _without_clashes(jobs: Sequence[Job]) -> list[Job]:
    """Each job once; refuses two sources for one target, and a target that is a source."""
    sources: dict[Path, Path] = {}
    for source, target in jobs:
        other = sources.setdefault(target, source)
        if _real(other) != _real(source):
            raise ImageError(
                f"{other} and {source} would both be written to {target}; "
                "give the folder or a quoted glob that holds both, or an output folder for each"
            )
    overwritten = {_real(path) for path in sources.values()} & {_real(path) for path in sources}
    if overwritten:
        raise ImageError(f"{min(overwritten)} would be overwritten by its own translation; give another folder")
    return [Job(source, target) for target, source in sources.items()]
