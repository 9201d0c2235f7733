"""Rasters: everything but the pixels goes along, pixels are the translator's, and memory does not grow with height."""

import logging
import runpy
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp, Resampling
from rasterio.rpc import RPC
from rasterio.transform import Affine
from rasterio.windows import Window
from torch import nn

from pix2next.apps import raster_reading
from pix2next.apps.raster_reading import open_raster, plan_reading
from pix2next.apps.raster_strips import fill, has_data
from pix2next.apps.rasters import ndvi, translate_raster, translate_rasters, with_nodata
from pix2next.errors import ConfigError, ImageError, WeightsError
from pix2next.model.pix2next import DEFAULT_MODEL, shipped_models
from pix2next.translate import Translator

from .. import command
from .large_raster import Neighbours, borders_of, compare, translate
from .large_raster import make as make_large

GEOTIFFS = ("m_4709963_se_14_1_20180716", "bishop_2020_7", "chico_2018_19")
RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
PLACE = {"crs": "EPSG:32614", "transform": Affine(5, 0, 485902, 0, -5, 5209248)}


class Green(nn.Module):
    """NIR is the green channel."""

    multiple = 8

    def __init__(self):
        super().__init__()
        self.tiles = 0

    def forward(self, rgb):
        self.tiles += len(rgb)
        return rgb[:, 1:2]


@pytest.fixture
def translator():
    return Translator(Green(), device="cpu", tile=64)


def noise(height=90, width=110, dtype="uint8", low=1, high=255, count=3):
    return np.random.default_rng(0).uniform(low, high, (count, height, width)).astype(dtype)


def make(path, bands, *, colours=RGB, mask=None, change=None, **profile):
    """A GeoTIFF of `bands` [c, h, w]; `change` gets the open dataset."""
    count, height, width = bands.shape
    settings = {
        "driver": "GTiff", "height": height, "width": width, "count": count, "dtype": bands.dtype, **PLACE,
        "photometric": "RGB" if colours is not None and colours[:3] == RGB else "MINISBLACK", "alpha": "NO", **profile,
    }  # fmt: skip
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **settings) as raster:
        if colours is not None:
            raster.colorinterp = colours
        if change is not None:
            change(raster)
        raster.write(bands)
        if mask is not None:
            raster.write_mask(mask)
    return path


def read(path):
    with rasterio.open(path) as raster:
        return raster.read()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- real ones --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["nir", "rgbnir", "ndvi"])
@pytest.mark.parametrize("name", GEOTIFFS)
def test_real_geotiffs_keep_all_but_their_pixels(shared, tmp_path, name, output):
    source, result = shared / "data" / "geotiff" / f"{name}.tif", tmp_path / "out" / "result.tif"
    translator = Translator(Neighbours(), device="cpu", tile=192)
    translate_raster(source, result, translator, bands=(1, 2, 3), output=output)
    assert names(tmp_path / "out") == ["result.tif"]
    with rasterio.open(source) as before, rasterio.open(result) as after:
        assert (after.crs, after.transform, after.shape) == (before.crs, before.transform, before.shape)
        assert after.tags().items() >= before.tags().items()
        assert after.overviews(1) == before.overviews(1)
        assert [kind(raster) for raster in (before, after)] in (["COG", "COG"], [None, None])
        assert np.array_equal(after.dataset_mask(), np.full(after.shape, 255))
        assert after.colorinterp[:3] == (RGB if output == "rgbnir" else (ColorInterp.gray,))
        assert ColorInterp.alpha not in after.colorinterp
        made = after.count
        assert after.descriptions[made - 1] == ("synthetic NDVI" if output == "ndvi" else "synthetic NIR")
        assert after.tags(made)["SYNTHETIC"] == "YES"
        assert f"band {made} was made by a network" in after.tags()["SYNTHETIC"]
        rgb = before.read([1, 2, 3])
        nir = translator(np.moveaxis(rgb, 0, 2).copy())
        if output == "ndvi":
            assert after.dtypes == ("float32",)
            by_hand = (nir.astype(float) - rgb[0]) / (nir.astype(float) + rgb[0])
            assert np.abs(after.read(1) - by_hand).max() < 0.02  # NIR of 8 bits is rounded.
        else:
            assert after.nodata == before.nodata
            # Where the value for no data is 0, black moves to 1.
            assert np.array_equal(after.read(made), nir if before.nodata is None else nir.clip(1))
            assert output == "nir" or np.array_equal(after.read([1, 2, 3]), rgb)


