"""Rasters of several bands: every way of storing them gives the same pixels, and damage one sentence."""

import itertools
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from pix2next.errors import ImageError
from pix2next.images import read_bands, read_nir, read_rgb


def ramp(bands, dtype=np.uint8, height=37, width=53):
    """Smooth, as a predictor wants it, and different in every band."""
    steps = np.random.default_rng(bands).integers(0, 9, (height, width, bands))
    return (np.cumsum(steps, axis=1) * (np.iinfo(dtype).max // 500 + 1)).astype(dtype)


@pytest.mark.parametrize("tile", [None, (16, 32), (48, 16)])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_way_of_storing_bands(tmp_path, dtype, planes, tile):
    path = tmp_path / "a.tif"
    for bands, packed, order, big in itertools.product((2, 4, 5), (None, "deflate", "predicted"), "<>", (False, True)):
        if big and order == ">":  # Not told apart by its first bytes, as for any picture.
            continue
        pixels = ramp(bands, dtype)
        tifffile.imwrite(
            path, pixels if planes == "contig" else np.moveaxis(pixels, 2, 0), photometric="minisblack",
            planarconfig=planes, compression="deflate" if packed else None, predictor=packed == "predicted", tile=tile,
            rowsperstrip=None if tile else 10, byteorder=order, bigtiff=big,
        )  # fmt: skip
        read = read_bands(path)
        assert read.dtype == dtype
        assert np.array_equal(read, pixels)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate"])
def test_compressions_of_other_writers(tmp_path, compression):
    pixels = ramp(4)
    Image.fromarray(pixels, "RGBA").save(tmp_path / "a.tif", compression=compression, tiffinfo={317: 2})
    assert np.array_equal(read_bands(tmp_path / "a.tif"), pixels)


def test_one_band_and_one_pixel(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[7]], np.uint16))
    assert read_bands(tmp_path / "a.tif").tolist() == [[[7]]]


def test_real_geotiffs(shared):
    for path in (shared / "data/geotiff").glob("*.tif"):
        assert np.array_equal(read_bands(path)[..., :3], read_rgb(path))
    chip = read_bands(shared / "data/geotiff/bishop_2020_7.tif")
    assert np.array_equal(chip[..., 3], read_nir(shared / "data/aerial/test/nir/bishop_2020_7.png"))


@pytest.mark.parametrize(
    ("pixels", "told", "words"),
    [
        (ramp(4).astype(np.float32), {"photometric": "minisblack"}, "bands of 32 bits that are no unsigned integers"),
        (ramp(4).astype(np.int16), {"photometric": "minisblack"}, "bands of 16 bits that are no unsigned integers"),
        (ramp(4), {"photometric": "separated"}, "holds colours of photometric 5"),
        (ramp(4), {"photometric": "minisblack", "extratags": [(274, 3, 1, 6, True)]}, "stored rotated"),
    ],
)
def test_kinds_that_are_not_read_are_named(tmp_path, pixels, told, words):
    tifffile.imwrite(tmp_path / "a.tif", pixels, planarconfig="contig", **told)
    with pytest.raises(ImageError, match=words):
        read_bands(tmp_path / "a.tif")


def test_a_compression_that_is_not_read_is_named(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", ramp(4), photometric="minisblack", planarconfig="contig")
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(
        data.replace(struct.pack("<HHIH", 259, 3, 1, 1), struct.pack("<HHIH", 259, 3, 1, 7))
    )
    with pytest.raises(ImageError, match=r"not read \(code 7; known are none, LZW, deflate, packbits\)"):
        read_bands(tmp_path / "a.tif")


def test_what_is_no_tiff(tmp_path):
    Image.fromarray(ramp(4), "RGBA").save(tmp_path / "a.png")
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    with pytest.raises(ImageError, match="is a PNG file; bands are read from TIFF"):
        read_bands(tmp_path / "a.png")
    with pytest.raises(ImageError, match="damaged or cut short"):
        read_bands(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="cannot read"):
        read_bands(tmp_path / "b.tif")


@pytest.mark.filterwarnings("ignore:Metadata Warning")
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_damage_gives_pixels_or_one_sentence_never_anything_else(tmp_path, tile):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp(4), photometric="minisblack", planarconfig="contig", compression="deflate", tile=tile)
    whole, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for trial in range(150):
        data = bytearray(whole if trial % 3 else whole[: rng.integers(4, len(whole))])
        for place in rng.integers(4, min(len(data), 400), 2 if trial % 3 else 0):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            assert read_bands(path).ndim == 3
        except ImageError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 50
