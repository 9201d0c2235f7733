"""The scripts that average and join checkpoints."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pix2next.config import GeneratorConfig, ModelConfig, VfmConfig
from pix2next.model.pix2next import Pix2Next

SCRIPTS = Path(__file__).parents[1] / "scripts"


def network(path: Path, seed: int, width: int = 8) -> Pix2Next:
    """A network without a VFM, saved at `path`."""
    torch.manual_seed(seed)
    generator = GeneratorConfig(
        widths=(width, width),
        encoder_blocks=(0, 1),
        decoder_blocks=(0, 1),
        bottleneck_blocks=1,
        norm_groups=4,
        fusions=(),
    )
    model = Pix2Next(ModelConfig(vfm=VfmConfig(name="none"), generator=generator))
    model.save(path, card={"val_lpips": "0.1"})
    return model


def run(*arguments: object, script: str = "average.py") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_weights_are_shares_of_their_sum(tmp_path):
    one, two = network(tmp_path / "one.safetensors", 1), network(tmp_path / "two.safetensors", 2)
    done = run(tmp_path / "mean.safetensors", tmp_path / "one.safetensors", f"{tmp_path / 'two.safetensors'}=3")
    assert done.returncode == 0, done.stderr
    mean = Pix2Next.load(tmp_path / "mean.safetensors").state_dict()
    assert any(not torch.equal(one.state_dict()[key], two.state_dict()[key]) for key in mean)
    for key, tensor in mean.items():
        torch.testing.assert_close(tensor, one.state_dict()[key] / 4 + two.state_dict()[key] * 3 / 4)


@pytest.mark.parametrize(
    ("second", "said"),
    [("wide.safetensors", "another architecture"), ("absent", "no run"), ("one.safetensors=-1", "above 0")],
)
def test_what_has_no_average_is_one_sentence(tmp_path, second, said):
    network(tmp_path / "one.safetensors", 1)
    network(tmp_path / "wide.safetensors", 1, width=16)
    done = run(tmp_path / "mean.safetensors", tmp_path / "one.safetensors", tmp_path / second)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and said in done.stderr
    assert not (tmp_path / "mean.safetensors").exists()


def test_joined_networks_are_those_of_the_files(tmp_path):
    one, two = network(tmp_path / "one.safetensors", 1), network(tmp_path / "two.safetensors", 2, width=16)
    out = tmp_path / "joined.safetensors"
    done = run(out, tmp_path / "one.safetensors", tmp_path / "two.safetensors", script="join.py")
    assert done.returncode == 0, done.stderr
    joined = Pix2Next.load(out)
    torch.testing.assert_close(joined.partner.state_dict(), two.state_dict(), rtol=0, atol=0)
    joined.partner = None
    torch.testing.assert_close(joined.state_dict(), one.state_dict(), rtol=0, atol=0)
    done = run(out, tmp_path / "one.safetensors", tmp_path / "absent", script="join.py")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "no run" in done.stderr
