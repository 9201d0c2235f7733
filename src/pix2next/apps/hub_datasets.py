"""A Hugging Face data set with a column of pictures as a source and a sink (extra `datasets`).

The pictures of one column are replaced; all other columns, the features and the splits are kept, without being decoded.
A key is the split, the row and the picture's ending: `train/00000017.jpg`. What is written is a data set saved to disk,
for `datasets.load_from_disk`.

Until the run is through, translated pictures lie singly in `.parts`; then the data set is written beside what was there
and takes its place. So a kill costs the pictures in work and no others, and at any moment what is there is whole, or is
made so by the next run. The disk has to hold the data set three times for a moment. The picture of a row that failed is
null.

Source: https://huggingface.co/docs/datasets/image_load, https://huggingface.co/docs/datasets/about_arrow
"""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from pix2next.apps.stores import MANIFEST
from pix2next.errors import ConfigError, ImageError, one_line
from pix2next.images import PICTURE_SUFFIXES, atomic_path, ending_of, sweep

PREFIX = "hf:"
PARTS = ".parts"
_NEXT = ".next"
_WORK = ".work"
_ROWS = 16
"""Rows written at a time; Arrow holds at most 2 GiB of bytes in one piece."""


class HubSource:
    """The pictures in one column, of all splits."""

    def __init__(self, path: str, column: str | None = None) -> None:
        """Load the data set: `path` is one saved to disk, or `hf:` and what `datasets.load_dataset` takes.

        Behind `hf:` a colon may name a configuration: `hf:owner/name:config`.

        Raises: ConfigError if it cannot be loaded, or no single column of pictures is named or found.
        """
        self.path, self._wanted = path, column
        self._open()

    def _open(self) -> None:
        loaded = _load(self.path)
        self.single = not hasattr(loaded, "values")
        self.splits: dict[str, Any] = {str(loaded.split or "data"): loaded} if self.single else dict(loaded)
        self.column = _column(self.path, next(iter(self.splits.values())).features, self._wanted)
        self._rows = {
            name: split.select_columns([self.column]).with_format("arrow") for name, split in self.splits.items()
        }

    def __getstate__(self) -> dict[str, Any]:
        """A worker opens the data set itself."""
        return {"path": self.path, "_wanted": self._wanted}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As `__getstate__` says."""
        self.__dict__.update(state)
        self._open()

    def pictures(self) -> list[str]:
        """Of every row whose picture is not null; the ending is that of its file, or what its content is."""
        found = []
        for split, rows in self._rows.items():
            numbers = iter(range(len(rows)))
            for table in rows.iter(batch_size=1000):
                endings = _endings(table.column(0))
                found += [
                    _key(split, row, ending)
                    for row, ending in zip(numbers, endings, strict=False)
                    if ending is not None
                ]
        return sorted(found)

    def others(self) -> list[str]:
        """None: labels are columns, which the sink keeps."""
        return []

    def read(self, key: str) -> bytes:
        """The picture as it is stored. Raises: ImageError."""
        split, row = _place(key)
        picture = self._rows[split][row].column(0)[0].as_py()
        try:
            return picture["bytes"] if picture["bytes"] is not None else Path(picture["path"]).read_bytes()
        except OSError as error:
            raise ImageError(f"cannot read {picture['path']} of {key}: {error.strerror or error}") from None

    def stamp(self, key: str) -> str | None:
        """The split's fingerprint and the row."""
        split, row = _place(key)
        return f"{self.splits[split]._fingerprint}-{row}"

    def name_of(self, split: str, row: int) -> str | None:
        """What the picture's file was called, if the data set says so."""
        picture = self._rows[split][row].column(0)[0].as_py()
        return picture and picture["path"] and PurePosixPath(picture["path"].replace("\\", "/")).name