def kind(raster):
    return raster.tags(ns="IMAGE_STRUCTURE").get("LAYOUT")


def test_no_seams_on_a_real_raster(shared, tmp_path):
    """Across tile borders pixels differ as the same lines do without tiles."""
    if DEFAULT_MODEL not in shipped_models():
        pytest.skip(f"{DEFAULT_MODEL} is not among the shipped models")
    tiled = Translator.from_pretrained(device="cpu", tile=128)
    whole = Translator(tiled.model, device="cpu", tile=512)
    with rasterio.open(shared / "data" / "geotiff" / f"{GEOTIFFS[0]}.tif") as raster:
        make(tmp_path / "a.tif", raster.read([1, 2, 3], window=Window(300, 200, 320, 256)))
    ratios = []
    for translator in (tiled, whole):
        translate_raster(tmp_path / "a.tif", tmp_path / "nir.tif", translator)
        ratios.append(across_and_elsewhere(read(tmp_path / "nir.tif")[0].astype(float), tiled))
    assert 0.95 < ratios[0] / ratios[1] < 1.05


def across_and_elsewhere(nir, translator):
    across, elsewhere = [], []
    for axis, length in enumerate(nir.shape):
        jumps = np.abs(np.diff(nir, axis=axis)).mean(axis=1 - axis)
        lines = [border - 1 for border in borders_of(length, translator)]
        across.append(jumps[lines])
        elsewhere.append(np.delete(jumps, lines))
    return np.concatenate(across).mean() / np.concatenate(elsewhere).mean()


# --- large ones -------------------------------------------------------------------------------------------------


def test_a_larger_raster_is_as_it_should_be(tmp_path):
    """What `python tests/apps/large_raster.py` shows at 20,000 x 20,000, smaller."""
    source, result = tmp_path / "a.tif", tmp_path / "b.tif"
    make_large(source, 600, 900)
    translate(source, result, 128, "rgbnir", cog=True)
    found = compare(source, result, 128)
    assert found["georeference and tags equal"]
    assert (found["nodata differs"], found["colours differ"]) == (0, 0)
    assert found["crossings"] > 10
    assert 0.97 < found["jumps"] < 1.03
    assert found["largest difference"] <= 1


def test_memory_does_not_grow_with_height(tmp_path, translator):
    peaks = []
    for height in (384, 1536):
        make(tmp_path / "a.tif", np.full((3, height, 256), 90, np.uint8), tiled=True, blockxsize=128, blockysize=128)
        tracemalloc.start()
        translate_raster(tmp_path / "a.tif", tmp_path / "nir.tif", translator)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (257, 131), (600, 520)])
@pytest.mark.parametrize("layout", [{}, {"tiled": True, "blockxsize": 128, "blockysize": 128, "interleave": "band"}])
def test_any_size_and_layout(tmp_path, translator, size, layout):
    rgb = noise(*size)
    translate_raster(make(tmp_path / "a.tif", rgb, **layout), tmp_path / "nir.tif", translator)
    assert np.array_equal(read(tmp_path / "nir.tif")[0], rgb[1])


@pytest.mark.parametrize("output", ["nir", "rgbnir", "ndvi"])
def test_the_tile_and_the_batch_leave_no_trace(tmp_path, output):
    make(tmp_path / "a.tif", noise(200, 150), nodata=0)
    results = []
    for tile, batch_size in ((64, 1), (64, 3), (512, 1)):
        translator = Translator(Green(), device="cpu", tile=tile, batch_size=batch_size)
        translate_raster(tmp_path / "a.tif", tmp_path / "b.tif", translator, output=output)
        results.append(read(tmp_path / "b.tif").astype(float))
    assert all(np.abs(result - results[0]).max() < 1e-5 for result in results)


# --- no data ----------------------------------------------------------------------------------------------------


@pytest.fixture
def collar():
    """Where there is no data: a corner and a hole."""
    y, x = np.mgrid[0:150, 0:200]
    return (x + y < 60) | (np.hypot(x - 130, y - 90) < 20)


def with_collar(collar, value, dtype="uint8", **limits):
    rgb = noise(*collar.shape, dtype=dtype, **limits)
    rgb[:, collar] = value
    return rgb


