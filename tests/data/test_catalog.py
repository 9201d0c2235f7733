"""What each public data set's layout yields, and what a wrong one is told."""

from collections import Counter

import numpy as np
import pytest
from rich.console import Console

from pix2next.data.catalog import DATASETS, Options, about, catalog_table, count_notes, dataset, options
from pix2next.data.layouts import SPLITS
from pix2next.errors import ConfigError, PairError

from . import fakes


def found(name, root, **told):
    entry = dataset(name)
    return entry.find(root, Options(**told).resolved(entry.takes))


def by_split(samples):
    return dict(Counter(sample.split for sample in samples))


@pytest.mark.parametrize("entry", DATASETS, ids=lambda entry: entry.name)
def test_every_entry_says_what_a_user_must_know(entry):
    said = about(entry)
    assert all(text and text in said for text in (entry.obtain, entry.terms, entry.layout, entry.split))
    assert entry.citation or entry.name == "raster"
    assert "frame" not in entry.split


def test_the_table_names_every_entry():
    console = Console(width=200)
    with console.capture() as shown:
        console.print(catalog_table())
    assert all(entry.name in shown.get() and entry.title in shown.get() for entry in DATASETS)


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(ConfigError, match="no data set 'renus'; known are ranus, idd-aw"):
        dataset("renus")


def test_ranus_is_split_by_scene_folder(tmp_path):
    samples = found("ranus", fakes.ranus(tmp_path)).samples
    assert len(samples) == 18
    assert {sample.place for sample in samples} == {f"{place:02d}" for place in range(1, 7)}
    assert samples[0].name == "01/0000"
    assert samples[0].nir.name == "0000_nir.png"
    assert samples[0].labels[0][0] == "gt"
    assert samples[0].labels[0][1].name == "0000_gt.png"


def test_idd_aw_keeps_its_split_and_weathers(tmp_path):
    samples = found("idd-aw", fakes.idd_aw(tmp_path)).samples
    assert by_split(samples) == {"train": 4, "val": 2}
    assert samples[0].name == "FOG/101/00120"
    assert samples[0].place == "FOG/101"
    assert samples[0].labels == (("gtSeg", tmp_path / "IDDAW/train/FOG/gtSeg/101/00120_mask.json"),)


def test_idd_aw_passes_over_a_test_set_without_nir_and_names_divided_sequences(tmp_path):
    fakes.idd_aw(tmp_path)
    rgb, nir = fakes.scene(0)
    fakes.save(tmp_path / "IDDAW/test/SNOW/rgb/7/00001_rgb.png", rgb)
    fakes.save(tmp_path / "IDDAW/val/RAIN/rgb/185/00001_rgb.png", rgb)
    fakes.save(tmp_path / "IDDAW/val/RAIN/nir/185/00001_nir.png", nir)
    listed = found("idd-aw", tmp_path)
    assert by_split(listed.samples) == {"train": 4, "val": 3}
    assert "SNOW has no folder nir" in listed.notes[0]
    assert "1 sequences stand in several published splits (first: RAIN/185)" in listed.notes[1]


def test_nirscene1_keeps_neighbouring_numbers_together(tmp_path):
    places = {sample.name: sample.place for sample in found("nirscene1", fakes.nirscene1(tmp_path)).samples}
    assert places["country/0000"] == places["country/0009"] == "country/0x"
    assert places["country/0010"] == places["country/0011"] == "country/1x"
    assert len(set(places.values())) == 6


def test_vcip2020_pairs_registered_pictures_alone(tmp_path):
    samples = found("vcip2020", fakes.vcip2020(tmp_path)).samples
    assert {sample.name: sample.split for sample in samples} == {
        "country_0000": "train", "field_0001": "train", "validation_0000": "val",
    }  # fmt: skip
    assert not any("Online" in str(sample.rgb) for sample in samples)


def test_vcip2020_in_the_spellings_that_are_about(tmp_path):
    folder = fakes.vcip2020(tmp_path) / "NIR_VCIP_Challenge_dataset"
    (folder / "RGB-Registered").rename(folder / "RGB-Resgistered")
    (folder / "Validation/validation_0000_rgb_reg.png").rename(folder / "Validation/validation_0000_rgb.png")
    rgb, nir = fakes.scene(5)
    fakes.save(folder / "Testing/Testing_0000_nir_reg.png", nir)
    listed = found("vcip2020", folder)
    assert by_split(listed.samples) == {"train": 2, "val": 1}
    assert listed.notes == ["the test pictures come without RGB ones, so they were passed over"]
    fakes.save(folder / "Testing/Testing_0000_rgb_reg.png", rgb)
    assert by_split(found("vcip2020", folder).samples) == {"train": 2, "val": 1, "test": 1}


def test_naip_places_go_whole_to_the_most_held_out_split_that_lists_a_year(tmp_path):
    listed = found("naip-trees", fakes.naip_trees(tmp_path))
    split = {sample.name: sample.split for sample in listed.samples}
    assert split["chico_2018_0"] == split["chico_2020_0"] == "test"
    assert split["chico_2018_1"] == split["chico_2020_1"] == "val"
    assert split["long_beach_2018_0"] == split["long_beach_2020_0"] == "train"
    assert split["long_beach_2018_2"] is None
    assert listed.notes == ["1 places stand in several lists; each went whole to the most held-out one"]
    labels = {sample.name: sample.labels for sample in listed.samples}
    assert labels["chico_2018_1"] == ()
    assert labels["chico_2020_1"][0][1].name == "chico_2020_1.csv"


