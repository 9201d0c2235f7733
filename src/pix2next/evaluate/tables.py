"""Scores as text: for a terminal, as Markdown, and as one row a picture and method."""

import csv
import io
from collections.abc import Iterable, Sequence

from rich.table import Table

from pix2next.evaluate.baselines import EVERY_BASELINE
from pix2next.evaluate.metrics import METRICS
from pix2next.evaluate.scores import LEVEL, Scores
from pix2next.evaluate.uncertainty import Interval, PairedTest


def heading(metric: str) -> str:
    """The label, and an arrow to where better is."""
    known = METRICS[metric]
    return f"{known.label} {'↑' if known.higher_is_better else '↓'}"


def shown(metric: str, value: float | None) -> str:
    """As many decimals as are worth showing; `-` for no value."""
    if value is None:
        return "-"
    return f"{value:z.{METRICS[metric].digits}f}"


def shown_interval(metric: str, interval: Interval | None) -> str:
    """`low to high`, or nothing."""
    return "" if interval is None else f"{shown(metric, interval.low)} to {shown(metric, interval.high)}"


def shown_difference(metric: str, test: PairedTest | None) -> str:
    """With its sign."""
    return "-" if test is None else f"{test.difference:+.{METRICS[metric].digits}f}"


def shown_p(test: PairedTest | None) -> str:
    """`p < 0.001`, or the p-value with three decimals."""
    if test is None:
        return ""
    return "p < 0.001" if test.p_value < 0.001 else f"p = {test.p_value:.3f}"


def competitors(scores: Scores) -> list[str]:
    """The methods but the baselines."""
    return [method for method in scores.mean if method not in EVERY_BASELINE]


def preamble(scores: Scores) -> str:
    """What the numbers are, in two sentences."""
    left_out = f"; {len(scores.left_out)} left out" if scores.left_out else ""
    text = f"Mean of {scores.pairs} pictures{left_out}, protocol {scores.protocol_name}, with 95 % intervals."
    fitted = f" The baselines' maps were fitted on {scores.linear_map['fitted_on']}." if scores.linear_map else ""
    return text + fitted


def compared_metrics(scores: Scores) -> list[str]:
    """Those that a paired test can be made of."""
    tests = scores.paired.values()
    return [m for m in scores.metrics if any(m in by_metric for against in tests for by_metric in against.values())]


def difference_legend(scores: Scores) -> str:
    """How the table of differences is read."""
    return (
        f"Each method minus {scores.name} on the same pictures, with its 95 % interval and the p-value of a sign-flip "
        f"test, not corrected for their number."
    )


def best_legend() -> str:
    """How the marks in the table of means are read."""
    return f"Bold: the best mean; ≈: not told from it by a paired test (p of {LEVEL} or more)."


def scores_table(scores: Scores, of: str = "") -> Table:
    """The means, one row a method, each over its 95 % interval; `of` names the data set where there are several."""
    caption = [f"linear map fitted on {scores.linear_map['fitted_on']}"] if scores.linear_map else []
    left_out = [f"{len(scores.left_out)} left out, named in the report"] if scores.left_out else []
    table = Table(
        title=f"{of and f'{of}: '}mean of {scores.pairs} pictures, protocol {scores.protocol_name}",
        caption="\n".join([*caption, *left_out, *scores.notes]) or None,
    )
    table.add_column("")
    for metric in scores.metrics:
        table.add_column(heading(metric), justify="right")
    for method, values in scores.mean.items():
        intervals = scores.intervals.get(method, {})
        table.add_row(method, *(_cell(metric, values[metric], intervals.get(metric)) for metric in scores.metrics))
    return table


def _cell(metric: str, value: float | None, interval: Interval | None) -> str:
    text = shown(metric, value)
    return f"{text}\n[dim]{shown_interval(metric, interval)}[/dim]" if interval else text


def per_picture_csv(scores: Scores) -> str:
    """A row a picture and method; metrics of whole sets are not of a picture, and have no column."""
    metrics = list(next(iter(scores.pictures[0].scores.values())))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["picture", "method", "width", "height", *metrics])
    for picture in scores.pictures:
        for method, values in picture.scores.items():
            rows.writerow([picture.name, method, picture.width, picture.height, *(values[m] for m in metrics)])
    return text.getvalue()


def markdown(scores: Scores) -> str:
    """The whole report but its pictures."""
    parts = [
        f"# {' and '.join(map(escaped, competitors(scores)))}",
        escaped(preamble(scores)) + " " + best_legend(),
        _means(scores),
    ]
    if compared := compared_metrics(scores):
        parts += [escaped(difference_legend(scores)), _differences(scores, compared)]
    if scores.costs:
        rows = [[escaped(m), f"{cost.gflop:.3g}", f"{cost.parameters:,}"] for m, cost in scores.costs.items()]
        parts += ["For a 256 x 256 picture:", markdown_table(["", "GFLOP", "parameters"], rows)]
    parts += [f"- {escaped(note)}" for note in scores.notes]
    if scores.left_out:
        rows = [[escaped(left.name), escaped(left.reason)] for left in scores.left_out]
        parts += ["## Left out", markdown_table(["picture", "reason"], rows)]
    told = [[METRICS[metric].label, escaped(text)] for metric, text in scores.protocol.items()]
    parts += [f"## Protocol {scores.protocol_name}", markdown_table(["metric", "computed"], told)]
    return "\n\n".join(parts) + "\n"


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False) -> str:
    """Of cells that are Markdown already: names and sentences go through `escaped` first.

    With `numbers` columns stand to the right, but for the first and those without a heading.
    """
    rule = ["---:" if numbers and index and name else "---" for index, name in enumerate(headings)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (headings, rule, *rows))


def escaped(text: str) -> str:
    """Names may hold what Markdown or HTML would take for its own."""
    for character in "\\`*_[]<>|":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def _means(scores: Scores) -> str:
    rows = []
    for method, values in scores.mean.items():
        cells = []
        for metric in scores.metrics:
            interval = shown_interval(metric, scores.intervals.get(method, {}).get(metric))
            cells.append(marked_mean(scores, method, metric, values[metric]) + (f" ({interval})" if interval else ""))
        rows.append([escaped(method), *cells])
    return markdown_table(["", *map(heading, scores.metrics)], rows)


def marked_mean(scores: Scores, method: str, metric: str, value: float | None) -> str:
    """The mean with the marks of `best_legend`."""
    text = shown(metric, value)
    if method == scores.best(metric):
        return f"**{text}**"
    return f"{text} ≈" if method in scores.as_good_as_best(metric) else text


def _differences(scores: Scores, metrics: Sequence[str]) -> str:
    rows = []
    for method in scores.mean:
        if method != scores.name:
            tests = {metric: scores.test(method, scores.name, metric) for metric in metrics}
            rows.append([escaped(method), *(_difference(metric, test) for metric, test in tests.items())])
    return markdown_table(["", *map(heading, metrics)], rows)


def _difference(metric: str, test: PairedTest | None) -> str:
    if test is None:
        return "-"
    return f"{shown_difference(metric, test)} ({shown_interval(metric, test.interval)}; {shown_p(test)})"
