"""Programs that use Freehold, run as processes of their own, and what they leave behind.

Each program has a home folder to itself, so that "its processes" is a fact and not a guess: a
process belongs to a home if its environment names it, wherever it stands in the process tree.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil

OPENING = """
import os, signal, sys, time
import freehold as fh

def say(*words):
    print(*words, flush=True)
"""


class Program:
    """A Python program: its lines of output are awaited with a time limit, its end is certain."""

    def __init__(
        self, home: Path, text: str, *arguments: object, before: Sequence[str] = ()
    ) -> None:
        """``before``: the beginning of the command, such as ``ip netns exec NAME``."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("FREEHOLD_")}
        environment["FREEHOLD_HOME"] = str(home)
        self.process = subprocess.Popen(
            [*before, sys.executable, "-c", OPENING + textwrap.dedent(text), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=environment,
        )
        self.pid = self.process.pid
        self.buffer = b""

    def line(self, seconds: float = 20.0) -> str:
        """The next line that it prints. Fails with what it said on stderr if none comes."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self.buffer:
            left = max(deadline - time.monotonic(), 0)
            readable, _, _ = select.select([self.process.stdout], [], [], left)
            data = os.read(self.process.stdout.fileno(), 1 << 16) if readable else b""
            if not data:
                code = self.process.poll()
                self.process.kill()
                _, words = self.process.communicate()
                why = "ended" if readable else f"said nothing for {seconds:g} s"
                raise AssertionError(f"the program {why} (status {code}):\n{words.decode()}")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode()

    def kill(self) -> None:
        """SIGKILL to the program alone."""
        self.process.kill()
        self.process.wait()

    def interrupt(self) -> None:
        """What a terminal does at Ctrl-C: SIGINT to the whole process group."""
        os.killpg(self.pid, signal.SIGINT)

    def end(self, seconds: float = 20.0) -> tuple[int, str, str]:
        """Wait for its end. Returns its status and what it said on stdout and stderr."""
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, (self.buffer + out).decode(), err.decode()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def processes(home: Path) -> dict[int, psutil.Process]:
    """Living processes, zombies left out, whose environment names this home."""
    mark = f"FREEHOLD_HOME={home}".encode()
    found = {}
    for process in psutil.process_iter():
        try:
            variables = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            if mark in variables and process.pid != os.getpid():
                found[process.pid] = process
        except OSError:
            continue  # it ended while we looked, or belongs to somebody else
    return found


def named(home: Path, name: str) -> list[int]:
    """The ids of this home's processes of that name: freehold-head, -node, -zygote, -worker."""
    found = []
    for pid in processes(home):
        try:
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                found.append(pid)
        except OSError:
            continue
    return sorted(found)


def remains(home: Path) -> list[str]:
    """What is left: one line for each process and each file."""
    lines = []
    for process in processes(home).values():
        try:
            lines.append(f"process {process.pid} {process.name()}")
        except psutil.Error:
            continue
    for folder, folders, files in os.walk(home):  # unlike rglob, bears with what vanishes
        lines += [f"file {folder}/{name}" for name in folders + files]
    return lines


def left_after(home: Path, seconds: float = 2.0) -> list[str]:
    """What is still there after ``seconds``. Returns as soon as nothing is."""
    deadline = time.monotonic() + seconds
    while (left := remains(home)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until the condition holds. Fails after ``seconds``."""
    for _ in _polls(seconds):
        if condition():
            return
    raise AssertionError(f"not so within {seconds:g} s")


def _polls(seconds: float) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(0.02)
