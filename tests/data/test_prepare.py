"""Data sets into the project's layout: nothing lost, nothing half done, no place in two splits."""

import json
import shutil

import cv2
import numpy as np
import pytest

from pix2next.data import prepare as module
from pix2next.data.catalog import Options
from pix2next.data.layouts import Sample
from pix2next.data.pairs import find_split, load_pair
from pix2next.data.prepare import assign_splits, prepare
from pix2next.errors import ConfigError, PairError
from pix2next.images import read_bands, read_nir, read_rgb

from ..command import run
from . import fakes


def samples_of(sizes, tmp_path, split=None):
    return [
        Sample(f"{place}/{n}", place, split, tmp_path / place, None)
        for place, size in sizes.items()
        for n in range(size)
    ]


def splits_of(samples):
    return {sample.place: sample.split for sample in samples}


# The drawn split


def test_no_place_stands_in_two_splits_and_shares_are_near(tmp_path):
    samples = assign_splits(
        samples_of({f"{n:02d}": 80 for n in range(50)}, tmp_path), Options(splits=(80.0, 10.0, 10.0), seed=0)
    )
    places = {split: {s.place for s in samples if s.split == split} for split in ("train", "val", "test")}
    assert {split: len(several) for split, several in places.items()} == {"train": 40, "val": 5, "test": 5}
    assert not (places["train"] & places["val"] | places["train"] & places["test"] | places["val"] & places["test"])


def test_the_draw_depends_on_the_seed_and_on_no_order(tmp_path):
    samples = samples_of({f"{n:02d}": 1 + n % 7 for n in range(40)}, tmp_path)
    drawn = splits_of(assign_splits(samples, Options(splits=(60.0, 20.0, 20.0), seed=1)))
    assert splits_of(assign_splits(samples[::-1], Options(splits=(60.0, 20.0, 20.0), seed=1))) == drawn
    assert splits_of(assign_splits(samples, Options(splits=(60.0, 20.0, 20.0), seed=2))) != drawn


def test_every_wanted_split_gets_a_place_even_where_one_place_is_large(tmp_path):
    sizes = {"a": 1000, "b": 1, "c": 1}
    drawn = splits_of(assign_splits(samples_of(sizes, tmp_path), Options(splits=(80.0, 10.0, 10.0), seed=0)))
    assert set(drawn.values()) == {"train", "val", "test"}


def test_a_published_split_stays_and_only_the_rest_is_drawn(tmp_path):
    listed = samples_of({"listed": 5}, tmp_path, "test")
    drawn = splits_of(assign_splits([*listed, *samples_of({"free": 5}, tmp_path)], Options(seed=0)))
    assert drawn == {"listed": "test", "free": "train"}
    assert assign_splits(listed, Options()) == listed


def test_too_few_places_are_refused(tmp_path):
    with pytest.raises(PairError, match=r"2 places \(a, b\) are too few for 3 splits"):
        assign_splits(samples_of({"a": 9, "b": 9}, tmp_path), Options(splits=(80.0, 10.0, 10.0), seed=0))
    both = assign_splits(samples_of({"a": 9, "b": 9}, tmp_path), Options(splits=(80.0, 0.0, 20.0), seed=0))
    assert set(splits_of(both).values()) == {"train", "test"}


# What is written


