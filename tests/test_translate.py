"""Translator: any picture in, the same size and depth out, whatever the tiles; and no seams on real photos."""

import logging
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pix2next.errors import ConfigError, ImageError, WeightsError
from pix2next.images import luma, read_rgb
from pix2next.model.pix2next import DEFAULT_MODEL, shipped_models
from pix2next.translate import Translator, as_picture, pick_device


class Luma(nn.Module):
    """A network that sees one pixel: what comes out must be the same for any tile."""

    multiple = 8

    def __init__(self, channels=1):
        super().__init__()
        self.channels = channels
        self.sizes = []

    def forward(self, rgb):
        self.sizes.append(tuple(rgb.shape))
        assert all(side % self.multiple == 0 for side in rgb.shape[2:])
        grey = (rgb * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
        offsets = torch.linspace(-0.3, 0.3, self.channels) if self.channels > 1 else torch.zeros(1)
        return grey + offsets.view(1, -1, 1, 1)


class Neighbours(nn.Module):
    """A network with strides and a receptive field of some 30 pixels."""

    multiple = 8

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.SiLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.SiLU())
        self.up = nn.Sequential(nn.Upsample(scale_factor=4, mode="bilinear"), nn.Conv2d(8, 1, 3, 1, 1), nn.Tanh())

    def forward(self, rgb):
        return self.up(self.down(rgb))


GPU_FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


class LittleMemory(Luma):
    """Has memory for tiles of at most `limit` pixels a side."""

    def __init__(self, limit, error=GPU_FULL):
        super().__init__()
        self.limit, self.error = limit, error

    def forward(self, rgb):
        if max(rgb.shape[2:]) > self.limit:
            raise self.error
        return super().forward(rgb)


def noise(*shape, dtype=np.uint8):
    draw = np.random.default_rng(0)
    return (
        draw.random(shape).astype(dtype)
        if np.dtype(dtype).kind == "f"
        else draw.integers(0, 2**16, shape).astype(dtype)
    )


def near(nir, expected):
    """Equal but for rounding."""
    step = 1 if nir.dtype.kind == "u" else 1e-6
    return np.abs(nir.astype(float) - expected.astype(float)).max() <= step


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64, np.dtype(">u2")])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 8), (37, 211), (257, 131)])
def test_size_and_depth_are_the_inputs(size, dtype):
    rgb = noise(*size, 3, dtype=dtype)
    nir = Translator(Luma(), device="cpu", tile=64)(rgb)
    assert (nir.shape, nir.dtype) == (size, dtype)
    assert near(nir, rgb @ np.array([0.299, 0.587, 0.114]))


@pytest.mark.parametrize(
    ("dtype", "limits"),
    [(np.uint16, (0.0, 4095.0)), (np.float32, (-100.0, 9000.0)), (np.float64, (5.0, 6.0)), (np.uint8, (16.0, 235.0))],
)
def test_a_range_of_values_is_that_of_the_result_too(dtype, limits):
    low, high = limits
    rgb = (low + (high - low) * noise(100, 150, 3, dtype=np.float64)).astype(dtype)
    nir = Translator(Luma(), device="cpu", tile=64, value_range=limits)(rgb)
    assert nir.dtype == dtype
    expected = rgb @ np.array([0.299, 0.587, 0.114])
    assert np.abs(nir - expected).max() <= (1 if nir.dtype.kind == "u" else (high - low) * 1e-5)


def test_a_range_goes_for_files_pillow_images_and_many_at_once(tmp_path):
    deep = noise(21, 34, dtype=np.uint16) % 4096
    cv2.imwrite(str(tmp_path / "a.png"), deep)
    translator = Translator(Luma(), device="cpu", value_range=(0.0, 4095.0))
    for nir in (translator(tmp_path / "a.png"), translator(Image.fromarray(deep)), *translator.many([deep, deep])):
        assert nir.dtype == np.uint16
        assert near(nir, deep)
    floats = Image.fromarray(deep.astype(np.float32))
    assert np.abs(translator(floats) - deep).max() < 0.05


@pytest.mark.parametrize("limits", [(1.0, 0.0), (0.0, float("nan"))])
def test_what_is_no_range(limits):
    with pytest.raises(ConfigError, match="from a lower to a higher"):
        Translator(Luma(), device="cpu", value_range=limits)


