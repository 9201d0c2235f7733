"""A Hugging Face data set with a column of pictures: the column is replaced, everything else is kept."""

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pix2next.apps import hub_datasets
from pix2next.apps.datasets import translate_dataset
from pix2next.apps.hub_datasets import HubSink, HubSource
from pix2next.apps.local_engine import Settings
from pix2next.apps.stores import Sink, Source, open_sink, open_source
from pix2next.errors import ConfigError, ImageError

from . import label_sets

datasets = pytest.importorskip("datasets", reason="needs the extra `datasets`")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """What is loaded is not kept in the user's cache."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def encoded(value, kind="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (value, 0, 0)).save(file, kind)
    return file.getvalue()


FEATURES = {
    "id": datasets.Value("int64"),
    "image": datasets.Image(),
    "mask": datasets.Image(),
    "label": datasets.ClassLabel(names=["cat", "dog"]),
    "objects": [{"bbox": [datasets.Value("float32")], "name": datasets.Value("string")}],
}


def rows(count, start=0):
    numbers = range(start, start + count)
    pictures = [{"bytes": encoded(number, "PNG" if number % 2 else "JPEG"), "path": None} for number in numbers]
    if count > 2:
        pictures[1]["path"], pictures[2] = "deep/photo.PNG", None
    content = {
        "id": list(numbers),
        "image": pictures,
        "mask": [{"bytes": b"not even a picture", "path": "m.png"}] * count,
        "label": [number % 2 for number in numbers],
        "objects": [[{"bbox": [0.1, 2, 3, number], "name": "é"}] * (number % 3) for number in numbers],
    }
    return datasets.Dataset.from_dict(content, features=datasets.Features(FEATURES))


@pytest.fixture
def saved(tmp_path):
    datasets.DatasetDict(train=rows(5), test=rows(2, 5)).save_to_disk(tmp_path / "src")
    return tmp_path / "src"


def translate(source, sink, skip=(), stop_after=None, make=b"nir of ", suffix=None):
    """What a run does, with pictures made of their keys; how many were done."""
    done = 0
    for key in source.pictures():
        target = key if suffix is None else key.rpartition(".")[0] + suffix
        if sink.has(target) or key in skip:
            continue
        if done == stop_after:
            return done
        sink.write(target, make + key.encode())
        done += 1
    sink.close()
    return done


def stored(split, columns=("image", "mask")):
    """Rows with their pictures as they are stored."""
    for column in columns:
        split = split.cast_column(column, datasets.Image(decode=False))
    return split.to_list()


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


KEYS = ["test/00000000.png", "test/00000001.jpg", "train/00000000.jpg", "train/00000001.PNG", "train/00000003.png",
        "train/00000004.jpg"]  # fmt: skip


def test_keys_and_what_they_hold(saved):
    source = open_source(f"{saved}#image")
    assert isinstance(source, HubSource) and isinstance(source, Source)
    assert source.pictures() == KEYS
    assert source.others() == []
    assert source.read("train/00000003.png") == encoded(3)
    assert source.read("test/00000001.jpg") == encoded(6, "JPEG")
    assert len({source.stamp(key) for key in KEYS}) == len(KEYS)
    again = pickle.loads(pickle.dumps(source))
    assert again.pictures() == KEYS and again.stamp(KEYS[0]) == source.stamp(KEYS[0])


def test_only_the_pictures_are_replaced(saved, tmp_path):
    source = open_source(f"{saved}#image")
    sink = open_sink(str(tmp_path / "dst"), source)
    assert isinstance(sink, HubSink) and isinstance(sink, Sink)
    translate(source, sink)
    before, after = datasets.load_from_disk(saved), datasets.load_from_disk(tmp_path / "dst")
    assert list(after) == ["train", "test"]
    for split in before:
        assert after[split].features == before[split].features
        for row, (old, new) in enumerate(zip(stored(before[split]), stored(after[split]), strict=True)):
            ending = next((key[key.index(".") :] for key in KEYS if key.startswith(f"{split}/{row:08d}")), "")
            picture = new.pop("image")
            assert (old.pop("image") is None) == (picture is None) == (ending == "")
            assert old == new
            assert picture is None or picture["bytes"] == f"nir of {split}/{row:08d}{ending}".encode()
    assert stored(after["train"])[1]["image"]["path"] == "photo.PNG"
    assert sorted(path.name for path in (tmp_path / "dst").iterdir()) == ["dataset_dict.json", "test", "train"]


def test_paths_get_the_new_suffix(saved, tmp_path):
    source = HubSource(str(saved), "image")
    translate(source, HubSink(tmp_path / "dst", source), suffix=".webp")
    train = stored(datasets.load_from_disk(tmp_path / "dst")["train"])
    names = ["00000000.webp", "photo.webp", None, "00000003.webp", "00000004.webp"]
    assert [row["image"] and row["image"]["path"] for row in train] == names
    assert HubSink(tmp_path / "dst", source).has("train/00000001.webp")


@pytest.mark.parametrize("stop_after", [0, 1, 5, 6])
def test_a_run_that_was_killed_loses_nothing_and_ends_the_same(saved, tmp_path, stop_after):
    source = HubSource(str(saved), "image")
    translate(source, HubSink(tmp_path / "clean", source))
    sink = HubSink(tmp_path / "dst", source)
    if stop_after < 6:
        assert translate(source, sink, stop_after=stop_after) == stop_after
    else:
        for key in KEYS:
            sink.write(key, b"nir of " + key.encode())
    assert translate(source, HubSink(tmp_path / "dst", source)) == 6 - stop_after
    assert tree(tmp_path / "dst") == tree(tmp_path / "clean")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "dst").rglob("*.arrow")}
    assert translate(source, HubSink(tmp_path / "dst", source)) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "dst").rglob("*.arrow")} == before


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("step", range(6))
def test_a_kill_while_the_data_set_takes_its_place(saved, tmp_path, monkeypatch, step, single):
    if single:
        rows(5).save_to_disk(tmp_path / "one")
    source = HubSource(str(tmp_path / "one" if single else saved), "image")
    translate(source, HubSink(tmp_path / "dst", source), make=b"old ")
    steps = iter(range(100))

    rename = Path.rename

    def fail_at(path, target):
        if next(steps) == step:
            raise KeyboardInterrupt
        return rename(path, target)

    sink = HubSink(tmp_path / "dst", source)
    for key in source.pictures():
        sink.write(key, b"nir of " + key.encode())
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail_at)
        if step < 4:
            with pytest.raises(KeyboardInterrupt):
                sink.close()
    sink = HubSink(tmp_path / "dst", source)
    assert translate(source, sink) == 0
    translate(source, HubSink(tmp_path / "clean", source))
    assert tree(tmp_path / "dst") == tree(tmp_path / "clean")


def test_fingerprints_follow_from_the_pictures(saved, tmp_path):
    source = HubSource(str(saved), "image")
    for name, make in (("a", b"one"), ("b", b"other")):
        translate(source, HubSink(tmp_path / name, source), make=make)
    one, other = (datasets.load_from_disk(tmp_path / name)["train"]._fingerprint for name in "ab")
    assert one != other and source.splits["train"]._fingerprint not in (one, other)


def test_a_picture_that_failed_is_null_until_it_is_there(saved, tmp_path):
    source = HubSource(str(saved), "image")
    translate(source, HubSink(tmp_path / "dst", source), skip=[KEYS[0]])
    assert stored(datasets.load_from_disk(tmp_path / "dst")["test"])[0]["image"] is None
    sink = HubSink(tmp_path / "dst", source)
    assert not sink.has(KEYS[0])
    assert translate(source, sink) == 1
    translate(source, HubSink(tmp_path / "clean", source))
    assert tree(tmp_path / "dst") == tree(tmp_path / "clean")
    sink = HubSink(tmp_path / "dst", source)
    sink.remove(KEYS[1])
    assert not sink.has(KEYS[1])
    sink.close()
    assert [row["image"] is None for row in stored(datasets.load_from_disk(tmp_path / "dst")["test"])] == [False, True]


def test_a_single_split_stays_one(tmp_path):
    rows(3).save_to_disk(tmp_path / "src", num_shards=3)
    source = open_source(f"{tmp_path / 'src'}#image")
    assert source.pictures() == ["data/00000000.jpg", "data/00000001.PNG"]
    translate(source, HubSink(tmp_path / "dst", source))
    assert isinstance(datasets.load_from_disk(tmp_path / "dst"), datasets.Dataset)


def test_rows_that_were_shuffled(saved, tmp_path):
    picked = datasets.load_from_disk(saved)["train"].select([4, 0])
    picked.save_to_disk(tmp_path / "picked")
    source = HubSource(str(tmp_path / "picked"), "image")
    assert source.read("data/00000000.jpg") == encoded(4, "JPEG")
    translate(source, HubSink(tmp_path / "dst", source))
    assert [row["id"] for row in stored(datasets.load_from_disk(tmp_path / "dst"))] == [4, 0]


def test_files_that_load_dataset_takes(tmp_path):
    folder = tmp_path / "pictures"
    for split in ("train", "test"):
        (folder / split / "cat").mkdir(parents=True)
        (folder / split / "cat/1.png").write_bytes(encoded(50))
    source = open_source(f"hf:{folder}")
    assert source.pictures() == ["test/00000000.png", "train/00000000.png"]
    assert source.read("test/00000000.png") == encoded(50)
    translate(source, open_sink(str(tmp_path / "dst"), source))
    [row] = stored(datasets.load_from_disk(tmp_path / "dst")["train"], ["image"])
    assert row["image"] == {"bytes": b"nir of train/00000000.png", "path": "1.png"}
    shutil.rmtree(folder / "test")
    with pytest.raises(ImageError, match=r"^cannot read .*1.png of test/00000000.png: No such file"):
        source.read("test/00000000.png")


def test_a_picture_that_is_none_has_a_key(tmp_path):
    content = {"image": [{"bytes": b"GIF89a", "path": None}]}
    datasets.Dataset.from_dict(content, features=datasets.Features(image=datasets.Image())).save_to_disk(tmp_path / "x")
    assert open_source(str(tmp_path / "x")).pictures() == ["data/00000000.png"]


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("{}", r"one column of pictures is translated, and its columns of pictures are image, mask; .* as .*#image$"),
        ("{}#label", r"no column of pictures named label; its columns of pictures are image, mask$"),
        ("hf:{}/nowhere", "^hf:.*nowhere cannot be loaded as a Hugging Face data set: "),
        ("hf:someone/never-there", "cannot be loaded as a Hugging Face data set: "),
    ],
)
def test_what_is_refused(saved, path, sentence):
    with pytest.raises(ConfigError, match=sentence) as error:
        open_source(path.format(saved))
    assert "\n" not in str(error.value)


def test_a_data_set_without_pictures(tmp_path):
    datasets.Dataset.from_dict({"a": [1]}).save_to_disk(tmp_path / "x")
    with pytest.raises(ConfigError, match="it has no column of pictures$"):
        open_source(str(tmp_path / "x"))


def test_a_missing_extra_is_one_sentence(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"needs pip install 'pix2next\[datasets\]'$"):
        open_source(str(saved))


def test_progress_bars_are_as_before(saved):
    assert datasets.are_progress_bars_disabled() is False
    HubSource(str(saved), "image")
    assert datasets.are_progress_bars_disabled() is False


def test_pieces_are_written_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(hub_datasets, "_ROWS", 2)
    content = {"image": [{"bytes": encoded(number), "path": None} for number in range(7)], "id": list(range(7))}
    features = datasets.Features(image=datasets.Image(), id=datasets.Value("int64"))
    datasets.Dataset.from_dict(content, features=features).save_to_disk(tmp_path / "src")
    source = HubSource(str(tmp_path / "src"))
    sink = HubSink(tmp_path / "dst", source)
    for number, key in enumerate(source.pictures()):
        sink.write(key, encoded(100 + number))
    sink.close()
    after = datasets.load_from_disk(tmp_path / "dst")
    assert [int(np.array(row["image"])[0, 0, 0]) for row in after] == [100 + row["id"] for row in after]


# Whole runs


@pytest.fixture
def scenes(tmp_path):
    """Twelve scenes with their boxes, in two splits; a third of them without a file's name."""
    splits = {}
    for number, scene in enumerate(label_sets.write_scenes(tmp_path / "loose", 12)):
        picture = {"bytes": (tmp_path / "loose" / scene.key).read_bytes(), "path": scene.key if number % 3 else None}
        boxes = [list(thing) for thing in scene.things]
        splits.setdefault(scene.key.split("/")[1], []).append({"picture": picture, "boxes": boxes})
    numbers = [[datasets.Value("int64")]]
    features = datasets.Features(picture=datasets.Image(), boxes=numbers)
    made = {name: datasets.Dataset.from_list(rows, features=features) for name, rows in splits.items()}
    datasets.DatasetDict(made).save_to_disk(tmp_path / "src")
    return tmp_path / "src"


