"""Pairs: matched by name, expression or list; every mismatch named before anything else happens."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

from pix2next.config import DataConfig
from pix2next.data.pairs import (
    check_sizes,
    configured_pairs,
    find_pairs,
    find_split,
    load_pair,
    overlap,
    read_pair_list,
    readable,
)
from pix2next.errors import ImageError, PairError


def put(folder: Path, names: Iterable[str], size: tuple[int, int] = (6, 8)) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((*size, 3), 90, np.uint8))
    return folder


def test_folders_pair_by_path_without_suffix(tmp_path: Path) -> None:
    rgb = put(tmp_path / "rgb", ["b.png", "a.jpg", "street/a.png"])
    nir = put(tmp_path / "nir", ["a.png", "b.tif", "street/a.png"])
    pairs = find_pairs(rgb, nir)
    assert [pair.name for pair in pairs] == ["a", "b", "street/a"]
    assert pairs[1] == ("b", rgb / "b.png", nir / "b.tif")


def test_every_mismatch_is_counted_and_named(tmp_path: Path) -> None:
    rgb = put(tmp_path / "rgb", ["a.png", "b.png", "c.png"])
    nir = put(tmp_path / "nir", ["a.png", "d.png"])
    with pytest.raises(PairError, match=r"for 2 of 3 RGB .*\(b\.png, c\.png\); no RGB .* 1 of 2 .*\(d\.png\)"):
        find_pairs(rgb, nir)


def test_an_expression_finds_what_names_share(tmp_path: Path) -> None:
    rgb = put(tmp_path / "rgb", ["s1_0017_rgb.png", "s2_0017_rgb.png"])
    nir = put(tmp_path / "nir", ["s1-0017-nir.png", "s2-0017-nir.png"])
    assert [pair.name for pair in find_pairs(rgb, nir, r"(s\d).(\d+)")] == ["s1/0017", "s2/0017"]
    with pytest.raises(PairError, match="1 names stand for several"):
        find_pairs(rgb, nir, r"_?-?(0017)")
    with pytest.raises(PairError, match="no group"):
        find_pairs(rgb, nir, r"s\d")
    with pytest.raises(PairError, match="no regular expression"):
        find_pairs(rgb, nir, r"(s\d")
    with pytest.raises(PairError, match="finds nothing in the names of 2 of 2"):
        find_pairs(rgb, nir, r"(x\d)")


def test_one_name_in_two_formats_is_refused(tmp_path: Path) -> None:
    rgb = put(tmp_path / "rgb", ["a.png", "a.jpg"])
    with pytest.raises(PairError, match=r"several files .*a\.jpg, .*a\.png"):
        find_pairs(rgb, put(tmp_path / "nir", ["a.png"]))


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    rgb = put(tmp_path / "rgb", ["a.png"])
    with pytest.raises(PairError, match="no folder .*absent"):
        find_pairs(rgb, tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PairError, match="no pictures in .*empty"):
        find_pairs(rgb, tmp_path / "empty")
    with pytest.raises(PairError, match=r"no val pairs .* expected .*rgb and .*nir"):
        find_split(tmp_path, "val")


def test_a_list_names_pairs_by_split(tmp_path: Path) -> None:
    put(tmp_path, ["x/1.png", "y/one.png", "x/2.png", "y/two.png"])
    listed = tmp_path / "pairs.csv"
    listed.write_text("split,rgb,nir\ntrain,x/1.png,y/one.png\nval,x/2.png,y/two.png\n")
    assert read_pair_list(listed, "val")[0].nir == tmp_path / "y/two.png"
    with pytest.raises(PairError, match=r"no pair of split 'test' \(it has train, val\)"):
        read_pair_list(listed, "test")
    listed.write_text(listed.read_text(), encoding="utf-8-sig")
    assert read_pair_list(listed, "val")[0].nir == tmp_path / "y/two.png"
    listed.write_text("split,rgb,nir\ntrain,x/1.png,y/none.png\n")
    with pytest.raises(PairError, match=r"1 files that are not there \(first: .*none\.png"):
        read_pair_list(listed, "train")
    listed.write_text("rgb,nir\nx/1.png,y/one.png\n")
    with pytest.raises(PairError, match="no column 'split'"):
        read_pair_list(listed, "train")
    with pytest.raises(PairError, match="cannot read the list"):
        read_pair_list(tmp_path / "absent.csv", "train")


def test_settings_name_data_in_three_ways(tmp_path: Path) -> None:
    rgb, nir = put(tmp_path / "train" / "rgb", ["a.png"]), put(tmp_path / "train" / "nir", ["a.png"])
    listed = tmp_path / "pairs.csv"
    listed.write_text("split,rgb,nir\ntrain,train/rgb/a.png,train/nir/a.png\n")
    for config in (DataConfig(root=tmp_path), DataConfig(train_rgb=rgb, train_nir=nir), DataConfig(pairs=listed)):
        assert [pair.rgb for pair in configured_pairs(config, "train")] == [rgb / "a.png"]
    with pytest.raises(PairError, match=r"no val data: set data\.root, data\.pairs, or data\.val_rgb"):
        configured_pairs(DataConfig(train_rgb=rgb, train_nir=nir), "val")


def test_pairs_of_different_sizes_are_named(tmp_path: Path) -> None:
    rgb, nir = put(tmp_path / "rgb", ["a.png", "b.png"]), put(tmp_path / "nir", ["a.png", "b.png"])
    put(nir, ["b.png"], size=(6, 9))
    pairs = find_pairs(rgb, nir)
    assert [picture.shape for picture in load_pair(pairs[0])] == [(6, 8, 3), (6, 8)]
    with pytest.raises(PairError, match=r"b\.png differ in size: 8 x 6 and 9 x 6"):
        load_pair(pairs[1])
    with pytest.raises(PairError, match="1 of 2 pairs differ in size"):
        check_sizes(pairs)


def test_a_file_that_is_no_picture_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rgb, nir = put(tmp_path / "rgb", ["a.png", "b.png"]), put(tmp_path / "nir", ["a.png", "b.png"])
    (nir / "a.png").write_text("not a picture")
    pairs = find_pairs(rgb, nir)
    with pytest.raises(ImageError, match=r"nir/a\.png"):
        check_sizes(pairs)
    assert readable(pairs) == pairs[1:]
    assert ["nir/a.png" in record.getMessage() for record in caplog.records] == [True]
    with pytest.raises(PairError, match="none of the 1 pairs can be read"):
        readable(pairs[:1])


def test_pictures_in_both_splits_are_found(tmp_path: Path) -> None:
    pairs = find_pairs(put(tmp_path / "rgb", ["a.png", "b.png"]), put(tmp_path / "nir", ["a.png", "b.png"]))
    assert overlap(pairs, pairs[1:]) == [str(pairs[1].rgb)]
    assert overlap(pairs[:1], pairs[1:]) == []
