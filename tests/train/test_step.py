"""One update: what moves, what does not, and the numbers it gives back."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from pix2next.config import Config
from pix2next.train.step import (
    TrainingState,
    average_share,
    direct_terms,
    frozen,
    learning_rate,
    set_rate,
    start_accelerator,
    update,
    update_average,
    weighted,
)


def small(**train: object) -> Config:
    generator = {
        "widths": [8, 8],
        "encoder_blocks": [1, 1],
        "decoder_blocks": [1, 1],
        "bottleneck_blocks": 1,
        "fusions": [],
    }
    return Config.model_validate(
        {
            "model": {"vfm": {"name": "none"}, "generator": generator},
            "discriminator": {"width": 4, "layers": 2, "norm": "none"},
            "train": {"warmup_steps": 0, "steps": 100, "learning_rate": 1e-3, **train},
        }
    )


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(5)
    return torch.rand(2, 3, 32, 32) * 2 - 1, torch.rand(2, 1, 32, 32) * 2 - 1


def snapshot(module: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def moved(module: torch.nn.Module, before: list[torch.Tensor]) -> int:
    return sum(not torch.equal(now, then) for now, then in zip(module.parameters(), before, strict=True))


def test_an_update_moves_both_networks_and_the_average() -> None:
    config, accelerator = small(), Accelerator(cpu=True)
    state = TrainingState.start(config, accelerator)
    g, d, ema = (snapshot(net) for net in (state.model, state.discriminator, state.ema))
    losses = update(state, *batch(), config, accelerator)
    assert set(losses) == {"ssim", "gan", "feature_matching", "discriminator"}
    assert all(loss.isfinite() and not loss.requires_grad for loss in losses.values())
    assert moved(state.model, g) == len(g)
    assert moved(state.discriminator, d) == len(d)
    assert moved(state.ema, ema) == len(ema)
    assert state.step == 1


def test_the_discriminators_rest_until_they_start() -> None:
    config, accelerator = small(discriminator_starts=1), Accelerator(cpu=True)
    state = TrainingState.start(config, accelerator)
    before = snapshot(state.discriminator)
    assert set(update(state, *batch(), config, accelerator)) == {"ssim"}
    assert moved(state.discriminator, before) == 0
    assert "discriminator" in update(state, *batch(), config, accelerator)


def test_the_generators_loss_teaches_the_discriminators_nothing() -> None:
    accelerator = Accelerator(cpu=True)
    state = TrainingState.start(small(), accelerator)
    with frozen(state.discriminator):
        rgb, nir = batch()
        fake = nir.clone().requires_grad_()
        state.discriminator(rgb, fake)[0].logits.sum().backward()
    assert fake.grad is not None and fake.grad.abs().sum() > 0
    assert all(parameter.grad is None and parameter.requires_grad for parameter in state.discriminator.parameters())


def test_a_weight_of_zero_leaves_its_term_out() -> None:
    accelerator = Accelerator(cpu=True)
    config = small().model_copy(
        update={"loss": Config().loss.model_copy(update={"gan": 0.0, "feature_matching": 0.0, "l1": 2.0, "ssim": 0.0})}
    )
    state = TrainingState.start(config, accelerator)
    assert set(update(state, *batch(), config, accelerator)) == {"l1"}


def test_hinge_and_perceptual_terms_by_setting(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(shared / "torch_home"))
    accelerator = Accelerator(cpu=True)
    loss = {"gan_kind": "hinge", "perceptual": 1.0, "perceptual_network": "alexnet"}
    config = small().model_copy(update={"loss": Config.model_validate({"loss": loss}).loss})
    state = TrainingState.start(config, accelerator)
    fixed = snapshot(state.fixed["perceptual"])
    rgb, nir = (torch.nn.functional.interpolate(picture, size=64) for picture in batch())
    first = update(state, rgb, nir, config, accelerator)
    assert set(first) == {"ssim", "perceptual", "gan", "feature_matching", "discriminator"}
    assert all(term.isfinite() for term in first.values())
    assert moved(state.fixed["perceptual"], fixed) == 0
    for _ in range(20):
        last = update(state, rgb, nir, config, accelerator)
    assert last["perceptual"] < first["perceptual"]
    assert last["discriminator"] < first["discriminator"]


def test_learned_distances_are_terms_with_networks_that_stay(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(shared / "torch_home"))
    accelerator = Accelerator(cpu=True)
    loss = {"lpips": 1.0, "dists": 1.0, "dists_pictures": 1, "ssim": 0.0, "gan": 0.0, "feature_matching": 0.0}
    config = small().model_copy(update={"loss": Config.model_validate({"loss": loss}).loss})
    state = TrainingState.start(config, accelerator)
    fixed = {name: snapshot(network) for name, network in state.fixed.items()}
    rgb, nir = (torch.nn.functional.interpolate(picture, size=64) for picture in batch())
    first = update(state, rgb, nir, config, accelerator)
    assert set(first) == {"lpips", "dists"} == set(fixed)
    for _ in range(10):
        last = update(state, rgb, nir, config, accelerator)
    assert last["lpips"] < first["lpips"] and last["dists"] < first["dists"]
    assert not any(moved(state.fixed[name], before) for name, before in fixed.items())


def test_a_shift_leaves_out_the_border() -> None:
    """A truth that is the fake, moved: with `shift` no term is left of it."""
    fake = batch()[1].requires_grad_()
    moved_truth = torch.roll(fake.detach(), (1, -2), dims=(2, 3))
    weights = Config.model_validate({"loss": {"l1": 1.0, "shift": 2}}).loss
    terms = direct_terms({}, batch()[0], fake, moved_truth, weights)
    assert terms["l1"] == 0 and abs(terms["ssim"]) < 1e-6
    still = direct_terms({}, batch()[0], fake, moved_truth, weights.model_copy(update={"shift": 0}))
    assert still["l1"] > 0.5


def test_terms_are_weighted_by_their_names() -> None:
    weights = Config().loss.model_copy(update={"l1": 3.0})
    parts = {"gan": torch.tensor(1.0), "ssim": torch.tensor(0.5), "l1": torch.tensor(2.0)}
    assert weighted(parts, weights).item() == 1 * 1.0 + 10 * 0.5 + 3 * 2.0


def test_the_rate_warms_up_and_falls_along_a_cosine() -> None:
    train = small(warmup_steps=10, steps=110, final_rate=0.1).train
    assert learning_rate(0, train) == 0.1
    assert learning_rate(9, train) == learning_rate(10, train) == 1.0
    assert learning_rate(60, train) == pytest.approx(0.55)
    assert learning_rate(110, train) == pytest.approx(0.1)


def test_each_group_keeps_its_own_full_rate() -> None:
    generator = {"widths": [8, 8, 8, 8], "bottleneck_blocks": 1, "fusions": [{"at": "bottleneck"}]}
    model = {"vfm": {"name": "timm:resnet18", "weights": "none"}, "generator": generator}
    config = Config.model_validate(
        {
            "model": model,
            "train": {"learning_rate": 4e-4, "vfm_learning_rate": 1e-4, "discriminator_learning_rate": 2e-4},
        }
    )
    state = TrainingState.start(config, Accelerator(cpu=True))
    set_rate(state, 0.5)
    assert [group["lr"] for group in state.optim_g.param_groups] == [2e-4, 0.5e-4]
    assert [group["lr"] for group in state.optim_d.param_groups] == [1e-4]


def test_the_average_follows_by_the_share_that_goes() -> None:
    average, model = torch.nn.BatchNorm1d(1), torch.nn.BatchNorm1d(1)
    torch.nn.init.constant_(model.weight, 3.0)
    model.running_mean.fill_(7.0)
    update_average(average, model, 0.75)
    assert average.weight.item() == 1.5
    assert average.running_mean.item() == 7.0
    assert average_share(0, 0.999) == 0.1
    assert average_share(10**6, 0.999) == 0.999


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    """Accelerate keeps the first precision it is given for the life of the process."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


def test_bf16_is_warned_of_where_it_is_only_imitated(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for slow, precision, warned in ((True, "bf16", True), (False, "bf16", False), (True, "no", False)):
        monkeypatch.setattr("pix2next.train.step.slow_in_bf16", lambda slow=slow: slow)
        caplog.clear()
        start_accelerator(small(mixed_precision=precision).train)
        assert ("no bf16 instructions" in caplog.text) == warned


def test_bfloat16_gives_about_the_same_losses() -> None:
    losses = {}
    for precision in ("no", "bf16"):
        AcceleratorState._reset_state()
        config, accelerator = small(mixed_precision=precision), Accelerator(cpu=True, mixed_precision=precision)
        state = TrainingState.start(config, accelerator)
        losses[precision] = update(state, *batch(), config, accelerator)
    for name, loss in losses["no"].items():
        torch.testing.assert_close(losses["bf16"][name], loss, rtol=0.05, atol=0.02)
