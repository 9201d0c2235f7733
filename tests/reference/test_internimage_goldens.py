"""DCNv3 and InternImage against numbers from the released InternImage code, through its checkpoints' layout."""

import ast
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pix2next.errors import WeightsError
from pix2next.model.dcnv3 import dcnv3
from pix2next.model.internimage import load_internimage

NAMES = ["internimage", "internimage_post-norm"]


def golden(goldens: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """State dict, other tensors and the arguments that no tensor tells."""
    path = goldens / f"{name}.safetensors"
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    settings = {k: ast.literal_eval(metadata[k]) for k in ("groups", "offset_scale", "post_norm", "layer_scale")}
    state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
    return state, tensors, settings


@pytest.mark.parametrize("case", range(4))
def test_dcnv3(goldens: Path, case: int) -> None:
    tensors = load_file(goldens / "dcnv3.safetensors")
    kernel_size, stride, padding, dilation, groups, _, offset_scale = tensors[f"{case}.args"].tolist()
    out = dcnv3(
        *(tensors[f"{case}.{name}"] for name in ("input", "offset", "mask")),
        kernel_size=int(kernel_size),
        stride=int(stride),
        padding=int(padding),
        dilation=int(dilation),
        groups=int(groups),
        offset_scale=offset_scale,
    )
    torch.testing.assert_close(out, tensors[f"{case}.output"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@torch.no_grad()
def test_stages_and_logits(goldens: Path, tmp_path: Path, name: str, suffix: str) -> None:
    state, tensors, settings = golden(goldens, name)
    path = tmp_path / f"released{suffix}"
    if suffix == ".pth":
        torch.save({"model": state, "epoch": 300}, path)
    else:
        save_file(state, path)
    model = load_internimage(path, **settings)
    assert not model.training
    for i, ours in enumerate(model(tensors["input"])):
        torch.testing.assert_close(ours, tensors[f"stage{i}"], atol=1e-4, rtol=0)
    torch.testing.assert_close(model.logits(tensors["input"]), tensors["logits"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_prefixed_half_precision_and_headless_files(goldens: Path, tmp_path: Path, name: str) -> None:
    state, tensors, settings = golden(goldens, name)
    # As the Hugging Face conversion names them, in half precision, beside another network's tensors.
    renamed = {"model." + k.replace("gamma", "layer_scale"): v for k, v in state.items()}
    renamed = {k: v.half() if v.is_floating_point() else v for k, v in renamed.items() if ".head." not in k}
    save_file(renamed | {"decode_head.weight": torch.ones(1)}, tmp_path / "half.safetensors")
    model = load_internimage(tmp_path / "half.safetensors", **settings)
    assert model.classifier is None
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    torch.testing.assert_close(model(tensors["input"])[3], tensors["stage3"], atol=0.05, rtol=0.05)


def test_head_can_be_left_out(goldens: Path) -> None:
    _, _, settings = golden(goldens, NAMES[0])
    assert load_internimage(goldens / f"{NAMES[0]}.safetensors", **settings, head=False).classifier is None


def test_mlp_ratios_that_round_down_are_read(goldens: Path, tmp_path: Path) -> None:
    state, _, settings = golden(goldens, NAMES[0])
    for name, value in state.items():
        if ".mlp.fc1." in name:
            state[name] = value[: int(2.7 * len(value) / 4)].clone()
        if ".mlp.fc2.weight" in name:
            state[name] = value[:, : int(2.7 * len(value))].clone()
    save_file(state, tmp_path / "narrow.safetensors")
    model = load_internimage(tmp_path / "narrow.safetensors", **settings)
    assert [stage.blocks[0].mlp.fc1.out_features for stage in model.stages] == [43, 86, 172, 345]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"groups": (1, 2, 4, 4)}, r"groups=\(1, 2, 4, 4\): its tensors show \(1, 2, 4, 8\)"),
        ({"groups": (1, 2, 4)}, "does not fit groups"),
        ({"post_norm": True}, "does not fit post_norm=True: its tensors show False"),
        ({"layer_scale": 1e-5}, "does not fit layer_scale=1e-05"),
    ],
)
def test_arguments_that_do_not_fit_are_named(goldens: Path, wrong: dict[str, Any], message: str) -> None:
    _, _, settings = golden(goldens, NAMES[0])
    with pytest.raises(WeightsError, match=message):
        load_internimage(goldens / f"{NAMES[0]}.safetensors", **(settings | wrong))


def test_files_that_do_not_fit_are_refused(goldens: Path, tmp_path: Path) -> None:
    state, _, settings = golden(goldens, NAMES[0])
    key = "levels.2.blocks.1.norm1.0.weight"
    files: dict[str, tuple[Any, str]] = {
        "missing": ({k: v for k, v in state.items() if k != key}, "stages.2.blocks.1.norm1.weight is missing"),
        "shape": (state | {key: torch.ones(3)}, "stages.2.blocks.1.norm1.weight is 3 instead of 64"),
        "kind": (state | {key: torch.ones(64, dtype=torch.int32)}, "norm1.weight is 64 int32 instead of 64"),
        "nan": (state | {key: torch.full((64,), float("nan"))}, "norm1.weight holds NaN or infinite values"),
        "extra": (state | {"levels.0.surplus": torch.ones(3)}, "stages.0.surplus has no place"),
        "stemless": ({k: v for k, v in state.items() if "conv2" not in k}, "no whole InternImage"),
        "huge": (state | {"clip_projector.proj.bias": torch.ones(3)}, "is an InternImage-H or -G"),
        "other": ({"weight": torch.ones(3)}, "does not hold the weights looked for"),
        "list": ([torch.ones(3)], "does not hold the weights looked for"),
    }
    for name, (content, message) in files.items():
        path = tmp_path / f"{name}.pth"
        torch.save(content, path)
        with pytest.raises(WeightsError, match=rf"{name}\.pth.*{message}"):
            load_internimage(path, **settings)


class Harmful:
    """Runs code when unpickled without care."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("ran"),))


def test_unreadable_files_are_refused_and_pickled_code_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("harmful.pth").write_bytes(pickle.dumps(Harmful(), protocol=2))
    torch.save({"model": Harmful()}, "zipped.pth")
    Path("empty.pth").touch()
    Path("noise.pth").write_bytes(bytes(range(256)) * 9)
    Path("text.safetensors").write_text("no weights")
    torch.save({"weight": torch.ones(999)}, "half.pth")
    Path("half.pth").write_bytes(Path("half.pth").read_bytes()[:2000])
    names = ("harmful.pth", "zipped.pth", "empty.pth", "noise.pth", "half.pth", "text.safetensors", "absent.pth")
    for name in names:
        with pytest.raises(WeightsError, match=name) as error:
            load_internimage(name, groups=(1, 2, 4, 8), offset_scale=1.0, post_norm=False, layer_scale=None)
        assert not re.search(r"\n|\. ", str(error.value))
    assert not Path("ran").exists()
