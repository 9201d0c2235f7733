"""Overlapped stages: what comes out, in which batches, how much is in work, and what an error costs."""

import threading
from itertools import count

import numpy as np
import pytest
import torch
from torch import nn

from pix2next.apps import pipeline
from pix2next.apps.pipeline import Loaded, Outcome, StageTimes, run_pipeline
from pix2next.errors import ImageError, WeightsError
from pix2next.translate import Translator


class Green(nn.Module):
    """NIR is the green channel; remembers what it was called with."""

    multiple = 8

    def __init__(self):
        super().__init__()
        self.shapes = []

    def forward(self, rgb):
        self.shapes.append(tuple(rgb.shape))
        return rgb[:, 1:2]


def picture(task, size=(8, 8)):
    return np.full((*size, 3), task, np.uint8)


def load(task):
    return Loaded(picture(task), f"info {task}")


def save(task, loaded, nir):
    return task, loaded.info, int(nir[0, 0]), nir.shape


def run(tasks, load=load, save=save, model=None, tile=64, **options):
    translator = Translator(model or Green(), device="cpu", tile=tile)
    return list(run_pipeline(tasks, load, translator, save, **options))


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("lanes", [1, 3])
def test_every_task_comes_out_once_with_its_own_picture(monkeypatch, batch_size, threads, lanes):
    monkeypatch.setattr(pipeline, "default_lanes", lambda translator: lanes)
    outcomes = run(range(20), batch_size=batch_size, threads=threads)
    assert [it.task for it in outcomes] == list(range(20))
    assert [it.result for it in outcomes] == [(task, f"info {task}", task, (8, 8)) for task in range(20)]
    assert all(it.error is None and it.seconds >= 0 for it in outcomes)


def test_no_task_is_no_outcome():
    assert run([]) == []


def test_pictures_of_one_size_share_a_batch_which_is_always_full():
    model = Green()
    sizes = [(8, 8), (8, 16), (8, 8), (8, 16), (8, 8)]
    outcomes = run(range(5), lambda task: Loaded(picture(task, sizes[task])), model=model, batch_size=2)
    assert sorted(model.shapes) == [(2, 3, 8, 8), (2, 3, 8, 8), (2, 3, 8, 16)]
    assert {it.task: it.result[2:] for it in outcomes} == {task: (task, sizes[task]) for task in range(5)}


def test_depths_do_not_share_a_batch():
    dtypes = [np.uint8, np.uint16, np.uint8, np.uint16]
    model = Green()
    outcomes = run(range(4), lambda task: Loaded(picture(task).astype(dtypes[task])), model=model, batch_size=2)
    assert len(model.shapes) == 2
    assert {it.task: it.result[2] for it in outcomes} == {task: task for task in range(4)}


def test_a_picture_larger_than_a_tile_goes_alone_and_is_not_repeated():
    model = Green()
    (outcome,) = run([7], lambda task: Loaded(picture(task, (72, 8))), model=model, batch_size=4)
    assert {shape[0] for shape in model.shapes} == {1}
    assert outcome.result[2:] == (7, (72, 8))


def test_a_picture_does_not_depend_on_those_that_share_its_batch():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 1, 3, padding=1))
    model.multiple = 8
    pictures = np.random.default_rng(0).integers(0, 256, (5, 24, 40, 3), dtype=np.uint8)

    def nirs(tasks):
        outcomes = run(tasks, lambda task: Loaded(pictures[task]), lambda *them: them[2], model, batch_size=4)
        return {it.task: it.result for it in outcomes}

    together, late = nirs(range(5)), nirs([4, 2])
    assert np.array_equal(together[4], late[4])
    assert np.array_equal(together[2], late[2])


def test_many_sizes_are_not_held_back_for_ever():
    seen = []

    def tasks():
        for task in range(100):
            seen.append(task)
            yield task

    translator = Translator(Green(), device="cpu", tile=1024)
    outcomes = run_pipeline(
        tasks(), lambda task: Loaded(picture(task, (8, 8 + task))), translator, save, batch_size=2, threads=1
    )
    next(outcomes)
    assert len(seen) < 40
    assert len([*outcomes]) == 99


