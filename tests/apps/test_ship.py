"""A run becomes a file that ships: the same one every time, with its card, or it is refused with a reason."""

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from pix2next.apps import ship as shipping
from pix2next.apps.ship import read_scores, set_metadata, ship
from pix2next.cards import Card, CardScores, card_of, read_card
from pix2next.errors import ConfigError, WeightsError
from pix2next.model.pix2next import Pix2Next, load_model

SCRIPT = Path(__file__).parents[2] / "scripts" / "ship.py"
SCORES = {"psnr": 20.5, "ssim": 0.8, "rmse": 25.0, "lpips": 0.12, "dists": 0.11, "fid-768": 0.2}
TEXTS = {"domain": "photos", "licence": "MIT", "data": "mine", "data_terms": "CC0", "vfm": "none"}
CARD = Card(
    name="small", card="docs/models/small.md", scores=CardScores.model_validate({"pictures": 4, **SCORES}), **TEXTS
)


@pytest.fixture
def model(network):
    return Pix2Next.load(network)


@pytest.fixture
def trained(model, tmp_path):
    """A run's folder."""
    model.save(tmp_path / "run" / "best.safetensors", card={"step": "30", "val_psnr": "19.5"})
    return tmp_path / "run"


@pytest.fixture
def picture(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    return tmp_path / "noise.png"


def scores_json(path, **changes):
    content = {
        "name": "run",
        "pairs": 4,
        "mean": {"run": SCORES, "luma": {}},
        "protocol_name": "standard",
        "left_out": [],
    }
    path.write_text(json.dumps({**content, **changes}))
    return path


def test_what_ships_is_the_run_in_half_precision_with_its_card(model, trained, picture, tmp_path):
    target = tmp_path / "weights" / "small.safetensors"
    shipped = ship(trained, target, CARD, {"statistic": "1,2"}, picture)
    tensors, parameters = load_file(target), dict(model.named_parameters())
    assert all(torch.equal(tensors[name], value.half()) for name, value in parameters.items())
    card = card_of(target)
    assert card == shipped.card
    assert card.missing == []
    assert (card.step, card.parameters) == (30, sum(value.numel() for value in parameters.values()))
    assert read_card(target)["val_psnr"] == "19.5"
    assert read_card(target)["statistic"] == "1,2"
    assert shipped.bytes == target.stat().st_size
    assert 0 < shipped.mean_difference <= shipped.greatest_difference < 1


def test_the_same_run_gives_the_same_bytes(trained, picture, tmp_path):
    first, again, once_more = (tmp_path / folder / "small.safetensors" for folder in ("a", "b", "c"))
    ship(trained, first, CARD, picture=picture)
    ship(trained, again, CARD, picture=picture)
    shipped = ship(first, once_more, CARD, picture=picture)
    assert first.read_bytes() == again.read_bytes() == once_more.read_bytes()
    assert shipped.mean_difference == 0


def test_other_metadata_leave_the_tensors_alone(trained):
    path = trained / "best.safetensors"
    before = load_file(path)
    set_metadata(path, {**read_card(path), "name": "né"})
    assert read_card(path)["name"] == "né"
    assert all(torch.equal(value, before[name]) for name, value in load_file(path).items())
    load_model(path)


def refused(trained, picture, target, said, error=WeightsError, card=CARD):
    """Nothing is left behind, and what was there stays."""
    target.parent.mkdir(exist_ok=True)
    target.write_text("old")
    there = set(target.parent.iterdir())
    with pytest.raises(error, match=said):
        ship(trained, target, card, picture=picture)
    assert target.read_text() == "old"
    assert set(target.parent.iterdir()) == there


@pytest.mark.parametrize(
    ("value", "said"), [(float("nan"), "holds NaN"), (7e4, r"reaches 7e\+04, and fp16 ends at 65504")]
)
def test_values_that_half_precision_cannot_hold_are_refused(model, trained, picture, tmp_path, value, said):
    with torch.no_grad():
        next(iter(model.parameters())).view(-1)[0] = value
    model.save(trained / "best.safetensors", card={"step": "30"})
    refused(trained, picture, tmp_path / "w" / "a.safetensors", said)


def test_a_picture_that_changes_is_refused(trained, picture, tmp_path, monkeypatch):
    monkeypatch.setattr(shipping, "MOST_DIFFERENCE", 1e-9)
    refused(trained, picture, tmp_path / "w" / "a.safetensors", "fp16 changes noise.png by")


def test_all_together_have_a_limit(trained, picture, tmp_path):
    (tmp_path / "w").mkdir()
    with (tmp_path / "w" / "large.safetensors").open("wb") as file:
        file.truncate(40 * 10**6)
    refused(trained, picture, tmp_path / "w" / "a.safetensors", "to 40.* MB, and all together may take 40")
    (tmp_path / "w" / "a.safetensors").unlink()
    ship(trained, tmp_path / "w" / "large.safetensors", CARD, picture=picture)


def test_a_card_with_gaps_is_refused(trained, picture, tmp_path):
    gaps = CARD.model_copy(update={"licence": None, "vfm": None})
    said = "the card of a leaves out licence, vfm"
    refused(trained, picture, tmp_path / "w" / "a.safetensors", said, ConfigError, gaps)


def test_a_run_that_is_not_there_is_named(tmp_path):
    with pytest.raises(WeightsError, match="no run or checkpoint nowhere"):
        ship("nowhere", tmp_path / "a.safetensors", CARD)


def test_scores_are_those_of_what_was_evaluated(tmp_path):
    assert read_scores(scores_json(tmp_path / "scores.json")) == CARD.scores


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "other"}, "is no scores.json of pix2next evaluate: 'other'"),
        ({"protocol_name": "paper-256"}, "protocol paper-256 with 0 pictures left out"),
        ({"left_out": [["a.png", "dark"]]}, "protocol standard with 1 pictures left out"),
        ({"mean": {"run": {**SCORES, "psnr": None}}}, "no usable psnr"),
        ({"mean": {"run": {"psnr": 20, "ssim": 0.8, "lpips": 0.1}}}, "no usable dists, fid-768"),
    ],
)
def test_scores_that_a_card_cannot_state_are_refused(tmp_path, changes, said):
    path = scores_json(tmp_path / "scores.json", **changes)
    with pytest.raises(ConfigError, match=re.escape(said)):
        read_scores(path)


def test_scores_that_are_not_there_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.json is no scores\.json"):
        read_scores(tmp_path / "absent.json")


def test_the_script(trained, tmp_path):
    app = typer.Typer()
    app.command()(runpy.run_path(str(SCRIPT))["main"])
    options = [part for name, text in TEXTS.items() for part in (f"--{name.replace('_', '-')}", text)]
    options += ["--scores", str(scores_json(tmp_path / "scores.json")), "--out", str(tmp_path / "w")]
    done = CliRunner().invoke(app, [str(trained), "small", *options])
    assert done.exit_code == 0, done.output
    assert "fp16 changes a picture by 0." in done.stdout
    card = card_of(tmp_path / "w" / "small.safetensors")
    assert card == CARD.model_copy(update={"step": 30, "parameters": card.parameters, "gflop": card.gflop})
    failed = CliRunner().invoke(app, [str(tmp_path), "small", *options])
    assert failed.exit_code == 2
    assert failed.stderr.startswith("error: no ")
    halved = CliRunner().invoke(app, [str(trained), "small", *options, "--training", str(tmp_path)])
    assert halved.exit_code == 2
    assert "--training and --held-out belong together" in halved.stderr
