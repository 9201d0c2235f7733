"""InternImage's shapes, sizes and settings; `tests/reference` compares it with the original's numbers."""

import pytest
import torch

from pix2next.errors import ConfigError
from pix2next.model.internimage import PUBLISHED, InternImage, internimage


def small(**settings: object) -> InternImage:
    return InternImage(8, (1, 1, 2, 1), (1, 2, 2, 4), **settings)  # type: ignore[arg-type]


# Published as 30, 50, 97, 223 and 335 million (arXiv:2211.05778, table 1).
@pytest.mark.parametrize(("variant", "millions"), [("t", 29.9), ("s", 50.1), ("b", 97.5), ("l", 223.3), ("xl", 334.8)])
def test_published_sizes(variant: str, millions: float) -> None:
    with torch.device("meta"):
        model = internimage(variant, classes=1000)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == millions


def test_channels_are_a_multiple_of_the_groups_16_wide() -> None:
    for size in PUBLISHED.values():
        assert [size["channels"] * 2**i // 16 for i in range(4)] == list(size["groups"])


def test_an_unknown_size_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'h'; known: t, s, b, l, xl"):
        internimage("h")


@pytest.mark.parametrize("post_norm", [False, True])
@pytest.mark.parametrize("in_channels", [3, 128])
@pytest.mark.parametrize(("height", "width"), [(64, 96), (37, 50), (1, 1)])
def test_four_maps_at_strides_4_to_32(height: int, width: int, in_channels: int, post_norm: bool) -> None:
    model = small(in_channels=in_channels, post_norm=post_norm, layer_scale=1e-5 if post_norm else None)
    maps = model(torch.randn(2, in_channels, height, width))
    sizes = [(2, c, -(-height // s), -(-width // s)) for c, s in zip(model.channels, model.strides, strict=True)]
    assert [tuple(m.shape) for m in maps] == sizes
    assert model.channels == [8, 16, 32, 64]


def test_logits_need_a_classifier() -> None:
    x = torch.randn(2, 3, 32, 32)
    assert small(classes=5).eval().logits(x).shape == (2, 5)
    assert small().classifier is None


def test_gradients_reach_every_parameter() -> None:
    model = small(layer_scale=1.0, post_norm=True)
    # Offsets and masks start from zero, where no gradient passes to what makes them.
    for name, parameter in model.named_parameters():
        if ".offset." in name or ".mask." in name:
            torch.nn.init.normal_(parameter)
    x = torch.randn(1, 3, 64, 64)
    torch.stack([m.square().sum() * torch.rand(()) for m in (m.sin() for m in model(x))]).sum().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.ne(0).any()]
    assert without == []


def test_drop_path_drops_in_training_only() -> None:
    model = small(drop_path=0.5)
    x = torch.randn(8, 3, 32, 32)
    torch.manual_seed(0)
    trained = model.train()(x)[-1]
    evaluated = model.eval()(x)[-1]
    assert not torch.equal(trained, evaluated)
    torch.testing.assert_close(evaluated, model(x)[-1])


def test_bfloat16_autocast_stays_close() -> None:
    model = small().eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        low = model(x)[-1]
    torch.testing.assert_close(low.float(), model(x)[-1], atol=0.1, rtol=0.1)


def test_exported_equals_eager() -> None:
    model = small().eval()
    x = torch.randn(1, 3, 64, 96)
    exported = torch.export.export(model, (x,)).module()
    for ours, theirs in zip(model(x), exported(x), strict=True):
        torch.testing.assert_close(theirs, ours)