def test_a_range_that_the_picture_cannot_have():
    with pytest.raises(ImageError, match="uint8 pixels hold 0 to 255, not the range 0 to 4095"):
        Translator(Luma(), device="cpu", value_range=(0.0, 4095.0))(noise(5, 6, 3))
    with pytest.raises(ImageError, match="NaN"):
        Translator(Luma(), device="cpu", value_range=(0.0, 4095.0))(np.full((5, 6), np.nan))


def test_a_masked_array_counts_with_all_its_values():
    rgb = noise(9, 14, 3, dtype=np.float64)
    nir = Translator(Luma(), device="cpu")(np.ma.masked_greater(rgb, 0.5))
    assert type(nir) is np.ndarray
    assert near(nir, rgb @ np.array([0.299, 0.587, 0.114]))


def test_a_large_picture_is_the_same_in_tiles():
    rgb = noise(2000, 3000, 3)
    nir = Translator(Luma(), device="cpu", batch_size=2)(rgb)
    assert nir.shape == (2000, 3000)
    assert near(nir, luma(rgb))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_grey_stands_for_three_equal_channels_and_the_fourth_is_left_out(dtype):
    grey, rgba = noise(30, 50, dtype=dtype), noise(30, 50, 4, dtype=dtype)
    translator = Translator(Luma(), device="cpu")
    assert near(translator(grey), grey)
    assert np.array_equal(translator(grey[..., None]), translator(grey))
    assert np.array_equal(translator(rgba), translator(rgba[..., :3]))


def test_three_output_channels_are_averaged():
    rgb = noise(20, 30, 3, dtype=np.float32) * 0.4 + 0.3
    assert near(Translator(Luma(channels=3), device="cpu")(rgb), luma(rgb))


def test_files_and_pillow_images(tmp_path):
    rgb, translator = noise(21, 34, 3), Translator(Luma(), device="cpu")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgb).save(tmp_path / "a.png", exif=exif)
    upright = translator(np.rot90(rgb, -1))
    assert upright.shape == (34, 21)
    assert np.array_equal(translator(tmp_path / "a.png"), upright)
    assert np.array_equal(translator(str(tmp_path / "a.png")), upright)
    with Image.open(tmp_path / "a.png") as picture:
        assert np.array_equal(translator(picture), upright)
    for mode in ("L", "1", "P", "RGBA", "CMYK"):
        assert translator(Image.fromarray(rgb).convert(mode)).shape == (21, 34)
    deep = noise(21, 34, dtype=np.uint16)
    assert near(translator(Image.fromarray(deep)), deep)
    assert translator(Image.fromarray(deep)).dtype == np.uint16


def test_one_pass_if_it_fits_and_equal_tiles_if_not():
    model = Luma()
    translator = Translator(model, device="cpu", tile=128, batch_size=3)
    translator(noise(128, 121, 3))
    assert model.sizes == [(1, 3, 128, 128)]
    model.sizes.clear()
    translator(noise(100, 500, 3))
    assert {size[1:] for size in model.sizes} == {(3, 104, 128)}
    assert max(size[0] for size in model.sizes) == 3


@pytest.mark.parametrize("tile", [64, 96, 200])
def test_tiles_agree_with_one_pass(tile):
    y, x = np.mgrid[0:300, 0:417]
    waves = [np.sin(x / 9 + y / 31), np.cos(y / 7), np.sin(x / 5 - y / 11)]
    rgb = (np.stack(waves, -1) * 0.4 + 0.5).astype(np.float32)
    whole = Translator(Neighbours(), device="cpu", tile=1024)(rgb)
    tiled = Translator(Neighbours(), device="cpu", tile=tile)(rgb)
    assert whole.std() > 0.01
    assert np.abs(tiled - whole).max() < 0.05 * whole.std()


def test_the_result_does_not_depend_on_the_batch_size():
    rgb = noise(200, 300, 3, dtype=np.float32)
    one, many = (Translator(Neighbours(), device="cpu", tile=64, batch_size=size)(rgb) for size in (1, 7))
    assert np.abs(one - many).max() < 1e-6


