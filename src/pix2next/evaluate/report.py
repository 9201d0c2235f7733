"""Pictures scored against the true NIR ones, the trivial baselines always beside them, and the reports written."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from pix2next.errors import ConfigError
from pix2next.evaluate.cases import scored_split
from pix2next.evaluate.contest import Contest, Progress, check_names, hold, set_up
from pix2next.evaluate.gallery import Gallery
from pix2next.evaluate.html import report_page
from pix2next.evaluate.metrics import DEFAULT_METRICS
from pix2next.evaluate.protocols import DEFAULT_PROTOCOL
from pix2next.evaluate.scorer import Scorer
from pix2next.evaluate.scores import Scores, as_json
from pix2next.evaluate.tables import markdown, per_picture_csv, scores_table
from pix2next.images import Nir, Rgb, write_text
from pix2next.translate import pick_device

__all__ = ["Scores", "as_json", "evaluate_folders", "evaluate_model", "scores_table", "write_report"]


def evaluate_model(
    model: Callable[[Rgb], Nir],
    data: Path,
    out: Path,
    name: str = "model",
    on_progress: Progress | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    protocol: str = DEFAULT_PROTOCOL,
    device: str = "cpu",
    skip_bad: bool = False,
) -> Scores:
    """Translate every RGB picture of a data set, score the results, and write the reports into `out`.

    `data` holds `rgb/` and `nir/`, or splits that do, of which `test` is scored. The linear map is fitted on the
    `train` split (inside `data` or beside it); without one, on the half of the pictures that it is not scored on.
    The metrics' networks run on `device`.

    Raises:
        PairError: no pairs there; unless `skip_bad`, a picture without a partner, or partners of different sizes.
        ImageError: unless `skip_bad`, a picture cannot be read.
        WeightsError: a metric's network is neither on disk nor to be had.
        ConfigError: `out` cannot be written to, `name` is a baseline's, or a metric, protocol or device is not known.
    """
    check_out(out)
    check_names({name: model})
    split = scored_split(data)
    contest = set_up({name: model}, split / "rgb", split / "nir", skip_bad=skip_bad)
    return score_and_write(contest, out, on_progress, metrics, protocol, device)


def evaluate_folders(
    fake: Path,
    nir: Path,
    out: Path,
    rgb: Path | None = None,
    name: str = "fake",
    on_progress: Progress | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    protocol: str = DEFAULT_PROTOCOL,
    device: str = "cpu",
    skip_bad: bool = False,
) -> Scores:
    """Score a folder of pictures made by anything against the true ones, and write the reports into `out`.

    The baselines need the RGB pictures: `rgb`, or the folder `rgb` beside `nir` if there is one. The metrics' networks
    run on `device`.

    Raises:
        PairError: no pictures there; unless `skip_bad`, one without a partner, or partners of different sizes.
        ImageError: unless `skip_bad`, a picture cannot be read.
        WeightsError: a metric's network is neither on disk nor to be had.
        ConfigError: `out` cannot be written to, `name` is a baseline's, or a metric, protocol or device is not known.
    """
    check_out(out)
    rgb, notes = rgb_beside(nir, rgb)
    contest = set_up({name: fake}, rgb, nir, skip_bad=skip_bad, notes=notes)
    return score_and_write(contest, out, on_progress, metrics, protocol, device)


def rgb_beside(nir: Path, rgb: Path | None) -> tuple[Path | None, list[str]]:
    """The folder of RGB pictures that was given or lies beside `nir`, and what to say where there is none."""
    beside = nir.parent / "rgb"
    if rgb or beside.is_dir():
        return rgb or beside, []
    return None, [f"no baselines: there is no folder {beside}, and no other RGB folder was given"]


def score_and_write(
    contest: Contest,
    out: Path,
    on_progress: Progress | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    protocol: str = DEFAULT_PROTOCOL,
    device: str = "cpu",
) -> Scores:
    """Score what was found and checked. Raises: as `evaluate_model`."""
    scorer = Scorer(metrics, protocol, pick_device(device))
    make_folder(out)
    scores, gallery = hold(contest, scorer, on_progress)
    write_report(scores, gallery, out)
    return scores


def write_report(scores: Scores, gallery: Gallery, out: Path) -> None:
    """`scores.json`, `scores.csv`, `report.md` and `report.html` in the folder `out`, each whole or not at all."""
    texts = {
        "scores.json": json.dumps(as_json(scores), indent=1, allow_nan=False) + "\n",
        "scores.csv": per_picture_csv(scores),
        "report.md": markdown(scores),
        "report.html": report_page(scores, gallery),
    }
    for name, text in texts.items():
        write_text(out / name, text)


def check_out(out: Path) -> None:
    """Raises: ConfigError for what would only fail once everything is scored."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; --out takes a folder")


def make_folder(out: Path) -> None:
    """Raises: ConfigError if nothing can be written there, before time goes into scores."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {out}: {error.strerror}") from error
    if not os.access(out, os.W_OK):
        raise ConfigError(f"cannot write to the folder {out}: no permission")
