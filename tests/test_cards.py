"""What checkpoints say of themselves, how they are listed, and that those that ship say everything."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from safetensors.numpy import save_file

from pix2next.apps.models import BLANK, as_json, as_text, list_models, models_table
from pix2next.apps.ship import cost_of
from pix2next.cards import (
    BEST,
    FORMAT,
    MEGABYTE,
    SHIPPED_MEGABYTES,
    Card,
    CardScores,
    card_of,
    read_card,
    shipped_models,
    weights_folder,
    weights_in,
)
from pix2next.errors import WeightsError
from pix2next.model.pix2next import DEFAULT_MODEL, read_config

from .command import run

ROOT = Path(__file__).parents[1]
SCORES = CardScores(pictures=44, psnr=20.61, ssim=0.79, lpips=0.15, dists=0.12, fid_768=0.33)
CARD = Card(name="mine", domain="walls [red]", licence="MIT", step=3, parameters=5_828_433, gflop=7.95, scores=SCORES)


def save(path, **metadata):
    """A checkpoint without tensors: nothing here reads them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({}, path, metadata={"format": FORMAT, **metadata})
    return path


def test_a_card_comes_back_from_its_strings(tmp_path):
    metadata = CARD.to_metadata()
    assert all(isinstance(value, str) for value in metadata.values())
    assert json.loads(metadata["scores"])["fid-768"] == 0.33
    assert card_of(save(tmp_path / "a.safetensors", val_psnr="20.1", **metadata)) == CARD


def test_what_is_not_said_is_named():
    assert CARD.missing == ["data", "data_terms", "vfm", "card"]


@pytest.mark.parametrize(
    ("damaged", "said"),
    [
        ({"parameters": "many"}, "parameters is 'many'"),
        ({"parameters": "-1"}, "parameters is '-1'"),
        ({"gflop": "inf"}, "gflop is 'inf'"),
        ({"licence": ""}, "licence is ''"),
        ({"scores": "{"}, "scores is '{'"),
        ({"scores": '{"psnr": 20}'}, "scores.pictures"),
        ({"scores": SCORES.model_dump_json(by_alias=True).replace("44", "0")}, "scores.pictures is 0"),
    ],
)
def test_a_damaged_card_is_one_sentence(tmp_path, damaged, said):
    path = save(tmp_path / "a.safetensors", **damaged)
    with pytest.raises(WeightsError, match=re.escape(f"{path}: its card is damaged: {said}")):
        card_of(path)
    failed = run("models", path)
    assert failed.exit_code == 2
    assert failed.stderr.startswith(f"error: {path}: its card is damaged")
    assert failed.stderr.count("\n") == 1


def test_what_is_named_is_listed_after_what_ships(tmp_path):
    own = save(tmp_path / "own.safetensors")
    best = save(tmp_path / "night" / BEST)
    listed = list_models([str(own), str(best.parent), DEFAULT_MODEL, str(own)])
    assert [model.name for model in listed] == [*shipped_models(), "own", "night"]
    assert listed[-1].path == best


@pytest.mark.parametrize(
    ("name", "said"),
    [("absent", "no model absent: not a file"), (".", f"no {BEST}"), ("other.safetensors", "is no pix2")],
)
def test_what_is_no_checkpoint_of_ours_is_refused(tmp_path, monkeypatch, name, said):
    monkeypatch.chdir(tmp_path)
    save_file({}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=re.escape(said)):
        list_models([name])


def test_text_states_every_fact_and_every_blank(tmp_path):
    said, silent = save(tmp_path / "a.safetensors", **CARD.to_metadata()), save(tmp_path / "b.safetensors")
    text = as_text(list_models([str(said), str(silent)]))
    first, second = text.split("\n\n")[-2:]
    assert first.startswith("mine\n")
    for fact in ("walls [red]", "5.8 M", "7.95", "PSNR 20.61 dB, SSIM 0.790", "FID-768 0.330, n = 44", "MIT"):
        assert fact in first
    assert second.startswith("b\n")
    assert second.count(BLANK) == second.count("\n") - 1


@pytest.mark.parametrize("width", [200, 80, 40])
def test_the_table_cuts_nothing_off(tmp_path, width):
    path = save(tmp_path / "a.safetensors", **CARD.to_metadata())
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(models_table(list_models([str(path)])))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    letters = re.sub(r"[\s│]", "", text)
    assert "MIT" in letters and (width == 40 or "walls[red]" in letters)


def test_other_programs_get_a_line_each(tmp_path):
    path = save(tmp_path / "a.safetensors", **CARD.to_metadata())
    lines = run("models", path, "--json").stdout.splitlines()
    assert len(lines) == len(shipped_models()) + 1
    told = json.loads(lines[-1])
    assert told["path"] == str(path)
    assert told["bytes"] == path.stat().st_size
    assert told["scores"]["fid-768"] == 0.33
    assert told["data"] is None


def test_cost_is_counted_when_asked(network):
    (silent, *_) = reversed(list_models([str(network)]))
    assert silent.card.parameters is None
    told = json.loads(run("models", network, "--json", "--count").stdout.splitlines()[-1])
    assert told["parameters"] == cost_of(read_config(network)).parameters
    assert told["gflop"] > 0
    assert json.loads(as_json(silent))["gflop"] is None


def test_listing_needs_no_torch():
    script = "import sys; from pix2next.apps.models import *; as_text(list_models()); print('torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "False"


def test_shipped_checkpoints_fit_together():
    files = weights_in(weights_folder())
    assert DEFAULT_MODEL in [path.stem for path in files]
    assert sum(path.stat().st_size for path in files) <= SHIPPED_MEGABYTES * MEGABYTE


@pytest.mark.parametrize("name", shipped_models())
def test_a_shipped_checkpoint_says_everything(name):
    path = weights_folder() / f"{name}.safetensors"
    card = card_of(path)
    assert card.missing == []
    assert card.name == name
    assert card.card == f"docs/models/{name}.md"
    assert (ROOT / card.card).is_file()
    cost = cost_of(read_config(path))
    assert card.parameters == cost.parameters
    assert card.gflop == pytest.approx(cost.gflop, abs=1e-3)
    assert read_card(path)["config"]


@pytest.mark.parametrize("name", shipped_models())
def test_a_model_card_has_the_scores_of_the_checkpoint(name):
    """In the row of its own, rounded as the page has them; intervals may follow."""
    scores = card_of(weights_folder() / f"{name}.safetensors").scores
    page = (ROOT / "docs" / "models" / f"{name}.md").read_text(encoding="utf-8")
    table = next(block for block in page.split("\n\n") if f"\n| **{name}** |" in block).splitlines()
    own = next(row for row in table if row.startswith(f"| **{name}** |"))
    columns = {title.split()[0]: cell for title, cell in zip(cells(table[0]), cells(own), strict=True) if title}
    for metric, value in scores.model_dump(by_alias=True, exclude={"pictures"}).items():
        shown = re.match(r"\**([\d.]+)", columns[metric.upper()])[1]
        assert float(shown) == pytest.approx(value, abs=0.5 * 10.0 ** -len(shown.partition(".")[2]) + 1e-9), metric


def cells(row):
    return [cell.strip() for cell in row.strip("|").split("|")]
