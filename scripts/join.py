"""One checkpoint of two networks, whose mean is what comes out.

python scripts/join.py joined.safetensors runs/a runs/b
"""

from pathlib import Path
from typing import Annotated

import typer
from average import load, write

from pix2next.model.pix2next import Pix2Next


def main(
    out: Annotated[Path, typer.Argument(help="The checkpoint to write, .safetensors.")],
    first: Annotated[str, typer.Argument(help="Run or checkpoint: its views are used, and training goes on with it.")],
    partner: Annotated[str, typer.Argument(help="Run or checkpoint, of the same architecture or another.")],
) -> None:
    """Write both, in fp32; what their cards said of scores does not hold for the two together and is left out."""
    write(out, lambda: Pix2Next.joined(load(first), load(partner)))


if __name__ == "__main__":
    typer.run(main)
