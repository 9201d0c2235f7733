"""Everything that is known once pictures are scored, as one value that every kind of report is written from."""

from dataclasses import asdict, dataclass, field, replace

from pix2next.evaluate.cases import LeftOut
from pix2next.evaluate.metrics import HIGHER_IS_BETTER
from pix2next.evaluate.scorer import PictureScores, Values
from pix2next.evaluate.uncertainty import Interval, PairedTest

LEVEL = 0.05
"""p-values below are called significant."""


@dataclass(frozen=True)
class Cost:
    """What a method takes for a 256 x 256 picture (or the next size that its network takes)."""

    gflop: float
    """10^9 operations, a multiply-add counted as two."""
    parameters: int


@dataclass(frozen=True)
class Scores:
    """What scores.json holds. A value is None where it has none; `notes` say why."""

    name: str
    """What is scored; the first of them in a comparison, which the others are tested against."""
    pairs: int
    mean: dict[str, Values]
    """Method, metric, value."""
    pictures: list[PictureScores]
    protocol_name: str
    protocol: dict[str, str]
    """What each metric's values are, in words."""
    intervals: dict[str, dict[str, Interval | None]] = field(default_factory=dict)
    """Method, metric, 95 % interval of the mean."""
    paired: dict[str, dict[str, dict[str, PairedTest | None]]] = field(default_factory=dict)
    """Method a, method b, metric, test of a - b on the same pictures."""
    linear_map: dict[str, object] | None = None
    """What the linear map was fitted on, and its weights."""
    costs: dict[str, Cost] = field(default_factory=dict)
    """Of the methods whose cost is known; only taken for comparisons."""
    notes: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    """Pictures that could not be scored, and why."""

    @property
    def metrics(self) -> list[str]:
        """Names, in the order of the tables."""
        return list(self.protocol)

    def test(self, a: str, b: str, metric: str) -> PairedTest | None:
        """Of a - b, whichever way round it was taken; None for metrics of whole sets, and where none is defined."""
        if test := self.paired.get(a, {}).get(b, {}).get(metric):
            return test
        turned = self.paired.get(b, {}).get(a, {}).get(metric)
        if turned is None:
            return None
        low, high = turned.interval
        return PairedTest(-turned.difference, Interval(-high, -low), turned.p_value)

    def best(self, metric: str) -> str | None:
        """The method with the best mean; None where no mean is defined."""
        sign = -1 if metric in HIGHER_IS_BETTER else 1
        known = {method: sign * value for method, values in self.mean.items() if (value := values[metric]) is not None}
        return min(known, key=lambda method: known[method]) if known else None

    def as_good_as_best(self, metric: str) -> set[str]:
        """The best method, and those that a paired test does not tell from it."""
        best = self.best(metric)
        if best is None:
            return set()
        tests = {method: self.test(method, best, metric) for method in self.mean if method != best}
        return {best} | {method for method, test in tests.items() if test and test.p_value >= LEVEL}


def as_json(scores: Scores) -> dict[str, object]:
    """What scores.json holds: everything but the features that the metrics of whole sets were computed from."""
    written = asdict(replace(scores, pictures=[], paired={}, left_out=[]))
    written["pictures"] = [
        {"name": picture.name, "width": picture.width, "height": picture.height, "scores": picture.scores}
        for picture in scores.pictures
    ]
    written["paired"] = {
        a: {b: {metric: test and test._asdict() for metric, test in tests.items()} for b, tests in against.items()}
        for a, against in scores.paired.items()
    }
    written["left_out"] = [left._asdict() for left in scores.left_out]
    return written
