"""Reading, translating and writing at the same time.

Threads read and decode pictures ahead of the network and encode them behind it, for which OpenCV, Pillow and torch let
go of the lock of Python. Every queue between them is bounded, so memory does not grow with the number of pictures.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from pix2next.errors import ImageError, Pix2NextError, one_line
from pix2next.model.domain import Distance
from pix2next.translate import Translator

T = TypeVar("T")
R = TypeVar("R")
In = TypeVar("In")
Out = TypeVar("Out")

MOST_THREADS = 16
HELD_BATCHES = 8
"""So many batches' worth of pictures wait for others of their size before the oldest go without."""


class Loaded(NamedTuple):
    """A decoded picture, [h, w] or [h, w, 3], and whatever `save` needs to know besides."""

    picture: np.ndarray
    info: Any = None
    distance: Distance | None = None
    """From the model's training pictures; known after the network."""


class Outcome(NamedTuple, Generic[T, R]):
    """What became of a task: what `save` returned, or why there is nothing, in one sentence."""

    task: T
    result: R | None
    error: str | None
    seconds: float
    """The picture's share of the time that its batch took in the network."""


@dataclass
class StageTimes:
    """Seconds that threads spent in each stage, all threads together, and how long the whole took."""

    decode: float = 0.0
    network: float = 0.0
    encode: float = 0.0
    wall: float = 0.0
    lanes: int = 1
    """Threads that call the network."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def waiting(self) -> float:
        """Seconds that threads for the network had nothing to do."""
        return max(0.0, self.wall * self.lanes - self.network)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Adds the time inside to `stage`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - start
            with self._lock:
                setattr(self, stage, getattr(self, stage) + taken)


@dataclass
class _Item(Generic[T, R]):
    """A task on its way."""

    task: T
    loaded: Loaded | None = None
    nir: np.ndarray | None = None
    result: R | None = None
    error: str | None = None
    seconds: float = 0.0


def run_pipeline(
    tasks: Iterable[T],
    load: Callable[[T], Loaded],
    translator: Translator,
    save: Callable[[T, Loaded, np.ndarray], R],
    *,
    batch_size: int = 1,
    threads: int | None = None,
    stages: StageTimes | None = None,
) -> Iterator[Outcome[T, R]]:
    """Load, translate and save every task; outcomes come in about the order of the tasks.

    Pictures of one size and dtype that fit into a tile go through the network `batch_size` at a time. A batch has
    always that many: where there are no more of a size its first is repeated, and the copies are dropped. What becomes
    of a picture then does not depend on how many others came with it. Larger pictures go alone, in batches of tiles.

    Whatever `load` or `save` raises costs that picture only; so does too little memory. What the network raises ends
    the run. However it ends, also by closing the iterator, what the network has given is saved first.

    Args:
        tasks: taken as they are needed; at most a bounded number are in work.
        load: called in threads.
        translator: its model must bear several calls at a time on other devices than a CPU.
        save: called in threads with the task, what was loaded, and the NIR picture.
        batch_size: pictures that go through the network at once.
        threads: for loading and saving; `default_threads` if None.
        stages: gets the times.
    """
    stages = stages or StageTimes()
    threads = threads or default_threads(translator)
    stages.lanes = default_lanes(translator)
    start = time.perf_counter()
    helpers, network = ThreadPoolExecutor(threads, "pictures"), ThreadPoolExecutor(stages.lanes, "network")
    try:
        loaded = ahead(helpers, lambda task: _load(task, load, stages), tasks, threads + batch_size)
        batches = _by_size(loaded, translator, batch_size)
        work = partial(_translate, translator=translator, batch_size=batch_size, stages=stages)
        # A single lane is the caller's own thread: Ctrl-C then need not wait for the last tile of a large picture.
        translated = map(work, batches) if stages.lanes == 1 else ahead(network, work, batches, stages.lanes)
        items = (item for batch in translated for item in batch)
        for item in _behind(helpers, lambda item: _save(item, save, stages), items, threads + batch_size):
            yield Outcome(item.task, item.result, item.error, item.seconds)
    finally:
        network.shutdown(cancel_futures=True)
        helpers.shutdown(cancel_futures=True)
        stages.wall += time.perf_counter() - start


def default_threads(translator: Translator) -> int:
    """Two where the CPU is the network's too, else one for every core, up to 16."""
    return 2 if translator.device.type == "cpu" else min(MOST_THREADS, os.cpu_count() or 1)


