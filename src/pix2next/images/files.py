"""Names of pictures, and files that appear whole or not at all."""

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = re.compile(r"\.[0-9a-f]{32}(\.\w+)?")
PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def find_pictures(folder: str | Path) -> list[Path]:
    """Every file of `visible_files` with a picture's suffix, sorted."""
    return sorted(path for path in visible_files(folder) if is_picture_name(path.name))


def visible_files(folder: str | Path) -> Iterator[Path]:
    """Every file below `folder`; hidden files and folders are left out.

    Links to folders are followed, each folder once.
    """
    seen: set[str] = set()
    for here, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here, name) for name in names if not name.startswith("."))


def is_picture_name(name: str) -> bool:
    """Whether a file of this name is taken for a picture when nobody named it: by its suffix, and not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A name beside `path`, with its suffix, to write to; it becomes `path` at the end, or vanishes on any failure.

    Folders on the way are made. A file already at `path` stays as it was until the new one is whole.

    Raises: OSError, which names a file even where the write that failed did not (a full disk).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        yield beside
        os.replace(beside, path)
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """UTF-8, line ends as they are, whole or not at all. Raises: as `atomic_path`."""
    with atomic_path(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="")


def sweep(folder: Path) -> None:
    """Remove what `atomic_path` left below `folder` in a process that was killed; no other may be writing there."""
    for path in folder.rglob(".*"):
        if UNFINISHED.fullmatch(path.name):
            path.unlink()
