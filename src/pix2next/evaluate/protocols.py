"""Protocols by name: what is done to the pictures before a metric sees them, and which of its variants is meant.

A number without its protocol means nothing: the same two pictures have another PSNR at 256 x 256.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from pix2next.errors import ConfigError
from pix2next.evaluate.metrics import METRICS
from pix2next.evaluate.perceptual import Square, network_input
from pix2next.evaluate.pixelwise import Picture, aligned_psnr, error_std, mae, ms_ssim, pcc, psnr, rmse, ssim
from pix2next.evaluate.released import released_picture, released_rmse, released_square, released_ssim

PairScore = Callable[[Picture, Picture], float]

PIXELWISE: Mapping[str, PairScore] = {
    "psnr": psnr,
    "psnr-aligned": aligned_psnr,
    "ssim": ssim,
    "ms-ssim": ms_ssim,
    "rmse": rmse,
    "mae": mae,
    "std": error_std,
    "pcc": pcc,
}
"""Functions of the made and the true picture."""


@dataclass(frozen=True)
class Protocol:
    """How pictures are prepared, and what is computed differently."""

    name: str
    summary: str
    pixels: Callable[[Picture], Picture]
    pixels_said: str
    """What `pixels` does, for reports."""
    square: Callable[[Picture], Square]
    square_said: str
    pixelwise: Mapping[str, PairScore] = field(default_factory=lambda: PIXELWISE)
    definitions: Mapping[str, str] = field(default_factory=dict)
    """In place of the metrics' own, where something else is computed."""
    released: bool = False
    """Networks are fed as the released code feeds them."""

    def describe(self, metric: str) -> str:
        """What a value of this metric is: preparation, definition, and over what the mean goes."""
        known = METRICS[metric]
        prepared = self.square_said if known.sees == "square" else self.pixels_said
        definition = self.definitions.get(metric, known.definition)
        over = "one value for the set" if known.least else "mean of the pictures' values"
        return f"{prepared}; {definition}; {over}"


def _unchanged(picture: Picture) -> Picture:
    return picture


def _squashed(picture: Picture) -> Float[np.ndarray, "256 256"]:
    return network_input(picture)[0, 0].numpy()


def _fed_otherwise() -> dict[str, str]:
    """Definitions of what the released code's networks see."""
    resized, as_pytorch_fid = "299 x 299 (antialiased bilinear)", "299 x 299 (bilinear) and scaled as by pytorch-fid"
    own = {name: metric.definition for name, metric in METRICS.items()}
    lpips = {name: own[name].replace("[-1, 1]", "[0, 1]") for name in ("lpips", "lpips-vgg")}
    return lpips | {name: said.replace(resized, as_pytorch_fid) for name, said in own.items() if resized in said}


ANTIALIASED = "256 x 256, aspect not kept (antialiased bilinear)"
ALIASED = "8 bits, 256 x 256, aspect not kept (OpenCV's bilinear, aliased)"
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "standard",
            "pixels at native size, nothing resized or rounded; networks at 256 x 256",
            _unchanged,
            "native size",
            network_input,
            ANTIALIASED,
        ),
        Protocol(
            "paper-256",
            "everything at 256 x 256, as in the paper, with the mistakes of its code put right",
            _squashed,
            ANTIALIASED,
            network_input,
            ANTIALIASED,
        ),
        Protocol(
            "released",
            "what the released eval_all.py computes, mistakes kept; only for comparing with printed tables",
            released_picture,
            ALIASED,
            released_square,
            ALIASED,
            pixelwise={**PIXELWISE, "rmse": released_rmse, "ssim": released_ssim},
            definitions={
                "ssim": "flat window of 7 x 7, sample variances, data range 255, windows inside the picture",
                "rmse": "8-bit arithmetic that wraps around at 256: no RMSE",
                **_fed_otherwise(),
            },
            released=True,
        ),
    )
}
DEFAULT_PROTOCOL = "standard"


def protocol_named(name: str) -> Protocol:
    """Raises: ConfigError for a name that is not known, listing those that are."""
    if name not in PROTOCOLS:
        raise ConfigError(f"no protocol '{name}'; known are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
