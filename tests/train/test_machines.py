"""Any machine: several processes, parts of a batch, less memory, compiled, and what each reports."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from pix2next.config import Config, ModelConfig
from pix2next.errors import ConfigError, WeightsError
from pix2next.model.features import build_vfm
from pix2next.model.pix2next import Pix2Next
from pix2next.train.loop import train
from pix2next.train.step import TrainingState, critic, rest_unread, start_accelerator, update

Settings = Callable[..., Config]


def lines(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def batch(count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(5)
    return torch.rand(count, 3, 32, 32, generator=random) * 2 - 1, torch.rand(
        count, 1, 32, 32, generator=random
    ) * 2 - 1


def test_two_processes_equal_one(eight_pairs: Path, settings: Settings, tmp_path: Path) -> None:
    """The same global batch, there also cut into parts, gives the same losses step by step."""
    loss = {"r1": 1.0, "r1_every": 3}
    config = settings(eight_pairs, loss, batch_size=4, log_every=1, validate_every=6, clip_norm=0.5)
    train(config, tmp_path / "one")
    path = tmp_path / "run.yaml"
    cut = config.model_copy(update={"train": config.train.model_copy(update={"accumulate": 2})})
    path.write_text(cut.model_dump_json(), encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = [*launch, "-m", "pix2next", "train", str(path), "--out", str(tmp_path / "two")]
    done = subprocess.run(run, env=one_thread(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = ([line for line in lines(tmp_path / name) if "l1" in line] for name in ("one", "two"))
    assert [line["step"] for line in one] == [line["step"] for line in two] == [1, 2, 3, 4, 5, 6]
    for mine, theirs in zip(one, two, strict=True):
        for name in ("l1", "ssim", "gan", "feature_matching", "discriminator"):
            assert theirs[name] == pytest.approx(mine[name], rel=1e-4, abs=1e-4), name
    assert ("r1" in one[0], "r1" in one[1]) == (True, False)


def test_a_batch_that_does_not_divide_among_processes_is_refused(
    data: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Three:
        num_processes = 3

    monkeypatch.setattr("pix2next.train.step.PartialState", lambda **_: Three())
    with pytest.raises(ConfigError, match=r"2 pairs at a time \(2 in 1 parts\) do not divide among 3 processes"):
        start_accelerator(settings(data).train)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is an accelerator, which can compute in fp16")
def test_fp16_without_a_gpu_is_refused_instead_of_left_out(data: Path, settings: Settings) -> None:
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        start_accelerator(settings(data, mixed_precision="fp16").train)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is an accelerator, with a compiler of its own")
def test_compiling_without_a_compiler_is_refused(
    data: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pix2next.train.step.shutil.which", lambda name: None)
    with pytest.raises(ConfigError, match=r"train\.compile needs a C\+\+ compiler on a CPU, and none is found"):
        start_accelerator(settings(data, compile=True).train)


def gradients_of(config: Config) -> tuple[dict[str, torch.Tensor], list[list[torch.Tensor]]]:
    """The losses of one update, and the gradients that G's and D's optimizers stepped along."""
    accelerator = Accelerator(cpu=True)
    state = TrainingState.start(config, accelerator)
    seen: list[list[torch.Tensor]] = []

    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        seen.append([it.grad.clone() for group in optimizer.param_groups for it in group["params"]])

    for optimizer in (state.optim_g, state.optim_d):
        optimizer.optimizer.register_step_pre_hook(look)  # type: ignore[attr-defined]
    losses = update(state, *batch(), config, accelerator)
    assert len(seen) == 2
    return losses, seen


def test_what_no_output_depends_on_is_asked_for_no_gradient() -> None:
    """A VFM may hold more than leads to the maps that are read; processes would wait for the gradient of the rest."""
    fusion = {"at": "bottleneck", "reads": [16], "heads": 1, "head_width": 8, "expansion": 1}
    generator = {"widths": [8] * 5, "encoder_blocks": [0] * 5, "decoder_blocks": [0] * 5, "bottleneck_blocks": 1}
    vfm = {"name": "timm:tf_efficientnet_lite0", "weights": "none"}
    settings = {"vfm": vfm, "generator": {**generator, "norm_groups": 4, "fusions": [fusion]}}
    model = Pix2Next(ModelConfig.model_validate(settings))
    model.vfm = build_vfm(vfm["name"], (16, 32), weights="none")
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    rest_unread(model)
    assert model.vfm is not None
    resting = {name.split(".")[2] for name, it in model.vfm.named_parameters() if not it.requires_grad}
    assert resting == {"5", "6"}
    assert all(it.requires_grad for it in model.generator.parameters())
    assert model.training and all(it.grad is None for it in model.parameters())
    torch.testing.assert_close(dict(model.named_buffers()), statistics, rtol=0, atol=0)


def test_g_meets_d_without_taking_d_out_of_what_shares_its_gradients() -> None:
    class Several(Accelerator):
        num_processes = 2

        def __init__(self) -> None:
            """No processes are started."""

    shared = torch.nn.DataParallel(torch.nn.Conv2d(1, 1, 1))
    compiled = torch.compile(shared, backend="eager")
    assert critic(Several(), compiled) is shared.module
    assert compiled._orig_mod is shared


def test_parts_of_a_batch_make_the_same_step(data: Path, settings: Settings) -> None:
    whole, parts = (gradients_of(settings(data, accumulate=count, batch_size=4)) for count in (1, 4))
    torch.testing.assert_close(whole, parts, rtol=1e-3, atol=1e-5)


def test_a_clipped_gradient_is_no_longer_than_asked(data: Path, settings: Settings) -> None:
    lengths = {
        clip: [torch.stack([it.norm() for it in gradients]).norm().item() for gradients in gradients_of(config)[1]]
        for clip in (None, 1e-3)
        if (config := settings(data, clip_norm=clip))
    }
    assert min(lengths[None]) > 1e-2
    assert lengths[1e-3] == [pytest.approx(1e-3, rel=1e-2)] * 2


def test_recomputed_activations_give_the_same_step(data: Path, settings: Settings) -> None:
    fusion = {"at": "bottleneck", "how": "cross", "reads": [16], "heads": 1, "head_width": 8, "expansion": 1}
    generator = {
        "widths": [16] * 4,
        "encoder_blocks": [1] * 4,
        "decoder_blocks": [1] * 4,
        "bottleneck_blocks": 1,
        "norm_groups": 4,
        "fusions": [fusion],
    }
    model = {"vfm": {"name": "timm:test_resnet", "weights": "none", "frozen": False}, "generator": generator}
    states = {}
    for recompute in (False, True):
        base = settings(data, recompute=recompute)
        config = Config.model_validate({**base.model_dump(), "model": model})
        accelerator = Accelerator(cpu=True)
        state = TrainingState.start(config, accelerator)
        losses = update(state, *batch(), config, accelerator)
        states[recompute] = [losses, dict(state.model.named_parameters())]
    torch.testing.assert_close(states[False], states[True], rtol=1e-5, atol=1e-6)


def test_recomputing_keeps_less(data: Path, settings: Settings) -> None:
    """What the backward pass needs is stored; counted as torch saves it."""
    generator = {
        "widths": [16, 16],
        "encoder_blocks": [4, 4],
        "decoder_blocks": [4, 4],
        "bottleneck_blocks": 4,
        "norm_groups": 4,
        "fusions": [],
    }
    model = Pix2Next(ModelConfig.model_validate({"vfm": {"name": "none"}, "generator": generator})).train()
    kept = {}
    for on in (False, True):
        model.recomputes(on)
        seen: dict[int, int] = {}

        def pack(tensor: torch.Tensor, seen: dict[int, int] = seen) -> torch.Tensor:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            fake = model(batch()[0])
        kept[on] = sum(seen.values())
        assert fake.requires_grad
    assert kept[True] < kept[False] / 2


def test_a_compiled_run_is_saved_as_any_other(data: Path, settings: Settings, tmp_path: Path) -> None:
    """Captured as for compilation but run as it is: compiling takes minutes and changes none of the names.

    In a process of its own, as the shape checks of these tests cannot be captured.
    """
    train(settings(data, steps=2), tmp_path / "plain")
    path = tmp_path / "run.yaml"
    path.write_text(settings(data, steps=2, compile=True).model_dump_json(), encoding="utf-8")
    script = (
        "from pathlib import Path; from pix2next.config import load_config; from pix2next.train import loop, step; "
        f"step.COMPILER = 'eager'; loop.train(load_config(Path({str(path)!r})), Path({str(tmp_path / 'compiled')!r}))"
    )
    done = subprocess.run([sys.executable, "-c", script], env=one_thread(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    plain, compiled = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("plain", "compiled"))
    assert plain.pop("chosen_by") == compiled.pop("chosen_by")
    torch.testing.assert_close(plain, compiled, rtol=1e-3, atol=1e-4)
    assert not any("_orig_mod" in name for name in compiled["model"])


def test_training_starts_from_a_checkpoint(data: Path, settings: Settings, tmp_path: Path) -> None:
    first = train(settings(data), tmp_path / "first")
    config = settings(data, init_from=str(tmp_path / "first"))
    state = TrainingState.start(config, Accelerator(cpu=True))
    known = load_file(first)
    torch.testing.assert_close(state.model.state_dict(), known, rtol=0, atol=0)
    torch.testing.assert_close(state.ema.state_dict(), known, rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in state.model.parameters())


def test_of_joined_networks_the_first_is_trained_on(data: Path, settings: Settings, tmp_path: Path) -> None:
    first = train(settings(data, steps=2), tmp_path / "first")
    model = settings(data).model
    wide = model.model_copy(update={"generator": model.generator.model_copy(update={"widths": (12, 24)})})
    joined = Pix2Next.joined(Pix2Next.load(first), Pix2Next(wide))
    joined.save(tmp_path / "joined.safetensors")
    config = settings(data, init_from=str(tmp_path / "joined.safetensors"))
    state = TrainingState.start(config, Accelerator(cpu=True))
    torch.testing.assert_close(state.model.state_dict(), load_file(first), rtol=0, atol=0)
    both = config.model_copy(update={"model": joined.config})
    with pytest.raises(ConfigError, match="model.partner: networks are trained one at a time"):
        train(both, tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_weights_that_do_not_fit_are_said(data: Path, settings: Settings, tmp_path: Path) -> None:
    train(settings(data, steps=2), tmp_path / "first")
    other = settings(data, init_from=str(tmp_path / "first"))
    wide = other.model.generator.model_copy(update={"widths": (12, 24)})
    other = other.model_copy(update={"model": other.model.model_copy(update={"generator": wide})})
    with pytest.raises(WeightsError, match=r"train\.init_from .*first does not fit Pix2Next: .*is 16 instead of 24"):
        train(other, tmp_path / "second")
    with pytest.raises(WeightsError, match="no model nowhere"):
        train(settings(data, init_from="nowhere"), tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_tensorboard_gets_the_log_and_the_pictures(data: Path, settings: Settings, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(settings(data, trackers=("tensorboard",)), tmp_path / "run")
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "pix2next")).Reload()
    assert {"l1", "gan", "val_psnr", "data_wait", "rate"} <= set(events.Tags()["scalars"])
    logged = {line["step"]: line["l1"] for line in lines(tmp_path / "run") if "l1" in line}
    assert {event.step: pytest.approx(event.value, rel=1e-4) for event in events.Scalars("l1")} == logged
    assert [event.step for event in events.Images("samples")] == [3, 6]


def test_trackers_that_are_not_there_are_refused(data: Path, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.trackers: 'notebook' is unknown; known are .*tensorboard"):
        train(settings(data, trackers=("notebook",)), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"the package for 'dvclive' is not installed; pip install dvclive"):
        train(settings(data, trackers=("dvclive",)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_says_what_it_ran_on(data: Path, settings: Settings, tmp_path: Path) -> None:
    train(settings(data, steps=2), tmp_path / "run")
    said = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert said["packages"]["torch"] == torch.__version__
    assert said["processes"] == 1
    assert said["packages"]["pix2next"]
