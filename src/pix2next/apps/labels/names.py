"""Which picture a label means by a path, and what that path becomes."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

Size = tuple[int, int]
"""Width and height in pixels."""

LABEL_FOLDERS = frozenset(
    {"annotations", "bitmasks", "color_labels", "colormaps", "drivable_maps", "labels", "masks", "stuffthingmaps"}
)
"""Folders of COCO, YOLO and BDD100K in which a file with a picture's suffix is a label (a mask of segments)."""


def in_label_folder(key: str) -> bool:
    """Whether a file lies, however deep, in a folder of labels."""
    folders = PurePosixPath(key).parts[:-1]
    return any(name in LABEL_FOLDERS or name.startswith("panoptic_") or name.endswith("_pixelmaps") for name in folders)


class PictureNames:
    """The pictures of a data set, to be found by what labels call them."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for key in keys:
            self._by_name[PurePosixPath(key).name].append(key)

    def meant(self, path: str, near: str) -> list[str]:
        """Keys of the pictures that `path` may mean; several if it is the name of several that nothing tells apart.

        A path may be absolute, begin above the data set or below its root: it means the picture with which it shares
        the most parts from its end. Of several that share as many, those count in whose folders' names the label's
        own name points (`instances_val2017.json` to `val2017/`), then those that lie nearest to it.

        Args:
            path: as the label says it; backslashes separate, too.
            near: the label's key.
        """
        asked = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
        if not asked:
            return []
        shared = {key: _shared_end(asked, key.split("/")) for key in self._by_name.get(asked[-1], ())}
        fitting = [key for key, count in shared.items() if _whole(asked, key, count)]
        for rank in (shared.__getitem__, lambda key: _pointed_at(key, near), lambda key: _shared_start(key, near)):
            best = max(map(rank, fitting), default=0)
            fitting = [key for key in fitting if rank(key) == best]
        return fitting

    def stems(self) -> set[str]:
        """Names of all pictures without their suffixes."""
        return {PurePosixPath(name).stem for name in self._by_name}


def _whole(asked: list[str], key: str, shared: int) -> bool:
    """`val/1.jpg` is not `train/1.jpg`: the path, or the key, is used up, or their last two parts agree."""
    return shared in (len(asked), key.count("/") + 1) or shared >= 2


def _shared_end(first: list[str], second: list[str]) -> int:
    pairs = zip(reversed(first), reversed(second), strict=False)
    return next((count for count, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))


def _shared_start(key: str, near: str) -> int:
    pairs = list(zip(key.split("/")[:-1], near.split("/")[:-1], strict=False))
    return next((count for count, (one, other) in enumerate(pairs) if one != other), len(pairs))


def _pointed_at(key: str, near: str) -> int:
    words = set(re.split(r"[\W_]+", PurePosixPath(near).stem))
    return len(words & set(key.split("/")[:-1]))


def renamed_like(path: str, keys: Iterable[str], renamed: Mapping[str, str]) -> str:
    """`path` with the file name that all pictures it may mean get; as it is where they get none or different ones."""
    names = {PurePosixPath(renamed[key]).name for key in keys if key in renamed}
    if len(names) != 1:
        return path
    old = path.replace("\\", "/").rpartition("/")[2]
    return path[: len(path) - len(old)] + names.pop()


def size_of(keys: Iterable[str], sizes: Mapping[str, Size]) -> Size | None:
    """The size that all of the pictures have, if they have one."""
    found = {sizes.get(key) for key in keys}
    return found.pop() if len(found) == 1 else None
