"""Scores of many pictures: what they depend on, and above all what not."""

import dataclasses
import tracemalloc

import numpy as np
import pytest
import torch

from pix2next.errors import ConfigError, PairError
from pix2next.evaluate import scorer as module
from pix2next.evaluate.embeddings import eight_bit
from pix2next.evaluate.metrics import METRICS
from pix2next.evaluate.perceptual import network_input
from pix2next.evaluate.pixelwise import mae, psnr
from pix2next.evaluate.scorer import TRUTH, Example, Scorer
from pix2next.evaluate.uncertainty import bootstrap_interval, paired_difference

PIXELS = ("psnr", "ssim", "rmse", "mae", "std", "pcc", "psnr-aligned")


class Contrast(torch.nn.Module):
    """Stands for Inception: three numbers of a picture, and how often it was asked for them."""

    source = "contrast.pth"

    def __init__(self, width=768, resize="bilinear"):
        super().__init__()
        self.asked = 0
        self.weight = torch.nn.Parameter(torch.ones(1))

    def features(self, picture):
        self.asked += 1
        half = picture[..., : picture.shape[-1] // 2]
        return torch.stack([picture.mean(), picture.std(), half.mean()])[None]


class Apart(Contrast):
    """Stands for LPIPS and DISTS."""

    def distance(self, fake, nir):
        return (fake - nir).abs().sum(dim=1)


@pytest.fixture
def light(monkeypatch):
    for name in ("LPIPS", "DISTS"):
        monkeypatch.setattr(module, name, Apart)
    monkeypatch.setattr(module, "Inception", Contrast)


def examples(noisy, count: int = 6, size: tuple[int, int] = (40, 50)) -> list[Example]:
    """Two methods; the second is better."""

    def make(seed: int) -> Example:
        fake, nir = noisy(size, seed)
        better = ((fake.astype(int) + 3 * nir) // 4).astype(np.uint8)
        return Example(f"{seed}.png", nir, {"noisy": fake, "better": better})

    return [make(seed) for seed in range(count)]


def test_only_what_is_asked_for_is_loaded(no_weights, noisy):
    scorer = Scorer(["psnr", "ssim", "rmse"])
    (example,) = examples(noisy, 1)
    picture = scorer.score(example)
    assert list(picture.scores["noisy"]) == ["psnr", "ssim", "rmse"]
    assert picture.scores["noisy"]["psnr"] == psnr(example.fakes["noisy"], example.nir)
    assert (picture.name, picture.width, picture.height) == ("0.png", 50, 40)
    assert not picture.features


def test_names_are_checked(no_weights):
    with pytest.raises(ConfigError, match="no metric 'psrn'; known are psnr,"):
        Scorer(["psrn"])
    with pytest.raises(ConfigError, match="no protocol 'fast'; known are standard,"):
        Scorer(["psnr"], protocol="fast")


def test_the_truth_passes_each_network_once(light, noisy):
    scorer = Scorer(["lpips", "dists", "fid", "kid", "precision"])
    scorer.score(examples(noisy, 1)[0])
    networks = [*scorer.pair_networks.values(), *scorer.set_networks.values()]
    assert [network.asked for network in networks] == [3, 3, 3]  # the truth and two methods; one Inception for all


def test_means_by_hand(light, noisy):
    scorer = Scorer(["mae", "lpips"])
    given = examples(noisy)
    pictures = [scorer.score(example) for example in given]
    means, notes = scorer.mean(pictures)
    assert means["better"]["mae"] == pytest.approx(np.mean([mae(e.fakes["better"], e.nir) for e in given]))
    assert means["noisy"]["lpips"] == pytest.approx(np.mean([p.scores["noisy"]["lpips"] for p in pictures]))
    assert notes == []


def test_nothing_depends_on_the_order(light, noisy):
    scorer = Scorer([*PIXELS, "lpips", "fid", "kid", "precision", "recall"])
    pictures = [scorer.score(example) for example in examples(noisy, 9)]
    for ask in (scorer.mean, scorer.intervals, scorer.paired):
        assert ask(pictures[::-1]) == ask(pictures)


def test_a_picture_that_is_left_out_leaves_no_trace(light, noisy):
    """One that fails in the middle, too."""
    scorer = Scorer(["psnr", "lpips", "fid"])
    given = examples(noisy, 5)
    broken = dataclasses.replace(
        given[2], fakes={"noisy": given[2].fakes["noisy"], "better": np.zeros((9, 9), np.uint8)}
    )
    pictures = []
    for example in (*given[:2], broken, *given[3:]):
        try:
            pictures.append(scorer.score(example))
        except PairError as error:
            assert str(error) == "2.png: better made 9 x 9 pixels, and the truth has 50 x 40"
    assert len(pictures) == 4
    without = [scorer.score(example) for example in (*given[:2], *given[3:])]
    assert scorer.mean(pictures) == scorer.mean(without)


def test_a_method_alone_scores_as_among_others(light, noisy):
    scorer = Scorer(["psnr", "lpips", "fid"])
    given = examples(noisy)
    both = scorer.mean([scorer.score(example) for example in given])[0]
    alone = [dataclasses.replace(example, fakes={"better": example.fakes["better"]}) for example in given]
    assert scorer.mean([scorer.score(example) for example in alone])[0]["better"] == both["better"]


def test_intervals_and_paired_tests_are_those_of_the_values(light, noisy):
    scorer = Scorer(["psnr", "fid"])
    pictures = [scorer.score(example) for example in examples(noisy)]
    columns = {method: [p.scores[method]["psnr"] for p in pictures] for method in ("noisy", "better")}
    intervals, tests = scorer.intervals(pictures), scorer.paired(pictures)
    assert intervals["noisy"]["psnr"] == bootstrap_interval(columns["noisy"])
    assert tests == {"noisy": {"better": {"psnr": paired_difference(columns["noisy"], columns["better"])}}}
    fid = scorer.mean(pictures)[0]["noisy"]["fid-768"]
    assert intervals["noisy"]["fid-768"].low < fid < intervals["noisy"]["fid-768"].high


def test_a_perfect_picture_has_no_psnr_and_no_mean_of_it(light, noisy):
    scorer = Scorer(["psnr", "ssim"])
    given = [dataclasses.replace(each, fakes={"copy": each.fakes["noisy"]}) for each in examples(noisy, 3)]
    given[0] = dataclasses.replace(given[0], fakes={"copy": given[0].nir})
    pictures = [scorer.score(example) for example in given]
    means, notes = scorer.mean(pictures)
    assert pictures[0].scores["copy"]["psnr"] is None
    assert means["copy"]["psnr"] is None
    assert means["copy"]["ssim"] > 0
    assert notes == ["no mean PSNR of copy: a picture equals the truth, and its PSNR is infinite"]
    assert scorer.intervals(pictures)["copy"]["psnr"] is None


def test_why_a_value_is_missing(noisy):
    scorer = Scorer(["ms-ssim", "pcc", "ndvi"])
    flat = np.zeros((40, 50), np.uint8)
    _, notes = scorer.mean([scorer.score(dataclasses.replace(e, fakes={"flat": flat})) for e in examples(noisy, 2)])
    assert [note.split(":")[0] for note in notes] == [
        f"no mean {METRICS[name].label} of flat" for name in ("ms-ssim", "pcc", "ndvi")
    ]
    assert "161 pixels" in notes[0]


def test_few_pictures_are_told(light, noisy):
    scorer = Scorer(["fid", "kid", "precision"])
    pictures = [scorer.score(example) for example in examples(noisy, 5)]
    assert scorer.mean(pictures)[1] == []  # three features, five pictures
    (note,) = [note for note in scorer.mean(pictures[:3])[1] if "FID" in note]
    assert "FID-768 of 3 pictures is biased upwards" in note
    assert "rank-deficient up to 3 pictures" in note
    means, notes = scorer.mean(pictures[:1])
    assert set(means["noisy"].values()) == {None}
    assert notes == [
        "no FID-768: it needs at least 2 pictures, and there is 1",
        "no KID-768: it needs at least 2 pictures, and there is 1",
        "no Precision-768: it needs at least 4 pictures, and there is 1",
    ]


def test_no_pictures_at_all(light):
    assert Scorer(["psnr"]).mean([]) == ({}, [])
    assert Scorer(["psnr"]).paired([]) == {}


def test_networks_that_resize_see_the_whole_picture(monkeypatch, light, noisy):
    seen = []

    class Looks(Contrast):
        def features(self, picture):
            seen.append(tuple(picture.shape[-2:]))
            return super().features(picture)

    for name in ("dinov2", "clip", "Inception"):
        monkeypatch.setattr(module, name, Looks)
    (example,) = examples(noisy, 1, size=(300, 70))
    for metric, size in (("fid", (256, 256)), ("clean-fid", (300, 70)), ("fd-dinov2", (300, 70)), ("cmmd", (300, 70))):
        seen.clear()
        Scorer([metric]).score(example)
        assert set(seen) == {size}
    Scorer(["cmmd"], "paper-256").score(example)
    assert seen[-1] == (256, 256)


def test_descriptions_name_the_weights_and_their_fingerprint(light):
    told = Scorer(["psnr", "lpips", "fid"]).describe()
    assert "weights" not in told["psnr"]
    for name in ("lpips", "fid-768"):
        assert "weights contrast.pth, fingerprint " in told[name]


def test_memory_does_not_grow_with_the_number_of_pictures(light, noisy):
    """But for the scores and a row of features a picture: no array of pixels is kept."""
    scorer = Scorer(["psnr", "fid", "lpips"])
    example = examples(noisy, 1, size=(256, 256))[0]
    pictures = [scorer.score(example)]
    tracemalloc.start()
    pictures += [scorer.score(example) for _ in range(20)]
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown / 20 < 8_000 < example.nir.nbytes / 8


def test_settings_of_the_caller_are_neither_used_nor_changed(light, noisy, monkeypatch):
    used = []

    class Asks(Contrast):
        def features(self, picture):
            used.append((torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu")))
            used.append(torch.backends.cudnn.allow_tf32)
            return super().features(picture)

    monkeypatch.setattr(module, "Inception", Asks)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            Scorer(["fid"]).score(examples(noisy, 1)[0])
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert used[:2] == [("highest", False), False]


def test_real_networks_give_what_they_give_by_themselves(torch_home, noisy):
    scorer = Scorer(["lpips", "fid-64"])
    (example,) = examples(noisy, 1)
    picture = scorer.score(example)
    fake, nir = (network_input(x) for x in (example.fakes["noisy"], example.nir))
    lpips = scorer.pair_networks["lpips"]
    expected = lpips.distance(lpips.features(fake), lpips.features(nir)).item()
    assert picture.scores["noisy"]["lpips"] == pytest.approx(expected, abs=1e-6)
    (network,) = scorer.set_networks.values()
    rows = picture.features["inception-64-bilinear"]
    assert rows[TRUTH] == pytest.approx(network.features(eight_bit(nir) / 255)[0].numpy(), abs=1e-5)
    assert set(rows) == {TRUTH, "noisy", "better"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_scores_do_not_depend_on_the_device(torch_home, noisy):
    metrics = ["psnr", "lpips", "lpips-vgg", "dists", "fid", "kid", "clean-fid"]
    on_cpu, on_gpu = Scorer(metrics), Scorer(metrics, device="cuda")
    given = examples(noisy, 5)
    (one, _), (other, _) = (s.mean([s.score(example) for example in given]) for s in (on_cpu, on_gpu))
    for method in one:
        assert other[method] == pytest.approx(one[method], rel=1e-3, abs=1e-4)
