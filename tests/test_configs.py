"""Every YAML that comes along is a config, and a wrong one is refused by the full name of what is wrong."""

from pathlib import Path

import pytest

from pix2next.config import Config, load_config
from pix2next.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[1] / "configs").rglob("*.yaml"))


def test_the_presets_are_there():
    assert {"paper", "tiny", "small", "base"} <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_yaml_loads(path):
    assert isinstance(load_config(path), Config)


def test_overrides_reach_inner_settings():
    config = load_config(CONFIGS[0], ["data.root=some/where", "train.batch_size=7"])
    assert config.data.root == Path("some/where")
    assert config.train.batch_size == 7


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.batchsize=7", "train.batchsize"),
        ("model.generator.colour=red", "model.generator.colour"),
        ("train.batch_size=many", "train.batch_size"),
        ("train.batch_size", "--set train.batch_size"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_full_name(override, said):
    with pytest.raises(ConfigError) as refusal:
        load_config(CONFIGS[0], [override])
    assert said in str(refusal.value)


def test_a_missing_config_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.yaml"):
        load_config(tmp_path / "absent.yaml")
