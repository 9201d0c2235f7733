"""A Ray cluster to work on: found or started, and how many workers find room on it."""

import logging
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from pix2next.errors import ConfigError, one_line

SHARE = 0.1
"""Of a CPU, left free beside every worker. Where actors hold all there is, whatever else needs one waits for ever."""
CONNECT_SECONDS = 10
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray would report its use to its makers.
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # All but fatal; a lost worker is told in our words.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # Lines of Ray's daemons that it copies to stdout, where results may go.
}
"""Ray reads them as it is imported and as it starts."""

logger = logging.getLogger(__name__)


class Node(NamedTuple):
    """What a machine of the cluster has, in use or not."""

    cpus: float
    gpus: float = 0.0


class Placement(NamedTuple):
    """How many workers there are, and what each asks Ray for."""

    workers: int
    device: str
    cpus: float
    gpus: int
    threads: int
    """That the network computes with in each."""


@contextmanager
def cluster(address: str | None = None) -> Iterator[Any]:
    """The module `ray`, connected: to the cluster at `address`, or to one of this machine that ends with the block.

    A process that is connected already stays so, and `address` is not looked at.

    Args:
        address: HOST:PORT of a cluster's head, as `ray start` names it, or `auto` for one that runs on this machine.

    Raises: ConfigError if Ray is not installed, there is no such cluster, or none can be started.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    _connect(ray, address)
    try:
        yield ray
    finally:
        ray.shutdown()


def import_ray() -> Any:
    """The module, set to keep to itself. Raises: ConfigError if it is not installed."""
    os.environ.update(SETTINGS)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError(f"the engine ray needs Ray ({one_line(error)}); pip install 'pix2next[ray]'") from None
    for handler in logging.getLogger("ray.data").handlers:
        if handler.get_name() == "console":  # The other one writes Ray's own file, for who has to look deeper.
            handler.setLevel(logging.CRITICAL)
    return ray


def _connect(ray: Any, address: str | None) -> None:
    options: dict[str, Any] = {"address": address or "local", "log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        options["include_dashboard"] = False
    elif address != "auto":
        _refuse_unreachable(address)
    try:
        with _silent_stderr():
            ray.init(**options)
    except (Exception, SystemExit) as error:  # Where nothing answers as Ray does, it leaves the program.
        raise ConfigError(_why_not(address, error)) from error


def _why_not(address: str | None, error: BaseException) -> str:
    if address is None:
        return f"a Ray cluster cannot be started on this machine: {one_line(error)}"
    if "InvalidAuthToken" in f"{error} {error.__cause__}":
        return f"the Ray cluster at {address} asks for a token; set RAY_AUTH_MODE=token, as for Ray's own commands"
    return f"no Ray cluster at {address}: {one_line(error)}"


def _refuse_unreachable(address: str) -> None:
    """Ray itself would try for two minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or "/" in host or not port.isdecimal():
        raise ConfigError(f"{address!r} is no address of a Ray cluster; give HOST:PORT of its head, or auto")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise ConfigError(f"no Ray cluster at {address}: {reason}; `ray start --head` shows its address") from None


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Ray's C++ part tells there how its logs are set before it looks at how they are set."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class Ledger:
    """Counts, in a process of its own, how often something was begun; a worker that is lost forgets it."""

    def __init__(self) -> None:
        self.times: dict[int | str, int] = {}

    def begin(self, what: int | str) -> int:
        """How often it was begun, with this time."""
        self.times[what] = self.times.get(what, 0) + 1
        return self.times[what]


def nodes_of(ray: Any) -> list[Node]:
    """The machines that are there now."""
    alive = (node["Resources"] for node in ray.nodes() if node["Alive"])
    return [Node(found.get("CPU", 0.0), found.get("GPU", 0.0)) for found in alive]


def place(nodes: Sequence[Node], device: str, workers: int | None, threads: int) -> Placement:
    """Workers on machines: one for each GPU, or one for each `threads` CPUs, unless `workers` says how many.

    More workers than that share the CPUs, down to one each. They still compute with `threads` threads: how many there
    are decides in what order a convolution adds up, and so the last bit.

    Args:
        nodes: what there is.
        device: `cuda`, `cpu`, or `auto`: `cuda` if there is a GPU.
        workers: how many, or None.
        threads: of a network on a CPU.

    Raises: ConfigError if so many find no room, or for another device.
    """
    if threads < 1 or (workers is not None and workers < 1):
        raise ConfigError(f"workers and their threads are at least 1, not {workers} and {threads}")
    match device:
        case "auto":
            return place(nodes, "cuda" if _room(nodes, 1, 1) else "cpu", workers, threads)
        case "cuda":
            room = _room(nodes, 1, 1)
            _refuse_hopeless(nodes, workers or 1, room, "GPU")
            return Placement(workers or room, device, 1 - SHARE, 1, threads)
        case "cpu":
            _refuse_hopeless(nodes, workers or 1, _room(nodes, 1), "CPU")
            cores = next(cores for cores in range(threads, 0, -1) if _room(nodes, cores) >= (workers or 1))
            return Placement(workers or _room(nodes, cores), device, cores - SHARE, 0, threads)
    raise ConfigError(
        f"the engine ray knows the devices auto, cpu and cuda, not {device!r}; it chooses a GPU by itself"
    )


def _room(nodes: Sequence[Node], cpus: int, gpus: int = 0) -> int:
    return sum(min(int(node.cpus // cpus), int(node.gpus // gpus) if gpus else sys.maxsize) for node in nodes)


def _refuse_hopeless(nodes: Sequence[Node], workers: int, room: int, kind: str) -> None:
    if workers <= room:
        return
    has = f"{sum(node.cpus for node in nodes):g} CPUs and {sum(node.gpus for node in nodes):g} GPUs"
    every = "a CPU" if kind == "CPU" else "a GPU and a CPU"
    needed = f"{workers} workers need {every} each" if workers > 1 else f"a worker needs {every}"
    advice = f"ask for at most {room}" if room else "another device, or a machine that has them, will do"
    raise ConfigError(f"{needed}, but Ray's machines have {has}; {advice}")


def refuse_busy(ray: Any, placement: Placement) -> None:
    """Raises: ConfigError if other work holds so much of the cluster that not one worker can start."""
    free = ray.available_resources()
    if free.get("CPU", 0.0) < placement.cpus or free.get("GPU", 0.0) < placement.gpus:
        raise ConfigError(
            f"a worker needs {placement.cpus:g} CPUs and {placement.gpus} GPUs, but other work leaves "
            f"{free.get('CPU', 0.0):g} and {free.get('GPU', 0.0):g} of the Ray cluster; wait until it ends"
        )