def test_memory_is_bounded():
    """Tasks are taken only as outcomes are: of a thousand pictures a handful are in memory."""
    alive, most, lock = set(), [0], threading.Lock()

    def load(task):
        with lock:
            alive.add(task)
            most[0] = max(most[0], len(alive))
        return Loaded(picture(task % 256))

    def save(task, loaded, nir):
        with lock:
            alive.discard(task)

    run(range(300), load, save, threads=2)
    assert alive == set()
    assert most[0] <= 16


def test_what_cannot_be_read_or_written_costs_itself_only():
    def load(task):
        if task == 1:
            raise ImageError("1.png is empty (0 bytes)")
        if task == 2:
            raise MemoryError
        if task == 3:
            raise OSError(5, "Input/output error", "3.png")
        if task == 4:
            raise KeyError("a decoder's own mistake")
        return Loaded(picture(task))

    def save(task, loaded, nir):
        if task == 6:
            raise ImageError("cannot write 6.png: no")
        return task

    outcomes = run(range(8), load, save, batch_size=2)
    assert {it.task: it.error for it in outcomes if it.error} == {
        1: "1.png is empty (0 bytes)",
        2: "too little memory to hold the picture",
        3: "3.png: Input/output error",
        4: '"a decoder\'s own mistake"',
        6: "cannot write 6.png: no",
    }
    assert [it.result for it in outcomes if not it.error] == [0, 5, 7]
    assert all(it.result is None for it in outcomes if it.error)


def test_too_little_memory_for_a_picture_costs_that_picture():
    class Little(Green):
        def forward(self, rgb):
            if rgb.shape[2] > 8:
                raise MemoryError
            return super().forward(rgb)

    outcomes = run(range(3), lambda task: Loaded(picture(task, (8 + 8 * (task == 1), 8))), model=Little())
    assert [it.error for it in outcomes] == [
        None,
        "too little memory for a 8 x 16 picture even in tiles of 16 pixels",
        None,
    ]


class Failing(Green):
    """Fails in the n-th pass."""

    def __init__(self, n, error):
        super().__init__()
        self.n, self.error = n, error

    def forward(self, rgb):
        if len(self.shapes) == self.n:
            raise self.error
        return super().forward(rgb)


@pytest.mark.parametrize("error", [RuntimeError("broken"), WeightsError("NaN"), KeyboardInterrupt()])
def test_a_broken_network_ends_the_run_and_what_it_gave_before_is_saved(error):
    saved = []
    with pytest.raises(type(error)):
        run(range(10), save=lambda task, *_: saved.append(task), model=Failing(3, error))
    assert saved == [0, 1, 2]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("pictures", "network"))]


def test_closing_stops_it():
    taken = []
    translator = Translator(Green(), device="cpu")
    outcomes = run_pipeline((taken.append(task) or task for task in count()), lambda _: load(1), translator, save)
    next(outcomes)
    outcomes.close()
    assert len(taken) < 30
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("pictures", "network"))]


def test_reading_goes_on_while_the_network_works():
    """The network's first pass ends only when the second picture has been read."""
    read = threading.Event()

    class Patient(Green):
        def forward(self, rgb):
            assert read.wait(timeout=60)
            return super().forward(rgb)

    def load(task):
        if task == 1:
            read.set()
        return Loaded(picture(task))

    assert len(run(range(2), load, model=Patient(), threads=1)) == 2


def test_the_network_goes_on_while_pictures_are_written():
    """Writing the first picture ends only when the network has seen the second."""
    seen = threading.Event()

    class Telling(Green):
        def forward(self, rgb):
            if len(self.shapes) == 1:
                seen.set()
            return super().forward(rgb)

    def save(task, loaded, nir):
        assert seen.wait(timeout=60)

    assert len(run(range(3), save=save, model=Telling(), threads=1)) == 3


def test_times_of_the_stages():
    stages = StageTimes()
    run(range(5), stages=stages)
    assert min(stages.decode, stages.network, stages.encode) > 0
    assert stages.wall >= stages.network
    assert stages.waiting == pytest.approx(stages.wall - stages.network)


def test_an_outcome_is_a_plain_tuple():
    assert Outcome("a", 1, None, 0.5) == ("a", 1, None, 0.5)
