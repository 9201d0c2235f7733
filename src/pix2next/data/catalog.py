"""The data sets that `pix2next prepare` knows: how each is obtained, its terms, its layout and its split rule.

Source of the layouts: the challenge's own description (jchenhkg.github.io, NIR2RGB_VCIP_Challenge) for VCIP 2020, the
README of jonathanventura/urban-tree-detection-data for the NAIP trees, and for RANUS, IDD-AW and nirscene1 the loaders
of several independent projects (among them felixstillger/synth2real-nir-segmentation, data_prep/prepare_ranus.py, and
converters of IDD-AW to Cityscapes' and YOLO's labels). `unverified` says what none of them settles.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from pix2next.data import layouts
from pix2next.data.layouts import SPLITS, Found
from pix2next.errors import ConfigError


@dataclass(frozen=True)
class Options:
    """What a preparation can be told; None is "not told"."""

    splits: tuple[float, float, float] | None = None
    """Shares of train, val and test; 80, 10 and 10 if not told."""
    seed: int | None = None
    """Of the drawn split; 0 if not told."""
    bands: tuple[int, int, int, int] | None = None
    """Where red, green, blue and NIR stand, counted from 1; 1, 2, 3, 4 if not told."""
    left: str | None = None
    """Which picture is the left half; rgb if not told."""
    place: str | None = None
    """A regular expression whose groups, joined, name the place in a path."""

    def resolved(self, takes: frozenset[str]) -> "Options":
        """With the defaults of what is taken.

        Raises: ConfigError if something is told that is not taken, or is impossible.
        """
        told = [item.name for item in fields(self) if getattr(self, item.name) is not None]
        if untaken := sorted(set(told) - takes):
            known = ", ".join(f"--{taken}" for taken in sorted(takes)) or "none"
            raise ConfigError(f"--{untaken[0]} does not apply to this data set; what applies: {known}")
        chosen = replace(self, **{name: _DEFAULTS[name] for name in takes & _DEFAULTS.keys() if name not in told})
        chosen._check()
        return chosen

    def _check(self) -> None:
        splits, bands = self.splits, self.bands
        if splits and (min(splits) < 0 or splits[0] <= 0):
            raise ConfigError(f"--splits {_listed(splits)}: expected shares of train, val and test, with train above 0")
        if bands and (len(set(bands)) != 4 or min(bands) < 1):
            raise ConfigError(f"--bands {_listed(bands)}: expected four different positions of R, G, B, NIR, from 1")
        if self.left not in (None, "rgb", "nir"):
            raise ConfigError(f"--left {self.left}: expected rgb or nir")


_DEFAULTS: dict[str, Any] = {"splits": (80.0, 10.0, 10.0), "seed": 0, "bands": (1, 2, 3, 4), "left": "rgb"}


def options(
    *,
    splits: str | None = None,
    seed: int | None = None,
    bands: str | None = None,
    left: str | None = None,
    place: str | None = None,
) -> Options:
    """`Options` as typed on a command line: `splits="80,10,10"`, `bands="1,2,3,4"`.

    Raises: ConfigError if they are no numbers, as many as there have to be.
    """
    shares = _numbers(splits, "--splits", 3, float) if splits is not None else None
    places = _numbers(bands, "--bands", 4, int) if bands is not None else None
    return Options(shares, seed, places, left, place)


def _numbers(text: str, option: str, count: int, kind: Callable[[str], Any]) -> Any:
    parts = text.split(",")
    try:
        values = tuple(map(kind, parts))
    except ValueError:
        values = ()
    if len(values) != count:
        raise ConfigError(f"{option} {text}: expected {count} numbers with commas between them")
    return values


def _listed(numbers: Sequence[int | float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)


@dataclass(frozen=True)
class Dataset:
    """One entry of the catalog."""

    name: str
    title: str
    citation: str
    obtain: str
    terms: str
    layout: str
    split: str
    unverified: str
    find: Callable[[Path, Options], Found]
    holds: Literal["pairs", "bands", "halves"] = "pairs"
    """Whether a pair comes as two files, as bands of one, or as halves of one."""
    takes: frozenset[str] = frozenset()
    """Names of the `Options` that apply."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Pairs as published, by split or as `all`."""
    size: tuple[int, int] | None = None
    """Width and height as published, where all are the same."""


def _in_any_folder(files: Callable[[Path], Sequence[Path]]) -> Callable[[Path, Options], Found]:
    """A `find` for files that hold both pictures, laid out in any way."""
    return lambda src, options: layouts.find_folder(src, files(src), options.place, divided=_is_divided(options))