def test_files_of_one_picture_are_copied_byte_for_byte(tmp_path):
    fakes.ranus(tmp_path / "src")
    result = prepare("ranus", tmp_path / "src", tmp_path / "dst", Options(splits=(60.0, 20.0, 20.0)))
    assert result.failed == []
    assert sum(result.counts.values()) == 18
    assert min(result.counts.values()) >= 3
    pair = find_split(tmp_path / "dst", "test")[0]
    source = tmp_path / "src/RANUS_v1.0"
    assert pair.rgb.read_bytes() == (source / "RGB" / f"{pair.name}_rgb.png").read_bytes()
    assert pair.nir.read_bytes() == (source / "NIR" / f"{pair.name}_nir.png").read_bytes()
    assert (tmp_path / "dst/test/gt" / f"{pair.name}.png").read_bytes() == (
        source / "GT" / f"{pair.name}_gt.png"
    ).read_bytes()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_nirscene1_keeps_its_depth(tmp_path, dtype):
    fakes.nirscene1(tmp_path / "src", dtype)
    prepare("nirscene1", tmp_path / "src", tmp_path / "dst", Options(splits=(50.0, 25.0, 25.0)))
    rgb, nir = load_pair(find_split(tmp_path / "dst", "train")[0])
    assert rgb.dtype == nir.dtype == dtype


def test_idd_aw_keeps_weather_sequence_and_masks(tmp_path):
    fakes.idd_aw(tmp_path / "src")
    result = prepare("idd-aw", tmp_path / "src", tmp_path / "dst")
    assert result.counts == {"train": 4, "val": 2, "test": 0}
    assert [pair.name for pair in find_split(tmp_path / "dst", "val")] == ["FOG/110/00120", "FOG/110/00480"]
    assert (tmp_path / "dst/val/gtSeg/FOG/110/00120.json").read_text() == '{"objects": []}'


def test_vcip2020(tmp_path):
    fakes.vcip2020(tmp_path / "src")
    result = prepare("vcip2020", tmp_path / "src", tmp_path / "dst")
    assert result.counts == {"train": 2, "val": 1, "test": 0}
    assert result.notes == ["2 pairs in train; 372 are published", "1 pairs in val; 18 are published"]


def test_naip_bands_become_pairs_and_trees_go_along(tmp_path):
    fakes.naip_trees(tmp_path / "src")
    result = prepare("naip-trees", tmp_path / "src", tmp_path / "dst")
    assert result.counts == {"train": 6, "val": 2, "test": 4}
    pair = find_split(tmp_path / "dst", "test")[0]
    bands = read_bands(tmp_path / "src/urban-tree-detection-data/images" / f"{pair.name}.tif")
    assert np.array_equal(read_rgb(pair.rgb), bands[..., :3])
    assert np.array_equal(read_nir(pair.nir), bands[..., 3])
    assert (tmp_path / "dst/train/trees/long_beach_2020_0.csv").read_text() == "x,y\n9,7\n"
    assert not (tmp_path / "dst/test/trees/chico_2018_0.csv").exists()


