"""The engine on Ray: what it refuses, who gets what room, and a worker that is killed among its pictures."""

import importlib.util
import logging
import os
import pickle
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import psutil
import pytest
import torch

from pix2next.apps import datasets, ray_throughput
from pix2next.apps.datasets import Cluster, translate_dataset
from pix2next.apps.local_engine import Job, Settings
from pix2next.apps.pipeline import Outcome
from pix2next.apps.ray_cluster import SHARE, Ledger, Node, cluster, import_ray, place
from pix2next.apps.ray_engine import TRIES, Chunk, Worker
from pix2next.apps.stores import FolderSource
from pix2next.errors import ConfigError, WeightsError

from .test_datasets import tree, without_times

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray[data]")


def pictures(root, count):
    """In two sizes and two formats; one of them is broken."""
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 256, ((24, 32), (30, 20))[number % 2] + (3,), dtype=np.uint8)
        path = root / f"part{number % 3}" / f"{number:02d}{('.png', '.jpg')[number % 5 == 0]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), noise)
    (root / "part1" / "broken.png").write_bytes(b"no picture")
    (root / "labels.txt").write_text("carried over")


# --- room --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "device", "workers", "threads", "expected"),
    [
        ([Node(2)], "cpu", None, 2, (1, 2 - SHARE, 0)),
        ([Node(2)], "cpu", None, 1, (2, 1 - SHARE, 0)),
        ([Node(2)], "cpu", 2, 2, (2, 1 - SHARE, 0)),
        ([Node(16)], "auto", None, 4, (4, 4 - SHARE, 0)),
        ([Node(16)], "cpu", 3, 16, (3, 5 - SHARE, 0)),
        ([Node(3), Node(8)], "cpu", None, 16, (1, 8 - SHARE, 0)),
        ([Node(3), Node(3)], "cpu", None, 2, (2, 2 - SHARE, 0)),
        ([Node(16, 2), Node(8, 1), Node(4)], "auto", None, 16, (3, 1 - SHARE, 1)),
        ([Node(16, 2)], "cuda", 1, 16, (1, 1 - SHARE, 1)),
        ([Node(16, 2)], "cpu", None, 8, (2, 8 - SHARE, 0)),
    ],
)
def test_workers_find_room_and_leave_a_share_of_every_cpu(nodes, device, workers, threads, expected):
    placement = place(nodes, device, workers, threads)
    assert (placement.workers, placement.cpus, placement.gpus) == expected
    assert placement.threads == threads
    assert placement.device == ("cuda" if expected[2] else "cpu")
    assert placement.workers * placement.cpus < sum(node.cpus for node in nodes)


@pytest.mark.parametrize(
    ("nodes", "device", "workers", "threads", "words"),
    [
        (
            [Node(2)],
            "cpu",
            3,
            1,
            "3 workers need a CPU each, but Ray's machines have 2 CPUs and 0 GPUs; ask for at most 2",
        ),
        ([Node(16, 1)], "auto", 2, 1, "2 workers need a GPU and a CPU each, .* 16 CPUs and 1 GPUs; ask for at most 1"),
        ([Node(2)], "cuda", None, 1, "a worker needs a GPU and a CPU, but .* another device"),
        ([Node(0.5)], "auto", None, 1, "a worker needs a CPU, but Ray's machines have 0.5 CPUs"),
        ([], "cpu", None, 1, "a worker needs a CPU, but Ray's machines have 0 CPUs"),
        ([Node(4, 2)], "cuda:1", None, 1, "knows the devices auto, cpu and cuda, not 'cuda:1'"),
        ([Node(4)], "mps", None, 1, "knows the devices auto, cpu and cuda, not 'mps'"),
        ([Node(4)], "cpu", 0, 1, "at least 1, not 0 and 1"),
        ([Node(4)], "cpu", None, 0, "at least 1, not None and 0"),
    ],
)
def test_what_would_wait_for_ever_is_refused(nodes, device, workers, threads, words):
    with pytest.raises(ConfigError, match=words):
        place(nodes, device, workers, threads)


# --- what is not there -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nonsense", "'nonsense' is no address of a Ray cluster; give HOST:PORT"),
        ("ray://127.0.0.1:10001", "is no address of a Ray cluster"),
        ("127.0.0.1:six", "is no address of a Ray cluster"),
        ("127.0.0.1:99999999999999999999", "no Ray cluster at"),
        ("nobody.invalid:6379", "no Ray cluster at nobody.invalid:6379: "),
    ],
)
@needs_ray
def test_an_unknown_address_is_one_sentence(address, words):
    with pytest.raises(ConfigError, match=words) as caught, cluster(address):
        pass
    assert "\n" not in str(caught.value)


@needs_ray
def test_an_address_where_nobody_listens_is_refused_at_once():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"no Ray cluster at {address}: Connection refused"), cluster(address):
            pass


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"the engine ray needs Ray .*pip install 'pix2next\[ray\]'"):
        import_ray()


# --- a worker, here ----------------------------------------------------------------------------------------------


class Here(Worker):
    """A worker whose ledger is in this process."""

    def _begin(self, what):
        return self.ledger.begin(what)


def here(root, network, ledger):
    return Here(FolderSource(root), Settings(str(network), device="cpu"), torch.get_num_threads(), ledger)


def rows(worker, chunk):
    return [pickle.loads(row["row"][0]) for row in worker({"chunk": [pickle.dumps(chunk)]})]


def jobs_of(root):
    return [Job(key, key) for key in FolderSource(root).pictures()]


