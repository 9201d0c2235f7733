"""COCO: JSON files with `images` and what is annotated on them.

Objects, keypoints, captions, panoptic segments and results are carried over as they are; only `images` are looked at.

Source: https://cocodataset.org/#format-data; LVIS (https://www.lvisdataset.org/dataset) names a picture by its URL.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from pix2next.apps.labels import json_files
from pix2next.apps.labels.names import PictureNames, Size, in_label_folder, renamed_like, size_of
from pix2next.apps.stores import Source
from pix2next.errors import ConfigError, LabelError

logger = logging.getLogger(__name__)

_PATHS = ("file_name", "path")
_URLS = ("coco_url", "flickr_url", "url")
_ROUNDING = 1.5
"""Pixels by which boxes reach over the edge of a picture in published labels."""


class CocoLabels:
    """The COCO files of a data set.

    An entry's `file_name` (and `path`) gets the new suffix, its width and height those of the picture as written. Its
    URLs lead to the RGB picture, which a tool would fetch in place of ours, and name its author: they stay, as
    `rgb_coco_url` and so on. An entry without a file name is called by its URL, which then is kept.
    """

    def __init__(self, source: Source) -> None:
        """Read every JSON file.

        Raises: ConfigError if none is COCO's; LabelError if one is malformed, or no picture of any is there.
        """
        pictures = source.pictures()
        self._names = PictureNames(pictures)
        self._files: set[str] = set()
        self._sizes: dict[str, Size] = {}
        named: set[str] = set()
        masks: set[str] = set()
        for key in (key for key in source.others() if key.lower().endswith(".json")):
            content = json_files.parse(key, source.read(key))
            if not _is_coco(content):
                continue
            _check(key, content)
            self._files.add(key)
            named |= self._pictures(key, content)
            masks |= _masks(content)
        if not self._files:
            raise ConfigError("these are no COCO labels: no .json file has a list of images; name another --format")
        if pictures and not named:
            raise LabelError(f"no picture that {min(self._files)} names is there; give the folder that holds both")
        self._masks = frozenset(
            key for key in pictures if key not in named and (in_label_folder(key) or PurePosixPath(key).name in masks)
        )

    def label_pictures(self) -> frozenset[str]:
        """Masks of panoptic and stuff segments: in a folder for them, or named by an annotation, and by no image."""
        return self._masks

    def sizes(self) -> Mapping[str, Size]:
        """As the entries say; turned where the boxes do not fit otherwise, as some exporters give a wrong size."""
        return self._sizes

    def carried(self, key: str, data: bytes, renamed: Mapping[str, str], sizes: Mapping[str, Size]) -> bytes | None:
        """As `Labels.carried`; warns of entries that give quite another size than their picture has."""
        if key not in self._files:
            return data
        content = json_files.parse(key, data)
        images = [self._corrected(entry, key, renamed, sizes) for entry in content["images"]]
        _warn_of_sizes(key, content["images"], images)
        if images == content["images"]:
            return data
        return json_files.like(data, content | {"images": images})

    def _pictures(self, key: str, content: Any) -> set[str]:
        reach = _reach(content.get("annotations", ()))
        found: set[str] = set()
        for entry in content["images"]:
            meant = self._names.meant(_name(entry), key)
            found.update(meant)
            boxes = reach.get(str(entry.get("id")))
            # Captions and the like know of sizes, but not which way the boxes of another file lie.
            if len(meant) == 1 and (size := _said(entry)) and (boxes or meant[0] not in self._sizes):
                self._sizes[meant[0]] = _labelled(size, boxes or (0.0, 0.0))
        return found

    def _corrected(
        self, entry: dict[str, Any], key: str, renamed: Mapping[str, str], sizes: Mapping[str, Size]
    ) -> dict[str, Any]:
        meant = self._names.meant(_name(entry), key)
        new = {}
        for name, value in entry.items():
            if name in _PATHS or (name in _URLS and "file_name" not in entry and value == _name(entry)):
                new[name] = renamed_like(value, meant, renamed) if isinstance(value, str) else value
            else:
                new[f"rgb_{name}" if name in _URLS else name] = value
        size = size_of(meant, sizes)
        if size and _said(entry):
            new["width"], new["height"] = size
        return new


def _is_coco(content: Any) -> bool:
    return isinstance(content, dict) and "images" in content and bool({"annotations", "categories"} & content.keys())


def _check(key: str, content: Any) -> None:
    json_files.check_objects(key, "images", content["images"])
    json_files.check_objects(key, "annotations", content.get("annotations", []))
    for index, entry in enumerate(content["images"]):
        if not isinstance(_name(entry), str):
            raise LabelError(f"{key}: images[{index}] has no file_name, which says what picture it is")


def _name(entry: dict[str, Any]) -> Any:
    return entry.get("file_name", entry.get("coco_url"))


def _said(entry: dict[str, Any]) -> Size | None:
    size = entry.get("width"), entry.get("height")
    return size if all(isinstance(side, int) and side > 0 for side in size) else None  # type: ignore[return-value]


def _masks(content: Any) -> set[str]:
    """Names of the files that hold panoptic segments."""
    files = (entry.get("file_name") for entry in content.get("annotations", ()) if "segments_info" in entry)
    return {PurePosixPath(name).name for name in files if isinstance(name, str)}


def _reach(annotations: Any) -> dict[str, tuple[float, float]]:
    """How far boxes reach to the right and down, by the id of their picture."""
    reach: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for annotation in annotations:
        match annotation.get("bbox"):
            case [int() | float() as x, int() | float() as y, int() | float() as width, int() | float() as height]:
                right, down = reach[str(annotation.get("image_id"))]
                reach[str(annotation.get("image_id"))] = max(right, float(x + width)), max(down, float(y + height))
    return reach


def _labelled(said: Size, reach: tuple[float, float]) -> Size:
    turned = said[1], said[0]
    return said if _holds(said, reach) or not _holds(turned, reach) else turned


def _holds(size: Size, reach: tuple[float, float]) -> bool:
    return reach[0] <= size[0] + _ROUNDING and reach[1] <= size[1] + _ROUNDING


def _warn_of_sizes(key: str, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    wrong = [
        (old, said, now)
        for old, new in zip(before, after, strict=True)
        if (said := _said(old)) and (now := _said(new)) and now not in (said, said[::-1])
    ]
    if wrong:
        old, said, now = wrong[0]
        logger.warning(
            "%s gives %d of %d pictures another size than they have (first: %s, %d x %d, which has %d x %d); the sizes "
            "are made right, but the annotations stay as they are",
            key, len(wrong), len(before), _name(old), *said, *now,
        )  # fmt: skip
