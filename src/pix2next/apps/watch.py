"""Folders that are watched: what comes or changes there is translated as soon as it is whole.

By looking again and again: that works on network drives and in containers, too, where a system's own notices stay
away. A file counts as whole when two looks in a row found it unchanged, in size and in time of change, and when it is
still so after it was read; so a file that is being written is neither read half nor complained about.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from pix2next.apps.bulk import BulkResult, Tally, translated
from pix2next.apps.events import Done, Existing, Failed, OnEvent, Start, Unlike
from pix2next.apps.jobs import Job, Output, clash, names_a_file, plan_jobs
from pix2next.errors import ConfigError, ImageError
from pix2next.images import find_pictures
from pix2next.translate import Translator

SECONDS_BETWEEN_LOOKS = 2.0
"""No less than the two seconds that FAT drives round times of change to."""

logger = logging.getLogger(__name__)


class Stamp(NamedTuple):
    """What changes when a file does."""

    size: int
    time: int


def watch_pictures(
    inputs: Sequence[str],
    out: Path,
    translator: Translator,
    output: Output | None = None,
    *,
    batch_size: int = 1,
    on_event: OnEvent | None = None,
    wait: Callable[[float], None] | None = None,
) -> BulkResult:
    """Translate what lies in folders, then what comes and what changes, until Ctrl-C or SIGTERM ends it.

    Pictures that go away leave their translations behind. Where files that are there are passed over, those of pictures
    that change later on are replaced all the same. A folder that vanishes, as a network drive may, is waited for.

    Args:
        inputs: folders.
        out: a folder outside of them, made where it is missing.
        translator: what each picture goes through.
        output: names, format, and what happens to files that are there at the start.
        batch_size: pictures of one size that go through the network at once.
        on_event: told what happens.
        wait: called between two looks with the seconds to wait; sleeps if None.

    Raises:
        ConfigError: an input is no folder, or `out` names a file.
        ImageError: as `translate_pictures`; a clash of names that arises later costs the second picture only.
    """
    output = output or Output()
    _refuse_files(inputs, out)
    plan_jobs(inputs, out, output)
    tally = Tally(on_event)
    tally(Start(None, str(out)))
    watched = _Watched([Path(text) for text in inputs], out, output)
    with suppress(KeyboardInterrupt), _sigterm_interrupts():
        while True:
            begun = time.monotonic()
            for passed in watched.look():
                tally(passed)
            looking = time.monotonic() - begun
            for event in translated(
                watched.ready, translator, output, batch_size=batch_size, verify=watched.refuse_unsettled
            ):
                if watched.settles(event):
                    tally(event)
            # Looking must not be all that a slow drive is busy with.
            (wait or time.sleep)(max(SECONDS_BETWEEN_LOOKS, looking))
    return tally.end()


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """What services and containers are stopped with does what Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _refuse_files(inputs: Sequence[str], out: Path) -> None:
    for text in inputs:
        if not os.path.isdir(text):
            raise ConfigError(f"{text} is no folder, and only folders can be watched")
    if names_a_file(out):
        raise ConfigError(f"{out} is the name of one file; what comes into a watched folder needs a folder")


class _Watched:
    """What the folders held at the last look, and what has been dealt with."""

    def __init__(self, folders: Sequence[Path], out: Path, output: Output) -> None:
        self.folders, self.out, self.output = folders, out, output
        self.ready: list[Job] = []
        self.seen: dict[Path, Stamp] = {}
        # Pictures that vanish stay in here: with a drive that comes back, they need not be translated again.
        self.dealt_with: dict[Path, Stamp] = {}
        self.owners: dict[Path, Path] = {}
        self.unsettled: set[Path] = set()
        self.gone: set[Path] = set()

    def look(self) -> Iterator[Existing | Failed]:
        """Look once: sets what is `ready` to be translated, and tells what never will be."""
        found = {job: stamp for job in self._jobs() if (stamp := _stamp(job.source))}
        present = {job.source for job in found}
        self.ready = []
        for job, stamp in found.items():
            source, target = job
            new = source not in self.seen and source not in self.dealt_with
            if new and not self.output.overwrite and target.is_file():
                self.dealt_with[source] = stamp
                yield Existing(str(source), str(target))
            elif stamp.size and self.seen.get(source) == stamp != self.dealt_with.get(source):
                owner = self.owners.get(target, source)
                if owner != source and owner in present:
                    self.dealt_with[source] = stamp
                    yield Failed(str(source), str(target), clash(owner, source, target))
                else:
                    self.owners[target] = source
                    self.ready.append(job)
        self.seen = {job.source: stamp for job, stamp in found.items()}

    def refuse_unsettled(self, source: Path) -> None:
        """Raises: ImageError if the file is no longer as it was when it was last looked at."""
        if _fresh_stamp(source) != self.seen[source]:
            self.unsettled.add(source)
            raise ImageError(f"{source} is being written, or was taken away")

    def settles(self, event: Done | Unlike | Failed) -> bool:
        """Whether the picture is dealt with; if not, a later look finds it again."""
        source = Path(event.path)
        if source in self.unsettled:
            self.unsettled.remove(source)
            return False
        self.dealt_with[source] = self.seen[source]
        return True

    def _jobs(self) -> Iterator[Job]:
        for folder in self.folders:
            if not folder.is_dir():
                if folder not in self.gone:
                    logger.warning("%s is not there; waiting for it", folder)
                self.gone.add(folder)
                continue
            self.gone.discard(folder)
            for picture in find_pictures(folder):
                yield Job(picture, self.out / self.output.renamed(picture.relative_to(folder)))


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except OSError:  # Gone since the folder was listed, or a link that leads nowhere.
        return None
    return Stamp(status.st_size, status.st_mtime_ns)


def _fresh_stamp(path: Path) -> Stamp | None:
    """Of the opened file: a network drive may answer for a closed one from its memory."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
    except OSError:
        return None
    return Stamp(status.st_size, status.st_mtime_ns)
