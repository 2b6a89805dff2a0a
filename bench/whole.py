"""A program measured whole: seconds, processor time and memory of all its processes.

The clock runs from before the program's start to its end. Processor time is user and system, of
every process that the program started, daemons that outlive it included: orphans come to us, and
what is still alive a few seconds later is ended, which the measurement then counts as well. Memory
is the most that all processes had in proportional sizes (PSS: shared pages count once), looked at
twice a second, which costs below one per cent of a processor.

The kernel tells us of a process when its parent waits for it. A parent that ignores SIGCHLD never
does, as Ray's node with its workers: their time would be missing. So processor time is looked at
as well, and the greater of the two sums counts; the second lacks what each did after the last look.
"""

from __future__ import annotations

import os
import resource
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import psutil

from bench import processes

LOOK_EVERY = 0.5


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds from start to end, processor seconds, and bytes of memory at most."""

    seconds: float
    processor: float
    memory: int


def run(command: Sequence[str], environment: dict[str, str], limit: float) -> Cost:
    """Run a program for at most ``limit`` seconds.

    Raises:
        RuntimeError: It failed, or did not end in time; carries its last words.
    """
    processes.adopt_orphans()
    before = _processor()
    begun = perf_counter()
    child = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    watch = _Watch()
    words = _Words(child)
    try:
        code = child.wait(limit)
        passed = perf_counter() - begun
    except subprocess.TimeoutExpired:
        processes.end_tree(child.pid)
        child.wait()
        raise RuntimeError(f"no end within {limit:g} s") from None
    finally:
        watch.stop()
        processes.end_leftovers()
        _reap()
        told = words.last()
    if code:
        raise RuntimeError(f"{told} (exit code {code})")
    return Cost(passed, max(_processor() - before, sum(watch.spent.values())), watch.most)


def _reap() -> None:
    """Wait for orphans that have ended, so that their time is ours."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _processor() -> float:
    """Processor seconds of all our descendants that have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class _Words:
    """The last line that a program writes to its standard error, which must be read or it stops."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._line = "no output"
        self._child = child
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._child.stderr is not None
        with self._child.stderr as lines:
            for line in lines:
                self._line = line.strip() or self._line

    def last(self) -> str:
        """Waits a moment for the end of what it writes."""
        self._thread.join(1.0)
        return self._line


class _Watch:
    """Looks at our descendants until it is stopped.

    Attributes:
        most: bytes that they had together at most.
        spent: processor seconds of each, when it was last seen.
    """

    def __init__(self) -> None:
        self.most = 0
        self.spent: dict[psutil.Process, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(LOOK_EVERY):
            found = psutil.Process().children(recursive=True)
            self.most = max(self.most, sum(map(_pss, found)))
            for process in found:
                with suppress(OSError):
                    self.spent[process] = processes.spent(process.pid)

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()


def _pss(process: psutil.Process) -> int:
    """The proportional size of a process; 0 if it has ended."""
    try:
        with Path(f"/proc/{process.pid}/smaps_rollup").open("rb") as lines:
            return next(1024 * int(line.split()[1]) for line in lines if line[:4] == b"Pss:")
    except (OSError, StopIteration):
        return 0
