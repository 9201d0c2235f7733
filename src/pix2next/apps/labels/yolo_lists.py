"""Which pictures belong to which split of a YOLO data set: lists of paths, and YAML files.

Both may name pictures by absolute paths, or in a way that depends on where a program is started. In the translated data
set they would lead back to the RGB pictures; what does so is rewritten to lead, from the file's own place, to the
translated ones.

Source: https://docs.ultralytics.com/datasets/detect (path, train, val and test; `./` in a list means its own folder)
"""

import logging
import posixpath
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from typing import Any

import yaml

from pix2next.apps.labels.names import PictureNames, renamed_like
from pix2next.errors import LabelError, one_line
from pix2next.images.files import is_picture_name

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test", "minival")


def is_list(data: bytes) -> bool:
    """Whether every line of a text file ends as a picture's name does."""
    try:
        lines = [line.strip() for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        return False
    return bool(lines) and all(is_picture_name(_last(line)) for line in lines)


def corrected_list(key: str, data: bytes, names: PictureNames, renamed: Mapping[str, str]) -> bytes:
    """The list with the pictures' new names.

    A path that holds from the data set's root or from the list's folder keeps its form. Any other begins with `./`
    now, which stands for the list's folder. One that means no picture of the data set stays.
    """
    missing = []
    lines = data.decode("utf-8-sig").splitlines(keepends=True)
    for index, line in enumerate(lines):
        path = line.strip()
        meant = names.meant(path, key) if path else []
        if path and not meant:
            missing.append(path)
        if meant:
            new = renamed_like(path, meant, renamed)
            holds = {posixpath.normpath(posixpath.join(start, path)) for start in ("", posixpath.dirname(key))}
            if len(meant) == 1 and meant[0] not in holds:
                new = f"./{_from(key, renamed.get(meant[0], meant[0]))}"
            lines[index] = line.replace(path, new)
    if missing:
        logger.warning(
            "%s names %d pictures that are not in the data set (first: %s); they stay as they are",
            key, len(missing), missing[0],
        )  # fmt: skip
    text = "".join(lines).encode()
    return data if text == data.decode("utf-8-sig").encode() else text


def names_splits(key: str, data: bytes) -> bool:
    """Whether a YAML file says where the pictures of splits lie. Raises: LabelError if it is no YAML."""
    content = _node(key, data)
    names = {name.value for name, _ in content.value} if isinstance(content, yaml.MappingNode) else set()
    return bool(names & {"train", "val"}) and bool(names & {"names", "nc"})


def corrected_yaml(key: str, data: bytes, known: Collection[str]) -> bytes:
    """The YAML file, its comments and order kept, with every place where pictures lie seen from the file itself.

    `path` becomes null, which stands for the file's own folder: as a name or an absolute path it leads to the RGB data
    set. The splits are rewritten if they do not hold without it. `download` becomes null, as it would fetch RGB.

    Args:
        key: of the YAML file.
        data: what it holds.
        known: keys of pictures and lists of pictures.
    """
    text = data.decode("utf-8-sig")
    content = {name.value: value for name, value in _node(key, data).value}
    places = {*known, *(parent.as_posix() for place in known for parent in PurePosixPath(place).parents)}
    root = _text(content.get("path"))
    changes: list[tuple[Any, str | None]] = [
        (node, new)
        for split in SPLITS
        for node in _leaves(content.get(split))
        if (new := _seen_from(key, root, node.value, places)) != node.value
    ]
    changes += [(node, None) for name in ("path", "download") if _text(node := content.get(name))]
    for node, value in sorted(changes, key=lambda change: change[0].start_mark.index, reverse=True):
        block = "\n" if text[node.start_mark.index] in "|>" else ""
        text = text[: node.start_mark.index] + _quoted(value) + block + text[node.end_mark.index :]
    return text.encode() if changes else data


def _seen_from(key: str, root: str, place: str, places: Collection[str]) -> str:
    """`place` as it reads from the YAML file's folder; as it is where it holds so already, or is nowhere."""
    here = posixpath.dirname(key)
    as_it_is = posixpath.normpath(posixpath.join(here, place))
    # A leading ../ that leads out of the data set is read without, as Ultralytics does.
    if not root and not place.startswith("/") and {as_it_is, _below(here, place)} & set(places):
        return place
    full = posixpath.normpath(posixpath.join(root, place))
    parts = [part for part in full.split("/") if part not in ("", "..", ".")]
    tried = [posixpath.normpath(posixpath.join(here, full)), *("/".join(parts[start:]) for start in range(len(parts)))]
    if full == posixpath.normpath(root):
        tried.append(".")
    found = next((path for path in tried if path in places), None)
    if found is None:
        logger.warning("%s: %s is not in the data set, and stays as it is", key, place)
        return place
    return _from(key, found)


def _quoted(text: str | None) -> str:
    """As YAML writes it, in a flow or a block."""
    return str(yaml.safe_dump([text], default_flow_style=True, allow_unicode=True, width=2**30)).strip()[1:-1]


def _below(folder: str, place: str) -> str:
    return posixpath.normpath(posixpath.join(folder, place.removeprefix("../")))


def _from(key: str, target: str) -> str:
    return posixpath.relpath(f"/{target}", f"/{posixpath.dirname(key)}")


def _last(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def _text(node: Any) -> str:
    return node.value if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":str") else ""


def _leaves(node: Any) -> list[yaml.ScalarNode]:
    if isinstance(node, yaml.SequenceNode):
        return [leaf for entry in node.value for leaf in _leaves(entry)]
    return [node] if _text(node) else []


def _node(key: str, data: bytes) -> Any:
    try:
        return yaml.compose(data.decode("utf-8-sig"), yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LabelError(f"{key} is no YAML: {one_line(error)}") from None