@pytest.mark.parametrize("output", ["nir", "rgbnir", "ndvi"])
@pytest.mark.parametrize(
    ("dtype", "nodata", "limits"),
    [
        ("uint8", 0, {}),
        ("uint8", 255, {"high": 254}),
        ("uint16", 65535, {"high": 60000}),
        ("int16", -9999, {"high": 10000}),
        ("float32", -9999, {"low": 0, "high": 1}),
        ("float32", np.nan, {"low": 0, "high": 1}),
        ("float64", 0, {"low": 0.1, "high": 1}),
    ],
)
def test_nodata_is_untouched_and_nothing_else_becomes_it(tmp_path, translator, collar, output, dtype, nodata, limits):
    make(tmp_path / "a.tif", with_collar(collar, nodata, dtype, **limits), nodata=nodata)
    value_range = (0, 10000) if dtype == "int16" else None
    translate_raster(tmp_path / "a.tif", tmp_path / "b.tif", translator, output=output, value_range=value_range)
    with rasterio.open(tmp_path / "a.tif") as before, rasterio.open(tmp_path / "b.tif") as after:
        assert np.array_equal(after.dataset_mask(), before.dataset_mask())
        assert np.array_equal(after.read_masks(after.count) == 0, collar)
        if output != "ndvi":
            np.testing.assert_equal(after.nodata, before.nodata)
            np.testing.assert_array_equal(after.read(after.count)[collar], np.array(nodata, dtype))


def test_a_result_that_equals_the_nodata_value_moves_aside():
    valid = np.array([[True, True, False]])
    for dtype, nodata, expected in (("uint8", 0, [1, 7, 0]), ("uint8", 255, [254, 7, 255]), ("int16", -5, [-4, 7, -5])):
        values = np.array([[nodata, 7, 3]], dtype)
        assert with_nodata(values, valid, nodata).tolist() == [expected]
    moved = with_nodata(np.array([[0, 7, 3]], np.float32), valid, 0)
    assert 0 < moved[0, 0] < 1e-30
    assert with_nodata(np.array([[9, 7, 3]], np.uint8), valid, None).tolist() == [[9, 7, 0]]
    assert np.isnan(with_nodata(np.array([[9, 7, 3]], np.float32), valid, None)).tolist() == [[False, False, True]]


def test_what_counts_as_no_data(tmp_path):
    """One band at a value that could be measured is data; one at a value that could not be, is none."""
    make(tmp_path / "a.tif", noise(dtype="int16", high=9000), nodata=0)
    with open_raster(tmp_path / "a.tif") as raster:
        inside = plan_reading(raster, value_range=(0, 10000))
        outside = plan_reading(raster, value_range=(1, 10000))
    rgb = np.array([[[0, 0, 5]], [[0, 8, 5]], [[0, 9, 5]]], np.int16)
    assert has_data(rgb, inside).tolist() == [[False, True, True]]
    assert has_data(rgb, outside).tolist() == [[False, False, True]]


def test_holes_are_filled_with_the_nearest_colours():
    picture = np.arange(40, dtype=np.uint8).reshape(5, 8, 1).repeat(3, 2)
    valid = np.ones((5, 8), bool)
    valid[:, 4:] = False
    assert np.array_equal(fill(picture, valid)[..., 0], picture[..., 0][:, [0, 1, 2, 3, 3, 3, 3, 3]])
    assert np.array_equal(fill(picture, np.ones((5, 8), bool)), picture)


def test_missing_data_hardly_changes_its_neighbours(tmp_path, collar):
    """As against a network that would see the nodata value: black holes with hard edges."""
    y, x = np.mgrid[0:150, 0:200]
    scene = np.stack([160 + 40 * np.sin(x / 23), 150 + 40 * np.cos(y / 19), 140 + 0 * x]).astype(np.uint8)
    holed = np.where(collar, 0, scene).astype(np.uint8)
    translator = Translator(Neighbours(), device="cpu", tile=256)
    nirs = {}
    for name, rgb, nodata in (("scene", scene, None), ("known", holed, 0), ("unknown", holed, None)):
        translate_raster(make(tmp_path / "a.tif", rgb, nodata=nodata), tmp_path / "b.tif", translator)
        nirs[name] = read(tmp_path / "b.tif")[0].astype(float)
    known, unknown = (np.abs(nirs[name] - nirs["scene"])[~collar] for name in ("known", "unknown"))
    assert known.max() <= 3
    assert unknown.max() > 5 * known.max()
    # And not at all out of the network's reach.
    far = np.ones_like(collar)
    for y, x in np.argwhere(collar)[::7]:
        far[max(0, y - 40) : y + 40, max(0, x - 40) : x + 40] = False
    assert far.any()
    assert np.array_equal(nirs["known"][far], nirs["scene"][far])


