"""Several views of one picture through one network, each put back into place, and their mean.

What a network makes of a leaf depends a little on where on its grid the leaf lies and on which way round the picture
is. The mean over views is free of a part of that error, in every metric (docs/outdoor-and-aerial.md), at the price of
a pass a view. Source: the geometric self-ensemble of EDSR (arXiv:1707.02921), sec. 3.3, there eight mirrored and
turned views. Departures: no turns, which photos do not come in; views that are moved instead.
"""

from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pix2next.images import pad_to_multiple

STEP = 4
"""Pixels by which a view is moved, down and to the right: half a cell of the coarsest level of our generators."""


class View(NamedTuple):
    """How a picture is shown to the network."""

    mirrored: bool
    moved: bool


VIEWS = (View(False, False), View(True, True), View(False, True), View(True, False))
"""In the order in which they pay: two of them give nine tenths of what four give."""


class Views(nn.Module):
    """A network called on the first `count` of `VIEWS`; with one of them it is the network itself.

    Takes and gives what the network does, [b, 3, h, w] to [b, c, h, w], h and w multiples of its `multiple`. The mean
    of several views is float32.
    """

    def __init__(self, network: nn.Module, count: int) -> None:
        """`count` is from 1 to `len(VIEWS)`."""
        super().__init__()
        assert 1 <= count <= len(VIEWS)
        self.network = network
        self.views = VIEWS[:count]
        self.multiple = int(network.multiple)  # type: ignore[arg-type]

    def forward(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        if len(self.views) == 1:
            return self.network(rgb)
        total = self._through(self.views[0], rgb)
        for view in self.views[1:]:
            total = total + self._through(view, rgb)
        return total / len(self.views)

    @classmethod
    def of(cls, network: nn.Module) -> "Views":
        """As many views as the network has by itself: one, where it says nothing of them."""
        return cls(network, getattr(network, "views", 1))

    def _through(self, view: View, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        height, width = rgb.shape[-2:]
        shown = rgb.flip(-1) if view.mirrored else rgb
        if view.moved:
            mode = "reflect" if min(height, width) > STEP else "replicate"
            shown = pad_to_multiple(F.pad(shown, (STEP, 0, STEP, 0), mode=mode), self.multiple)
        fake = self.network(shown).float()
        if view.moved:
            fake = fake[..., STEP : STEP + height, STEP : STEP + width]
        return fake.flip(-1) if view.mirrored else fake
