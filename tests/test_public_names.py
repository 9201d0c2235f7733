"""What `import pix2next` offers."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pix2next
from pix2next import errors


def test_every_public_name_is_there():
    assert {"Pix2Next", "Pix2NextError", "Translator", "load_model", "shipped_models"} <= set(pix2next.__all__)
    assert [name for name in pix2next.__all__ if not hasattr(pix2next, name)] == []
    assert len(pix2next.__all__) == len(set(pix2next.__all__))


def test_public_names_show_in_dir():
    assert set(pix2next.__all__) <= set(dir(pix2next))


def test_every_error_is_public_and_caught_by_one_name():
    kinds = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert kinds <= set(pix2next.__all__)
    assert all(issubclass(getattr(pix2next, name), pix2next.Pix2NextError) for name in kinds)


def test_import_does_no_work():
    script = "import sys, pix2next; print('torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "False"


def test_the_version_is_the_projects():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert pix2next.__version__ == project["version"]
