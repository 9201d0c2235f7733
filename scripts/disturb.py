"""Copies of a test split as worse cameras, lamps and files would have it, for `pix2next matrix` to score.

python scripts/disturb.py pairs/outdoor/test disturbed
pix2next matrix tiny-outdoor --data taken=pairs/outdoor/test --data disturbed/warm --data disturbed/jpeg --out scores
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from jaxtyping import Float

from pix2next.data.augment import through_jpeg
from pix2next.data.pairs import find_pairs, load_pair
from pix2next.errors import Pix2NextError
from pix2next.images import atomic_path, full_scale

Light = Float[np.ndarray, "h w 3"]
"""R, G and B as stored (not linear), black 0 and white 1."""


DISTURBANCES: dict[str, Callable[[Light, np.random.Generator], Light]] = {
    "warm": lambda light, rng: light * (1.15, 1, 0.7),
    "cold": lambda light, rng: light * (0.7, 1, 1.15),
    "dark": lambda light, rng: light * 0.4,
    "bright": lambda light, rng: light * 1.5,
    "hazy": lambda light, rng: light * 0.5 + 0.4,
    "noisy": lambda light, rng: light + rng.normal(0, 0.05, light.shape),
    "soft": lambda light, rng: cv2.GaussianBlur(light, (0, 0), 1.5),
    "jpeg": lambda light, rng: through_jpeg(in_eight_bits(light), 30) / 255,
}
"""What each does to a picture; what is beyond white then is white."""


def in_eight_bits(light: Light) -> np.ndarray:
    """Levels 0 to 255, `uint8`."""
    return (light.clip(0, 1) * 255).round().astype(np.uint8)


def write_copies(split: Path, out: Path) -> None:
    """For each disturbance OUT/NAME/rgb, PNG in 8 bits, and OUT/NAME/nir, the files as they are.

    Picture n of a disturbance has the same noise in every call.

    Raises: PairError or ImageError where the split cannot be read; OSError where nothing can be written.
    """
    pairs = find_pairs(split / "rgb", split / "nir")
    for place, pair in enumerate(pairs):
        rgb, _ = load_pair(pair)
        light = rgb / full_scale(rgb.dtype)
        for index, (name, disturb) in enumerate(DISTURBANCES.items()):
            made = in_eight_bits(disturb(light, np.random.default_rng((index, place))))
            png = cv2.imencode(".png", cv2.cvtColor(made, cv2.COLOR_RGB2BGR))[1]
            write(out / name / "rgb" / f"{pair.name}.png", png.tobytes())
            write(out / name / "nir" / pair.nir.relative_to(split / "nir"), pair.nir.read_bytes())


def write(path: Path, data: bytes) -> None:
    """The file, whole."""
    with atomic_path(path) as part:
        part.write_bytes(data)


def main(
    split: Annotated[Path, typer.Argument(help="A folder with rgb/ and nir/.")],
    out: Annotated[Path, typer.Argument(help="The folder to make.")],
) -> None:
    """Write the copies, a folder for each disturbance."""
    try:
        write_copies(split, out)
    except (Pix2NextError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo("\n".join(str(out / name) for name in DISTURBANCES))


if __name__ == "__main__":
    typer.run(main)
