"""Whole data sets: what a run writes, what the next one does again, and what is left after a kill."""

import errno
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pix2next.apps import events
from pix2next.apps.datasets import translate_dataset
from pix2next.apps.jobs import Output
from pix2next.apps.local_engine import Settings
from pix2next.apps.stores import FolderSink, FolderSource
from pix2next.errors import ConfigError, WeightsError
from pix2next.images import read_nir
from pix2next.model.pix2next import Pix2Next
from pix2next.translate import Translator

from ..command import run
from . import label_sets

MANIFEST = "manifest.jsonl"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def settings(network):
    return Settings(str(network), device="cpu")


def translate(settings, src="src", dst="dst", labels="folder", **options):
    return translate_dataset(str(src), str(dst), labels, settings, **options)


def picture(path, value=77, size=(9, 14)):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(value).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), noise)


def tree(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}


def without_times(files):
    """The files of a tree, the manifest as its records without the seconds."""
    lines = files[MANIFEST].decode().splitlines()
    return {**files, MANIFEST: [{**json.loads(line), "seconds": None} for line in lines]}


def records(root="dst"):
    return {record["key"]: record for record in map(json.loads, Path(root, MANIFEST).read_text("utf-8").splitlines())}


def few(count=4):
    for number in range(count):
        picture(f"src/{number}.png", number)


def redone(settings, **options):
    """The keys that a run translates."""
    told = []
    translate(settings, on_event=told.append, **options)
    return {event.path for event in told if isinstance(event, events.Done)}


# --- what is written ---------------------------------------------------------------------------------------------


def test_the_tree_its_names_and_all_other_files_are_kept(here, settings):
    picture("src/train/a b.png")
    picture("src/train/deep/ä.jpg", size=(20, 8))
    deep = np.random.default_rng(0).integers(0, 2**16, (6, 5, 3), dtype=np.uint16)
    Path("src/val").mkdir()
    assert cv2.imwrite("src/val/c.tif", deep)
    for name in ("splits/train.txt", "LICENSE", "train/deep/empty", ".cache/x", ".hidden.png", "val/.hidden.txt"):
        Path("src", name).parent.mkdir(parents=True, exist_ok=True)
        Path("src", name).write_text(f"{name}\r\n")
    result = translate(settings)
    assert (result.done, result.failed, result.existing) == (3, [], 0)
    pictures = {"train/a b.png", "train/deep/ä.jpg", "val/c.tif"}
    assert set(tree("dst")) == pictures | {MANIFEST, "splits/train.txt", "LICENSE", "train/deep/empty"}
    assert Path("dst/splits/train.txt").read_bytes() == b"splits/train.txt\r\n"
    translator = settings.translator()
    for name in ("train/a b.png", "val/c.tif"):
        assert np.array_equal(read_nir(f"dst/{name}"), translator(f"src/{name}"))
    assert read_nir("dst/val/c.tif").dtype == np.uint16


def test_the_manifest_says_what_was_made_of_what(here, settings):
    picture("src/b.png", size=(20, 30))
    picture("src/a.jpg")
    translate(settings)
    assert list(records()) == ["a.jpg", "b.png"]
    told = records()["b.png"]
    source = Path("src/b.png")
    expected = {
        "key": "b.png", "target": "b.png", "status": "done", "reason": None, "width": 30, "height": 20,
        "dtype": "uint8", "bytes": source.stat().st_size, "model": settings.model,
        "settings": {"tile": 640, "value_range": None, "quality": None, "views": None, "labelled_size": None},
    }  # fmt: skip
    assert {name: told[name] for name in expected} == expected
    assert told["seconds"] > 0
    assert len(told["sha256"]) == len(told["model_sha256"]) == 64


@pytest.mark.parametrize("labels", ["coco", "yolo", "bdd100k"])
def test_labels_are_equal_and_name_the_new_files(here, settings, labels):
    scenes = label_sets.write_scenes(here / "src", 12)
    getattr(label_sets, f"add_{labels}")(here / "src", scenes)
    result = translate(settings, labels=labels, output=Output(out_format="png"))
    assert (result.done, result.failed) == (12, [])
    said = getattr(label_sets, f"{labels}_labels")
    assert sum(said(here / "src").values()) > 0
    assert said(here / "dst") == said(here / "src")
    assert {key for key in tree("dst") if key.endswith(".png")} == {
        f"{scene.key.removesuffix('.jpg')}.png" for scene in scenes
    }


def test_aerial_chips_with_their_trees(here, settings, shared):
    trees = label_sets.write_aerial(here / "src", shared, 4)
    assert translate(settings, labels="coco").done == 4
    assert sum(label_sets.coco_labels(here / "dst").values()) == trees > 0
    assert label_sets.coco_labels(here / "dst") == label_sets.coco_labels(here / "src")


