"""The report as one page that needs nothing else: no server, no network, no other file."""

from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pix2next.evaluate import tables
from pix2next.evaluate.charts import Point, histograms, quality_against_cost
from pix2next.evaluate.gallery import LARGEST_ERROR, Gallery, shown_on_sheet
from pix2next.evaluate.metrics import METRICS
from pix2next.evaluate.scores import Scores


class Cell(NamedTuple):
    """One value in a table."""

    text: str
    beside: str
    best: bool = False


class Row(NamedTuple):
    """One method's values."""

    method: str
    cells: list[Cell]


def render(template: str, **values: Any) -> str:
    """A template of the folder `pages`; every value is escaped but the charts."""
    return pages().get_template(template).render(values)


def pages() -> Environment:
    """Where the templates are; a name that one of them lacks is an error of ours."""
    return Environment(
        loader=PackageLoader("pix2next.evaluate", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )


def report_page(scores: Scores, gallery: Gallery) -> str:
    """`report.html`: tables, charts, the worst pictures and the contact sheet."""
    compared = tables.compared_metrics(scores)
    sheet = gallery.sheet.in_order()
    return render(
        "report.html",
        title=" and ".join(gallery.methods),
        preamble=tables.preamble(scores),
        notes=scores.notes,
        headings=[tables.heading(metric) for metric in scores.metrics],
        means=means(scores),
        best_legend=tables.best_legend(),
        differences=_differences(scores, compared),
        difference_headings=[tables.heading(metric) for metric in compared],
        difference_legend=tables.difference_legend(scores),
        costs=[
            {"method": method, "gflop": f"{cost.gflop:.3g}", "parameters": f"{cost.parameters:,}"}
            for method, cost in scores.costs.items()
        ],
        cost_charts=_cost_charts(scores),
        distributions=_distributions(scores),
        first=gallery.methods[0],
        largest_error=LARGEST_ERROR,
        worst=gallery.worst.in_order(),
        sheet=sheet,
        sheet_shows=shown_on_sheet(gallery.methods, scores.linear_map is not None),
        sheet_said=_sheet_said(scores, gallery, len(sheet)),
        left_out=scores.left_out,
        protocol_name=scores.protocol_name,
        protocol=[(METRICS[metric].label, text) for metric, text in scores.protocol.items()],
    )


def means(scores: Scores) -> list[Row]:
    """The means of every method, with their intervals and the marks of the best."""
    best = {metric: scores.best(metric) for metric in scores.metrics}
    near = {metric: scores.as_good_as_best(metric) for metric in scores.metrics}

    def cell(method: str, metric: str) -> Cell:
        even = " ≈" if method in near[metric] and method != best[metric] else ""
        interval = scores.intervals.get(method, {}).get(metric)
        text = tables.shown(metric, scores.mean[method][metric])
        return Cell(text + even, tables.shown_interval(metric, interval), method == best[metric])

    return [Row(method, [cell(method, metric) for metric in scores.metrics]) for method in scores.mean]


def _differences(scores: Scores, metrics: list[str]) -> list[Row]:
    def cell(method: str, metric: str) -> Cell:
        test = scores.test(method, scores.name, metric)
        if test is None:
            return Cell("-", "")
        beside = f"{tables.shown_interval(metric, test.interval)}; {tables.shown_p(test)}"
        return Cell(tables.shown_difference(metric, test), beside)

    others = [method for method in scores.mean if method != scores.name]
    return [Row(method, [cell(method, metric) for metric in metrics]) for method in others if metrics]


def _distributions(scores: Scores) -> list[dict[str, str]]:
    """A chart a metric that pictures have; values that are missing are not drawn."""
    charts = []
    for metric in next(iter(scores.pictures[0].scores.values())):
        columns = {
            method: [value for picture in scores.pictures if (value := picture.scores[method][metric]) is not None]
            for method in scores.mean
        }
        of_mean = {method: values[metric] for method, values in scores.mean.items()}
        intervals = {method: known.get(metric) for method, known in scores.intervals.items()}
        svg = histograms(METRICS[metric].label, columns, of_mean, intervals)
        if svg:
            charts.append({"heading": tables.heading(metric), "svg": Markup(svg)})
    return charts


def _cost_charts(scores: Scores) -> list[Markup]:
    charts, series = [], {method: index for index, method in enumerate(scores.mean)}
    for metric in scores.metrics if scores.costs else []:
        points = [
            Point(method, series[method], cost.gflop, value, scores.intervals.get(method, {}).get(metric))
            for method, cost in scores.costs.items()
            if (value := scores.mean[method][metric]) is not None
        ]
        known = METRICS[metric]
        charts.append(Markup(quality_against_cost(known.label, points, known.higher_is_better)))
    return charts


def _sheet_said(scores: Scores, gallery: Gallery, count: int) -> str:
    which = (
        "Every picture" if count == scores.pairs else f"The {count} of {scores.pairs} pictures with the largest error"
    )
    shows = shown_on_sheet(gallery.methods, scores.linear_map is not None)
    return f"{which}: {shows}. Sorted by RMSE of {gallery.methods[0]}, the largest first."