def test_where_nothing_is_the_network_is_not_asked(tmp_path, translator):
    rgb = np.zeros((3, 200, 200), np.uint8)
    translate_raster(make(tmp_path / "a.tif", rgb, nodata=0), tmp_path / "b.tif", translator)
    assert translator.model.tiles == 0
    assert not read(tmp_path / "b.tif").any()


@pytest.mark.parametrize("output", ["nir", "rgbnir", "ndvi"])
def test_an_internal_mask_is_kept(tmp_path, translator, collar, output):
    rgb = noise(*collar.shape, low=0)
    make(tmp_path / "a.tif", rgb, mask=(~collar).astype(np.uint8) * 255)
    translate_raster(tmp_path / "a.tif", tmp_path / "b.tif", translator, output=output)
    with rasterio.open(tmp_path / "b.tif") as after:
        assert np.array_equal(after.dataset_mask() == 0, collar)
        if output == "nir":
            assert np.array_equal(after.read(1), np.where(collar, 0, rgb[1]))
    assert names(tmp_path) == ["a.tif", "b.tif"]


@pytest.mark.parametrize("output", ["nir", "rgbnir", "ndvi"])
@pytest.mark.parametrize("cog", [False, True])
def test_alpha_is_kept(tmp_path, translator, collar, output, cog):
    alpha = np.where(collar, 0, 255).astype(np.uint8)
    alpha[70, 7] = 128
    rgba = np.concatenate([noise(*collar.shape), alpha[None]])
    make(tmp_path / "a.tif", rgba, colours=(*RGB, ColorInterp.alpha))
    translate_raster(tmp_path / "a.tif", tmp_path / "b.tif", translator, output=output, cog=cog)
    with rasterio.open(tmp_path / "b.tif") as after:
        assert np.array_equal(after.dataset_mask() == 0, collar)
        if output != "ndvi":
            assert after.colorinterp.index(ColorInterp.alpha) == after.count - 1
            assert np.array_equal(after.read(after.count), alpha)
            assert np.array_equal(after.read(after.count - 1)[~collar], rgba[1][~collar])


def test_near_infrared_labelled_alpha_hides_nothing(tmp_path, translator, caplog):
    bands = noise(count=4, low=0)
    make(tmp_path / "a.tif", bands, colours=(*RGB, ColorInterp.alpha))
    with caplog.at_level(logging.WARNING, "pix2next"):
        translate_raster(tmp_path / "a.tif", tmp_path / "b.tif", translator, output="rgbnir")
    assert "band 4 is labelled alpha but holds all kinds of values" in caplog.text
    assert np.array_equal(read(tmp_path / "b.tif"), bands[[0, 1, 2, 1]])


def test_pixels_that_are_no_numbers_stay_so(tmp_path, translator, collar):
    rgb = with_collar(collar, 0.5, "float32", low=0, high=1)
    rgb[0, collar] = np.nan
    rgb[1, 0, 199] = np.inf
    translate_raster(make(tmp_path / "a.tif", rgb), tmp_path / "b.tif", translator)
    collar[0, 199] = True
    assert np.array_equal(np.isnan(read(tmp_path / "b.tif")[0]), collar)


# --- values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_depth_and_scale_are_kept(tmp_path, translator, dtype):
    rgb = noise(dtype=dtype, low=0, high=120)
    make(tmp_path / "a.tif", rgb)
    translate_raster(tmp_path / "a.tif", tmp_path / "b.tif", translator, value_range=(-7, 130))
    nir = read(tmp_path / "b.tif")[0]
    assert nir.dtype == rgb.dtype
    assert np.abs(nir - rgb[1].astype(float)).max() < 1e-4
    translate_raster(tmp_path / "a.tif", tmp_path / "b.tif", translator, value_range=(20, 50))
    assert np.abs(read(tmp_path / "b.tif")[0] - rgb[1].clip(20, 50).astype(float)).max() < 1e-4


def stated(path):
    with open_raster(path) as raster:
        return plan_reading(raster).value_range


