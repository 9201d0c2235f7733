"""What became of each picture of a data set: one line of JSON for each, in `manifest.jsonl` beside the translations.

A line is added when a picture is through, so that a run that is killed knows where to go on; at the end the lines are
sorted, and the same pictures give the same file but for the seconds.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from torch import nn

from pix2next.evaluate.pretrained import weights_sha256
from pix2next.images import write_text
from pix2next.model.views import habit_of


@dataclass(frozen=True)
class Record:
    """One picture; the fields from `width` to `sha256` are None where a failed one did not come so far."""

    key: str
    """The picture's path below the root of the source."""
    target: str
    """Its translation's, below the root of the result."""
    status: Literal["done", "failed"]
    reason: str | None
    """Why it failed, in one sentence."""
    width: int | None
    height: int | None
    dtype: str | None
    bytes: int | None
    """Of the source."""
    sha256: str | None
    """Of the source."""
    stamp: str | None
    """Of the source: as long as it stays, the source is taken to be unchanged and is not read to see."""
    model: str
    model_sha256: str
    """Of the weights, see `fingerprint`."""
    settings: Mapping[str, Any]
    """What the result depends on besides."""
    seconds: float
    """In the network."""
    version: str
    """Of this package."""


class Manifest:
    """The file, open for adding."""

    def __init__(self, path: Path) -> None:
        """Read what earlier runs wrote. A line that a kill cut short is dropped, as is any other that is no record."""
        self.path = path
        self.records = {record.key: record for record in _read(path)}
        self._write(self.records.values())
        self._file = path.open("a", encoding="utf-8", newline="")

    def add(self, record: Record) -> None:
        """Write a record down; it stands for its picture from now on, also if this process is killed."""
        self.records[record.key] = record
        self._file.write(_line(record))
        self._file.flush()

    def finish(self, keys: Iterable[str]) -> None:
        """Keep one line for each of `keys`, sorted."""
        self._file.close()
        self._write(self.records[key] for key in sorted(keys) if key in self.records)

    def close(self) -> None:
        """Leave the file as it is."""
        self._file.close()

    def _write(self, records: Iterable[Record]) -> None:
        write_text(self.path, "".join(map(_line, records)))


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of a model's kind, weights and views: on any device the same, wherever its file lies."""
    habit = habit_of(model)
    kinds = [kind for kind in ("turned", "shrunk") if getattr(habit, kind)]
    known = [type(model).__name__, weights_sha256(model), habit.views, *kinds]
    return hashlib.sha256(" ".join(map(str, known)).encode()).hexdigest()


def _read(path: Path) -> list[Record]:
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    return [record for line in lines if (record := _parsed(line)) is not None]


def _parsed(line: bytes) -> Record | None:
    """The record in a line; None if it is none, or one of a version with other fields."""
    try:
        content = json.loads(line)
    except ValueError:
        return None
    if not isinstance(content, dict) or content.keys() != {field.name for field in fields(Record)}:
        return None
    return Record(**content)


def _line(record: Record) -> str:
    return json.dumps(asdict(record)) + "\n"
