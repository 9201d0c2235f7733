"""The verbs of the command line: each parses, makes one call and shows what came back.

An error that a user can cause becomes one sentence on stderr and exit status 2; 1 means that some pictures failed,
130 that the run was interrupted. Whatever is slow to import is imported by the verb that needs it.
"""

from pix2next.cli.program import app

# Verbs join `app` as their modules are read, and help lists them in this order.
from pix2next.cli import translating, datasets, rasters, video, data, training, evaluating, listing  # isort: skip

__all__ = ["app", "data", "datasets", "evaluating", "listing", "rasters", "training", "translating", "video"]
