"""The metrics there are: their names, how tables call them, what they compute, and which way is better.

A name says which layer or network is meant (`fid-768`, `lpips-vgg`), since values of others do not compare. A few
short names stand for the usual choice; scores are always filed under the full one.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from pix2next.errors import ConfigError
from pix2next.evaluate.distributions import NEIGHBOURS
from pix2next.evaluate.embeddings import LAYERS
from pix2next.evaluate.pixelwise import MS_SSIM_LEAST

Sees = Literal["pixels", "square", "own"]
"""What a metric is given, which the protocol prepares: the pictures, or squares of 256 x 256 for the networks that
were made for about that size, or the pictures for networks that resize by themselves."""


@dataclass(frozen=True)
class Metric:
    """What a metric is called, and how its values are read."""

    name: str
    """In commands, settings and files: `ms-ssim`."""
    label: str
    """In tables: `MS-SSIM`."""
    definition: str
    """What it computes of what it sees, and in which unit."""
    higher_is_better: bool = False
    sees: Sees = "pixels"
    digits: int = 4
    """Decimals worth showing."""
    missing: str = ""
    """Why a picture may have no value, and with it the mean."""
    least: int = 0
    """For a metric of whole sets, the fewest pictures it is defined for; 0 for one that every picture has."""


INFINITE = "a picture equals the truth, and its PSNR is infinite"


def _metrics() -> Iterator[Metric]:
    yield Metric("psnr", "PSNR", "dB, peak 255, in floating point", True, digits=2, missing=INFINITE)
    fit = "PSNR in dB after each picture's best gain (not negative) and offset, by least squares"
    yield Metric("psnr-aligned", "PSNR aligned", fit, True, digits=2, missing=INFINITE)
    window = "Gaussian window of 11 x 11 and sigma 1.5, data range 255"
    yield Metric("ssim", "SSIM", f"{window}, mirrored borders", True)
    small = f"a picture has a side below {MS_SSIM_LEAST} pixels, too short for five scales"
    scales = f"five scales, {window}, windows inside the picture"
    yield Metric("ms-ssim", "MS-SSIM", scales, True, missing=small)
    yield Metric("rmse", "RMSE", "8-bit units (0 to 255), difference in floating point", digits=2)
    yield Metric("mae", "MAE", "mean absolute difference in 8-bit units (0 to 255)", digits=2)
    spread = "standard deviation of the difference over the picture's pixels, 8-bit units"
    yield Metric("std", "STD of error", spread, digits=2)
    flat = "a picture of one value has no correlation"
    yield Metric("pcc", "PCC", "Pearson's correlation of the picture's pixels", True, missing=flat)
    index = "mean absolute difference of (NIR - R) / (NIR + R), R of the RGB picture"
    yield Metric("ndvi", "NDVI error", index, missing="an RGB picture is missing")
    for name, label, network in (("lpips", "LPIPS", "AlexNet"), ("lpips-vgg", "LPIPS-VGG", "VGG16")):
        fed = f"{network} with LPIPS v0.1's linear weights; fed [-1, 1], grey repeated to 3 channels"
        yield Metric(name, label, fed, sees="square")
    fed = "VGG16 with L2 pooling and DISTS' weights; fed [0, 1], grey repeated to 3 channels"
    yield Metric("dists", "DISTS", fed, sees="square")
    yield from _of_inception()
    token = "Fréchet distance of class tokens of DINOv2 ViT-L/14, resized to 224 x 224 (antialiased bicubic)"
    yield Metric("fd-dinov2", "FD-DINOv2", token, sees="own", least=2)
    image = "Gaussian-kernel MMD^2 (sigma 10) x 1000 of CLIP ViT-L/14-336 embeddings, resized to 336 x 336 "
    yield Metric("cmmd", "CMMD", f"{image}(antialiased bicubic)", sees="own", least=2)


def _of_inception() -> Iterator[Metric]:
    """Each layer's, on the squares as torchmetrics resizes them and on the pictures as clean-fid does."""
    frechet, kernel = "Fréchet distance", "unbiased MMD^2 with the kernel (x . y / d + 1)^3, all pairs"
    for width in LAYERS:
        layer = f"of the {width}-wide layer of FID's Inception; 8-bit levels, grey repeated to 3 channels"
        bilinear = f"{layer}, resized to 299 x 299 (antialiased bilinear)"
        clean = f"{layer}, resized to 299 x 299 by clean-fid's antialiased bicubic"
        near = f"than that one's {NEIGHBOURS}rd nearest of its kind, by features {bilinear}"
        yield Metric(f"fid-{width}", f"FID-{width}", f"{frechet} {bilinear}", sees="square", least=2)
        yield Metric(f"kid-{width}", f"KID-{width}", f"{kernel}, {bilinear}", sees="square", digits=5, least=2)
        made = f"share of made pictures that are no farther from some true one {near}"
        true = f"share of true pictures that are no farther from some made one {near}"
        least = NEIGHBOURS + 1
        yield Metric(f"precision-{width}", f"Precision-{width}", made, True, "square", digits=3, least=least)
        yield Metric(f"recall-{width}", f"Recall-{width}", true, True, "square", digits=3, least=least)
        yield Metric(f"clean-fid-{width}", f"clean FID-{width}", f"{frechet} {clean}", sees="own", least=2)
        yield Metric(f"clean-kid-{width}", f"clean KID-{width}", f"{kernel}, {clean}", sees="own", digits=5, least=2)


METRICS = {metric.name: metric for metric in _metrics()}
HIGHER_IS_BETTER = frozenset(name for name, metric in METRICS.items() if metric.higher_is_better)
"""Names of the metrics that grow with quality; the others are distances and errors."""
DEFAULT_METRICS = ("psnr", "ssim", "rmse", "lpips", "dists", "fid-768")
SHORT = {
    "lpips-alex": "lpips",
    **{name: f"{name}-768" for name in ("fid", "kid", "precision", "recall", "clean-fid", "clean-kid")},
}
"""Other names for the usual choice."""


def full_names(names: Iterable[str]) -> tuple[str, ...]:
    """The metrics' names in full, each once, in the order given.

    Raises: ConfigError for a name that is not known, listing those that are, and for none at all.
    """
    full = tuple(dict.fromkeys(SHORT.get(name, name) for name in names))
    if unknown := [name for name in full if name not in METRICS]:
        raise ConfigError(f"no metric '{unknown[0]}'; known are {', '.join(METRICS)}")
    if not full:
        raise ConfigError(f"no metrics given; known are {', '.join(METRICS)}")
    return full