def test_the_range_is_what_the_file_or_its_depth_says(tmp_path):
    assert stated(make(tmp_path / "a.tif", noise(high=90))) == (0, 255)
    assert stated(make(tmp_path / "a.tif", noise(dtype="uint16", high=60000))) == (0, 65535)
    assert stated(make(tmp_path / "a.tif", noise(dtype="uint16", high=4000), nbits=12)) == (0, 4095)
    assert stated(make(tmp_path / "a.tif", noise(dtype="float32", low=0.2, high=0.3))) == (0, 1)

    def scale(raster):
        raster.scales, raster.offsets = (0.0001,) * 3, (-0.1,) * 3

    low, high = stated(make(tmp_path / "a.tif", noise(dtype="uint16", low=1000, high=9000), change=scale))
    assert (low, high) == (pytest.approx(1000), pytest.approx(11000))


def test_a_translators_own_range_counts(tmp_path):
    rgb = noise(dtype="int16", high=900)
    translator = Translator(Green(), device="cpu", value_range=(0, 500))
    translate_raster(make(tmp_path / "a.tif", rgb), tmp_path / "b.tif", translator)
    assert np.array_equal(read(tmp_path / "b.tif")[0], rgb[1].clip(0, 500))


def test_dark_16_bits_are_translated_with_a_warning(tmp_path, translator, caplog):
    rgb = noise(dtype="uint16", high=3000)
    with caplog.at_level(logging.WARNING, "pix2next"):
        translate_raster(make(tmp_path / "a.tif", rgb), tmp_path / "b.tif", translator)
    assert "nearly all values lie below 13107" in caplog.text
    assert "--range 0 10000" in caplog.text
    assert np.array_equal(read(tmp_path / "b.tif")[0], rgb[1])
    caplog.clear()
    translate_raster(tmp_path / "a.tif", tmp_path / "b.tif", translator, value_range=(0, 10000))
    assert caplog.text == ""


def test_ndvi_by_hand():
    fake = np.array([[1.0, -1.0, 0.0, -1.0, 5.0]], np.float32)  # Reflectance 1, 0, 0.5, 0, clipped 1.
    red = np.array([[1000, 11000, 3500, 0, 6000]], np.uint16)  # 0, 1, 0.25, clipped 0, 0.5
    expected = [1, -1, 0.25 / 0.75, 0, 0.5 / 1.5]
    assert ndvi(fake, red, (1000, 11000))[0].tolist() == pytest.approx(expected)


# --- which bands ------------------------------------------------------------------------------------------------


def chosen(path, bands=None):
    with open_raster(path) as raster:
        return plan_reading(raster, bands).bands


def test_bands_by_colour_by_description_and_by_name(tmp_path, translator):
    def describe(*texts):
        return lambda raster: [raster.set_band_description(i, text) for i, text in enumerate(texts, 1)]

    grey = (ColorInterp.gray, *[ColorInterp.undefined] * 4)
    five = noise(count=5)
    assert chosen(make(tmp_path / "a.tif", noise(), colours=RGB[::-1])) == (3, 2, 1)
    texts = ("Blue", "B3 (green, 560 nm)", "R", "Red Edge 1", "NIR")
    make(tmp_path / "b.tif", five, colours=grey, change=describe(*texts))
    assert chosen(tmp_path / "b.tif") == (3, 2, 1)
    assert chosen(tmp_path / "b.tif", (5, 4, 2)) == (5, 4, 2)
    make(tmp_path / "c.tif", five, colours=grey, change=describe("Red Edge 1", "green", "blue", "B4", ""))
    with pytest.raises(ImageError, match="does not say which of its 5 bands are red, green and blue; .*--bands 1,2,3"):
        chosen(tmp_path / "c.tif")
    with pytest.raises(ImageError, match="--bands 1,1,1"):
        chosen(make(tmp_path / "d.tif", noise(count=1), colours=grey[:1]))
    translate_raster(tmp_path / "d.tif", tmp_path / "nir.tif", translator, bands=(1, 1, 1), output="rgbnir")
    assert np.array_equal(read(tmp_path / "nir.tif"), read(tmp_path / "d.tif").repeat(4, 0))


# --- what goes along --------------------------------------------------------------------------------------------


