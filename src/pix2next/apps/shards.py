"""Tar shards (WebDataset) as a source and a sink of pictures.

A shard is a tar file of samples; a sample is the files that share a name up to its first dot. One file of a sample is
its picture, which is translated in place; the others are carried over as they are, and so are the order, the names, the
times and owners in a shard, and the shard's own name. A key is the shard's path and the name in it:
`train-0000.tar/000017.jpg`.

A shard is written whole. Until all of its pictures are there they lie singly beside it, in `.parts`. So a kill costs
the pictures in work and no others; the price is disk, as an unfinished shard's pictures are there twice while it is
written. A picture that failed is left out of its sample.

Source: https://github.com/webdataset/webdataset, "The WebDataset Format"
"""

import hashlib
import re
import shutil
import tarfile
from collections import defaultdict
from pathlib import Path, PurePosixPath

from pix2next.apps import tar_members
from pix2next.apps.stores import MANIFEST, FolderSink, FolderSource
from pix2next.apps.tar_members import Member
from pix2next.errors import ConfigError, ImageError
from pix2next.images import atomic_path, sweep
from pix2next.images.files import is_picture_name

PARTS = ".parts"
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


class ShardSource:
    """Shards below a folder, and the files that lie beside them."""

    def __init__(self, root: Path, shards: list[str], picture: str | None = None, beside: bool = True) -> None:
        """List the shards' members.

        Args:
            root: the folder.
            shards: paths of the shards below it.
            picture: what follows the first dot in the names of pictures, as `jpg` or `left.png`; by default the one
                picture of each sample.
            beside: whether files beside the shards belong to the data set.

        Raises: ImageError if a shard is damaged; ConfigError if a sample holds several pictures, and nobody said which.
        """
        self.root, self.shards = root, sorted(shards)
        self.members: dict[str, Member] = {}
        for shard in self.shards:
            for member in tar_members.members(root, shard):
                if self.members.setdefault(member.key, member) != member:
                    name = member.key.removeprefix(f"{shard}/")
                    raise ImageError(f"{root / shard} holds {name} twice; write the shard anew")
        self._pictures = _pictures(self.members, picture.lower() if picture else None)
        self._beside = FolderSource(root) if beside else None

    def pictures(self) -> list[str]:
        """Of each sample one."""
        return sorted(self._pictures)

    def others(self) -> list[str]:
        """The samples' other members, and files beside the shards; not an index (`.idx`) of where pictures start."""
        beside = self._beside.others() if self._beside else []
        stems = {shard.removesuffix(".tar") for shard in self.shards}
        loose = (key for key in beside if key not in self.shards and key.removesuffix(".idx") not in stems)
        return sorted([*loose, *(key for key in self.members if key not in self._pictures)])

    def read(self, key: str) -> bytes:
        """Raises: ImageError."""
        if key not in self.members:
            return FolderSource(self.root).read(key)
        member = self.members[key]
        try:
            return member.read(self.root)
        except OSError as error:
            raise ImageError(f"cannot read {self.root / key}: {error.strerror or error}") from None

    def stamp(self, key: str) -> str | None:
        """Of the whole shard: a change in it is taken for a change of all its pictures until they are read."""
        if key not in self.members:
            return FolderSource(self.root).stamp(key)
        member = self.members[key]
        stamp = FolderSource(self.root).stamp(member.shard)
        return stamp and f"{stamp}-{member.start}"


