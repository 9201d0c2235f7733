"""Discriminators that look through a frozen network."""

import pytest
import torch
from accelerate import Accelerator
from pydantic import ValidationError

from pix2next.config import Config, ProjectedConfig
from pix2next.train.projected import Eye, ProjectedDiscriminator
from pix2next.train.step import TrainingState, update

PROJECTED = {"kind": "projected", "reads": [4, 8]}


def config(**loss: object) -> Config:
    generator = {"widths": [8, 8], "encoder_blocks": [1, 1], "decoder_blocks": [1, 1], "bottleneck_blocks": 1}
    return Config.model_validate(
        {
            "model": {"vfm": {"name": "none"}, "generator": {**generator, "fusions": []}},
            "discriminator": {**PROJECTED, "width": 8},
            "loss": loss,
            "train": {"warmup_steps": 0, "steps": 100, "learning_rate": 1e-3, "discriminator_learning_rate": 2e-3},
        }
    )


@pytest.fixture
def eye() -> Eye:
    return Eye(ProjectedConfig.model_validate(PROJECTED))


def test_an_eye_gives_a_map_a_stride_and_gradient_to_the_picture(eye: Eye) -> None:
    nir = torch.zeros(2, 1, 64, 96, requires_grad=True)
    maps = eye(nir)
    assert [(*it.shape,) for it in maps] == [(2, eye.channels[0], 16, 24), (2, eye.channels[1], 8, 12)]
    sum(it.square().sum() for it in maps).backward()  # type: ignore[union-attr]
    assert nir.grad is not None and nir.grad.abs().sum() > 0
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in eye.parameters())
    assert not any(module.training for module in eye.train().modules())


def test_grey_is_seen_as_three_equal_channels(eye: Eye) -> None:
    grey = torch.rand(1, 1, 32, 32) * 2 - 1
    for one, three in zip(eye(grey), eye(grey.repeat(1, 3, 1, 1)), strict=True):
        assert torch.equal(one, three)


def test_a_head_a_map_with_logits_at_its_stride() -> None:
    judge = ProjectedDiscriminator([6, 10], 8)
    rgb, nir = ([torch.randn(2, 6, 8, 12), torch.randn(2, 10, 4, 6)] for _ in range(2))
    outputs = judge(rgb, nir)
    assert [(*it.logits.shape,) for it in outputs] == [(2, 1, 8, 12), (2, 1, 4, 6)]
    assert [len(it.features) for it in outputs] == [2, 2]
    louder = judge([100 * it for it in rgb], nir)
    assert torch.allclose(louder[0].logits, outputs[0].logits, atol=1e-3), "the size of a picture's maps says nothing"


def test_an_update_moves_the_heads_and_never_the_eye() -> None:
    accelerator = Accelerator(cpu=True)
    settings = config(feature_matching=1.0)
    state = TrainingState.start(settings, accelerator)
    eye, heads = ([it.clone() for it in net.parameters()] for net in (state.eye, state.discriminator))
    torch.manual_seed(1)
    rgb = torch.rand(2, 3, 64, 64) * 2 - 1
    terms = update(state, rgb, rgb[:, :1] ** 3, settings, accelerator)
    assert set(terms) == {"ssim", "gan", "feature_matching", "discriminator"}
    assert all(torch.equal(now, then) for now, then in zip(state.eye.parameters(), eye, strict=True))
    assert not any(torch.equal(now, then) for now, then in zip(state.discriminator.parameters(), heads, strict=True))
    assert "eye" not in state.parts(accelerator), "it is read from its own weights again"


def test_what_the_eye_sees_is_a_loss_of_its_own() -> None:
    """Without GAN and feature matching as well: the fake comes to look like the truth through the eye."""
    accelerator = Accelerator(cpu=True)
    settings = config(gan=0.0, feature_matching=0.0, ssim=0.1, seen=10.0)
    state = TrainingState.start(settings, accelerator)
    torch.manual_seed(1)
    rgb = torch.rand(2, 3, 64, 64) * 2 - 1
    seen = [update(state, rgb, rgb[:, :1] ** 3, settings, accelerator)["seen"].item() for _ in range(8)]
    assert seen[-1] < 0.8 * seen[0]


def test_patchgans_have_no_eye_to_see_through() -> None:
    with pytest.raises(ValidationError, match="loss.seen needs a discriminator of kind projected"):
        Config.model_validate({"loss": {"seen": 1.0}})


def test_heads_learn_which_nir_belongs_to_which_rgb() -> None:
    """Only the generator's rate is 0 in effect: the fakes stay bad, and D finds them out."""
    accelerator = Accelerator(cpu=True)
    settings = config(feature_matching=0.0)
    train = settings.train.model_copy(update={"learning_rate": 1e-12})
    settings = settings.model_copy(update={"train": train})
    state = TrainingState.start(settings, accelerator)
    torch.manual_seed(1)
    rgb = torch.rand(2, 3, 64, 64) * 2 - 1
    losses = [update(state, rgb, rgb[:, :1], settings, accelerator)["discriminator"].item() for _ in range(25)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("loss", [{"r1": 1.0}, {"cycle": 10.0, "ssim": 0, "feature_matching": 0}])
def test_what_needs_patches_is_refused(loss: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="kind patch, not projected"):
        config(**loss)


def test_it_looks_through_something() -> None:
    with pytest.raises(ValidationError, match="looks through one"):
        ProjectedConfig.model_validate({**PROJECTED, "vfm": {"name": "none"}})
