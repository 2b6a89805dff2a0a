"""Limits: how long one task may run, and how long it waits before it is tried again.

A task without options of this kind has no ``Limits`` at all, and nothing here is done for it.

The *clock* of an attempt starts when the worker says that user code has begun (``TaskBegun``), so
that neither the queue nor the way of the arguments counts. It stops when the attempt ends, however
it ends. When it runs out, ``core.cancelling`` ends the attempt as it ends a cancelled task.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

from freehold.core.world import Timer

#: No pause is longer (seconds): 20 doublings of a second are twelve days, which nobody means.
LONGEST_PAUSE: Final = 3600.0


class Limits:
    """What the options say, in seconds. ``timeout`` 0: as long as it takes. ``retry_timeout``:
    whether an attempt whose time was over may be tried again.
    """

    __slots__ = ("backoff", "delay", "jitter", "retry_timeout", "timeout")

    def __init__(
        self,
        timeout: float = 0.0,
        delay: float = 0.0,
        backoff: float = 1.0,
        jitter: float = 0.0,
        *,
        retry_timeout: bool = False,
    ) -> None:
        self.timeout = timeout
        self.delay = delay
        self.backoff = backoff
        self.jitter = jitter
        self.retry_timeout = retry_timeout

    def pause(self, retries: int, chance: bytes) -> float:
        """Seconds before retry number ``retries``, the first being 1. ``chance``: bytes that were
        never made before, of which the jitter is drawn.
        """
        try:
            pause = min(self.delay * self.backoff ** (retries - 1), LONGEST_PAUSE)
        except OverflowError:
            pause = LONGEST_PAUSE
        drawn = crc32(chance) / (1 << 32)  # even, also where the bytes are a counter
        return pause * (1 + self.jitter * (2 * drawn - 1))


class Clock:
    """The time of one attempt in user code."""

    __slots__ = ("attempt", "expired", "timer")

    def __init__(self, attempt: int, timer: Timer) -> None:
        self.attempt = attempt
        self.timer = timer
        self.expired = False
