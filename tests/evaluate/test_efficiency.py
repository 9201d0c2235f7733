"""Costs of networks small enough to count by hand."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pix2next.evaluate import efficiency
from pix2next.evaluate.efficiency import RELEASED, benchmark_table, count_flop, measure, write_benchmark


class Counting(nn.Module):
    """A pointwise convolution that counts its calls and takes sides that are multiples of 8."""

    multiple = 8

    def __init__(self, channels):
        super().__init__()
        self.mix = nn.Conv2d(3, channels, 1, bias=False)
        self.calls = []

    def forward(self, rgb):
        self.calls.append(tuple(rgb.shape))
        return self.mix(rgb)


class Attending(nn.Module):
    def forward(self, rgb):
        tokens = rgb.flatten(2).transpose(1, 2).unsqueeze(1)
        return F.scaled_dot_product_attention(tokens, tokens, tokens)


def test_a_convolution_by_hand():
    # 16 pixels, each 4 outputs of 3 products and as many sums.
    assert count_flop(Counting(4), torch.zeros(1, 3, 4, 4)) == 2 * 16 * 4 * 3


def test_attention_is_counted():
    # Two products of matrices with 16 x 16 x 3 multiply-adds.
    assert count_flop(Attending(), torch.zeros(1, 3, 4, 4)) == 2 * 2 * 16 * 16 * 3


def test_rows_state_cost_and_ratio():
    networks = {"small": Counting(1), RELEASED: Counting(64)}
    small, released = measure(networks, size=12, repeats=5)
    assert (small.parameters, released.parameters) == (3, 192)
    assert small.size == 16  # the next multiple of 8
    assert small.gflop == pytest.approx(2 * 256 * 3 / 1e9)
    assert released.times_faster == 1
    assert small.times_faster == pytest.approx(released.seconds / small.seconds)
    # Once for counting, then one call a round; the slow one sits most rounds out.
    assert networks["small"].calls == [(1, 3, 16, 16)] * 6
    assert len(networks[RELEASED].calls) == 3


def test_networks_are_timed_in_turns(monkeypatch):
    order = []
    monkeypatch.setattr(efficiency, "time_once", lambda network, rgb: order.append(network) or 1.0)
    one, two = Counting(1), Counting(2)
    rows = measure({"one": one, "two": two}, size=8, repeats=3)
    assert order == [one, two] * 3
    assert [row.times_faster for row in rows] == [None, None]


def test_threads_are_put_back(monkeypatch):
    before = torch.get_num_threads()
    seen = []
    monkeypatch.setattr(efficiency, "load_model", lambda name: Counting(1))
    monkeypatch.setattr(efficiency, "time_once", lambda *_: seen.append(torch.get_num_threads()) or 1.0)
    efficiency.benchmark(["any"], size=8, repeats=1, threads=1, compare=False)
    assert seen == [1]
    assert torch.get_num_threads() == before


def test_a_config_is_built_untrained(tmp_path):
    """The weights that it names are not even looked for."""
    fusion = "{at: bottleneck, reads: [4], heads: 1, head_width: 8}"
    generator = f"{{widths: [8], encoder_blocks: [1], decoder_blocks: [1], bottleneck_blocks: 1, fusions: [{fusion}]}}"
    vfm = "{name: 'timm:resnet18', weights: absent.pth}"
    (tmp_path / "run.yaml").write_text(f"model: {{vfm: {vfm}, generator: {generator}}}")
    (row,) = efficiency.benchmark([str(tmp_path / "run.yaml")], size=8, repeats=1, compare=False)
    assert row.parameters > 100_000


def test_json_and_table_hold_every_row(tmp_path):
    rows = measure({"one": Counting(1), "two": Counting(2)}, size=8, repeats=1)
    write_benchmark(rows, tmp_path / "costs.json")
    report = json.loads((tmp_path / "costs.json").read_text())
    assert [row["model"] for row in report["rows"]] == ["one", "two"]
    assert report["rows"][1]["parameters"] == 6
    assert benchmark_table(rows).row_count == 2
