"""What can go wrong through no fault of ours; each message is one sentence a user can act on."""


class Pix2NextError(Exception):
    """Base of every error that a user can cause and this package reports."""


class ConfigError(Pix2NextError):
    """A setting is unknown, impossible or missing."""


class ImageError(Pix2NextError):
    """A picture cannot be read, written or used."""


class LabelError(Pix2NextError):
    """A data set's labels cannot be read, or do not go with its pictures."""


class PairError(Pix2NextError):
    """A data set's RGB and NIR pictures do not pair up."""


class WeightsError(Pix2NextError):
    """A checkpoint is missing, unreadable or made for another network."""


def one_line(error: BaseException) -> str:
    """What another library's error says, to stand in a sentence of ours: no line breaks, at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__
