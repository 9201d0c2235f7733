"""Names of metrics."""

import pytest

from pix2next.errors import ConfigError
from pix2next.evaluate.embeddings import LAYERS
from pix2next.evaluate.metrics import DEFAULT_METRICS, HIGHER_IS_BETTER, METRICS, SHORT, full_names
from pix2next.evaluate.protocols import PIXELWISE


def test_names_are_lower_case_and_labels_differ():
    assert all(name == metric.name == name.lower() for name, metric in METRICS.items())
    assert len({metric.label for metric in METRICS.values()}) == len(METRICS)


def test_short_names_and_defaults_are_known():
    assert set(SHORT.values()) | set(DEFAULT_METRICS) <= METRICS.keys()
    assert not SHORT.keys() & METRICS.keys()
    assert full_names(["fid", "psnr", "fid-768", "lpips-alex"]) == ("fid-768", "psnr", "lpips")


def test_every_layer_has_every_score_of_sets():
    for width in LAYERS:
        for kind in ("fid", "kid", "precision", "recall", "clean-fid", "clean-kid"):
            assert METRICS[f"{kind}-{width}"].least >= 2


def test_scores_of_pictures_are_not_of_sets():
    assert not any(METRICS[name].least for name in [*PIXELWISE, "lpips", "dists", "ndvi"])


def test_which_way_is_better():
    assert {"psnr", "ssim", "pcc", "precision-768"} <= HIGHER_IS_BETTER
    assert not {"rmse", "mae", "std", "lpips", "fid-768", "kid-768", "cmmd", "ndvi"} & HIGHER_IS_BETTER


@pytest.mark.parametrize("names", [["PSNR"], ["psnr", "psrn"], []])
def test_unknown_names_list_the_known(names):
    with pytest.raises(ConfigError, match=r"^no metric.* known are psnr, psnr-aligned, ssim") as error:
        full_names(names)
    assert "\n" not in str(error.value)
