"""Many pictures at once: which files are written where, what is refused before anything is, and what is skipped."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pix2next.apps import bulk
from pix2next.apps.bulk import BulkResult, translate_pictures
from pix2next.apps.events import Done, End, Existing, Failed, Start, as_json
from pix2next.apps.jobs import Output
from pix2next.errors import ConfigError, ImageError
from pix2next.images import read_nir
from pix2next.translate import Translator

from .networks import Green


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


def test_events_tell_what_happens(here, translator):
    picture("in/a.png", (9, 14))
    Path("in/b.png").write_text("no picture")
    seen = []
    result = translate_pictures(["in", "missing"], Path("out"), translator, on_event=seen.append)
    start, missing, done, failed, end = seen
    assert start == Start(2, "out")
    assert (missing.path, missing.target) == ("missing", None)
    source, target = str(Path("in/a.png")), str(Path("out/a.png"))
    assert done == Done(source, target, width=14, height=9, seconds=done.seconds)
    assert (failed.path, failed.target) == (str(Path("in/b.png")), str(Path("out/b.png")))
    assert "not a picture" in failed.reason
    assert end == End(1, 2, 0, seconds=end.seconds)
    assert end.seconds >= done.seconds > 0
    assert result.failed == [("missing", missing.reason), (failed.path, failed.reason)]


def test_events_are_lines_of_json():
    strange = os.fsdecode(b"Fl\xfcsse \xe6\x9c\xa8.jpg")
    line = as_json(Failed(strange, None, "no\npicture"))
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line) == {"event": "failed", "path": strange, "target": None, "reason": "no\npicture"}


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


# --- other names, formats and depths ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "names"),
    [
        (Output(), ["a.b.JPG", "deep/c.png", "scan"]),
        (Output(suffix="_nir"), ["a.b_nir.JPG", "deep/c_nir.png", "scan_nir"]),
        (Output(out_format="tif"), ["a.b.tif", "deep/c.tif", "scan.tif"]),
        (Output(suffix=".nir", out_format="webp"), ["a.b.nir.webp", "deep/c.nir.webp", "scan.nir.webp"]),
    ],
)
def test_suffix_and_format_make_names(output, names):
    assert [output.renamed(Path(name)).as_posix() for name in ("a.b.JPG", "deep/c.png", "scan")] == names


def test_pictures_are_written_under_other_names_in_another_format(here, translator):
    picture("in/a.jpg")
    picture("in/deep/b.png", green=40_000, dtype=np.uint16)
    result = translate_pictures(["in"], Path("out"), translator, Output(suffix="_nir", out_format="png"))
    assert result == BulkResult(2, [])
    assert tree("out") == ["a_nir.png", "deep/b_nir.png"]
    assert Path("out/a_nir.png").read_bytes().startswith(b"\x89PNG")
    assert (read_nir("out/deep/b_nir.png") == 40_000).all()


def test_a_format_that_cannot_hold_the_depth_costs_that_picture(here, translator):
    picture("in/a.png")
    picture("in/deep.png", green=40_000, dtype=np.uint16)
    result = translate_pictures(["in"], Path("out"), translator, Output(out_format="jpg"))
    assert tree("out") == ["a.jpg"]
    ((name, reason),) = result.failed
    assert name == str(Path("in/deep.png"))
    assert "deep.jpg: .jpg does not hold 16 bits" in reason


def test_names_that_come_together_in_another_format_are_refused(here, translator):
    for name in ("in/a.jpg", "in/a.png", "in/b.png"):
        picture(name)
    with pytest.raises(ImageError, match=r"a\.jpg and in.a\.png would both be written to out.a\.png; rename one"):
        translate_pictures(["in"], Path("out"), translator, Output(out_format="png"))
    assert not Path("out").exists()


def test_a_suffix_may_make_pictures_stand_side_by_side_but_not_on_another(here, translator):
    picture("a.png", green=10)
    assert translate_pictures(["a.png"], Path("."), translator, Output(suffix="_nir")).done == 1
    assert tree(here) == ["a.png", "a_nir.png"]
    with pytest.raises(ImageError, match=r"a_nir\.png would be overwritten by the translation of a\.png"):
        translate_pictures(["a.png", "a_nir.png"], Path("."), translator, Output(suffix="_nir"))


def test_one_file_with_a_whole_name_takes_no_other(here, translator):
    picture("a.jpg")
    assert translate_pictures(["a.jpg"], Path("b.png"), translator, Output(out_format="png")).done == 1
    with pytest.raises(ConfigError, match="leave out the suffix _nir"):
        translate_pictures(["a.jpg"], Path("c.png"), translator, Output(suffix="_nir"))
    with pytest.raises(ConfigError, match="would not be named after its format webp"):
        translate_pictures(["a.jpg"], Path("c.png"), translator, Output(out_format="webp"))
    assert tree(here) == ["a.jpg", "b.png"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"suffix": "../x"}, "would lead to another folder"),
        ({"suffix": "a\\b"}, "would lead to another folder"),
        ({"out_format": "gif"}, "'gif' is no format that is written; known are bmp, jpeg, jpg, png, tif, tiff, webp"),
        ({"quality": 0}, "between 1 and 100, not 0"),
        ({"quality": 101}, "between 1 and 100, not 101"),
        ({"quality": 90, "out_format": "png"}, "png keeps every pixel and knows no quality; jpg and webp do"),
    ],
)
def test_impossible_settings_are_refused(settings, words):
    with pytest.raises(ConfigError) as caught:
        Output(**settings)
    assert words in str(caught.value)


def test_quality_is_for_jpeg_and_webp_and_spares_the_others(here, translator):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    for name in ("in/a.jpg", "in/a.webp", "in/a.png"):
        picture(name)
        cv2.imwrite(name, noise)
    for quality in (10, None):
        translate_pictures(["in"], Path(f"out{quality}"), translator, Output(quality=quality))
    small, large = ({name: Path(out, name).stat().st_size for name in tree(out)} for out in ("out10", "outNone"))
    assert small["a.jpg"] < large["a.jpg"] / 2
    assert small["a.webp"] < large["a.webp"] / 2
    assert small["a.png"] == large["a.png"]


def test_files_that_are_there_can_be_passed_over(here, translator):
    picture("in/a.png", green=10)
    picture("in/b.png", green=20)
    picture("out/a.png", green=99)
    seen = []
    result = translate_pictures(["in"], Path("out"), translator, Output(overwrite=False), on_event=seen.append)
    assert result == BulkResult(1, [], existing=1)
    assert read_nir("out/a.png")[0, 0] == 33  # The mean of 0, 99 and 0: it is as it was.
    assert Existing(str(Path("in/a.png")), str(Path("out/a.png"))) in seen
    assert translate_pictures(["in"], Path("out"), translator, Output(overwrite=False)).existing == 2


def test_a_range_keeps_depth_and_scale_through_the_whole_path(here):
    """12 bits in 16, and reflectance in floating point, of the same dark scene: nothing is stretched."""
    picture("in/deep.png", green=1000, dtype=np.uint16)
    picture("in/reflectance.tif", green=1000, dtype=np.float32)
    picture("in/shallow.png", green=200)
    result = translate_pictures(["in"], Path("out"), Translator(Green(), device="cpu", value_range=(0.0, 4095.0)))
    assert (read_nir("out/deep.png") == 1000).all()
    stored = cv2.imread("out/reflectance.tif", cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.float32
    assert np.abs(stored - 1000).max() < 1e-2
    ((name, reason),) = result.failed
    assert name == str(Path("in/shallow.png"))
    assert reason == f"{name}: uint8 pixels hold 0 to 255, not the range 0 to 4095"


@pytest.mark.parametrize("batch_size", [1, 3])
def test_pictures_that_share_a_batch_come_out_as_they_would_alone(here, batch_size):
    for number in range(5):
        picture(f"in/{number}.png", (9, 14) if number != 3 else (5, 6), green=number * 50)
    result = translate_pictures(
        ["in"], Path("out"), Translator(Green(), device="cpu", batch_size=batch_size), batch_size=batch_size
    )
    assert result == BulkResult(5, [])
    assert [read_nir(f"out/{number}.png")[0, 0] for number in range(5)] == [0, 50, 100, 150, 200]
    assert read_nir("out/3.png").shape == (5, 6)


# --- what ends a run --------------------------------------------------------------------------------------------


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

    def read(path, value_range):
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
