"""LPIPS and DISTS against the packages that define them."""

from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
from torchmetrics.functional.image.dists import DISTSNetwork

from pix2next.data.pairs import find_split, load_pair
from pix2next.errors import ConfigError, WeightsError
from pix2next.evaluate.perceptual import DISTS, LPIPS, network_input, unit_tensor
from pix2next.evaluate.pixelwise import psnr, ssim
from pix2next.images import luma


def as_rgb(picture: np.ndarray) -> torch.Tensor:
    return network_input(picture).expand(-1, 3, -1, -1)


def test_network_input(noisy):
    fake, _ = noisy((256, 256))
    assert torch.equal(network_input(fake)[0, 0] * 255, torch.from_numpy(fake).float())
    stripes = np.tile(np.array([0, 255], np.uint8), (512, 256))
    assert (network_input(stripes)[..., 2:-2] - 0.5).abs().max() < 0.02  # antialiased: neither black nor white
    assert unit_tensor(stripes).shape == (1, 1, 512, 512)


def small(noisy, seed: int = 0) -> list[torch.Tensor]:
    """Made and true, in [0, 1], at a size that VGG16 is done with soon."""
    return [unit_tensor(picture) for picture in noisy((64, 80), seed)]


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_agrees_with_the_lpips_package(net, torch_home, noisy):
    ours, (fake, nir) = LPIPS(net), small(noisy)
    reference = lpips.LPIPS(net=net, verbose=False)
    expected = reference(*(x.expand(-1, 3, -1, -1) * 2 - 1 for x in (fake, nir))).item()
    x, y = ours.features(fake), ours.features(nir)
    assert ours.distance(x, y).item() == pytest.approx(expected, abs=1e-5)
    assert ours.distance(y, x).item() == pytest.approx(expected, abs=1e-5)
    assert ours.distance(y, y).item() == 0


def test_lpips_fed_as_the_released_code_does(torch_home, noisy):
    fake, nir = noisy()
    as_released = lpips.LPIPS(net="alex", verbose=False)(as_rgb(fake), as_rgb(nir)).item()
    assert LPIPS(released=True)(fake, nir) == pytest.approx(as_released, abs=1e-5)
    assert abs(LPIPS()(fake, nir) - as_released) > 1e-3


def test_dists_agrees_with_torchmetrics(torch_home, noisy):
    ours, (fake, nir) = DISTS(), small(noisy)
    expected = DISTSNetwork()(*(x.expand(-1, 3, -1, -1) for x in (fake, nir))).item()
    x, y = ours.features(fake), ours.features(nir)
    assert ours.distance(x, y).item() == pytest.approx(expected, abs=1e-5)
    assert ours.distance(y, x).item() == pytest.approx(expected, abs=1e-5)
    assert ours.distance(y, y).item() == pytest.approx(0, abs=1e-6)


def test_pictures_of_any_size_and_depth(torch_home, noisy):
    ours, (fake, nir) = LPIPS(), noisy((30, 41))
    deep = fake.astype(np.uint16) * 257
    expected = ours.distance(ours.features(network_input(fake)), ours.features(network_input(nir))).item()
    assert ours(deep, nir) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("network", [LPIPS, DISTS])
def test_a_score_does_not_depend_on_the_batch(network, torch_home, noisy):
    ours = network()
    pairs = [small(noisy, seed) for seed in range(3)]
    fakes, nirs = (torch.cat(pictures) for pictures in zip(*pairs, strict=True))
    together = ours.distance(ours.features(fakes), ours.features(nirs))
    alone = [ours.distance(ours.features(fake), ours.features(nir)) for fake, nir in pairs]
    assert together.tolist() == pytest.approx(torch.cat(alone).tolist(), abs=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("network", [LPIPS, DISTS])
def test_a_score_does_not_depend_on_the_device(network, torch_home, noisy):
    fake, nir = noisy()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        assert network().cuda()(fake, nir) == pytest.approx(network()(fake, nir), abs=1e-4)


@pytest.mark.parametrize("network", [LPIPS, DISTS])
def test_networks_leave_the_random_state_alone(network, torch_home):
    before = torch.get_rng_state()
    network()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("network", "file"), [(LPIPS, "alexnet-.*pth"), (DISTS, "vgg16-.*pth")])
def test_missing_weights_are_named(network, file, no_weights):
    with pytest.raises(WeightsError, match=f"cannot load {file} .* put https://.*{file} into .*TORCH_HOME") as error:
        network()
    assert "\n" not in str(error.value)


def test_unknown_networks_are_refused():
    with pytest.raises(ConfigError, match="known are alex, vgg"):
        LPIPS("squeeze")


def test_luma_on_the_outdoor_test_set(outdoor: Path, torch_home):
    perceptual = LPIPS()
    scores = []
    for pair in find_split(outdoor, "test"):
        rgb, nir = load_pair(pair)
        grey = luma(rgb)
        scores.append([psnr(grey, nir), ssim(grey, nir), perceptual(grey, nir)])
    assert np.mean(scores, axis=0) == pytest.approx([16.38, 0.7060, 0.1901], rel=3e-4)
