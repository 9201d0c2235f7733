"""How far a picture is from a training set: distances by hand, what is looked at, and statistics in a file and back."""

import base64
import json

import cv2
import numpy as np
import pytest
import torch

import pix2next
from pix2next.cards import checkpoint_file, read_card
from pix2next.config import FusionConfig, GeneratorConfig, ModelConfig, VfmConfig
from pix2next.errors import ConfigError, ImageError, WeightsError
from pix2next.model.domain import DOMAIN, Distance, Domain, Normal, pooled, views
from pix2next.model.domain_fit import FEWEST, fit_domain, fit_normal, with_units
from pix2next.model.pix2next import Pix2Next, load_model, shipped_models
from pix2next.translate import Translator

from ..scenes import meadow, noise, write_meadows


def test_a_distance_by_hand():
    normal = Normal(np.array([1.0, 2.0]), np.array([1.0, 2.0]), np.array([[1.0], [0.0]]), np.array([4.0]), 1.0)
    # (x - mean) / scale is (2, 0), (0, 3) and (4, 1): divided by deviations 2 along the axis and 1 across it.
    rows = np.array([[3.0, 2.0], [1.0, 8.0], [5.0, 4.0], [1.0, 2.0]])
    np.testing.assert_allclose(normal.distance(rows), np.sqrt(np.array([1, 9, 5, 0]) / 2))


def test_all_axes_give_mahalanobis_distance():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 3)) @ np.array([[2.0, 0, 0], [1, 1, 0], [0, 3, 0.5]]) + [5, -1, 100]
    asked = rng.normal(size=(7, 3)) * 3 + [5, -1, 100]
    off = asked - rows.mean(axis=0)
    expected = np.sqrt(np.einsum("ni,ij,nj->n", off, np.linalg.inv(np.cov(rows.T, bias=True)), off) / 3)
    np.testing.assert_allclose(fit_normal(rows, rank=3).distance(asked), expected)
    assert fit_normal(rows).axes.shape == (3, 3)


def test_few_axes_share_what_is_left():
    rows = np.random.default_rng(0).normal(size=(30, 50))
    normal = fit_normal(rows, rank=4)
    scaled = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    assert normal.variances.sum() + normal.rest * 46 == pytest.approx((scaled**2).sum() / 30)
    assert fit_normal(rows, rank=40).axes.shape == (50, 15)
    assert (normal.distance(rows + 100) > 20 * normal.distance(rows)).all()


def test_a_feature_that_never_varied_does_not_decide():
    rows = np.random.default_rng(0).normal(size=(40, 5))
    rows[:, 2] = 0
    normal = fit_normal(rows)
    asked = rows[:1].copy()
    asked[0, 2] = 1e-3
    assert normal.distance(asked)[0] < 2 * normal.distance(rows).max()


def line(unit: float = 1.0) -> Normal:
    """The distance is the number itself."""
    return Normal(np.zeros(1), np.ones(1), np.ones((1, 1)), np.ones(1), 1.0, unit)


def view(*numbers: float) -> np.ndarray:
    return np.array(numbers, dtype=float)[:, None]


def test_the_nearest_view_counts_with_both_its_parts():
    domain = Domain({"content": line(), "look": line(2.0)}, 20, 20)
    found = domain.distance({"content": view(5, 0.5), "look": view(1, 3)})
    assert (found, found.greatest, found.unlike, found.part) == (Distance(0.5, 1.5), 1.5, True, "look")
    near = domain.distance({"content": view(0.9), "look": view(1)})
    assert (near, near.unlike, near.part) == (Distance(0.9, 0.5), False, "content")
    assert Domain({"look": line()}, 20, 20).distance({"look": view(2)}) == Distance(0, 2)


def test_nineteen_of_twenty_held_out_pictures_lie_below_one():
    rng = np.random.default_rng(0)
    apart = [{"content": view(rng.uniform(0, 7)), "look": view(rng.uniform(0, 0.2))} for _ in range(200)]
    domain = with_units(Domain({"content": line(), "look": line()}, 20, 200), apart)
    distances = [domain.distance(features) for features in apart]
    assert sum(it.unlike for it in distances) == 10
    # Neither part drowns the other, though their numbers differ by 35 times.
    assert 2 <= sum(it.content > 1 for it in distances) <= 8
    assert 2 <= sum(it.look > 1 for it in distances) <= 8


