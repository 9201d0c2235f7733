"""Label files in JSON, written again in the style they came in."""

import json
import re
from typing import Any

from pix2next.errors import LabelError


def parse(key: str, data: bytes) -> Any:
    """What the file says. Raises: LabelError, one sentence that names the file and the place."""
    try:
        return json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise LabelError(f"{key} is no JSON: {error.msg} in line {error.lineno}, column {error.colno}") from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise LabelError(f"{key} is no JSON: {' '.join(str(error).split())}") from None


def like(data: bytes, value: Any) -> bytes:
    """`value` with the indentation, the spaces and the escapes of `data`; numbers come out as the same numbers."""
    start = data[:4096].decode("utf-8", errors="replace")
    indent = re.match(r"\s*[\[{]\r?\n([ \t]*)", start)
    spaced = indent or re.search(r'":\s', start)
    text = json.dumps(
        value,
        indent=indent[1] if indent else None,
        separators=("," if indent or not spaced else ", ", ": " if spaced else ":"),
        ensure_ascii=data.isascii(),
    )
    return (text + ("\n" if data.endswith(b"\n") else "")).encode()


def check_objects(key: str, name: str, value: Any) -> None:
    """Raises: LabelError unless `value`, which the file has as `name`, is a list of objects."""
    if not isinstance(value, list):
        raise LabelError(f"{key}: {name} is no list, but {_shown(value)}")
    for index, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise LabelError(f"{key}: {name}[{index}] is no object, but {_shown(entry)}")


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
