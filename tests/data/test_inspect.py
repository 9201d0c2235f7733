"""What a look through a folder of pairs finds: shifts, copies, broken and mismatched files, NIR that is none."""

import json

import cv2
import numpy as np
import pytest

from pix2next.data.contact import edge_overlay, write_contact_sheet
from pix2next.data.duplicates import find_duplicates, fingerprint
from pix2next.data.inspect import correlation, inspect_pairs, match_up
from pix2next.data.pairs import Pair
from pix2next.data.registration import edge_strength, register
from pix2next.data.report import findings, summary_table, worst_table, write_report
from pix2next.errors import PairError
from pix2next.images import luma, read_rgb

from ..command import run
from . import fakes


def displaced(right, down, height=120, width=140, seed=3):
    """Grey of a scene's RGB, and its NIR moved to the right and down, both cut from a larger scene."""
    rgb, nir = fakes.scene(seed, height + 24, width + 24)
    grey = luma(rgb)
    return (
        np.ascontiguousarray(grey[12:-12, 12:-12]),
        np.ascontiguousarray(nir[12 - down : 12 - down + height, 12 - right : 12 - right + width]),
    )


# Registration


@pytest.mark.parametrize(("right", "down"), [(0, 0), (3, 0), (0, -5), (-7, 4), (11, 11)])
def test_a_shift_is_found(right, down):
    found = register(*displaced(right, down))
    assert (found.right, found.down) == pytest.approx((right, down), abs=0.2)
    assert found.best > 0.9
    assert found.is_shifted == (right != 0 or down != 0)
    if not found.is_shifted:
        assert found.edges == found.best


def test_half_a_pixel_is_found_and_is_no_fault():
    grey, nir = displaced(0, 0)
    moved = cv2.warpAffine(nir, np.float32([[1, 0, 0.5], [0, 1, 0]]), nir.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    found = register(grey, moved)
    assert found.right == pytest.approx(0.5, abs=0.2)
    assert not found.is_shifted


def test_inverted_pictures_have_the_same_edges():
    grey, _ = displaced(0, 0)
    assert register(grey, 255 - grey).edges == pytest.approx(1, abs=1e-3)


def test_unrelated_pictures_are_not_called_shifted():
    found = register(displaced(0, 0, seed=1)[0], displaced(0, 0, seed=2)[1])
    assert abs(found.edges) < 0.2
    assert not found.is_shifted


def test_depth_does_not_matter():
    grey, nir = displaced(2, 1)
    eight, sixteen = register(grey, nir), register(grey.astype(np.uint16) * 257, nir.astype(np.uint16) * 257)
    assert sixteen == pytest.approx(eight, abs=1e-4)


def test_large_pictures_are_judged_smaller_and_reported_in_their_own_pixels():
    grey, nir = (cv2.resize(picture, None, fx=10, fy=10) for picture in displaced(2, -1))
    found = register(grey, nir)
    assert (found.right, found.down) == pytest.approx((20, -10), abs=1.5)


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (64, 64)])
def test_what_has_no_edges_is_not_judged(shape):
    assert register(np.full(shape, 9, np.uint8), np.full(shape, 9, np.uint8)) is None


def test_edges_of_a_step_by_hand():
    picture = np.zeros((9, 9), np.uint8)
    picture[:, 5:] = 255
    edges = edge_strength(picture)
    assert edges[4].argmax() in (4, 5)
    assert edges[4, 4] == pytest.approx(edges[4, 5])
    assert np.all(edges == edges[0])
    assert np.all(edge_strength(np.full((9, 9), 70, np.uint8)) == 0)


# Duplicates


def prints_of(*pictures):
    return [fingerprint(picture, luma(picture)) for picture in pictures]


def test_a_copy_is_found_whatever_was_done_to_it(tmp_path):
    rgb = cv2.GaussianBlur(fakes.scene(0, 200, 220)[0], (0, 0), 5)
    small = cv2.resize(rgb, (110, 90), interpolation=cv2.INTER_AREA)
    darker = (read_rgb(fakes.save(tmp_path / "packed.jpg", small)) * 0.7).astype(np.uint8)
    found = find_duplicates(prints_of(rgb, rgb.copy(), darker, fakes.scene(1, 200, 220)[0]), [0, 1, 2, 3])
    assert [(pair.first, pair.second, pair.exact) for pair in found] == [(0, 1, True), (0, 2, False), (1, 2, False)]
    assert found[1].correlation > 0.98


def test_copies_in_one_group_are_no_matter():
    rgb = fakes.scene(0)[0]
    assert find_duplicates(prints_of(rgb, rgb), [0, 0]) == []
    assert find_duplicates([], []) == []


def test_flat_pictures_are_duplicates_only_if_equal():
    flat = [np.full((20, 20, 3), value, np.uint8) for value in (0, 1, 1)]
    found = find_duplicates(prints_of(*flat), [0, 1, 2])
    assert [(pair.first, pair.second) for pair in found] == [(1, 2)]


