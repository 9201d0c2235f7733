"""Costs of networks small enough to count by hand."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pix2next.config import ModelConfig
from pix2next.evaluate.efficiency import (
    Row,
    benchmark_table,
    count_flop,
    count_parts,
    operations_of,
    parameters_of,
    short_names,
    write_benchmark,
)
from pix2next.model.pix2next import Pix2Next
from pix2next.model.released_blocks import AttentionBlock

CHANNELS, HEADS, HEAD_WIDTH, EXPANSION = 8, 2, 4, 3
INNER = HEADS * HEAD_WIDTH
CELLS, TOKENS, TOKEN_CHANNELS = 16 * 16, 4 * 4, 64
"""Of a 16 x 16 picture: the generator's only level, and ResNet-18's map at stride 4."""


class Attending(nn.Module):
    def forward(self, rgb):
        tokens = rgb.flatten(2).transpose(1, 2).unsqueeze(1)
        return F.scaled_dot_product_attention(tokens, tokens, tokens)


def network(how=None, frozen=False):
    """One level of 8 channels that reads a ResNet-18 in its bottleneck."""
    reads = [] if how == "self" else [4]
    options = {"heads": HEADS, "head_width": HEAD_WIDTH, "expansion": EXPANSION}
    fusions = [{"at": "bottleneck", "how": how, "reads": reads, **options}] if how else []
    blocks = {"encoder_blocks": [1], "decoder_blocks": [1], "bottleneck_blocks": 1}
    settings = {
        "vfm": {"name": "timm:resnet18", "weights": "none", "frozen": frozen},
        "generator": {"widths": [CHANNELS], **blocks, "fusions": fusions},
    }
    with torch.device("meta"):
        return Pix2Next(ModelConfig.model_validate(settings)).eval()


def picture(side=16):
    return torch.empty(1, 3, side, side, device="meta")


def test_a_convolution_by_hand():
    # 16 pixels, each 4 outputs of 3 products and as many sums.
    assert count_flop(nn.Conv2d(3, 4, 1), torch.zeros(1, 3, 4, 4)) == 2 * 16 * 4 * 3


def test_attention_is_counted():
    # Two products of matrices with 16 x 16 x 3 multiply-adds.
    assert count_flop(Attending(), torch.zeros(1, 3, 4, 4)) == 2 * 2 * 16 * 16 * 3


def attention(tokens, token_channels):
    """Queries and the result's projection; keys and values; scores and their sum over the values."""
    projections = 2 * CELLS * CHANNELS * INNER * 2 + 2 * tokens * token_channels * 2 * INNER
    return projections + 2 * 2 * CELLS * tokens * INNER


GEGLU = 2 * CELLS * CHANNELS * 3 * EXPANSION * CHANNELS
"""To twice the expanded width, and back from once."""


@pytest.mark.parametrize(
    ("how", "by_hand"),
    [
        (None, 0),
        ("concat", 2 * TOKENS * TOKEN_CHANNELS * CHANNELS + 2 * CELLS * 2 * CHANNELS * CHANNELS),
        ("self", attention(CELLS, CHANNELS) + GEGLU),
        ("cross", attention(TOKENS, TOKEN_CHANNELS) + GEGLU),
        ("self_cross", attention(CELLS, CHANNELS) + attention(TOKENS, TOKEN_CHANNELS) + GEGLU),
    ],
)
def test_every_kind_of_attention_by_hand(how, by_hand):
    counted = count_parts(network(how), picture())
    assert counted["attention"] == by_hand
    assert (counted["vfm"] > 0) == (how in ("concat", "cross", "self_cross"))


def test_the_rest_is_the_same_with_and_without_attention():
    parts = {how: count_parts(network(how), picture()) for how in (None, "cross")}
    assert parts[None]["generator"] == parts["cross"]["generator"] > 0
    # Stem; encoder, bottleneck, decoder and last block of two 3x3 convolutions each; the shortcuts of those that are
    # handed two maps; the head.
    convolutions = 3 + 2 * CHANNELS + 2 * CHANNELS + 2 * (2 + 1) * CHANNELS
    by_hand = 2 * CELLS * CHANNELS * (9 * convolutions - 8 * 3 + 2 * 2 * CHANNELS + 9)
    assert parts[None]["generator"] == by_hand


def test_the_vfm_by_hand():
    # ResNet-18 up to stride 4: 7x7 to 8 x 8 cells, then four 3x3 convolutions on 4 x 4; its later stages are not run.
    by_hand = 2 * 64 * 64 * 3 * 49 + 4 * 2 * 16 * 64 * 64 * 9
    assert count_parts(network("cross"), picture())["vfm"] == by_hand


def test_parts_add_up_to_the_whole():
    model = network("self_cross")
    assert sum(count_parts(model, picture()).values()) == count_flop(model, picture())
    assert operations_of(model, picture()).total == pytest.approx(count_flop(model, picture()) / 1e9)


def test_a_second_count_finds_no_hooks_of_the_first():
    model = network("cross")
    assert count_parts(model, picture()) == count_parts(model, picture())


def test_the_released_attention_is_attention():
    class Holding(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = AttentionBlock(8, 16, 0, heads=2, norm_groups=2)

        def forward(self, rgb):
            return self.block(rgb[:, :1].expand(-1, 8, -1, -1), [rgb[:, :1, ::2, ::2].expand(-1, 16, -1, -1)])

    counted = count_parts(Holding(), torch.zeros(1, 3, 4, 4))
    assert counted["attention"] > 0
    assert counted["generator"] == counted["vfm"] == 0


def test_parameters_that_no_gradient_reaches_are_not_trained():
    free, frozen = (
        parameters_of(network("cross"), picture(64)),
        parameters_of(network("cross", frozen=True), picture(64)),
    )
    assert free.total == free.trained == frozen.total
    assert frozen.trained == frozen.total - frozen.vfm
    assert 0 < free.vfm < free.total
    assert parameters_of(network("self"), picture()).vfm == 0


def row(name, **numbers):
    return Row(name, numbers.pop("size", 64), 1, numbers.pop("mode", "eager"), "forward", **numbers)


def test_the_table_says_once_what_is_common():
    table = benchmark_table([row("one", seconds=0.5), row("two", failed="out of memory")])
    assert table.title == "64 x 64, batch 1, eager, forward"
    assert table.row_count == 2
    varied = benchmark_table([row("one"), row("one", mode="bf16", size=128)])
    assert varied.title == "batch 1, forward"
    assert list(varied.columns[1].cells) == ["64 x 64, eager", "128 x 128, bf16"]


def test_names_are_short_and_tell_networks_apart():
    models = ["configs/tiny.yaml", "a/how.yaml", "b/how.yaml", "runs/mine", "tiny-outdoor", "b/how.yaml"]
    assert list(short_names(models).values()) == ["tiny", "a/how", "b/how", "mine", "tiny-outdoor"]


def test_a_cell_without_times_says_why():
    table = benchmark_table([row("one", parameters=1, gflop=1.0, failed="out of memory")])
    assert "out of memory" in list(table.columns[4].cells)


def test_json_holds_the_machine_and_every_row(tmp_path):
    rows = [row("one", parameters=3), row("two", parameters=6)]
    write_benchmark(rows, {"torch": torch.__version__, "threads": 1}, tmp_path / "costs.json")
    report = json.loads((tmp_path / "costs.json").read_text())
    assert (report["torch"], report["threads"]) == (torch.__version__, 1)
    assert [(it["model"], it["parameters"]) for it in report["rows"]] == [("one", 3), ("two", 6)]
