"""Regions of known material: the file, what is measured inside, and what is said about it."""

import json
from pathlib import Path

import numpy as np
import pytest

from pix2next.errors import ConfigError, LabelError
from pix2next.evaluate.region_report import LEAST, Estimate, find_out, write_findings
from pix2next.evaluate.regions import measure_regions, read_regions
from pix2next.images import luma, read_size

from ..command import run
from .made import write

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "regions").glob("*.csv"))
HEAD = "picture,class,left,top,right,bottom"
TWO = f"""# drawn by eye
{HEAD}

a,vegetation,0,0,4,6
a,asphalt,4,0,8,6
b,vegetation,0,0,4,6
b,asphalt,4,0,8,6
"""
GREEN, GREY = (0, 150, 0), (100, 100, 100)
"""Luma is 88 and 100."""


def inverted(rgb):
    return 255 - luma(rgb)


def add_picture(data, name, vegetation, asphalt):
    """Leaves to the left, a road to the right; the levels are those of the true NIR picture."""
    rgb = np.empty((6, 8, 3), np.uint8)
    rgb[:, :4], rgb[:, 4:] = GREEN, GREY
    nir = np.empty((6, 8), np.uint8)
    nir[:, :4], nir[:, 4:] = vegetation, asphalt
    write(data / "rgb" / f"{name}.png", rgb)
    write(data / "nir" / f"{name}.png", nir)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    add_picture(folder, "a", 180, 60)
    add_picture(folder, "b", 50, 80)
    return folder


def regions_in(folder, text=TWO):
    path = folder / "regions.csv"
    path.write_text(text)
    return path


def measure(tmp_path, data, text=TWO, model=inverted):
    return measure_regions(model, data, regions_in(tmp_path, text))


def test_a_region_is_measured_inside_its_box(tmp_path, data):
    road = measure(tmp_path, data).regions[1]
    assert (road.region.picture, road.region.material, road.region.scene) == ("a", "asphalt", "a")
    assert {method: road.level[method] for method in ("truth", "model", "luma")} == pytest.approx(
        {"truth": 60, "model": 155, "luma": 100}
    )
    assert road.less_luma["truth"] == pytest.approx(-40)
    assert (road.darker_than_luma["truth"], road.darker_than_luma["model"]) == (1, 0)
    assert (road.level_error["model"], road.level_error["luma"]) == pytest.approx((95, 40))
    assert road.ndvi_error["model"] == pytest.approx(55 / 255 + 40 / 160)
    assert road.ndvi_error["luma"] == pytest.approx(40 / 160)


def test_contrasts_by_hand(tmp_path, data):
    contrasts = find_out(measure(tmp_path, data)).contrasts
    assert [(each.brighter, each.darker, each.scenes) for each in contrasts] == [("vegetation", "asphalt", 2)]
    assert {method: contrasts[0].share[method] for method in ("truth", "model", "luma")} == {
        "truth": 0.5, "model": 1, "luma": 0
    }  # fmt: skip
    means = {method: contrasts[0].difference[method].mean for method in ("truth", "model", "luma")}
    assert means == pytest.approx({"truth": (120 - 30) / 2, "model": 12, "luma": -12})


def test_levels_are_means_over_all_scenes_that_show_the_material(tmp_path, data):
    add_picture(data, "c", 10, 20)
    materials = find_out(measure(tmp_path, data, TWO + "c,asphalt,4,0,8,6\n")).materials
    assert [(each.name, each.scenes) for each in materials] == [("asphalt", 3), ("vegetation", 2)]
    road = materials[0].numbers
    assert road["level"]["truth"].mean == pytest.approx((60 + 80 + 20) / 3)
    assert road["less_luma"]["truth"].mean == pytest.approx((60 + 80 + 20) / 3 - 100)
    assert road["level_error"]["model"].mean == pytest.approx((95 + 75 + 135) / 3)
    assert road["darker_than_luma"]["truth"].mean == 1


def test_pictures_of_one_scene_count_once(tmp_path, data):
    add_picture(data, "c", 200, 100)
    lines = [f"{line},tree" if line[0] in "ab" else line for line in TWO.split() if "," in line]
    text = "\n".join([f"{HEAD},scene", *lines[1:], "c,vegetation,0,0,4,6,", "c,asphalt,4,0,8,6,"])
    measurements = measure(tmp_path, data, text)
    assert [row.scene for row in measurements.likeness] == ["tree", "tree", "c"]
    (contrast,) = find_out(measurements).contrasts
    assert contrast.scenes == 2
    assert contrast.share["truth"] == 1
    assert contrast.difference["truth"].mean == pytest.approx(((120 - 30) / 2 + 100) / 2)


def test_inverted_grey_is_found_out(tmp_path, data):
    correlation = find_out(measure(tmp_path, data)).correlation
    assert correlation["made_luma"].mean == pytest.approx(-1)
    assert correlation["made_true"].mean == pytest.approx((1 - 1) / 2)
    assert find_out(measure(tmp_path, data, model=luma)).correlation["made_luma"].mean == pytest.approx(1)


def test_materials_that_no_scene_shows_together_have_no_contrast(tmp_path, data):
    text = f"{HEAD}\na,vegetation,0,0,4,6\nb,asphalt,4,0,8,6\n"
    findings = find_out(measure(tmp_path, data, text))
    assert findings.contrasts == []
    assert [each.name for each in findings.materials] == ["asphalt", "vegetation"]


