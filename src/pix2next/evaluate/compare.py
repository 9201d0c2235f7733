"""Several models, folders of pictures from other tools, and the trivial baselines: one table and one page."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from pix2next.errors import ConfigError
from pix2next.evaluate.baselines import baselines_to_be_had
from pix2next.evaluate.boosted import BOOSTED_PARAMETERS, boosted_operations
from pix2next.evaluate.cases import scored_split
from pix2next.evaluate.contest import Competitor, Contest, Progress, check_names, set_up
from pix2next.evaluate.efficiency import count_flop, side_for
from pix2next.evaluate.metrics import DEFAULT_METRICS
from pix2next.evaluate.protocols import DEFAULT_PROTOCOL
from pix2next.evaluate.report import check_out, rgb_beside, score_and_write
from pix2next.evaluate.scores import Cost, Scores
from pix2next.images import find_pictures
from pix2next.model.pix2next import BEST
from pix2next.translate import Translator

SIDE = 256
"""Of the picture that operations are counted for."""


def compare(
    competitors: Mapping[str, Competitor],
    out: Path,
    *,
    data: Path | None = None,
    nir: Path | None = None,
    rgb: Path | None = None,
    on_progress: Progress | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    protocol: str = DEFAULT_PROTOCOL,
    device: str = "cpu",
    skip_bad: bool = False,
) -> Scores:
    """Score all on the same pictures, test each against the first, and write the reports into `out`.

    Either `data`, which holds `rgb/` and `nir/` or a split `test` that does, or the folder `nir` with `rgb` (or a
    folder `rgb` beside it). Without RGB pictures only folders can be compared, and there are no baselines.

    Raises: ConfigError for settings that do not go together; the rest as `evaluate_model`.
    """
    check_out(out)
    if (data is None) == (nir is None) or (data and rgb):
        raise ConfigError("a comparison takes either --data, or --nir (and --rgb)")
    if not competitors:
        raise ConfigError("there is nothing to compare: name models or folders of pictures")
    contest = set_up_comparison(competitors, data, nir, rgb, skip_bad)
    return score_and_write(contest, out, on_progress, metrics, protocol, device)


def set_up_comparison(
    competitors: Mapping[str, Competitor], data: Path | None, nir: Path | None, rgb: Path | None, skip_bad: bool
) -> Contest:
    """The contest with every baseline that can be had, and with what is known of costs."""
    check_names(competitors)
    notes: list[str] = []
    if nir is None:
        assert data is not None
        split = scored_split(data)
        rgb, nir = split / "rgb", split / "nir"
    else:
        rgb, notes = rgb_beside(nir, rgb)
    models = [name for name, it in competitors.items() if not isinstance(it, Path)]
    if rgb is None and models:
        raise ConfigError(f"{models[0]} makes its pictures of RGB ones; give their folder with --rgb")
    names, missing = baselines_to_be_had()
    costs = costs_of(competitors, names if rgb else ())
    notes += missing if rgb else []
    return set_up(competitors, rgb, nir, baselines=names, skip_bad=skip_bad, notes=notes, costs=costs)


def named_competitors(sources: Iterable[str], device: str = "auto") -> dict[str, Competitor]:
    """Models, and folders of pictures, each under a name that tells it from the others.

    A source is `NAME=SOURCE`, or is called by as much of the end of its path as it takes. A folder with pictures that
    is no training run holds what another tool made; anything else is a model, as `load_model` takes it.

    Raises: WeightsError or ConfigError for a model or device that is not to be had; ConfigError for the same twice.
    """
    named = _named(sources, "two", "NAME=SOURCE")
    check_names(named)
    return {name: competitor(source, device) for name, source in named.items()}


def named_folders(texts: Iterable[str]) -> dict[str, Path]:
    """Of `NAME=DIR`, or `DIR` alone, which is called by the end of its path.

    Raises: ConfigError for two of one name.
    """
    return {name: Path(folder) for name, folder in _named(texts, "two data sets", "NAME=DIR").items()}


def _named(texts: Iterable[str], two: str, form: str) -> dict[str, str]:
    """Sources by the name that was given before `=`, or by the end of their path."""
    given = [_with_name(text) for text in texts]
    ends = short_names([source for name, source in given if not name], [name for name, _ in given if name])
    named = [(name or ends[source], source) for name, source in given]
    twice = [name for name, count in Counter(name for name, _ in named).items() if count > 1]
    if twice:
        raise ConfigError(f"{two} are called {twice[0]}; give each a name of its own, as {form}")
    return dict(named)


def _with_name(source: str) -> tuple[str, str]:
    """The name before `=`, unless the whole is a path that exists, and the rest."""
    name, equals, rest = source.partition("=")
    return (name, rest) if equals and not Path(source).exists() else ("", source)


def short_names(sources: Sequence[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Each source with the shortest end of its path, by whole parts, that no other ends in.

    Raises: ConfigError for the same source twice.
    """
    taken = set(taken)
    parts = {source: Path(source).expanduser().absolute().parts for source in sources}
    names = {}
    for source, own in parts.items():
        others = [theirs for other, theirs in parts.items() if other != source]
        if own in others or sources.count(source) > 1:
            raise ConfigError(f"{source} is given twice")
        lengths = range(1, len(own) + 1)
        ends = ("/".join(own[-length:]) for length in lengths if all(own[-length:] != it[-length:] for it in others))
        names[source] = next((end for end in ends if end not in taken), source)
    return names


def competitor(source: str, device: str = "auto") -> Competitor:
    """The folder itself if it holds pictures and is no training run; else the model."""
    path = Path(source).expanduser()
    if path.is_dir() and not (path / BEST).is_file() and find_pictures(path):
        return path
    return Translator.from_pretrained(source, device=device)


def costs_of(competitors: Mapping[str, Competitor], baselines: Sequence[str]) -> dict[str, Cost]:
    """Of every method whose cost is known: not of pictures that lie ready, nor of functions."""
    models = {name: it for name, it in competitors.items() if isinstance(it, Translator)}
    known = {
        "luma": Cost(5 * SIDE**2 / 1e9, 3),
        "red": Cost(0.0, 0),
        "green": Cost(0.0, 0),
        "blue": Cost(0.0, 0),
        "linear": Cost(6 * SIDE**2 / 1e9, 4),
        "boosted": Cost(boosted_operations(SIDE) / 1e9, BOOSTED_PARAMETERS),
    }
    return {name: _cost(it) for name, it in models.items()} | {name: known[name] for name in baselines}


def _cost(translator: Translator) -> Cost:
    side = side_for(translator.network, SIDE)
    rgb = torch.zeros(1, 3, side, side, device=translator.device)
    parameters = sum(parameter.numel() for parameter in translator.model.parameters())
    return Cost(count_flop(translator.network, rgb) / 1e9, parameters)
