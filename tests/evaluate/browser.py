"""Chromium without a window, spoken to through a pipe, and a skip with its reason where there is none."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Browser:
    """One page; what it asked for and complained about is kept."""

    def __init__(self, to: int, back: int) -> None:
        self.to, self.back, self.read = to, back, b""
        self.count = 0
        self.session: str | None = None
        self.asked: list[str] = []
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters):
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.count:
                assert "error" not in answer, (method, answer)
                return answer["result"]

    def open(self, page: Path) -> None:
        self.asked.clear()
        self.complaints.clear()
        self.call("Page.navigate", url=page.as_uri())
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def value(self, script: str):
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def shot(self) -> bytes:
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def dark(self, yes: bool) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if yes else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def _next(self):
        while b"\0" not in self.read:
            more = os.read(self.back, 2**16)
            assert more, "the browser ended"
            self.read += more
        text, _, self.read = self.read.partition(b"\0")
        message = json.loads(text)
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.asked.append(message["params"]["request"]["url"])
            case "Runtime.exceptionThrown" | "Log.entryAdded":
                self.complaints.append(json.dumps(message["params"]))
        return message


@contextmanager
def headless(home: Path) -> Iterator[Browser]:
    """A browser that can resolve no host; skips the test where none is installed or none starts."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"needs a browser: none of {', '.join(NAMES)} is installed")
    # The browser listens on descriptor 3 and answers on 4; a shell puts the pipes there, whose numbers lie beyond.
    ends = [*os.pipe(), *os.pipe()]
    theirs_in, to, back, theirs_out = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    options = (
        "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking "
        f"--no-first-run --host-resolver-rules='MAP * ~NOTFOUND' --user-data-dir='{home}' --remote-debugging-pipe"
    )
    command = f"exec {found} {options} 3<&{theirs_in} 4>&{theirs_out}"
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", command], pass_fds=(theirs_in, theirs_out), stdout=log, stderr=log, start_new_session=True
        )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        try:
            browser = Browser(to, back)
        except (AssertionError, OSError):
            pytest.skip(f"{found} does not start here: {(home / 'log').read_text(errors='replace')[-300:]}")
        yield browser
        browser.session = None
        browser.call("Browser.close")
    finally:
        process.terminate()
        process.wait()
        os.close(to)
        os.close(back)