def test_few_scenes_have_no_interval():
    few, enough = (Estimate.of([float(i) for i in range(count)]) for count in (LEAST - 1, LEAST))
    assert few.interval is None
    assert enough.interval.low < enough.mean == 2 < enough.interval.high
    assert few.text(".1f") == "1.5"
    assert enough.text("+.1f", bare=True) == "+2.0"
    assert enough.text("+.1f").startswith("+2.0 (+")


def test_reports_hold_what_was_found(tmp_path, data):
    text = write_findings(measure(tmp_path, data), tmp_path / "out")
    assert text == (tmp_path / "out" / "regions.md").read_text()
    assert "| vegetation over asphalt | 2 | 50%; +45.0 | 100%; +12.0 | 0%; -12.0 |" in text
    written = json.loads((tmp_path / "out" / "regions.json").read_text())
    assert written["contrasts"][0]["difference"]["truth"] == {"mean": pytest.approx(45), "interval": None}
    assert written["regions"][0]["region"]["right"] == 4
    assert written["linear_map"]["fitted_on"].startswith("the scored pictures in two halves")


def test_a_flat_picture_has_no_correlation_and_the_json_stays_strict(tmp_path, data):
    text = write_findings(measure(tmp_path, data, model=lambda rgb: np.full(rgb.shape[:2], 7, np.uint8)), tmp_path)
    assert "| model with the truth | - |" in text
    assert "NaN" not in (tmp_path / "regions.json").read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no region"),
        (f"# nothing\n{HEAD}\n", "holds no region"),
        ("picture,class,left,top,right\na,sky,0,0,4\n", "no column 'bottom'"),
        (f"# one\n{HEAD}\n\na,sky,0,0,4,x\n", "line 4: bottom is 'x'"),
        (f"{HEAD}\na,sky,-1,0,4,6\n", "line 2: left is '-1'"),
        (f"{HEAD}\na,sky,0,0,4\n", "line 2: bottom is ''"),
        (f"{HEAD}\na,sky,4,0,4,6\n", "no pixel between 4,0 and 4,6"),
        (f"{HEAD}\na,,0,0,4,6\n", "line 2: no class"),
        (f'{HEAD}\n"a,sky,0,0,4,6\na,sky,0,0,4,6\n', "line 2: no class"),
        (f"{HEAD},scene\na,sky,0,0,4,6,x\na,sky,0,0,4,6,y\n", "a is of two scenes, x and y"),
    ],
)
def test_a_bad_file_is_told_with_its_line(tmp_path, text, said):
    with pytest.raises(LabelError, match=said):
        read_regions(regions_in(tmp_path, text))


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(LabelError, match=r"cannot read the regions .*none.csv: No such file"):
        read_regions(tmp_path / "none.csv")
    (tmp_path / "picture.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LabelError, match="not UTF-8"):
        read_regions(tmp_path / "picture.csv")


def test_a_spreadsheets_mark_and_blanks_do_no_harm(tmp_path):
    path = tmp_path / "regions.csv"
    path.write_text(f"{HEAD}\n a, sky,0, 0,4,6\n", encoding="utf-8-sig")
    (region,) = read_regions(path)
    assert (region.picture, region.material, region.right) == ("a", "sky", 4)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("z,sky,0,0,4,6", "1 of the 3 pictures with regions are not there .first: z."),
        ("b,sky,0,0,9,6", "the box 0,0,9,6 reaches out of b, which has 8 x 6 pixels"),
        ("b,sky,0,0,4,7", "the box 0,0,4,7 reaches out"),
    ],
)
def test_regions_that_do_not_go_with_the_pictures_are_told_before_any_is_translated(tmp_path, data, line, said):
    def never(rgb):
        raise AssertionError

    with pytest.raises(LabelError, match=said):
        measure(tmp_path, data, f"{TWO}{line}\n", model=never)


def test_a_baselines_name_is_refused(tmp_path, data):
    with pytest.raises(ConfigError, match="name of a baseline"):
        measure_regions(inverted, data, regions_in(tmp_path), name="luma")


def test_the_verb_writes_and_shows_both(tmp_path, data, network):
    arguments = ("--model", network, "--data", data, "--device", "cpu", "--out", tmp_path / "out")
    done = run("regions", *arguments, "--regions", regions_in(tmp_path))
    assert done.exit_code == 0, done.stderr
    assert "vegetation" in done.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"regions.json", "regions.md"}
    assert json.loads((tmp_path / "out" / "regions.json").read_text())["name"] == network.name


def test_the_verb_says_what_is_wrong_in_one_sentence(tmp_path, data, network):
    arguments = ("--model", network, "--data", data, "--device", "cpu", "--out", tmp_path / "out")
    done = run("regions", *arguments, "--regions", regions_in(tmp_path, HEAD))
    assert done.exit_code == 2
    assert "holds no region" in done.stderr
    assert "Traceback" not in done.stderr


def test_there_are_regions_of_both_data_sets():
    assert [path.stem for path in CONFIGS] == ["aerial-test", "outdoor-test"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_regions_that_come_along_lie_in_their_pictures(path, shared):
    regions = read_regions(path)
    folder = shared / "data" / path.stem.removesuffix("-test") / "test" / "rgb"
    sizes = {name: read_size(folder / f"{name}.png") for name in {region.picture for region in regions}}
    assert all(region.right <= sizes[region.picture][0] for region in regions)
    assert all(region.bottom <= sizes[region.picture][1] for region in regions)
    assert {"vegetation", "asphalt"} <= {region.material for region in regions}