@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_rasters_of_any_bands_in_any_order(tmp_path, planes, dtype):
    rgb, nir = fakes.scene(0, 33, 21, dtype)
    fakes.save_bands(
        tmp_path / "src/a.tif", np.dstack([nir, rgb[..., 2], rgb[..., 1], nir // 2, rgb[..., 0]]), planes=planes
    )
    options = Options(splits=(1.0, 0.0, 0.0), bands=(5, 3, 2, 1))
    assert prepare("raster", tmp_path / "src", tmp_path / "dst", options).failed == []
    read = load_pair(find_split(tmp_path / "dst", "train")[0])
    assert read[0].dtype == dtype
    assert np.array_equal(read[0], rgb)
    assert np.array_equal(read[1], nir)


@pytest.mark.parametrize("left", ["rgb", "nir"])
def test_halves_in_either_order(tmp_path, left):
    fakes.halves(tmp_path / "src", left)
    prepare("ab", tmp_path / "src", tmp_path / "dst", Options(left=left))
    rgb, nir = load_pair(find_split(tmp_path / "dst", "train")[0])
    assert np.array_equal(rgb, fakes.scene(0)[0])
    assert np.array_equal(nir, fakes.scene(0)[1])


def test_real_geotiffs_lose_nothing(tmp_path, shared):
    (tmp_path / "src").mkdir()
    for path in (shared / "data/geotiff").glob("*.tif"):
        shutil.copy(path, tmp_path / "src")
    prepare("raster", tmp_path / "src", tmp_path / "dst", Options(splits=(100.0, 0.0, 0.0)))
    test = shared / "data/aerial/test"
    for name in ("bishop_2020_7", "chico_2018_19"):
        assert np.array_equal(read_rgb(tmp_path / f"dst/train/rgb/{name}.png"), read_rgb(test / f"rgb/{name}.png"))
        assert np.array_equal(read_nir(tmp_path / f"dst/train/nir/{name}.png"), read_nir(test / f"nir/{name}.png"))


def test_the_record_says_what_it_is(tmp_path):
    fakes.ranus(tmp_path / "src")
    (tmp_path / "src/RANUS_v1.0/NIR/02/0001_nir.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    result = prepare("ranus", tmp_path / "src", tmp_path / "dst", Options(seed=4))
    record = json.loads((tmp_path / "dst/dataset.json").read_text())
    assert record["complete"]
    assert (record["name"], record["counts"]) == ("ranus", result.counts)
    assert "Choe" in record["citation"]
    assert record["terms"]
    assert record["options"] == {"splits": [80.0, 10.0, 10.0], "seed": 4}
    assert record["source"]["files"] == 54
    assert sorted(place for places in record["places"].values() for place in places) == [
        f"{place:02d}" for place in range(1, 7)
    ]
    assert len(record["left_out"]) == 1
    assert set(record["versions"]) == {"pix2next", "opencv"}


# What cannot be used


def test_pictures_that_cannot_be_used_are_left_out_whole(tmp_path):
    folder = fakes.ranus(tmp_path / "src") / "RANUS_v1.0"
    (folder / "NIR/01/0000_nir.png").write_bytes((folder / "NIR/01/0000_nir.png").read_bytes()[:200])
    (folder / "RGB/01/0001_rgb.png").write_bytes(b"")
    fakes.save(folder / "NIR/02/0002_nir.png", fakes.scene(5, 20, 48)[1])
    (folder / "NIR/03/0000_nir.png").unlink()
    fakes.save(folder / "RGB/04/0000_rgb.png", cv2.merge([fakes.scene(6)[1]] * 3))
    fakes.save(folder / "NIR/04/0000_nir.png", fakes.scene(6)[0])
    result = prepare("ranus", tmp_path / "src", tmp_path / "dst")
    assert sum(result.counts.values()) == 13
    reasons = "\n".join(reason for _, reason in result.failed)
    assert len(result.failed) == 5
    for words in (
        "has no NIR partner",
        "damaged or cut short",
        "is empty",
        "differ in size: 48 x 40 and 48 x 20",
        "swapped",
    ):
        assert words in reasons
    assert (
        len(list((tmp_path / "dst").rglob("rgb/**/*.png"))) == len(list((tmp_path / "dst").rglob("nir/**/*.png"))) == 13
    )


def test_rasters_without_the_bands_are_left_out(tmp_path):
    rgb, nir = fakes.scene(0)
    fakes.save_bands(tmp_path / "src/x/good.tif", np.dstack([rgb, nir]))
    fakes.save_bands(tmp_path / "src/x/three.tif", rgb)
    fakes.save_bands(tmp_path / "src/x/one.tif", nir[:, :, None])
    (tmp_path / "src/x/short.tif").write_bytes((tmp_path / "src/x/good.tif").read_bytes()[:3000])
    fakes.save(tmp_path / "src/x/none.png", rgb).rename(tmp_path / "src/x/none.tif")
    result = prepare("raster", tmp_path / "src", tmp_path / "dst", Options(splits=(1.0, 0.0, 0.0)))
    reasons = {path.rsplit("/", 1)[1]: reason for path, reason in result.failed}
    assert result.counts["train"] == 1
    assert "three.tif has 3 bands; R, G, B and NIR were looked for at 1, 2, 3, 4 (--bands)" in reasons["three.tif"]
    assert "1 bands" in reasons["one.tif"]
    assert "is a PNG file" in reasons["none.tif"]
    assert "cut short" in reasons["short.tif"]


def test_pictures_of_another_size_than_published(tmp_path):
    fakes.naip_trees(tmp_path / "src", side=64)
    result = prepare("naip-trees", tmp_path / "src", tmp_path / "dst")
    assert sum(result.counts.values()) == 0
    assert "is 64 x 64; the pictures of naip-trees are 256 x 256" in result.failed[0][1]


def test_halves_that_are_none(tmp_path):
    fakes.halves(tmp_path / "src", "nir")
    fakes.save(tmp_path / "src/val/odd.png", fakes.scene(0, 40, 47)[0])
    fakes.save(tmp_path / "src/val/dot.png", np.zeros((1, 1, 3), np.uint8))
    result = prepare("ab", tmp_path / "src", tmp_path / "dst")
    reasons = [reason for _, reason in result.failed]
    assert sum("give --left nir" in reason for reason in reasons) == 3
    assert sum("are no two equal halves" in reason for reason in reasons) == 2
    assert not list((tmp_path / "dst").rglob("*.png"))


def test_pictures_of_one_pixel(tmp_path):
    fakes.save(tmp_path / "src/train/a.png", np.arange(6, dtype=np.uint8).reshape(1, 2, 3))
    assert prepare("ab", tmp_path / "src", tmp_path / "dst").counts["train"] == 1
    assert load_pair(find_split(tmp_path / "dst", "train")[0])[1].shape == (1, 1)


def test_grey_jpeg_halves_are_not_taken_for_coloured(tmp_path):
    fakes.halves(tmp_path / "src", suffix=".jpg")
    assert prepare("ab", tmp_path / "src", tmp_path / "dst").failed == []


def test_two_pictures_of_one_name_are_refused_before_anything_is_written(tmp_path):
    fakes.halves(tmp_path / "src")
    fakes.save(tmp_path / "src/train/1.jpg", fakes.scene(0)[0])
    with pytest.raises(PairError, match="would get one name, 1"):
        prepare("ab", tmp_path / "src", tmp_path / "dst")
    assert not (tmp_path / "dst").exists()


# Where it is written


def test_a_preparation_that_was_stopped_ends_as_one_that_was_not(tmp_path, monkeypatch):
    fakes.naip_trees(tmp_path / "src")
    prepare("naip-trees", tmp_path / "src", tmp_path / "whole")

    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("naip-trees", tmp_path / "src", tmp_path / "dst", on_progress=stop)
    assert not json.loads((tmp_path / "dst/dataset.json").read_text())["complete"]
    # What a kill in the middle of a pair, and of a file, leaves behind.
    next((tmp_path / "dst").rglob("nir/*.png")).unlink()
    half = tmp_path / "dst/train/rgb" / f".{'0' * 32}.png"
    half.parent.mkdir(parents=True, exist_ok=True)
    half.write_bytes(b"half")
    prepare("naip-trees", tmp_path / "src", tmp_path / "dst")
    assert fakes.tree(tmp_path / "dst") == fakes.tree(tmp_path / "whole")


def test_going_on_converts_only_what_is_missing(tmp_path, monkeypatch):
    fakes.halves(tmp_path / "src")
    prepare("ab", tmp_path / "src", tmp_path / "dst")
    (tmp_path / "dst/val/rgb/1.png").unlink()
    read = []
    monkeypatch.setattr(module, "read_rgb", lambda path: read.append(path) or read_rgb(path))
    prepare("ab", tmp_path / "src", tmp_path / "dst")
    assert read == [tmp_path / "src/val/1.png"]


def test_a_folder_with_something_else_is_refused(tmp_path):
    fakes.ranus(tmp_path / "src")
    (tmp_path / "dst").mkdir()
    (tmp_path / "dst/notes.txt").write_text("mine")
    with pytest.raises(PairError, match=r"is not empty and holds no dataset\.json"):
        prepare("ranus", tmp_path / "src", tmp_path / "dst")
    with pytest.raises(PairError, match="is no folder"):
        prepare("ranus", tmp_path / "src", tmp_path / "dst/notes.txt")
    assert fakes.tree(tmp_path / "dst") == {"notes.txt": b"mine"}


def test_another_preparation_is_refused(tmp_path):
    fakes.ranus(tmp_path / "src")
    prepare("ranus", tmp_path / "src", tmp_path / "dst")
    before = fakes.tree(tmp_path / "dst")
    with pytest.raises(PairError, match="holds another preparation .options"):
        prepare("ranus", tmp_path / "src", tmp_path / "dst", Options(seed=1))
    fakes.save(tmp_path / "src/RANUS_v1.0/RGB/01/0099_rgb.png", fakes.scene(1)[0])
    fakes.save(tmp_path / "src/RANUS_v1.0/NIR/01/0099_nir.png", fakes.scene(1)[1])
    with pytest.raises(PairError, match="holds another preparation .source"):
        prepare("ranus", tmp_path / "src", tmp_path / "dst")
    assert fakes.tree(tmp_path / "dst") == before


@pytest.mark.parametrize(("src", "dst"), [("a", "a"), ("a", "a/b"), ("a/b", "a")])
def test_folders_in_one_another_are_refused(tmp_path, src, dst):
    fakes.ranus(tmp_path / src)
    with pytest.raises(PairError, match="lie in one another"):
        prepare("ranus", tmp_path / src, tmp_path / dst)


def test_a_failing_disk_ends_it_and_leaves_nothing_half(tmp_path, monkeypatch):
    fakes.halves(tmp_path / "src")

    def full(path, nir):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(module, "write_nir", full)
    with pytest.raises(OSError, match="No space left"):
        prepare("ab", tmp_path / "src", tmp_path / "dst")
    monkeypatch.undo()
    assert prepare("ab", tmp_path / "src", tmp_path / "dst").counts == {"train": 2, "val": 1, "test": 0}


# The verb


@pytest.mark.parametrize("arguments", [("prepare",), ("prepare", "--list"), ("prepare", "ranus", "--list")])
def test_the_catalog_is_listed(arguments):
    shown = run(*arguments)
    assert shown.exit_code == 0
    assert all(
        name in shown.stdout for name in ("ranus", "idd-aw", "nirscene1", "vcip2020", "naip-trees", "raster", "ab")
    )


def test_about_says_how_to_obtain_it():
    shown = run("prepare", "idd-aw", "--about")
    assert shown.exit_code == 0
    assert "idd.insaan.iiit.ac.in" in shown.stdout


def test_the_verb_converts_and_says_what_came_of_it(tmp_path):
    fakes.ranus(tmp_path / "src")
    shown = run("prepare", "ranus", tmp_path / "src", tmp_path / "dst", "--splits", "60,20,20", "--seed", "1")
    assert shown.exit_code == 0
    assert "0 left out" in shown.stderr
    (tmp_path / "src/RANUS_v1.0/NIR/02/0001_nir.png").unlink()
    shown = run("prepare", "ranus", tmp_path / "src", tmp_path / "other")
    assert shown.exit_code == 1
    assert "0001_rgb.png has no NIR partner" in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ranus",), "takes the folder it lies in and a new folder"),
        (("elsewhere", "a", "b"), "no data set 'elsewhere'"),
        (("ranus", "nowhere", "b"), "no folder nowhere"),
        (("raster", "a", "b", "--bands", "1,2"), "expected 4 numbers"),
    ],
)
def test_bad_input_gets_one_sentence(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = run("prepare", *arguments)
    assert shown.exit_code == 2
    assert words in shown.stderr
    assert "\n" not in shown.stderr.strip()


def test_the_library_refuses_what_the_verb_refuses(tmp_path):
    with pytest.raises(ConfigError, match="does not apply"):
        prepare("idd-aw", tmp_path, tmp_path / "dst", Options(left="nir"))