def test_naip_lists_without_years_and_of_pictures_that_are_gone(tmp_path):
    folder = fakes.naip_trees(tmp_path) / "urban-tree-detection-data"
    (folder / "test.txt").write_text("long_beach2\nclaremont8\n")
    listed = found("naip-trees", folder)
    assert {s.name: s.split for s in listed.samples}["long_beach_2018_2"] == "test"
    assert listed.notes == ["1 places of the lists have no picture here (first: claremont 8)"]


def test_a_missing_partner_is_named_and_the_rest_found(tmp_path):
    fakes.ranus(tmp_path)
    (tmp_path / "RANUS_v1.0/NIR/02/0001_nir.png").unlink()
    (tmp_path / "RANUS_v1.0/RGB/03/0000_rgb.png").unlink()
    listed = found("ranus", tmp_path)
    assert len(listed.samples) == 16
    assert [reason.rsplit("/", 1)[1] for _, reason in listed.lonely] == [
        "0001_rgb.png has no NIR partner", "0000_nir.png has no RGB partner",
    ]  # fmt: skip


def test_two_files_for_one_picture_are_refused(tmp_path):
    fakes.ranus(tmp_path)
    fakes.save(tmp_path / "RANUS_v1.0/RGB/01/0000.png", fakes.scene(0)[0])
    with pytest.raises(PairError, match="stand for the same picture"):
        found("ranus", tmp_path)


@pytest.mark.parametrize("name", ["ranus", "idd-aw", "nirscene1", "vcip2020", "naip-trees"])
def test_another_layout_is_told_the_expected_one(tmp_path, name):
    fakes.pairs(tmp_path / "elsewhere")
    with pytest.raises(PairError, match="is not laid out as"):
        found(name, tmp_path)
    with pytest.raises(PairError, match="no folder"):
        found(name, tmp_path / "nowhere")


def test_folders_in_the_right_place_with_nothing_in_them(tmp_path):
    (tmp_path / "RGB").mkdir()
    (tmp_path / "NIR").mkdir()
    with pytest.raises(PairError, match="no pictures in"):
        found("ranus", tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(PairError, match=r"no pictures in .*images"):
        found("naip-trees", tmp_path)
    (tmp_path / "train/FOG").mkdir(parents=True)
    with pytest.raises(PairError, match="is not laid out as IDD-AW"):
        found("idd-aw", tmp_path)


def test_any_folder_is_split_by_its_own_folders_or_by_place(tmp_path):
    rgb, nir = fakes.scene(0)
    for name in ("oslo/1", "oslo/2", "rome/1"):
        fakes.save_bands(tmp_path / "a" / f"{name}.tif", np.dstack([rgb, nir]))
    samples = found("raster", tmp_path / "a").samples
    assert {sample.name: sample.place for sample in samples} == {"oslo/1": "oslo", "oslo/2": "oslo", "rome/1": "rome"}
    samples = found("raster", tmp_path / "a", place=r"/(\d)").samples
    assert {sample.name: sample.place for sample in samples} == {"oslo/1": "1", "oslo/2": "2", "rome/1": "1"}
    with pytest.raises(PairError, match=r"--place 'x\(y\)' finds nothing"):
        found("raster", tmp_path / "a", place="x(y)")
    with pytest.raises(PairError, match="nothing in .* tells places apart"):
        found("raster", tmp_path / "a/oslo")
    assert len(found("raster", tmp_path / "a/oslo", splits=(1.0, 0.0, 0.0)).samples) == 2


def test_halves_in_split_folders_keep_their_split(tmp_path):
    samples = found("ab", fakes.halves(tmp_path)).samples
    assert [(sample.name, sample.split) for sample in samples] == [("1", "train"), ("2", "train"), ("1", "val")]


def test_counts_other_than_published_are_noted(tmp_path):
    listed = found("vcip2020", fakes.vcip2020(tmp_path))
    assert count_notes(dataset("vcip2020"), listed) == [
        "2 pairs in train; 372 are published", "1 pairs in val; 18 are published",
    ]  # fmt: skip
    assert count_notes(dataset("ranus"), listed) == []


@pytest.mark.parametrize(
    ("name", "told", "words"),
    [
        ("idd-aw", {"seed": 1}, "--seed does not apply to this data set; what applies: none"),
        ("ranus", {"bands": "1,2,3,4"}, "--bands does not apply to this data set; what applies: --seed, --splits"),
        ("ranus", {"splits": "0,50,50"}, "expected shares of train, val and test, with train above 0"),
        ("ranus", {"splits": "80,20"}, "--splits 80,20: expected 3 numbers"),
        ("ranus", {"splits": "most,few,few"}, "--splits most,few,few: expected 3 numbers"),
        ("raster", {"bands": "1,2,3,3"}, "--bands 1,2,3,3: expected four different positions"),
        ("raster", {"bands": "0,1,2,3"}, "expected four different positions"),
        ("ab", {"left": "ir"}, "--left ir: expected rgb or nir"),
    ],
)
def test_options_that_do_not_apply_or_are_impossible(name, told, words):
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        options(**told).resolved(dataset(name).takes)


def test_options_are_filled_with_what_the_data_set_takes():
    assert options().resolved(dataset("idd-aw").takes) == Options()
    assert options(seed=3).resolved(dataset("ranus").takes) == Options(splits=(80.0, 10.0, 10.0), seed=3)
    assert options(bands="3,2,1,5").resolved(dataset("raster").takes).bands == (3, 2, 1, 5)


def test_published_counts_are_of_known_splits():
    assert {split for entry in DATASETS for split in entry.counts} <= {*SPLITS, "all"}
