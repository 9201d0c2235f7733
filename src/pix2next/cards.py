"""What a checkpoint says of itself: the card in the metadata of its safetensors file, and where checkpoints lie.

Only the head of a file is read, and neither torch nor a network is needed for it.
"""

import json
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_serializer
from safetensors import SafetensorError, safe_open

from pix2next.errors import WeightsError

FORMAT = "pix2next-1"
BEST = "best.safetensors"
"""The file in a training run's folder that stands for the run."""
MEGABYTE = 10**6
SHIPPED_MEGABYTES = 40
"""What all shipped checkpoints together may take."""

Text = Annotated[str, Field(min_length=1)]


class Part(BaseModel):
    """Frozen; only finite numbers."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, populate_by_name=True)


class CardScores(Part):
    """Means over the test split of the data that the network was trained on, protocol `standard`."""

    pictures: int = Field(gt=0)
    psnr: float
    """dB."""
    ssim: float = Field(ge=-1, le=1)
    lpips: float = Field(ge=0)
    dists: float = Field(ge=0)
    fid_768: float = Field(ge=0, alias="fid-768")


def _parsed(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


class Card(Part):
    """A checkpoint's keys in the metadata, which are strings there. None: it does not say.

    Besides them a file holds `format` and `config`, and one from a run `val_psnr` and the like.
    """

    name: Text | None = None
    domain: Text | None = None
    """The pictures it is for, in a phrase."""
    licence: Text | None = None
    """Of the weights."""
    data: Text | None = None
    """What it was trained on, with the source to name."""
    data_terms: Text | None = None
    vfm: Text | None = None
    """The vision foundation model, and on which terms its first weights came."""
    card: Text | None = None
    """Path of the model card in the repository."""
    step: int | None = Field(None, ge=0)
    """Of its run."""
    parameters: int | None = Field(None, gt=0)
    gflop: float | None = Field(None, gt=0)
    """10^9 operations for a picture of 256 x 256 in all its views, as `evaluate.efficiency.count_flop` counts."""
    scores: Annotated[CardScores | None, BeforeValidator(_parsed)] = None
    """JSON in the metadata."""

    @field_serializer("scores")
    def _as_text(self, scores: CardScores | None) -> str | None:
        return scores.model_dump_json(by_alias=True) if scores else None

    @property
    def missing(self) -> list[str]:
        """Names of what it does not say."""
        return [name for name, value in self if value is None]

    def to_metadata(self) -> dict[str, str]:
        """What it says, as strings; `Card.model_validate` takes them back."""
        return {name: str(value) for name, value in self.model_dump(exclude_none=True).items()}


def read_card(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file: format, config, and what was said of data, terms and scores.

    Raises:
        WeightsError: the file is missing or not safetensors.
    """
    try:
        with safe_open(path, framework="np") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot read weights {path}: {error}") from error


def read_own(path: Path) -> dict[str, str]:
    """`read_card` of a checkpoint of ours. Raises: WeightsError; also for one that is not."""
    metadata = read_card(path)
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{path} is no {FORMAT} checkpoint (its metadata name no such format)")
    return metadata


def card_of(path: Path) -> Card:
    """The card of a checkpoint of ours; all None where nothing was said.

    Raises:
        WeightsError: the file is missing, not one of ours, or its card is damaged.
    """
    try:
        return Card.model_validate(read_own(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise WeightsError(f"{path}: its card is damaged: {where} is {first['input']!r}: {first['msg']}") from error


def weights_folder() -> Path:
    """Where the checkpoints lie that come with this package."""
    return Path(str(resources.files("pix2next"))) / "weights"


def weights_in(folder: Path) -> list[Path]:
    """The checkpoints of a folder, sorted; files that are still being written are hidden, and left out."""
    return sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("."))


def shipped_models() -> list[str]:
    """Names of the checkpoints that come with this package."""
    return [path.stem for path in weights_in(weights_folder())]


def checkpoint_file(source: str | Path) -> Path | None:
    """The file that is meant: a run's best checkpoint, the file itself or a shipped one; None if it is none of these.

    Raises:
        WeightsError: a folder without a best checkpoint.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return best_of_run(path)
    shipped = weights_folder() / f"{source}.safetensors"
    return next((file for file in (path, shipped) if file.is_file()), None)


def best_of_run(folder: Path) -> Path:
    """Raises: WeightsError if there is none."""
    best = folder / BEST
    if not best.is_file():
        raise WeightsError(f"no {best}: the folder is no training run, or its first validation is still to come")
    return best