@pytest.mark.parametrize(
    ("size", "shapes"),
    [
        ((127, 90), []),
        ((1, 128), [(256, 256)]),
        ((200, 150), [(256, 256)]),
        ((256, 171), [(256, 171)]),
        ((512, 340), [(256, 170), (256, 256)]),
        ((40, 2000), [(5, 256), (40, 256)]),
        ((1, 100_000), [(1, 256), (1, 256)]),
    ],
)
@pytest.mark.parametrize("channels", [(), (3,)])
def test_what_is_looked_at(size, shapes, channels):
    assert [it.shape for it in views(np.zeros((*size, *channels), np.uint16))] == [(*it, *channels) for it in shapes]


def test_the_middle_is_not_resized_and_the_whole_is_averaged():
    picture = np.random.default_rng(0).integers(0, 256, (600, 512, 3), dtype=np.uint8)
    whole, middle = views(picture.astype(">f8") / 255)
    np.testing.assert_array_equal(middle, picture[172:428, 128:384] / 255)
    assert whole.mean() == pytest.approx(picture.mean() / 255, abs=1e-3)


@pytest.fixture(scope="module")
def model() -> Pix2Next:
    """A network with an untrained VFM, whose features tell smooth pictures from noise all the same."""
    torch.manual_seed(0)
    fusions = (FusionConfig(at="bottleneck", reads=(4, 8, 16), heads=2, head_width=8),)
    generator = GeneratorConfig(
        widths=(8, 8), encoder_blocks=(1, 1), bottleneck_blocks=1, decoder_blocks=(1, 1), norm="none", fusions=fusions
    )
    return Pix2Next(ModelConfig(vfm=VfmConfig(name="timm:test_efficientnet", weights="none"), generator=generator))


@pytest.fixture(scope="module")
def domain(model: Pix2Next, tmp_path_factory: pytest.TempPathFactory) -> Domain:
    folder = tmp_path_factory.mktemp("meadows")
    return fit_domain(model.eval(), write_meadows(folder / "train", 0, 20), write_meadows(folder / "val", 100, 20))


def distance_of(model: Pix2Next, domain: Domain, picture: np.ndarray) -> Distance:
    (features,) = pooled(model.vfm, [picture])
    return domain.distance(features)


def test_noise_is_unlike_meadows(model, domain):
    assert (domain.pictures, domain.held_out, set(domain.parts)) == (20, 20, {"content", "look"})
    near = [distance_of(model, domain, meadow(seed)).greatest for seed in range(200, 210)]
    assert np.median(near) < 1
    assert distance_of(model, domain, noise(0)).greatest > 2 * max(near)


def test_a_batch_gives_what_each_picture_gives(model, domain):
    pictures = [meadow(1, 300), noise(2, 300)]
    together = [domain.distance(features) for features in pooled(model.vfm, pictures)]
    np.testing.assert_allclose(together, [distance_of(model, domain, it) for it in pictures], rtol=1e-4)
    assert pooled(model.vfm, [meadow(1, 50)] * 2) == [{}, {}]


def test_depth_and_grey_do_not_matter(model, domain):
    picture = meadow(3)
    expected = distance_of(model, domain, picture)
    for same in (picture.astype(np.uint16) * 257, picture / 255):
        np.testing.assert_allclose(distance_of(model, domain, same), expected, rtol=1e-3)
    grey = picture[:, :, 1]
    assert distance_of(model, domain, grey) == distance_of(model, domain, np.stack([grey] * 3, axis=2))


def test_a_checkpoint_carries_its_statistics(model, domain, tmp_path):
    path = tmp_path / "model.safetensors"
    model.save(path, card={DOMAIN: domain.to_metadata()})
    again = load_model(path)
    assert (again.domain.pictures, again.domain.held_out) == (20, 20)
    for picture in (meadow(7), noise(7)):
        expected = distance_of(model, domain, picture)
        np.testing.assert_allclose(distance_of(again, again.domain, picture), expected, rtol=0.02)
    assert again.domain.to_metadata() == domain.to_metadata()


def test_saving_again_leaves_out_statistics_that_training_may_have_made_wrong(model, domain, tmp_path):
    model.save(tmp_path / "one.safetensors", card={DOMAIN: domain.to_metadata()})
    load_model(tmp_path / "one.safetensors").save(tmp_path / "two.safetensors")
    assert DOMAIN not in read_card(tmp_path / "two.safetensors")
    assert load_model(tmp_path / "two.safetensors").domain is None


