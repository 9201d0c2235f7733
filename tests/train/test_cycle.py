"""CycleGAN: losses by hand, the pool, a map learnt without pairs, and a run that goes on bit for bit."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn

from pix2next.config import Config, GeneratorConfig, ReleasedConfig
from pix2next.errors import ConfigError, WeightsError
from pix2next.model.baselines import ResNetGenerator, UNet
from pix2next.model.pix2next import load_model
from pix2next.train import loop
from pix2next.train.cycle import (
    CycleState,
    Judges,
    Pool,
    cycle_term,
    fooling_term,
    generator_back,
    judging_term,
    update,
)
from pix2next.train.discriminator import ScaleOutput
from pix2next.train.loop import train

LOSS = {"gan": 1.0, "cycle": 10.0, "pool": 3, "ssim": 0, "feature_matching": 0, "l1": 0}
RESNET = {"kind": "resnet", "width": 4, "downs": 1, "blocks": 1}


@pytest.fixture
def cycle(data: Path, settings: Callable[..., Config]) -> Callable[..., Config]:
    """`cycle(generator, loss={...}, **train)`: a run of six steps on pictures that are no pairs."""

    def make(generator: dict[str, Any] | None = None, loss: dict[str, Any] | None = None, **train: Any) -> Config:
        base = settings(data, {**LOSS, **(loss or {})}, **train).model_dump()
        model = {"vfm": {"name": "none"}, "generator": generator or RESNET}
        return Config.model_validate({**base, "model": model, "data": {**base["data"], "unpaired": True}})

    return make


def batch(count: int = 2) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(5)
    return torch.rand(count, 3, 32, 32, generator=random) * 2 - 1, torch.rand(
        count, 1, 32, 32, generator=random
    ) * 2 - 1


def pictures(nir: float, rgb: float) -> tuple[Tensor, Tensor]:
    return torch.full((2, 1, 8, 8), nir), torch.full((2, 3, 8, 8), rgb)


class Constant(nn.Module):
    """Gives the same picture for every picture."""

    def __init__(self, channels: int, value: float) -> None:
        super().__init__()
        self.channels, self.value = channels, value

    def forward(self, picture: Tensor) -> Tensor:
        return picture.new_full((len(picture), self.channels, *picture.shape[2:]), self.value)


class Mean(nn.Module):
    """Judges that take a picture's mean for their verdict, at one scale."""

    def forward(self, nir: Tensor, rgb: Tensor) -> tuple[list[ScaleOutput], list[ScaleOutput]]:
        means = [picture.mean(dim=(1, 2, 3), keepdim=True) for picture in (nir, rgb)]
        return [ScaleOutput(means[0], [])], [ScaleOutput(means[1], [])]


def test_cycle_term_by_hand(cycle: Callable[..., Config]) -> None:
    state = CycleState.start(cycle(), Accelerator(cpu=True))
    state.model, state.back = Constant(1, 0.5), Constant(3, -0.25)
    nir, rgb = pictures(1.0, 0.5)
    assert cycle_term(state, rgb, nir, *pictures(0.0, 0.0)).item() == pytest.approx(0.75 + 0.5)


def test_adversarial_terms_by_hand() -> None:
    weights = Config.model_validate({"loss": LOSS}).loss
    # The NIR judge doubts the fake wholly, the RGB judge by half: 1 + 0.25.
    assert fooling_term(Mean(), *pictures(0.0, 0.5), weights).item() == pytest.approx(1.25)
    # NIR: right of the truth, wrong of the fake. RGB: wrong of the truth, right of the fake. Each (0 + 1) / 2.
    assert judging_term(Mean(), *pictures(1.0, 0.0), *pictures(1.0, 0.0), weights).item() == pytest.approx(1.0)
    assert judging_term(Mean(), *pictures(1.0, 1.0), *pictures(0.0, 0.0), weights).item() == 0


def numbered(first: int, count: int) -> Tensor:
    return torch.arange(first, first + count, dtype=torch.float).view(count, 1, 1, 1)


def test_a_pool_shows_what_fills_it_and_then_half_of_the_time_an_earlier_fake() -> None:
    torch.manual_seed(0)
    pool = Pool(50)
    shown = [pool.exchange(numbered(n, 2)).flatten().tolist() for n in range(0, 50, 2)]
    assert [number for pair in shown for number in pair] == list(range(50))
    later = [pool.exchange(numbered(n, 1)).item() for n in range(50, 1050)]
    earlier = [now for n, now in enumerate(later, start=50) if now != n]
    assert 440 < len(earlier) < 560
    assert all(now < n for n, now in enumerate(later, start=50) if now != n)
    assert len(set(earlier)) == len(earlier)  # What is shown again has left the pool.
    assert len(pool.pictures) == 50


def test_a_pool_keeps_no_gradient_and_no_memory_of_the_whole_batch() -> None:
    pool = Pool(2)
    fakes = numbered(0, 4).requires_grad_()
    assert not pool.exchange(fakes).requires_grad
    assert all(kept.untyped_storage().nbytes() == 4 and not kept.requires_grad for kept in pool.pictures)


