"""An encoded picture: a file, or bytes that came from elsewhere."""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

_LOG: Any = getattr(cv2.utils, "logging", cv2)  # Where OpenCV 5 and OpenCV 4 have their log level; 0 is silent.


class Stored(NamedTuple):
    """Read the same way wherever it is; `str` of it is what it is called in sentences."""

    path: Path
    """The file, or a name for the bytes."""
    data: bytes | None = None

    def __str__(self) -> str:
        return str(self.path)

    def open(self) -> BufferedReader | BytesIO:
        """From its start. Raises: OSError."""
        return self.path.open("rb") if self.data is None else BytesIO(self.data)

    def size(self) -> int:
        """In bytes. Raises: OSError."""
        return self.path.stat().st_size if self.data is None else len(self.data)

    def array(self) -> UInt8[np.ndarray, "bytes"]:
        """All of it, not to be written to; of a file only what is looked at takes memory. Raises: OSError."""
        if self.data is None:
            return np.memmap(self.path, dtype=np.uint8, mode="r")
        return np.frombuffer(self.data, np.uint8)


class _Together:
    """A state of the whole process that several threads want at once: entered with the first, left with the last."""

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make, self._lock, self._inside = make, threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._state = self._make()
                self._state.__enter__()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._state.__exit__(None, None, None)


@contextmanager
def _no_messages() -> Iterator[None]:
    level = _LOG.setLogLevel(0)
    try:
        yield
    finally:
        _LOG.setLogLevel(level)


@contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


silent_opencv = _Together(_no_messages)
"""Inside, OpenCV writes nothing to stderr: what it would say is in our own sentence."""
silent_warnings = _Together(_no_warnings)
