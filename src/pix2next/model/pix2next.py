"""The whole network: VFM and generator, to and from one safetensors file that carries its config."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.constants import SAFETENSORS_SINGLE_FILE
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from jaxtyping import Float
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from pix2next.cards import BEST, FORMAT, checkpoint_file, read_card, read_own, shipped_models
from pix2next.config import AnyGeneratorConfig, GeneratorConfig, ModelConfig, ReleasedConfig, ResNetConfig, UNetConfig
from pix2next.errors import WeightsError, one_line
from pix2next.images import atomic_path
from pix2next.model.baselines import Released, ResNetGenerator, UNet
from pix2next.model.domain import DOMAIN, Domain
from pix2next.model.features import Vfm, build_vfm
from pix2next.model.generator import Generator, Level
from pix2next.model.released import generator_of, is_released
from pix2next.model.state_dicts import read_weights

__all__ = [
    "BEST",
    "DEFAULT_MODEL",
    "FORMAT",
    "Pix2Next",
    "build_generator",
    "load_model",
    "read_card",
    "shipped_models",
]

DEFAULT_MODEL = "tiny-outdoor"


class Pix2Next(nn.Module, PyTorchModelHubMixin, library_name="pix2next"):
    """RGB to NIR: the VFM reads the picture, the generator translates it with the VFM's features.

    With a partner, the mean of two such networks, of which the partner sees the picture mirrored: networks that were
    trained apart err apart (docs/outdoor-and-aerial.md).

    Height and width must be multiples of `multiple`; `pix2next.Translator` takes any size, and averages `views`.
    """

    def __init__(self, config: ModelConfig, *, fetch: bool = True) -> None:
        """Build the network, its VFM with the weights that `config.vfm.weights` names.

        Without `fetch` those weights are left out, to be loaded with all the others.
        """
        super().__init__()
        self.config = config
        self.domain: Domain | None = None
        """What its training pictures were like, where its file says so."""
        vfm = config.vfm
        self.vfm = build_vfm(vfm.name, config.strides, weights=vfm.weights if fetch else "none", frozen=vfm.frozen)
        if self.vfm:
            self.vfm.pretrained = vfm.weights != "none"
        self.generator = build_generator(config.generator, self.vfm.channels if self.vfm else {})
        self.partner = Pix2Next(config.partner, fetch=fetch) if config.partner else None
        parts: tuple[Any, ...] = (self.generator, self.vfm, self.partner)
        self.multiple: int = max(part.multiple for part in parts if part)
        self.views, self.turned, self.shrunk = config.views, config.turned, config.shrunk

    def forward(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
        """RGB in [-1, 1] to NIR, about [-1, 1] and not clamped."""
        features = self.vfm(rgb) if self.vfm else {}
        nir: Tensor = self.generator(rgb, features)
        return nir if self.partner is None else (nir + self.partner(rgb.flip(-1)).flip(-1)) / 2

    @classmethod
    def joined(cls, first: "Pix2Next", partner: "Pix2Next") -> "Pix2Next":
        """A network of both, in eval mode: `first` with its config and views, and `partner` beside it.

        Raises: WeightsError where `first` has a partner already.
        """
        if first.partner is not None:
            raise WeightsError("a network has one partner, and the first one has its own already")
        model = cls(first.config.model_copy(update={"partner": partner.config}), fetch=False)
        beside = {f"partner.{name}": tensor for name, tensor in partner.state_dict().items()}
        model.load_state_dict({**first.state_dict(), **beside})
        return model.eval()

    def recomputes(self, on: bool) -> None:
        """Whether training computes activations again for the gradient instead of keeping them.

        It saves those inside the VFM and inside each level of the generator. A batch norm that makes its own statistics
        then sees every batch twice.
        """
        for module in self.modules():
            if isinstance(module, (Level, Vfm)):
                module.recomputes = on

    def save(self, path: Path, *, card: Mapping[str, str] | None = None, dtype: torch.dtype = torch.float32) -> None:
        """Write parameters as `dtype`, config and `card` (free text: data, its terms, ...) to one safetensors file.

        Buffers keep their type: a batch norm's statistics can leave the range of float16. `domain` is left out, since
        training makes it wrong; where it holds, `card` takes it: {DOMAIN: model.domain.to_metadata()}.
        """
        parameters = {name for name, _ in self.named_parameters()}
        state = {name: _as(it, dtype if name in parameters else it.dtype) for name, it in self.state_dict().items()}
        metadata = {"format": FORMAT, "config": self.config.model_dump_json(), **(card or {})}
        with atomic_path(path) as temporary:
            save_file(state, temporary, metadata=metadata)

    @classmethod
    def load(cls, path: Path) -> "Pix2Next":
        """The network in a file that `save` wrote, in float32 and eval mode. No other file is needed.

        Raises:
            WeightsError: the file is missing, damaged, or not one of ours.
        """
        model = cls(read_config(path), fetch=False)
        try:
            model.load_state_dict(read_weights(path))
        except RuntimeError as error:
            raise WeightsError(f"{path}: its tensors do not fit its own config: {one_line(error)}") from error
        if text := read_own(path).get(DOMAIN):
            try:
                model.domain = Domain.from_metadata(text, model.vfm)
            except WeightsError as error:
                raise WeightsError(f"{path}: {error}") from None
        return model.eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        """For `save_pretrained` and `push_to_hub`: the same file as `save`, under the hub's name."""
        self.save(save_directory / SAFETENSORS_SINGLE_FILE)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> "Pix2Next":
        """For `from_pretrained`: that file, of a folder or of a repository on the hub."""
        folder = Path(model_id)
        if folder.is_dir():
            return cls.load(folder / SAFETENSORS_SINGLE_FILE)
        known = ("revision", "cache_dir", "force_download", "local_files_only", "token")
        chosen = {name: options[name] for name in known if name in options}
        return cls.load(Path(hf_hub_download(model_id, SAFETENSORS_SINGLE_FILE, **chosen)))


