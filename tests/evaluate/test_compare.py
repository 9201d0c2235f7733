"""Several models and folders on the same pictures, with every baseline."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from pix2next.data.pairs import find_pairs
from pix2next.errors import ConfigError, PairError, WeightsError
from pix2next.evaluate.baselines import EVERY_BASELINE, Baselines, baselines_to_be_had
from pix2next.evaluate.boosted import BoostedMap, pixel_features
from pix2next.evaluate.compare import compare, named_competitors, named_folders, short_names
from pix2next.translate import Translator

from ..command import run
from .made import cut_short, lighten, make_folder, make_split, red, write


@pytest.fixture
def light(monkeypatch):
    lighten(monkeypatch)


def test_models_folders_and_every_baseline_stand_in_one_table(tmp_path, light, network):
    data = make_split(tmp_path / "data", [str(number) for number in range(6)])
    folder = make_folder(tmp_path / "other tool", data)
    named = named_competitors([str(network), str(folder)], device="cpu")
    scores = compare(named, tmp_path / "out", data=data, metrics=["psnr", "rmse", "fid"])
    assert list(scores.mean) == ["noise.safetensors", "other tool", *EVERY_BASELINE]
    written = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert written["costs"]["noise.safetensors"]["parameters"] > 0
    assert "other tool" not in written["costs"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "report.html", "report.md", "scores.csv", "scores.json"
    ]  # fmt: skip
    assert "RMSE against cost" in (tmp_path / "out" / "report.html").read_text()
    assert "p = 0.03" in (tmp_path / "out" / "report.md").read_text()


def test_the_cost_is_the_networks(network, tmp_path, light):
    data = make_split(tmp_path / "data", ["a", "b"])
    translator = Translator.from_pretrained(network, device="cpu")
    costs = compare({"net": translator}, tmp_path / "out", data=data, metrics=["rmse"]).costs
    assert costs["net"].parameters == sum(parameter.numel() for parameter in translator.model.parameters())
    assert costs["boosted"].gflop < costs["net"].gflop
    assert costs["red"].gflop == 0


def test_folders_alone_need_no_rgb(tmp_path, light):
    data = make_split(tmp_path / "data")
    one, two = (make_folder(tmp_path / name, data, gain) for name, gain in (("one", 0.5), ("two", 0.9)))
    (data / "rgb").rename(tmp_path / "elsewhere")
    scores = compare({"one": one, "two": two}, tmp_path / "out", nir=data / "nir", metrics=["rmse"])
    assert list(scores.mean) == ["one", "two"]
    assert scores.best("rmse") == "two"
    assert any("no baselines" in note for note in scores.notes)
    with pytest.raises(ConfigError, match="--rgb"):
        compare({"one": one, "model": red}, tmp_path / "out", nir=data / "nir")


def test_settings_that_do_not_go_together(tmp_path, light):
    data = make_split(tmp_path / "data")
    for wrong in ({}, {"data": data, "nir": data / "nir"}, {"data": data, "rgb": data / "rgb"}):
        with pytest.raises(ConfigError, match="either --data, or --nir"):
            compare({"one": red}, tmp_path / "out", **wrong)
    with pytest.raises(ConfigError, match="nothing to compare"):
        compare({}, tmp_path / "out", data=data)
    for name in ("boosted", "truth", ""):
        with pytest.raises(ConfigError, match=f"'{name}'"):
            compare({name: red}, tmp_path / "out", data=data)


def test_a_picture_that_one_folder_lacks_is_left_out_for_all(tmp_path, light):
    data = make_split(tmp_path / "data")
    one, two = (make_folder(tmp_path / name, data, gain) for name, gain in (("one", 0.5), ("two", 0.9)))
    (two / "b.png").unlink()
    cut_short(data)
    with pytest.raises(PairError, match=r"b\.png"):
        compare({"one": one, "two": two}, tmp_path / "out", data=data, metrics=["rmse"])
    scores = compare({"one": one, "two": two}, tmp_path / "out", data=data, metrics=["rmse"], skip_bad=True)
    assert [picture.name for picture in scores.pictures] == ["sub/c"]
    assert {left.name for left in scores.left_out} == {"a", "b"}


def test_names_are_as_short_as_they_may_be():
    assert short_names(["a/best", "b/best", "x.pt"]) == {"a/best": "a/best", "b/best": "b/best", "x.pt": "x.pt"}
    assert short_names(["runs/a/m", "runs/b/m", "m"]) == {
        "runs/a/m": "a/m",
        "runs/b/m": "b/m",
        "m": f"{Path.cwd().name}/m",
    }
    assert short_names(["runs/mine/"]) == {"runs/mine/": "mine"}
    for twice in (["a", "a"], ["a", "./a"]):
        with pytest.raises(ConfigError, match="given twice"):
            short_names(twice)


def test_names_can_be_given(tmp_path, network):
    data = make_split(tmp_path / "data")
    made = make_folder(tmp_path / "a=b", data)
    named = named_competitors([f"mine={network}", str(made), f"theirs={made}"], device="cpu")
    assert list(named) == ["mine", "a=b", "theirs"]
    assert isinstance(named["mine"], Translator)
    assert named["a=b"] == named["theirs"] == made
    with pytest.raises(ConfigError, match="two are called x"):
        named_competitors([f"x={made}", f"x={network}"])
    assert named_folders([f"one={data}", str(made)]) == {"one": data, "a=b": made}
    with pytest.raises(ConfigError, match="two data sets are called one"):
        named_folders([f"one={data}", f"one={made}"])


def test_what_is_neither_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(WeightsError, match="absent"):
        named_competitors([str(tmp_path / "absent")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="no training run"):
        named_competitors([str(tmp_path / "empty")])


def heights(rgb: np.ndarray) -> np.ndarray:
    """What no mixture of colours can be: brighter the lower."""
    return np.linspace(0, 255, rgb.shape[0])[:, None].repeat(rgb.shape[1], axis=1).astype(np.uint8)


def test_boosted_trees_see_height_and_keep_depth(tmp_path):
    data = make_split(tmp_path, ["a", "b"], size=(60, 40))
    pairs = find_pairs(data / "rgb", data / "nir")
    for pair in pairs:
        write(pair.nir, heights(np.zeros((60, 40, 3), np.uint8)))
    fitted = BoostedMap.fit(pairs)
    rgb = np.random.default_rng(7).integers(0, 256, (60, 40, 3)).astype(np.uint8)
    assert np.abs(fitted.apply(rgb).astype(float) - heights(rgb)).mean() < 8
    deep = fitted.apply(rgb.astype(np.uint16) * 257)
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - fitted.apply(rgb)).max() <= 0.51
    assert np.array_equal(BoostedMap.fit(pairs).apply(rgb), fitted.apply(rgb))


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (40, 30)])
def test_features_have_a_row_a_pixel(size):
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    features = pixel_features(rgb)
    assert features.shape == (size[0] * size[1], 10)
    assert features.min() >= 0
    assert features.max() <= 1
    assert features[:, :3] == pytest.approx(rgb.reshape(-1, 3) / 255, abs=1e-6)


def test_baselines_are_what_they_are_called(tmp_path):
    data = make_split(tmp_path, ["a", "b"])
    pairs = find_pairs(data / "rgb", data / "nir")
    rgb = np.random.default_rng(0).integers(0, 256, (8, 9, 3)).astype(np.uint8)
    made = Baselines.fit(pairs, [], EVERY_BASELINE).of(pairs[0], rgb)
    assert tuple(made) == EVERY_BASELINE
    for index, channel in enumerate(("red", "green", "blue")):
        assert np.array_equal(made[channel], rgb[..., index])
    assert list(Baselines.fit(pairs, []).of(pairs[0], rgb)) == ["luma", "linear"]


def test_without_scikit_learn_the_rest_is_compared(tmp_path, light, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    names, notes = baselines_to_be_had()
    assert "boosted" not in names
    assert "pip install" in notes[0]
    scores = compare({"r": red}, tmp_path / "out", data=make_split(tmp_path / "data"), metrics=["rmse"])
    assert "boosted" not in scores.mean
    assert any("scikit-learn" in note for note in scores.notes)


def test_the_verbs_write_show_and_tell_what_was_left_out(tmp_path, light, network):
    data = make_split(tmp_path / "data")
    folder = make_folder(tmp_path / "made", data)
    rest = ["--metrics", "rmse", "--device", "cpu", "--out", tmp_path / "out"]
    compared = run("compare", network, folder, "--data", data, *rest)
    assert compared.exit_code == 0, compared.stderr
    assert "boosted" in compared.stdout
    cut_short(data)
    refused = run("evaluate", "--model", network, "--data", data, *rest)
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: ")
    assert refused.stderr.count("\n") == 1
    for verb in (
        ["evaluate", "--model", network, "--data", data],
        ["compare", network, folder, "--data", data],
        ["matrix", network, "--data", f"one={data}"],
    ):
        skipped = run(*verb, *rest, "--skip-bad")
        assert skipped.exit_code == 1, skipped.stderr
        assert "left out: " in skipped.stderr
        assert "a.png" in skipped.stderr
        assert "mean of 2 pictures" in skipped.stdout
    assert (tmp_path / "out" / "matrix.html").is_file()
