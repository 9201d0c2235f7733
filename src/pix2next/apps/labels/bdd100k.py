"""BDD100K (Scalabel's format), in each form it was published in.

* A JSON list of frames, or `{"frames": [...], "config": ...}`: each with the `name` of its picture, `labels`, and maybe
  `url`, `videoName` and `size`.
* The older one JSON file a picture: `{"name": "b1c66a42-6f7d68ca", "frames": [{"objects": [...]}]}`, whose name has no
  suffix; nothing in it changes.

Masks, bitmasks and colour maps (PNG) are labels and are carried over.

Source: https://doc.bdd100k.com/format.html, https://doc.scalabel.ai/format.html
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from pix2next.apps.labels import json_files
from pix2next.apps.labels.names import PictureNames, Size, in_label_folder, renamed_like, size_of
from pix2next.apps.stores import Source
from pix2next.errors import ConfigError, LabelError


class Bdd100kLabels:
    """The BDD100K files of a data set.

    A frame's `name` gets the new suffix, and its `size`, if it has one, that of the picture as written. A `url` that is
    a path becomes the new path; one on another machine leads to the RGB picture and stays as `rgb_url`.
    """

    def __init__(self, source: Source) -> None:
        """Read every JSON file.

        Raises: ConfigError if none is BDD100K's; LabelError if one is malformed, or no picture of any is there.
        """
        pictures = source.pictures()
        self._masks = frozenset(filter(in_label_folder, pictures))
        self._names = PictureNames(key for key in pictures if key not in self._masks)
        self._files: set[str] = set()
        self._sizes: dict[str, Size] = {}
        stems = self._names.stems()
        found, seen = False, ""
        for key in (key for key in source.others() if key.lower().endswith(".json")):
            content = json_files.parse(key, source.read(key))
            if _is_one_picture(content):
                seen, found = seen or key, found or PurePosixPath(content["name"]).stem in stems
            elif (frames := _frames(content)) is not None:
                _check(key, frames)
                self._files.add(key)
                seen, found = seen or key, self._pictures(key, frames) or found
        if not seen:
            raise ConfigError(
                "these are no BDD100K labels: no .json file has frames with a name and labels; name another --format"
            )
        if pictures and not found:
            raise LabelError(f"no picture that {seen} names is there; give the folder that holds both")

    def label_pictures(self) -> frozenset[str]:
        """All in a folder of labels, masks or maps."""
        return self._masks

    def sizes(self) -> Mapping[str, Size]:
        """Of frames that have a `size`."""
        return self._sizes

    def carried(self, key: str, data: bytes, renamed: Mapping[str, str], sizes: Mapping[str, Size]) -> bytes | None:
        """As `Labels.carried`."""
        if key not in self._files:
            return data
        content = json_files.parse(key, data)
        before = _frames(content) or []
        after = [self._corrected(frame, key, renamed, sizes) for frame in before]
        if after == before:
            return data
        return json_files.like(data, after if isinstance(content, list) else content | {"frames": after})

    def _pictures(self, key: str, frames: list[dict[str, Any]]) -> bool:
        found = False
        for frame in frames:
            meant = self._meant(frame, key)
            found = found or bool(meant)
            if size := _said(frame):
                self._sizes |= dict.fromkeys(meant, size)
        return found

    def _meant(self, frame: dict[str, Any], key: str) -> list[str]:
        """A frame of a video lies in the video's folder."""
        video = frame.get("videoName")
        inside = self._names.meant(f"{video}/{frame['name']}", key) if isinstance(video, str) else []
        return inside or self._names.meant(frame["name"], key)

    def _corrected(
        self, frame: dict[str, Any], key: str, renamed: Mapping[str, str], sizes: Mapping[str, Size]
    ) -> dict[str, Any]:
        meant = self._meant(frame, key)
        new = {}
        for name, value in frame.items():
            if name == "url" and isinstance(value, str) and "://" in value:
                new["rgb_url"] = value
            else:
                is_path = name in ("name", "url") and isinstance(value, str)
                new[name] = renamed_like(value, meant, renamed) if is_path else value
        size = size_of(meant, sizes)
        if size and _said(frame):
            new["size"] = frame["size"] | {"width": size[0], "height": size[1]}
        return new


def _frames(content: Any) -> Any:
    """The frames of a file that holds many, whatever they are; None if it is of another kind."""
    frames = content.get("frames") if isinstance(content, dict) else content
    some = frames[0] if isinstance(frames, list) and frames else None
    if isinstance(content, dict):
        return frames if "frames" in content and "name" not in content else None
    is_frame = isinstance(some, dict) and "name" in some and bool({"labels", "attributes", "url"} & some.keys())
    return frames if is_frame else None


def _is_one_picture(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("name"), str) and "frames" in content


def _check(key: str, frames: Any) -> None:
    json_files.check_objects(key, "frames", frames)
    for index, frame in enumerate(frames):
        if not isinstance(frame.get("name"), str):
            raise LabelError(f"{key}: frames[{index}] has no name, which says what picture it is")
        if frame.get("labels") is not None:
            json_files.check_objects(key, f"frames[{index}].labels", frame["labels"])


def _said(frame: dict[str, Any]) -> Size | None:
    match frame.get("size"):
        case {"width": int() as width, "height": int() as height}:
            return width, height
    return None