def test_tags_scales_and_descriptions_go_along(tmp_path, translator):
    def change(raster):
        raster.update_tags(PLACE="nowhere", AREA_OR_POINT="Point")
        raster.update_tags(ns="FLIGHT", PILOT="nobody")
        raster.update_tags(2, WAVELENGTH="560")
        raster.set_band_description(2, "green")
        raster.scales, raster.offsets, raster.units = (0.5,) * 3, (2.0,) * 3, ("m",) * 3

    make(tmp_path / "a.tif", noise(), change=change)
    translate_raster(
        tmp_path / "a.tif", tmp_path / "b.tif", translator, output="rgbnir", value_range=(0, 255), model="green"
    )
    with rasterio.open(tmp_path / "a.tif") as before, rasterio.open(tmp_path / "b.tif") as after:
        assert after.tags().items() >= before.tags().items()
        assert after.tags()["PIX2NEXT_MODEL"] == "green"
        assert after.tags(ns="FLIGHT") == {"PILOT": "nobody"}
        assert (after.transform, after.crs) == (before.transform, before.crs)
        assert after.tags(2) == {"WAVELENGTH": "560"}
        assert after.descriptions == (None, "green", None, "synthetic NIR")
        assert (after.scales, after.offsets, after.units) == ((0.5,) * 4, (2.0,) * 4, ("m",) * 4)


@pytest.mark.parametrize("cog", [False, True])
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_ground_control_points_and_rational_polynomials(tmp_path, translator, cog):
    points = [
        GroundControlPoint(row, col, 10 + col / 100, 20 - row / 100, 3) for row, col in ((0, 0), (0, 99), (80, 5))
    ]
    numbers = [float(i) for i in range(20)]
    rpcs = RPC(
        height_off=1.0, height_scale=2.0, lat_off=3.0, lat_scale=4.0, line_den_coeff=numbers, line_num_coeff=numbers,
        line_off=5.0, line_scale=6.0, long_off=7.0, long_scale=8.0, samp_den_coeff=numbers, samp_num_coeff=numbers,
        samp_off=9.0, samp_scale=10.0,
    )  # fmt: skip

    def change(raster):
        raster.gcps, raster.rpcs = (points, rasterio.crs.CRS.from_epsg(4326)), rpcs

    make(tmp_path / "a.tif", noise(), change=change, crs=None, transform=None)
    translate_raster(tmp_path / "a.tif", tmp_path / "b.tif", translator, cog=cog)
    with rasterio.open(tmp_path / "a.tif") as before, rasterio.open(tmp_path / "b.tif") as after:
        assert after.gcps[1] == before.gcps[1]
        assert [(p.row, p.col, p.x, p.y, p.z) for p in after.gcps[0]] == [(p.row, p.col, p.x, p.y, p.z) for p in points]
        assert after.rpcs.to_dict() == before.rpcs.to_dict()


def test_overviews_are_as_many_and_made_of_valid_pixels(tmp_path, translator, collar):
    make(tmp_path / "a.tif", with_collar(collar, 0, low=100), nodata=0)
    with rasterio.open(tmp_path / "a.tif", "r+") as raster:
        raster.build_overviews([2, 8], Resampling.average)
    translate_raster(tmp_path / "a.tif", tmp_path / "b.tif", translator)
    with rasterio.open(tmp_path / "b.tif") as after:
        assert after.overviews(1) == [2, 8]
    with rasterio.open(tmp_path / "b.tif", overview_level=0) as half:
        values = half.read(1)
        assert half.shape == (75, 100)
        assert (values == 0).any()
        assert values[values > 0].min() >= 100


@pytest.mark.parametrize("compress", ["deflate", "lzw", "zstd", "none"])
@pytest.mark.parametrize("cog", [False, True])
def test_compression_and_cloud_optimised(tmp_path, translator, compress, cog):
    rgb = noise(600, 700)
    translate_raster(make(tmp_path / "a.tif", rgb), tmp_path / "b.tif", translator, compress=compress, cog=cog)
    with rasterio.open(tmp_path / "b.tif") as after:
        assert (kind(after) == "COG") == cog
        assert after.profile.get("compress", "none") == compress
        assert after.profile["tiled"]
        assert np.array_equal(after.read(1), rgb[1])
    assert names(tmp_path) == ["a.tif", "b.tif"]


# --- what goes wrong --------------------------------------------------------------------------------------------