def build_generator(
    config: AnyGeneratorConfig, vfm_channels: Mapping[int, int]
) -> Generator | UNet | ResNetGenerator | Released:
    """The generator of the kind that `config` is of, untrained; `vfm_channels` is `Generator`'s."""
    match config:
        case GeneratorConfig():
            return Generator(config, vfm_channels)
        case UNetConfig():
            return UNet(config.width, config.depth, config.dropout)
        case ResNetConfig():
            return ResNetGenerator(config.width, config.downs, config.blocks)
        case ReleasedConfig():
            return Released()


def _as(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to(dtype).contiguous()


def read_config(path: Path) -> ModelConfig:
    """What the network in a file of ours is built from.

    Raises:
        WeightsError: the file is missing, not one of ours, or this version does not know its config.
    """
    metadata = read_own(path)
    try:
        return ModelConfig.model_validate_json(metadata["config"])
    except (KeyError, ValidationError) as error:
        raise WeightsError(f"{path}: its config cannot be used by this version: {one_line(error)}") from error


def load_model(source: str | Path) -> nn.Module:
    """A network that maps [b, 3, h, w] in [-1, 1] to [b, 1 or 3, h, w], in eval mode, with an attribute `multiple`.

    Args:
        source: a shipped name; a file that `Pix2Next.save` wrote; a run's folder (its best checkpoint); a checkpoint of
            the released Pix2Next code (three equal-meaning output channels); or `owner/name` on the Hugging Face hub.

    Raises:
        WeightsError: it is none of these, or cannot be had.
    """
    if path := checkpoint_file(source):
        return _load_file(path)
    if isinstance(source, str) and source.count("/") == 1 and not Path(source).suffix:
        return _from_hub(source)
    known = ", ".join(shipped_models()) or "none"
    raise WeightsError(f"no model {source}: not a file, nor a shipped one ({known}), nor owner/name on the hub")


def _load_file(path: Path) -> nn.Module:
    if path.suffix == ".safetensors" and read_card(path).get("format") == FORMAT:
        return Pix2Next.load(path)
    weights = read_weights(path)
    if is_released(weights):
        return generator_of(weights, path)
    raise WeightsError(f"{path} is neither a {FORMAT} checkpoint nor one of the released Pix2Next code")


def _from_hub(name: str) -> nn.Module:
    try:
        return cast(Any, Pix2Next).from_pretrained(name).eval()
    except (OSError, HfHubHTTPError, HFValidationError, ValueError) as error:
        raise WeightsError(
            f"cannot get {name} from the Hugging Face hub ({one_line(error)}); "
            f"download its {SAFETENSORS_SINGLE_FILE} and give its path"
        ) from error
