"""YOLO: a text file a picture, and the files that say which pictures belong to a split.

Labels are shares of the picture's upright width and height, so nothing in them changes; a label's file has its
picture's stem, which stays. Which file it is: the last folder `images` on the picture's path read as `labels`, or the
picture's own folder where there is none.

Left out are files that trainers put beside the pictures: `.cache` (sizes and places of the RGB files) and `.npy` of a
picture's name (its RGB pixels, which Ultralytics loads in place of the picture).

Source: https://docs.ultralytics.com/datasets/detect, and img2label_paths of the code it documents
"""

import math
from collections.abc import Mapping
from pathlib import PurePosixPath

from pix2next.apps.labels import yolo_lists
from pix2next.apps.labels.names import PictureNames, Size, in_label_folder
from pix2next.apps.stores import Source
from pix2next.errors import ConfigError, LabelError


class YoloLabels:
    """The YOLO files of a data set: labels, lists of pictures, and YAML files that name the splits."""

    def __init__(self, source: Source) -> None:
        """Read every label, list and YAML file.

        Raises: ConfigError if no picture has a label file; LabelError if a file is malformed.
        """
        pictures, others = source.pictures(), source.others()
        self._masks = frozenset(filter(in_label_folder, pictures))
        self._pictures = sorted(set(pictures) - self._masks)
        self._names = PictureNames(self._pictures)
        self._stems = self._names.stems()
        labels = {label_key(key) for key in self._pictures} & set(others)
        if self._pictures and not labels:
            first = self._pictures[0]
            raise ConfigError(
                f"these are no YOLO labels: no picture has any (of {first} they would be in {label_key(first)}); "
                "name another --format"
            )
        for key in sorted(labels):
            _check(key, source.read(key))
        texts = {key: source.read(key) for key in others if key.endswith(".txt") and key not in labels}
        self._lists = {key for key, data in texts.items() if yolo_lists.is_list(data)}
        self._yamls = {key for key in others if key.endswith((".yaml", ".yml"))}
        self._yamls = {key for key in self._yamls if yolo_lists.names_splits(key, source.read(key))}

    def label_pictures(self) -> frozenset[str]:
        """Masks: in a folder for them, or in one of labels."""
        return self._masks

    def sizes(self) -> Mapping[str, Size]:
        """Labels are shares of the upright picture, and say nothing of sizes."""
        return {}

    def carried(self, key: str, data: bytes, renamed: Mapping[str, str], sizes: Mapping[str, Size]) -> bytes | None:
        """As `Labels.carried`."""
        if key in self._lists:
            return yolo_lists.corrected_list(key, data, self._names, renamed)
        if key in self._yamls:
            return yolo_lists.corrected_yaml(key, data, {*self._pictures, *self._lists})
        return None if self._made_of_pixels(key) else data

    def _made_of_pixels(self, key: str) -> bool:
        path = PurePosixPath(key)
        return path.suffix == ".cache" or (path.suffix == ".npy" and path.stem in self._stems)


def label_key(picture: str) -> str:
    """Where the label of a picture lies."""
    before, found, after = f"/{picture}".rpartition("/images/")
    path = f"{before}/labels/{after}" if found else f"/{picture}"
    return PurePosixPath(path[1:]).with_suffix(".txt").as_posix()


def _check(key: str, data: bytes) -> None:
    """Raises: LabelError unless every line is a class and at least four numbers (a box, a polygon, points)."""
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise LabelError(f"{key} is no text, which a YOLO label is") from None
    for number, line in enumerate(lines, start=1):
        if (words := line.split()) and not _is_label(words):
            raise LabelError(f"{key}, line {number} is no class with a box or points: {line[:60]!r}")


def _is_label(words: list[str]) -> bool:
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        return False
    return len(numbers) >= 5 and all(map(math.isfinite, numbers)) and numbers[0] >= 0 and numbers[0].is_integer()
