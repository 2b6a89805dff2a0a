"""Keeping hold of processes: orphans of a measurement come back to us and are counted and ended.

A child subreaper (prctl 36) inherits the orphans among its descendants. So whatever an engine
leaves behind after its shutdown is our child, can be named in the results, and cannot disturb the
next measurement.
"""

from __future__ import annotations

import ctypes

import psutil

_PR_SET_CHILD_SUBREAPER = 36
GRACE = 3.0
"""Seconds that processes have to end by themselves after their program has ended."""


def adopt_orphans() -> None:
    """Make this process the parent of every orphan among its descendants.

    Raises:
        OSError: The kernel refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def end_leftovers() -> int:
    """Give our descendants `GRACE` seconds to end, kill the others and return their count."""
    _, alive = psutil.wait_procs(psutil.Process().children(recursive=True), GRACE)
    for process in alive:
        _kill(process)
    psutil.wait_procs(alive, GRACE)
    return len(alive)


def end_tree(pid: int) -> None:
    """Kill a process and its descendants."""
    try:
        root = psutil.Process(pid)
        tree = [*root.children(recursive=True), root]
    except psutil.NoSuchProcess:
        return
    for process in tree:
        _kill(process)


def busy(period: float) -> float:
    """Share of the machine's processors in use over `period` seconds, 0 to 1."""
    return float(psutil.cpu_percent(period)) / 100


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        pass  # It ended between the listing and the signal.
