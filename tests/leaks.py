"""What a test module left behind: processes, session folders, shared memory, descriptors, threads.

A leak is a difference between two snapshots of this process's surroundings, one before a module
of tests and one after it. Things end asynchronously (a daemon reaps its workers, then removes its
folder), so the second snapshot is taken again and again for up to ``SETTLE_SECONDS`` and only
what stays is a leak.

Knows: this process, and the home folder that ``conftest.py`` gave it. A process is ours when it
descends from this one or carries our ``FREEHOLD_HOME`` in its environment: a daemon that left our
process tree still does. Must not know: how the runtime works; it looks at what the system shows.

Linux only: it reads /proc.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

SETTLE_SECONDS = 5.0
POLL_SECONDS = 0.05

# Descriptors a process may gain once and keep: a wake-up pipe, an epoll set of the first event
# loop.
DESCRIPTOR_TOLERANCE = 2

# Kinds of descriptor that stand for something outside this process. Plain files are not counted:
# imports and pytest's capturing open and close them at will.
DESCRIPTOR_KINDS = ("socket", "pipe", "anon_inode", "/memfd")

# What the runtime may name outside its home by mistake: its shared memory is a memfd and has no
# name.
SHARED_MEMORY = Path("/dev/shm")
NAME = "freehold"


@dataclass(frozen=True)
class Surroundings:
    """One snapshot: everything a test could leave behind.

    ``processes`` maps an (id, start time) pair to a command line, so that a reused id is a new
    process. ``files`` are paths under the home folder and in /dev/shm. ``descriptors`` counts
    open ones by kind. ``threads`` are the names of the runtime's own threads in this process."""

    processes: dict[tuple[int, float], str]
    files: frozenset[str]
    descriptors: Counter[str]
    threads: tuple[str, ...]


def look(home: Path) -> Surroundings:
    """Take a snapshot; ``home`` is this test process's FREEHOLD_HOME."""
    gc.collect()  # a reference cycle that holds a socket is garbage, not a leak
    return Surroundings(_processes(home), _files(home), _descriptors(), _threads())


def left_behind(before: Surroundings, home: Path, seconds: float = SETTLE_SECONDS) -> list[str]:
    """One line for each thing that is there now, was not in ``before``, and does not go away.

    Waits at most ``seconds``, and no longer than until all is clean.
    """
    deadline = time.monotonic() + seconds
    while (leaks := _difference(before, look(home))) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return leaks


def end_processes(before: Surroundings, home: Path) -> None:
    """Kill the processes that leaked since ``before``, so that one leak fails one module and not
    all."""
    for pid, started in look(home).processes.keys() - before.processes.keys():
        try:
            process = psutil.Process(pid)
            if process.create_time() == started:
                process.kill()
        except psutil.NoSuchProcess:
            continue


def _difference(before: Surroundings, after: Surroundings) -> list[str]:
    leaks = [
        f"process {pid}: {command}"
        for (pid, started), command in after.processes.items()
        if (pid, started) not in before.processes
    ]
    leaks += [f"file {path}" for path in sorted(after.files - before.files)]
    leaks += [f"thread {name}" for name in (Counter(after.threads) - Counter(before.threads))]
    gained = after.descriptors - before.descriptors
    if gained.total() > DESCRIPTOR_TOLERANCE:
        leaks.append(f"descriptors {dict(gained)}")
    return leaks


def _processes(home: Path) -> dict[tuple[int, float], str]:
    """Living processes that are ours, this one left out. A zombie counts: somebody forgot to reap
    it."""
    mark = f"FREEHOLD_HOME={home}".encode()
    found = {}
    descendants = {child.pid for child in psutil.Process().children(recursive=True)}
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid():
                continue
            if process.pid in descendants or mark in _environment(process.pid):
                command = " ".join(process.cmdline()) or process.status()
                found[process.pid, process.create_time()] = command
        except psutil.Error:
            continue  # it ended while we looked, or belongs to somebody else
    return found


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _files(home: Path) -> frozenset[str]:
    """All that lies under the home folder, and what bears our name where nothing of ours
    belongs."""
    return frozenset(map(str, [*home.rglob("*"), *SHARED_MEMORY.glob(f"{NAME}*")]))


def _descriptors() -> Counter[str]:
    counts: Counter[str] = Counter()
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue  # the descriptor of this very listing
        for kind in DESCRIPTOR_KINDS:
            if target.startswith(kind):
                counts[kind] += 1
    return counts


def _threads() -> tuple[str, ...]:
    return tuple(t.name for t in threading.enumerate() if t.name.startswith(NAME))
