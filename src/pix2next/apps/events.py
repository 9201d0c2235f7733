"""What a run over many pictures has to tell while it goes on, and as lines of JSON for other programs."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Start:
    """So many pictures are going to be translated; None where nobody can know."""

    total: int | None
    out: str


@dataclass(frozen=True)
class Done:
    """A picture was written."""

    path: str
    target: str
    width: int
    height: int
    seconds: float
    """The picture's share of the time that its batch took in the network."""


@dataclass(frozen=True)
class Unlike:
    """The picture just written is unlike those that the model was trained on."""

    path: str
    distance: float
    """1 is what 95 % of pictures like those stay below."""
    part: str
    """`content`, or `look`: colours, light, sharpness, noise."""


@dataclass(frozen=True)
class Failed:
    """An input or a picture was left out; `reason` is a sentence."""

    path: str
    target: str | None
    reason: str


@dataclass(frozen=True)
class Existing:
    """A picture was passed over, since its file is there."""

    path: str
    target: str


@dataclass(frozen=True)
class End:
    """How many pictures were written, left out and passed over, and how long it took altogether."""

    done: int
    failed: int
    existing: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What a run would do, as far as the heads of the files tell."""

    total: int
    existing: int
    failed: int
    pixels: int
    bytes: int
    """Of the files to read."""
    estimated_seconds: float | None
    """What the network would need; None if there is nothing to translate."""
    sample: str
    """What was timed to estimate it."""


Event = Start | Done | Unlike | Failed | Existing | End | Plan
OnEvent = Callable[[Event], None]


def as_json(event: Event) -> str:
    """One line of ASCII: the event's name in lower case, then what it holds."""
    return json.dumps({"event": type(event).__name__.lower(), **asdict(event)})
