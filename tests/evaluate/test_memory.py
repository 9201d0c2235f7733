"""Main memory: a peak is what was held at most, not what is held in the end."""

import subprocess
import sys

import pytest

from pix2next.evaluate import memory

SIZE = 64 * 2**20


def test_a_peak_that_is_gone_is_seen():
    """In a process of its own: one that has worked before takes from what it still holds."""
    if memory.resident() is None or memory.available() is None:
        pytest.skip("this system does not tell how much memory a process holds")
    script = (
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('memory', sys.argv[1])\n"
        "memory = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(memory)\n"
        "size = int(sys.argv[2])\n"
        "def work():\n"
        "    held = bytearray(size)\n"
        "    held[::4096] = b'x' * len(held[::4096])\n"
        "before = memory.resident()\n"
        "print(memory.peak_of(work) - before, memory.peak_of(lambda: None) - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, memory.__file__, str(SIZE)], capture_output=True, text=True, check=True
    )
    peak, after = map(int, done.stdout.split())
    assert 0.95 * SIZE < peak < 1.5 * SIZE  # The system counts a little behind.
    assert after < peak - SIZE / 2  # Set back in between.


def test_a_process_fails_before_the_machine_does():
    script = (
        # The file alone: nothing that takes memory itself.
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('memory', sys.argv[1])\n"
        "memory = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(memory)\n"
        "memory.available = lambda: 2**30\n"
        "memory.limit_to_free()\n"
        "try:\n"
        "    bytearray(2 * 2**30)\n"
        "except MemoryError:\n"
        "    print('refused')\n"
        "bytearray(2**20)\n"
    )
    if memory.available() is None:
        pytest.skip("this system does not tell how much memory is free")
    done = subprocess.run([sys.executable, "-c", script, memory.__file__], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "refused"), done.stderr


def test_without_the_systems_files_nothing_is_made_up(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "MEMORY", tmp_path / "absent")
    assert memory.available() is None
    memory.limit_to_free()
