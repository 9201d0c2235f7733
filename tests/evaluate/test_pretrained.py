"""Fixed networks from disk."""

import pytest
import torch
from torchvision.models import AlexNet_Weights, alexnet

from pix2next.errors import ConfigError, WeightsError
from pix2next.evaluate.pretrained import convolutions_file, fingerprint, imagenet_normalise, pretrained_convolutions


def test_convolutions_are_torchvisions(torch_home):
    ours, theirs = pretrained_convolutions("alexnet"), alexnet(weights=AlexNet_Weights.IMAGENET1K_V1).features.eval()
    picture = torch.rand(1, 3, 64, 64)
    assert torch.equal(ours(picture), theirs(picture))
    assert not ours.training
    assert not any(parameter.requires_grad for parameter in ours.parameters())


def test_normalisation_by_hand():
    assert imagenet_normalise(torch.full((1, 3, 2, 2), -1.0))[0, :, 0, 0].tolist() == pytest.approx(
        [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    )
    assert imagenet_normalise(torch.zeros(2, 1, 4, 4)).shape == (2, 3, 4, 4)


@pytest.mark.parametrize("name", ["alexnet", "vgg16", "vgg19"])
def test_missing_weights_are_one_sentence(name, no_weights):
    with pytest.raises(WeightsError, match=rf"cannot load {name}-.*\.pth \(.*no route to host.*\); put https://"):
        pretrained_convolutions(name)


def test_a_damaged_file_is_one_sentence(no_weights, tmp_path):
    file = tmp_path / "torch_home/hub/checkpoints/alexnet-owt-7be5be79.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError, match=r"cannot load alexnet-owt-7be5be79\.pth") as error:
        pretrained_convolutions("alexnet")
    assert "\n" not in str(error.value)


def test_unknown_network():
    with pytest.raises(ConfigError, match="known are alexnet, vgg16, vgg19"):
        pretrained_convolutions("resnet")


def test_fingerprint_is_of_the_numbers(torch_home):
    first, second = pretrained_convolutions("alexnet"), pretrained_convolutions("alexnet")
    assert fingerprint(first) == fingerprint(second)
    assert len(fingerprint(first)) == 16
    with torch.no_grad():
        second[0].bias[0] += 1
    assert fingerprint(first) != fingerprint(second)


def test_the_file_of_a_network_is_named():
    assert convolutions_file("vgg16") == "vgg16-397923af.pth"
    with pytest.raises(ConfigError, match="known are alexnet, vgg16, vgg19"):
        convolutions_file("resnet")
