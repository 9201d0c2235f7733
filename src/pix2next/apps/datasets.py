"""A whole data set in near infrared: every picture translated, its tree, names, splits and labels kept.

What is there already and would come out the same is left as it is; the manifest tells. A run that was killed goes on by
calling it again.
"""

import errno
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pix2next.apps.bulk import BulkResult, Tally, unlike
from pix2next.apps.events import Done, Existing, Failed, OnEvent, Start
from pix2next.apps.jobs import Output
from pix2next.apps.labels import Labels, labels_of
from pix2next.apps.local_engine import Encoded, Job, Settings, translate_all
from pix2next.apps.manifest import Manifest, Record, fingerprint
from pix2next.apps.pipeline import Outcome, StageTimes
from pix2next.apps.stores import Sink, Source, open_sink, open_source
from pix2next.errors import ConfigError, ImageError
from pix2next.model.pix2next import load_model

ENDS_THE_RUN = (errno.ENOSPC, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC))
"""A disk that is full or read-only takes no other picture either."""
Engine = Callable[[Sequence[Job]], Iterator[Outcome[Job, Encoded]]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cluster:
    """Where the pictures are translated if not in this process: by workers on Ray."""

    address: str | None = None
    """Of a running cluster; one is started on this machine if None."""
    workers: int | None = None
    """How many hold the model; for each GPU one, or as many as find room, if None."""
    threads: int | None = None
    """That a worker computes with on a CPU; as many as this process if None."""


def translate_dataset(
    src: str,
    dst: str,
    labels: str,
    settings: Settings,
    *,
    output: Output | None = None,
    force: bool = False,
    cluster: Cluster | None = None,
    stages: StageTimes | None = None,
    on_event: OnEvent | None = None,
) -> BulkResult:
    """Translate the pictures that are missing in `dst` or changed since; carry over all other files.

    A picture is done again if its bytes, the model's weights, a setting or its name have changed. A picture that cannot
    be used costs itself only; it is in the result and in the manifest, and has no translation, not even an old one.

    Args:
        src: a data set as `open_source` takes it.
        dst: where the translated one goes, as `open_sink` takes it.
        labels: their format, one of `labels.FORMATS`.
        settings: how pictures are translated.
        output: the format of the results, if not each picture's own. Its `overwrite` and `suffix` mean nothing here.
        force: translate all anew, and replace files that no run of this function wrote.
        cluster: translate there instead of here.
        stages: gets the times, if the work is done here.
        on_event: told what happens, first `Start`, last `End`.

    Raises:
        ConfigError: a setting is impossible, `src` is no data set, or `dst` is no place for one.
        LabelError: labels are malformed.
        WeightsError: there is no such model, or it gives NaN.
        OSError: the disk is full.
    """
    source = open_source(src)
    known = labels_of(labels, source)
    jobs = plan(source, known, output or Output())
    if not jobs:
        raise ConfigError(f"{src} holds no pictures to translate")
    model = load_model(settings.model)
    with _finishing(open_sink(dst, source)) as sink:
        if not force:
            _refuse_foreign(dst, sink)
        stamps = {job.key: source.stamp(job.key) for job in jobs}
        run = _Run(source, sink, Manifest(sink.manifest), settings, fingerprint(model), Tally(on_event), stamps)
        with closing(run.manifest):
            run.tally(Start(len(jobs), dst))
            to_do = list(jobs if force else run.changed(jobs))
            engine = _engine(source, settings, cluster, stages, model)
            for outcome in engine(to_do) if to_do else ():
                run.keep(*outcome)
            run.carry(known, jobs)
            run.manifest.finish(job.key for job in jobs)
    return run.tally.end(order=[job.key for job in jobs])


def plan(source: Source, labels: Labels, output: Output) -> list[Job]:
    """Every picture that is to be translated, and its translation's name.

    Raises: ConfigError if two would get one name.
    """
    masks, sizes = labels.label_pictures(), labels.sizes()
    owners = {key: key for key in (*masks, *source.others())}
    jobs = []
    for key in source.pictures():
        if key in masks:
            continue
        target = output.renamed(Path(key)).as_posix()
        other = owners.setdefault(target, key)
        if other != key:
            raise ConfigError(f"{other} and {key} would both be written to {target}; rename one, or keep their formats")
        jobs.append(Job(key, target, sizes.get(key)))
    return jobs


@contextmanager
def _finishing(sink: Sink) -> Iterator[Sink]:
    """Closed when everything has come; a run that is broken off leaves it to the next to complete what there is."""
    yield sink
    sink.close()


def _engine(
    source: Source, settings: Settings, cluster: Cluster | None, stages: StageTimes | None, model: Any
) -> Engine:
    if cluster is None:
        return lambda jobs: translate_all(jobs, source, settings, translator=settings.translator(model), stages=stages)
    from pix2next.apps import ray_engine

    return lambda jobs: ray_engine.translate_all(
        jobs, source, settings, address=cluster.address, workers=cluster.workers, threads=cluster.threads
    )


def _refuse_foreign(dst: str, sink: Sink) -> None:
    """Files of the same names may be the user's own, such as the RGB pictures.

    Raises: ConfigError if there are files, and no manifest that says where they come from.
    """
    there = next((path for path in sink.manifest.parent.iterdir() if not path.name.startswith(".")), None)
    if there is not None and not sink.manifest.exists():
        raise ConfigError(
            f"{dst} holds {there.name}, and no {sink.manifest.name} says that it was written here; "
            "give a new folder, or --force to replace files of the same names"
        )


@dataclass(frozen=True)
class _Run:
    """What is read, written and noted down."""

    source: Source
    sink: Sink
    manifest: Manifest
    settings: Settings
    model_sha256: str
    tally: Tally
    stamps: Mapping[str, str | None]
    """Of the sources before they were read, so that a later change shows."""

    def changed(self, jobs: Sequence[Job]) -> Iterator[Job]:
        """The jobs that have to be done; tells of the others."""
        for job in jobs:
            record = self.manifest.records.get(job.key)
            if record and self._as_wanted(record, job) and self._unchanged(record):
                self.tally(Existing(job.key, job.target))
            else:
                yield job

    def keep(self, job: Job, result: Encoded | None, error: str | None, seconds: float) -> None:
        """Write what came of a job, and note it down; arguments as in `Outcome`."""
        if result is not None:
            error = self._write(job.target, result.data)
        before = self.manifest.records.get(job.key)
        if before and (error or before.target != job.target):
            self.sink.remove(before.target)
        self.manifest.add(self._record(job, result, error, round(seconds, 4)))
        if result is not None and error is None:
            self.tally(Done(job.key, job.target, result.width, result.height, round(seconds, 4)))
            for event in unlike(job.key, result.distance):
                self.tally(event)
        else:
            self.tally(Failed(job.key, job.target, _naming(job.key, str(error))))

    def carry(self, labels: Labels, jobs: Sequence[Job]) -> None:
        """Every file that is not translated, with what it says of pictures made right."""
        records = [self.manifest.records[job.key] for job in jobs if job.key in self.manifest.records]
        sizes = {it.key: (it.width, it.height) for it in records if it.width and it.height}
        renamed = {job.key: job.target for job in jobs}
        masks = labels.label_pictures()
        for key in [*sorted(masks), *self.source.others()]:
            reason = None
            try:
                data = self.source.read(key)
                carried = data if key in masks else labels.carried(key, data, renamed, sizes)
                reason = None if carried is None else self._write(key, carried)
            except ImageError as error:
                reason = str(error)
            if reason:
                self.tally(Failed(key, None, _naming(key, reason)))
        gone = sorted(self.manifest.records.keys() - renamed.keys())
        if gone:
            logger.warning(
                "no longer in the source, so left as they are: %d translations (first: %s)", len(gone), gone[0]
            )

    def _as_wanted(self, record: Record, job: Job) -> bool:
        return (
            record.status == "done"
            and record.target == job.target
            and record.model_sha256 == self.model_sha256
            and record.settings == self._settings(job)
            and self.sink.has(job.target)
        )

    def _unchanged(self, record: Record) -> bool:
        """By the stamp if there is one, else by the bytes; a new stamp of the same bytes is noted down."""
        stamp = self.stamps[record.key]
        if stamp is not None and stamp == record.stamp:
            return True
        try:
            same = hashlib.sha256(self.source.read(record.key)).hexdigest() == record.sha256
        except (ImageError, OSError):
            return False
        if same:
            self.manifest.add(replace(record, stamp=stamp))
        return same

    def _settings(self, job: Job) -> Mapping[str, Any]:
        return {**self.settings.of_result, "labelled_size": list(job.size) if job.size else None}

    def _record(self, job: Job, result: Encoded | None, error: str | None, seconds: float) -> Record:
        return Record(
            key=job.key,
            target=job.target,
            status="failed" if error else "done",
            reason=_naming(job.key, error) if error else None,
            width=result.width if result else None,
            height=result.height if result else None,
            dtype=result.dtype if result else None,
            bytes=result.source_bytes if result else None,
            sha256=result.sha256 if result else None,
            stamp=self.stamps[job.key],
            model=self.settings.model,
            model_sha256=self.model_sha256,
            settings=self._settings(job),
            seconds=seconds,
            version=version("pix2next"),
        )

    def _write(self, key: str, data: bytes) -> str | None:
        """Why it could not be written, if so. Raises: OSError where nothing else could be, either."""
        try:
            self.sink.write(key, data)
        except ImageError as error:
            return str(error)
        except OSError as error:
            if error.errno in ENDS_THE_RUN:
                raise
            return f"cannot write {key}: {error.strerror or error}"
        return None


def _naming(key: str, reason: str) -> str:
    return reason if key in reason else f"{key}: {reason}"
