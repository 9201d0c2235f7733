"""The manifest: what is written is read back, also after a kill, and a model is known by its weights."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from pix2next.apps.manifest import Manifest, Record, fingerprint

RECORD = Record(
    key="train/Bäume 木.jpg",
    target="train/Bäume 木.png",
    status="done",
    reason=None,
    width=30,
    height=20,
    dtype="uint8",
    bytes=1234,
    sha256="ab" * 32,
    stamp="1234-5",
    model="tiny-outdoor",
    model_sha256="cd" * 32,
    settings={"tile": 640, "value_range": [0.0, 4095.0], "quality": None},
    seconds=0.25,
    version="1.2.3",
)


def lines(path):
    return path.read_text("utf-8").splitlines()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "manifest.jsonl"


def test_a_record_is_read_back_and_is_one_line_of_json(path):
    manifest = Manifest(path)
    assert manifest.records == {}
    manifest.add(RECORD)
    assert [json.loads(line) for line in lines(path)] == [asdict(RECORD)]  # At once, not when it is closed.
    manifest.close()
    assert Manifest(path).records == {RECORD.key: RECORD}


def test_names_that_are_no_text_are_kept(path):
    odd = replace(RECORD, key="b\udce4d.png")
    manifest = Manifest(path)
    manifest.add(odd)
    manifest.close()
    assert Manifest(path).records == {odd.key: odd}


def test_the_last_word_on_a_picture_counts(path):
    manifest = Manifest(path)
    manifest.add(RECORD)
    manifest.add(failed := replace(RECORD, status="failed", reason="cut short"))
    manifest.close()
    assert len(lines(path)) == 2
    assert Manifest(path).records == {RECORD.key: failed}
    assert len(lines(path)) == 1


@pytest.mark.parametrize("cut", [2, 30, 200])
def test_a_line_that_a_kill_cut_short_is_dropped_and_the_next_is_whole(path, cut):
    manifest = Manifest(path)
    for name in "ab":
        manifest.add(replace(RECORD, key=name))
    manifest.close()
    path.write_bytes(path.read_bytes()[:-cut])
    again = Manifest(path)
    assert list(again.records) == ["a"]
    again.add(replace(RECORD, key="c"))
    again.close()
    assert [json.loads(line)["key"] for line in lines(path)] == ["a", "c"]


@pytest.mark.parametrize("junk", ["", "no json", "[1, 2]", '{"key": "of another version"}', "\0" * 40])
def test_what_is_no_record_is_dropped(path, junk):
    manifest = Manifest(path)
    manifest.add(RECORD)
    manifest.close()
    path.write_text(f"{junk}\n{path.read_text('utf-8')}{junk}\n", "utf-8")
    assert Manifest(path).records == {RECORD.key: RECORD}


def test_finished_it_is_sorted_and_holds_what_is_asked_for(path):
    manifest = Manifest(path)
    for name in "cab":
        manifest.add(replace(RECORD, key=name))
    manifest.finish(["b", "c", "never done"])
    assert [json.loads(line)["key"] for line in lines(path)] == ["b", "c"]
    assert [entry.name for entry in path.parent.iterdir()] == ["manifest.jsonl"]


def test_a_model_is_known_by_its_weights():
    def network(seed, width=4):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width))

    print_of_it = fingerprint(network(0))
    assert fingerprint(network(0)) == print_of_it
    assert fingerprint(network(0).half()) != print_of_it
    assert fingerprint(network(1)) != print_of_it
    assert fingerprint(network(0, width=5)) != print_of_it
    assert fingerprint(network(0).to(memory_format=torch.channels_last)) == print_of_it
    nudged = network(0)
    nudged[1].running_mean[2] += 1e-6
    assert fingerprint(nudged) != print_of_it


def test_a_model_is_also_known_by_its_views():
    def known(**habit):
        torch.manual_seed(0)
        model = nn.Conv2d(3, 1, 1)
        vars(model).update(habit)
        return fingerprint(model)

    told = [known(), known(views=2), known(views=2, turned=True), known(views=2, shrunk=True)]
    assert len(set(told)) == len(told)
    assert known() == known(views=1, turned=False, shrunk=False)