class HubSink:
    """A data set saved to disk, with the columns and splits of the source."""

    def __init__(self, root: Path, like: HubSource) -> None:
        """Make the folder, and bring to an end what an earlier run had begun.

        Raises: ConfigError if there is something else of that name; OSError.
        """
        if root.exists() and not root.is_dir():
            raise ConfigError(f"{root} exists and is no folder; give a folder")
        self.root, self.like = root, like
        root.mkdir(parents=True, exist_ok=True)
        _take_place(root)
        shutil.rmtree(root / _WORK, ignore_errors=True)
        sweep(root)
        self._before = HubSource(str(root), like.column) if is_saved(root) else None
        self._there = set(self._before.pictures()) if self._before else set()
        self._removed: set[str] = set()

    @property
    def manifest(self) -> Path:
        """In the root."""
        return self.root / MANIFEST

    def has(self, key: str) -> bool:
        """In the data set, or waiting for it to be written."""
        return (self.root / PARTS / key).is_file() or (key in self._there and key not in self._removed)

    def write(self, key: str, data: bytes) -> None:
        """Keep it until the data set is written. Raises: OSError."""
        with atomic_path(self.root / PARTS / key) as beside:
            beside.write_bytes(data)
        self._removed.discard(key)

    def remove(self, key: str) -> None:
        """Take it away; from the data set when that is next written. Raises: OSError."""
        (self.root / PARTS / key).unlink(missing_ok=True)
        if key in self._there:
            self._removed.add(key)

    def close(self) -> None:
        """Write the data set, if it is not as it should be. Raises: ImageError, OSError."""
        parts = {_place(path.relative_to(self.root / PARTS).as_posix()): path for path in self._waiting()}
        if parts or self._removed or self._before is None:
            self._save(parts)
            _take_place(self.root)
        for name in (PARTS, _WORK):
            shutil.rmtree(self.root / name, ignore_errors=True)

    def _waiting(self) -> Iterator[Path]:
        return (path for path in (self.root / PARTS).rglob("*") if path.is_file())

    def _save(self, parts: dict[tuple[str, int], Path]) -> None:
        from datasets import DatasetDict

        there = {_place(key): key for key in self._there - self._removed}
        with _no_bars():
            splits = {name: self._replaced(name, parts, there) for name in self.like.splits}
            work = self.root / _WORK / "saved"
            (next(iter(splits.values())) if self.like.single else DatasetDict(splits)).save_to_disk(work)
        work.rename(self.root / _NEXT)

    def _replaced(self, split: str, parts: dict[tuple[str, int], Path], there: dict[tuple[str, int], str]) -> Any:
        """The split with its new pictures; its fingerprint follows from the old one and the pictures."""
        digest = hashlib.sha256(self.like.splits[split]._fingerprint.encode())

        def picture(row: int) -> dict[str, Any] | None:
            part, old = parts.get((split, row)), there.get((split, row))
            if part is None and old is None:
                digest.update(b"none")
                return None
            data = part.read_bytes() if part is not None else self._before.read(old)  # type: ignore[union-attr, arg-type]
            digest.update(hashlib.sha256(data).digest())
            # Named even where the source names none: the ending says in which format it was asked for.
            ending, name = PurePosixPath(str(part or old)).suffix, self.like.name_of(split, row) or f"{row:08d}"
            return {"bytes": data, "path": str(PurePosixPath(name).with_suffix(ending))}

        def replaced(table: Any, rows: list[int]) -> Any:
            import pyarrow

            place = table.schema.get_field_index(self.like.column)
            field = table.schema.field(place)
            return table.set_column(place, field, pyarrow.array([picture(row) for row in rows], field.type))

        before = self.like.splits[split]
        (self.root / _WORK).mkdir(exist_ok=True)
        after = before.with_format("arrow").map(
            replaced,
            with_indices=True,
            batched=True,
            batch_size=_ROWS,
            writer_batch_size=_ROWS,
            features=before.features,
            cache_file_name=str(self.root / _WORK / f"{split}.arrow"),
            load_from_cache_file=False,
            new_fingerprint="being-made",
        )
        after = after.with_format(None)
        after._fingerprint = digest.hexdigest()[:16]
        return after


def is_saved(folder: Path) -> bool:
    """Whether `datasets.load_from_disk` takes the folder."""
    return (folder / "dataset_dict.json").is_file() or all(
        (folder / name).is_file() for name in ("state.json", "dataset_info.json")
    )


def _load(path: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise ConfigError(f"{path} is a Hugging Face data set, which needs pip install 'pix2next[datasets]'") from None
    try:
        with _no_bars():
            if not path.startswith(PREFIX):
                return datasets.load_from_disk(path)
            name = path.removeprefix(PREFIX)
            first, _, config = name.partition(":") if not Path(name).exists() else (name, "", "")
            return datasets.load_dataset(first, config or None)
    except Exception as error:  # Of any kind: scripts, networks and file systems are behind it.
        raise ConfigError(f"{path} cannot be loaded as a Hugging Face data set: {one_line(error)}") from None


def _column(path: str, features: Any, wanted: str | None) -> str:
    from datasets import Image

    columns = [name for name, feature in features.items() if isinstance(feature, Image)]
    if wanted is not None and wanted in columns:
        return wanted
    known = f"its columns of pictures are {', '.join(columns)}" if columns else "it has no column of pictures"
    if wanted is not None:
        raise ConfigError(f"{path} has no column of pictures named {wanted}; {known}")
    if len(columns) != 1:
        advice = f"; say which behind its name, as {path}#{columns[0]}" if columns else ""
        raise ConfigError(f"{path}: one column of pictures is translated, and {known}{advice}")
    return columns[0]


def _endings(pictures: Any) -> list[str | None]:
    """For each row of a column, None for a null."""
    from pyarrow import compute

    heads = compute.binary_slice(compute.struct_field(pictures, "bytes"), 0, 12).to_pylist()
    paths = compute.struct_field(pictures, "path").to_pylist()
    return [
        None if head is None and path is None else _ending(head or b"", path or "")
        for head, path in zip(heads, paths, strict=True)
    ]


def _ending(head: bytes, path: str) -> str:
    ending = PurePosixPath(path).suffix
    if ending.lower() in PICTURE_SUFFIXES:
        return ending
    try:
        return ending_of(head, path)
    except ImageError:  # Reading it will say what is wrong.
        return ".png"


def _key(split: str, row: int, ending: str) -> str:
    return f"{split}/{row:08d}{ending}"


def _place(key: str) -> tuple[str, int]:
    split, _, name = key.rpartition("/")
    return split, int(PurePosixPath(name).stem)


def _take_place(root: Path) -> None:
    """Put a data set that is written to its end in the place of the one before; a second call goes on with it."""
    following = root / _NEXT
    if not following.is_dir():
        return
    new = {path.name for path in following.iterdir()}
    stale = (path for path in root.glob("data-*-of-*.arrow") if path.name not in new)
    for path in stale if "state.json" in new else ():
        path.unlink()
    # What tells that stale pieces are gone goes first: pieces that came since must not be taken for such.
    for path in sorted(following.iterdir(), key=lambda path: path.name != "state.json"):
        target = root / path.name
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        path.rename(target)
    following.rmdir()


@contextmanager
def _no_bars() -> Iterator[None]:
    """The progress bars of `datasets` would run into ours."""
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

    shown = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            enable_progress_bar()
