"""The generator and its blocks: shapes, sites of fusion, attention by hand, and what the presets cost."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pix2next.config import FusionConfig, GeneratorConfig, load_config
from pix2next.model.blocks import Attention, AttentionBlock, ConcatBlock, Down, ResidualBlock, Up, rotary
from pix2next.model.generator import Generator
from pix2next.model.pix2next import Pix2Next

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CHANNELS = {4: 6, 8: 10, 32: 14}


def small(*fusions: FusionConfig, **settings: object) -> Generator:
    blocks = {"encoder_blocks": (1, 1, 1), "decoder_blocks": (1, 1, 1), "bottleneck_blocks": 2}
    config = GeneratorConfig.model_validate({"widths": (8, 12, 16), "fusions": fusions, **blocks, **settings})
    return Generator(config, CHANNELS)


def features(size: int = 32) -> dict[int, torch.Tensor]:
    return {
        stride: torch.randn(2, width, max(size // stride, 1), max(size // stride, 1))
        for stride, width in CHANNELS.items()
    }


@pytest.mark.parametrize("at", ["encoder.0", "encoder.2", "bottleneck", "decoder.0", "decoder.2"])
@pytest.mark.parametrize("how", ["cross", "self_cross", "concat"])
def test_features_reach_the_output_wherever_they_enter(at: str, how: str) -> None:
    torch.manual_seed(0)
    generator = small(FusionConfig(at=at, how=how, reads=(8, 32), heads=2, head_width=8))
    rgb, given = torch.randn(2, 3, 32, 32), {stride: it.requires_grad_() for stride, it in features().items()}
    out = generator(rgb, given)
    assert out.shape == (2, 1, 32, 32)
    out.square().sum().backward()
    assert given[8].grad.abs().sum() > 0 and given[32].grad.abs().sum() > 0
    assert given[4].grad is None


def test_self_attention_reads_no_map() -> None:
    fusion = FusionConfig(at="bottleneck", how="self", reads=(), heads=2, head_width=8)
    assert small(fusion)(torch.randn(1, 3, 16, 16), {}).shape == (1, 1, 16, 16)


@pytest.mark.parametrize(
    "settings", [{"norm": "none"}, {"resample_kernel": 1}, {"stem_kernel": 3}, {"decoder_blocks": (0, 1, 1)}]
)
def test_settings_build_and_run(settings: dict[str, object]) -> None:
    assert small(**settings)(torch.randn(1, 3, 8, 12), {}).shape == (1, 1, 8, 12)


def test_every_parameter_is_used() -> None:
    generator = small(FusionConfig(at="encoder.1", how="self_cross", reads=(4,), heads=2, head_width=8))
    generator(torch.randn(2, 3, 32, 32), features()).square().sum().backward()
    unused = [name for name, parameter in generator.named_parameters() if parameter.grad is None]
    assert unused == []


def test_a_residual_block_is_its_input_plus_a_branch() -> None:
    block = ResidualBlock(8, 8)
    nn.init.zeros_(block.conv2.weight)
    nn.init.zeros_(block.conv2.bias)
    x = torch.randn(2, 8, 5, 7)
    assert torch.equal(block(x), x)


def test_attention_is_softmax_of_products_by_hand() -> None:
    torch.manual_seed(0)
    attention = Attention(4, [6], heads=1, head_width=4, positions=False)
    x, source = torch.randn(1, 4, 1, 2), torch.randn(1, 6, 1, 3)
    q = attention.query(x[0, :, 0].T)
    k, v = attention.keys_values[0](source[0, :, 0].T).chunk(2, dim=-1)
    expected = attention.out(torch.softmax(q @ k.T / math.sqrt(4), dim=-1) @ v)
    torch.testing.assert_close(attention(x, [source])[0, :, 0].T, expected)


def test_attention_without_positions_does_not_know_where_a_feature_is() -> None:
    torch.manual_seed(0)
    x, source = torch.randn(1, 8, 4, 4), torch.randn(1, 6, 2, 2)
    for positions, equal in [(False, True), (True, False)]:
        block = AttentionBlock(8, [6], how="cross", heads=2, head_width=8, positions=positions)
        assert torch.allclose(block(x, [source]), block(x, [source.flip(-1)]), atol=1e-5) is equal


def test_rotary_products_depend_on_the_distance_alone() -> None:
    q, k = torch.randn(1, 1, 1, 16, dtype=torch.float64), torch.randn(1, 1, 1, 16, dtype=torch.float64)

    def product(at: float, other: float) -> torch.Tensor:
        place = [torch.tensor([p], dtype=torch.float64) for p in (at, other)]
        return (rotary(q, place[0], place[0]) * rotary(k, place[1], place[1])).sum()

    torch.testing.assert_close(product(1.0, 3.5), product(11.0, 13.5))
    assert not torch.isclose(product(1.0, 3.5), product(1.0, 4.5))


def test_concat_block_adds_to_its_input() -> None:
    block = ConcatBlock(8, [6, 10])
    nn.init.zeros_(block.mix.weight)
    nn.init.zeros_(block.mix.bias)
    x = torch.randn(1, 8, 8, 8)
    assert torch.equal(block(x, [torch.randn(1, 6, 2, 2), torch.randn(1, 10, 4, 4)]), x)


@pytest.mark.parametrize("kernel", [1, 3])
def test_down_and_up_halve_and_double(kernel: int) -> None:
    x = torch.randn(1, 4, 6, 10)
    assert Down(4, 5, kernel=kernel)(x).shape == (1, 5, 3, 5)
    assert Up(4, 5, kernel=kernel)(x).shape == (1, 5, 12, 20)


def test_a_pointwise_up_commutes_with_resampling() -> None:
    up = Up(4, 5, kernel=1)
    x = torch.randn(1, 4, 6, 10)
    after = up.conv(F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False))
    torch.testing.assert_close(up(x), after)


@pytest.mark.parametrize(
    ("preset", "gflop", "millions"), [("tiny", 8, 10), ("small", 70, 20), ("base", 360, 125), ("paper", 1300, 250)]
)
def test_presets_cost_what_they_state(preset: str, gflop: float, millions: float) -> None:
    config = load_config(CONFIGS / f"{preset}.yaml", ["model.vfm.weights=none"])
    with torch.device("meta"):
        model = Pix2Next(config.model).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 256, 256, device="meta"))
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert 0.8 * gflop < counter.get_total_flops() / 1e9 <= gflop
    assert 0.5 * millions < trained / 1e6 <= millions
    stated = (CONFIGS / f"{preset}.yaml").read_text()
    assert f"{counter.get_total_flops() / 1e9:.0f} GFLOP" in stated
    assert f"{trained / 1e6:.1f} M" in stated