def default_lanes(translator: Translator) -> int:
    """Threads that call the network: several where it runs elsewhere, so that next batches are brought meanwhile."""
    return 1 if translator.device.type == "cpu" else 3


def ahead(pool: ThreadPoolExecutor, work: Callable[[In], Out], items: Iterable[In], depth: int) -> Iterator[Out]:
    """What `work` makes of the items, in their order, with `depth` of them begun ahead of the one asked for."""
    begun: deque[Future[Out]] = deque()
    for item in items:
        begun.append(pool.submit(work, item))
        if len(begun) > depth:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


def _behind(pool: ThreadPoolExecutor, work: Callable[[In], Out], items: Iterable[In], depth: int) -> Iterator[Out]:
    """What `work` makes of the items, in their order, each as soon as it is done and the next item has come.

    What has begun is done to its end, whatever happens.
    """
    begun: deque[Future[Out]] = deque()
    try:
        for item in items:
            begun.append(pool.submit(work, item))
            while begun and (begun[0].done() or len(begun) > depth):
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        wait(begun)


def _load(task: T, load: Callable[[T], Loaded], stages: StageTimes) -> _Item[T, Any]:
    item: _Item[T, Any] = _Item(task)
    with stages.measure("decode"):
        try:
            item.loaded = load(task)
        except Exception as error:  # One picture never stops the others, whatever a decoder makes of it.
            item.error = _sentence(error)
    return item


def _save(item: _Item[T, R], save: Callable[[T, Loaded, np.ndarray], R], stages: StageTimes) -> _Item[T, R]:
    if item.loaded is None or item.nir is None:
        return item
    with stages.measure("encode"):
        try:
            item.result = save(item.task, item.loaded, item.nir)
        except Exception as error:
            item.error = _sentence(error)
    item.loaded = item.nir = None
    return item


def _by_size(loaded: Iterable[_Item[T, R]], translator: Translator, batch_size: int) -> Iterator[list[_Item[T, R]]]:
    """Items that go through the network together; what could not be loaded, or does not fit a tile, goes alone."""
    waiting: dict[Any, list[_Item[T, R]]] = {}
    for item in loaded:
        if item.loaded is None or not translator.fits(item.loaded.picture):
            yield [item]
            continue
        picture = item.loaded.picture
        same = waiting.setdefault((picture.shape, picture.dtype), [])
        same.append(item)
        if len(same) == batch_size:
            yield waiting.pop((picture.shape, picture.dtype))
        elif sum(map(len, waiting.values())) > HELD_BATCHES * batch_size:
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()


def _translate(
    batch: list[_Item[T, R]], translator: Translator, batch_size: int, stages: StageTimes
) -> list[_Item[T, R]]:
    pictures = [item.loaded.picture for item in batch if item.loaded is not None]
    if not pictures:
        return batch
    if translator.fits(pictures[0]):
        pictures += [pictures[0]] * (batch_size - len(pictures))
    start = time.perf_counter()
    with stages.measure("network"):
        try:
            nirs: Sequence[np.ndarray] = translator.many(pictures)
            distances = translator.distances(pictures[: len(batch)])
        except (ImageError, MemoryError) as error:
            for item in batch:
                item.error = _sentence(error)
            return batch
    seconds = (time.perf_counter() - start) / len(batch)
    for item, nir, distance in zip(batch, nirs, distances, strict=False):
        assert item.loaded is not None
        item.nir, item.seconds, item.loaded = nir, seconds, item.loaded._replace(distance=distance)
    return batch


def _sentence(error: Exception) -> str:
    match error:
        case Pix2NextError():
            return str(error)
        case MemoryError():
            return "too little memory to hold the picture"
        case OSError(strerror=str(reason), filename=str(name)):
            return f"{name}: {reason}"
    return one_line(error)