def test_what_is_refused_in_one_sentence(tmp_path, translator):
    good = make(tmp_path / "good.tif", noise())
    (tmp_path / "text.tif").write_text("no raster")
    complex_ = make(tmp_path / "complex.tif", noise().astype("complex64"))
    palette = make(tmp_path / "palette.tif", noise(count=1), colours=(ColorInterp.palette,), photometric="PALETTE",
                   change=lambda raster: raster.write_colormap(1, {0: (1, 2, 3, 255)}))  # fmt: skip
    signed = make(tmp_path / "signed.tif", noise(dtype="int16"))
    reflectance = make(tmp_path / "reflectance.tif", noise(dtype="float32", high=9000))
    out = tmp_path / "out.tif"
    for source, target, options, kind_of_error, words in (
        (tmp_path / "text.tif", out, {}, ImageError, "text.tif is no raster that can be read"),
        (tmp_path / "absent.tif", out, {}, ImageError, "No such file"),
        (tmp_path, out, {}, ImageError, "is no raster that can be read"),
        (good, tmp_path / "out.png", {}, ImageError, "rasters are written as GeoTIFF"),
        (good, good, {}, ImageError, "overwritten by its own translation"),
        (good, good / "out.tif", {}, ImageError, "cannot write"),
        (good, out, {"bands": (1, 2, 4)}, ConfigError, "bands 1,2,4 are not three of 1 to 3"),
        (good, out, {"bands": (1, 2)}, ConfigError, "bands 1,2 are not three"),
        (good, out, {"output": "nvdi"}, ConfigError, "output nvdi is unknown; known are nir, rgbnir, ndvi"),
        (good, out, {"compress": "jpeg"}, ConfigError, "jpeg is not written; known are deflate"),
        (good, out, {"value_range": (9, 3)}, ConfigError, "range of values"),
        (complex_, out, {}, ImageError, "bands of complex64; give three of one kind of real numbers"),
        (palette, out, {}, ImageError, "numbers of a palette"),
        (signed, out, {}, ImageError, "int16 pixels, which have no usual range; give --range"),
        (reflectance, out, {}, ImageError, "beyond the range 0 to 1 that it would have by default; give --range"),
    ):
        before = names(tmp_path)
        with pytest.raises(kind_of_error, match=words) as raised:
            translate_raster(source, target, translator, **options)
        assert "\n" not in str(raised.value)
        assert names(tmp_path) == before


def test_a_raster_that_is_cut_short_leaves_what_was_there(tmp_path, translator):
    make(tmp_path / "a.tif", noise(400, 300))
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: len(content) // 2])
    (tmp_path / "b.tif").write_text("before")
    with pytest.raises(ImageError, match=r"a\.tif is damaged or cut short"):
        translate_raster(tmp_path / "a.tif", tmp_path / "b.tif", translator)
    assert (tmp_path / "b.tif").read_text() == "before"
    assert names(tmp_path) == ["a.tif", "b.tif"]


@pytest.mark.parametrize("cog", [False, True])
def test_a_network_that_fails_leaves_nothing(tmp_path, cog):
    model = nn.Conv2d(3, 1, 1)
    model.multiple = 8
    nn.init.constant_(model.weight, torch.nan)
    with pytest.raises(WeightsError, match="NaN"):
        translate_raster(
            make(tmp_path / "a.tif", noise()), tmp_path / "b.tif", Translator(model, device="cpu"), cog=cog
        )
    assert names(tmp_path) == ["a.tif"]


class LittleMemory(Green):
    def forward(self, rgb):
        if max(rgb.shape[2:]) > 70 and self.tiles > 3:
            raise MemoryError
        return super().forward(rgb)


def test_out_of_memory_begins_anew_with_smaller_tiles(tmp_path):
    rgb = noise(400, 300)
    translator = Translator(LittleMemory(), device="cpu", tile=128)
    translate_raster(make(tmp_path / "a.tif", rgb), tmp_path / "b.tif", translator)
    assert translator.tile == 64
    assert np.array_equal(read(tmp_path / "b.tif")[0], rgb[1])


