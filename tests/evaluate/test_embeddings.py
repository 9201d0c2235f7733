"""Features of pictures against the packages whose numbers people print."""

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch_fidelity import feature_extractor_inceptionv3 as torch_fidelity
from torchmetrics.image.fid import FrechetInceptionDistance, NoTrainInceptionV3

from pix2next.errors import ConfigError, WeightsError
from pix2next.evaluate.distributions import frechet_distance
from pix2next.evaluate.embeddings import Inception, VisionTransformer, clip, dinov2, eight_bit, inception_input
from pix2next.evaluate.perceptual import network_input
from pix2next.evaluate.pretrained import weights_by_url


def squares(noisy, count: int = 2) -> torch.Tensor:
    return torch.cat([network_input(noisy((64, 64), seed)[0]) for seed in range(count)])


def as_bytes(pictures: torch.Tensor) -> torch.Tensor:
    return eight_bit(pictures).expand(-1, 3, -1, -1)


@pytest.mark.parametrize("width", [64, 192, 768])
def test_inception_agrees_with_torchmetrics(width, torch_home, noisy):
    pictures = squares(noisy)
    expected = NoTrainInceptionV3("inception-v3-compat", [str(width)])(as_bytes(pictures))
    assert torch.allclose(Inception(width).features(pictures), expected.reshape(2, width), atol=1e-5)


def test_fid_agrees_with_torchmetrics_in_any_order(torch_home, noisy):
    fakes, nirs = zip(*(noisy((64, 64), seed) for seed in range(3)), strict=True)
    fakes, nirs = (torch.cat([network_input(picture) for picture in pictures]) for pictures in (fakes, nirs))
    network, reference = Inception(64), FrechetInceptionDistance(feature=64).set_dtype(torch.float64)
    reference.update(as_bytes(fakes), real=False)
    reference.update(as_bytes(nirs), real=True)
    rows = [network.features(pictures).numpy() for pictures in (fakes, nirs)]
    assert frechet_distance(*rows) == pytest.approx(reference.compute().item(), rel=1e-3)


def test_inception_fed_as_the_released_code_does(torch_home, noisy, monkeypatch):
    reference = pytest.importorskip("pytorch_fid.inception", reason="needs pytorch-fid")
    state = weights_by_url(torch_fidelity.URL_INCEPTION_V3)
    monkeypatch.setattr(reference, "load_state_dict_from_url", lambda *args, **options: state)
    pictures = eight_bit(squares(noisy)).float() / 255
    block = reference.InceptionV3.BLOCK_INDEX_BY_DIM[768]
    with torch.inference_mode():
        expected = reference.InceptionV3([block]).eval()(pictures.expand(-1, 3, -1, -1))[0].mean(dim=(2, 3))
    ours = Inception(768, "released").features(pictures)
    assert torch.allclose(ours, expected, atol=1e-5)
    assert not torch.allclose(Inception(768).features(pictures), expected, atol=1e-3)


@pytest.mark.parametrize("size", [(180, 333), (400, 500), (299, 299)])
def test_clean_resize_agrees_with_clean_fid(size, noisy):
    reference = pytest.importorskip("cleanfid.resize", reason="needs clean-fid").build_resizer("clean")
    picture, _ = noisy(size)
    expected = reference(np.repeat(picture[:, :, None], 3, axis=2))[:, :, 0]
    ours = inception_input(torch.from_numpy(picture).float()[None, None], "clean")[0, 0]
    assert ours.numpy() == pytest.approx((expected - 128) / 128, abs=1e-4)


def test_resizes_differ_where_pictures_shrink(noisy):
    levels = torch.from_numpy(noisy((400, 500))[0]).float()[None, None]
    bilinear, clean, released = (inception_input(levels, resize) for resize in ("bilinear", "clean", "released"))
    assert released.std() > clean.std() > bilinear.std()  # aliasing keeps the noise


def test_features_do_not_depend_on_the_batch(torch_home, noisy):
    network, pictures = Inception(192), squares(noisy, 3)
    alone = torch.cat([network.features(picture[None]) for picture in pictures])
    assert torch.allclose(network.features(pictures), alone, atol=1e-5)


def test_the_layers_run_in_the_order_of_the_whole_network(torch_home):
    """The last module, whose weights need not be there, is reached only by asking for it."""
    assert list(dict(Inception(768).layers.named_children()))[-1] == "Mixed_6e"


def test_a_layer_without_weights_says_so(torch_home):
    state = weights_by_url(torch_fidelity.URL_INCEPTION_V3)
    if any(tensor.any() for name, tensor in state.items() if name.startswith("Mixed_7c") and "weight" in name):
        assert Inception(2048).features(torch.zeros(1, 1, 256, 256)).shape == (1, 2048)
    else:
        with pytest.raises(WeightsError, match="all zero in Mixed_7c.* take a layer up to 768") as error:
            Inception(2048)
        assert "\n" not in str(error.value)


def test_missing_weights_are_named(no_weights):
    file = "weights-inception-.*pth"
    with pytest.raises(WeightsError, match=f"cannot load {file} .* put https://.*{file} into .*TORCH_HOME"):
        Inception()


def test_unknown_layers_are_refused():
    with pytest.raises(ConfigError, match="known are 64, 192, 768, 2048"):
        Inception(512)


class Mean(nn.Module):
    """Stands for a transformer: what it was given, averaged, twice."""

    def __init__(self, name, pretrained, img_size):
        super().__init__()
        self.sees = (name, pretrained, img_size)

    def forward(self, x):
        assert x.shape[1:] == (3, self.sees[2], self.sees[2])
        return x.mean(dim=(2, 3))


def test_a_transformer_is_fed_normalised_squares(monkeypatch):
    monkeypatch.setattr(timm, "create_model", Mean)
    mean, std = (0.5, 0.25, 0.0), (0.5, 0.5, 2.0)
    network = VisionTransformer("some_vit", 32, mean, std, unit_length=False)
    grey = torch.full((1, 1, 40, 70), 0.75)
    assert network.features(grey)[0].tolist() == pytest.approx([0.5, 1, 0.375])
    assert network.network.sees == ("some_vit", True, 32)
    assert network.source == "timm/some_vit on the Hugging Face hub"


def test_embeddings_of_length_one(monkeypatch):
    monkeypatch.setattr(timm, "create_model", Mean)
    network = VisionTransformer("some_vit", 32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), unit_length=True)
    assert network.features(torch.rand(2, 1, 32, 32)).norm(dim=1).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize(("make", "name", "width"), [(dinov2, "dinov2", 1024), (clip, "clip_336.openai", 768)])
def test_published_transformers(make, name, width, monkeypatch):
    """Built as timm builds them, but for the weights; on the meta device, where they cost nothing."""
    create_model = timm.create_model

    def untrained(model, pretrained, img_size):
        assert pretrained
        with torch.device("meta"):
            return create_model(model, img_size=img_size)

    monkeypatch.setattr(timm, "create_model", untrained)
    network = make().to("meta")
    assert network.features(torch.zeros(1, 1, 256, 256, device="meta")).shape == (1, width)
    assert name in network.source


@pytest.mark.parametrize("make", [dinov2, clip])
def test_missing_transformers_are_one_sentence(make, monkeypatch):
    def unreachable(*args, **options):
        raise OSError("no route\nto host")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(WeightsError, match=r"cannot load model\.safetensors of timm/.* \(no route to host\).*HF_HOME"):
        make()
