"""Small data sets in the exact layouts of the public ones, with pictures whose edges RGB and NIR share."""

import struct
from pathlib import Path

import cv2
import numpy as np


def scene(seed, height=40, width=48, dtype=np.uint8):
    """RGB and NIR of one made-up place: the same shapes, other brightness in each."""
    rng = np.random.default_rng(seed)
    shapes = np.zeros((height, width), np.int32)
    for value in range(1, 25):
        top, left = rng.integers(0, height), rng.integers(0, width)
        shapes[top : top + rng.integers(3, 16), left : left + rng.integers(3, 16)] = value
    shades = rng.uniform(0.1, 0.9, (25, 4))[shapes] + rng.uniform(-0.02, 0.02, (height, width, 1))
    picture = np.rint(shades.clip(0, 1) * np.iinfo(dtype).max).astype(dtype)
    return np.ascontiguousarray(picture[..., :3]), np.ascontiguousarray(picture[..., 3])


def save(path, picture):
    """RGB or grey, in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture)
    return path


def save_bands(path, bands, *, planes=False):
    """An uncompressed TIFF of any bands, side by side or plane by plane, as GIS software writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, count = bands.shape
    data = np.ascontiguousarray(np.moveaxis(bands, 2, 0) if planes else bands).astype(bands.dtype.newbyteorder("<"))
    size = data.nbytes // count
    starts, sizes = ([8 + size * n for n in range(count)], [size] * count) if planes else ([8], [data.nbytes])
    tags = {
        256: [width], 257: [height], 258: [bands.dtype.itemsize * 8] * count, 259: [1], 262: [1], 273: starts,
        277: [count], 278: [height], 279: sizes, 284: [2 if planes else 1], 339: [1] * count,
    }  # fmt: skip
    if count > 1:
        tags[338] = [0] * (count - 1)
    begin = 8 + data.nbytes + data.nbytes % 2
    after = begin + 2 + 12 * len(tags) + 4
    directory, values = struct.pack("<H", len(tags)), b""
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        if len(packed) > 4:
            packed, values = struct.pack("<I", after + len(values)), values + packed
        directory += struct.pack("<HHI", tag, 4, len(numbers)) + packed
    body = data.tobytes() + b"\0" * (data.nbytes % 2)
    path.write_bytes(b"II" + struct.pack("<HI", 42, begin) + body + directory + b"\0\0\0\0" + values)
    return path


def ranus(root, scenes=6, frames=3):
    """RANUS_v1.0/{RGB,NIR,GT}/01/..."""
    for place in range(1, scenes + 1):
        for frame in range(frames):
            rgb, nir = scene(place * 100 + frame)
            name = f"{place:02d}/{frame:04d}"
            save(root / "RANUS_v1.0" / "RGB" / f"{name}_rgb.png", rgb)
            save(root / "RANUS_v1.0" / "NIR" / f"{name}_nir.png", nir)
            save(root / "RANUS_v1.0" / "GT" / f"{name}_gt.png", rgb)
    return root


def idd_aw(root):
    """IDDAW/{train,val}/{FOG,RAIN}/{rgb,nir,gtSeg}/SEQUENCE/..."""
    for split, weather, sequence in (("train", "FOG", 101), ("train", "RAIN", 185), ("val", "FOG", 110)):
        for frame in (120, 480):
            rgb, nir = scene(sequence * 1000 + frame)
            folder, name = root / "IDDAW" / split / weather, f"{sequence}/{frame:05d}"
            save(folder / "rgb" / f"{name}_rgb.png", rgb)
            save(folder / "nir" / f"{name}_nir.png", cv2.merge([nir] * 3))
            mask = folder / "gtSeg" / f"{name}_mask.json"
            mask.parent.mkdir(parents=True, exist_ok=True)
            mask.write_text('{"objects": []}')
    return root


def nirscene1(root, dtype=np.uint8):
    """nirscene1/CATEGORY/0000_{rgb,nir}.tiff"""
    for category, numbers in (("country", (0, 3, 9, 10, 11, 25)), ("forest", (2, 30)), ("water", (5,))):
        for number in numbers:
            rgb, nir = scene(len(category) * 100 + number, dtype=dtype)
            save(root / "nirscene1" / category / f"{number:04d}_rgb.tiff", rgb)
            save(root / "nirscene1" / category / f"{number:04d}_nir.tiff", nir)
    return root


def vcip2020(root, side=256):
    """NIR_VCIP_Challenge_dataset/{NIR,RGB-Registered,RGB-Online,Validation}/..."""
    folder = root / "NIR_VCIP_Challenge_dataset"
    for number, name in enumerate(("country_0000", "field_0001")):
        rgb, nir = scene(number, side, side)
        save(folder / "NIR" / f"{name}_nir.png", nir)
        save(folder / "RGB-Registered" / f"{name}_rgb_reg.png", rgb)
        save(folder / "RGB-Online" / f"{name}_rgb_onl.png", rgb)
    rgb, nir = scene(9, side, side)
    save(folder / "Validation" / "validation_0000_nir.png", nir)
    save(folder / "Validation" / "validation_0000_rgb_reg.png", rgb)
    return root


def naip_trees(root, side=256):
    """urban-tree-detection-data/{images,csv}/CITY_YEAR_NUMBER.*, and lists of some years."""
    folder = root / "urban-tree-detection-data"
    names = [f"{city}_{year}_{n}" for city in ("chico", "long_beach") for year in (2018, 2020) for n in range(3)]
    for number, name in enumerate(names):
        rgb, nir = scene(number, side, side)
        save_bands(folder / "images" / f"{name}.tif", np.dstack([rgb, nir]))
        if not name.startswith("chico_2018"):
            (folder / "csv").mkdir(exist_ok=True)
            (folder / "csv" / f"{name}.csv").write_text(f"x,y\n{number},7\n")
    (folder / "train.txt").write_text("chico_2020_0\nlong_beach_2020_0\n")
    (folder / "val.txt").write_text("chico_2020_1\n")
    (folder / "test.txt").write_text("long_beach_2020_1\nchico_2018_0\n")
    return root


def halves(root, left="rgb", suffix=".png"):
    """{train,val}/*.png, RGB and NIR side by side."""
    for number, name in enumerate(("train/1", "train/2", "val/1")):
        rgb, nir = scene(number)
        grey = cv2.merge([nir] * 3)
        save(root / f"{name}{suffix}", np.hstack([rgb, grey] if left == "rgb" else [grey, rgb]))
    return root


def pairs(root, splits=("train", "val"), each=3, height=96, width=112):
    """The project's own layout, every picture of another scene."""
    for place, split in enumerate(splits):
        for number in range(each):
            rgb, nir = scene(1000 * place + number, height, width)
            save(root / split / "rgb" / f"{number}.png", rgb)
            save(root / split / "nir" / f"{number}.png", nir)
    return root


def tree(folder: Path):
    """Every file below `folder` with its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
