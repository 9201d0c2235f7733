"""Tar shards: what of a sample is translated, what is kept, and what a kill costs."""

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from pix2next.apps.datasets import translate_dataset
from pix2next.apps.jobs import Output
from pix2next.apps.local_engine import Settings
from pix2next.apps.shards import ShardSink, ShardSource, find_shards
from pix2next.apps.stores import Sink, Source, open_sink, open_source
from pix2next.errors import ConfigError, ImageError
from pix2next.images import decode_rgb

from ..command import run
from . import label_sets


def write_shard(path, files):
    """Files by name, each with a time and an owner of its own; None is a folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, (name, data) in enumerate(files.items()):
            info = tarfile.TarInfo(name)
            info.mtime, info.uname, info.mode = 1_700_000_000 + number + 0.5, "someone", 0o640
            if data is None:
                info.type = tarfile.DIRTYPE
            info.size = len(data or b"")
            tar.addfile(info, io.BytesIO(data) if data is not None else None)
    return path


def contents(path):
    with tarfile.open(path) as tar:
        return {info.name: tar.extractfile(info).read() if info.isfile() else None for info in tar}


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def shards(tmp_path):
    """Two shards of two samples, and a file beside them."""
    root = tmp_path / "src"
    for shard in range(2):
        files = {"./": None}
        for sample in (2 * shard + 1, 2 * shard):  # Not in the order of their names.
            files |= {
                f"./{sample}.jpg": b"rgb%d" % sample,
                f"./{sample}.json": b"{%d}" % sample,
                f"./{sample}.cls": b"7",
            }
        write_shard(root / f"train-{shard:04d}.tar", files)
    (root / "sizes.json").write_text("{}")
    (root / "train-0000.idx").write_text("v1.2 2")
    return root


def translate(source, sink, skip=(), stop_after=None, close=True):
    """What a run does, with pictures made of their keys; how many were done."""
    done = 0
    for key in source.pictures():
        if sink.has(key) or key in skip:
            continue
        if done == stop_after:
            return done
        sink.write(key, b"nir of " + key.encode())
        done += 1
    for key in source.others():
        sink.write(key, source.read(key))
    if close:
        sink.close()
    return done


def test_keys_and_what_they_hold(shards):
    source = open_source(str(shards))
    assert isinstance(source, ShardSource) and isinstance(source, Source)
    assert source.pictures() == [f"train-000{number // 2}.tar/{number}.jpg" for number in range(4)]
    assert source.others() == [
        "sizes.json",
        *(f"train-000{number // 2}.tar/{number}.{ending}" for number in range(4) for ending in ("cls", "json")),
    ]
    assert source.read("train-0001.tar/3.jpg") == b"rgb3"
    assert source.read("train-0001.tar/3.json") == b"{3}"
    assert source.read("sizes.json") == b"{}"
    assert pickle.loads(pickle.dumps(source)).read("train-0000.tar/0.jpg") == b"rgb0"
    before = [source.stamp(key) for key in source.pictures()]
    assert len(set(before)) == 4 and None not in before and source.stamp("sizes.json")
    write_shard(shards / "train-0001.tar", contents(shards / "train-0001.tar") | {"x.txt": b"more"})
    assert [one == other for one, other in zip(before, map(source.stamp, source.pictures()), strict=True)] == [
        True, True, False, False,
    ]  # fmt: skip


def test_shards_keep_their_names_order_members_and_times(shards, tmp_path):
    source = open_source(str(shards))
    sink = open_sink(str(tmp_path / "dst"), source)
    assert isinstance(sink, ShardSink) and isinstance(sink, Sink)
    translate(source, sink)
    assert sorted(tree(tmp_path / "dst")) == ["sizes.json", "train-0000.tar", "train-0001.tar"]
    for shard in range(2):
        name = f"train-{shard:04d}.tar"
        before, after = contents(shards / name), contents(tmp_path / "dst" / name)
        assert list(before) == list(after)
        changed = {key for key in before if before[key] != after[key]}
        assert changed == {key for key in before if key.endswith(".jpg")}
        number = 2 * shard
        assert after[f"./{number}.jpg"] == f"nir of {name}/{number}.jpg".encode()
        with tarfile.open(shards / name) as old, tarfile.open(tmp_path / "dst" / name) as new:
            for one, other in zip(old, new, strict=True):
                assert (one.mtime, one.uname, one.mode, one.type) == (other.mtime, other.uname, other.mode, other.type)


def test_a_shard_is_written_as_soon_as_its_pictures_are_there(shards, tmp_path):
    source = ShardSource(shards, ["train-0000.tar", "train-0001.tar"])
    sink = ShardSink(tmp_path / "dst", source)
    assert translate(source, sink, stop_after=3) == 3
    assert [path.name for path in (tmp_path / "dst").glob("*.tar")] == ["train-0000.tar"]
    assert contents(tmp_path / "dst/train-0000.tar")["./1.json"] == b"{1}"
    assert [path.name for path in (tmp_path / "dst/.parts").iterdir()] == ["train-0001.tar"]


@pytest.mark.parametrize("stop_after", range(5))
def test_a_run_that_was_killed_loses_nothing_and_ends_the_same(shards, tmp_path, stop_after):
    source = open_source(str(shards))
    translate(source, ShardSink(tmp_path / "clean", source))
    assert translate(source, ShardSink(tmp_path / "dst", source), stop_after=stop_after, close=False) == stop_after
    (tmp_path / "dst" / f".{'0' * 32}.tar").write_bytes(b"half a shard")
    assert translate(source, ShardSink(tmp_path / "dst", source)) == 4 - stop_after
    assert tree(tmp_path / "dst") == tree(tmp_path / "clean")
    assert translate(source, ShardSink(tmp_path / "dst", source)) == 0
    assert tree(tmp_path / "dst") == tree(tmp_path / "clean")


def test_a_kill_between_a_shard_and_its_parts(shards, tmp_path, monkeypatch):
    source = open_source(str(shards))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        translate(source, ShardSink(tmp_path / "dst", source), stop_after=3, close=False)
    translate(source, ShardSink(tmp_path / "dst", source))
    translate(source, ShardSink(tmp_path / "clean", source))
    assert tree(tmp_path / "dst") == tree(tmp_path / "clean")


def test_a_second_run_writes_nothing(shards, tmp_path):
    source = open_source(str(shards))
    translate(source, ShardSink(tmp_path / "dst", source))
    before = {path: path.stat().st_ino for path in (tmp_path / "dst").iterdir()}
    translate(source, ShardSink(tmp_path / "dst", source))
    assert {path: path.stat().st_ino for path in (tmp_path / "dst").iterdir()} == before


def test_a_picture_that_failed_is_left_out_until_it_is_there(shards, tmp_path):
    source, missing = open_source(str(shards)), "train-0000.tar/0.jpg"
    translate(source, ShardSink(tmp_path / "dst", source), skip=[missing])
    assert "./0.jpg" not in contents(tmp_path / "dst/train-0000.tar")
    assert contents(tmp_path / "dst/train-0000.tar")["./0.json"] == b"{0}"
    sink = ShardSink(tmp_path / "dst", source)
    assert not sink.has(missing)
    assert translate(source, sink) == 1
    translate(source, ShardSink(tmp_path / "clean", source))
    assert tree(tmp_path / "dst") == tree(tmp_path / "clean")


def test_a_picture_is_taken_away(shards, tmp_path):
    source, key = open_source(str(shards)), "train-0001.tar/2.jpg"
    translate(source, ShardSink(tmp_path / "dst", source))
    sink = ShardSink(tmp_path / "dst", source)
    sink.remove(key)
    assert not sink.has(key)
    sink.close()
    assert "./2.jpg" not in contents(tmp_path / "dst/train-0001.tar")
    assert "./3.jpg" in contents(tmp_path / "dst/train-0001.tar")


def test_pictures_of_another_format_take_the_place_of_the_old(shards, tmp_path):
    source = open_source(str(shards))
    for suffix in (".jpg", ".png"):
        sink = ShardSink(tmp_path / "dst", source)
        for key in source.pictures():
            sink.write(str(Path(key).with_suffix(suffix)), b"nir")
            sink.remove(key if suffix == ".png" else str(Path(key).with_suffix(".tif")))
        sink.close()
    names = [f"./{number}.{ending}" for number in (1, 0) for ending in ("png", "json", "cls")]
    assert list(contents(tmp_path / "dst/train-0000.tar")) == [".", *names]
    assert sink.has("train-0000.tar/0.png") and not sink.has("train-0000.tar/0.jpg")


def test_labels_in_a_shard_may_change(shards, tmp_path):
    source = open_source(str(shards))
    for label in (b"new", b"newer"):
        sink = ShardSink(tmp_path / "dst", source)
        translate(source, sink, close=False)
        sink.write("train-0000.tar/0.json", label)
        sink.close()
        assert contents(tmp_path / "dst/train-0000.tar")["./0.json"] == label
        assert contents(tmp_path / "dst/train-0000.tar")["./1.json"] == b"{1}"


def test_long_names_and_folders_in_a_shard(tmp_path):
    name = "a/" + "b" * 150 + "/" + "c" * 120 + ".ä.jpg"
    write_shard(tmp_path / "src/deep/er/0.tar", {name: b"rgb"})
    source = open_source(str(tmp_path / "src"))
    assert source.pictures() == [f"deep/er/0.tar/{name}"]
    sink = open_sink(str(tmp_path / "dst"), source)
    sink.write(str(Path(source.pictures()[0]).with_suffix(".png")), b"nir")
    sink.close()
    assert contents(tmp_path / "dst/deep/er/0.tar") == {str(Path(name).with_suffix(".png")): b"nir"}


# Whole runs


@pytest.fixture
def scenes(tmp_path):
    """Three shards of four scenes, each with its boxes, and COCO labels beside them."""
    scenes = label_sets.write_scenes(tmp_path / "loose", 12)
    root = tmp_path / "src"
    for shard in range(3):
        files = {}
        for scene in scenes[4 * shard : 4 * shard + 4]:
            files[Path(scene.key).name] = (tmp_path / "loose" / scene.key).read_bytes()
            files[f"{Path(scene.key).stem}.json"] = json.dumps(scene.things).encode()
        write_shard(root / f"{shard:05d}.tar", files)
    return scenes


def without_times(folder):
    files = tree(folder)
    lines = map(json.loads, files["manifest.jsonl"].decode().splitlines())
    return {**files, "manifest.jsonl": [line | {"seconds": None} for line in lines]}


def test_shards_in_shards_out(scenes, tmp_path, network):
    shown = run("translate-dataset", tmp_path / "src", tmp_path / "dst", "--format", "folder", "--model", network,
                "--device", "cpu", "--out-format", "png")  # fmt: skip
    assert shown.exit_code == 0, shown.output
    assert sorted(tree(tmp_path / "dst")) == ["00000.tar", "00001.tar", "00002.tar", "manifest.jsonl"]
    for shard in range(3):
        new = contents(tmp_path / f"dst/{shard:05d}.tar")
        for scene in scenes[4 * shard : 4 * shard + 4]:
            stem = Path(scene.key).stem
            assert decode_rgb(new[f"{stem}.png"], stem).shape == (scene.height, scene.width, 3)
            assert json.loads(new[f"{stem}.json"]) == [list(thing) for thing in scene.things]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_three_times_it_ends_as_one_clean_run(scenes, tmp_path, network):
    # Whatever was renamed is there: the manifest, pictures, and after every fourth of them a shard.
    moments = ("note:3", "rename:4", "rename:5")
    script = Path(__file__).with_name("killed_runs.py")
    arguments = [tmp_path / "src", tmp_path / "dst", network, *moments]
    killed = subprocess.run([sys.executable, script, *map(str, arguments)], capture_output=True, text=True)
    assert killed.returncode == 0, killed.stderr
    assert list((tmp_path / "dst/.parts").rglob("*.jpg"))
    settings = Settings(str(network), device="cpu")
    result = translate_dataset(str(tmp_path / "src"), str(tmp_path / "dst"), "folder", settings)
    assert result.existing >= 5 and result.done + result.existing == 12
    translate_dataset(str(tmp_path / "src"), str(tmp_path / "clean"), "folder", settings)
    assert without_times(tmp_path / "dst") == without_times(tmp_path / "clean")
    assert list(tmp_path.glob("dst/.*")) == []


def test_labels_beside_shards_are_corrected(scenes, tmp_path, network):
    label_sets.add_coco(tmp_path / "src", scenes)
    settings, output = Settings(str(network), device="cpu"), Output(out_format="png")
    translate_dataset(str(tmp_path / "src"), str(tmp_path / "dst"), "coco", settings, output=output)
    assert label_sets.coco_labels(tmp_path / "dst") == label_sets.coco_labels(tmp_path / "src")
    new = json.loads((tmp_path / "dst/annotations/instances_val.json").read_text())
    assert [image["file_name"] for image in new["images"]] == ["000003.png", "000007.png", "000011.png"]


def test_a_corrupt_picture_costs_its_place_in_the_shard_only(scenes, tmp_path, network):
    path = tmp_path / "src/00001.tar"
    files = contents(path)
    write_shard(path, files | {"000005.jpg": b"broken"})
    settings = Settings(str(network), device="cpu")
    result = translate_dataset(str(tmp_path / "src"), str(tmp_path / "dst"), "folder", settings)
    assert [name for name, _ in result.failed] == ["00001.tar/000005.jpg"]
    assert set(contents(tmp_path / "dst/00001.tar")) == set(files) - {"000005.jpg"}
    write_shard(path, files)
    assert translate_dataset(str(tmp_path / "src"), str(tmp_path / "dst"), "folder", settings).done == 1
    assert set(contents(tmp_path / "dst/00001.tar")) == set(files)


def test_a_translation_may_not_take_a_members_name(tmp_path, network):
    write_shard(tmp_path / "src/0.tar", {"1.jpg": b"rgb", "1.png": b"mask"})
    with pytest.raises(ConfigError, match=r"1.png and 0.tar/1.jpg would both be written to 0.tar/1.png"):
        translate_dataset(
            f"{tmp_path / 'src'}#jpg", str(tmp_path / "dst"), "folder", Settings(str(network), "cpu"),
            output=Output(out_format="png"),
        )  # fmt: skip


# Which picture of a sample


def test_a_mask_is_no_picture(tmp_path):
    write_shard(tmp_path / "0.tar", {"1.jpg": b"", "1.seg.png": b"", "2.seg.png": b"", "d/1.PNG": b"", "d/1.txt": b""})
    source = open_source(str(tmp_path))
    assert source.pictures() == ["0.tar/1.jpg", "0.tar/2.seg.png", "0.tar/d/1.PNG"]
    assert source.others() == ["0.tar/1.seg.png", "0.tar/d/1.txt"]


def test_which_of_several_pictures_has_to_be_said(tmp_path):
    write_shard(tmp_path / "0.tar", {"1.left.jpg": b"", "1.right.jpg": b"", "2.left.jpg": b""})
    with pytest.raises(
        ConfigError, match=r"0.tar/1 holds several pictures \(left.jpg, right.jpg\); say .* SRC#left.jpg"
    ):
        open_source(str(tmp_path))
    source = open_source(f"{tmp_path}#right.jpg")
    assert source.pictures() == ["0.tar/1.right.jpg"]
    assert source.others() == ["0.tar/1.left.jpg", "0.tar/2.left.jpg"]


# What a path stands for


def test_what_a_path_stands_for(shards, tmp_path):
    (tmp_path / "loose").mkdir()
    for path in (tmp_path / "loose", tmp_path / "nowhere", shards / "sizes.json"):
        assert find_shards(str(path)) is None
    both = ["train-0000.tar", "train-0001.tar"]
    assert find_shards(str(shards)) == (shards, both)
    assert find_shards(str(shards / "train-0001.tar")) == (shards, ["train-0001.tar"])
    assert find_shards(str(shards / "train-{0000..0001}.tar")) == (shards, both)
    one = open_source(str(shards / "train-0001.tar"))
    assert one.others() == [f"train-0001.tar/{number}.{ending}" for number in (2, 3) for ending in ("cls", "json")]
    (shards / "a.jpg").write_bytes(b"loose")
    assert find_shards(str(shards)) is None


def test_compressed_and_missing_shards_are_refused(shards, tmp_path):
    with pytest.raises(ConfigError, match=r"2 of the 4 shards .*\.tar are missing \(first: .*train-0002.tar\)"):
        find_shards(str(shards / "train-{0000..0003}.tar"))
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed/0.tar.gz").write_bytes(b"")
    for path in (tmp_path / "packed", tmp_path / "packed/0.tar.gz"):
        with pytest.raises(ConfigError, match=r"compressed.*unpack"):
            find_shards(str(path))


@pytest.mark.parametrize("cut", [10, 700, 3000])
def test_damaged_shards_are_one_sentence(shards, cut):
    path = shards / "train-0000.tar"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ImageError, match=r"train-0000.tar: this tar file is damaged or cut short \(.*\)$") as error:
        open_source(str(shards))
    assert "\n" not in str(error.value)


def test_a_name_that_is_there_twice_is_refused(tmp_path):
    write_shard(tmp_path / "0.tar", {"1.jpg": b"", "./1.jpg": b"x"})
    with pytest.raises(ImageError, match=r"0.tar holds 1.jpg twice"):
        open_source(str(tmp_path))


def test_the_result_may_not_lie_in_the_source(shards):
    source = open_source(str(shards))
    with pytest.raises(ConfigError, match="lie in one another"):
        open_sink(str(shards / "nir"), source)
    (shards.parent / "file").write_text("x")
    with pytest.raises(ConfigError, match="exists and is no folder"):
        open_sink(str(shards.parent / "file"), source)
