"""`python -m pix2next`, the same as the command `pix2next`."""

from pix2next.cli import app

app(prog_name="pix2next")
