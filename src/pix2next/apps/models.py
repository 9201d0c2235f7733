"""Which checkpoints there are, and what each says of itself: for a terminal, as plain text, and for programs.

All of it stands in the heads of the files, so that listing takes no time and no torch.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from pix2next.cards import BEST, MEGABYTE, Card, card_of, checkpoint_file, shipped_models, weights_folder, weights_in
from pix2next.errors import WeightsError

BLANK = "not stated"
GFLOP = "GFLOP for 256 x 256"


@dataclass(frozen=True)
class Listed:
    """One checkpoint."""

    path: Path
    bytes: int
    card: Card

    @property
    def name(self) -> str:
        """That of its card; else its file's, or for a run's best its folder's."""
        return self.card.name or (self.path.resolve().parent.name if self.path.name == BEST else self.path.stem)


def list_models(named: Iterable[str] = ()) -> list[Listed]:
    """The checkpoints that ship, then those that are named: files of ours, runs' folders; each once.

    Raises:
        WeightsError: something named is no checkpoint of ours, or a card is damaged.
    """
    files = [*weights_in(weights_folder()), *map(_file_of, named)]
    return [Listed(path, path.stat().st_size, card_of(path)) for path in dict.fromkeys(files)]


def _file_of(name: str) -> Path:
    if path := checkpoint_file(name):
        return path
    raise WeightsError(f"no model {name}: not a file, nor a run's folder, nor a shipped one ({_known()})")


def _known() -> str:
    return ", ".join(shipped_models()) or "none"


def as_json(model: Listed) -> str:
    """One line; null for what a card does not say."""
    card = model.card.model_dump()
    scores = model.card.scores
    facts = {"name": model.name, "path": str(model.path), "bytes": model.bytes}
    return json.dumps({**card, **facts, "scores": scores and scores.model_dump(by_alias=True)}, ensure_ascii=False)


def as_text(models: Sequence[Listed]) -> str:
    """A paragraph a checkpoint, a fact a line: for any width."""
    return "\n\n".join(
        "\n".join([model.name, *(f"  {key}: {value}" for key, value in _facts(model).items())]) for model in models
    )


def models_table(models: Sequence[Listed]) -> Table:
    """A row a checkpoint, in three columns, so that 80 characters are enough; nothing is cut off in fewer."""
    table = Table(
        show_lines=True,
        caption="GFLOP for 256 x 256. Scores on the test split of each one's own data: means of n pictures.",
    )
    table.add_column("name", overflow="fold")
    table.add_column("size, cost and scores", overflow="fold")
    table.add_column("for what, and on which terms", overflow="fold")
    for model in models:
        facts = {key: escape(value) for key, value in _facts(model).items()}
        numbers = [facts.pop("size"), f"parameters: {facts.pop('parameters')}", f"GFLOP: {facts.pop(GFLOP)}"]
        scores = facts.pop("scores")
        lines = [*numbers, f"scores: {scores}"] if scores == BLANK else [*numbers, *scores.split(", ")]
        told = [f"[dim]{key}:[/dim] {value}" for key, value in facts.items()]
        table.add_row(escape(model.name), "\n".join(lines), "\n".join(told))
    return table


def _facts(model: Listed) -> dict[str, str]:
    card = model.card
    facts = {
        "domain": card.domain,
        "size": f"{model.bytes / MEGABYTE:.1f} MB",
        "parameters": card.parameters and f"{card.parameters / 1e6:.1f} M",
        GFLOP: card.gflop and f"{card.gflop:.3g}",
        "scores": _scores(card),
        "licence of weights": card.licence,
        "data": card.data,
        "terms of data": card.data_terms,
        "model card": card.card,
    }
    return {key: value or BLANK for key, value in facts.items()}


def _scores(card: Card) -> str | None:
    if (it := card.scores) is None:
        return None
    distances = f"LPIPS {it.lpips:.3f}, DISTS {it.dists:.3f}, FID-768 {it.fid_768:.3f}"
    return f"PSNR {it.psnr:.2f} dB, SSIM {it.ssim:.3f}, {distances}, n = {it.pictures}"
