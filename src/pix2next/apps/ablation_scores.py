"""A study's scores: all networks and baselines on the same pictures, each scored once and kept."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pix2next.apps.ablation_report import label
from pix2next.data.pairs import Pair, load_pair
from pix2next.errors import WeightsError
from pix2next.evaluate.baselines import BASELINES, Baselines
from pix2next.evaluate.scorer import TRUTH, Example, PictureScores, Scorer
from pix2next.images import atomic_path
from pix2next.model.pix2next import BEST, load_model
from pix2next.model.state_dicts import read_weights
from pix2next.translate import Translator

AT_A_TIME = 16
"""Pictures that are in memory at once as every network made them; the networks themselves are there in turn."""
SHOWN = 5
"""Pictures on the sheet."""

Row = list[np.ndarray]
log = logging.getLogger(__name__)


def score_together(
    folders: Mapping[str, Path], pairs: Sequence[Pair], baselines: Baselines, scorer: Scorer, device: str, kept: Path
) -> tuple[list[PictureScores], list[Row]]:
    """Every picture's scores as each run and each baseline made it, and the sheet's rows: RGB, truth, one a method.

    The truth passes each metric's network once. What is scored is kept in the file `kept`, so that a study that was
    stopped, or has got more networks since, scores only what is missing.

    Raises: WeightsError, ImageError from networks and pictures that cannot be used.
    """
    stamps = {name: _stamp(folder / BEST) for name, folder in folders.items()}
    stamps |= dict.fromkeys(BASELINES, str(baselines.maps))
    keeper = Keeper(kept, stamps, scorer.metrics)
    shown = set(pairs[:: max(1, len(pairs) // SHOWN)][:SHOWN])
    columns: list[dict[str, np.ndarray]] = []
    for start in range(0, len(pairs), AT_A_TIME):
        part = pairs[start : start + AT_A_TIME]
        wanted = {pair: list(stamps) if pair in shown else keeper.lacking(pair) for pair in part}
        for pair, example in _translated(folders, wanted, baselines, device):
            keeper.add(pair, example, scorer)
            if pair in shown and example.rgb is not None:
                columns.append({"RGB": example.rgb, TRUTH: example.nir, **example.fakes})
        keeper.write()
    rows = [[label(name), *(column[name] for column in columns)] for name in ("RGB", TRUTH, *stamps)]
    return [keeper.of(pair) for pair in pairs], rows


def _translated(
    folders: Mapping[str, Path], wanted: Mapping[Pair, Sequence[str]], baselines: Baselines, device: str
) -> Iterator[tuple[Pair, Example]]:
    """The pictures as the methods that are wanted of each made them; those that nothing is wanted of are left out."""
    loaded = {pair: load_pair(pair) for pair, methods in wanted.items() if methods}
    made: dict[Pair, dict[str, np.ndarray]] = {pair: {} for pair in loaded}
    for name, folder in folders.items():
        asking = [pair for pair in loaded if name in wanted[pair]]
        if asking:
            translator = Translator(load_model(folder), device=device)
            for pair in asking:
                made[pair][name] = translator(loaded[pair][0])
    for pair, (rgb, nir) in loaded.items():
        simple = {name: nir for name, nir in baselines.of(pair, rgb).items() if name in wanted[pair]}
        yield pair, Example(pair.name, nir, made[pair] | simple, rgb)


class Keeper:
    """The scores that there are, by picture and method, in memory and in a file.

    A method is known by its stamp: where that has changed, its scores are no longer its. Those of methods that this
    study has not are left as they are.
    """

    def __init__(self, path: Path, stamps: Mapping[str, str], metrics: Sequence[str]) -> None:
        self.path, self.stamps, self.metrics = path, dict(stamps), list(metrics)
        content = _content(path)
        same = content.get("metrics") == self.metrics
        self.pictures: dict[str, dict[str, Any]] = content["pictures"] if same else {}
        self.known: dict[str, str] = content["stamps"] if same else {}
        stale = {name for name, stamp in stamps.items() if self.known.get(name) != stamp}
        for picture in self.pictures.values():
            for name in stale & picture["scores"].keys():
                del picture["scores"][name]

    def lacking(self, pair: Pair) -> list[str]:
        """The methods that have no scores on this picture."""
        there = self.pictures.get(_key(pair), {"scores": {}})["scores"]
        return [name for name in self.stamps if name not in there]

    def add(self, pair: Pair, example: Example, scorer: Scorer) -> None:
        """Score what has no scores yet."""
        lacking = self.lacking(pair)
        if not lacking:
            return
        fakes = {name: example.fakes[name] for name in lacking}
        scored = scorer.score(Example(example.name, example.nir, fakes, example.rgb))
        picture = self.pictures.setdefault(_key(pair), {"size": [scored.width, scored.height], "scores": {}})
        picture["scores"] |= scored.scores
        features = picture.setdefault("features", {})
        for network, rows in scored.features.items():
            features.setdefault(network, {}).update({name: torch.from_numpy(row) for name, row in rows.items()})

    def of(self, pair: Pair) -> PictureScores:
        """What there is of a picture, as the scorer gave it, of this study's methods alone and in their order."""
        picture = self.pictures[_key(pair)]
        features = {
            network: {name: rows[name].numpy() for name in (TRUTH, *self.stamps)}
            for network, rows in picture["features"].items()
        }
        scores = {name: picture["scores"][name] for name in self.stamps}
        width, height = picture["size"]
        return PictureScores(pair.name, width, height, scores, features)

    def write(self) -> None:
        """Everything to the file, whole or not at all."""
        content = {"metrics": self.metrics, "stamps": self.known | self.stamps, "pictures": self.pictures}
        with atomic_path(self.path) as beside:
            torch.save(content, beside)


def _content(path: Path) -> Mapping[str, Any]:
    """What a file of kept scores holds; nothing where there is none or it cannot be used."""
    if not path.is_file():
        return {}
    try:
        content = read_weights(path)
    except WeightsError as error:
        log.warning("%s; everything is scored again", error)
        return {}
    return content if isinstance(content, dict) and {"metrics", "stamps", "pictures"} <= content.keys() else {}


def _key(pair: Pair) -> str:
    return f"{pair.name} {_stamp(pair.rgb)} {_stamp(pair.nir)}"


def _stamp(path: Path) -> str:
    """What changes when a file does."""
    about = path.stat()
    return f"{about.st_size}-{about.st_mtime_ns}"
