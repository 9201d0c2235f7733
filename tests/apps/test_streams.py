"""One picture through standard input and output: the bytes of the picture and nothing else."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest

from pix2next.apps.bulk import BulkResult
from pix2next.apps.events import Done
from pix2next.apps.jobs import Output
from pix2next.apps.streams import translate_stream
from pix2next.errors import ConfigError
from pix2next.images import decode_rgb, read_nir
from pix2next.translate import Translator

from .networks import Green


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def encoded(ending, green=77, dtype=np.uint8):
    bgr = np.zeros((9, 14, 3), dtype)
    bgr[..., 1] = green
    return cv2.imencode(ending, bgr)[1].tobytes()


def stream(source="-", target="-", data=b"", output=None, *, value_range=None, on_event=None):
    written = io.BytesIO()
    translator = Translator(Green(), device="cpu", value_range=value_range)
    result = translate_stream(
        source, target, translator, output, read=lambda: data, write=written.write, on_event=on_event
    )
    return result, written.getvalue()


@pytest.mark.parametrize(
    ("ending", "start"),
    [(".png", b"\x89PNG"), (".jpg", b"\xff\xd8\xff"), (".tif", b"II*\0"), (".webp", b"RIFF"), (".bmp", b"BM")],
)
def test_the_format_that_comes_goes(ending, start):
    result, out = stream(data=encoded(ending))
    assert result == BulkResult(1, [])
    assert out.startswith(start)
    assert np.abs(decode_rgb(out, "out").astype(int) - 77).max() <= 2


def test_another_format_and_quality():
    result, out = stream(data=encoded(".png"), output=Output(out_format="jpg", quality=30))
    assert result.done == 1
    assert out.startswith(b"\xff\xd8\xff")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_depth_is_kept(dtype):
    value = {"u": 200, "f": 0.25}[np.dtype(dtype).kind]
    _, out = stream(data=encoded(".tif", value, dtype))
    rgb = decode_rgb(out, "out")
    assert rgb.dtype == dtype
    assert np.allclose(rgb, value)


def test_a_range_goes_through():
    result, out = stream(data=encoded(".tif", 5000, np.float32), value_range=(0.0, 10_000.0))
    assert result.done == 1
    stored = cv2.imdecode(np.frombuffer(out, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.allclose(stored, 5000)


def test_a_file_to_standard_output_and_standard_input_to_a_file(here):
    Path("a.png").write_bytes(encoded(".png"))
    result, out = stream(source="a.png")
    assert (result.done, (decode_rgb(out, "out") == 77).all()) == (1, True)
    seen = []
    result, out = stream(target="new/b.tif", data=encoded(".png", 30), on_event=seen.append)
    assert (result.done, out) == (1, b"")
    assert (read_nir("new/b.tif") == 30).all()
    assert [event for event in seen if isinstance(event, Done)] == [
        Done("-", "new/b.tif", width=14, height=9, seconds=seen[1].seconds)
    ]


def test_a_file_that_is_there_can_be_passed_over(here):
    Path("b.png").write_bytes(b"as it was")
    result, _ = stream(target="b.png", data=encoded(".png"), output=Output(overwrite=False))
    assert (result, Path("b.png").read_bytes()) == (BulkResult(0, [], existing=1), b"as it was")


@pytest.mark.parametrize(
    ("source", "data", "output", "reason"),
    [
        ("-", b"", None, "standard input is empty (0 bytes)"),
        ("-", b"hello", None, "standard input is not a picture of a known kind"),
        ("-", encoded(".png")[:-20], None, "standard input: this PNG file is damaged or cut short"),
        ("absent.png", b"", None, "cannot read absent.png: No such file or directory"),
        (
            "-",
            encoded(".png", 1, np.uint16),
            Output(out_format="jpg"),
            "standard output.jpg: .jpg does not hold 16 bits",
        ),
        ("-", encoded(".tif", 9, np.float32), None, "standard input has floating-point values from 0 to 9; scale them"),
    ],
)
def test_a_bad_picture_is_one_sentence_and_nothing_is_written(here, source, data, output, reason):
    result, out = stream(source=source, data=data, output=output)
    assert (result.done, out) == (0, b"")
    ((path, said),) = result.failed
    assert path == source
    assert reason in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("source", "target", "output", "words"),
    [
        ("-", "folder", None, "a picture from standard input has no name; give it one, as folder.nir.png, or -"),
        ("-", "-", Output(suffix="_nir"), "standard output has no name that the suffix _nir could be put to"),
        (".", "-", None, "standard output takes one picture, and . is a folder"),
        ("-", "a.png", Output(suffix="_nir"), "leave out the suffix _nir"),
        ("-", "a.png", Output(out_format="jpg"), "would not be named after its format jpg"),
    ],
)
def test_what_cannot_be_is_refused(here, source, target, output, words):
    with pytest.raises(ConfigError, match=words):
        stream(source, target, encoded(".png"), output)
