"""Imports only go down: a module takes from its own part of the package or from a lower layer, never from above."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "pix2next"
LAYERS = (
    {"errors", "_torchvision"},
    {"config", "images", "cards"},
    {"model"},
    {"data", "translate"},
    {"evaluate"},
    {"train"},
    {"apps"},
    {"cli"},
    {"__init__", "__main__"},
)
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}


def part_of(module: str) -> str:
    """`pix2next.model.blocks` is in the part `model`; the package itself is `__init__`."""
    return module.split(".")[1] if "." in module else "__init__"


def name_of(file: Path, source: Path) -> str:
    names = file.relative_to(source).with_suffix("").parts
    return ".".join(["pix2next", *(names if names[-1] != "__init__" or len(names) == 1 else names[:-1])])


def imported(file: Path, source: Path) -> Iterator[str]:
    """Full names of what `file` imports from the package, wherever in the file it does."""
    package = ["pix2next", *file.relative_to(source).parent.parts]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "pix2next" else [module]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "pix2next")


def violations(source: Path) -> list[str]:
    found = []
    for file in sorted(source.rglob("*.py")):
        module = name_of(file, source)
        own = part_of(module)
        for name in imported(file, source):
            part = part_of(name) if part_of(name) in RANK else "__init__"
            if own not in RANK:
                found.append(f"{module} is in no layer; give {own} its place in LAYERS")
            elif part != own and RANK[part] >= RANK[own]:
                found.append(f"{module} imports {name}, which is not below it")
    return found


def test_imports_only_go_down():
    assert violations(SOURCE) == []


def test_every_part_has_a_layer():
    parts = {part_of(name_of(file, SOURCE)) for file in SOURCE.rglob("*.py")}
    assert parts - RANK.keys() == set()
    assert {"config", "images", "model", "translate", "evaluate", "train", "apps", "cli"} <= parts


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("evaluate/report.py", "from pix2next.train.loop import train", True),
        ("config.py", "import pix2next.images", True),
        ("images.py", "from pix2next import config", True),
        ("model/blocks.py", "from ..translate import Translator", True),
        ("model/blocks.py", "from pix2next import Translator", True),
        ("data/pairs.py", "import pix2next.translate as other", True),
        ("evaluate/report.py", "def later():\n    from pix2next import train", True),
        ("train/loop.py", "from pix2next.evaluate.metrics import psnr", False),
        ("model/blocks.py", "from . import dcnv3", False),
        ("model/blocks.py", "from .dcnv3 import dcnv3", False),
        ("apps/bulk.py", "from pix2next.translate import Translator", False),
        ("cli/program.py", "from pix2next.apps import bulk", False),
        ("__init__.py", "from pix2next.translate import Translator", False),
        ("model/blocks.py", "import torch\nfrom torch import nn", False),
    ],
)
def test_the_check_itself(tmp_path, file, line, broken):
    planted = tmp_path / file
    planted.parent.mkdir(exist_ok=True)
    planted.write_text(line)
    assert len(violations(tmp_path)) == int(broken)


def test_a_part_without_a_layer_is_told(tmp_path):
    (tmp_path / "utils.py").write_text("import pix2next.errors")
    assert violations(tmp_path) == ["pix2next.utils is in no layer; give utils its place in LAYERS"]
