"""Benchmarks of networks of milliseconds: cells, ratios, failures, and what is written of them."""

import json
import re
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from pix2next.apps import cost_memory, cost_passes, costs
from pix2next.apps.cost_memory import Peak, measured, peak_memory
from pix2next.apps.cost_passes import Cell, outline_of, start, subject_of
from pix2next.apps.cost_plot import by_folder, plot
from pix2next.apps.cost_report import benchmark_and_write, conditions, markdown, write_page
from pix2next.apps.costs import Grid, benchmark, grid
from pix2next.config import load_config
from pix2next.errors import ConfigError, WeightsError
from pix2next.evaluate.efficiency import RELEASED, Row, side_for

CPU = torch.device("cpu")
EAGER = Cell(32, 1, "eager", "forward")
SMALL = """# Made for {name}.
model:
  vfm: {{name: none}}
  generator: {{widths: [{width}, 8], encoder_blocks: [1, 1], decoder_blocks: [1, 1], bottleneck_blocks: 1, fusions: []}}
discriminator: {{width: 4, layers: 2, norm: none}}
data: {{crop: 32}}
"""


class Slow(nn.Module):
    """Stands for the released architecture; takes sides that are multiples of 8, and none above 64."""

    multiple = 8

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 1)

    def forward(self, rgb):
        if rgb.shape[-1] > 64:
            raise ValueError("no picture above 64 fits")
        for _ in range(20):
            rgb = self.mix(rgb)
        return rgb


@pytest.fixture
def config(tmp_path):
    """Writes a config of a network of so many channels, and gives its name."""

    def write(name="small", width=8, folder="nets"):
        path = tmp_path / folder / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(SMALL.format(name=name, width=width))
        return str(path)

    return write


@pytest.fixture(autouse=True)
def small_yardstick(monkeypatch):
    monkeypatch.setattr(cost_passes, "released_generator", Slow)


def quick(**options):
    return Grid(**{"sizes": (32,), "rounds": 2, "memory": False, **options})


def test_rows_state_cost_and_ratio(config):
    rows, facts = benchmark([config()], quick())
    small, released = rows
    network = subject_of(small.model).build()
    assert small.parameters == small.trained == sum(parameter.numel() for parameter in network.parameters())
    assert small.vfm_parameters == 0
    assert small.gflop == small.gflop_generator > 0
    assert (released.model, released.parameters, released.times_faster) == (RELEASED, 12, 1.0)
    assert released.gflop == pytest.approx(20 * 2 * 32 * 32 * 9 / 1e9)
    assert small.times_faster == pytest.approx(released.seconds / small.seconds)
    assert small.pictures_per_second == pytest.approx(1 / small.seconds)
    assert small.rounds == 2
    assert facts["threads"] >= 1


def test_every_cell_has_a_row_of_every_network(config):
    rows, _ = benchmark([config()], quick(sizes=(32, 16), batch_sizes=(1, 2), modes=("eager", "bf16"), rounds=1))
    cells = {(row.size, row.batch_size, row.mode) for row in rows}
    assert cells == {(size, batch, mode) for size in (16, 32) for batch in (1, 2) for mode in ("eager", "bf16")}
    assert len(rows) == 2 * len(cells)
    assert not any(row.failed for row in rows)
    one, two = (next(row for row in rows if row.batch_size == batch and row.size == 32) for batch in (1, 2))
    assert one.gflop == two.gflop


def test_a_size_that_cannot_be_taken_is_said_in_its_cell(config):
    rows, _ = benchmark([config()], quick(sizes=(32, 128), rounds=1))
    said = {(row.model == RELEASED, row.size): row.failed for row in rows}
    assert said[True, 128] == "no picture above 64 fits"
    assert [said[False, 32], said[False, 128], said[True, 32]] == [None] * 3
    assert all(row.times_faster is None for row in rows if row.size == 128)