def test_outcomes_come_in_the_order_of_the_jobs_also_the_second_time(tmp_path, network):
    pictures(tmp_path, 6)
    jobs = jobs_of(tmp_path)[::-1]
    worker = here(tmp_path, network, Ledger())
    first, second = rows(worker, Chunk(0, jobs)), rows(worker, Chunk(0, jobs))
    assert [outcome.task for outcome in first] == [outcome.task for outcome in second] == jobs
    assert [outcome[:3] for outcome in first] == [outcome[:3] for outcome in second]
    assert [outcome.task.key for outcome in first if outcome.error] == ["part1/broken.png"]


def test_a_picture_that_was_begun_alone_too_often_is_given_up(tmp_path, network):
    pictures(tmp_path, 3)
    jobs, ledger = jobs_of(tmp_path), Ledger()
    for lost in (0, *(jobs[1].key for _ in range(TRIES))):
        ledger.begin(lost)
    outcomes = rows(here(tmp_path, network, ledger), Chunk(0, jobs))
    assert outcomes[1].error == f"{jobs[1].key}: Ray lost the worker that had it, each time it was tried"
    assert [outcome.task.key for outcome in outcomes if outcome.result] == ["part0/00.jpg", "part2/02.png"]


def test_what_ends_the_run_travels_as_it_is(tmp_path):
    (answer,) = rows(here(tmp_path, tmp_path / "none.safetensors", Ledger()), Chunk(0, [Job("a.png", "a.png")]))
    assert isinstance(answer, WeightsError)
    assert "none.safetensors" in str(answer)


def test_an_error_that_cannot_travel_sends_its_words(tmp_path, network, monkeypatch):
    class Stubborn(Exception):
        def __reduce__(self):
            raise TypeError("no way")

    worker = here(tmp_path, network, Ledger())

    def broken(*_, **__):
        raise Stubborn("the network is broken")

    monkeypatch.setattr(Worker, "_here", broken)
    (answer,) = rows(worker, Chunk(0, []))
    assert isinstance(answer, RuntimeError)
    assert str(answer) == "the network is broken"


# --- how fast ----------------------------------------------------------------------------------------------------


def test_a_rate_counts_from_when_every_worker_may_have_given_a_chunk(monkeypatch):
    clock = iter([100.0, 130.0, 130.0, 150.0, 150.0, 152.0, 154.0, 160.0])
    monkeypatch.setattr(ray_throughput, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    outcomes = [Outcome(Job("a.png", "a.png"), object(), None, 0.0)] * 7
    rate = ray_throughput._timed(iter(outcomes), 2, 4)
    assert rate == ray_throughput.WorkersRate(workers=2, pictures=7, startup=50.0, rate=3 / 10)


@pytest.mark.parametrize(
    ("data", "address", "words"),
    [
        ("empty", None, "empty holds no pictures"),
        (None, "127.0.0.1:6379", "name a folder of pictures that every machine of the cluster sees"),
    ],
)
def test_what_cannot_be_timed_is_refused_before_ray_starts(tmp_path, network, data, address, words):
    folder = tmp_path / data if data else None
    if folder:
        folder.mkdir()
    with pytest.raises(ConfigError, match=words):
        ray_throughput.measure_workers(Settings(str(network), device="cpu"), folder, [1, 2], address=address)


# --- on Ray ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Waiting(FolderSource):
    """Reading `key`, it says who does and waits until it may go on."""

    key: str
    pid: Path
    go: Path

    def read(self, key):
        if key == self.key and not self.go.exists():
            self.pid.write_text(str(os.getpid()))
            while not self.go.exists():
                time.sleep(0.02)
        return super().read(key)


@pytest.fixture(scope="module")
def two_cpus():
    """A cluster of this machine with room for two workers; nothing of it is left afterwards."""
    ray = import_ray()
    from ray import cloudpickle

    before = set(psutil.Process().children(recursive=True))
    ray.init(
        address="local", num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False,
        logging_level=logging.CRITICAL,
    )  # fmt: skip
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Workers cannot import a test's module.
    yield ray
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    ray.shutdown()
    started = set(psutil.Process().children(recursive=True)) - before
    _, left = psutil.wait_procs(started, timeout=60)
    assert not left


def kill_whoever_writes(pid, go):
    """Kill the process as soon as it has said its number, then let whoever comes next go on."""
    while not (pid.exists() and pid.read_text()):
        time.sleep(0.02)
    os.kill(int(pid.read_text()), signal.SIGKILL)
    go.touch()


@needs_ray
def test_a_worker_that_is_killed_costs_nothing(tmp_path, network, two_cpus, monkeypatch):
    pictures(tmp_path / "src", 17)
    settings = Settings(str(network), device="cpu", batch_size=2)
    alone = translate_dataset(str(tmp_path / "src"), str(tmp_path / "local"), "folder", settings)
    pid, go = tmp_path / "pid", tmp_path / "go"
    waiting = Waiting(tmp_path / "src", "part2/08.png", pid, go)
    monkeypatch.setattr(datasets, "open_source", lambda path: waiting)
    killer = threading.Thread(target=kill_whoever_writes, args=(pid, go))
    killer.start()
    together = translate_dataset(
        str(tmp_path / "src"), str(tmp_path / "ray"), "folder", settings, cluster=Cluster(workers=2)
    )
    killer.join()
    assert not psutil.pid_exists(int(pid.read_text()))
    assert (together.done, together.failed) == (alone.done, alone.failed) == (17, alone.failed)
    assert without_times(tree(tmp_path / "ray")) == without_times(tree(tmp_path / "local"))


@needs_ray
def test_more_workers_than_cpus_are_one_sentence(tmp_path, network, two_cpus):
    pictures(tmp_path / "src", 2)
    with pytest.raises(ConfigError, match="3 workers need a CPU each, but Ray's machines have 2 CPUs"):
        translate_dataset(
            str(tmp_path / "src"), str(tmp_path / "dst"), "folder", Settings(str(network)), cluster=Cluster(workers=3)
        )
