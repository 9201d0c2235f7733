"""Views: each put back into place, and their mean; by hand, and by what holds for any network."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from pix2next.config import GeneratorConfig, ModelConfig, VfmConfig
from pix2next.errors import ConfigError
from pix2next.model.pix2next import Pix2Next, load_model
from pix2next.model.views import (
    COARSE,
    SHRINK,
    SHRUNK_VIEWS,
    STEP,
    TURNED_VIEWS,
    VIEWS,
    View,
    Views,
    blend_low_frequencies,
    habit_of,
    shrink,
)
from pix2next.translate import Translator


class Columns(nn.Module):
    """NIR is the number of its column: what a network makes of places alone."""

    multiple = 8

    def forward(self, rgb):
        assert all(side % self.multiple == 0 for side in rgb.shape[2:])
        return torch.arange(rgb.shape[3], dtype=rgb.dtype).expand(rgb.shape[0], 1, *rgb.shape[2:])


class Green(nn.Module):
    """NIR is the green channel: the same of every view."""

    multiple = 8

    def forward(self, rgb):
        return rgb[:, 1:2]


class Strided(nn.Module):
    """A network with a grid, and with a left and a right."""

    multiple = 8

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 8, 5, 4, 2), nn.SiLU(), nn.Upsample(scale_factor=4), nn.Conv2d(8, 1, 3, padding=1)
        self.layers = nn.Sequential(*layers)

    def forward(self, rgb):
        return self.layers(rgb)


def noise(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (View(mirrored=False, moved=False), [0, 1, 2, 3]),
        (View(mirrored=False, moved=True), [STEP, STEP + 1, STEP + 2, STEP + 3]),
        (View(mirrored=True, moved=False), [15, 14, 13, 12]),
        (View(mirrored=True, moved=True), [15 + STEP, 14 + STEP, 13 + STEP, 12 + STEP]),
        (View(mirrored=False, moved=False, turns=2), [15, 14, 13, 12]),
        (View(mirrored=True, moved=True, turns=2), [STEP, STEP + 1, STEP + 2, STEP + 3]),
        (View(mirrored=False, moved=True, turns=1), [STEP] * 4),
        (View(mirrored=False, moved=False, turns=3), [7] * 4),
    ],
)
def test_a_view_is_mirrored_and_moved_and_put_back(view, expected):
    fake = Views(Columns(), 1)._through(view, noise(2, 3, 8, 16))
    assert fake.shape == (2, 1, 8, 16)
    assert fake[0, 0, 0, :4].tolist() == expected


@pytest.mark.parametrize("count", range(1, len(VIEWS) + 1))
@pytest.mark.parametrize("size", [(8, 8), (16, 24)])
def test_what_does_not_depend_on_the_view_stays(count, size):
    rgb = noise(2, 3, *size)
    torch.testing.assert_close(Views(Green(), count)(rgb), rgb[:, 1:2])


def test_one_view_is_the_network_itself():
    network, rgb = Strided(), noise(1, 3, 16, 16)
    assert torch.equal(Views(network, 1)(rgb), network(rgb))


def test_two_views_differ_from_one_and_are_their_mean():
    network, rgb = Strided(), noise(1, 3, 32, 16)
    views = Views(network, 2)
    mean = (views._through(VIEWS[0], rgb) + views._through(VIEWS[1], rgb)) / 2
    torch.testing.assert_close(views(rgb), mean)
    assert (views(rgb) - network(rgb)).abs().max() > 1e-3


def test_with_all_views_a_mirrored_picture_gives_the_mirrored_result():
    views, rgb = Views(Strided(), len(VIEWS)), noise(1, 3, 16, 32)
    torch.testing.assert_close(views(rgb.flip(-1)), views(rgb).flip(-1))
    single = Views(Strided(), 1)
    assert (single(rgb.flip(-1)) - single(rgb).flip(-1)).abs().max() > 1e-3


class Compass(Strided):
    turned = True


@pytest.mark.parametrize("size", [(16, 32), (8, 8)])
def test_a_network_for_pictures_from_above_has_turned_views(size):
    assert len(TURNED_VIEWS) == len(VIEWS) and {it.turns for it in TURNED_VIEWS} == {0, 1, 2, 3}
    network, rgb = Compass(), noise(1, 3, *size)
    four = torch.stack([Views(network, 1)._through(view, rgb) for view in TURNED_VIEWS]).mean(dim=0)
    torch.testing.assert_close(Views(network, 4)(rgb), four)
    assert (Views(network, 2)(rgb) - Views(Strided(), 2)(rgb)).abs().max() > 1e-3
    torch.testing.assert_close(Views(Compass(), 1)(rgb), Strided()(rgb))


class Photos(Strided):
    shrunk = True


class GreenPhotos(Green):
    shrunk = True


def waves(length, period):
    """One row of a wave of `period` pixels, in [-1, 1]."""
    return torch.sin(torch.arange(length) * (2 * torch.pi / period)).expand(1, 1, 16, length)


def test_a_smaller_view_gives_half_of_the_coarse_and_nothing_of_the_fine():
    coarse, fine = waves(256, 64), waves(256, 2 * COARSE / 3)
    small = shrink(coarse)
    assert small.shape[-2:] == (round(SHRINK * 16), round(SHRINK * 256))
    blank = torch.zeros(1, 1, 16, 256)
    middle = slice(32, -32)
    halved = blend_low_frequencies(blank, small)[..., middle]
    torch.testing.assert_close(halved, coarse[..., middle] / 2, atol=0.02, rtol=0)
    assert blend_low_frequencies(blank, shrink(fine))[..., middle].abs().max() < 0.05
    kept = blend_low_frequencies(coarse + fine, small)[..., middle]
    torch.testing.assert_close(kept, (coarse + fine)[..., middle], atol=0.05, rtol=0)


def test_a_network_for_photos_has_smaller_views():
    assert len(SHRUNK_VIEWS) == len(VIEWS) and not SHRUNK_VIEWS[0].shrunk
    network, rgb = Photos(), noise(1, 3, 32, 48)
    single, small = Views(network, 1), shrink(rgb)
    torch.testing.assert_close(single(rgb), Strided()(rgb))
    two = blend_low_frequencies(network(rgb), single._through(View(), small))
    torch.testing.assert_close(Views(network, 2)(rgb), two)
    whole = (network(rgb) + single._through(View(mirrored=True, moved=True), rgb)) / 2
    smaller = (single._through(View(), small) + single._through(View(mirrored=True), small)) / 2
    torch.testing.assert_close(Views(network, 4)(rgb), blend_low_frequencies(whole, smaller))
    assert (Views(network, 2)(rgb) - Views(Strided(), 2)(rgb)).abs().max() > 1e-3


def test_views_of_both_kinds_at_once_are_refused():
    with pytest.raises(ValidationError, match="turned or shrunk, not both"):
        ModelConfig(turned=True, shrunk=True)


def test_several_views_are_float32_also_of_a_network_in_half_precision():
    rgb = noise(1, 3, 8, 8).bfloat16()
    assert Views(Green(), 2)(rgb).dtype == torch.float32


def pix2next(**settings):
    generator = GeneratorConfig(
        widths=(8, 8), encoder_blocks=(1, 1), bottleneck_blocks=1, decoder_blocks=(1, 1), norm="none", fusions=()
    )
    torch.manual_seed(0)
    return Pix2Next(ModelConfig(vfm=VfmConfig(name="none"), generator=generator, **settings))


def test_a_checkpoint_says_how_many_views_it_is_used_with(tmp_path):
    pix2next(views=2).save(tmp_path / "two.safetensors")
    assert Translator.from_pretrained(tmp_path / "two.safetensors", device="cpu").views == 2
    assert Translator.from_pretrained(tmp_path / "two.safetensors", device="cpu", views=1).views == 1
    assert Translator(pix2next(), device="cpu").views == 1
    pix2next(shrunk=True, views=2).save(tmp_path / "photos.safetensors")
    assert habit_of(load_model(tmp_path / "photos.safetensors")).order == SHRUNK_VIEWS
    pix2next(turned=True).save(tmp_path / "above.safetensors")
    assert load_model(tmp_path / "above.safetensors").turned and not load_model(tmp_path / "two.safetensors").turned
    assert Translator(Green(), device="cpu").views == 1


@pytest.mark.parametrize("views", [0, -1, 5])
def test_a_number_of_views_that_there_is_not_is_refused(views):
    with pytest.raises(ConfigError, match=f"1 to 4 views, not {views}"):
        Translator(Green(), device="cpu", views=views)


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (70, 131)])
def test_any_size_in_all_views(size):
    rgb = (noise(3, *size).permute(1, 2, 0).numpy() + 1) / 2
    translator = Translator(Green(), device="cpu", tile=64, views=4)
    assert abs(translator(rgb) - rgb[:, :, 1]).max() < 1e-6


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (70, 131)])
def test_any_size_in_smaller_views(size):
    rgb = np.tile(np.linspace(0, 1, size[1])[None, :, None], (size[0], 1, 3))
    translator = Translator(GreenPhotos(), device="cpu", tile=64, views=4)
    assert abs(translator(rgb) - rgb[:, :, 1]).max() < 0.05
