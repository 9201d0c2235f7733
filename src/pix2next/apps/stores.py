"""Where a data set's files lie: read by key from a source, written by key to a sink.

A key is a path below the data set's root, with `/` between its parts whatever the system.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from pix2next.errors import ConfigError, ImageError
from pix2next.images import atomic_path, find_pictures, sweep
from pix2next.images.files import is_picture_name, visible_files

MANIFEST = "manifest.jsonl"


@runtime_checkable
class Source(Protocol):
    """A data set to read; picklable, since workers on other machines get one."""

    def pictures(self) -> list[str]:
        """Keys of all files with a picture's suffix, sorted."""

    def others(self) -> list[str]:
        """Keys of all other files (labels, lists of splits, licences), sorted; hidden ones are passed over."""

    def read(self, key: str) -> bytes:
        """What the file holds. Raises: ImageError or OSError."""

    def stamp(self, key: str) -> str | None:
        """Changes whenever the file does, and costs no reading; None where there is no such thing."""


@runtime_checkable
class Sink(Protocol):
    """A data set to write."""

    @property
    def manifest(self) -> Path:
        """The file that says what became of each picture; its folder exists."""

    def has(self, key: str) -> bool:
        """Whether the whole file is there, also from an earlier run."""

    def write(self, key: str, data: bytes) -> None:
        """The file, whole or not at all; one that is there is replaced. Raises: ImageError or OSError."""

    def remove(self, key: str) -> None:
        """Take away a file, if it is there. Raises: ImageError or OSError."""

    def close(self) -> None:
        """Finish what holds several files."""


@dataclass(frozen=True)
class FolderSource:
    """A tree of files."""

    root: Path

    def pictures(self) -> list[str]:
        """As `find_pictures` finds them."""
        return sorted(picture.relative_to(self.root).as_posix() for picture in find_pictures(self.root))

    def others(self) -> list[str]:
        """All but pictures, hidden files, and the manifest of a run that wrote this tree."""
        keys = (path.relative_to(self.root).as_posix() for path in visible_files(self.root))
        return sorted(key for key in keys if key != MANIFEST and not is_picture_name(Path(key).name))

    def read(self, key: str) -> bytes:
        """The file's bytes. Raises: ImageError."""
        try:
            return (self.root / key).read_bytes()
        except OSError as error:
            raise ImageError(f"cannot read {self.root / key}: {error.strerror or error}") from None

    def stamp(self, key: str) -> str | None:
        """Size and time of the last change."""
        try:
            found = (self.root / key).stat()
        except OSError:
            return None
        return f"{found.st_size}-{found.st_mtime_ns}"


@dataclass(frozen=True)
class FolderSink:
    """A tree of files, made where it is missing."""

    root: Path

    def __post_init__(self) -> None:
        """Make the folder, and sweep away what a run that was killed had begun.

        Raises: ConfigError if there is something else of that name; OSError.
        """
        if self.root.exists() and not self.root.is_dir():
            raise ConfigError(f"{self.root} exists and is no folder; give a folder")
        self.root.mkdir(parents=True, exist_ok=True)
        sweep(self.root)

    @property
    def manifest(self) -> Path:
        """In the root."""
        return self.root / MANIFEST

    def has(self, key: str) -> bool:
        """Files appear whole, so one that is there is whole."""
        return (self.root / key).is_file()

    def write(self, key: str, data: bytes) -> None:
        """Beside its place, then renamed; a file that holds the same is left alone. Raises: OSError."""
        path = self.root / key
        if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
            return
        with atomic_path(path) as beside:
            beside.write_bytes(data)

    def remove(self, key: str) -> None:
        """Delete it. Raises: OSError."""
        (self.root / key).unlink(missing_ok=True)

    def close(self) -> None:
        """Nothing is left to do."""


def open_source(path: str) -> Source:
    """The data set at `path`, by what it is: a folder, tar shards, or a Hugging Face data set.

    Behind a `#` may stand which picture is meant where a sample has several: the ending of its name in a shard
    (`shards#left.png`), or its column (`hf:owner/name#image`).

    Raises: ConfigError if there is none; ImageError if a shard is damaged.
    """
    # Both build on this module.
    from pix2next.apps.hub_datasets import PREFIX, HubSource, is_saved
    from pix2next.apps.shards import ShardSource, find_shards

    name, mark, picture = path.rpartition("#") if not Path(path).exists() else (path, "", "")
    name = name if mark else path
    if name.startswith(PREFIX) or is_saved(Path(name)):
        return HubSource(name, picture if mark else None)
    if shards := find_shards(name):
        return ShardSource(*shards, picture if mark else None, beside=Path(name).is_dir())
    match Path(path):
        case folder if folder.is_dir():
            return FolderSource(folder)
    raise ConfigError(
        f"{path} is no data set; give a folder, tar shards, or hf: and the name of a Hugging Face data set"
    )


def open_sink(path: str, like: Source) -> Sink:
    """Where to write the data set that becomes of `like`, of the same kind: a folder, with shards or a data set in it.

    Raises: ConfigError if it cannot be there; ImageError if a shard there is damaged; OSError.
    """
    from pix2next.apps.hub_datasets import HubSink, HubSource
    from pix2next.apps.shards import ShardSink, ShardSource

    match like:
        case ShardSource():
            _refuse_nested(like.root, Path(path))
            return ShardSink(Path(path), like)
        case HubSource():
            if Path(like.path).exists():
                _refuse_nested(Path(like.path), Path(path))
            return HubSink(Path(path), like)
        case FolderSource():
            _refuse_nested(like.root, Path(path))
    return FolderSink(Path(path))


def _refuse_nested(source: Path, target: Path) -> None:
    """Pictures would be replaced by their translations, or be translated again the next time."""
    read, written = (Path(os.path.realpath(path)) for path in (source, target))
    if written.is_relative_to(read) or read.is_relative_to(written):
        raise ConfigError(f"{target} and {source} lie in one another; give a folder outside of the data set")