def test_masks_are_carried_over_untouched(here, settings):
    scenes = label_sets.write_scenes(here / "src", 2)
    label_sets.add_bdd100k(here / "src", scenes)
    picture("src/labels/sem_seg/masks/train/000000.png")
    assert translate(settings, labels="bdd100k").done == 2
    assert tree("dst")["labels/sem_seg/masks/train/000000.png"] == tree("src")["labels/sem_seg/masks/train/000000.png"]


@pytest.mark.parametrize("labelled", [(14, 9), (9, 14)])
def test_a_picture_stands_as_its_labels_were_made(here, settings, labelled):
    """Stored 14 wide and 9 high, with a tag that it stands on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8))
    Path("src").mkdir()
    stored.save("src/a.png", exif=exif)
    width, height = labelled
    label_sets.write_coco(
        here / "src/labels.json", [{"id": 1, "file_name": "a.png", "width": width, "height": height}], []
    )
    translate(settings, labels="coco")
    assert read_nir("dst/a.png").shape == (height, width)
    assert (records()["a.png"]["width"], records()["a.png"]["height"]) == labelled


# --- what the next run does --------------------------------------------------------------------------------------


def test_a_second_run_does_nothing(here, settings, monkeypatch):
    scenes = label_sets.write_scenes(here / "src", 4)
    label_sets.add_coco(here / "src", scenes)
    translate(settings, labels="coco")
    before = {key: (data, Path("dst", key).stat().st_mtime_ns) for key, data in tree("dst").items() if key != MANIFEST}
    monkeypatch.setattr(Translator, "many", None)
    monkeypatch.setattr(Translator, "__call__", None)
    result = translate(settings, labels="coco")
    assert (result.done, result.failed, result.existing) == (0, [], 4)
    assert before == {
        key: (data, Path("dst", key).stat().st_mtime_ns) for key, data in tree("dst").items() if key != MANIFEST
    }


def test_only_what_is_missing_or_changed_is_done(here, settings):
    few(5)
    translate(settings)
    picture("src/0.png", 99)  # Changed.
    Path("dst/1.png").unlink()  # Missing.
    os.utime("src/2.png", ns=(1, 1))  # Another time, the same bytes.
    picture("src/new.png", 5)
    assert redone(settings) == {"0.png", "1.png", "new.png"}
    assert redone(settings) == set()
    translate(settings, dst="clean")
    assert without_times(tree("dst")) == without_times(tree("clean"))


@pytest.mark.parametrize(
    "change",
    [{"value_range": (10.0, 200.0)}, {"tile": 64}, {"quality": 50}, {"views": 2}],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_do_all_again(here, settings, change):
    few(2)
    translate(settings)
    other = Settings(settings.model, "cpu", **change)
    assert redone(other) == {"0.png", "1.png"}
    assert redone(other) == set()


@pytest.mark.parametrize("change", [{"batch_size": 3}, {"threads": 1}], ids=lambda change: next(iter(change)))
def test_what_results_do_not_depend_on_does_nothing_again(here, settings, change):
    few(2)
    translate(settings)
    assert redone(Settings(settings.model, "cpu", **change)) == set()


def test_another_model_does_all_again_and_a_copy_of_it_does_not(here, settings, network):
    few(2)
    translate(settings)
    Path("copy.safetensors").write_bytes(Path(network).read_bytes())
    assert redone(Settings("copy.safetensors", "cpu")) == set()
    model = Pix2Next.load(Path(network))
    next(model.parameters()).data.add_(0.1)
    model.save(Path("other.safetensors"))
    assert redone(Settings("other.safetensors", "cpu")) == {"0.png", "1.png"}


def test_another_format_takes_the_place_of_the_first(here, settings):
    few(2)
    translate(settings)
    assert redone(settings, output=Output(out_format="tif")) == {"0.png", "1.png"}
    assert set(tree("dst")) == {"0.tif", "1.tif", MANIFEST}


def test_force_does_all_again(here, settings):
    few(2)
    translate(settings)
    before = tree("dst")
    assert redone(settings, force=True) == {"0.png", "1.png"}
    assert without_times(tree("dst")) == without_times(before)


def test_what_has_no_source_any_more_is_told_and_left(here, settings, caplog):
    few(2)
    translate(settings)
    Path("src/1.png").unlink()
    with caplog.at_level(logging.WARNING, "pix2next"):
        assert redone(settings) == set()
    assert "1 translations (first: 1.png)" in caplog.text
    assert Path("dst/1.png").is_file()
    assert list(records()) == ["0.png"]


def test_batches_give_what_single_pictures_give_here(here, settings):
    few(7)
    translate(settings)
    translate(Settings(settings.model, "cpu", batch_size=4), dst="batched")
    for number in range(7):
        one, other = (read_nir(f"{folder}/{number}.png").astype(int) for folder in ("dst", "batched"))
        assert abs(one - other).max() <= 1


# --- what goes wrong ---------------------------------------------------------------------------------------------


def test_a_corrupt_picture_costs_itself_and_is_told(here, settings):
    few(4)
    whole = Path("src/2.png").read_bytes()
    Path("src/2.png").write_bytes(whole[:100])
    Path("src/3.png").write_text("no picture")
    result = translate(settings)
    assert result.done == 2
    assert [path for path, _ in result.failed] == ["2.png", "3.png"]
    assert all(path in reason for path, reason in result.failed)
    assert set(tree("dst")) == {"0.png", "1.png", MANIFEST}
    assert {key: record["status"] for key, record in records().items()} == {
        "0.png": "done", "1.png": "done", "2.png": "failed", "3.png": "failed",
    }  # fmt: skip
    assert records()["3.png"]["reason"] == result.failed[1][1]
    Path("src/2.png").write_bytes(whole)
    again = translate(settings)
    assert (again.done, again.existing, [path for path, _ in again.failed]) == (1, 2, ["3.png"])


def test_a_picture_that_became_corrupt_loses_its_old_translation(here, settings):
    few(2)
    translate(settings)
    Path("src/1.png").write_text("no picture any more")
    assert len(translate(settings).failed) == 1
    assert set(tree("dst")) == {"0.png", MANIFEST}


def test_a_depth_that_the_format_does_not_hold_costs_that_picture(here, settings):
    few(1)
    assert cv2.imwrite("src/deep.png", np.zeros((4, 5, 3), np.uint16))
    ((path, reason),) = translate(settings, output=Output(out_format="jpg")).failed
    assert path == "deep.png"
    assert ".jpg does not hold 16 bits; use .png or .tif" in reason


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_ends_the_run_and_what_was_written_counts(here, settings, monkeypatch, code):
    few(4)
    write = FolderSink.write

    def full(self, key, data):
        if key == "2.png":
            raise OSError(code, os.strerror(code), key)
        write(self, key, data)

    monkeypatch.setattr(FolderSink, "write", full)
    with pytest.raises(OSError, match=r"2\.png"):
        translate(settings)
    monkeypatch.setattr(FolderSink, "write", write)
    assert redone(settings) == {"2.png", "3.png"}


def test_a_file_that_cannot_be_written_costs_itself(here, settings):
    few(2)
    Path("dst/0.png").mkdir(parents=True)
    ((path, reason),) = translate(settings, force=True).failed
    assert path == "0.png"
    assert reason == "cannot write 0.png: Is a directory"


def test_a_label_that_cannot_be_read_is_told(here, settings):
    few(1)
    os.symlink("nowhere", "src/labels.txt")
    ((path, reason),) = translate(settings).failed
    assert path == "labels.txt"
    assert "No such file" in reason


def test_a_network_that_gives_nan_ends_the_run(here, settings, monkeypatch):
    few(2)
    model = Pix2Next.load(Path(settings.model))
    next(model.parameters()).data.fill_(float("nan"))
    model.save(Path("nan.safetensors"))
    with pytest.raises(WeightsError, match="NaN"):
        translate(Settings("nan.safetensors", "cpu"))


def refused(settings, words, **options):
    before = tree(".")
    with pytest.raises(ConfigError, match=words):
        translate(settings, **options)
    assert tree(".") == before


def test_refused_before_anything_is_written(here, settings):
    few(1)
    picture("src/0.jpg")
    Path("file").write_text("no folder")
    Path("empty").mkdir()
    refused(settings, "both be written to 0.tif", output=Output(out_format="tif"))
    refused(settings, "absent is no data set", src="absent")
    refused(settings, "holds no pictures", src="empty")
    refused(settings, "no labels are known as voc; known are coco, yolo, bdd100k, folder", labels="voc")
    refused(settings, "file exists and is no folder", dst="file")
    for dst in ("src", "src/nir", "."):
        refused(settings, "lie in one another", dst=dst)
    picture("mine/0.png")
    refused(settings, "mine holds 0.png, and no manifest.jsonl says that it was written here", dst="mine")


def test_force_replaces_files_of_others(here, settings):
    few(1)
    picture("mine/0.png")
    picture("mine/other.png")
    assert redone(settings, dst="mine", force=True) == {"0.png"}
    assert set(tree("mine")) == {"0.png", "other.png", MANIFEST}


# --- killed ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_three_times_it_ends_as_one_clean_run(here, settings):
    scenes = label_sets.write_scenes(here / "src", 300)
    label_sets.add_coco(here / "src", scenes)
    Path("src", scenes[17].key).write_bytes(b"corrupt")
    moments = ("note:20", "half:90", "rename:130")
    script = Path(__file__).with_name("killed_runs.py")
    killed = subprocess.run(
        [sys.executable, script, "src", "dst", settings.model, *moments], capture_output=True, text=True
    )
    assert killed.returncode == 0, killed.stderr
    # Every run notes the corrupt picture down. The third is killed at its 130th renaming: of the manifest, then of
    # 129 pictures, of which 128 are noted down, as is the one that the second had written already.
    assert list(map(int, killed.stdout.split())) == [19, 19 + 89, 18 + 89 + 1 + 129]
    assert len([path for path in Path("dst").rglob(".*") if path.is_file()]) == 1

    result = translate(settings, labels="coco")
    kept = 18 + 88 + 129
    assert (result.existing, result.done, len(result.failed)) == (kept, 299 - kept, 1)
    translate(settings, dst="clean", labels="coco")
    assert without_times(tree("dst")) == without_times(tree("clean"))
    assert label_sets.coco_labels(here / "dst") == label_sets.coco_labels(here / "src")
    assert len(records()) == 300


# --- on the command line -----------------------------------------------------------------------------------------


def test_the_verb_says_what_it_did_and_has_a_status_for_it(here, network):
    few(2)
    command = ("translate-dataset", "src", "dst", "--format", "folder", "--model", network, "--device", "cpu")
    done = run(*command)
    assert (done.exit_code, done.stderr) == (0, "2 written to dst, 0 skipped\n")
    Path("src/bad.png").write_text("no picture")
    again = run(*command, "--resume")
    assert again.exit_code == 1
    assert again.stderr.splitlines() == [
        "skipped: bad.png is not a picture of a known kind; known are PNG, JPEG, TIFF, WebP, BMP",
        "0 written to dst, 1 skipped, 2 already there",
    ]
    assert "2 written" in run(*command, "--force").stderr


def test_the_verb_tells_other_programs(here, network):
    few(2)
    Path("src/bad.png").write_text("no picture")
    done = run(
        "translate-dataset", "src", "dst", "--format", "folder", "--model", network, "--device", "cpu", "--json",
        "--range", 0, 200, "--out-format", ".TIF", "--batch-size", 2, "--threads", 1, "--tile", 64,
    )  # fmt: skip
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == 1
    assert told[0] == {"event": "start", "total": 3, "out": "dst"}
    assert sorted(line["event"] for line in told[1:-1]) == ["done", "done", "failed"]
    assert {line["target"] for line in told[1:-1]} == {"0.tif", "1.tif", "bad.tif"}
    assert (told[-1]["event"], told[-1]["done"], told[-1]["failed"]) == ("end", 2, 1)
    assert records()["0.png"]["settings"]["value_range"] == [0.0, 200.0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--format", "voc"], "no labels are known as voc"),
        (["--format", "coco"], "COCO"),
        (["--format", "folder", "--engine", "spark"], "no engine is known as spark; known are local and ray"),
        (["--format", "folder", "--workers", "2"], "--engine ray"),
        (["--format", "folder", "--model", "absent"], "no model absent"),
        (["--format", "folder", "--device", "toaster"], "toaster"),
        (["--format", "folder", "--out-format", "gif"], "gif"),
        (["--format", "folder", "--range", "5", "2"], "range"),
    ],
)
def test_an_error_is_one_sentence(here, network, options, said):
    few(1)
    failed = run("translate-dataset", "src", "dst", "--model", network, *options)
    assert failed.exit_code == 2
    assert failed.stderr.startswith("error: ")
    assert said in failed.stderr
    assert failed.stderr.count("\n") == 1


# --- folders -----------------------------------------------------------------------------------------------------


def test_a_folder_is_read_by_keys(here):
    picture("src/b/1.PNG")
    picture("src/a.jpg")
    Path("src/b/1.txt").write_text("label")
    Path("src", MANIFEST).write_text("of a run that wrote this folder")
    source = FolderSource(Path("src"))
    assert source.pictures() == ["a.jpg", "b/1.PNG"]
    assert source.others() == ["b/1.txt"]
    assert source.read("b/1.txt") == b"label"
    before = source.stamp("b/1.txt")
    Path("src/b/1.txt").write_text("other")
    os.utime("src/b/1.txt", ns=(5, 5))
    assert before != source.stamp("b/1.txt") == "5-5"
    assert source.stamp("absent") is None


def test_a_folder_is_written_by_keys(here):
    Path("dst/sub").mkdir(parents=True)
    Path("dst/sub/.0123456789abcdef0123456789abcdef.png").write_text("left by a kill")
    sink = FolderSink(Path("dst"))
    assert tree("dst") == {}
    sink.write("new/a.png", b"one")
    sink.write("new/a.png", b"two")
    assert sink.has("new/a.png")
    assert not sink.has("new")
    assert tree("dst") == {"new/a.png": b"two"}
    sink.remove("new/a.png")
    sink.remove("absent.png")
    assert not sink.has("new/a.png")
