"""Makes `import torchvision` work beside a CPU build of torch.

The wheel that `pip install torchvision` brings is built for CUDA. Beside a CPU-only torch its compiled operators cannot
load, and its import then stops at the fake kernels of `nms`, which nothing here uses: timm and torchmetrics want its
transforms and its networks, both plain Python. Declaring the two operators lets the import through; a call to one still
fails loudly, having no kernel. Imported for that effect by the packages whose modules import timm, torchmetrics or
torchvision.
"""

import sys

import torch

_UNLOADED = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

try:
    import torchvision
except RuntimeError as error:
    if "torchvision::" not in str(error):
        raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    for operator in _UNLOADED:
        torch.library.define(f"torchvision::{operator}", _SCHEMA)
    import torchvision  # noqa: F401
