"""Several views of one picture through one network, each put back into place, and their mean.

What a network makes of a leaf depends a little on where on its grid the leaf lies and on which way round the picture
is. The mean over views is free of a part of that error, in every metric (docs/outdoor-and-aerial.md), at the price of
a pass a view. Source: the geometric self-ensemble of EDSR (arXiv:1707.02921), sec. 3.3, there eight mirrored and
turned views. Departures: views that are moved, and turns only for pictures from above: photos do not come turned.
"""

from typing import NamedTuple

import torch
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
    turns: int = 0
    """Quarter turns, after mirroring."""


VIEWS = (View(False, False), View(True, True), View(False, True), View(True, False))
"""In the order in which they pay: two of them give nine tenths of what four give."""
TURNED_VIEWS = (View(False, False), View(True, True, 2), View(False, True, 1), View(True, False, 3))
"""Instead, for networks of pictures that come in every direction."""


def own_views(network: nn.Module) -> int:
    """How many views a network is used with: one, where it says nothing of them."""
    return int(getattr(network, "views", 1))


def turned(network: nn.Module) -> bool:
    """Whether its pictures come in every direction, so that its views are turned, too."""
    return bool(getattr(network, "turned", False))


class Views(nn.Module):
    """A network called on the first `views` of `VIEWS` or `TURNED_VIEWS`, as many as it has by itself if None.

    Takes and gives what the network does, [b, 3, h, w] to [b, c, h, w], h and w multiples of its `multiple`. The mean
    is float32, and of one view what the network gives.
    """

    def __init__(self, network: nn.Module, views: int | None = None) -> None:
        """`views` is from 1 to `len(VIEWS)`."""
        super().__init__()
        self.network = network
        count = own_views(network) if views is None else views
        assert 1 <= count <= len(VIEWS)
        self.shown = (TURNED_VIEWS if turned(network) else VIEWS)[:count]
        self.multiple = int(network.multiple)  # type: ignore[arg-type]

    @property
    def views(self) -> int:
        """How many there are."""
        return len(self.shown)

    def forward(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        return torch.stack([self._through(view, rgb) for view in self.shown]).mean(dim=0)

    def _through(self, view: View, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        shown = rgb.flip(-1) if view.mirrored else rgb
        shown = shown.rot90(view.turns, (-2, -1)) if view.turns else shown
        height, width = shown.shape[-2:]
        if view.moved:
            mode = "reflect" if min(height, width) > STEP else "replicate"
            shown = pad_to_multiple(F.pad(shown, (STEP, 0, STEP, 0), mode=mode), self.multiple)
        fake = self.network(shown).float()
        if view.moved:
            fake = fake[..., STEP : STEP + height, STEP : STEP + width]
        fake = fake.rot90(-view.turns, (-2, -1)) if view.turns else fake
        return fake.flip(-1) if view.mirrored else fake