def test_a_pool_of_none_passes_fakes_on() -> None:
    fakes = numbered(0, 4).requires_grad_()
    assert torch.equal(Pool(0).exchange(fakes), fakes)
    assert not Pool(0).exchange(fakes).requires_grad


def test_a_pool_survives_saving(tmp_path: Path) -> None:
    pool, again = Pool(4), Pool(4)
    pool.exchange(numbered(0, 4))
    torch.save(pool.state_dict(), tmp_path / "pool.pt")
    again.load_state_dict(torch.load(tmp_path / "pool.pt", weights_only=True))
    for number in range(4, 30):
        results = []
        for it in (pool, again):
            torch.manual_seed(number)
            results.append(it.exchange(numbered(number, 1)).item())
        assert results[0] == results[1]
    smaller = Pool(2)
    smaller.load_state_dict(pool.state_dict())
    assert len(smaller.pictures) == 2


def snapshot(*networks: nn.Module) -> list[list[Tensor]]:
    return [[parameter.detach().clone() for parameter in network.parameters()] for network in networks]


def test_one_update_moves_both_generators_and_both_judges(cycle: Callable[..., Config]) -> None:
    config, accelerator = cycle(warmup_steps=0), Accelerator(cpu=True)
    state = CycleState.start(config, accelerator)
    networks = (state.model, state.back, state.discriminator.nir, state.discriminator.rgb, state.ema)
    before = snapshot(*networks)
    losses = update(state, *batch(), config, accelerator)
    assert set(losses) == {"cycle", "gan", "discriminator"}
    for network, then in zip(networks, before, strict=True):
        assert any(not torch.equal(now, was) for now, was in zip(network.parameters(), then, strict=True))
    assert state.step == 1
    assert len(state.nir_pool.pictures) == len(state.rgb_pool.pictures) == 2
    assert all(group["base_lr"] == config.train.learning_rate for group in state.optim_g.param_groups)


def test_the_generators_loss_teaches_the_judges_nothing() -> None:
    judges = Judges(width=4, layers=2, scales=1, norm="none", padding=2)
    fakes = [picture.requires_grad_() for picture in pictures(0.3, -0.2)]
    fooling_term(judges, *fakes, Config.model_validate({"loss": LOSS}).loss).backward()
    assert all(fake.grad is not None and fake.grad.abs().sum() > 0 for fake in fakes)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in judges.parameters())


def test_the_gan_terms_begin_when_they_are_told_to(cycle: Callable[..., Config]) -> None:
    config, accelerator = cycle(discriminator_starts=1), Accelerator(cpu=True)
    state = CycleState.start(config, accelerator)
    assert set(update(state, *batch(), config, accelerator)) == {"cycle"}
    assert not state.nir_pool.pictures
    assert "discriminator" in update(state, *batch(), config, accelerator)
    without = cycle(loss={"gan": 0})
    assert set(update(CycleState.start(without, accelerator), *batch(), without, accelerator)) == {"cycle"}


def test_parts_of_a_batch_make_the_same_step(cycle: Callable[..., Config]) -> None:
    results = {}
    for parts in (1, 4):
        config, accelerator = cycle(accumulate=parts, batch_size=4, loss={"pool": 0}), Accelerator(cpu=True)
        state = CycleState.start(config, accelerator)
        losses = update(state, *batch(4), config, accelerator)
        results[parts] = [
            losses,
            *(dict(it.named_parameters()) for it in (state.model, state.back, state.discriminator)),
        ]
    torch.testing.assert_close(results[1][0], results[4][0], rtol=1e-4, atol=1e-5)
    for whole, cut in zip(results[1][1:], results[4][1:], strict=True):
        torch.testing.assert_close(whole, cut, rtol=1e-3, atol=2e-3)  # Adam's first step is the sign of the gradient.


def test_a_map_is_learnt_without_pairs(cycle: Callable[..., Config]) -> None:
    """The sky is bright in RGB and dark in NIR, the ground the other way round, the horizon anywhere.

    No two pictures belong together, and still the generator must learn to invert.
    """
    config = cycle(
        {**RESNET, "width": 8},
        {"pool": 20, "cycle": 2.0},
        steps=40,
        batch_size=4,
        warmup_steps=0,
        schedule="constant",
        learning_rate=3e-3,
        discriminator_learning_rate=3e-3,
        discriminator={"width": 8, "layers": 1, "scales": 1, "norm": "instance"},
    )
    accelerator = Accelerator(cpu=True)
    state = CycleState.start(config, accelerator)
    random = torch.Generator().manual_seed(0)

    def scene() -> Tensor:
        horizon = torch.randint(4, 12, (4, 1, 1, 1), generator=random)
        return (torch.arange(16).view(1, 1, -1, 1) < horizon).expand(-1, -1, -1, 16) * 1.2 - 0.6

    losses = [update(state, scene().expand(-1, 3, -1, -1), -scene(), config, accelerator) for _ in range(40)]
    rgb = scene()
    with torch.no_grad():
        fake = state.model.eval()(rgb.expand(-1, 3, -1, -1))
    assert losses[-1]["cycle"] < losses[0]["cycle"] / 3
    assert (fake + rgb).abs().mean() < 0.3
    assert (fake - rgb).abs().mean() > 0.9


