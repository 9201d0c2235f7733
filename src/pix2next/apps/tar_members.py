"""The files in a tar file: where they lie, and how they are written again."""

import copy
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from pix2next.errors import ImageError, one_line


class Member(NamedTuple):
    """A file in a shard."""

    key: str
    """The shard's path, and the name in it."""
    shard: str
    start: int
    """The byte at which its content starts."""
    size: int

    def read(self, root: Path) -> bytes:
        """What it holds, of a shard below `root`. Raises: OSError."""
        with (root / self.shard).open("rb") as file:
            file.seek(self.start)
            return file.read(self.size)


def members(root: Path, shard: str) -> Iterator[Member]:
    """Every file of a shard. Raises: ImageError if the shard is damaged."""
    try:
        with tarfile.open(root / shard, "r:") as opened:
            for info in opened:
                if info.isfile():
                    yield Member(_key(shard, info), shard, info.offset_data, info.size)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ImageError(f"{root / shard}: this tar file is damaged or cut short ({one_line(error)})") from None


def by_key(root: Path, shard: str) -> dict[str, Member]:
    """As `members`."""
    return {member.key: member for member in members(root, shard)}


def contents(root: Path, shard: str) -> Iterator[tuple[str, tarfile.TarInfo, IO[bytes] | None]]:
    """Everything in a shard in its order, folders and links too, with what files hold.

    Raises: tarfile.TarError, OSError.
    """
    with tarfile.open(root / shard, "r:") as opened:
        for info in opened:
            yield _key(shard, info), info, opened.extractfile(info) if info.isfile() else None


def add(target: tarfile.TarFile, info: tarfile.TarInfo, data: bytes, suffix: str) -> None:
    """A file as `info` says, but for its content and its name's suffix."""
    new = copy.copy(info)
    new.pax_headers = {name: value for name, value in info.pax_headers.items() if name not in ("path", "size")}
    new.name, new.size = info.name.removesuffix(PurePosixPath(info.name).suffix) + suffix, len(data)
    target.addfile(new, BytesIO(data))


def _key(shard: str, info: tarfile.TarInfo) -> str:
    return "/".join([shard, *(part for part in info.name.split("/") if part not in ("", "."))])
