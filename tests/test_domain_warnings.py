"""The warning of pictures unlike those of the training: a sentence for one, one for many, a line of JSON, or none."""

import json

import cv2
import pytest
import torch
from typer.testing import CliRunner

from pix2next.apps.events import Unlike
from pix2next.cli import app
from pix2next.cli.telling import unlike_sentence
from pix2next.config import FusionConfig, GeneratorConfig, ModelConfig, VfmConfig
from pix2next.model.domain import DOMAIN
from pix2next.model.domain_fit import fit_domain
from pix2next.model.pix2next import Pix2Next

from .scenes import meadow, noise, write_meadows


@pytest.fixture(scope="module")
def meadows(tmp_path_factory):
    """A checkpoint that knows meadows, and one of the same network that says nothing of its training."""
    torch.manual_seed(0)
    fusions = (FusionConfig(at="bottleneck", reads=(4, 16), heads=2, head_width=8),)
    generator = GeneratorConfig(
        widths=(8, 8), encoder_blocks=(1, 1), bottleneck_blocks=1, decoder_blocks=(1, 1), norm="none", fusions=fusions
    )
    model = Pix2Next(ModelConfig(vfm=VfmConfig(name="timm:test_efficientnet", weights="none"), generator=generator))
    folder = tmp_path_factory.mktemp("checkpoints")
    domain = fit_domain(model.eval(), write_meadows(folder / "a", 0, 20), write_meadows(folder / "b", 50, 20))
    # Twice as generous: that one in twenty meadows is called unlike would make these tests depend on luck.
    text = json.loads(domain.to_metadata())
    for part in text["parts"].values():
        part["unit"] *= 2
    model.save(folder / "meadows.safetensors", card={DOMAIN: json.dumps(text)})
    model.save(folder / "silent.safetensors")
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for number in range(3):
        cv2.imwrite(f"in/meadow{number}.png", meadow(number)[:, :, ::-1])
    cv2.imwrite("in/deep/noise.png", noise(0))
    return tmp_path


def run(verb, *arguments, model, stdin=b""):
    words = [verb, *map(str, arguments), "--model", str(model), "--device", "cpu"]
    return CliRunner().invoke(app, words, input=stdin)


def warnings(result):
    return [line for line in result.stderr.splitlines() if line.startswith("warning")]


def test_one_sentence_for_one_picture_and_the_status_stays(here, meadows):
    model = meadows / "meadows.safetensors"
    done = run("translate", "in", "-o", "out", model=model)
    warning, summary = done.stderr.splitlines()
    assert (done.exit_code, summary) == (0, "4 written to out, 0 skipped")
    noisy = str(here.joinpath("in", "deep", "noise.png").relative_to(here))
    assert warning.startswith(f"warning: {noisy} is unlike the pictures that {model} was trained on, above all in ")
    assert warning.endswith("; 95 % of pictures like them stay below 1): do not trust its tones")
    assert (here / "out" / "deep" / "noise.png").exists()


def test_nothing_is_said_of_familiar_pictures(here, meadows):
    done = run("translate", "in/meadow0.png", "-o", "out", model=meadows / "meadows.safetensors")
    assert done.stderr == "1 written to out, 0 skipped\n"


@pytest.mark.parametrize(("model", "flags"), [("meadows", ["--no-warn"]), ("silent", [])])
@pytest.mark.parametrize("verb", ["translate", "translate-dataset"])
def test_it_can_be_turned_off_and_a_model_may_know_nothing(here, meadows, verb, model, flags):
    where = ["-o", "out"] if verb == "translate" else ["out", "--format", "folder"]
    done = run(verb, "in", *where, *flags, model=meadows / f"{model}.safetensors")
    assert (done.exit_code, done.stderr) == (0, "4 written to out, 0 skipped\n")


def test_a_data_set_gets_one_sentence_for_all(here, meadows):
    cv2.imwrite("in/more.png", noise(1, 300))
    model = meadows / "meadows.safetensors"
    done = run("translate-dataset", "in", "out", "--format", "folder", model=model)
    (warning,) = warnings(done)
    assert done.exit_code == 0
    assert warning.startswith(f"warning: 2 of 5 pictures are unlike those that {model} was trained on (farthest: ")
    assert warning.endswith("; of pictures like them 5 % come out as unlike, too): do not trust their tones")
    assert warnings(run("translate-dataset", "in", "out", "--format", "folder", model=model)) == []


def test_streams_are_warned_of_on_standard_error(here, meadows):
    model = meadows / "meadows.safetensors"
    data = (here / "in" / "deep" / "noise.png").read_bytes()
    done = run("translate", "-", "-o", "-", model=model, stdin=data)
    assert cv2.imdecode(memory(done.stdout_bytes), cv2.IMREAD_UNCHANGED).shape == (128, 128)
    (warning,) = done.stderr.splitlines()
    assert warning.startswith("warning: standard input is unlike the pictures")
    assert run("translate", "-", "-o", "-", "--no-warn", model=model, stdin=data).stderr == ""


def memory(data):
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).numpy()


@pytest.mark.parametrize("batch", [1, 3])
def test_json_tells_it_after_the_picture(here, meadows, batch):
    done = run("translate", "in", "-o", "out", "--json", "--batch-size", batch, model=meadows / "meadows.safetensors")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    (index,) = (i for i, event in enumerate(events) if event["event"] == "unlike")
    assert (events[index - 1]["event"], events[index - 1]["path"]) == ("done", events[index]["path"])
    assert events[index]["path"].endswith("noise.png")
    assert (set(events[index]), events[index]["distance"] > 1) == ({"event", "path", "distance", "part"}, True)
    assert done.stderr == ""


def test_a_watch_says_it_as_it_happens(here, meadows, monkeypatch):
    looks = []

    def wait(seconds):
        looks.append(seconds)
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("pix2next.apps.watch.time.sleep", wait)
    ended = run("translate", "in/deep", "-o", "out", "--watch", model=meadows / "meadows.safetensors")
    _, written, warning, summary = ended.stderr.splitlines()
    assert ended.exit_code == 0
    assert written.startswith("written: out")
    assert "noise.png is unlike the pictures" in warning
    assert summary == "1 written to out, 0 skipped"


def test_damaged_statistics_are_one_sentence(here, meadows):
    model = Pix2Next.load(meadows / "silent.safetensors")
    model.save(here / "bad.safetensors", card={DOMAIN: "{}"})
    failed = run("translate", "in", "-o", "out", model="bad.safetensors")
    assert failed.exit_code == 2
    assert failed.stderr.startswith("error: bad.safetensors: the statistics of the training pictures are damaged")
    assert failed.stderr.count("\n") == 1


def test_the_farthest_is_named():
    told = [Unlike("a.png", 1.1, "look"), Unlike("b.png", 3.0, "content"), Unlike("c.png", 1.2, "look")]
    assert unlike_sentence(told, 9, "tiny") == (
        "warning: 3 of 9 pictures are unlike those that tiny was trained on (farthest: b.png, distance 3.00; of "
        "pictures like them 5 % come out as unlike, too): do not trust their tones"
    )
    assert "above all in what it shows (distance 3.00;" in unlike_sentence(told[1:2], 9, "tiny")
