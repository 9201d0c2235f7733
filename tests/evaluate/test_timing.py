"""The clock: whose turn it is, and what becomes of those that fail."""

import weakref

import pytest
import torch

from pix2next.evaluate import timing
from pix2next.evaluate.timing import Times, cpu_threads, in_turns, machine_facts, reason, time_once

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """A pass takes as many seconds as it returns, and no time is spent on tidying up."""
    monkeypatch.setattr(timing, "time_once", lambda run, device: run())
    monkeypatch.setattr(timing, "release", lambda device: None)


def counting(calls, name, seconds=1.0):
    """Notes when it is built and when it runs."""

    def start():
        calls.append(f"build {name}")
        return lambda: calls.append(name) or seconds

    return start


def test_each_takes_its_turn_in_every_round(clock):
    calls = []
    taken = in_turns({name: counting(calls, name) for name in ("a", "b")}, 3, CPU)
    # Built and warmed up once, then a pass a round.
    assert calls == ["build a", "a", "a", "build b", "b", "b", "a", "b", "a", "b"]
    assert [it.seconds for it in taken.values()] == [[1.0] * 3] * 2


def test_one_at_a_time_is_built_for_every_turn(clock):
    calls = []
    in_turns({name: counting(calls, name) for name in ("a", "b")}, 2, CPU, keep=False)
    assert calls == ["build a", "a", "a", "build b", "b", "b"] * 2


@pytest.mark.parametrize("keep", [True, False])
def test_nothing_stays_in_memory(keep):
    alive = weakref.WeakSet()

    def start():
        network = torch.nn.Linear(2, 2)
        alive.add(network)
        return lambda: network(torch.zeros(1, 2))

    held = []
    watching = {"a": start, "b": lambda: held.append(len(alive)) or start()}
    in_turns(watching, 1, CPU, keep=keep)
    assert held == [1 if keep else 0]
    assert not alive


def test_what_takes_long_sits_out_after_two_rounds(clock):
    calls = []
    taken = in_turns({"slow": counting(calls, "slow", 11.0), "fast": counting(calls, "fast")}, 5, CPU)
    assert len(taken["slow"].seconds) == timing.ENOUGH
    assert len(taken["fast"].seconds) == 5


def test_a_failing_one_is_out_and_the_others_go_on(clock):
    def hungry():
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    runs = iter([1.0, 1.0, 1.0])  # The warm-up, two rounds, and then it is over.
    starts = {"hungry": hungry, "tired": lambda: lambda: next(runs), "well": counting([], "well")}
    taken = in_turns(starts, 4, CPU)
    assert taken["hungry"].failed == "out of memory"
    assert taken["hungry"].median is None
    assert taken["tired"].failed == "StopIteration"
    assert taken["tired"].median is None
    assert taken["well"].median == 1.0


def test_an_interrupt_is_no_failing_network():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_turns({"a": interrupted}, 1, CPU)


def test_median_and_spread_by_hand():
    times = Times([4.0, 1.0, 2.0, 3.0, 5.0])
    assert times.median == 3.0
    assert times.spread == pytest.approx((4.0 - 2.0) / 3.0)
    assert Times([1.0, 2.0]).spread is None
    assert Times([1.0, 1.0, 1.0], failed="out of memory").spread is None


def test_a_real_pass_takes_time():
    calls = []
    assert time_once(lambda: calls.append(sum(range(1000))), CPU) > 0
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out of memory"),
        (ValueError("sides\n  of 3"), "sides of 3"),
        (KeyError(), "KeyError"),
    ],
)
def test_reasons_are_short(error, words):
    assert reason(error) == words


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with cpu_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_facts_name_machine_and_library():
    facts = machine_facts(CPU)
    assert (facts["kind"], facts["torch"], facts["threads"]) == ("cpu", torch.__version__, torch.get_num_threads())
    assert facts["processor"]
    assert facts["cuda"] is None