def _is_divided(options: Options) -> bool:
    """Whether the shares leave more than one split with pictures in it."""
    return options.splits is not None and sum(share > 0 for share in options.splits) > 1


_DRAWN = frozenset({"splits", "seed"})

DATASETS = (
    Dataset(
        name="ranus",
        title="RANUS: RGB and NIR urban scenes",
        citation="Choe, Kim, Im, Lee, Narasimhan, Kweon: RANUS: RGB and NIR Urban Scene Dataset for Deep Scene "
        "Parsing. IEEE Robotics and Automation Letters 3(3), 2018. https://ieeexplore.ieee.org/document/8279453",
        obtain="From its first author's page, https://www.chrisgchoe.com (RANUS_v1.0); unpack it.",
        terms="Stated in no source we found: ask the authors, and take it as research use only.",
        layout="RANUS_v1.0/{RGB,NIR,GT}/{01..50}/FRAME_{rgb,nir,gt}.png",
        split="by scene folder (01 to 50), drawn; the masks go to gt/",
        unverified="How frames are named before _rgb, _nir and _gt: partners must have equal names, with or without "
        "these endings. No source we found publishes a split.",
        find=lambda src, options: layouts.find_ranus(src),
        takes=_DRAWN,
    ),
    Dataset(
        name="idd-aw",
        title="IDD-AW: Indian driving in adverse weather",
        citation="Shaik, Malreddy, Billa, Chaudhary, Manchanda, Varma: IDD-AW: A Benchmark for Safe and Robust "
        "Segmentation of Drive Scenes in Unstructured Traffic and Adverse Weather. WACV 2024. arXiv:2311.14459",
        obtain="Register at https://idd.insaan.iiit.ac.in, then Dataset > Download > IDD-AW (a link for 24 hours); "
        "project page https://iddaw.github.io.",
        terms="Those accepted at registration, which we have not seen.",
        layout="IDDAW/{train,val}/{FOG,RAIN,LOWLIGHT,SNOW}/{rgb,nir,gtSeg}/SEQUENCE/FRAME_{rgb.png,nir.png,mask.json}",
        split="as published; a folder test is taken if it is there with NIR; masks go to gtSeg/",
        unverified="Counts (3,430 and 475 pairs) are those that users of the download report; the paper says 5,000 "
        "with the test set.",
        find=lambda src, options: layouts.find_idd_aw(src),
        counts={"train": 3430, "val": 475},
    ),
    Dataset(
        name="nirscene1",
        title="EPFL RGB-NIR Scene Dataset",
        citation="Brown, Süsstrunk: Multi-spectral SIFT for Scene Category Recognition. CVPR 2011, pp. 177-184.",
        obtain="https://www.epfl.ch/labs/ivrl/research/downloads/rgb-nir-scene-dataset/ (nirscene1.zip); unpack it.",
        terms="Research use; no redistribution.",
        layout="nirscene1/{country,field,forest,indoor,mountain,oldbuilding,street,urban,water}/0000_{rgb,nir}.tiff",
        split="by ten numbers in a row of a category (neighbouring numbers often show one spot), drawn",
        unverified="Where each picture was taken is not published, so runs of ten stand in for places.",
        find=lambda src, options: layouts.find_nirscene1(src),
        takes=_DRAWN,
        counts={"all": 477},
    ),
    Dataset(
        name="vcip2020",
        title="VCIP 2020 challenge: NIR image colourisation",
        citation="VCIP 2020 Grand Challenge on NIR Image Colorization, Hong Kong Baptist University, 2020; pictures "
        "after Brown, Süsstrunk: Multi-spectral SIFT for Scene Category Recognition. CVPR 2011.",
        obtain="https://jchenhkg.github.io/projects/NIR2RGB_VCIP_Challenge/ (a Google Drive link); unpack it.",
        terms="Open research and education within the scope of the challenge; copyright stays with the owners.",
        layout="NIR_VCIP_Challenge_dataset/NIR/SCENE_0000_nir.png, RGB-Registered/SCENE_0000_rgb_reg.png, "
        "Validation/validation_0000_{nir,rgb_reg}.png; Testing/ the same, where it is there",
        split="as published: NIR with RGB-Registered, Validation, Testing",
        unverified="Several patches come from one nirscene1 picture and their origin is not named, so the published "
        "splits need not keep scenes apart; in the copy we have, pictures of Testing are also in Validation and in "
        "RGB-Registered, pixel for pixel. Run `pix2next inspect`. Never train on nirscene1 and score on this, or the "
        "reverse.",
        find=lambda src, options: layouts.find_vcip2020(src),
        counts={"train": 372, "val": 18},
        size=(256, 256),
    ),
    Dataset(
        name="naip-trees",
        title="NAIP urban trees of California",
        citation="Ventura et al.: Individual Tree Detection in Large-Scale Urban Environments using High-Resolution "
        "Multispectral Imagery. International Journal of Applied Earth Observation and Geoinformation 130, 103848, "
        "2024. arXiv:2208.10607",
        obtain="git clone https://github.com/jonathanventura/urban-tree-detection-data",
        terms="CC BY 4.0; the imagery (USDA NAIP) is in the public domain.",
        layout="urban-tree-detection-data/images/CITY_YEAR_NUMBER.tif (R, G, B, NIR), csv/CITY_YEAR_NUMBER.csv (x,y), "
        "train.txt, val.txt, test.txt",
        split="by place (city and crop number, all years together): as published, drawn for places in no list; "
        "tree centres go to trees/",
        unverified="The published lists name only some years; other years of a listed place go with it.",
        find=lambda src, options: layouts.find_naip_trees(src),
        holds="bands",
        takes=_DRAWN | {"bands"},
        counts={"all": 1651},
        size=(256, 256),
    ),
    Dataset(
        name="raster",
        title="Any folder of rasters with R, G, B and NIR bands",
        citation="",
        obtain="Yours: TIFF or GeoTIFF, 8 or 16 bits, four bands or more, side by side or plane by plane.",
        terms="Those of your data.",
        layout="DIR/**/*.tif; --bands says where R, G, B and NIR stand",
        split="folders train, val, test if they are there; else by folder, or by what --place finds, drawn",
        unverified="",
        find=_in_any_folder(layouts.rasters),
        holds="bands",
        takes=_DRAWN | {"bands", "place"},
    ),
    Dataset(
        name="ab",
        title="pix2pix's pictures side by side",
        citation="Layout of Isola, Zhu, Zhou, Efros: Image-to-Image Translation with Conditional Adversarial Networks. "
        "CVPR 2017. arXiv:1611.07004",
        obtain="Yours: pictures whose left half is RGB and right half NIR, or (--left nir) the reverse.",
        terms="Those of your data.",
        layout="DIR/{train,val,test}/*.jpg, or DIR/**/*.png",
        split="folders train, val, test if they are there; else by folder, or by what --place finds, drawn",
        unverified="",
        find=_in_any_folder(layouts.pictures),
        holds="halves",
        takes=_DRAWN | {"left", "place"},
    ),
)


