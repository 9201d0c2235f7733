"""What a look through pairs found: as tables and sentences, as JSON, and as a contact sheet."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from pix2next.data.contact import write_contact_sheet
from pix2next.data.inspect import Report, by
from pix2next.data.registration import Registration
from pix2next.images import write_text

SHEET = 12
"""So many pairs are in the table of the worst, and on the contact sheet."""


def write_report(report: Report, out: Path) -> None:
    """`out/inspect.json` with everything, and `out/worst.png`, the contact sheet of the worst registered pairs."""
    write_text(out / "inspect.json", json.dumps(as_json(report), indent=2, ensure_ascii=False) + "\n")
    rows = []
    for split, pair in report.worst[:SHEET]:
        found = report.facts[split, pair.name].registration
        assert found is not None
        rows.append((pair, f"{split}/{pair.name}: {_in_words(found)}"))
    if rows:
        write_contact_sheet(rows, out / "worst.png")


def _in_words(found: Registration) -> str:
    return (
        f"edges {found.edges:.2f}, best {found.best:.2f} with NIR {found.right:+.1f} right, {found.down:+.1f} down"
        + (" (shifted)" if found.is_shifted else "")
    )


def as_json(report: Report) -> dict[str, Any]:
    """Everything in the report, for `inspect.json`; registrations worst first."""
    judged = [(split, pair, report.facts[split, pair.name].registration) for split, pair in report.worst]
    return {
        "root": str(report.root),
        "whole": report.whole,
        "pairs": {split: len(several) for split, several in report.pairs.items()},
        "problems": report.problems,
        "remarks": report.remarks,
        "sizes": _counted(by(found.rgb_size) for found in report.facts.values()),
        "depths": _counted("{} RGB, {} NIR".format(*found.depths) for found in report.facts.values()),
        "registration": [
            {"split": split, "name": pair.name, **found._asdict(), "shifted": found.is_shifted}
            for split, pair, found in judged
            if found
        ],
    }


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def summary_table(report: Report) -> Table:
    """Splits in rows: pairs, sizes, depths, quantiles of the edge correlation, and shifted pairs."""
    table = Table(title=f"{report.root}: correlation of edges, and how many pairs are off")
    for column in ("split", "pairs", "sizes", "depths", "worst", "5 %", "median", "off"):
        table.add_column(column, justify="left" if column in ("split", "sizes", "depths") else "right")
    for split, several in report.pairs.items():
        facts = [found for (of, _), found in report.facts.items() if of == split]
        judged = [found.registration for found in facts if found.registration]
        low = np.quantile([found.edges for found in judged], (0, 0.05, 0.5)) if judged else (np.nan,) * 3
        table.add_row(
            split,
            str(len(several)),
            _range({found.rgb_size for found in facts}),
            "; ".join(_counted(" / ".join(dict.fromkeys(found.depths)) for found in facts)),
            *(f"{value:.2f}" for value in low),
            str(sum(found.is_shifted for found in judged)),
        )
    return table


def _range(sizes: set[tuple[int, int]]) -> str:
    by_area = sorted(sizes, key=lambda size: size[0] * size[1])
    if len(by_area) < 2:
        return "".join(map(by, by_area))
    return f"{len(by_area)}: {by(by_area[0])} to {by(by_area[-1])}"


def worst_table(report: Report, shown: int = SHEET) -> Table:
    """The worst registered pairs, a line each."""
    table = Table(title="Edges that fit least, worst first")
    for column in ("pair", "edges", "best", "NIR lies right", "down", ""):
        table.add_column(column, justify="left" if column in ("pair", "") else "right", overflow="fold")
    for split, pair in report.worst[:shown]:
        found = report.facts[split, pair.name].registration
        assert found is not None
        numbers = (f"{found.edges:.3f}", f"{found.best:.3f}", f"{found.right:+.1f}", f"{found.down:+.1f}")
        table.add_row(f"{split}/{pair.name}", *numbers, "shifted" if found.is_shifted else "")
    return table


def findings(report: Report, shown: int = 20) -> list[str]:
    """Problems and remarks in sentences, the first few of each kind."""
    lines = []
    for kind, sentences in report.problems.items():
        lines += [f"{kind}: {sentence}" for sentence in sentences[:shown]]
        lines += [f"{kind}: {len(sentences) - shown} more"] if len(sentences) > shown else []
    for remark, names in report.remarks.items():
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        lines.append(f"{remark}: {len(names)} pairs ({', '.join(names[:5])}{more})")
    return [*lines, "no problems found" if report.whole else f"{sum(map(len, report.problems.values()))} problems"]
