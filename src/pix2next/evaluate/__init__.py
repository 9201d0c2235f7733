"""How good a translation is: metrics with their protocols, trivial baselines, reports, efficiency."""

import pix2next._torchvision  # noqa: F401