@pytest.mark.parametrize("cog", [False, True])
def test_a_full_disk_is_noticed_at_any_point(tmp_path, translator, cog):
    resource = pytest.importorskip("resource", reason="a limit for files stands in for a full disk")
    source, target = make(tmp_path / "a.tif", noise(600, 600)), tmp_path / "b.tif"
    translate_raster(source, target, translator, output="rgbnir", cog=cog)
    size = target.stat().st_size
    target.unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (2000, size // 3, size - 5000, size - 200, size - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(ImageError, match=f"cannot write {target}"):
                translate_raster(source, target, translator, output="rgbnir", cog=cog)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert names(tmp_path) == ["a.tif"]


def test_a_killed_run_leaves_what_was_there_before(tmp_path):
    make(tmp_path / "a.tif", noise(2000, 1500))
    (tmp_path / "b.tif").write_text("before")
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from large_raster import *; "
        f"torch.set_num_threads(1); print(flush=True); translate({str(tmp_path / 'a.tif')!r}, "
        f"{str(tmp_path / 'b.tif')!r}, 64, 'nir', False)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        while process.poll() is None and len(names(tmp_path)) == 2:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "b.tif").read_text() == "before"
    left = [name for name in names(tmp_path) if name not in ("a.tif", "b.tif")]
    assert all(name.startswith(".") for name in left)


def test_without_rasterio_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(ConfigError, match=r"which is not here; pip install 'pix2next\[geo\]'"):
        runpy.run_path(raster_reading.__file__)


# --- folders, and the verb --------------------------------------------------------------------------------------


def test_a_folder_keeps_its_tree_and_goes_on_past_a_bad_one(tmp_path, translator):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    make(tmp_path / "in" / "a.tif", noise())
    make(tmp_path / "in" / "deep" / "b.TIFF", noise())
    (tmp_path / "in" / "bad.tif").write_text("no raster")
    (tmp_path / "in" / "notes.txt").touch()
    seen = []
    result = translate_rasters(
        tmp_path / "in", tmp_path / "out", translator, output="ndvi", on_progress=lambda *now: seen.append(now)
    )
    assert result.done == 2
    assert [path for path, _ in result.failed] == [str(tmp_path / "in" / "bad.tif")]
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert read(tmp_path / "out" / "deep" / "b.TIFF").dtype == np.float32
    assert names(tmp_path / "out") == ["a.tif", "deep"]
    with pytest.raises(ImageError, match="lies in"):
        translate_rasters(tmp_path / "in", tmp_path / "in" / "out", translator)
    shutil.copy(tmp_path / "in" / "a.tif", tmp_path / "in" / "a.jp2")
    with pytest.raises(ImageError, match="would both be written to"):
        translate_rasters(tmp_path / "in", tmp_path / "out", translator)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="no rasters in this folder"):
        translate_rasters(tmp_path / "empty", tmp_path / "out", translator)


def run(*arguments):
    return command.run("translate-raster", *arguments)


@pytest.fixture
def quick(monkeypatch, translator):
    monkeypatch.setattr(Translator, "from_pretrained", lambda *_, **__: translator)


def test_the_verb_writes_says_and_fails(tmp_path, quick):
    (tmp_path / "in").mkdir()
    bands = noise(count=4, dtype="uint16", high=10000)
    source = make(tmp_path / "in" / "a.tif", bands, colours=(ColorInterp.gray, *[ColorInterp.undefined] * 3))
    asked = run(source, tmp_path / "b.tif")
    assert asked.exit_code == 2
    assert asked.stderr.startswith(f"error: {source} does not say which")
    assert asked.stderr.count("\n") == 1
    settings = ("--bands", "3,2,1", "--range", 0, 10000)
    done = run(source, tmp_path / "b.tif", *settings, "--output", "rgbnir", "--compress", "lzw", "--cog")
    assert done.exit_code == 0, done.stderr
    assert done.stderr == f"written to {tmp_path / 'b.tif'}\n"
    with rasterio.open(tmp_path / "b.tif") as after:
        assert np.array_equal(after.read(), bands[[2, 1, 0, 1]])
        assert after.tags()["PIX2NEXT_RANGE"] == "0 10000"
        assert after.tags()["PIX2NEXT_MODEL"] == DEFAULT_MODEL
        assert kind(after) == "COG"
    (tmp_path / "in" / "bad.tif").write_text("no raster")
    some = run(tmp_path / "in", tmp_path / "out", *settings)
    assert some.exit_code == 1
    assert "skipped: " in some.stderr
    assert names(tmp_path / "out") == ["a.tif"]
    into = run(source, tmp_path / "out", *settings, "--output", "ndvi")
    assert into.exit_code == 0, into.stderr
    assert read(tmp_path / "out" / "a.tif").dtype == np.float32
    wrong = run(source, tmp_path / "b.tif", "--bands", "r,g,b")
    assert (wrong.exit_code, wrong.stderr.count("\n")) == (2, 1)
