"""Settings: strict, merged from base files, overridden by name, refused in words."""

from pathlib import Path

import pytest

from pix2next.config import Config, load_config
from pix2next.errors import ConfigError


def write(folder: Path, text: str, name: str = "run.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_defaults_are_the_papers() -> None:
    config = Config()
    assert (config.loss.gan, config.loss.ssim, config.loss.feature_matching) == (1, 10, 5)
    assert config.loss.l1 == config.loss.perceptual == 0
    assert (config.train.learning_rate, config.train.batch_size, config.discriminator.scales) == (1e-4, 3, 3)


def test_a_file_says_only_what_differs_from_its_base(tmp_path: Path) -> None:
    write(tmp_path, "train: {steps: 7, seed: 3}\ndata: {crop: 64}\n", "base.yaml")
    config = load_config(write(tmp_path, "base: base.yaml\ntrain: {steps: 9}\n"))
    assert (config.train.steps, config.train.seed, config.data.crop) == (9, 3, 64)


def test_overrides_are_yaml_and_win(tmp_path: Path) -> None:
    path = write(tmp_path, "train: {steps: 7}\n")
    config = load_config(path, ["train.steps=8", "data.root=some where", "data.scale=[0.5, 0.75]", "data.flip=false"])
    assert config.train.steps == 8
    assert config.data.root == Path("some where")
    assert config.data.scale == (0.5, 0.75)
    assert config.data.flip is False


@pytest.mark.parametrize(
    ("text", "overrides", "said"),
    [
        ("train: {step: 7}", [], r"unknown setting train\.step; known here: steps,"),
        ("nets: {}", [], "unknown setting nets; known here: model,"),
        ("model: {generator: {fusions: [{att: bottleneck}]}}", [], "known here: at, how, reads"),
        ("train: {betas: [0.5, 1]}", [], r"train\.betas\.1: .*less than 1"),
        ("train: {steps: 0}", [], r"train\.steps: .*greater than 0, got 0"),
        ("train: {steps: many}", [], r"train\.steps: .*got 'many'"),
        ("train: {}", ["train.steps"], "expected NAME=VALUE"),
        ("train: {steps: 5}", ["train.steps.more=1"], "steps is a value, not a group"),
        ("[1, 2]", [], "expected a mapping of settings, found list"),
        ("train: {steps: [}", [], "not valid YAML"),
        ("base: nowhere.yaml", [], "cannot read config .*nowhere.yaml"),
        ("base: run.yaml", [], "names itself as its base"),
        ("model: {generator: {widths: [8, 8], fusions: []}}", [], "encoder_blocks has 4 entries, widths has 2"),
        ("model: {generator: {fusions: [{at: middle}]}}", [], "'middle' is no site"),
        ("model: {generator: {fusions: [{at: encoder.4}]}}", [], "levels are 0 to 3"),
        ("model: {generator: {fusions: [{at: bottleneck, how: self}]}}", [], "self reads no VFM map"),
        ("model: {generator: {fusions: [{at: bottleneck, reads: []}]}}", [], "needs at least one stride"),
        ("model: {vfm: {name: none}, generator: {fusions: [{at: bottleneck}]}}", [], "vfm.name is none, but"),
        (
            "model: {generator: {fusions: [{at: bottleneck, positions: true, head_width: 6}]}}",
            [],
            "head_width that 4 divides, not 6$",
        ),
        ("data: {scale: [0.9, 0.5]}", [], r"data\.scale: .*the smaller one first, got \[0\.9, 0\.5\]"),
        ("data: {scale: [0, 1]}", [], r"data\.scale: .*above 0"),
        ("train: {vfm_learning_rate: 0}", [], r"train\.vfm_learning_rate: .*greater than 0"),
        ("loss: {gan: 0, ssim: 0, feature_matching: 0}", [], r"run\.yaml: loss: no term has a weight above 0"),
        ("train: {seed: -1}", [], r"train\.seed: .*greater than or equal to 0"),
        ("train: {epochs: 7}", ["train.steps=9"], "steps 9 and epochs 7 are both given"),
        ("train: {recompute: true}\nmodel: {generator: {kind: unet}}", [], "recompute works in Pix2Next's own"),
        ("loss: {gan: 0, feature_matching: 0, r1: 1}", [], r"loss\.r1 is a penalty on the discriminators"),
        ("loss: {ssim: 0}\ntrain: {discriminator_starts: 9}", [], "no term has a weight above 0 at the first step"),
    ],
)
def test_wrong_settings_are_refused_by_name(tmp_path: Path, text: str, overrides: list[str], said: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=said):
        load_config(path, overrides)


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml"):
        load_config(tmp_path / "absent.yaml")


def test_no_mixed_precision_is_no_truth_value(tmp_path: Path) -> None:
    """YAML reads a bare no as false."""
    path = write(tmp_path, "train: {mixed_precision: no}\n")
    assert load_config(path).train.mixed_precision == "no"
    assert load_config(path, ["train.mixed_precision=no"]).train.mixed_precision == "no"
    with pytest.raises(ConfigError, match=r"train\.mixed_precision: .*got True"):
        load_config(path, ["train.mixed_precision=yes"])


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().train.steps = 3  # type: ignore[misc]


def test_a_config_survives_json() -> None:
    config = Config()
    assert Config.model_validate_json(config.model_dump_json()) == config
