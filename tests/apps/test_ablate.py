"""Studies: the same samples for all, a table that an interruption does not change, and one sentence for what fails."""

import json
import math
import shutil

import cv2
import numpy as np
import pytest

from pix2next.apps import ablate as study
from pix2next.apps import ablation_plan, ablation_scores
from pix2next.apps.ablate import ablate, load_variants
from pix2next.apps.ablation_plan import Plan, samples_for
from pix2next.config import first_comment
from pix2next.errors import ConfigError, PairError
from pix2next.evaluate.scorer import Scorer
from pix2next.train import loop
from pix2next.train.speed import StepTime, time_steps

from .. import command

BASE = """# {description}.
model:
  vfm: {{name: none}}
  generator: {{widths: [4, 6], encoder_blocks: [0, 1], bottleneck_blocks: 1, decoder_blocks: [0, 1],
              norm: none, fusions: []}}
data: {{crop: 16, workers: 0, cache: true}}
discriminator: {{width: 4, layers: 1, scales: 1, norm: none}}
loss: {{l1: 10.0}}
train: {{batch_size: {batch_size}, learning_rate: {rate}, warmup_steps: 1, log_every: 1, checkpoint_minutes: 1.0e-9}}
"""


def put_pairs(root, split, count, first):
    for index in range(first, first + count):
        rgb = np.random.default_rng(index).integers(0, 256, (5, 5, 3)).astype(np.uint8)
        rgb = cv2.resize(rgb, (24, 20), interpolation=cv2.INTER_CUBIC)
        for kind, picture in {"rgb": rgb, "nir": np.sqrt(rgb[..., 1] * 255.0).astype(np.uint8)}.items():
            (root / split / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / split / kind / f"{index}.png"), picture)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Pairs in `data`, metrics that need no network, and steps of 10 ms whatever they take."""
    put_pairs(tmp_path / "data", "train", 3, 0)
    put_pairs(tmp_path / "data", "val", 5, 10)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study, "METRICS", ("psnr", "ssim"))
    monkeypatch.setattr(ablation_plan, "time_steps", lambda config, pairs, steps: [StepTime(0.01, 0.0)] * steps)
    return tmp_path


def config(path, batch_size=2, rate=2e-3, description="A network", more=""):
    path.parent.mkdir(exist_ok=True)
    path.write_text(BASE.format(batch_size=batch_size, rate=rate, description=description) + more)
    return path


def run(configs, out, **settings):
    settings = {"samples": 12, "device": "cpu", **settings}
    return ablate(configs, out, changes=["data.root=data", *settings.pop("changes", [])], **settings)


def scores(out):
    return [picture["scores"] for picture in json.loads((out / "ablation.json").read_text())["pictures"]]


@pytest.fixture
def two(here):
    return [config(here / "plain.yaml", 2), config(here / "slow.yaml", 3, 1e-4, description="A lower rate")]


def test_a_study_from_end_to_end(here, two, monkeypatch):
    monkeypatch.setattr(ablation_plan, "time_steps", time_steps)
    said = []
    results = run(two, here / "out", samples=13, say=said.append)
    plan = json.loads((here / "out" / "plan.json").read_text())
    assert (plan["samples"], plan["steps"]) == (12, {"plain": 6, "slow": 4})
    assert set(plan["seconds_per_step"]) == {"plain", "slow"}
    assert all(0 < seconds != 0.01 for seconds in plan["seconds_per_step"].values())
    assert [row.name for row in results.results] == ["plain", "slow", "luma", "linear"]
    plain, slow, luma, _ = results.results
    assert (plain.description, slow.description) == ("A network", "A lower rate")
    assert plain.cost.parameters == plain.cost.trained > 0
    assert plain.cost.gflop > 0
    assert plain.difference == {}
    for row in results.results:
        for metric, mean in row.mean.items():
            assert row.interval[metric].low <= mean <= row.interval[metric].high
    for metric, test in slow.difference.items():
        assert test.difference == pytest.approx(slow.mean[metric] - plain.mean[metric])
        assert test.interval.low <= test.difference <= test.interval.high
    assert luma.cost is None
    assert "2 of 2: slow-seed0, 4 steps, about 0 minutes" in said
    table = (here / "out" / "ablation.md").read_text()
    assert "| slow | A lower rate |" in table
    assert "Trained on 12 samples each (batch sizes: plain 2, slow 3; seeds 0)" in table
    assert "Differences to plain" in table
    sheet = cv2.imread(str(here / "out" / "ablation.png"))
    assert sheet.shape[0] == 6 * (192 + 4)  # RGB, truth, two networks, two baselines


def test_every_network_sees_its_samples(here, two):
    run(two, here / "out")
    for name, steps in {"plain": 6, "slow": 4}.items():
        lines = (here / "out" / "runs" / f"{name}-seed0" / "log.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == list(range(1, steps + 1))


def test_an_interruption_changes_nothing(here, two, monkeypatch):
    run(two, here / "whole")
    original, calls = loop.update, iter(range(100))

    def interrupted(*arguments):
        if next(calls) == 8:  # The second network's third step.
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(loop, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(two, here / "part")
    assert (here / "part" / "runs" / "slow-seed0" / "state.pt").is_file()
    assert not (here / "part" / "ablation.md").exists()
    taken = []
    monkeypatch.setattr(loop, "update", lambda *arguments: taken.append(1) or original(*arguments))
    run(two, here / "part")
    assert len(taken) == 2  # What was finished, and the steps before, are not taken again.
    assert scores(here / "part") == scores(here / "whole")


def test_what_was_stopped_before_its_first_checkpoint_starts_again(here, two):
    left = here / "out" / "runs" / "plain-seed0"
    left.mkdir(parents=True)
    (left / "config.json").write_text("{}")
    (here / "out" / "plan.json").write_text(
        Plan(
            samples=12, budget_minutes=None, seeds=(0,), batch_sizes={}, steps={}, seconds_per_step={}
        ).model_dump_json()
    )
    assert run(two, here / "out").results[0].mean["psnr"] > 0


def test_a_finished_run_keeps_its_weights_and_not_its_state(here, two):
    run(two, here / "out")
    names = {path.name for path in (here / "out" / "runs" / "plain-seed0").iterdir()}
    assert {"best.safetensors", "finished.json", "config.json", "log.jsonl"} <= names
    assert not names & {"state.pt", "state.previous.pt"}


def test_what_is_scored_is_kept(here, two, monkeypatch):
    whole = run(two, here / "whole")
    monkeypatch.setattr(ablation_scores, "AT_A_TIME", 2)
    scored = []
    original = Scorer.score

    def stopping(self, example):
        if len(scored) == 3:
            raise KeyboardInterrupt
        scored.append(sorted(example.fakes))
        return original(self, example)

    monkeypatch.setattr(Scorer, "score", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(two[:1], here / "out")
    monkeypatch.setattr(
        Scorer, "score", lambda self, example: scored.append(sorted(example.fakes)) or original(self, example)
    )
    scored.clear()
    run(two[:1], here / "out")  # Two of five pictures were written down.
    assert scored == [["linear", "luma", "plain-seed0"]] * 3
    scored.clear()
    results = run(two, here / "out")
    assert scored == [["slow-seed0"]] * 5
    assert scores(here / "out") == scores(here / "whole")
    assert results.results == whole.results
    scored.clear()
    run(two[:1], here / "out")
    run(two, here / "out")
    assert scored == []


def test_scores_of_other_weights_are_not_kept(here, two):
    before = run(two, here / "out").results
    run_folder = here / "out" / "runs" / "plain-seed0"
    shutil.rmtree(run_folder)
    changed = two[0].read_text().replace("learning_rate: 0.002", "learning_rate: 0.02")
    assert changed != two[0].read_text()
    two[0].write_text(changed)
    after = run(two, here / "out").results
    assert after[0].mean != before[0].mean
    assert after[1].mean == before[1].mean
    (here / "out" / "scores-val.pt").write_bytes(b"half a file")
    assert run(two, here / "out").results == after


def test_a_config_that_fails_is_reported_and_the_others_go_on(here, two):
    fusion = "\n  generator: {fusions: [{at: bottleneck, reads: [4], heads: 1, head_width: 8}]}"
    bad = here / "bad.yaml"
    bad.write_text(
        f"# Lost weights\nbase: plain.yaml\nmodel:\n  vfm: {{name: timm:resnet18, weights: lost.pth}}{fusion}"
    )
    odd = config(here / "odd.yaml", more="")
    odd.write_text(odd.read_text().replace("crop: 16", "crop: 15"))
    results = run([*two, bad, odd], here / "out")
    by_name = {row.name: row for row in results.results}
    assert by_name["bad"].mean == by_name["odd"].mean == {}
    assert by_name["bad"].failed.startswith("no weights file lost.pth")
    assert by_name["odd"].failed.startswith("data.crop: 15 is no multiple of 2")
    assert by_name["slow"].difference["psnr"]
    assert "| bad | no weights file lost.pth" in (here / "out" / "ablation.md").read_text()


def test_a_reference_that_fails_leaves_no_differences(here, two):
    two[0].write_text(two[0].read_text().replace("crop: 16", "crop: 15"))
    results = run(two, here / "out")
    assert results.results[0].failed
    assert all(row.difference == {} for row in results.results)
    assert "Differences" not in (here / "out" / "ablation.md").read_text()


def test_configs_are_added_to_a_study_by_the_same_plan(here, two):
    run(two[:1], here / "out")
    results = run(two, here / "out", samples=None, budget=99.0)
    assert results.samples == 12
    assert json.loads((here / "out" / "plan.json").read_text())["steps"] == {"plain": 6, "slow": 4}
    with pytest.raises(ConfigError, match="trains on 12 samples, not 24; choose another --out"):
        run(two, here / "out", samples=24)
    five = config(here / "five.yaml", 5)
    with pytest.raises(ConfigError, match="five: batches of 5 do not make up the study's 12 samples"):
        run([*two, five], here / "out")


def test_other_settings_are_not_mixed_into_a_study(here, two):
    run(two, here / "out")
    results = run(two, here / "out", changes=["train.learning_rate=0.5", "train.log_every=7"])
    assert "was trained with other settings" in results.results[0].failed
    results = run(two, here / "out", changes=["train.log_every=7"])  # It changes nothing of what is learnt.
    assert results.results[0].failed is None


def test_seeds_are_averaged_and_their_spread_is_shown(here, two):
    results = run(two, here / "out", seeds=(0, 5))
    plain, slow = results.results[:2]
    assert len(set(plain.seed_means["psnr"])) == 2
    assert plain.mean["psnr"] == pytest.approx(np.mean(plain.seed_means["psnr"]))
    assert slow.difference["ssim"].difference == pytest.approx(slow.mean["ssim"] - plain.mean["ssim"])
    assert plain.interval["psnr"].low <= plain.mean["psnr"] <= plain.interval["psnr"].high
    assert f"± {np.std(plain.seed_means['psnr'], ddof=1):.2f}" in (here / "out" / "ablation.md").read_text()
    saved = json.loads((here / "out" / "runs" / "plain-seed5" / "config.json").read_text())
    assert saved["train"]["seed"] == 5


def test_a_configs_own_seed_is_kept(here, two):
    again = here / "again.yaml"
    again.write_text("# From another seed\nbase: plain.yaml\ntrain: {seed: 100}\n")
    plain, same = run([two[0], again], here / "out", seeds=(1,)).results[:2]
    assert plain.mean != same.mean
    assert json.loads((here / "out" / "runs" / "again-seed1" / "config.json").read_text())["train"]["seed"] == 101


def test_the_reference_is_named(here, two):
    results = run(two, here / "out", reference="slow")
    assert results.results[0].name == "slow"
    assert results.results[1].difference
    with pytest.raises(ConfigError, match="--reference quick: no such config; known here are plain, slow"):
        run(two, here / "out", reference="quick")


def test_test_is_scored_when_it_is_asked_for(here, two):
    put_pairs(here / "data", "test", 2, 30)
    assert [picture.name for picture in run(two, here / "out", split="test").pictures] == ["30", "31"]
    with pytest.raises(ConfigError, match="--split train: known are val, test"):
        run(two, here / "out", split="train")
    folders = [f"data.{split}_{kind}=data/{split}/{kind}" for split in ("train", "val") for kind in ("rgb", "nir")]
    with pytest.raises(PairError, match=r"--split test needs data\.root or data\.pairs"):
        run(two, here / "out", split="test", changes=["data.root=null", *folders])


def test_names_must_differ_and_be_free(here, two):
    other = config(here / "more" / "plain.yaml")
    with pytest.raises(ConfigError, match=r"both be called plain; rename one"):
        load_variants([*two, other], [])
    with pytest.raises(ConfigError, match=r"luma\.yaml: 'luma' stands for something else"):
        load_variants([config(here / "luma.yaml")], [])
    with pytest.raises(ConfigError, match="at least one config"):
        load_variants([], [])


def test_all_train_on_the_same_pictures(here, two):
    other = config(here / "other.yaml")
    other.write_text(other.read_text().replace("data: {crop", "data: {root: elsewhere, crop"))
    with pytest.raises(ConfigError, match=r"other\.yaml names other data than .*plain\.yaml"):
        load_variants([*two, other], [])
    assert len(load_variants([*two, other], ["data.root=data"])) == 3


def test_settings_that_do_not_exist_are_refused_at_once(here, two):
    with pytest.raises(ConfigError, match="unknown setting train.stepps"):
        run(two, here / "out", changes=["train.stepps=3"])
    assert not (here / "out").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"samples": None}, "say how long to train: --budget MINUTES, or --samples N"),
        ({"samples": 0}, "--samples 0: give a number above 0"),
        ({"samples": None, "budget": 0.0}, "--budget 0.0: give minutes above 0"),
        ({"samples": None, "budget": math.nan}, "--budget nan: give minutes above 0"),
        ({"seeds": ()}, "--seeds takes different numbers"),
        ({"seeds": (1, 1)}, "--seeds takes different numbers"),
        ({"seeds": (-1,)}, "--seeds takes different numbers"),
    ],
)
def test_impossible_numbers_are_refused(here, two, settings, said):
    with pytest.raises(ConfigError, match=said):
        run(two, here / "out", **settings)
    assert not (here / "out" / "runs").exists()


def test_a_folder_of_something_else_is_left_alone(here, two):
    with pytest.raises(ConfigError, match="is not empty and holds no study"):
        run(two, here / "data")
    with pytest.raises(ConfigError, match="is a file; --out takes a folder"):
        run(two, two[0])
    (here / "out").mkdir()
    (here / "out" / "plan.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"plan\.json is no plan of a study"):
        run(two, here / "out")


def test_the_number_of_samples_by_hand():
    # Half a second and a quarter a sample, two seeds: 1.5 s. 40 fit into a minute, in whole steps of both 36.
    assert samples_for(1.0, [0.5, 0.25], seeds=2, step=6) == 36
    assert samples_for(0.15, [0.5, 0.25], seeds=2, step=6) == 6
    with pytest.raises(ConfigError, match=r"--budget 0\.1: 6 samples each take 0\.15 minutes already"):
        samples_for(0.1, [0.5, 0.25], seeds=2, step=6)
    with pytest.raises(ConfigError, match="none of the configs can be trained"):
        samples_for(1.0, [0.0], seeds=1, step=2)


def test_a_budget_is_kept(here, two, monkeypatch):
    monkeypatch.setattr(ablation_plan, "time_steps", lambda config, pairs, steps: [StepTime(1.0, 0.0)] * steps)
    # A second a step: a sample takes 1/2 and 1/3 s, so 18 seconds are 21.6 samples, of which 18 are whole steps.
    assert run(two, here / "out", samples=None, budget=0.3).samples == 18


def test_the_first_comment_describes(here):
    assert first_comment(config(here / "a.yaml", description="What it is")) == "What it is"
    (here / "b.yaml").write_text("train: {}\n# not this")
    assert first_comment(here / "b.yaml") == ""
    with pytest.raises(ConfigError, match=r"cannot read config .*lost\.yaml"):
        first_comment(here / "lost.yaml")


def test_the_verb(here, two):
    settings = ["--samples", "6", "--set", "data.root=data", "--device", "cpu", "-o", "out"]
    shown = command.run("ablate", *two, *settings)
    assert shown.exit_code == 0, shown.output
    assert (here / "out" / "ablation.md").is_file()
    shown = command.run("ablate", *two, *settings, "--seeds", "a,b")
    assert shown.exit_code == 2
    assert "--seeds a,b: expected whole numbers" in shown.output
