"""Pixels: what is read and what is refused, the range, any size, tiles, and files that appear whole or not at all."""

import errno
import itertools
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from pix2next.errors import ConfigError, ImageError
from pix2next.images import (
    atomic_path,
    blended_bands,
    check_value_range,
    find_pictures,
    from_model_range,
    luma,
    pad_to_multiple,
    plan_spans,
    read_nir,
    read_rgb,
    to_model_range,
    write_nir,
)

UINT, INT, FLOAT = 1, 2, 3
TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
"""How a viewer shows stored pixels, by EXIF orientation (Exif 2.32, table 6: where row 0 and column 0 belong)."""


def noise(*shape, dtype=np.uint8, seed=0):
    draw = np.random.default_rng(seed)
    return (
        draw.random(shape).astype(dtype)
        if np.dtype(dtype).kind == "f"
        else draw.integers(0, 2**16, shape).astype(dtype)
    )


def smooth(height, width):
    """A gentle colour gradient, which JPEG keeps to within a few levels."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([40 + y * 150 / height, 60 + x * 150 / width, 200 - x * 90 / width], -1).astype(np.uint8)


def tiff_bytes(array, photometric=2, *, extra=(), planes=False, kind=None, more=None, order="<", bits=None):
    """One uncompressed page, `array` [h, w] or [h, w, c], with any tags."""
    height, width = array.shape[:2]
    samples = array.shape[2] if array.ndim == 3 else 1
    kind = kind or {"u": UINT, "i": INT, "f": FLOAT}[array.dtype.kind]
    stored = np.moveaxis(array, 2, 0) if planes else array
    data = stored.astype(array.dtype.newbyteorder(order)).tobytes()
    plane = len(data) // samples
    strips = [8 + plane * band for band in range(samples)] if planes else [8]
    counts = [plane] * samples if planes else [len(data)]
    tags = {
        256: [width], 257: [height], 258: [bits or array.dtype.itemsize * 8] * samples, 259: [1], 262: [photometric],
        273: strips, 277: [samples], 278: [height], 279: counts, 284: [2 if planes else 1], 339: [kind] * samples,
    }  # fmt: skip
    tags |= ({338: list(extra)} if extra else {}) | (more or {})
    start = 8 + len(data) + len(data) % 2
    after = start + 2 + 12 * len(tags) + 4
    directory, values = struct.pack(order + "H", len(tags)), b""
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(packed) > 4:
            packed, values = struct.pack(order + "I", after + len(values)), values + packed
        directory += struct.pack(order + "HHI", tag, 4, len(numbers)) + packed
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, start)
    return head + data + b"\0" * (len(data) % 2) + directory + b"\0\0\0\0" + values


def png_bytes(array, colour, *, exif=b""):
    """A 16-bit PNG of the colour type (0 grey, 2 RGB, 4 grey and alpha, 6 RGBA)."""
    height, width = array.shape[:2]

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))
        + (chunk(b"eXIf", exif) if exif else b"")
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.fixture
def file(tmp_path):
    """Writes bytes to a file and gives its path."""

    def write(data, name="picture"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def saved(path, picture, **options):
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path, **options)
    return path


# --- what is read -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (37, 211)])
@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_8_bits_are_read_as_they_are(tmp_path, suffix, size):
    rgb = noise(*size, 3)
    assert np.array_equal(read_rgb(saved(tmp_path / f"a.{suffix}", rgb)), rgb)
    grey = read_rgb(saved(tmp_path / f"b.{suffix}", rgb[..., 0]))
    assert np.array_equal(grey, np.repeat(rgb[..., :1], 3, 2))
    assert np.array_equal(read_nir(tmp_path / f"b.{suffix}"), rgb[..., 0])


def test_lossless_webp_and_the_first_frame_of_an_animation(tmp_path):
    first, second = noise(9, 11, 3), noise(9, 11, 3, seed=1)
    assert np.array_equal(read_rgb(saved(tmp_path / "a.webp", first, lossless=True)), first)
    frames = [Image.fromarray(second)]
    path = saved(tmp_path / "b.webp", first, save_all=True, append_images=frames, lossless=True)
    assert np.array_equal(read_rgb(path), first)


def test_first_page_of_a_tiff(tmp_path):
    pages = [noise(9, 11, 3), noise(5, 6, 3)]
    path = saved(tmp_path / "a.tif", pages[0], save_all=True, append_images=[Image.fromarray(pages[1])])
    assert np.array_equal(read_rgb(path), pages[0])


def test_alpha_is_left_out_and_colours_taken_as_stored(tmp_path):
    rgba = noise(13, 17, 4)
    for name in ("a.png", "a.tif"):
        assert np.array_equal(read_rgb(saved(tmp_path / name, rgba)), rgba[..., :3])
    assert np.array_equal(read_rgb(saved(tmp_path / "a.webp", rgba, lossless=True, exact=True)), rgba[..., :3])
    grey = saved(tmp_path / "la.png", Image.fromarray(rgba[..., :2].copy(), "LA"))
    assert np.array_equal(read_nir(grey), rgba[..., 0])


def test_palettes_and_single_bits(tmp_path):
    palette = Image.fromarray(noise(13, 17, 3)).quantize(8)
    for name, options in (("a.png", {}), ("b.png", {"transparency": 0}), ("c.tif", {}), ("d.bmp", {})):
        assert np.array_equal(read_rgb(saved(tmp_path / name, palette, **options)), np.asarray(palette.convert("RGB")))
    bits = noise(13, 17) > 127
    for name in ("e.png", "f.tif", "g.bmp"):
        assert np.array_equal(read_nir(saved(tmp_path / name, bits)), bits * np.uint8(255))


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_png_keeps_its_depth(file, colour, channels):
    deep = noise(37, 51, channels, dtype=np.uint16)
    rgb = read_rgb(file(png_bytes(deep, colour)))
    assert rgb.dtype == np.uint16
    assert np.array_equal(rgb, deep[..., :3] if channels > 2 else np.repeat(deep[..., :1], 3, 2))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("channels", "extra"),
    [(1, ()), (3, ()), (4, (0,)), (4, (1,)), (4, (2,))],
    ids=["grey", "rgb", "nir", "assoc", "alpha"],
)
def test_tiff_of_every_depth_and_fourth_band(file, dtype, channels, extra, order):
    array = noise(11, 13, channels, dtype=dtype)
    path = file(
        tiff_bytes(array[..., 0] if channels == 1 else array, 2 if channels > 1 else 1, extra=extra, order=order)
    )
    expected = np.float32 if np.dtype(dtype).kind == "f" else dtype
    rgb = read_rgb(path)
    assert rgb.dtype == expected
    assert np.array_equal(rgb, (array[..., :3] if channels > 1 else np.repeat(array, 3, 2)).astype(expected))
    if channels == 1:
        assert np.array_equal(read_nir(path), array[..., 0].astype(expected))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_whose_zero_is_white_is_turned_round(file, dtype):
    grey = noise(11, 13, dtype=dtype)
    assert np.array_equal(read_nir(file(tiff_bytes(grey, 0))), np.iinfo(dtype).max - grey)


def test_8_bit_tiff_stored_plane_by_plane(file):
    for channels, extra in ((3, ()), (4, (0,)), (4, (1,)), (4, (2,))):
        array = noise(11, 13, channels)
        assert np.array_equal(read_rgb(file(tiff_bytes(array, extra=extra, planes=True))), array[..., :3])


def test_compressed_tiffs(tmp_path):
    rgb = noise(40, 50, 3)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        assert np.array_equal(read_rgb(saved(tmp_path / "a.tif", rgb, compression=compression)), rgb)
    deep = noise(40, 50, 3, dtype=np.uint16)
    for compression in (1, 5, 8):  # None, LZW, deflate.
        _, data = cv2.imencode(".tif", deep[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, compression])
        (tmp_path / "b.tif").write_bytes(data)
        assert np.array_equal(read_rgb(tmp_path / "b.tif"), deep)


def test_cmyk_jpeg(tmp_path):
    cmyk = np.full((32, 48, 4), (30, 120, 200, 40), np.uint8)
    rgb = read_rgb(saved(tmp_path / "a.jpg", Image.fromarray(cmyk, "CMYK"), quality=100))
    by_hand = (255 - cmyk[0, 0, :3].astype(float)) * (255 - 40) / 255
    assert rgb.shape == (32, 48, 3)
    assert np.abs(rgb - by_hand).max() <= 3
    tiff = saved(tmp_path / "a.tif", Image.fromarray(cmyk, "CMYK"))
    assert np.abs(read_rgb(tiff) - by_hand).max() <= 1


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg(tmp_path, options):
    rgb = smooth(64, 80)
    path = saved(tmp_path / "a.jpg", rgb, quality=95, **options)
    assert np.abs(read_rgb(path).astype(int) - rgb).max() < 8
    grey = saved(tmp_path / "b.jpg", rgb[..., 0], quality=95)
    assert read_nir(grey).shape == (64, 80)


@pytest.mark.parametrize("orientation", TURNED)
def test_orientation_is_applied(tmp_path, file, orientation):
    small, large = noise(20, 31, 3), np.kron(noise(3, 4, 3), np.ones((16, 16, 1))).astype(np.uint8)
    turned, exif = TURNED[orientation], exif_of(orientation)
    jpeg = read_rgb(saved(tmp_path / "a.jpg", large, exif=exif, quality=100, subsampling=0)).astype(int)
    assert jpeg.shape == turned(large).shape
    assert np.abs(jpeg - turned(large)).max() < 6
    assert np.array_equal(read_rgb(saved(tmp_path / "a.png", small, exif=exif)), turned(small))
    assert np.array_equal(read_rgb(saved(tmp_path / "a.webp", small, exif=exif, lossless=True)), turned(small))
    assert np.array_equal(read_rgb(saved(tmp_path / "a.tif", small, tiffinfo={274: orientation})), turned(small))
    for dtype in (np.uint16, np.float32):
        deep = noise(20, 31, 3, dtype=dtype)
        assert np.array_equal(read_rgb(file(tiff_bytes(deep, more={274: [orientation]}))), turned(deep))
        assert np.array_equal(
            read_nir(file(tiff_bytes(deep[..., 0], 1, more={274: [orientation]}))), turned(deep[..., 0])
        )
    deep = noise(20, 31, 3, dtype=np.uint16)
    tags = exif.tobytes().removeprefix(b"Exif\0\0")
    assert np.array_equal(read_rgb(file(png_bytes(deep, 2, exif=tags))), turned(deep))
    assert np.array_equal(read_nir(file(png_bytes(deep[..., 0], 0, exif=tags))), turned(deep[..., 0]))


def test_damaged_exif_does_not_lose_the_picture(tmp_path):
    rgb = smooth(16, 24)
    path = saved(tmp_path / "a.jpg", rgb, exif=b"Exif\0\0" + b"MM\0*\0\0\0\x08\xff\xff garbage")
    assert read_rgb(path).shape == (16, 24, 3)


def test_nir_of_unequal_channels_is_their_mean(tmp_path):
    rgb = np.full((4, 5, 3), (10, 20, 60), np.uint8)
    assert np.array_equal(read_nir(saved(tmp_path / "a.png", rgb)), np.full((4, 5), 30, np.uint8))


def test_content_decides_not_the_name(tmp_path):
    rgb = noise(5, 6, 3)
    path = saved(tmp_path / "a.jpg", rgb, format="png")
    assert np.array_equal(read_rgb(path), rgb)
    assert np.array_equal(read_rgb(str(path)), rgb)


def test_pillow_has_no_say_in_how_large_a_picture_may_be(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", noise(30, 40, 3))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)
    assert read_rgb(path).shape == (30, 40, 3)


# --- what is refused --------------------------------------------------------------------------------------------


def whole_files(tmp_path):
    rgb, deep = smooth(300, 200), noise(60, 80, 3, dtype=np.uint16)
    for name, options in {
        "a.jpg": {}, "progressive.jpg": {"progressive": True}, "a.png": {}, "a.bmp": {}, "a.tif": {},
        "lzw.tif": {"compression": "tiff_lzw"}, "a.webp": {}, "lossless.webp": {"lossless": True},
    }.items():  # fmt: skip
        yield saved(tmp_path / name, rgb, **options)
    (tmp_path / "deep.png").write_bytes(png_bytes(deep, 2))
    (tmp_path / "deep.tif").write_bytes(tiff_bytes(deep))
    _, data = cv2.imencode(".tif", deep)
    (tmp_path / "deep-lzw.tif").write_bytes(data)
    yield from (tmp_path / name for name in ("deep.png", "deep.tif", "deep-lzw.tif"))


def test_a_file_cut_short_is_refused_in_one_sentence(tmp_path, capfd):
    for path in whole_files(tmp_path):
        whole = path.read_bytes()
        assert read_rgb(path).ndim == 3
        for length in (12, 30, len(whole) // 3, len(whole) * 9 // 10, len(whole) - 20):
            path.write_bytes(whole[:length])
            with pytest.raises(ImageError) as caught:
                read_rgb(path)
            assert str(caught.value).startswith(str(path)) or f" {path}" in str(caught.value)
            assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_16_bit_png_with_a_flipped_byte_is_refused(file, capfd):
    data = bytearray(png_bytes(noise(60, 80, 3, dtype=np.uint16), 2))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(ImageError, match="checksum"):
        read_rgb(file(bytes(data)))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"hello, world\n", "not a picture of a known kind"),
        (b"GIF89a" + bytes(50), "known are PNG, JPEG, TIFF, WebP, BMP"),
        (b"BM" + bytes(50), "BMP file is damaged"),
        (b"RIFF\x10\0\0\0WAVE" + bytes(50), "not a picture"),
        (b"II*\0" + bytes(60), "TIFF file is damaged"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "PNG file is damaged"),
    ],
)
def test_what_is_no_picture(file, data, words):
    with pytest.raises(ImageError, match=words):
        read_rgb(file(data, "a.png"))


def test_folders_and_missing_files(tmp_path):
    with pytest.raises(ImageError, match="folder"):
        read_rgb(tmp_path)
    with pytest.raises(ImageError, match="No such file"):
        read_rgb(tmp_path / "missing.png")


def test_a_size_beyond_reason_is_refused_before_decoding(file):
    data = bytearray(png_bytes(noise(4, 4, dtype=np.uint16), 0))
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    with pytest.raises(ImageError, match="60000 x 60000"):
        read_rgb(file(bytes(data)))


RGB16, GREY16 = noise(6, 7, 3, dtype=np.uint16), noise(6, 7, dtype=np.uint16)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (tiff_bytes(noise(6, 7, 4, dtype=np.uint16), 1, extra=(0, 0, 0)), "4 bands and does not say which"),
        (tiff_bytes(noise(6, 7, 3), 1, extra=(0, 0)), "3 bands and does not say which"),
        (tiff_bytes(GREY16.astype(np.int16), 1), "16-bit signed integer"),
        (tiff_bytes(GREY16.astype(np.uint32), 1), "32-bit unsigned integer"),
        (tiff_bytes(noise(6, 7, dtype=np.float16), 1), "16-bit floating-point"),
        (tiff_bytes(GREY16, 1, bits=12), "12-bit unsigned"),
        (tiff_bytes(RGB16, planes=True), "planar"),
        (tiff_bytes(noise(6, 7, 5, dtype=np.uint16), extra=(0, 0)), "5 samples of 16 bits"),
        (tiff_bytes(noise(6, 7, 2, dtype=np.uint16), 1, extra=(0,)), "2 samples of 16 bits"),
        (tiff_bytes(noise(6, 7, 4, dtype=np.uint16), 5), "photometric 5"),
        (tiff_bytes(GREY16, 32803), "photometric 32803"),
        (tiff_bytes(noise(6, 7, 3), more={254: [1]}), "thumbnail"),
        (tiff_bytes(noise(6, 7, 3, dtype=np.float32) * 255), "scale them to"),
        (tiff_bytes(np.full((6, 7), np.nan, np.float32), 1), "NaN"),
    ],
)
def test_tiffs_that_would_be_read_wrongly_are_refused(file, data, words):
    with pytest.raises(ImageError, match=words):
        read_rgb(file(data, "a.tif"))


def test_a_few_floats_beyond_the_range_are_clipped(file):
    array = noise(20, 20, dtype=np.float32)
    array[0, :2] = -0.1, 1.2
    assert np.array_equal(read_nir(file(tiff_bytes(array, 1))), array.clip(0, 1))


# --- range and size ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_value_survives_the_model_range(dtype):
    values = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).reshape(16, -1)
    tensor = to_model_range(values)
    assert (tensor.shape[0], tensor.min(), tensor.max()) == (1, -1, 1)
    back = from_model_range(tensor, dtype)
    assert back.dtype == dtype
    assert np.array_equal(back, values)


def test_floats_in_the_model_range():
    array = noise(5, 6, dtype=np.float64)
    assert np.allclose(from_model_range(to_model_range(array), np.float64), array, atol=1e-7)


def test_the_way_back_clamps_and_rounds():
    tensor = torch.tensor([[-1.5, -1, 0, 0.999, 1, 7]])
    assert from_model_range(tensor, np.uint8).tolist() == [[0, 0, 128, 255, 255, 255]]
    assert from_model_range(tensor[None], np.float32).tolist() == [[0, 0, 0.5, pytest.approx(0.9995), 1, 1]]


RANGES = [(np.uint16, (0.0, 4095.0)), (np.uint16, (100.0, 4000.0)), (np.uint8, (16.0, 235.0))]


@pytest.mark.parametrize(("dtype", "limits"), RANGES)
def test_every_value_of_a_range_survives_and_those_beyond_are_clipped(dtype, limits):
    values = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).reshape(16, -1)
    tensor = to_model_range(values, limits)
    assert (tensor.min(), tensor.max()) == (-1, 1)
    back = from_model_range(tensor, dtype, limits)
    assert back.dtype == dtype
    assert np.array_equal(back, values.clip(*map(int, limits)))


@pytest.mark.parametrize(
    ("dtype", "limits"),
    [
        (np.float32, (-0.2, 1.6)),
        (np.float32, (0.0, 10_000.0)),
        (np.float64, (-0.2, 1.6)),
        (np.float64, (0.0, 10_000.0)),
        (np.float64, (1e6, 1e6 + 1)),  # float32 has a few values only between those two.
    ],
)
def test_floats_of_a_range_survive(dtype, limits):
    low, high = limits
    array = low + (high - low) * noise(5, 6, dtype=np.float64).astype(dtype)
    array[0, :2] = low - 1, high + 1
    back = from_model_range(to_model_range(array, limits), dtype, limits)
    assert back.dtype == dtype
    assert np.allclose(back, array.clip(low, high), rtol=0, atol=(high - low) * 1e-6)


def test_the_scale_is_the_ranges_never_the_pictures_own():
    dark = np.full((2, 3), 1000, np.uint16)
    assert to_model_range(dark).unique().item() == pytest.approx(2 * 1000 / 65535 - 1)
    assert to_model_range(dark, (0.0, 4000.0)).unique().item() == -0.5
    assert torch.equal(to_model_range(dark.astype(np.float32), (0.0, 4000.0)), to_model_range(dark, (0.0, 4000.0)))


@pytest.mark.parametrize(("dtype", "limits"), [(np.uint8, (0.0, 4095.0)), (np.uint16, (-1.0, 10.0))])
def test_a_range_that_the_depth_does_not_hold_is_refused(dtype, limits):
    with pytest.raises(ImageError, match=r"hold 0 to (255|65535), not the range"):
        to_model_range(np.zeros((2, 3), dtype), limits)
    with pytest.raises(ImageError, match=r"hold 0 to (255|65535), not the range"):
        from_model_range(torch.zeros(2, 3), dtype, limits)


@pytest.mark.parametrize("limits", [(1.0, 1.0), (2.0, 1.0), (0.0, np.inf), (np.nan, 1.0)])
def test_what_is_no_range(limits):
    with pytest.raises(ConfigError, match="from a lower to a higher finite number"):
        check_value_range(limits)


def test_floats_beyond_one_need_a_range(file):
    reflectance = noise(6, 7, 3, dtype=np.float32) * 9000
    path = file(tiff_bytes(reflectance), "a.tif")
    assert np.array_equal(read_rgb(path, (0.0, 10_000.0)), reflectance)
    with pytest.raises(ImageError, match="scale them to"):
        read_rgb(path)
    reflectance[0, 0, 0] = np.nan
    with pytest.raises(ImageError, match="NaN"):
        read_rgb(file(tiff_bytes(reflectance), "b.tif"), (0.0, 10_000.0))


def test_channels_come_first():
    rgb = noise(5, 6, 3)
    assert torch.equal(to_model_range(rgb)[2], to_model_range(rgb[..., 2])[0])


def test_luma():
    assert luma(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)).tolist() == [[76, 150, 29]]
    for dtype in (np.uint8, np.uint16, np.float32):
        grey = noise(30, 40, dtype=dtype)
        of_grey = luma(np.repeat(grey[..., None], 3, 2))
        assert of_grey.dtype == dtype
        assert np.allclose(of_grey, grey, rtol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (2, 33), (31, 32), (64, 96), (17, 5), (257, 131)])
def test_padding_keeps_the_picture_and_ends_at_multiples(size):
    x = torch.rand(2, 3, *size)
    padded = pad_to_multiple(x, 32)
    assert torch.equal(padded[..., : size[0], : size[1]], x)
    assert [side % 32 for side in padded.shape[2:]] == [0, 0]
    assert all(0 <= grown - side < 32 for grown, side in zip(padded.shape[2:], size, strict=True))


def test_padding_mirrors_where_it_can_and_repeats_where_not():
    row = torch.arange(6.0).view(1, 1, 1, 6)
    assert pad_to_multiple(row, 8)[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 4, 3]
    assert pad_to_multiple(row[..., :3], 8)[0, 0, 7].tolist() == [0, 1, 2, 2, 2, 2, 2, 2]


# --- tiles ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("multiple", [1, 8, 32])
@pytest.mark.parametrize("length", [1, 5, 8, 9, 12, 13, 40, 41])
def test_spans_cover_overlap_and_add_up_to_one(length, multiple):
    spans = plan_spans(length * multiple, 8 * multiple, 2 * multiple, multiple)
    total = np.zeros(length * multiple)
    for span in spans:
        total[span.start : span.stop] += span.weight
        assert span.start % multiple == 0
        assert span.stop - span.start == spans[0].stop <= 8 * multiple
        assert (span.weight > 0).all()
    assert np.allclose(total, 1, atol=1e-6)
    for left, right in itertools.pairwise(spans):
        assert left.start < right.start <= left.stop - 2 * multiple
    assert len(spans) == 1 if length <= 8 else len(spans) > 1


def test_tiles_are_no_larger_than_they_need_be():
    assert [span[:2] for span in plan_spans(640, 512, 64, 32)] == [(0, 352), (288, 640)]
    assert [span[:2] for span in plan_spans(512, 512, 64, 32)] == [(0, 512)]


def test_weights_rise_as_a_raised_cosine():
    first, second = plan_spans(12, 8, 4, 1)
    expected = [np.sin(np.pi / 2 * (i + 0.5) / 4) ** 2 for i in range(4)]
    assert np.allclose(first.weight, [1] * 4 + expected[::-1])
    assert np.allclose(second.weight, [*expected, 1, 1, 1, 1])


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_bands_put_together_are_the_picture(batch_size):
    picture = noise(83, 51, dtype=np.float32)
    asked = []

    def predict(row, columns):
        asked.append(len(columns))
        return np.stack([picture[row.start : row.stop, column.start : column.stop] for column in columns])

    rows, columns = plan_spans(83, 16, 6, 1), plan_spans(51, 16, 6, 1)
    bands = list(blended_bands(rows, columns, predict, batch_size))
    assert np.allclose(np.vstack([band for _, band in bands]), picture, atol=1e-6)
    assert [start for start, _ in bands] == np.cumsum([0, *(len(band) for _, band in bands)])[:-1].tolist()
    assert max(len(band) for _, band in bands) <= 16
    assert max(asked) == min(batch_size, len(columns))


def test_a_step_between_tiles_becomes_a_slope():
    rows, columns = plan_spans(16, 16, 8, 1), plan_spans(24, 16, 8, 1)

    def predict(row, spans):
        return np.stack([np.full((16, 16), float(span.start > 0), np.float32) for span in spans])

    ((_, band),) = blended_bands(rows, columns, predict, 1)
    assert band[0, 0] == 0
    assert band[0, -1] == 1
    assert np.diff(band[0]).max() < 0.21
    assert (np.diff(band[0]) >= 0).all()


# --- writing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [
        ("png", np.uint8), ("png", np.uint16), ("tif", np.uint8), ("TIFF", np.uint16), ("tif", np.float32),
        ("bmp", np.uint8), ("webp", np.uint8),
    ],
)  # fmt: skip
def test_what_is_written_is_read_back(tmp_path, suffix, dtype):
    for size in ((1, 1), (37, 211)):
        nir = noise(*size, dtype=dtype)
        path = tmp_path / f"Bäume 木.{suffix}"
        write_nir(path, nir)
        assert read_nir(path).dtype == dtype
        assert np.array_equal(read_nir(path), nir)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
def test_nir_has_one_channel_on_disk(tmp_path, suffix):
    write_nir(tmp_path / f"a.{suffix}", smooth(20, 30)[..., 0])
    with Image.open(tmp_path / f"a.{suffix}") as picture:
        assert picture.mode == "L"


def test_jpeg_is_near(tmp_path):
    nir = smooth(60, 80)[..., 0]
    write_nir(tmp_path / "a.jpg", nir)
    assert np.abs(read_nir(tmp_path / "a.jpg").astype(int) - nir).max() <= 3


@pytest.mark.parametrize(
    ("name", "nir", "words"),
    [
        ("a.jpg", GREY16, "does not hold 16 bits; use .png or .tif"),
        ("a.webp", GREY16, "does not hold 16 bits"),
        ("a.bmp", GREY16, "does not hold 16 bits"),
        ("a.png", noise(3, 3, dtype=np.float32), "does not hold floating point; use .tif"),
        ("a.gif", noise(3, 3), "'?.gif'? is no format that is written"),
        ("a", noise(3, 3), "no suffix"),
        ("a.jpg", noise(1, 70_000), "does not hold 70000 x 1 pixels"),
        ("a.webp", noise(17_000, 1), "does not hold 1 x 17000 pixels"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(tmp_path, name, nir, words):
    with pytest.raises(ImageError, match=words):
        write_nir(tmp_path / name, nir)
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ImageError, match="cannot write"):
        write_nir(tmp_path / "file" / "a.png", noise(3, 3))


def test_new_files_follow_the_umask(tmp_path):
    (tmp_path / "plain").touch()
    write_nir(tmp_path / "a.png", noise(3, 3))
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_file_appears_whole_or_not_at_all(tmp_path, failure):
    path = tmp_path / "new" / "a.txt"
    with atomic_path(path) as beside:
        beside.write_text("first")
        assert not path.exists()
        assert (beside.parent, beside.suffix) == (path.parent, ".txt")

    def fail():
        with atomic_path(path) as beside:
            beside.write_text("half")
            raise failure

    with pytest.raises(failure):
        fail()
    assert path.read_text() == "first"
    assert os.listdir(path.parent) == ["a.txt"]


def test_a_write_that_fails_names_its_file(tmp_path):
    with pytest.raises(OSError, match="No space left") as failed, atomic_path(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert failed.value.filename == str(tmp_path / "a.txt")


def test_find_pictures(tmp_path):
    for name in (
        "b.PNG",
        "a.jpg",
        "sub/c.tiff",
        "sub/deep/d.webp",
        ".hidden.png",
        ".git/e.png",
        "notes.txt",
        "sub/f.csv",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    expected = ["a.jpg", "b.PNG", "sub/c.tiff", "sub/deep/d.webp"]
    assert [path.relative_to(tmp_path).as_posix() for path in find_pictures(tmp_path)] == expected