def test_different_scenes_are_no_duplicates():
    scenes = [fakes.scene(seed)[0] for seed in range(60)]
    assert find_duplicates(prints_of(*scenes), list(range(60))) == []


# The folder


def test_a_folder_without_fault(tmp_path):
    report = inspect_pairs(fakes.pairs(tmp_path))
    assert report.whole
    assert {split: len(several) for split, several in report.pairs.items()} == {"train": 3, "val": 3}
    assert len(report.worst) == 6
    assert report.remarks == {}
    assert findings(report) == ["no problems found"]


def test_a_single_split_and_splits_of_other_names(tmp_path):
    fakes.pairs(tmp_path / "a", ("day", "test", "night"), each=1)
    assert list(inspect_pairs(tmp_path / "a").pairs) == ["test", "day", "night"]
    assert list(inspect_pairs(tmp_path / "a/day").pairs) == ["day"]


def test_a_folder_without_pairs_is_told_the_layout(tmp_path):
    with pytest.raises(PairError, match="expected .*rgb and .*nir"):
        inspect_pairs(tmp_path)
    with pytest.raises(PairError, match="no folder"):
        inspect_pairs(tmp_path / "nowhere")


def test_empty_splits_are_no_error(tmp_path):
    for kind in ("rgb", "nir"):
        (tmp_path / "train" / kind).mkdir(parents=True)
    report = inspect_pairs(tmp_path)
    assert report.pairs == {"train": []}
    assert summary_table(report).row_count == 1


def test_shifted_pairs_come_first_with_their_shift(tmp_path):
    fakes.pairs(tmp_path)
    _, nir = fakes.scene(1002, 96, 112)
    fakes.save(tmp_path / "val/nir/2.png", np.roll(nir, (4, -6), (0, 1)))
    report = inspect_pairs(tmp_path)
    split, pair = report.worst[0]
    found = report.facts[split, pair.name].registration
    assert (split, pair.name) == ("val", "2")
    assert (found.right, found.down) == pytest.approx((-6, 4), abs=0.3)
    assert report.remarks == {"shifted": ["val/2"]}
    assert report.whole


def test_a_wrong_partner_comes_first(tmp_path):
    fakes.pairs(tmp_path)
    (tmp_path / "train/nir/0.png").rename(tmp_path / "keep.png")
    (tmp_path / "train/nir/1.png").rename(tmp_path / "train/nir/0.png")
    (tmp_path / "keep.png").rename(tmp_path / "train/nir/1.png")
    worst = [(split, pair.name) for split, pair in inspect_pairs(tmp_path).worst[:2]]
    assert sorted(worst) == [("train", "0"), ("train", "1")]


def test_copies_across_splits_are_problems_and_within_one_a_remark(tmp_path):
    fakes.pairs(tmp_path)
    rgb = read_rgb(tmp_path / "train/rgb/1.png")
    fakes.save(tmp_path / "val/rgb/copy.jpg", cv2.resize(rgb, (80, 70), interpolation=cv2.INTER_AREA))
    fakes.save(tmp_path / "val/nir/copy.jpg", fakes.scene(5, 70, 80)[1])
    for kind in ("rgb", "nir"):
        (tmp_path / "train" / kind / "again.png").write_bytes((tmp_path / "train" / kind / "0.png").read_bytes())
    report = inspect_pairs(tmp_path)
    assert not report.whole
    assert len(report.problems["in two splits"]) == 1
    assert report.problems["in two splits"][0].startswith("train/1 and val/copy show the same")
    assert report.remarks["same RGB several times in a split"] == ["train/0", "train/again"]


def test_broken_lonely_and_unequal_files_are_listed_and_the_rest_judged(tmp_path):
    fakes.pairs(tmp_path)
    (tmp_path / "train/rgb/0.png").write_bytes((tmp_path / "train/rgb/0.png").read_bytes()[:100])
    (tmp_path / "train/nir/1.png").unlink()
    fakes.save(tmp_path / "val/nir/0.png", fakes.scene(1000, 90, 112)[1])
    (tmp_path / "val/rgb/1.bmp").write_bytes((tmp_path / "val/rgb/1.png").read_bytes())
    report = inspect_pairs(tmp_path)
    assert {kind: len(sentences) for kind, sentences in report.problems.items()} == {
        "unreadable": 1, "no partner": 2, "different sizes": 1, "in two splits": 0,
    }  # fmt: skip
    said = "\n".join(findings(report))
    assert "damaged or cut short" in said
    assert "train/rgb/1.png has no NIR partner" in said
    assert "share one name" in said
    assert "is 112 x 96, " in said
    assert said.endswith("4 problems")
    assert len(report.worst) == 3


