"""Evaluation from files to scores.json, the baselines beside it."""

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console

from pix2next.errors import ConfigError, ImageError, PairError, WeightsError
from pix2next.evaluate import report
from pix2next.evaluate.baselines import LinearMap
from pix2next.evaluate.metrics import FID, psnr
from pix2next.images import luma

NAMES = ["b", "a", "sub/c"]
TRUTH = LinearMap(0.1, 0.6, 0.1, 0.1)


class Brightness:
    """Stands for a network: fast, needs no weights, and is 0 for equal pictures."""

    def features(self, picture):
        return [picture.mean(dim=(2, 3))]

    def distance(self, fake, nir):
        return (fake[0] - nir[0]).abs().flatten()


class BrightnessSet(FID):
    name = "FID-768"

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.feature = 2

    def features(self, picture):
        return torch.stack([picture.mean(), picture.square().mean()])[None]


@pytest.fixture
def light(monkeypatch):
    for name, network in {"LPIPS": Brightness, "DISTS": Brightness, "FID": BrightnessSet}.items():
        monkeypatch.setattr(report, name, network)


def write(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture[..., ::-1] if picture.ndim == 3 else picture)


def make_split(folder: Path, names: list[str] = NAMES, seed: int = 0, size: tuple[int, int] = (40, 50)) -> Path:
    noise = np.random.default_rng(seed)
    for name in names:
        rgb = noise.integers(0, 256, (*size, 3)).astype(np.uint8)
        write(folder / "rgb" / f"{name}.png", rgb)
        write(folder / "nir" / f"{name}.png", TRUTH.apply(rgb))
    return folder


def red(rgb: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rgb[..., 0])


def test_scores_json_holds_means_pictures_protocol_and_baselines(tmp_path, light):
    make_split(tmp_path / "data" / "train", seed=1)
    make_split(tmp_path / "data" / "test")
    scores = report.evaluate_model(red, tmp_path / "data", tmp_path / "out")
    written = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert written["pairs"] == 3
    assert written["mean"] == scores.mean
    assert list(written["mean"]) == ["model", "luma", "linear"]
    assert list(written["mean"]["model"]) == list(written["protocol"]) == list(report.PROTOCOL)
    assert [(p["name"], p["width"], p["height"]) for p in written["pictures"]] == [
        ("a", 50, 40), ("b", 50, 40), ("sub/c", 50, 40)
    ]  # fmt: skip
    assert all(set(p["scores"]["luma"]) == {"PSNR", "SSIM", "RMSE", "LPIPS", "DISTS"} for p in written["pictures"])
    assert written["linear_map"]["fitted_on"] == "3 pictures of data/train"
    assert written["linear_map"]["maps"][0] == pytest.approx(TRUTH._asdict(), abs=0.01)
    assert written["mean"]["linear"]["RMSE"] < 1 < written["mean"]["luma"]["RMSE"]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["scores.json"]


def test_means_are_over_pictures(tmp_path, light):
    make_split(tmp_path)
    scores = report.evaluate_model(red, tmp_path, tmp_path / "out")
    values = [picture.scores["model"]["PSNR"] for picture in scores.pictures]
    assert scores.mean["model"]["PSNR"] == pytest.approx(np.mean(values))
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
    assert scores.mean["linear"]["RMSE"] > 40  # a's map, inverted for b, and the other way round


def test_one_picture_has_no_fid_and_says_so(tmp_path, light):
    make_split(tmp_path, ["a"])
    scores = report.evaluate_model(red, tmp_path, tmp_path / "out")
    assert scores.mean["model"]["FID-768"] is None
    assert any("at least 2 pictures" in note for note in scores.notes)
    assert "itself" in scores.linear_map["fitted_on"]


def test_a_perfect_picture_keeps_the_json_strict(tmp_path, light):
    make_split(tmp_path / "data")
    scores = report.evaluate_folders(tmp_path / "data" / "nir", tmp_path / "data" / "nir", tmp_path / "out")
    assert "Infinity" not in (tmp_path / "out" / "scores.json").read_text()
    assert scores.mean["fake"]["PSNR"] is None
    assert scores.mean["fake"]["SSIM"] == pytest.approx(1)
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
    for word in ["tiny", "luma", "linear", *report.PROTOCOL, "mean of 3 pictures", "two halves"]:
        assert word in text


def lose_a_partner(data: Path) -> None:
    (data / "nir" / "a.png").unlink()


def change_a_size(data: Path) -> None:
    write(data / "nir" / "a.png", np.zeros((9, 9), np.uint8))


def cut_short(data: Path) -> None:
    path = data / "rgb" / "a.png"
    path.write_bytes(path.read_bytes()[:200])


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
    assert report._shown("DISTS", -1e-8) == "0.0000"


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
    for metric in ("LPIPS", "DISTS", "FID-768"):
        assert 0 <= scores.mean["linear"][metric] < scores.mean["luma"][metric]