def dataset(name: str) -> Dataset:
    """The entry of that name. Raises: ConfigError, which lists the names."""
    for entry in DATASETS:
        if entry.name == name:
            return entry
    raise ConfigError(f"no data set {name!r}; known are {', '.join(entry.name for entry in DATASETS)}")


def catalog_table() -> Table:
    """Every entry in a line, for the terminal."""
    table = Table(title="Data sets that `pix2next prepare` reads", show_lines=True)
    for column in ("name", "what", "split", "terms"):
        table.add_column(column, no_wrap=column == "name")
    for entry in DATASETS:
        table.add_row(entry.name, entry.title, entry.split, entry.terms)
    return table


def about(entry: Dataset) -> str:
    """All that is known of an entry, a paragraph each."""
    published = ", ".join(f"{count} {split}" for split, count in entry.counts.items())
    parts = {
        "cite": entry.citation,
        "obtain": entry.obtain,
        "terms": entry.terms,
        "layout": entry.layout,
        "split": entry.split,
        "published pairs": published,
        "not verified": entry.unverified,
        "options": ", ".join(f"--{name}" for name in sorted(entry.takes)),
    }
    return "\n".join([f"{entry.name}: {entry.title}", *(f"  {key}: {text}" for key, text in parts.items() if text)])


def count_notes(entry: Dataset, found: Found) -> list[str]:
    """Where the number of pairs is another than the published one."""
    have = {split: sum(sample.split == split for sample in found.samples) for split in SPLITS}
    have["all"] = len(found.samples)
    return [
        f"{have[split]} pairs{'' if split == 'all' else f' in {split}'}; {count} are published"
        for split, count in entry.counts.items()
        if have[split] != count
    ]
