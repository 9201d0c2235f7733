"""Every model on every data set."""

import json
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from pix2next.errors import ConfigError, ImageError
from pix2next.evaluate.matrix import score_matrix

from .made import cut_short, lighten, make_folder, make_split, red


@pytest.fixture
def light(monkeypatch):
    lighten(monkeypatch)


@pytest.fixture
def sets(tmp_path):
    """Two data sets of opposite truths."""
    make_split(tmp_path / "one" / "train", seed=1)
    make_split(tmp_path / "one" / "test")
    make_split(tmp_path / "two")
    for path in (tmp_path / "two" / "nir").rglob("*.png"):
        cv2.imwrite(str(path), 255 - cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
    return {"one": tmp_path / "one", "two": tmp_path / "two"}


def green(rgb: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rgb[..., 1])


def inverse(rgb: np.ndarray) -> np.ndarray:
    return 255 - green(rgb)


MODELS = {"upright": green, "inverse": inverse}


def test_each_model_wins_where_it_belongs(tmp_path, light, sets):
    scores = score_matrix(MODELS, sets, tmp_path / "out", metrics=["rmse", "fid"])
    rmse = {name: {model: it.mean[model]["rmse"] for model in MODELS} for name, it in scores.items()}
    assert rmse["one"]["upright"] < rmse["one"]["inverse"]
    assert rmse["two"]["inverse"] < rmse["two"]["upright"]
    assert scores["one"].linear_map["fitted_on"].endswith("one/train")
    assert all(list(it.mean)[:3] == ["upright", "inverse", "luma"] for it in scores.values())


class Table(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.links, self.rows = [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.rows += tag == "tr"
        self.links += [value for name, value in attributes if name in ("href", "src")]


def test_the_files_hold_the_same_numbers(tmp_path, light, sets):
    scores = score_matrix(MODELS, sets, tmp_path / "out", metrics=["rmse"])
    written = json.loads((tmp_path / "out" / "matrix.json").read_text())
    assert list(written) == ["one", "two"]
    assert written["two"]["mean"] == scores["two"].mean
    assert written["two"]["intervals"]["inverse"]["rmse"] == list(scores["two"].intervals["inverse"]["rmse"])
    text = (tmp_path / "out" / "matrix.md").read_text()
    page = (tmp_path / "out" / "matrix.html").read_text()
    for it in scores.values():
        for model in MODELS:
            shown = f"{it.mean[model]['rmse']:.2f}"
            assert shown in text
            assert shown in page
    assert "| upright | " in text
    links = [link for link in Table(page).links if not link.startswith("data:")]
    assert links == ["one/report.html", "two/report.html"]
    assert all((tmp_path / "out" / link).is_file() for link in links)


def test_bad_pictures_are_found_before_the_first_is_scored(tmp_path, light, sets):
    cut_short(sets["two"])

    def unasked(rgb):
        raise AssertionError("a picture was scored")

    with pytest.raises(ImageError, match=r"a\.png"):
        score_matrix({"m": unasked}, sets, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    scores = score_matrix({"m": red}, sets, tmp_path / "out", metrics=["rmse"], skip_bad=True)
    assert scores["one"].left_out == []
    assert [left.name for left in scores["two"].left_out] == ["a"]
    assert "two: left out: " in (tmp_path / "out" / "matrix.md").read_text()


def test_wrong_settings_are_one_sentence(tmp_path, light, sets):
    folder = make_folder(tmp_path / "made", sets["two"])
    with pytest.raises(ConfigError, match="folder of pictures"):
        score_matrix({"made": folder}, sets, tmp_path / "out")
    with pytest.raises(ConfigError, match="name models"):
        score_matrix({}, sets, tmp_path / "out")
    with pytest.raises(ConfigError, match="no data"):
        score_matrix(MODELS, {}, tmp_path / "out")
    for name in ("..", "a/b", "", "a<b"):
        with pytest.raises(ConfigError, match="no name for a data set"):
            score_matrix(MODELS, {name: sets["one"]}, tmp_path / "out")
    with pytest.raises(ConfigError, match="'linear' is the name of a baseline"):
        score_matrix({"linear": red}, sets, tmp_path / "out")


def test_progress_is_told_for_each_set(tmp_path, light, sets):
    from contextlib import contextmanager

    told = []

    @contextmanager
    def progress(name):
        yield lambda done, total: told.append((name, done, total))

    score_matrix({"m": red}, sets, tmp_path / "out", metrics=["rmse"], progress_of=progress)
    assert told == [(name, done, 3) for name in ("one", "two") for done in (1, 2, 3)]