def test_too_little_memory_is_said_in_its_cell(config, monkeypatch):
    asked = []

    def peak(model, cell, side, threads):
        asked.append((model, side))
        return Peak(None, "out of memory") if model == RELEASED else Peak(5 * 2**20)

    monkeypatch.setattr(costs, "peak_memory", peak)
    name = config()
    small, released = benchmark([name], quick(memory=True, rounds=1))[0]
    assert asked == [(name, 32), (RELEASED, 32)]
    assert (small.memory, small.failed) == (5 * 2**20, None)
    assert (released.failed, released.seconds) == ("out of memory", None)
    assert small.seconds > 0
    assert small.times_faster is None


def test_what_would_take_long_is_left_out(config):
    rows, _ = benchmark([config()], quick(sizes=(32, 64), rounds=1, longest=1e-9), compare=False)
    assert rows[0].seconds > 0
    assert rows[1].failed.startswith("left out: about")
    assert rows[1].gflop == pytest.approx(4 * rows[0].gflop)


def test_sides_are_rounded_up_to_what_a_network_takes():
    released = subject_of(RELEASED)
    assert side_for(outline_of(released), 33) == 40
    assert all(parameter.is_meta for parameter in outline_of(released).parameters())


def test_training_steps_are_timed_as_they_are_trained(config):
    (row,), _ = benchmark([config()], quick(works=("training",), batch_sizes=(2,), rounds=1), compare=False)
    assert not row.failed
    assert row.pictures_per_second == pytest.approx(2 / row.seconds)


def test_a_training_step_moves_g_and_d(config, monkeypatch):
    started = []
    original = cost_passes.start_training
    monkeypatch.setattr(
        cost_passes, "start_training", lambda config: started.append((config, original(config))) or started[-1][1]
    )
    step = start(subject_of(config()), Cell(32, 2, "bf16", "training"), 32, CPU)
    terms = step()
    assert {"gan", "ssim", "feature_matching", "discriminator"} == set(terms)
    ((settings, _),) = started
    assert (settings.train.batch_size, settings.train.mixed_precision, settings.data.crop) == (2, "bf16", 32)


def test_a_checkpoint_of_the_released_code_is_not_trained():
    released = cost_passes.Subject("old.pt", Slow, None)
    with pytest.raises(ConfigError, match="not trained here"):
        start(released, Cell(32, 1, "eager", "training"), 32, CPU)


@pytest.mark.parametrize("mode", ["eager", "bf16"])
def test_a_pass_runs_in_its_precision(mode):
    seen = []

    class Watching(Slow):
        def forward(self, rgb):
            out = super().forward(rgb)
            seen.append((tuple(rgb.shape), out.dtype))
            return out

    start(cost_passes.Subject("x", Watching, None), Cell(16, 3, mode, "forward"), 16, CPU)()
    assert seen == [((3, 3, 16, 16), torch.bfloat16 if mode == "bf16" else torch.float32)]


def test_compiled_passes_go_through_the_compiler(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda network, **options: compiled.append(options) or network)
    start(subject_of(RELEASED), Cell(16, 1, "compiled", "forward"), 16, CPU)()
    assert compiled == [{"dynamic": False}]


def test_memory_is_measured_in_a_process_of_its_own(config):
    peak = peak_memory(config(width=128), EAGER._replace(size=128), 128, 1)
    if peak == Peak(None):
        pytest.skip("this system does not tell how much memory a process holds")
    # At the least three maps of 128 channels at once: a block's input, and a convolution's input and output.
    assert 3 * 128 * 128 * 128 * 4 < peak.memory < 40 * 128 * 128 * 128 * 4
    assert peak.failed is None


@pytest.mark.parametrize(
    ("status", "stderr", "said"),
    [
        (-9, "", "out of memory"),
        (
            1,
            "Traceback ...\nConfigError: cannot read config absent.yaml\n",
            "ConfigError: cannot read config absent.yaml",
        ),
        (3, "", "its process ended with status 3"),
    ],
)
def test_a_process_that_fails_says_why(monkeypatch, status, stderr, said):
    done = SimpleNamespace(returncode=status, stdout="", stderr=stderr)
    monkeypatch.setattr(cost_memory.subprocess, "run", lambda *_, **__: done)
    assert peak_memory("absent.yaml", EAGER, 32, 1) == Peak(None, said)