# --- out of memory ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        GPU_FULL,
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_tile_says_so_and_remembers(caplog, error):
    model = LittleMemory(140, error)
    translator = Translator(model, device="cpu", tile=512)
    rgb = noise(300, 400, 3)
    with caplog.at_level(logging.WARNING, "pix2next"):
        nir = translator(rgb)
    assert near(nir, luma(rgb))
    assert [record.getMessage() for record in caplog.records] == [
        "out of memory with tiles of 400 pixels; going on with 200",
        "out of memory with tiles of 200 pixels; going on with 96",
    ]
    caplog.clear()
    translator(rgb)
    assert (translator.tile, caplog.records) == (96, [])


def test_too_little_memory_for_the_smallest_tile():
    with pytest.raises(ImageError, match="too little memory for a 400 x 300 picture even in tiles of 64 pixels"):
        Translator(LittleMemory(10), device="cpu")(noise(300, 400, 3))


def test_other_errors_pass_through():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        Translator(LittleMemory(10, RuntimeError("mat1 and mat2 shapes cannot be multiplied")), device="cpu")(
            noise(20, 20)
        )


LARGE = """
import resource, sys
import numpy as np, torch
from torch import nn
import pix2next
from pix2next.images import write_nir
from pix2next.translate import Translator
torch.set_num_threads(1)
model = nn.Conv2d(3, 1, 1)
model.multiple = 32
nir = Translator(model, device="cpu")(sys.argv[1])
write_nir(sys.argv[2], nir)
print(nir.shape, nir.dtype, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_80_megapixels_in_under_3_gb(tmp_path):
    pytest.importorskip("resource", reason="peak memory is measured with the Unix module resource")
    cv2.imwrite(str(tmp_path / "large.jpg"), np.full((8000, 10_000, 3), 90, np.uint8))
    command = [sys.executable, "-c", LARGE, tmp_path / "large.jpg", tmp_path / "nir.jpg"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    shape, kilobytes = said.rpartition(" ")[::2]
    assert shape == "(8000, 10000) uint8"
    assert int(kilobytes) * (1 if sys.platform == "darwin" else 1024) < 3e9


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (np.zeros(5, np.uint8), r"shape \(5,\) is no picture"),
        (np.zeros((3, 40, 50), np.uint8), r"give \[h, w\], \[h, w, 3\] or \[h, w, 4\]"),
        (np.zeros((4, 5, 2), np.uint8), "is no picture"),
        (np.zeros((1, 4, 5, 3), np.uint8), "is no picture"),
        (np.zeros((4, 5, 3), np.int32), "array of int32 is no picture"),
        (np.zeros((4, 5, 3), np.float16), "give uint8, uint16, float32 or float64"),
        (np.zeros((4, 5), bool), "array of bool"),
        (np.full((4, 5, 3), np.nan, np.float32), "NaN"),
        (np.full((4, 5, 3), 100.0), "scale them to"),
    ],
)
def test_arrays_that_are_no_pictures(array, words):
    with pytest.raises(ImageError, match=words):
        Translator(Luma(), device="cpu")(array)


def test_other_things_that_are_no_pictures(tmp_path):
    with pytest.raises(ImageError, match="a list is no picture"):
        as_picture([[1, 2], [3, 4]])
    with pytest.raises(ImageError, match="a Tensor is no picture"):
        as_picture(torch.zeros(3, 4, 5))
    with pytest.raises(ImageError, match="mode I,"):
        as_picture(Image.new("I", (4, 5)))
    Image.fromarray(noise(90, 80, 3)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:3000])
    with Image.open(tmp_path / "a.jpg") as picture, pytest.raises(ImageError, match="cut short"):
        as_picture(picture)


def test_a_broken_network_is_told_apart_from_a_broken_picture():
    model = nn.Conv2d(3, 1, 1)
    model.multiple = 8
    nn.init.constant_(model.weight, torch.nan)
    with pytest.raises(WeightsError, match="NaN"):
        Translator(model, device="cpu")(noise(5, 5, 3))


@pytest.mark.parametrize("name", ["cdua", "cuda:99", "meta:x", "meta"])
def test_devices_that_are_not_there(name):
    with pytest.raises(ConfigError, match=f"device '{name}' cannot be used here"):
        pick_device(name)


def test_devices():
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cuda", "mps", "cpu")


@pytest.mark.parametrize(("tile", "batch_size"), [(0, 1), (64, 0), (-5, 1)])
def test_numbers_below_one(tile, batch_size):
    with pytest.raises(ConfigError, match="at least 1"):
        Translator(Luma(), device="cpu", tile=tile, batch_size=batch_size)


# --- the shipped network ----------------------------------------------------------------------------------------


def borders_of(length, translator):
    """Where, between which two neighbouring pixels, a tile begins or ends inside a picture."""
    edges = {edge for span in translator._spans(length) for edge in (span.start, span.stop)}
    return sorted(edge - 1 for edge in edges if 0 < edge < length)


@pytest.fixture(scope="module")
def shipped():
    if DEFAULT_MODEL not in shipped_models():
        pytest.skip(f"{DEFAULT_MODEL} is not among the shipped models")
    return Translator.from_pretrained(device="cpu", tile=256)


@pytest.mark.parametrize("size", [(1, 1), (37, 211), (257, 131)])
def test_the_shipped_network_takes_any_size(shipped, size):
    for dtype in (np.uint8, np.uint16):
        nir = shipped(noise(*size, 3, dtype=dtype))
        assert (nir.shape, nir.dtype) == (size, dtype)


def jumps_at_borders(picture, translator):
    """Mean jump between neighbouring pixels across tile borders, and that anywhere else."""
    across, elsewhere = [], []
    for axis, length in enumerate(picture.shape):
        jumps = np.abs(np.diff(picture.astype(float), axis=axis)).mean(axis=1 - axis)
        borders = borders_of(length, translator)
        across.append(jumps[borders])
        elsewhere.append(np.delete(jumps, borders))
    return np.concatenate(across).mean(), np.concatenate(elsewhere).mean()


def test_no_seams_on_real_photos(shipped, outdoor):
    """Across tile borders pixels differ as they do elsewhere.

    A photo has calm and busy lines of its own, so the measure is what the same lines are like without tiles.
    """
    tiled, whole = (Translator(shipped.model, device="cpu", tile=tile) for tile in (128, 1024))
    ratios = []
    for path in sorted((outdoor / "test" / "rgb").iterdir())[::8]:
        rgb = read_rgb(path)
        (across, elsewhere), (same_lines, others) = (jumps_at_borders(t(rgb), tiled) for t in (tiled, whole))
        ratios.append((across / elsewhere) / (same_lines / others))
    assert 0.97 < np.mean(ratios) < 1.03


# --- several at once --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_several_of_one_size_go_through_at_once(dtype):
    model = Luma(channels=3)
    translator = Translator(model, device="cpu", tile=64)
    pictures = [(noise(30, 50, 3, dtype=dtype) / number).astype(dtype) for number in (1, 2, 3)]
    nirs = translator.many(pictures)
    assert model.sizes == [(3, 3, 32, 56)]
    assert all(np.array_equal(nir, translator(picture)) for nir, picture in zip(nirs, pictures, strict=True))
    assert {nir.dtype for nir in nirs} == {np.dtype(dtype)}


def test_several_that_do_not_go_together_go_one_by_one():
    model = Luma()
    translator = Translator(model, device="cpu", tile=64)
    for pictures in ([noise(8, 8, 3), noise(8, 16, 3)], [noise(8, 8, 3), noise(8, 8)], [noise(80, 8, 3)] * 2, []):
        model.sizes.clear()
        nirs = translator.many(pictures)
        assert {size[0] for size in model.sizes} <= {1}
        assert [nir.shape for nir in nirs] == [picture.shape[:2] for picture in pictures]
    assert translator.fits(noise(64, 64, 3))
    assert not translator.fits(noise(64, 65, 3))


def test_several_that_memory_does_not_hold_go_one_by_one(caplog):
    class One(Luma):
        def forward(self, rgb):
            if len(rgb) > 1:
                raise GPU_FULL
            return super().forward(rgb)

    translator = Translator(One(), device="cpu")
    pictures = [noise(8, 8, 3), noise(8, 8, 3) // 2]
    with caplog.at_level(logging.WARNING, "pix2next"):
        nirs = translator.many(pictures)
    assert all(near(nir, luma(picture)) for nir, picture in zip(nirs, pictures, strict=True))
    assert [record.getMessage() for record in caplog.records] == [
        "out of memory with 2 pictures at once; going on with one"
    ]


def test_several_with_a_network_that_gives_nan():
    class Nan(Luma):
        def forward(self, rgb):
            return super().forward(rgb) * float("nan")

    with pytest.raises(WeightsError, match="NaN"):
        Translator(Nan(), device="cpu").many([noise(8, 8, 3)] * 2)
