"""Methods that are scored on the same pictures: one scene at a time in memory, the trivial baselines beside them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pix2next.data.pairs import Pair
from pix2next.errors import ConfigError, ImageError, PairError
from pix2next.evaluate.baselines import BASELINES, EVERY_BASELINE, Baselines
from pix2next.evaluate.cases import Case, LeftOut, find_cases, load_case, train_beside, usable
from pix2next.evaluate.gallery import Gallery
from pix2next.evaluate.scorer import TRUTH, Example, PictureScores, Scorer
from pix2next.evaluate.scores import Cost, Scores
from pix2next.images import Nir, Rgb

Progress = Callable[[int, int], None]
Competitor = Callable[[Rgb], Nir] | Path
"""What makes pictures: a model, or the folder in which they lie ready."""


@dataclass(frozen=True)
class Contest:
    """Who is scored, on what."""

    competitors: Mapping[str, Competitor]
    cases: Sequence[Case]
    train: Sequence[Pair]
    """What the baselines are fitted on; empty where there is no such split."""
    baselines: Sequence[str] | None
    """Their names; None without RGB pictures."""
    skip_bad: bool
    left_out: Sequence[LeftOut]
    notes: Sequence[str] = ()
    costs: Mapping[str, Cost] = field(default_factory=dict)


def set_up(
    competitors: Mapping[str, Competitor],
    rgb: Path | None,
    nir: Path,
    *,
    baselines: Sequence[str] = BASELINES,
    skip_bad: bool = False,
    notes: Sequence[str] = (),
    costs: Mapping[str, Cost] | None = None,
) -> Contest:
    """Find and check every picture; the baselines' train split is looked for beside the folder of `nir`.

    With `skip_bad` pictures that lack a partner, cannot be read or differ in size are left out.

    Raises:
        PairError: no pictures there; unless `skip_bad`, one without a partner, or partners of different sizes.
        ImageError: unless `skip_bad`, a picture cannot be read.
        ConfigError: a competitor's name is a baseline's or empty.
    """
    check_names(competitors)
    made = {name: it for name, it in competitors.items() if isinstance(it, Path)}
    found, lonely = find_cases(rgb, nir, made, skip_bad)
    cases, bad = usable(found, skip_bad)
    train, without = train_beside(nir.parent, skip_bad) if rgb else ([], [])
    left_out = [*lonely, *bad, *without]
    return Contest(competitors, cases, train, baselines if rgb else None, skip_bad, left_out, notes, costs or {})


def check_names(names: Mapping[str, object]) -> None:
    """Raises: ConfigError for a name that stands for something else in the tables."""
    for name in names:
        if name in EVERY_BASELINE:
            raise ConfigError(f"'{name}' is the name of a baseline; give what is scored another one")
        if name == TRUTH or not name.strip():
            raise ConfigError(f"'{name}' is no name for what is scored; give it another one")


def hold(contest: Contest, scorer: Scorer, on_progress: Progress | None = None) -> tuple[Scores, Gallery]:
    """Score every case, and keep what the reports show of the pictures.

    Raises: ImageError or PairError as `set_up`, for pictures that changed since; WeightsError from a model.
    """
    baselines = _fitted(contest)
    gallery = Gallery(list(contest.competitors))
    pictures: list[PictureScores] = []
    left_out = list(contest.left_out)
    for done, case in enumerate(contest.cases, start=1):
        try:
            example = _example(contest, case, baselines)
        except (ImageError, PairError) as error:
            if not contest.skip_bad:
                raise
            left_out.append(LeftOut(case.name, str(error)))
        else:
            pictures.append(scorer.score(example))
            gallery.add(example)
        if on_progress:
            on_progress(done, len(contest.cases))
    if not pictures:
        raise PairError(f"none of the {len(contest.cases)} pictures can be scored (first: {left_out[-1].reason})")
    return _sum_up(contest, scorer, pictures, left_out, baselines), gallery


def _fitted(contest: Contest) -> Baselines | None:
    if contest.baselines is None:
        return None
    return Baselines.fit([case.pair for case in contest.cases], contest.train, contest.baselines)


def _example(contest: Contest, case: Case, baselines: Baselines | None) -> Example:
    rgb, nir, made = load_case(case)
    fakes: dict[str, Nir] = {}
    for name, competitor in contest.competitors.items():
        if isinstance(competitor, Path):
            fakes[name] = made[name]
        else:
            assert rgb is not None, "a model needs RGB pictures"
            fakes[name] = competitor(rgb)
    if baselines and rgb is not None:
        fakes |= baselines.of(case.pair, rgb)
    return Example(case.name, nir, fakes, rgb)


def _sum_up(
    contest: Contest,
    scorer: Scorer,
    pictures: list[PictureScores],
    left_out: list[LeftOut],
    baselines: Baselines | None,
) -> Scores:
    mean, missing = scorer.mean(pictures)
    return Scores(
        name=next(iter(contest.competitors)),
        pairs=len(pictures),
        mean=mean,
        pictures=pictures,
        protocol_name=scorer.protocol.name,
        protocol=scorer.describe(),
        intervals=scorer.intervals(pictures),
        paired=scorer.paired(pictures),
        linear_map=baselines.note() if baselines else None,
        costs=dict(contest.costs),
        notes=[*contest.notes, *missing],
        left_out=left_out,
    )
