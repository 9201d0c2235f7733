"""Pictures as bytes: the same as files, from several threads at once."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import cv2
import numpy as np
import pytest
from PIL import Image

from pix2next.errors import ImageError
from pix2next.images import decode_rgb, encode_nir, read_rgb, write_nir


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp"])
def test_bytes_are_read_as_the_file_is(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    assert cv2.imwrite(str(path), noise(21, 34, 3))
    assert np.array_equal(decode_rgb(path.read_bytes(), "it"), read_rgb(path))


def test_deep_bytes_are_read_as_the_file_is(tmp_path):
    for name in ("a.png", "a.tif"):
        assert cv2.imwrite(str(tmp_path / name), noise(21, 34, 3, dtype=np.uint16))
        read = decode_rgb((tmp_path / name).read_bytes(), "it")
        assert read.dtype == np.uint16
        assert np.array_equal(read, read_rgb(tmp_path / name))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "b.png is empty (0 bytes)"),
        (b"no picture", "b.png is not a picture of a known kind; known are PNG, JPEG, TIFF, WebP, BMP"),
        (b"\x89PNG\r\n\x1a\n", "b.png: this PNG file is damaged or cut short"),
        (b"II*\0\xff\xff\xff\xff", "b.png: this TIFF file is damaged or cut short"),
    ],
)
def test_bytes_that_are_no_picture_are_told_by_their_name(data, said):
    with pytest.raises(ImageError) as caught:
        decode_rgb(data, "b.png")
    assert str(caught.value).startswith(said)


def test_an_orientation_can_be_left_aside():
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb = noise(9, 14, 3)
    for kind in ("PNG", "JPEG", "WebP"):
        Image.fromarray(rgb).save(stored := BytesIO(), kind, exif=exif)
        assert decode_rgb(stored.getvalue(), "a").shape == (14, 9, 3)
        assert decode_rgb(stored.getvalue(), "a", upright=False).shape == (9, 14, 3)


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".tif", ".webp", ".bmp"])
def test_bytes_are_written_as_the_file_is(tmp_path, suffix):
    nir = noise(21, 34)
    write_nir(tmp_path / f"a{suffix}", nir)
    assert encode_nir(nir, suffix) == (tmp_path / f"a{suffix}").read_bytes()


def test_bytes_of_what_a_format_does_not_hold_are_refused():
    with pytest.raises(ImageError, match=r"\.jpg does not hold 16 bits; use \.png or \.tif"):
        encode_nir(noise(3, 4, dtype=np.uint16), ".jpg")


def test_quality():
    nir = noise(64, 64)
    for suffix in (".jpg", ".webp"):
        sizes = [len(encode_nir(nir, suffix, quality)) for quality in (5, 60, None)]
        assert sizes == sorted(sizes)
        assert sizes[0] < sizes[1] < sizes[2]
    assert encode_nir(nir, ".jpg") == encode_nir(nir, ".jpg", 95)
    assert encode_nir(nir, ".png", 5) == encode_nir(nir, ".png")


def test_threads_read_at_once_without_a_word(tmp_path, capfd):
    """Decoders' messages are switched off for the whole process, and on again when the last thread is through."""
    paths = []
    for number in range(8):
        paths.append(tmp_path / f"{number}.tif")
        assert cv2.imwrite(str(paths[-1]), noise(40, 60, 3, dtype=np.uint16))
        if number % 2:
            paths[-1].write_bytes(paths[-1].read_bytes()[:-300])

    def read(path):
        try:
            return read_rgb(path).shape
        except ImageError:
            return None

    filters = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        shapes = list(pool.map(read, paths * 5))
    assert set(shapes[::2]) == {(40, 60, 3)}
    assert capfd.readouterr() == ("", "")
    assert warnings.filters == filters
