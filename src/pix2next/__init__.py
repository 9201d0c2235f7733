"""RGB pictures to near-infrared ones.

from pix2next import Translator

nir = Translator.from_pretrained("tiny-outdoor")("photo.jpg")
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pix2next.config import Config, load_config
    from pix2next.errors import ConfigError, ImageError, LabelError, PairError, Pix2NextError, WeightsError
    from pix2next.model.pix2next import Pix2Next, load_model, shipped_models
    from pix2next.model.released import load_generator
    from pix2next.translate import Translator

__version__ = version("pix2next")

__all__ = [
    "Config",
    "ConfigError",
    "ImageError",
    "LabelError",
    "PairError",
    "Pix2Next",
    "Pix2NextError",
    "Translator",
    "WeightsError",
    "load_config",
    "load_generator",
    "load_model",
    "shipped_models",
]

_HOMES = {
    "pix2next.config": ("Config", "load_config"),
    "pix2next.errors": ("ConfigError", "ImageError", "LabelError", "PairError", "Pix2NextError", "WeightsError"),
    "pix2next.model.pix2next": ("Pix2Next", "load_model", "shipped_models"),
    "pix2next.model.released": ("load_generator",),
    "pix2next.translate": ("Translator",),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: `import pix2next` alone does not load torch."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'pix2next' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
