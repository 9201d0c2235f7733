"""A raster larger than memory, made, translated and checked row by row: python tests/apps/large_raster.py --help

The network is a stand-in of three small convolutions: what is measured is everything around it.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.transform import Affine
from rasterio.windows import Window
from torch import nn

from pix2next.apps.rasters import translate_raster
from pix2next.translate import Translator

ROWS = 512
NODATA = 0


class Neighbours(nn.Module):
    """A network with strides and a receptive field of some 30 pixels."""

    multiple = 8

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.down = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.SiLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.SiLU())
        self.up = nn.Sequential(nn.Conv2d(4, 1, 3, 1, 1), nn.Tanh(), nn.Upsample(scale_factor=4, mode="bilinear"))

    def forward(self, rgb):
        return self.up(self.down(rgb))


def scene(top, rows, width, height):
    """Fields, waves and noise, [3, rows, width] of 1 to 254; nothing outside of a turned square, and a hole in it."""
    y, x = np.mgrid[top : top + rows, 0:width].astype(np.float32)
    waves = [np.sin(x / 9 + y / 31), np.cos(y / 17) * np.sin(x / 40), np.sin(x / 5 - y / 11)]
    fields = np.sin(x // 97 * 3 + y // 61 * 5)
    noise = np.random.default_rng(top).normal(0, 3, (3, rows, width))
    rgb = (128 + 50 * np.stack(waves) + 40 * fields + noise).clip(1, 254).astype(np.uint8)
    nothing = (x + y < 0.2 * width) | (np.hypot(x - 0.6 * width, y - 0.5 * height) < 0.05 * width)
    rgb[:, nothing] = NODATA
    return rgb


def make(path, height, width):
    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": 3, "dtype": "uint8", "nodata": NODATA,
        "crs": "EPSG:32614", "transform": Affine(0.6, 0, 485902, 0, -0.6, 5209248), "compress": "deflate",
        "tiled": True, "blockxsize": 512, "blockysize": 512, "photometric": "RGB", "bigtiff": "IF_SAFER",
    }  # fmt: skip
    with rasterio.Env(GDAL_CACHEMAX=256), rasterio.open(path, "w", **profile) as raster:
        raster.update_tags(PLACE="nowhere")
        for top in range(0, height, ROWS):
            rows = min(ROWS, height - top)
            raster.write(scene(top, rows, width, height), window=Window(0, top, width, rows))


def borders_of(length, translator):
    """Where, before which pixel, a tile begins or ends inside a picture."""
    edges = {edge for span in translator._spans(length) for edge in (span.start, span.stop)}
    return sorted(edge for edge in edges if 0 < edge < length)


def seams(source, result, translator, most=40, reach=160, inner=64):
    """How much more pixels differ across tile borders than the same pixels of one pass, around where borders cross.

    Gives the ratio of the mean jumps, 1 without seams, and the largest difference of a pixel.
    """
    whole = Translator(translator.model, device="cpu", tile=2048)
    crossings = list(itertools.product(borders_of(source.height, translator), borders_of(source.width, translator)))
    np.random.default_rng(0).shuffle(crossings)
    tiled_jumps, whole_jumps, largest, used = [], [], 0, 0
    for y, x in crossings:
        # In step with the network's multiple, as the tiles are.
        top, left = max(0, y - reach), max(0, x - reach)
        window = Window(left, top, min(2 * reach, source.width - left), min(2 * reach, source.height - top))
        rgb = source.read(window=window)
        if (rgb == NODATA).all(axis=0).any():
            continue
        rows = slice(max(0, y - top - inner), y - top + inner)
        columns = slice(max(0, x - left - inner), x - left + inner)
        one = whole(np.moveaxis(rgb, 0, 2).copy())[rows, columns].astype(float)
        many = result.read(result.count, window=window)[rows, columns].astype(float)
        at_y, at_x = y - top - rows.start - 1, x - left - columns.start - 1
        for nir, jumps in ((many, tiled_jumps), (one, whole_jumps)):
            jumps += [np.abs(np.diff(nir, axis=0))[at_y].mean(), np.abs(np.diff(nir, axis=1))[:, at_x].mean()]
        largest, used = max(largest, np.abs(one - many).max()), used + 1
        if used == most:
            break
    return {"crossings": used, "jumps": np.mean(tiled_jumps) / np.mean(whole_jumps), "largest difference": largest}


def differences(source, result):
    """How many pixels without data have become others or the reverse, and how many colours are not as they were."""
    nodata = colours = 0
    for top in range(0, source.height, ROWS):
        window = Window(0, top, source.width, min(ROWS, source.height - top))
        before, after = source.read(window=window), result.read(window=window)
        nodata += int(((before == NODATA).all(axis=0) != (after[-1] == NODATA)).sum())
        colours += int((before != after[:3]).sum()) if result.count > 3 else 0
    return {"nodata differs": nodata, "colours differ": colours}


def describe(raster):
    return raster.crs, raster.transform, raster.shape, raster.nodata, raster.tags()["PLACE"]


def translate(source, result, tile, output, cog):
    torch.set_num_threads(1)
    start = time.perf_counter()
    translator = Translator(Neighbours(), device="cpu", tile=tile)
    translate_raster(source, result, translator, output=output, cog=cog)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    scale = 1 if sys.platform == "darwin" else 1024
    return {"seconds": round(time.perf_counter() - start, 1), "peak memory in MB": round(kilobytes * scale / 1e6)}


def apart(function, *arguments):
    """Called in a process of its own: Linux counts to a process's peak what its parent held when it began."""
    given = ", ".join(repr(str(argument) if isinstance(argument, Path) else argument) for argument in arguments)
    script = f"import json, sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from large_raster import *"
    command = [sys.executable, "-c", f"{script}; json.dump({function.__name__}({given}), sys.stdout)"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def compare(source, result, tile):
    translator = Translator(Neighbours(), device="cpu", tile=tile)
    with rasterio.open(source) as before, rasterio.open(result) as after:
        same = describe(before) == describe(after)
        seen = {**differences(before, after), **seams(before, after, translator)}
    return {"file in MB": round(result.stat().st_size / 1e6), "georeference and tags equal": same, **seen}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--height", type=int)
    parser.add_argument("--tile", type=int, default=640)
    parser.add_argument("--output", default="nir")
    parser.add_argument("--cog", action="store_true")
    given = parser.parse_args()
    width, height = given.side, given.height or given.side
    source = given.folder / f"source_{width}x{height}.tif"
    result = given.folder / f"{given.output}_{width}x{height}.tif"
    given.folder.mkdir(parents=True, exist_ok=True)
    if not source.exists():
        apart(make, source, height, width)
    costs = apart(translate, source, result, given.tile, given.output, given.cog)
    sys.stdout.write(json.dumps({**costs, **compare(source, result, given.tile)}, indent=2) + "\n")
