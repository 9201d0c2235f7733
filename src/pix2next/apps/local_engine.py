"""A data set's pictures through one network on this machine; what other engines do is the same for each picture."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from pix2next.apps.pipeline import Loaded, Outcome, StageTimes, run_pipeline
from pix2next.apps.stores import Source
from pix2next.images import ValueRange, check_holds, decode_rgb, encode_nir
from pix2next.model.domain import Distance
from pix2next.model.pix2next import DEFAULT_MODEL, load_model
from pix2next.translate import TILE, Translator

BATCH_SIZE = 16
"""Pictures, or tiles of one, that go through at once where the device is no CPU and nobody said otherwise."""


@dataclass(frozen=True)
class Settings:
    """How pictures are translated; picklable."""

    model: str = DEFAULT_MODEL
    device: str = "auto"
    tile: int | None = None
    batch_size: int | None = None
    value_range: ValueRange | None = None
    quality: int | None = None
    """Of JPEG and WebP, as `write_nir` takes it."""
    threads: int | None = None
    """For reading and writing."""
    views: int | None = None
    """Of a picture, that are averaged; the model's own number if None."""
    warn: bool = True
    """Tell of pictures that are unlike those the model was trained on."""

    def translator(self, model: nn.Module | None = None) -> Translator:
        """Loads the model, unless one that is loaded comes.

        Raises: WeightsError if there is no such model; ConfigError for a device or a number that cannot be.
        """
        network = load_model(self.model) if model is None else model
        known = {"device": self.device, "tile": self.tile, "value_range": self.value_range, "views": self.views}
        translator = Translator(network, **known, batch_size=self.batch_size or 1)  # type: ignore[arg-type]
        if self.batch_size is None and translator.device.type != "cpu":
            translator.batch_size = BATCH_SIZE
        if not self.warn:
            translator.domain = None
        return translator

    @property
    def of_result(self) -> dict[str, Any]:
        """What pixels depend on besides the model: a picture made with other values is made again."""
        value_range = list(self.value_range) if self.value_range else None
        return {"tile": self.tile or TILE, "value_range": value_range, "quality": self.quality, "views": self.views}


class Job(NamedTuple):
    """A picture to translate, and what its translation is called; keys as in `stores`."""

    key: str
    target: str
    size: tuple[int, int] | None = None
    """Width and height of the picture that labels were made on, where they say so."""


class Encoded(NamedTuple):
    """A translated picture as the bytes of a file, and what the manifest says of it."""

    data: bytes
    width: int
    height: int
    dtype: str
    sha256: str
    """Of the source's bytes."""
    source_bytes: int
    distance: Distance | None = None
    """Of the picture from those that the model was trained on."""


def translate_all(
    jobs: Sequence[Job],
    source: Source,
    settings: Settings,
    *,
    translator: Translator | None = None,
    stages: StageTimes | None = None,
) -> Iterator[Outcome[Job, Encoded]]:
    """Every job's outcome, in about their order; a picture that cannot be used costs itself only.

    Raises: as `Settings.translator`, which makes the translator where none comes; WeightsError for NaN out of it.
    """
    translator = translator or settings.translator()
    yield from run_pipeline(
        jobs,
        lambda job: load_job(job, source, settings),
        translator,
        lambda job, loaded, nir: encode_job(job, loaded, nir, settings),
        batch_size=translator.batch_size,
        threads=settings.threads,
        stages=stages,
    )


def load_job(job: Job, source: Source, settings: Settings) -> Loaded:
    """The decoded picture, with the hash of its bytes and their number.

    It is upright, unless the labels were made on the picture as it is stored, lying on its side.

    Raises: ImageError if it is none, or if its target's format cannot hold it; OSError.
    """
    data = source.read(job.key)
    rgb = decode_rgb(data, job.key, settings.value_range)
    if job.size == rgb.shape[:2] != rgb.shape[1::-1]:
        stored = decode_rgb(data, job.key, settings.value_range, upright=False)
        rgb = stored if stored.shape[1::-1] == job.size else rgb
    check_holds(Path(job.target), rgb.dtype, rgb.shape[:2])
    return Loaded(rgb, (hashlib.sha256(data).hexdigest(), len(data)))


def encode_job(job: Job, loaded: Loaded, nir: np.ndarray, settings: Settings) -> Encoded:
    """The translation in the format that the target's suffix names. Raises: ImageError."""
    height, width = nir.shape
    data = encode_nir(nir, PurePosixPath(job.target).suffix, settings.quality)
    sha256, source_bytes = loaded.info
    return Encoded(data, width, height, str(nir.dtype), sha256, source_bytes, loaded.distance)
