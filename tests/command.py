"""The command line as a user types it."""

from typer.testing import CliRunner

from pix2next.cli import app


def run(*arguments):
    """What a verb shows, and its exit status."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
