"""Annotations that go with a translated data set: carried over unchanged, with what they say about pictures made right.

What a label says of its objects is never touched. What it says of a picture is corrected where the translation made it
wrong: a file's name when its suffix changes, its width and height, a path that still leads to the RGB data set, a URL
from which the RGB picture would be fetched.

Labels are read, and refused in one sentence, before the first picture is translated.

A photograph may be stored lying on its side, with an EXIF tag that says how to turn it; most labels are made on the
upright picture, some on the stored one. Labels that give a size say which. A translated picture has no such tag: it is
written the way its labels were made (`sizes`), and stands upright where they say nothing of sizes.

Source: https://cocodataset.org/#format-data, https://docs.ultralytics.com/datasets/detect,
https://doc.bdd100k.com/format.html
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from pix2next.apps.labels.bdd100k import Bdd100kLabels
from pix2next.apps.labels.coco import CocoLabels
from pix2next.apps.labels.names import Size
from pix2next.apps.labels.yolo import YoloLabels
from pix2next.apps.stores import Source
from pix2next.errors import ConfigError

__all__ = ["FORMATS", "Labels", "Size", "labels_of"]

FORMATS = ("coco", "yolo", "bdd100k", "folder")


@runtime_checkable
class Labels(Protocol):
    """A data set's annotations, read once."""

    def label_pictures(self) -> frozenset[str]:
        """Keys of files with a picture's suffix that are labels themselves (masks), to be carried over unchanged."""

    def sizes(self) -> Mapping[str, Size]:
        """Width and height of the picture that a label was made on, by key, where labels say so."""

    def carried(self, key: str, data: bytes, renamed: Mapping[str, str], sizes: Mapping[str, Size]) -> bytes | None:
        """What becomes of a file that is no picture: the bytes themselves where nothing has to change.

        None stands for a file made of the RGB pixels, which would be wrong beside the translated ones.

        Args:
            key: the file's.
            data: what it holds.
            renamed: new keys of pictures by old ones; the same unless their suffix changes.
            sizes: width and height of the translated pictures, by old key.
        """


class FolderLabels:
    """Any files: carried over as they are, unread."""

    def label_pictures(self) -> frozenset[str]:
        """None: every picture is translated."""
        return frozenset()

    def sizes(self) -> Mapping[str, Size]:
        """Nothing is known of sizes."""
        return {}

    def carried(self, key: str, data: bytes, renamed: Mapping[str, str], sizes: Mapping[str, Size]) -> bytes | None:
        """The bytes themselves."""
        return data


def labels_of(name: str, source: Source) -> Labels:
    """The labels of `source`, which are in the format `name`: one of `FORMATS`.

    Raises:
        ConfigError: there is no such format, or the source holds no labels in it.
        LabelError: a label is malformed, or none goes with a picture.
    """
    match name:
        case "coco":
            return CocoLabels(source)
        case "yolo":
            return YoloLabels(source)
        case "bdd100k":
            return Bdd100kLabels(source)
        case "folder":
            return FolderLabels()
    raise ConfigError(f"no labels are known as {name}; known are {', '.join(FORMATS)}")
