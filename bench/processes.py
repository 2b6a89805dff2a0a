"""Keeping hold of processes: orphans of a measurement come back to us and are counted and ended.

A child subreaper (prctl 36) inherits the orphans among its descendants. So whatever an engine
leaves behind after its shutdown is our child, can be named in the results, and cannot disturb the
next measurement.
"""

from __future__ import annotations

import ctypes
import resource
import time
from collections.abc import Callable

import psutil

from bench.figure import Samples

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


def used() -> float:
    """Processor seconds that the machine has used since it started, by whomever."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def used_by_children() -> float:
    """Processor seconds of our descendants that have ended and were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def spent(pid: int) -> float:
    """Processor seconds of a process so far, all its threads, to the nanosecond.

    The kernel's clock of another process has this id (clock_getcpuclockid(3), which Python offers
    for threads only); the ticks of /proc would be 10 ms apart.

    Raises:
        OSError: There is no such process.
    """
    return time.clock_gettime((~pid << 3) | 2)


def spent_per_task(batch: Callable[[], list[int]], period: float = 0.7) -> Samples:
    """Processor microseconds a task, in all and by role: driver, worker, and where there are any
    other processes, these together.

    Args:
        batch: Runs tasks and returns the process id that each ran in.
        period: Seconds over which batches are repeated, after one that does not count.
    """
    batch()
    driver = psutil.Process()
    before = {one.pid: spent(one.pid) for one in [driver, *driver.children(recursive=True)]}
    ran: list[int] = []
    until = time.monotonic() + period
    while time.monotonic() < until:
        ran += batch()
    workers = set(ran)
    roles: dict[str, float] = {}
    for pid, earlier in before.items():
        role = "driver" if pid == driver.pid else "worker" if pid in workers else "other"
        if psutil.pid_exists(pid):
            roles[role] = roles.get(role, 0.0) + spent(pid) - earlier
    yield "cpu", 1e6 * sum(roles.values()) / len(ran)
    for role, total in roles.items():
        yield f"cpu_{role}", 1e6 * total / len(ran)


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        pass  # It ended between the listing and the signal.