class ShardSink:
    """Shards of the same names, in another folder; called by one thread."""

    def __init__(self, root: Path, like: ShardSource) -> None:
        """Make the folder, and find what an earlier run left in it.

        Raises: ConfigError if something else has that name; ImageError if a shard in it is damaged; OSError.
        """
        if root.exists() and not root.is_dir():
            raise ConfigError(f"{root} exists and is no folder; give a folder")
        self.root, self.like = root, like
        root.mkdir(parents=True, exist_ok=True)
        sweep(root)
        self._slots = {_stem(key): like.members[key] for key in like.pictures()}
        self._there = {shard: tar_members.by_key(root, shard) for shard in like.shards if (root / shard).is_file()}
        self._pictures: dict[str, set[str]] = defaultdict(set)
        self._missing: dict[str, set[str]] = defaultdict(set)
        waiting = {shard: set(self._parts(shard)) for shard in like.shards}
        for slot in self._slots.values():
            self._pictures[slot.shard].add(slot.key)
            if _digest(slot.key) not in waiting[slot.shard]:
                self._missing[slot.shard].add(slot.key)
        self._removed: set[str] = set()

    @property
    def manifest(self) -> Path:
        """In the root."""
        return self.root / MANIFEST

    def has(self, key: str) -> bool:
        """In a shard, or waiting for it to be whole."""
        slot = self._slot(key)
        if slot is None:
            return (self.root / key).is_file()
        return self._part(slot, key).is_file() or (key in self._there.get(slot.shard, {}) and key not in self._removed)

    def write(self, key: str, data: bytes) -> None:
        """Keep it for its shard, which is written when all its pictures are there. Raises: ImageError, OSError."""
        slot = self._slot(key)
        if slot is None:
            FolderSink(self.root).write(key, data)
        elif slot.key in self._pictures[slot.shard] or data != self._now(key, slot):
            self._write_part(slot, key, data)

    def _write_part(self, slot: Member, key: str, data: bytes) -> None:
        missing = self._missing[slot.shard]
        if slot.key not in missing:  # It may be there in another format, from an earlier run.
            for part in self._folder(slot.shard).glob(f"{_digest(slot.key)}.*"):
                part.unlink()
        with atomic_path(self._part(slot, key)) as beside:
            beside.write_bytes(data)
        self._removed.discard(key)
        if slot.key in missing:
            missing.discard(slot.key)
            if not missing:
                self._assemble(slot.shard)

    def remove(self, key: str) -> None:
        """Take it away, from its shard when that is next written. Raises: OSError."""
        slot = self._slot(key)
        (self.root / key if slot is None else self._part(slot, key)).unlink(missing_ok=True)
        if slot is not None and key in self._there.get(slot.shard, {}):
            self._removed.add(key)

    def close(self) -> None:
        """Write every shard that is not as it should be, also those whose last pictures failed.

        Raises: ImageError, OSError.
        """
        removed = {slot.shard for key in self._removed if (slot := self._slot(key))}
        for shard in self.like.shards:
            if shard in removed or shard not in self._there or self._folder(shard).is_dir():
                self._assemble(shard)
        shutil.rmtree(self.root / PARTS, ignore_errors=True)

    def _slot(self, key: str) -> Member | None:
        """Where the shards of the source have what becomes `key`; None if it lies beside them."""
        return self.like.members.get(key) or self._slots.get(_stem(key))

    def _folder(self, shard: str) -> Path:
        return self.root / PARTS / shard

    def _part(self, slot: Member, key: str) -> Path:
        return self._folder(slot.shard) / f"{_digest(slot.key)}{PurePosixPath(key).suffix}"

    def _parts(self, shard: str) -> dict[str, Path]:
        folder = self._folder(shard)
        return {path.stem: path for path in folder.iterdir()} if folder.is_dir() else {}

    def _now(self, key: str, slot: Member) -> bytes | None:
        """What the finished shard holds, or will, of a file that is no picture."""
        if self._part(slot, key).is_file():
            return None
        there = self._there.get(slot.shard)
        if there is None:
            return self.like.read(key)
        return there[key].read(self.root) if key in there else None

    def _assemble(self, shard: str) -> None:
        """In the source's order what came since, else what the shard held before, else what the source holds."""
        parts = self._parts(shard)
        there = self._there.get(shard, {})
        before = {slot.key: member for key, member in there.items() if (slot := self._slot(key))}
        with atomic_path(self.root / shard) as beside, tarfile.open(beside, "w") as target:
            for key, info, stored in tar_members.contents(self.like.root, shard):
                part, old = parts.get(_digest(key)), before.get(key)
                if part is not None:
                    tar_members.add(target, info, part.read_bytes(), part.suffix)
                elif old is not None and old.key not in self._removed:
                    tar_members.add(target, info, old.read(self.root), PurePosixPath(old.key).suffix)
                elif key not in self._pictures[shard]:
                    target.addfile(info, stored)
        self._there[shard] = tar_members.by_key(self.root, shard)
        self._removed -= {key for key in self._removed if (slot := self._slot(key)) and slot.shard == shard}
        shutil.rmtree(self._folder(shard), ignore_errors=True)


def find_shards(path: str) -> tuple[Path, list[str]] | None:
    """The folder and the names of the shards that `path` stands for; None if it stands for none.

    It is a tar file, a folder with tar files and no loose pictures, or a name with `{0000..0031}` in it.

    Raises: ConfigError if shards are compressed, or one of a range is missing.
    """
    if len(paths := _expanded(path)) > 1:
        missing = [one for one in paths if not one.is_file()]
        if missing:
            raise ConfigError(f"{len(missing)} of the {len(paths)} shards {path} are missing (first: {missing[0]})")
        return paths[0].parent, [one.name for one in paths]
    if path.lower().endswith(_PACKED) and Path(path).is_file():
        raise ConfigError(f"{path} is compressed, and could be read from its start only; unpack it to a .tar file")
    folder = Path(path)
    if folder.is_file() and path.lower().endswith(".tar"):
        return folder.parent, [folder.name]
    if not folder.is_dir():
        return None
    shards = [key for key in FolderSource(folder).others() if key.lower().endswith((".tar", *_PACKED))]
    if not shards or FolderSource(folder).pictures():
        return None
    if packed := [key for key in shards if key.lower().endswith(_PACKED)]:
        raise ConfigError(f"{folder} holds compressed shards (first: {packed[0]}); unpack them to .tar files")
    return folder, shards


def _expanded(path: str) -> list[Path]:
    found = _RANGE.search(path)
    if found is None:
        return [Path(path)]
    first, last = found.groups()
    numbers = (str(number).zfill(len(first)) for number in range(int(first), int(last) + 1))
    return [one for number in numbers for one in _expanded(path[: found.start()] + number + path[found.end() :])]


def _pictures(members: dict[str, Member], picture: str | None) -> set[str]:
    """The keys of what is translated.

    Raises: ConfigError as `ShardSource`.
    """
    samples: dict[str, dict[str, str]] = defaultdict(dict)
    for key in members:
        folder, _, name = key.rpartition("/")
        if is_picture_name(name):
            sample, _, ending = name.partition(".")
            samples[f"{folder}/{sample}"][ending.lower()] = key
    chosen = (_picture(sample, endings, picture) for sample, endings in samples.items())
    return {key for key in chosen if key is not None}


def _picture(sample: str, endings: dict[str, str], picture: str | None) -> str | None:
    if picture is not None:
        return endings.get(picture)
    # Beside 17.jpg, 17.seg.png is a mask, or another picture of the same.
    plain = [ending for ending in endings if "." not in ending] or list(endings)
    if len(plain) > 1:
        raise ConfigError(
            f"the sample {sample} holds several pictures ({', '.join(sorted(plain))}); "
            f"say which is translated behind the data set's name, as SRC#{min(plain)}"
        )
    return endings[plain[0]]


def _digest(key: str) -> str:
    """A name for a file that any member may have, however long."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:40]


def _stem(key: str) -> str:
    return key.removesuffix(PurePosixPath(key).suffix)
