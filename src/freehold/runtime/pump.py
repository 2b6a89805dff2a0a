"""The pump: which thread reads the sockets of a driver or worker.

The thread that waits for an answer reads it itself: a hand-off to another thread costs 45-90 us of wake-up, half of a
whole round trip. So ``wait`` makes its caller the *leader*, who polls the transport until what it waits for is there;
before it sleeps it spins for ``SPIN`` seconds, because an answer that is on its way is cheaper to catch awake.

When nobody waits, or several threads do, a background thread leads. It gives way to a lone waiter, and takes over again
``GRACE`` after the last one has gone: until then it looks in at that interval, and while someone leads for long it
sleeps until woken, so that an idle process uses no CPU at all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from freehold.runtime.transport import Transport

#: A round trip between two processes takes 57-93 us, 25-30 when the caller is awake to see the answer.
SPIN: Final = 50e-6
#: How long the sockets may go unread while user code computes between two waits.
GRACE: Final = 0.005


class Awaited(Protocol):
    """What a thread waits for."""

    done: bool


class Pump:
    """Leadership over one transport."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.lead = threading.Lock()
        self.waiting = 0
        self.wanted = False  # a waiter wants the lead from the background thread
        self.leading_in_background = False
        self.led = 0  # grows with every wait, so the background thread sees activity
        self.asleep = False
        self.bell = threading.Semaphore(0)
        self.stopped = False
        self.on_grace: Callable[[], None] = lambda: None  # the worker's: user code has run for GRACE
        self.thread = threading.Thread(target=self.run, name="freehold-pump", daemon=True)

    def start(self) -> None:
        """Begin to read in the background."""
        self.thread.start()

    def stop(self) -> None:
        """Stop the background thread."""
        self.stopped = True
        self.transport.wake()
        self.bell.release()
        if threading.current_thread() is not self.thread:
            self.thread.join(2.0)

    # ------------------------------------------------------------------ waiting

    def wait(self, awaited: Awaited, signal: threading.Semaphore, deadline: float | None) -> bool:
        """Return True once ``awaited.done``, False at the deadline (monotonic seconds).

        ``signal`` is released by whoever makes it done; a follower sleeps on it.
        """
        self.waiting += 1
        try:
            while not awaited.done:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                if self.waiting == 1 and self.take_lead():
                    try:
                        self.drive(awaited, deadline)
                    finally:
                        self.led += 1
                        self.lead.release()
                        if self.asleep:
                            self.asleep = False
                            self.bell.release()
                else:
                    signal.acquire(timeout=1.0 if left is None else min(left, 1.0))
        finally:
            self.waiting -= 1
        return True

    def take_lead(self) -> bool:
        """Become the leader; the background thread gives way at once."""
        if self.lead.acquire(blocking=False):
            return True
        self.wanted = True
        self.transport.wake()
        taken = self.lead.acquire(timeout=0.1)
        self.wanted = False
        return taken

    def drive(self, awaited: Awaited, deadline: float | None) -> None:
        """Poll until it is done, the deadline, or another thread waits too (then the background thread leads)."""
        poll = self.transport.poll
        spin_until = time.perf_counter() + SPIN
        while not awaited.done:
            if time.perf_counter() < spin_until:
                if poll(0.0):
                    spin_until = time.perf_counter() + SPIN
                continue
            if self.waiting > 1 or self.stopped:
                return
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return
            poll(left)

    # ------------------------------------------------------------------ the background thread

    def run(self) -> None:
        """Lead when nobody does, or when several threads wait."""
        while not self.stopped:
            seen = self.led
            quiet = 0
            while not self.stopped:  # watch until nobody has led for GRACE
                if self.bell.acquire(timeout=GRACE):
                    quiet = 0
                if self.lead.locked():
                    quiet += 1
                    if quiet > 4 and self.waiting == 1:  # someone leads and sleeps: so may we
                        self.asleep = True
                        if self.lead.locked():
                            self.bell.acquire()
                        self.asleep = False
                        quiet = 0
                        seen = self.led
                elif seen == self.led or self.waiting > 1:
                    break
                else:
                    seen = self.led
            if not self.stopped and self.lead.acquire(blocking=False):
                try:
                    self.lead_in_background()
                finally:
                    self.lead.release()
                    time.sleep(0)  # let the one who wanted it take it

    def lead_in_background(self) -> None:
        """Poll until a lone waiter wants the lead."""
        self.on_grace()
        self.leading_in_background = True
        try:
            while not (self.stopped or self.wanted):
                self.transport.poll(None)
        finally:
            self.leading_in_background = False
