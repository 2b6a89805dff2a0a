"""How a thread waits for another: it looks for a short while, then it sleeps until it is woken."""

from __future__ import annotations

import threading
from typing import Final

#: How long a waiter looks before it sleeps (seconds). A task and its answer take 75 us while both
#: ends are awake, and 200 us once one of them has slept: 5,000 tasks/s one at a time with a spin of
#: 25 us, 8,000-11,000 with 50, 13,500 with 120 or more. Others get the CPU between two looks.
SPIN: Final = 150e-6


class Signal:
    """What a follower sleeps on: a bare lock, because making and ringing a Semaphore, both in
    Python, shows in the profile of a call.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        """Wake who waits, now or later."""
        try:
            self._lock.release()
        except RuntimeError:
            pass  # rung twice

    def wait(self, timeout: float = -1) -> None:
        """Sleep until rung, or for ``timeout`` seconds."""
        self._lock.acquire(timeout=timeout)
