"""How models fare on data that they were not trained on: every model on every data set, the baselines beside."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from pix2next.errors import ConfigError
from pix2next.evaluate.compare import set_up_comparison
from pix2next.evaluate.contest import Competitor, Contest, Progress, check_names, hold
from pix2next.evaluate.html import Cell, Row, means, render
from pix2next.evaluate.metrics import DEFAULT_METRICS, METRICS
from pix2next.evaluate.protocols import DEFAULT_PROTOCOL
from pix2next.evaluate.report import check_out, make_folder, write_report
from pix2next.evaluate.scorer import Scorer
from pix2next.evaluate.scores import Scores, as_json
from pix2next.evaluate.tables import best_legend, escaped, heading, markdown_table, marked_mean, shown_interval
from pix2next.images import write_text
from pix2next.translate import pick_device

FILES = ("matrix.json", "matrix.md", "matrix.html")


def score_matrix(
    models: Mapping[str, Competitor],
    data: Mapping[str, Path],
    out: Path,
    *,
    progress_of: Callable[[str], AbstractContextManager[Progress | None]] = lambda name: nullcontext(),
    metrics: Sequence[str] = DEFAULT_METRICS,
    protocol: str = DEFAULT_PROTOCOL,
    device: str = "cpu",
    skip_bad: bool = False,
) -> dict[str, Scores]:
    """Score every model on the test split of every data set; writes `matrix.json`, `.md` and `.html` into `out`.

    Each data set's own full report goes into `out/NAME`. The baselines' maps are fitted on each data set's own train
    split, so beating them on foreign data is harder than it looks: they know that data, the model does not.

    Args:
        models: what makes the pictures, by name.
        data: folders with `rgb/` and `nir/`, or with a split `test` that has them, by name.
        out: a folder, made where it is missing.
        progress_of: given a data set's name, a context that yields what to call with how many are done of how many.
        metrics: their names.
        protocol: its name.
        device: what the metrics' networks run on.
        skip_bad: leave out pictures that cannot be scored, and say which.

    Raises: as `compare`; pictures of every data set are checked before the first is scored.
    """
    check_out(out)
    check_names(models)
    _check_names_of_data(data)
    contests = {name: _set_up(models, folder, skip_bad) for name, folder in data.items()}
    scorer = Scorer(metrics, protocol, pick_device(device))
    make_folder(out)
    scores = {name: _hold(contest, scorer, out / name, progress_of(name)) for name, contest in contests.items()}
    write_matrix(scores, out)
    return scores


def _set_up(models: Mapping[str, Competitor], folder: Path, skip_bad: bool) -> Contest:
    if not models:
        raise ConfigError("there is nothing to score: name models")
    lying = [name for name, model in models.items() if isinstance(model, Path)]
    if lying:
        raise ConfigError(
            f"{lying[0]} is a folder of pictures; a matrix takes models, which make them of each data set"
        )
    return set_up_comparison(models, folder, None, None, skip_bad)


def _hold(contest: Contest, scorer: Scorer, out: Path, progress: AbstractContextManager[Progress | None]) -> Scores:
    with progress as on_progress:
        scores, gallery = hold(contest, scorer, on_progress)
    write_report(scores, gallery, out)
    return scores


def _check_names_of_data(data: Mapping[str, Path]) -> None:
    if not data:
        raise ConfigError("there is no data to score on: give --data NAME=DIR, once a data set")
    for name in data:
        if not name or name.startswith(".") or any(character in name for character in '/\\:*?"<>|'):
            raise ConfigError(f"'{name}' is no name for a data set, whose report is a folder of that name")


def write_matrix(scores: Mapping[str, Scores], out: Path) -> None:
    """The three files, each whole or not at all."""
    texts = (
        json.dumps(matrix_json(scores), indent=1, allow_nan=False) + "\n",
        matrix_markdown(scores),
        matrix_page(scores),
    )
    for name, text in zip(FILES, texts, strict=True):
        write_text(out / name, text)


def matrix_json(scores: Mapping[str, Scores]) -> dict[str, object]:
    """Data set, then what its scores.json holds but the pictures, which stand there."""
    return {name: {k: v for k, v in as_json(it).items() if k != "pictures"} for name, it in scores.items()}


def matrix_markdown(scores: Mapping[str, Scores]) -> str:
    """A table a metric: methods down, data sets across."""
    first = next(iter(scores.values()))
    parts = ["# Every model on every data set", f"{escaped(_said(scores))} {best_legend()}"]
    for metric in first.metrics:
        rows = [
            [escaped(method), *(_markdown_cell(it, method, metric) for it in scores.values())] for method in first.mean
        ]
        parts += [f"## {heading(metric)}", markdown_table(["", *map(escaped, scores)], rows)]
    parts += [f"- {escaped(note)}" for note in _notes(scores)]
    told = [[METRICS[metric].label, escaped(text)] for metric, text in first.protocol.items()]
    parts += [f"## Protocol {first.protocol_name}", markdown_table(["metric", "computed"], told)]
    return "\n\n".join(parts) + "\n"


def matrix_page(scores: Mapping[str, Scores]) -> str:
    """The same as a page that leads to each data set's report."""
    first = next(iter(scores.values()))
    of_data = {name: means(it) for name, it in scores.items()}
    tables = [
        {"heading": heading(metric), "rows": [_row(index, column, of_data) for index in range(len(first.mean))]}
        for column, metric in enumerate(first.metrics)
    ]
    return render(
        "matrix.html",
        data=list(scores),
        said=_said(scores),
        best_legend=best_legend(),
        tables=tables,
        notes=_notes(scores),
        protocol_name=first.protocol_name,
        protocol=[(METRICS[metric].label, text) for metric, text in first.protocol.items()],
    )


def _row(index: int, column: int, of_data: Mapping[str, Sequence[Row]]) -> Row:
    """One method's values of one metric, over the data sets."""
    rows = [rows[index] for rows in of_data.values()]
    cells: list[Cell] = [row.cells[column] for row in rows]
    return Row(rows[0].method, cells)


def _markdown_cell(scores: Scores, method: str, metric: str) -> str:
    interval = shown_interval(metric, scores.intervals.get(method, {}).get(metric))
    mean = marked_mean(scores, method, metric, scores.mean[method][metric])
    return f"{mean} ({interval})" if interval else mean


def _said(scores: Mapping[str, Scores]) -> str:
    counts = ", ".join(f"{it.pairs} pictures of {name}" for name, it in scores.items())
    protocol = next(iter(scores.values())).protocol_name
    return f"Means over {counts}, protocol {protocol}, with 95 % intervals."


def _notes(scores: Mapping[str, Scores]) -> list[str]:
    """What the data sets' reports note, with the data set's name before it."""
    notes = []
    for name, it in scores.items():
        fitted = [f"baselines' maps fitted on {it.linear_map['fitted_on']}"] if it.linear_map else []
        left_out = [f"left out: {reason}" for _, reason in it.left_out]
        notes += [f"{name}: {text}" for text in (*fitted, *it.notes, *left_out)]
    return notes