def test_what_is_no_near_infrared_or_no_colour_is_remarked(tmp_path):
    fakes.pairs(tmp_path, ("train",), each=6)
    rgb, nir = fakes.scene(50, 96, 112)
    folder = tmp_path / "train"
    fakes.save(folder / "nir/0.png", (luma(read_rgb(folder / "rgb/0.png")) * 0.6 + 30).astype(np.uint8))
    fakes.save(folder / "nir/1.png", np.ascontiguousarray(read_rgb(folder / "rgb/1.png")[..., 0]))
    fakes.save(folder / "nir/2.png", rgb)
    fakes.save(folder / "rgb/3.png", cv2.merge([nir] * 3))
    fakes.save(folder / "nir/4.png", np.zeros((96, 112), np.uint8))
    remarks = inspect_pairs(tmp_path).remarks
    assert remarks["NIR is the luma"] == ["train/0"]
    assert remarks["NIR is red"] == ["train/1"]
    assert remarks["coloured NIR"] == ["train/2"]
    assert remarks["grey RGB"] == ["train/3"]
    assert remarks["NIR of one value"] == ["train/4"]


def test_pictures_of_one_pixel_and_of_16_bits(tmp_path):
    for dtype, name in ((np.uint8, "a"), (np.uint16, "b")):
        fakes.save(tmp_path / f"rgb/{name}.png", np.full((1, 1, 3), 7, dtype))
        fakes.save(tmp_path / f"nir/{name}.png", np.full((1, 1), 7, dtype))
    report = inspect_pairs(tmp_path)
    assert report.whole
    assert report.worst == []
    assert {found.depths for found in report.facts.values()} == {("uint8", "uint8"), ("uint16", "uint16")}


def test_partners_are_matched_in_folders_below(tmp_path):
    for kind in ("rgb", "nir"):
        fakes.save(tmp_path / kind / "FOG/101/0001.png", fakes.scene(0)[1])
    pairs, lonely = match_up(tmp_path)
    assert [pair.name for pair in pairs] == ["FOG/101/0001"]
    assert lonely == []


def test_correlation_by_hand():
    picture = np.array([[0, 50], [100, 150]], np.uint8)
    assert correlation(picture, 255 - picture) == pytest.approx(-1)
    assert correlation(picture, np.full((2, 2), 9, np.uint8)) == 0


def test_the_report_and_the_sheet(tmp_path):
    fakes.pairs(tmp_path / "pairs", height=300, width=280)
    report = inspect_pairs(tmp_path / "pairs")
    write_report(report, tmp_path / "out")
    told = json.loads((tmp_path / "out/inspect.json").read_text())
    assert told["whole"]
    assert told["pairs"] == {"train": 3, "val": 3}
    assert told["sizes"] == {"280 x 300": 6}
    assert told["depths"] == {"uint8 RGB, uint8 NIR": 6}
    order = [entry["edges"] for entry in told["registration"]]
    assert order == sorted(order)
    assert read_rgb(tmp_path / "out/worst.png").shape == (6 * 280, 3 * 256 + 8, 3)
    assert worst_table(report).row_count == 6


def test_the_sheet_shows_a_small_deep_picture(tmp_path):
    rgb, nir = fakes.scene(0, 30, 44, np.uint16)
    pair = Pair("a", fakes.save(tmp_path / "rgb.png", rgb // 16), fakes.save(tmp_path / "nir.png", nir // 16))
    write_contact_sheet([(pair, "a")], tmp_path / "sheet.png")
    sheet = read_rgb(tmp_path / "sheet.png")
    assert sheet[20:50, :44].max() == 255
    assert sheet[20:50, 44:256].min() == 255


def test_edges_of_both_are_white_and_of_one_red_or_cyan():
    rgb, nir = np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32)
    rgb[0, :], nir[:, 0] = 1, 1
    assert edge_overlay(rgb, nir).tolist() == [[[255, 255, 255], [255, 0, 0]], [[0, 255, 255], [0, 0, 0]]]


def test_real_pairs_are_registered_and_kept_apart(outdoor):
    report = inspect_pairs(outdoor / "val")
    assert report.whole
    assert len(report.pairs["val"]) == 40
    assert min(report.facts[split, pair.name].registration.edges for split, pair in report.worst) > 0.3
    assert "shifted" not in report.remarks


# The verb


def test_the_verb_shows_tables_and_writes_the_report(tmp_path):
    fakes.pairs(tmp_path / "pairs")
    shown = run("inspect", tmp_path / "pairs", "--out", tmp_path / "out")
    assert shown.exit_code == 0
    assert "no problems found" in shown.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"inspect.json", "worst.png"}


def test_the_verb_ends_with_1_where_there_are_problems(tmp_path):
    fakes.pairs(tmp_path / "pairs")
    (tmp_path / "pairs/val/nir/0.png").write_bytes(b"")
    shown = run("inspect", tmp_path / "pairs")
    assert shown.exit_code == 1
    assert "is empty (0 bytes)" in shown.stdout
    assert run("inspect", tmp_path / "nowhere").exit_code == 2
