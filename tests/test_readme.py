"""What README and the how-tos tell a reader to type, works."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer
import yaml

from pix2next.apps.demo import PHOTO
from pix2next.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")


def blocks(page, language):
    return [text for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


def lines(page):
    return [line for text in blocks(page, "bash") for line in text.replace("\\\n", "").splitlines() if line]


def cases(find):
    return [pytest.param(case, id=f"{page.stem}-{i}") for page in PAGES for i, case in enumerate(find(page))]


COMMANDS = cases(lambda page: [line for line in lines(page) if line.startswith("pix2next ")])


def test_readme_shows_every_verb():
    shown = {shlex.split(line, comments=True)[1] for line in lines(ROOT / "README.md") if line.startswith("pix2next ")}
    assert shown == {command.name or command.callback.__name__ for command in app.registered_commands}


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_line_parses(line):
    _, verb, *arguments = shlex.split(line, comments=True)
    command = typer.main.get_command(app).commands[verb]
    assert command.make_context(verb, arguments).params


def test_a_wrong_command_line_does_not_parse():
    command = typer.main.get_command(app).commands["translate"]
    with pytest.raises(Exception, match="--colour"):
        command.make_context("translate", ["a.png", "-o", "out", "--colour", "red"])


def test_make_targets_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {line.split()[1] for page in PAGES for line in lines(page) if line.startswith("make ")}
    assert named
    assert named <= targets


@pytest.mark.parametrize("line", COMMANDS)
def test_configs_that_are_named_exist(line):
    named = [word for word in shlex.split(line, comments=True) if word.startswith("configs/")]
    assert all(any(ROOT.glob(name)) for name in named)


@pytest.mark.parametrize("code", cases(lambda page: blocks(page, "python")))
def test_python_runs(code, tmp_path, monkeypatch):
    shutil.copy(PHOTO, tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code, "example", "exec"), names)
    assert names["nir"].shape == (427, 640)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    targets = [page.parent / target for target in LINK.findall(page.read_text(encoding="utf-8"))]
    assert [str(target) for target in targets if not target.exists()] == []


def test_the_citation_is_yaml():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["preferred-citation"]["doi"] == (
        "10.3390/technologies13040154"
    )
