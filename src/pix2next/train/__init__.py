"""How the network learns: discriminators, losses, one update, the loop around it."""

import pix2next._torchvision  # noqa: F401  (before torchvision is imported)
