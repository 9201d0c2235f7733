"""Evaluation from files to scores.json, the baselines beside it."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from pix2next.errors import ConfigError, ImageError, PairError, WeightsError
from pix2next.evaluate import report, tables
from pix2next.evaluate.metrics import DEFAULT_METRICS, METRICS
from pix2next.evaluate.pixelwise import psnr
from pix2next.images import luma

from .made import NAMES, TRUTH, change_a_size, cut_short, lighten, lose_a_partner, make_split, red, write


@pytest.fixture
def light(monkeypatch):
    lighten(monkeypatch)


def test_scores_json_holds_means_pictures_protocol_and_baselines(tmp_path, light):
    make_split(tmp_path / "data" / "train", seed=1)
    make_split(tmp_path / "data" / "test")
    scores = report.evaluate_model(red, tmp_path / "data", tmp_path / "out")
    written = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert written["pairs"] == 3
    assert written["mean"] == scores.mean
    assert list(written["mean"]) == ["model", "luma", "linear"]
    assert list(written["mean"]["model"]) == list(written["protocol"]) == list(DEFAULT_METRICS)
    assert [(p["name"], p["width"], p["height"]) for p in written["pictures"]] == [
        ("a", 50, 40), ("b", 50, 40), ("sub/c", 50, 40)
    ]  # fmt: skip
    assert all(set(p["scores"]["luma"]) == {"psnr", "ssim", "rmse", "lpips", "dists"} for p in written["pictures"])
    assert written["linear_map"]["fitted_on"] == "3 pictures of data/train"
    assert written["linear_map"]["maps"][0] == pytest.approx(TRUTH._asdict(), abs=0.01)
    assert written["mean"]["linear"]["rmse"] < 1 < written["mean"]["luma"]["rmse"]
    files = ["report.html", "report.md", "scores.csv", "scores.json"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == files


def test_means_are_over_pictures(tmp_path, light):
    make_split(tmp_path)
    scores = report.evaluate_model(red, tmp_path, tmp_path / "out")
    values = [picture.scores["model"]["psnr"] for picture in scores.pictures]
    assert scores.mean["model"]["psnr"] == pytest.approx(np.mean(values))
    rgb, nir = (cv2.imread(str(tmp_path / kind / "a.png"), cv2.IMREAD_UNCHANGED) for kind in ("rgb", "nir"))
    assert values[0] == pytest.approx(psnr(rgb[..., 2].copy(), nir))


def test_names_decide_neither_order_nor_scores(tmp_path, light):
    """The same pictures under names that sort the other way round."""
    make_split(tmp_path / "one", ["a", "b", "c"])
    make_split(tmp_path / "two", ["c", "b", "a"])
    make_split(tmp_path / "train", ["t"], seed=3)
    one, two = (report.evaluate_model(red, tmp_path / name, tmp_path / f"{name}-out") for name in ("one", "two"))
    for method, values in one.mean.items():
        assert two.mean[method] == pytest.approx(values, rel=1e-5, abs=1e-9)


def test_a_train_split_beside_the_scored_one_is_used(tmp_path, light):
    make_split(tmp_path / "train", ["t"], seed=1)
    make_split(tmp_path / "val")
    assert report.evaluate_model(red, tmp_path / "val", tmp_path / "out").linear_map["fitted_on"].endswith("/train")


def test_without_a_train_split_no_picture_is_scored_with_its_own_map(tmp_path, light):
    make_split(tmp_path, ["a", "b"])
    inverted = 255 - cv2.imread(str(tmp_path / "nir" / "b.png"), cv2.IMREAD_UNCHANGED)
    write(tmp_path / "nir" / "b.png", inverted)
    scores = report.evaluate_model(red, tmp_path, tmp_path / "out")
    assert "two halves" in scores.linear_map["fitted_on"]
    assert len(scores.linear_map["maps"]) == 2
    assert scores.mean["linear"]["rmse"] > 40  # a's map, inverted for b, and the other way round


def test_one_picture_has_no_fid_and_says_so(tmp_path, light):
    make_split(tmp_path, ["a"])
    scores = report.evaluate_model(red, tmp_path, tmp_path / "out")
    assert scores.mean["model"]["fid-768"] is None
    assert any("at least 2 pictures" in note for note in scores.notes)
    assert "itself" in scores.linear_map["fitted_on"]


def test_a_perfect_picture_keeps_the_json_strict(tmp_path, light):
    make_split(tmp_path / "data")
    scores = report.evaluate_folders(tmp_path / "data" / "nir", tmp_path / "data" / "nir", tmp_path / "out")
    assert "Infinity" not in (tmp_path / "out" / "scores.json").read_text()
    assert scores.mean["fake"]["psnr"] is None
    assert scores.mean["fake"]["ssim"] == pytest.approx(1)
    assert any("infinite" in note for note in scores.notes)


def test_folders_score_as_the_model_that_made_them(tmp_path, light):
    data = make_split(tmp_path / "data")
    for name in NAMES:
        rgb = cv2.imread(str(data / "rgb" / f"{name}.png"))
        write(tmp_path / "made" / f"{name}.png", rgb[..., 2].copy())
    by_model = report.evaluate_model(red, data, tmp_path / "one")
    by_folder = report.evaluate_folders(tmp_path / "made", data / "nir", tmp_path / "two", rgb=data / "rgb")
    beside = report.evaluate_folders(tmp_path / "made", data / "nir", tmp_path / "three")
    assert by_folder.mean["fake"] == by_model.mean["model"]
    assert by_folder.mean["luma"] == by_model.mean["luma"]
    assert beside == by_folder


def test_folders_without_rgb_say_that_baselines_are_missing(tmp_path, light):
    data = make_split(tmp_path / "data")
    (data / "rgb").rename(tmp_path / "elsewhere")
    scores = report.evaluate_folders(data / "nir", data / "nir", tmp_path / "out")
    assert list(scores.mean) == ["fake"]
    assert any("no baselines" in note for note in scores.notes)
    assert "no baselines" in shown(scores)


def test_progress_is_told(tmp_path, light):
    told = []
    report.evaluate_model(red, make_split(tmp_path), tmp_path / "out", on_progress=lambda *step: told.append(step))
    assert told == [(1, 3), (2, 3), (3, 3)]


def shown(scores: report.Scores) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(report.scores_table(scores))
    return console.file.getvalue()


def test_table_names_every_method_and_metric(tmp_path, light):
    text = shown(report.evaluate_model(red, make_split(tmp_path), tmp_path / "out", name="tiny"))
    for word in [
        "tiny",
        "luma",
        "linear",
        *(METRICS[name].label for name in DEFAULT_METRICS),
        "mean of 3 pictures",
        "two halves",
    ]:
        assert word in text


def empty(data: Path) -> None:
    for path in data.rglob("*.png"):
        path.unlink()


def lose_a_folder(data: Path) -> None:
    (data / "nir").rename(data / "infrared")


@pytest.mark.parametrize(
    ("harm", "error", "says"),
    [
        (lose_a_partner, PairError, r"a\.png"),
        (change_a_size, PairError, r"a\.png.* 50 x 40 and 9 x 9"),
        (cut_short, ImageError, r"a\.png"),
        (empty, PairError, "no pictures"),
        (lose_a_folder, PairError, "expected the folders rgb and nir"),
    ],
)
def test_bad_data_is_one_sentence_and_nothing_is_written(tmp_path, light, harm, error, says):
    data = make_split(tmp_path / "data")
    harm(data)
    with pytest.raises(error, match=says) as raised:
        report.evaluate_model(red, data, tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_made_pictures_of_another_size_are_refused(tmp_path, light):
    data = make_split(tmp_path / "data")
    for name in NAMES:
        write(tmp_path / "made" / f"{name}.png", np.zeros((20, 25), np.uint8))
    with pytest.raises(PairError, match="differ in size: 25 x 20 and 50 x 40"):
        report.evaluate_folders(tmp_path / "made", data / "nir", tmp_path / "out")


def test_settings_that_would_fail_at_the_end_fail_at_the_start(tmp_path, light):
    data = make_split(tmp_path / "data")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file; --out takes a folder"):
        report.evaluate_model(red, data, tmp_path / "file")
    with pytest.raises(ConfigError, match="'luma' is the name of a baseline"):
        report.evaluate_model(red, data, tmp_path / "out", name="luma")

    def unasked(*_):
        raise AssertionError("a picture was scored")

    (tmp_path / "loop").symlink_to("loop")
    for out in ("file/scores", "loop"):
        with pytest.raises(ConfigError, match=f"cannot make the folder .*{out}"):
            report.evaluate_model(unasked, data, tmp_path / out)
        with pytest.raises(ConfigError, match=f"cannot make the folder .*{out}"):
            report.evaluate_folders(data / "nir", data / "nir", tmp_path / out)


def test_a_table_has_no_negative_zero():
    assert tables.shown("dists", -1e-8) == "0.0000"


def test_missing_weights_end_it_before_the_model_runs(tmp_path, no_weights):
    def untouched(rgb: np.ndarray) -> np.ndarray:
        raise AssertionError("the model ran")

    with pytest.raises(WeightsError, match="TORCH_HOME"):
        report.evaluate_model(untouched, make_split(tmp_path / "data"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_with_the_real_networks(tmp_path, torch_home):
    """The truth scores 0 where the worse picture does not, and luma given as the model scores as luma."""
    data = make_split(tmp_path / "data", ["a", "b"], size=(64, 80))
    scores = report.evaluate_model(luma, data, tmp_path / "out")
    assert scores.mean["model"] == pytest.approx(scores.mean["luma"])
    for metric in ("lpips", "dists", "fid-768"):
        assert 0 <= scores.mean["linear"][metric] < scores.mean["luma"][metric]


@pytest.mark.parametrize(
    ("harm", "says"), [(lose_a_partner, "no NIR picture"), (change_a_size, "differ in size"), (cut_short, "damaged")]
)
def test_the_rest_is_scored_and_what_was_left_out_is_told(tmp_path, light, harm, says):
    harm(make_split(tmp_path / "data"))
    harmed = report.evaluate_model(red, tmp_path / "data", tmp_path / "out", skip_bad=True)
    alone = report.evaluate_model(red, make_split(tmp_path / "whole", ["b", "sub/c"]), tmp_path / "other")
    assert [picture.name for picture in harmed.pictures] == ["b", "sub/c"]
    assert list(harmed.mean) == list(alone.mean)
    assert [left.name for left in harmed.left_out] == ["a"]
    assert says in harmed.left_out[0].reason
    for name in ("scores.json", "report.md", "report.html"):
        text = (tmp_path / "out" / name).read_text()
        assert says in text
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["left_out"][0]["name"] == "a"


def test_bad_pictures_to_fit_on_are_left_out_too(tmp_path, light):
    make_split(tmp_path / "test")
    cut_short(make_split(tmp_path / "train", seed=1))
    with pytest.raises(ImageError, match=r"a\.png"):
        report.evaluate_model(red, tmp_path, tmp_path / "out")
    scores = report.evaluate_model(red, tmp_path, tmp_path / "out", skip_bad=True)
    assert scores.linear_map["fitted_on"].startswith("2 pictures")
    assert [left.name for left in scores.left_out] == ["train/a"]


def test_a_picture_that_the_model_cannot_take_is_left_out(tmp_path, light):
    def choosy(rgb):
        if choosy.calls == 0:
            choosy.calls += 1
            raise ImageError("too little memory")
        return red(rgb)

    choosy.calls = 0
    scores = report.evaluate_model(choosy, make_split(tmp_path / "data"), tmp_path / "out", skip_bad=True)
    assert scores.pairs == 2
    assert scores.left_out == [("a", "too little memory")]


@pytest.mark.parametrize("skip_bad", [False, True])
def test_without_a_good_picture_it_is_an_error(tmp_path, light, skip_bad):
    data = make_split(tmp_path / "data", ["a"])
    cut_short(data)
    with pytest.raises(ImageError, match=r"a\.png"):
        report.evaluate_model(red, data, tmp_path / "out", skip_bad=skip_bad)
    empty(data)
    with pytest.raises(PairError, match="no pictures"):
        report.evaluate_model(red, data, tmp_path / "out", skip_bad=skip_bad)


def test_the_csv_has_a_row_a_picture_and_method(tmp_path, light):
    data = make_split(tmp_path / "data", ['a,"b', "=c"])
    scores = report.evaluate_model(red, data, tmp_path / "out")
    with (tmp_path / "out" / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["picture"], row["method"]) for row in rows] == [
        (name, method) for name in ("=c", 'a,"b') for method in ("model", "luma", "linear")
    ]
    assert float(rows[0]["psnr"]) == scores.pictures[0].scores["model"]["psnr"]
    assert "fid-768" not in rows[0]


def test_the_markdown_escapes_names(tmp_path, light):
    data = make_split(tmp_path / "data")
    scores = report.evaluate_model(red, data, tmp_path / "out", name="a|b*<i>")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| a\\|b\\*\\<i\\> |" in text
    table = next(line for line in text.splitlines() if line.startswith("| luma"))
    assert tables.shown("rmse", scores.mean["luma"]["rmse"]) in table


def test_the_best_is_bold_and_what_is_not_told_from_it_marked(tmp_path, light):
    data = make_split(tmp_path / "data", [str(number) for number in range(8)])
    scores = report.evaluate_model(luma, data, tmp_path / "out", name="grey", metrics=["rmse"])
    assert scores.best("rmse") == "linear"
    assert scores.as_good_as_best("rmse") == {"linear"}
    alike = report.evaluate_model(luma, data, tmp_path / "out", name="grey", metrics=["rmse"])
    assert alike.test("grey", "luma", "rmse").p_value == 1
    assert alike.test("linear", "grey", "rmse").difference == -alike.test("grey", "linear", "rmse").difference


STREAMED = """
import resource, sys
from pathlib import Path
import numpy as np
import pix2next
from pix2next.evaluate import report
report.evaluate_folders(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), metrics=["psnr"])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    """Were the 60 more pairs kept, they would add 42 MB."""
    write(tmp_path / "one.png", np.full((500, 700), 128, np.uint8))
    peaks = []
    for count in (20, 80):
        folders = [tmp_path / str(count) / name for name in ("fake", "nir", "out")]
        for folder in folders[:2]:
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number}.png").hardlink_to(tmp_path / "one.png")
        told = subprocess.run([sys.executable, "-c", STREAMED, *folders], capture_output=True, text=True, check=True)
        peaks.append(int(told.stdout))
    assert peaks[1] - peaks[0] < 20
