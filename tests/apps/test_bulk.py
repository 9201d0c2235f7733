"""Many pictures at once: which files are written where, what is refused before anything is, and what is skipped."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from pix2next.apps import bulk
from pix2next.apps.bulk import BulkResult, translate_pictures
from pix2next.errors import ImageError
from pix2next.images import read_nir
from pix2next.translate import Translator


class Green(nn.Module):
    """NIR is the green channel."""

    multiple = 8

    def forward(self, rgb):
        return rgb[:, 1:2]


@pytest.fixture
def translator():
    return Translator(Green(), device="cpu")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(path, size=(9, 14), green=77, dtype=np.uint8):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    bgr = np.zeros((*size, 3), dtype)
    bgr[..., 1] = green
    assert cv2.imwrite(str(path), bgr)


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def test_a_folder_keeps_its_tree_names_sizes_and_depths(here, translator):
    picture("photos/a.png", (3, 4), 10)
    picture("photos/deep/b.tif", (5, 6), 40_000, np.uint16)
    picture("photos/deep/er/b.png", (7, 8), 30)
    for name in ("notes.txt", ".hidden.png", "deep/labels.json"):
        (here / "photos" / name).write_text("no picture")
    assert translate_pictures(["photos"], Path("nir"), translator) == BulkResult(3, [])
    assert tree("nir") == ["a.png", "deep/b.tif", "deep/er/b.png"]
    assert read_nir("nir/a.png").tolist() == [[10] * 4] * 3
    assert read_nir("nir/deep/b.tif").dtype == np.uint16
    assert (read_nir("nir/deep/b.tif") == 40_000).all()
    assert read_nir("nir/deep/er/b.png").shape == (7, 8)


def test_files_and_names_outside_ascii(here, translator):
    picture("x/a b.jpg")
    os.rename("x/a b.jpg", "x/Bäume 木.jpg")
    picture("y/c.bmp")
    result = translate_pictures(["x/Bäume 木.jpg", "y/c.bmp", "y/c.bmp"], Path("out/new"), translator)
    assert result == BulkResult(2, [])
    assert tree("out") == ["new/Bäume 木.jpg", "new/c.bmp"]


def test_globs_keep_the_tree_below_their_fixed_part(here, translator):
    for name in ("data/p/1.png", "data/p/2.jpg", "data/q/1.png", "data/q/r/1.png"):
        picture(name)
    (here / "data/p/notes.png.txt").write_text("no picture")
    assert translate_pictures(["data/**/*.png"], Path("out"), translator).done == 3
    assert tree("out") == ["p/1.png", "q/1.png", "q/r/1.png"]
    assert translate_pictures(["data/p/*"], Path("flat"), translator).done == 2
    assert tree("flat") == ["1.png", "2.jpg"]


def test_a_name_with_brackets_is_a_file_first(here, translator):
    picture("a[1].png")
    assert translate_pictures(["a[1].png"], Path("out"), translator).done == 1
    assert tree("out") == ["a[1].png"]


def test_one_file_may_be_given_a_name_or_a_folder(here, translator):
    picture("a.jpg")
    assert translate_pictures(["a.jpg"], Path("new/nir.png"), translator).done == 1
    assert read_nir("new/nir.png").shape == (9, 14)
    assert translate_pictures(["a.jpg"], Path("folder"), translator).done == 1
    (here / "folder.png").mkdir()
    assert translate_pictures(["a.jpg"], Path("folder.png"), translator).done == 1
    assert tree("folder") == tree("folder.png") == ["a.jpg"]


def test_a_bad_file_is_reported_and_the_others_are_done(here, translator):
    for name in ("in/1.png", "in/3.jpg", "in/4.png"):
        picture(name, (60, 80))
    Path("in/2.png").write_text("no picture")
    Path("in/3.jpg").write_bytes(Path("in/3.jpg").read_bytes()[:400])
    Path("in/notes.txt").write_text("named, so reported")
    result = translate_pictures(["in", "in/notes.txt", "missing.png", "no/*.png"], Path("out"), translator)
    assert result.done == 2
    assert tree("out") == ["1.png", "4.png"]
    reasons = dict(result.failed)
    assert set(reasons) == {
        "missing.png",
        "no/*.png",
        *(str(Path("in", name)) for name in ("2.png", "3.jpg", "notes.txt")),
    }
    assert all(name in reason for name, reason in result.failed)
    assert reasons["no/*.png"] == "no/*.png: no such file or folder"
    assert "not a picture" in reasons[str(Path("in/2.png"))]
    assert "cut short" in reasons[str(Path("in/3.jpg"))]


def test_an_empty_folder_is_reported(here, translator):
    Path("empty").mkdir()
    assert translate_pictures(["empty"], Path("out"), translator) == BulkResult(
        0, [("empty", "empty: no pictures in this folder")]
    )


def test_too_deep_for_its_format_is_told_before_the_work(here, monkeypatch, translator):
    picture("a.png", green=40_000, dtype=np.uint16)
    os.rename("a.png", "a.jpg")
    monkeypatch.setattr(translator, "model", None)
    ((name, reason),) = translate_pictures(["a.jpg"], Path("out"), translator).failed
    assert name == "a.jpg"
    assert "does not hold 16 bits; use .png or .tif" in reason


def test_running_again_replaces(here, translator):
    picture("in/a.png", green=10)
    translate_pictures(["in"], Path("out"), translator)
    picture("in/a.png", green=20)
    assert translate_pictures(["in"], Path("out"), translator).done == 1
    assert (read_nir("out/a.png") == 20).all()


def test_progress_counts_every_picture(here, translator):
    picture("in/a.png")
    Path("in/b.png").write_text("no picture")
    seen = []
    translate_pictures(["in", "missing"], Path("out"), translator, on_progress=lambda *counts: seen.append(counts))
    assert seen == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("inputs", "out", "words"),
    [
        (["p/1.png", "q/1.png"], "out", r"would both be written to out.1\.png"),
        (["p", "q"], "out", "would both be written to"),
        (["p"], "p", "lies in p, whose pictures are read"),
        (["p"], "p/nir", "lies in p, whose pictures are read"),
        (["."], "nir", "lies in"),
        (["p/1.png"], "p", "would be overwritten by its own translation"),
        (["p/1.png"], "p/1.png", "would be overwritten"),
        (["p/*.png"], "p", "in the output folder"),
        (["**/*.png"], "q", "in the output folder"),
        (["p/1.png", "p/2.png"], "nir.png", "is the name of one file"),
        (["p"], "nir.png", "is the name of one file"),
        (["p/*.png"], "nir.png", "is the name of one file"),
        (["p/1.png"], "notes", "exists and is no folder"),
    ],
)
def test_refused_before_anything_is_written(here, translator, inputs, out, words):
    for name in ("p/1.png", "p/2.png", "q/1.png"):
        picture(name)
    Path("notes").write_text("a file")
    before = {name: Path(name).read_bytes() for name in tree(here)}
    with pytest.raises(ImageError, match=words):
        translate_pictures(inputs, Path(out), translator)
    assert {name: Path(name).read_bytes() for name in tree(here)} == before


def test_links_that_lead_to_themselves_are_reported_or_refused(here, translator):
    picture("in/a.png")
    os.symlink("loop.png", "in/loop.png")
    result = translate_pictures(["in"], Path("out"), translator)
    assert (result.done, [path for path, _ in result.failed]) == (1, [str(Path("in/loop.png"))])
    assert translate_pictures(["in/loop.png"], Path("out"), translator).failed[0][1].startswith("in/loop.png: Too many")
    result = translate_pictures(["in/a.png"], Path("in/loop.png/nir"), translator)
    assert "cannot write" in result.failed[0][1]


def test_a_recursive_glob_goes_through_each_folder_once(here, translator):
    picture("in/deep/a.png")
    os.symlink("..", "in/deep/up")
    assert translate_pictures(["in/**/*.png"], Path("out"), translator) == BulkResult(1, [])
    assert tree("out") == ["deep/a.png"]


def test_a_name_that_no_file_can_have_costs_that_input_only(here, translator):
    picture("a.png")
    result = translate_pictures(["n" * 300 + ".png", "a.png"], Path("out"), translator)
    assert (result.done, len(result.failed)) == (1, 1)


def test_an_interrupt_leaves_whole_files_only(here, monkeypatch):
    for number in range(3):
        picture(f"in/{number}.png")

    class Interrupted(Green):
        calls = 0

        def forward(self, rgb):
            self.calls += 1
            if self.calls == 2:
                raise KeyboardInterrupt
            return super().forward(rgb)

    with pytest.raises(KeyboardInterrupt):
        translate_pictures(["in"], Path("out"), Translator(Interrupted(), device="cpu"))
    assert tree("out") == ["0.png"]


def test_memory_that_does_not_hold_a_picture_costs_that_picture_only(here, monkeypatch, translator):
    picture("in/a.png")
    picture("in/b.png")

    def read(path):
        if path.name == "a.png":
            raise MemoryError
        return np.zeros((3, 4, 3), np.uint8)

    monkeypatch.setattr(bulk, "read_rgb", read)
    result = translate_pictures(["in"], Path("out"), translator)
    assert result == BulkResult(
        1, [(str(Path("in/a.png")), f"{Path('in/a.png')}: too little memory to hold the picture")]
    )


def test_a_broken_network_stops_the_run(here):
    picture("in/a.png")

    class Broken(Green):
        def forward(self, rgb):
            raise RuntimeError("the network is broken")

    with pytest.raises(RuntimeError, match="broken"):
        translate_pictures(["in"], Path("out"), Translator(Broken(), device="cpu"))
    assert torch.is_grad_enabled()
    assert not Path("out").exists()