def spoilt(domain: Domain, **change: object) -> str:
    whole = json.loads(domain.to_metadata())
    whole["parts"]["look"].update({key: value for key, value in change.items() if key in whole["parts"]["look"]})
    return json.dumps({**whole, **{key: value for key, value in change.items() if key in whole}})


def packed(*numbers: float) -> str:
    return base64.b64encode(np.array(numbers, "<f4").tobytes()).decode()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "their format is 2, not 1"),
        ({"parts": {}}, "of another VFM"),
        ({"parts": None}, "damaged"),
        ({"pictures": "many"}, "damaged"),
        ({"mean": "AAAA AAAA"}, "damaged"),
        ({"mean": packed(0, 1)}, "damaged"),
        ({"axes": "AAAA"}, "damaged"),
        ({"scale": packed(1)}, "damaged"),
        ({"rest": 0}, "not above 0"),
        ({"unit": -1}, "not above 0"),
        ({"rest": float("nan")}, "not above 0"),
        ({"variances": packed(*[float("nan")] * 10)}, "not finite"),
        ({"variances": packed(*[0.0] * 10)}, "not above 0"),
    ],
)
def test_damaged_statistics_are_refused_with_the_file_named(model, domain, tmp_path, change, words):
    path = tmp_path / "model.safetensors"
    model.save(path, card={DOMAIN: spoilt(domain, **change)})
    with pytest.raises(WeightsError, match=f"model.safetensors: the statistics of the training pictures .*{words}"):
        load_model(path)


@pytest.mark.parametrize("text", ["no JSON", "[]", "{}", "7", '{"format":1,"pictures":3'])
def test_what_is_no_statistics_at_all_is_refused(model, text):
    with pytest.raises(WeightsError, match="are damaged"):
        Domain.from_metadata(text, model.vfm)


def test_statistics_of_another_vfm_are_refused(domain):
    with pytest.raises(WeightsError, match="are of another VFM"):
        Domain.from_metadata(domain.to_metadata(), None)


def test_what_cannot_be_fitted_is_told(model, tmp_path):
    few = write_meadows(tmp_path / "few", 0, FEWEST - 1)
    enough = write_meadows(tmp_path / "enough", 0, FEWEST)
    with pytest.raises(ConfigError, match=f"few holds {FEWEST - 1} pictures; statistics need at least {FEWEST}"):
        fit_domain(model, enough, few)
    cv2.imwrite(str(enough / "0.png"), np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(ImageError, match=r"0.png is smaller than 128"):
        fit_domain(model, enough, enough)
    blind = Pix2Next(ModelConfig(vfm=VfmConfig(name="none"), generator=GeneratorConfig(fusions=())))
    with pytest.raises(ConfigError, match="this network has none"):
        fit_domain(blind, enough, enough)


def test_a_translator_tells_the_distance(model, domain, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    model.save(path, card={DOMAIN: domain.to_metadata()})
    translator = pix2next.Translator.from_pretrained(path, device="cpu")
    cv2.imwrite(str(tmp_path / "noise.png"), noise(1))
    assert translator.distance(tmp_path / "noise.png").unlike
    assert translator.distance(noise(1)[:60, :60]) is None
    ranged = Translator(translator.model, device="cpu", value_range=(0, 1000))
    assert ranged.distance(noise(1).astype(np.uint16) * 4) == pytest.approx(translator.distance(noise(1)), rel=0.1)
    monkeypatch.setattr("pix2next.translate.pooled", lambda *_: (_ for _ in ()).throw(MemoryError))
    assert translator.distance(noise(1)) is None
    translator.domain = None
    assert translator.distance(noise(1)) is None
    with pytest.raises(ImageError, match="no pixels"):
        translator.distance(noise(1)[:0])


def test_a_network_without_statistics_tells_no_distance(network):
    assert Translator.from_pretrained(network, device="cpu").distance(noise(0)) is None


@pytest.mark.parametrize("name", shipped_models())
def test_shipped_statistics_tell_photos_from_noise(name):
    text = read_card(checkpoint_file(name)).get(DOMAIN)
    if text is None:
        pytest.skip(f"{name} carries no statistics of its training pictures")
    assert len(text) < 100_000
    assert Translator.from_pretrained(name, device="cpu").distance(noise(0)).unlike
