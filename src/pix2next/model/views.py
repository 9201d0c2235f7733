"""Several views of one picture through one network, each put back into place, and their mean.

What a network makes of a leaf depends a little on where on its grid the leaf lies and on which way round the picture
is. The mean over views is free of a part of that error, in every metric (docs/outdoor-and-aerial.md), at the price of
a pass a view. Source: the geometric self-ensemble of EDSR (arXiv:1707.02921), sec. 3.3, there eight mirrored and
turned views. Departures: views that are moved; turns only for pictures from above, since photos do not come turned; and
views of the picture made smaller, which show more of it to a network at a time, and of which the low frequencies count.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pix2next.images import pad_to_multiple

STEP = 4
"""Pixels by which a view is moved, down and to the right: half a cell of the coarsest level of our generators."""
SHRINK = 0.7
"""Size of a smaller view, as a share of the picture's."""
COARSE = 4
"""What lies below so many pixels is not taken from smaller views: they are blurred there."""


class View(NamedTuple):
    """How a picture is shown to the network."""

    mirrored: bool = False
    moved: bool = False
    turns: int = 0
    """Quarter turns, after mirroring."""
    shrunk: bool = False


VIEWS = (View(), View(mirrored=True, moved=True), View(moved=True), View(mirrored=True))
"""In the order in which they pay: two of them give nine tenths of what four give."""
TURNED_VIEWS = (
    View(),
    View(mirrored=True, moved=True, turns=2),
    View(moved=True, turns=1),
    View(mirrored=True, turns=3),
)
"""Instead, for networks of pictures that come in every direction."""
SHRUNK_VIEWS = (View(), View(shrunk=True), View(mirrored=True, moved=True), View(mirrored=True, shrunk=True))
"""Instead, for networks of photos, which show things at every size."""


class Habit(NamedTuple):
    """How a network is used where nobody says otherwise."""

    views: int
    turned: bool
    shrunk: bool

    @property
    def order(self) -> tuple[View, ...]:
        """Its views, those first that come first."""
        return TURNED_VIEWS if self.turned else SHRUNK_VIEWS if self.shrunk else VIEWS


def habit_of(network: nn.Module) -> Habit:
    """What the network's attributes `views`, `turned` and `shrunk` say; one plain view where they say nothing."""
    return Habit(
        int(getattr(network, "views", 1)),
        bool(getattr(network, "turned", False)),
        bool(getattr(network, "shrunk", False)),
    )


class Views(nn.Module):
    """A network called on the first `views` of its views, as many as it has by itself if None.

    Takes and gives what the network does, [b, 3, h, w] to [b, c, h, w], h and w multiples of its `multiple`. The mean
    is float32, and of one view what the network gives. Of smaller views the mean takes low frequencies alone, which
    then count half.
    """

    def __init__(self, network: nn.Module, views: int | None = None) -> None:
        """`views` is from 1 to `len(VIEWS)`."""
        super().__init__()
        self.network = network
        habit = habit_of(network)
        count = habit.views if views is None else views
        assert 1 <= count <= len(VIEWS)
        self.shown = habit.order[:count]
        self.multiple = int(network.multiple)  # type: ignore[arg-type]

    @property
    def views(self) -> int:
        """How many there are."""
        return len(self.shown)

    def forward(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        whole = self._mean([view for view in self.shown if not view.shrunk], rgb)
        smaller = [view for view in self.shown if view.shrunk]
        return blend_low_frequencies(whole, self._mean(smaller, shrink(rgb))) if smaller else whole

    def _mean(self, views: Sequence[View], rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        return torch.stack([self._through(view, rgb) for view in views]).mean(dim=0)

    def _through(self, view: View, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        shown = rgb.flip(-1) if view.mirrored else rgb
        shown = shown.rot90(view.turns, (-2, -1)) if view.turns else shown
        height, width = shown.shape[-2:]
        step = STEP if view.moved else 0
        if step:
            mode = "reflect" if min(height, width) > step else "replicate"
            shown = F.pad(shown, (step, 0, step, 0), mode=mode)
        fake = self.network(pad_to_multiple(shown, self.multiple)).float()
        fake = fake[..., step : step + height, step : step + width]
        fake = fake.rot90(-view.turns, (-2, -1)) if view.turns else fake
        return fake.flip(-1) if view.mirrored else fake


def blend_low_frequencies(
    whole: Float[Tensor, "b c h w"], smaller: Float[Tensor, "b c h2 w2"]
) -> Float[Tensor, "b c h w"]:
    """`whole`, with the mean of both where a structure is coarser than `COARSE` of its pixels."""
    height, width = whole.shape[-2:]
    coarse = -(-height // COARSE), -(-width // COARSE)
    ours, theirs = (F.interpolate(it, coarse, mode="bilinear", antialias=True) for it in (whole, smaller))
    return whole + F.interpolate((theirs - ours) / 2, (height, width), mode="bilinear")


def shrink(rgb: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    """The picture at `SHRINK` of its size, in [-1, 1] as it was."""
    height, width = (max(1, round(SHRINK * side)) for side in rgb.shape[-2:])
    return F.interpolate(rgb.float(), (height, width), mode="bicubic", antialias=True).clamp(-1, 1).to(rgb.dtype)
