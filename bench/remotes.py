"""What is run elsewhere where the start of a process is measured.

Alone in a file without imports: a worker imports the file of its function or class, and the
harness would be 17 to 25 ms of that, more than all else of its start.
"""

from __future__ import annotations

import os
import time


def one() -> int:
    """The first task."""
    return 1


def nap(_: object = None) -> int:
    """The task: sleep 0.05 s and say who ran it."""
    time.sleep(0.05)
    return os.getpid()


class Counter:
    """Counts its calls."""

    def __init__(self) -> None:
        self.count = 0

    def add(self) -> int:
        """Count one call; the number of calls so far."""
        self.count += 1
        return self.count


class AsyncCounter:
    """The same, run by an event loop."""

    def __init__(self) -> None:
        self.count = 0

    async def add(self) -> int:
        """Count one call; the number of calls so far."""
        self.count += 1
        return self.count


class Member:
    """One of many."""

    def where(self) -> int:
        """The process that it lives in."""
        return os.getpid()
