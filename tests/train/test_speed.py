"""Training speed: what is counted, in which order, and what is left out."""

import json

import pytest

from pix2next.config import Config
from pix2next.errors import ConfigError
from pix2next.train import loop, speed
from pix2next.train.speed import WARMUP, StepTime, speed_of, speeds_table, time_steps, training_speeds, write_speeds


def test_speed_by_hand():
    rounds = [[StepTime(1.0, 0.1), StepTime(3.0, 0.5)], [StepTime(2.0, 0.0), StepTime(2.0, 0.2)]]
    found = speed_of("x", 4, rounds)
    assert found.seconds_per_step == 2.0
    assert (found.steps_per_second, found.samples_per_second) == (0.5, 2.0)
    assert found.data_wait == pytest.approx(0.8 / 8)
    assert found.spread == 0.0
    assert speed_of("x", 4, [[StepTime(1.0, 0.0)], [StepTime(2.0, 0.0)]]).spread == pytest.approx(1 / 3)


def test_configs_take_turns(data, settings, monkeypatch):
    order, seen = [], []

    def timed(config: Config, pairs: object, steps: int) -> list[StepTime]:
        order.append(config.train.batch_size)
        return [StepTime(1.0, 0.0)] * steps

    monkeypatch.setattr(speed, "time_steps", timed)
    configs = {"one": settings(data, batch_size=1), "two": settings(data, batch_size=2)}
    speeds, facts = training_speeds(
        configs, rounds=3, steps=2, threads=2, on_progress=lambda done, total: seen.append((done, total))
    )
    assert order == [1, 2] * 3
    assert seen[-1] == (6, 6)
    assert [(it.config, it.batch_size) for it in speeds] == [("one", 1), ("two", 2)]
    assert facts["threads"] == 2


def test_real_steps_are_timed_with_the_discriminator(data, settings, monkeypatch):
    terms = []
    original = loop.update
    monkeypatch.setattr(loop, "update", lambda *arguments: terms.append(original(*arguments).keys()))
    times = time_steps(settings(data, discriminator_starts=100), pairs_of(data), 3)
    assert len(times) == 3
    assert len(terms) == WARMUP + 3
    assert all("discriminator" in names for names in terms)
    assert all(0 <= step.waited < step.seconds for step in times)


def pairs_of(data):
    return speed.configured_pairs(Config.model_validate({"data": {"root": data}}).data, "train")


def test_the_unpaired_are_timed_too(data, settings):
    losses = {"cycle": 10.0, "ssim": 0, "l1": 0, "feature_matching": 0}
    config = settings(data, loss=losses, batch_size=1)
    config = config.model_copy(update={"data": config.data.model_copy(update={"unpaired": True})})
    assert len(time_steps(config, pairs_of(data), 1)) == 1


def test_what_cannot_be_trained_is_one_sentence(data, settings):
    config = settings(data)
    odd = config.model_copy(update={"data": config.data.model_copy(update={"crop": 31})})
    with pytest.raises(ConfigError, match=r"data\.crop: 31 is no multiple of 2"):
        time_steps(odd, pairs_of(data), 1)
    with pytest.raises(ConfigError, match="at least one round of one step"):
        training_speeds({"x": config}, rounds=0)


def test_the_table_and_the_file(tmp_path):
    speeds = [speed_of("tiny", 6, [[StepTime(0.5, 0.01)]])]
    assert speeds_table(speeds).row_count == 1
    write_speeds(speeds, {"device": "cpu", "threads": 3}, tmp_path / "speeds.json")
    written = json.loads((tmp_path / "speeds.json").read_text())
    assert written["speeds"][0]["samples_per_second"] == 12.0
    assert written["threads"] == 3
