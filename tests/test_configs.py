"""Every YAML that comes along is a config."""

from pathlib import Path

import pytest

from pix2next.config import Config, load_config

CONFIGS = sorted((Path(__file__).parents[1] / "configs").rglob("*.yaml"))


def test_the_presets_are_there():
    assert {"paper", "tiny", "small", "base", "released"} <= {path.stem for path in CONFIGS}
    assert {"pix2pix", "pix2pixhd", "cyclegan"} <= {path.stem for path in CONFIGS if path.parent.name == "baselines"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_yaml_loads(path):
    assert isinstance(load_config(path), Config)