@pytest.mark.parametrize(
    ("generator", "kind", "multiple"),
    [
        ({"kind": "unet", "width": 4, "depth": 3}, UNet, 8),
        (RESNET, ResNetGenerator, 4),
        ({"widths": [8, 8], "encoder_blocks": [1, 1], "decoder_blocks": [1, 1], "fusions": []}, ResNetGenerator, 8),
    ],
)
def test_the_way_back_is_of_the_same_kind_where_it_can_be(
    cycle: Callable[..., Config], generator: dict[str, Any], kind: type, multiple: int
) -> None:
    back = generator_back(cycle(generator).model.generator)
    assert type(back) is kind and back.multiple == multiple
    assert back(torch.zeros(1, 1, multiple, multiple)).shape == (1, 3, multiple, multiple)


def test_cyclegans_own_way_back_is_its_papers_size() -> None:
    with torch.device("meta"):
        backs = [generator_back(config) for config in (GeneratorConfig(), ReleasedConfig(kind="released"))]
    own = 11_378_179 - 2 * 49 * 64  # One channel in, not three.
    assert [sum(it.numel() for it in back.parameters()) for back in backs] == [own, own]


def test_crops_that_the_way_back_cannot_take_are_refused(cycle: Callable[..., Config]) -> None:
    config = cycle({"widths": [8, 8], "encoder_blocks": [1, 1], "decoder_blocks": [1, 1], "fusions": []})
    config = config.model_copy(update={"data": config.data.model_copy(update={"crop": 36})})
    with pytest.raises(ConfigError, match=r"data\.crop: 36 is no multiple of 8"):
        CycleState.start(config, Accelerator(cpu=True))


class Stopped(Exception):
    pass


def test_a_resumed_run_takes_the_same_steps(
    cycle: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After four of six steps the pools are full and have begun to show earlier fakes."""
    config = cycle(checkpoint_minutes=1e-9, discriminator={"norm": "batch"}, ema=0.9)
    train(config, tmp_path / "whole")
    counter, original = iter(range(100)), loop.update_cycle

    def stopping(*arguments: Any) -> dict[str, Tensor]:
        if next(counter) == 4:
            raise Stopped
        return original(*arguments)

    monkeypatch.setattr(loop, "update_cycle", stopping)
    with pytest.raises(Stopped):
        train(config, tmp_path / "part")
    train(config, tmp_path / "part", resume=True)
    states = [torch.load(tmp_path / run / "state.pt", weights_only=True) for run in ("whole", "part")]
    assert {"model", "back", "discriminator", "ema", "optim_g", "optim_d", "nir_pool", "rgb_pool"} <= states[0].keys()
    assert len(states[0]["nir_pool"]["pictures"]) == 3
    assert states[0].pop("chosen_by") == states[1].pop("chosen_by")
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0, equal_nan=True)
    weights = [load_file(tmp_path / run / "best.safetensors") for run in ("whole", "part")]
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)


def test_a_run_leaves_a_network_to_nir_alone(cycle: Callable[..., Config], tmp_path: Path) -> None:
    best = train(cycle(), tmp_path / "run")
    model = load_model(best)
    assert model(torch.zeros(1, 3, 16, 16)).shape == (1, 1, 16, 16)
    assert not any("back" in name for name in load_file(best))
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert {"cycle", "gan", "discriminator"} <= lines[0].keys()


def test_a_run_on_pairs_is_not_resumed_as_a_cycle(
    data: Path, settings: Callable[..., Config], cycle: Callable[..., Config], tmp_path: Path
) -> None:
    train(settings(data, steps=2), tmp_path / "run")
    with pytest.raises(WeightsError, match="made with other settings"):
        train(cycle(), tmp_path / "run", resume=True)


def test_two_processes_equal_one(cycle: Callable[..., Config], tmp_path: Path) -> None:
    """Without the pools, which every process fills for itself.

    The rate is low: Adam divides by the gradients' size, so that at 2e-3 rounding shows in the third step on some CPUs.
    """
    config = cycle(loss={"pool": 0}, batch_size=4, steps=3, log_every=1, validate_every=0, learning_rate=5e-4)
    train(config, tmp_path / "one")
    (tmp_path / "run.yaml").write_text(config.model_dump_json(), encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "pix2next"]
    done = subprocess.run(
        [*launch, "train", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "two")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (
        [json.loads(line) for line in (tmp_path / run / "log.jsonl").read_text().splitlines()] for run in ("one", "two")
    )
    assert len(one) == len(two) == 3
    for mine, theirs in zip(one, two, strict=True):
        for name in ("cycle", "gan", "discriminator"):
            assert theirs[name] == pytest.approx(mine[name], rel=1e-5), name
