"""Classes of the actors that are measured.

Alone in a file without imports: each actor's process imports the file of its class, and the
harness would be 17 ms of that, more than all else of its start.
"""

from __future__ import annotations

import os


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