def without_times(folder):
    files = tree(folder)
    lines = map(json.loads, files["manifest.jsonl"].decode().splitlines())
    return {**files, "manifest.jsonl": [line | {"seconds": None} for line in lines]}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_and_resumed_it_ends_as_one_clean_run(scenes, tmp_path, network):
    script = Path(__file__).with_name("killed_runs.py")
    arguments = [scenes, tmp_path / "dst", network, "note:3", "rename:5"]
    killed = subprocess.run([sys.executable, script, *map(str, arguments)], capture_output=True, text=True)
    assert killed.returncode == 0, killed.stderr
    settings = Settings(str(network), device="cpu")
    result = translate_dataset(str(scenes), str(tmp_path / "dst"), "folder", settings)
    assert result.existing >= 4 and result.done + result.existing == 12
    translate_dataset(str(scenes), str(tmp_path / "clean"), "folder", settings)
    assert without_times(tmp_path / "dst") == without_times(tmp_path / "clean")
    before, after = datasets.load_from_disk(scenes), datasets.load_from_disk(tmp_path / "dst")
    for split in ("train", "val"):
        assert [row["boxes"] for row in before[split]] == [row["boxes"] for row in after[split]]
        assert [row["picture"].size for row in before[split]] == [row["picture"].size for row in after[split]]
        assert {row["picture"].mode for row in after[split]} == {"L"}


def test_a_corrupt_picture_becomes_null(scenes, tmp_path, network):
    train = datasets.load_from_disk(scenes)["train"].cast_column("picture", datasets.Image(decode=False)).to_list()
    train[1]["picture"] = {"bytes": b"broken", "path": "x.jpg"}
    features = datasets.load_from_disk(scenes)["train"].features
    datasets.Dataset.from_list(train, features=features).save_to_disk(tmp_path / "one")
    result = translate_dataset(str(tmp_path / "one"), str(tmp_path / "dst"), "folder", Settings(str(network), "cpu"))
    assert [key for key, _ in result.failed] == ["data/00000001.jpg"]
    after = datasets.load_from_disk(tmp_path / "dst")
    assert [row["picture"] is None for row in after] == [row == 1 for row in range(len(after))]


def test_labels_in_files_are_not_looked_for_in_columns(scenes, tmp_path, network):
    with pytest.raises(ConfigError, match="these are no COCO labels"):
        translate_dataset(str(scenes), str(tmp_path / "dst"), "coco", Settings(str(network), "cpu"))
