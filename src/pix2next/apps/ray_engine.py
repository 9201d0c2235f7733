"""The local engine's job on Ray Data: workers that hold the model, on one machine or many.

Each worker runs the local engine on a few jobs at a time, so a picture comes out the same. They read the source where
they are; only jobs go to them, and finished files come back. Ray starts a lost worker anew and gives it the same jobs
again, now one by one, so that a picture that kills its worker every time costs itself only.
"""

import pickle
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from pix2next.apps.local_engine import BATCH_SIZE, Encoded, Job, Settings
from pix2next.apps.local_engine import translate_all as translate_here
from pix2next.apps.pipeline import Outcome
from pix2next.apps.ray_cluster import Ledger, Placement, cluster, nodes_of, place, refuse_busy
from pix2next.apps.stores import Source
from pix2next.errors import ConfigError, one_line

CHUNK = 8
"""Pictures that go to a worker at once, where its batches are no larger."""
TRIES = 2
"""So often is a picture tried alone whose worker was lost with the chunk it was in."""
PATIENCE_SECONDS = 6 * 3600.0
"""Ray gives up when nothing has come for so long; its own half an hour is short for huge pictures on a CPU."""


class Chunk(NamedTuple):
    """Jobs that go to a worker together."""

    number: int
    jobs: list[Job]


class Worker:
    """Holds the model in a process of Ray's, and translates the chunks that come."""

    def __init__(self, source: Source, settings: Settings, threads: int, ledger: Any) -> None:
        """What goes wrong is kept for the first call: Ray wraps what a constructor raises beyond recognition."""
        self.source, self.settings, self.ledger = source, settings, ledger
        self.broken: Exception | None = None
        torch.set_num_threads(threads)
        try:
            self.translator = settings.translator()
        except Exception as error:
            self.broken = error

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[bytes]]]:
        """A row for each outcome; the last is an error if it ends the run."""
        for packed in batch["chunk"]:
            try:
                for outcome in self._translate(pickle.loads(packed)):
                    yield {"row": [pickle.dumps(outcome)]}
            except Exception as error:
                yield {"row": [_packed(error)]}

    def _translate(self, chunk: Chunk) -> Iterator[Outcome[Job, Encoded]]:
        """In the order of the jobs: Ray leaves out of a second run as many rows as had come of the first."""
        if self.broken is not None:
            raise self.broken
        if self._begin(chunk.number) == 1:
            outcomes = {outcome.task: outcome for outcome in self._here(chunk.jobs)}
            yield from (outcomes[job] for job in chunk.jobs)
        else:
            for job in chunk.jobs:
                yield from self._here([job]) if self._begin(job.key) <= TRIES else _lost([job])

    def _here(self, jobs: list[Job]) -> Iterator[Outcome[Job, Encoded]]:
        return translate_here(jobs, self.source, self.settings, translator=self.translator)

    def _begin(self, what: int | str) -> int:
        import ray

        times: int = ray.get(self.ledger.begin.remote(what))
        return times


def _lost(jobs: Iterable[Job]) -> Iterator[Outcome[Job, Encoded]]:
    for job in jobs:
        yield Outcome(job, None, f"{job.key}: Ray lost the worker that had it, each time it was tried", 0.0)


def _packed(error: Exception) -> bytes:
    try:
        return pickle.dumps(error)
    except Exception:  # It holds what cannot travel; its words can.
        return pickle.dumps(RuntimeError(one_line(error)))


def translate_all(
    jobs: Sequence[Job],
    source: Source,
    settings: Settings,
    *,
    address: str | None = None,
    workers: int | None = None,
    threads: int | None = None,
) -> Iterator[Outcome[Job, Encoded]]:
    """Every job's outcome, in any order, each equal to the local engine's but for its seconds.

    Args:
        jobs: keys of `source` and what becomes of them.
        source: every machine of the cluster has to see its files under the same paths; so with the model's.
        settings: as on one machine; the device is auto, cpu or cuda.
        address: as `cluster`, which starts one on this machine if there is none.
        workers: one for each GPU, or for each `threads` CPUs, if None.
        threads: that a worker's network computes with on a CPU; what torch would take on this machine if None.

    Raises:
        ConfigError: as `cluster` and `place`; or workers could not start, or the cluster was lost.
        Whatever the local engine raises.
    """
    if not jobs:
        return
    with cluster(address) as ray:
        placement = place(nodes_of(ray), settings.device, workers, threads or torch.get_num_threads())
        refuse_busy(ray, placement)
        left = dict.fromkeys(jobs)
        for outcome in _outcomes(ray, jobs, source, replace(settings, device=placement.device), placement):
            if outcome.task in left:
                del left[outcome.task]
                yield outcome
        yield from _lost(left)


def _outcomes(
    ray: Any, jobs: Sequence[Job], source: Source, settings: Settings, placement: Placement
) -> Iterator[Outcome[Job, Encoded]]:
    rows = iter(_dataset(ray, chunks_of(jobs, settings, placement), source, settings, placement).iter_rows())
    try:
        for row in rows:
            came = pickle.loads(row["row"])
            if isinstance(came, Exception):
                raise came
            yield came
    except ray.exceptions.RayError as error:
        raise ConfigError(
            f"Ray's workers could not start, or were lost ({one_line(error)}); every machine needs this pix2next"
        ) from error


def chunks_of(jobs: Sequence[Job], settings: Settings, placement: Placement) -> list[Chunk]:
    """Whole batches, and some chunks for every worker, so that none is idle for long at the end."""
    batch = settings.batch_size or (BATCH_SIZE if placement.gpus else 1)
    size = max(batch, min(max(CHUNK, 4 * batch), -(-len(jobs) // (4 * placement.workers))))
    return [Chunk(start // size, list(jobs[start : start + size])) for start in range(0, len(jobs), size)]


def _dataset(ray: Any, chunks: list[Chunk], source: Source, settings: Settings, placement: Placement) -> Any:
    """Rows of packed outcomes. Lost workers are started anew, and what they had is given again: Ray Data's default."""
    ledger = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Ledger).remote()
    packed = ray.data.from_items([{"chunk": pickle.dumps(chunk)} for chunk in chunks], override_num_blocks=len(chunks))
    dataset = packed.map_batches(
        Worker,
        fn_constructor_args=(source, settings, placement.threads, ledger),
        batch_size=1,
        # A second chunk waits at each worker, so that the worker need not.
        compute=ray.data.ActorPoolStrategy(size=min(placement.workers, len(chunks)), max_tasks_in_flight_per_actor=2),
        num_cpus=placement.cpus,
        num_gpus=placement.gpus,
    )
    dataset.context.enable_progress_bars = False
    dataset.context.execution_no_progress_timeout_s = PATIENCE_SECONDS
    return dataset
