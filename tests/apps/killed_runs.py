"""A program that translates a data set again and again and kills itself with SIGKILL, each time at another moment.

Arguments: source, target, model, and one `WHEN:COUNT` for each run, which is killed when it is about to do WHEN for the
COUNT-th time. Says how many whole lines the manifest had after each.
"""

import os
import signal
import sys
from pathlib import Path

from pix2next.apps import manifest
from pix2next.apps.datasets import translate_dataset
from pix2next.apps.local_engine import Settings
from pix2next.images import files


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(function, count, last_words):
    """`function`, but the `count`-th call ends the process after `last_words` with the call's arguments."""
    calls = 0

    def counted(*arguments):
        nonlocal calls
        calls += 1
        if calls == count:
            last_words(*arguments)
            kill()
        return function(*arguments)

    return counted


def half_a_line(self, record):
    self._file.write(manifest._line(record)[:100])
    self._file.flush()


def plant(when: str, count: int) -> None:
    match when:
        case "rename":  # A picture is whole, but under its other name.
            files.os.replace = before(os.replace, count, lambda *_: None)
        case "note":  # A picture is in its place, and not in the manifest.
            manifest.Manifest.add = before(manifest.Manifest.add, count, lambda *_: None)
        case "half":  # A line of the manifest is cut short.
            manifest.Manifest.add = before(manifest.Manifest.add, count, half_a_line)


def main(src: str, dst: str, model: str, *moments: str) -> None:
    for moment in moments:
        when, count = moment.split(":")
        child = os.fork()
        if child == 0:
            plant(when, int(count))
            kinds = {"coco": "annotations", "yolo": "data.yaml", "bdd100k": "labels"}
            labels = next((name for name, kept in kinds.items() if Path(src, kept).exists()), "folder")
            translate_dataset(src, dst, labels, Settings(model, device="cpu"))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"the run ended before {moment}"
        lines = Path(dst, "manifest.jsonl").read_bytes().count(b"\n")
        os.write(1, f"{lines}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
