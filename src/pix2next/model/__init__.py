"""The network: vision foundation model, generator, and the whole."""

import pix2next._torchvision  # noqa: F401  (before timm is imported)