def test_the_process_answers_with_what_a_network_raises(monkeypatch):
    monkeypatch.setattr(cost_memory, "limit_to_free", lambda: None)
    asked = {"model": RELEASED, "cell": EAGER._replace(size=128)._asdict(), "side": 128, "threads": 1}
    assert measured(asked) == Peak(None, "no picture above 64 fits")


def test_no_rounds_count_alone(config, monkeypatch):
    monkeypatch.setattr(costs, "peak_memory", lambda *_: pytest.fail("measured"))
    rows, _ = benchmark([config()], quick(rounds=0, memory=True))
    assert all(row.gflop > 0 and row.seconds is None and not row.failed for row in rows)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("256,", "1", "eager", "warm"), "--passes: 'warm' is unknown; known: forward, training"),
        (("256", "0", "eager", "forward"), "--batch-sizes 0: expected whole numbers above 0"),
        (("256x256", "1", "eager", "forward"), "--sizes 256x256: expected whole numbers"),
        (("256", "1", "fp8", "forward"), "--modes: 'fp8' is unknown; known: eager, bf16"),
        ((",", "1", "eager", "forward"), "--sizes is empty"),
    ],
)
def test_bad_options_are_one_sentence(options, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        grid(*options)


def test_cells_go_from_small_to_large():
    cells = grid("64,32", "2,1,2", "bf16,eager", "forward").cells()
    assert [cell[:3] for cell in cells[:4]] == [(32, 1, "bf16"), (32, 2, "bf16"), (64, 1, "bf16"), (64, 2, "bf16")]
    assert len(cells) == 8


def test_what_is_not_to_be_had_is_said_before_anything_is_measured(config, tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "in_turns", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(WeightsError, match="no model absent"):
        benchmark([config(), "absent"], quick())
    with pytest.raises(ConfigError, match="is a folder; name a file"):
        benchmark_and_write([config()], quick(), picture=tmp_path)
    (tmp_path / "page.md").write_text("<!-- costs on cpu -->")
    with pytest.raises(ConfigError, match="has not one"):
        benchmark_and_write([config()], quick(), page=tmp_path / "page.md")


def test_one_command_writes_numbers_picture_and_page(config, tmp_path):
    files = {"out": tmp_path / "x.json", "picture": tmp_path / "x.svg", "page": tmp_path / "x.md"}
    done = []
    models = [config(), config("other", folder="more")]
    rows = benchmark_and_write(
        models, quick(sizes=(16, 32)), on_progress=lambda *progress: done.append(progress), **files
    )
    assert done == [(1, 2), (2, 2)]
    report = json.loads(files["out"].read_text())
    assert len(report["rows"]) == len(rows) == 6
    assert {"torch", "processor", "load"} <= report.keys()
    page = files["page"].read_text()
    assert "| `small` | Made for small |" in page
    assert "| `released` | The released architecture |" in page
    assert "2 rounds" in page
    assert "<svg" in files["picture"].read_text()


FACTS = {"kind": "cpu", "device": "cpu", "processor": "X", "threads": 1, "cores": 2, "torch": "2", "load": 0.1}


def row(model, **numbers):
    defaults = {"gflop": 4.0, "gflop_vfm": 1.0, "gflop_attention": 0.5, "gflop_generator": 2.5, "parameters": 1_500_000}
    return Row(model, numbers.pop("size", 256), 1, "eager", "forward", **{**defaults, **numbers})


def test_a_page_keeps_its_own_text_and_other_machines_tables(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Costs\n\nWords.\n")
    write_page([row("a", seconds=1.0, rounds=3)], FACTS, page)
    write_page([row("b", seconds=1.0, rounds=3)], {**FACTS, "kind": "cuda", "device": "H"}, page)
    write_page([row("c", seconds=1.0, rounds=3)], FACTS, page)
    text = page.read_text()
    assert text.startswith("# Costs\n\nWords.\n")
    assert "`a`" not in text
    assert text.index("`c`") < text.index("end of costs on cpu") < text.index("`b`")
    assert text.count("<!-- costs on cpu -->") == 1


def test_tables_hold_what_was_measured():
    rows = [
        row("a", seconds=0.25, spread=0.1, times_faster=4.0, memory=3 * 2**20, rounds=3),
        row("a", size=512, gflop=16.0, gflop_attention=8.0, failed="out of memory"),
    ]
    text = markdown(rows, FACTS)
    assert "| `a` |  | 1.50 |" in text
    assert "| 3.00 | 250 ±5% | 4.00 |" in text
    assert "| `a` | 4.00 (12%) | 16.0 (50%) |" in text
    assert "| `a` | 250; 4.00; 3.00 MiB | out of memory |" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.count("|") in (lines[0].count("|"), 4) for line in lines)
    assert conditions(rows, FACTS).startswith(
        "Taken in one run on cpu (X), 1 CPU threads of 2 cores, torch 2, 3 rounds"
    )


def test_a_busy_machine_is_said():
    assert "busy" not in conditions([row("a", seconds=1.0, spread=0.02)], FACTS)
    assert "busy" in conditions([row("a", seconds=1.0, spread=0.3)], FACTS)
    assert "busy" in conditions([row("a", seconds=1.0)], {**FACTS, "load": 3.0})


def test_the_picture_is_whole_small_and_has_two_sets_of_colours():
    rows = [row("f/a&b.yaml", seconds=1.0, times_faster=2.0, memory=2**30), row("g/c.yaml", failed="out of memory")]
    rows.append(row(RELEASED, seconds=2.0, times_faster=1.0, memory=2**31))
    drawn = plot(rows)
    tree = ElementTree.fromstring(drawn)
    texts = ["".join(it.itertext()) for it in tree.iter() if it.tag.endswith("text")]
    assert {"a&b", "c", "released", "out of memory", "peak memory, GiB"} <= set(texts)
    assert "prefers-color-scheme: dark" in drawn
    assert len(drawn) < 300_000
    bars = {kind: [] for kind in ("vfm", "attention", "generator")}
    for it in tree.iter():
        if it.tag.endswith("rect") and it.get("height") == "14" and it.get("class") in bars:
            bars[it.get("class")].append(float(it.get("width")))
    assert len(bars["vfm"]) == 3
    assert bars["generator"][0] == pytest.approx(2.5 * bars["vfm"][0], rel=1e-3)
    times = [float(it.get("width")) for it in tree.iter() if it.get("class") == "time"]
    assert times[0] == pytest.approx(times[1] / 2, rel=1e-3)


def test_folders_share_their_scales():
    groups = by_folder([row("f/a.yaml"), row("g/b.yaml"), row("f/c.yaml"), row(RELEASED)])
    assert {name: [it.model for it in group] for name, group in groups.items()} == {
        "f": ["f/a.yaml", "f/c.yaml", RELEASED],
        "g": ["g/b.yaml"],
    }
    assert list(by_folder([row("tiny"), row(RELEASED)])) == [""]


def test_a_drawing_without_times_has_operations_alone():
    texts = plot([row("a"), row("b")])
    assert "GFLOP" in texts
    assert "time, in those" not in texts


def test_the_studys_configs_change_what_they_say(request):
    folder = request.config.rootpath / "configs"
    paper = load_config(folder / "paper.yaml").model
    models = {path.stem: load_config(path).model for path in (folder / "efficiency").glob("*.yaml")}
    ways = {name: {it.how for it in model.generator.fusions} for name, model in models.items()}
    assert models["how_cross"] == paper
    assert ways["how_none"] == set()
    assert all(ways[f"how_{how}"] == {how} for how in ("concat", "self", "cross", "self_cross"))
    kinds = {name: model.vfm.name for name, model in models.items() if name.startswith("kind_")}
    assert len(set(kinds.values())) == len(kinds)
    assert all(model.generator.widths == paper.generator.widths for model in models.values())
