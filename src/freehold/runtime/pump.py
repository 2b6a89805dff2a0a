"""The pump: which thread reads the sockets of a driver or worker.

The thread that waits for an answer reads it itself: a hand-off to another thread costs 45-90 us of
wake-up, half of a whole round trip. So ``wait`` makes its caller the *leader*, who polls the
transport until what it waits for is there; before it sleeps it spins for ``SPIN`` seconds, because
an answer that is on its way is cheaper to catch awake.

A thread that submits one task after the other reads too (``send_soon``): each time that it sends,
it takes what has come. If another thread read meanwhile, the two would hand each other the
interpreter all the time: 0.36 switches a task, and a driver's 33 us for one where it takes 25.

When nobody waits or submits, or several threads wait, a background thread leads. It gives way to a
lone thread that reads, and takes over again ``GRACE`` after the last one has gone: until then it
looks in at that interval, and while someone leads for long it sleeps until woken, so that an idle
process uses no CPU.

Event loops read too (``aio``), each turn as a leader of its own. While there are any, the
background thread stands aside; it leads when they have left something unread for ``GRACE``.
"""

from __future__ import annotations

import math
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from freehold.runtime.transport import GATHER, Transport
from freehold.runtime.waking import SPIN, Signal

#: How long the sockets may go unread while user code computes between two waits (seconds).
GRACE: Final = 0.005
#: Longer than ``GATHER``: what a burst of submissions waits for more to go with it at most, once it
#: has lasted (seconds). To send, to wake who is to read and to read what has come take 60-150 us,
#: which at 0.2 ms are a third of the driver's time. No worker runs dry: it takes a call faster than
#: we make one.
LONGEST_GATHER: Final = 0.0008
#: How often the background thread looks whether a burst is over (seconds).
TAIL: Final = 0.0015
#: Looks of the background thread that find the same leader before it sleeps until woken.
PATIENT_LOOKS: Final = 4


class Awaited(Protocol):
    """What a thread waits for."""

    @property
    def done(self) -> bool:
        """Whether it has come."""


class Pump:
    """Leadership over one transport."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.lead = threading.Lock()
        self.waiting = 0
        self.wanted = False  # a waiter wants the lead from the background thread
        self.led = 0  # grows with every wait, so that the background thread sees activity
        self.asleep = False  # the background thread is, until the leader rings
        self.bell = Signal()  # the background thread's
        self.sent = 0.0  # when a submitting thread last sent; 0.0: a wait has ended since
        self.gathering = False  # a burst of submissions goes on
        self.pause = GATHER  # between two times that it is sent
        self.stopped = False
        self.loops = 0  # event loops that read
        self.looked = 0  # grows with each of their turns
        self.overdue = False  # they have left something unread: they do not count till the next
        self.on_overdue: Callable[[], None] = lambda: None  # one may be closed
        #: Called before each poll in the background; returns the seconds after which it wants to
        #: be called again, if no message comes before.
        self.on_turn: Callable[[], float | None] = lambda: None
        self.thread = threading.Thread(target=self.run, name="freehold-pump", daemon=True)

    def start(self) -> None:
        """Begin to read in the background."""
        self.thread.start()

    def stop(self) -> None:
        """Stop the background thread."""
        self.stopped = True
        self.transport.wake()
        self.bell.ring()
        if self.thread.is_alive() and threading.current_thread() is not self.thread:
            self.thread.join(2.0)

    # ------------------------------------------------------------------ waiting

    def wait(self, awaited: Awaited, signal: Signal, deadline: float | None) -> bool:
        """Return True once ``awaited.done``, False at the deadline (monotonic seconds).

        ``signal`` is rung by whoever makes it done; a follower sleeps on it.
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
                        self.leave()
                else:
                    self.follow(signal, 1.0 if left is None else min(left, 1.0))
        finally:
            self.waiting -= 1
            self.sent = 0.0
            self.pause = GATHER
        return True

    def follow(self, signal: Signal, timeout: float) -> None:
        """Sleep until another thread, which reads the sockets, has made it done."""
        signal.wait(timeout)

    def take_lead(self) -> bool:
        """Become the leader; the background thread gives way at once."""
        if self.lead.acquire(blocking=False):
            return True
        self.wanted = True
        self.transport.wake()
        taken = self.lead.acquire(timeout=0.1)
        self.wanted = False
        return taken

    def leave(self) -> None:
        """No longer lead; see to it that the background thread looks in after GRACE."""
        self.led += 1
        self.lead.release()
        if self.asleep:
            self.asleep = False
            self.bell.ring()

    def drive(self, awaited: Awaited, deadline: float | None) -> None:
        """Poll until it is done, the deadline is reached, or another thread waits too (then the
        background thread leads).
        """
        poll = self.transport.poll
        spin_until = time.perf_counter() + SPIN
        while not awaited.done:
            if time.perf_counter() < spin_until:
                if poll(0.0):
                    spin_until = time.perf_counter() + SPIN
                else:
                    os.sched_yield()  # whoever is to answer may need this very CPU
                continue
            if self.waiting > 1 or self.stopped:
                return
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return
            poll(left)

    # ------------------------------------------------------------------ submitting

    def send_soon(self) -> None:
        """Messages are queued, and more may follow at once. Under the core's lock.

        After a wait or a pause they leave at once. In a burst they travel together, and the thread
        that sends reads what has come; the background thread sees to those that are left over.
        """
        transport = self.transport
        if self.waiting or self.loops or self.stopped:  # others read, and see to it
            transport.flush_soon()
            return
        now = transport.now()
        if now - self.sent < self.pause:
            if not self.gathering:
                self.gathering = True
                self.led += 1
                self.bell.ring()
                if self.lead.locked():
                    transport.wake()
            return
        self.pause = min(2 * self.pause, LONGEST_GATHER) if self.gathering else GATHER
        self.sent = now
        if self.gathering and self.lead.acquire(blocking=False):
            try:
                transport.poll(0.0)
            finally:
                self.leave()
        else:
            transport.flush()

    # ------------------------------------------------------------------ the background thread

    def run(self) -> None:
        """Lead when nobody does, or when several threads wait."""
        while not self.stopped:
            self.stand_by()
            if self.lead.acquire(blocking=False):
                try:
                    self.lead_until_wanted()
                finally:
                    self.lead.release()

    def lead_until_wanted(self) -> None:
        """Read and dispatch until another thread does."""
        led = self.led
        while not (
            self.stopped or self.wanted or self.led != led or (self.loops and not self.overdue)
        ):
            self.transport.poll(self.on_turn())

    def stand_by(self) -> None:
        """Return when nobody has led for GRACE, or when several threads wait and none leads."""
        seen = self.led - 1
        looks = 0
        while not self.stopped:
            if self.gathering:
                self.see_to_burst()
            if self.loops:
                self.stand_aside()
                if self.overdue:
                    return
            if self.lead.locked():
                looks += 1
                if looks > PATIENT_LOOKS and self.waiting == 1:
                    self.sleep_until_left()
                    looks = 0
            elif self.waiting > 1 or self.led == seen:
                return
            seen = self.led
            self.bell.wait(GRACE)

    def see_to_burst(self) -> None:
        """A thread submits: return when it does so no more, and has nothing left to send."""
        while self.gathering and not self.stopped:
            sent = self.sent
            self.bell.wait(TAIL)
            self.on_turn()
            if self.sent == sent:
                with self.transport.lock:
                    self.gathering = False
                    self.transport.flush()

    def stand_aside(self) -> None:
        """Event loops read. Return when they have left something unread for GRACE, or none reads.

        We wake with the first message after a while and then wait, so that in the rush of what
        follows we wake once in GRACE, and not at all while nothing comes.
        """
        transport = self.transport
        unread = select.poll()
        unread.register(transport.epoll.fileno(), select.POLLIN)
        while self.loops and not self.stopped:
            transport.alarm = math.inf
            patience = transport.patience(self.on_turn())
            unread.poll(None if patience < 0 else math.ceil(patience * 1000))
            transport.alarm = 0.0
            looked = self.looked
            left = unread.poll(0)
            self.bell.wait(GRACE)
            if self.looked != looked or self.lead.locked():
                continue
            if left and unread.poll(0):
                self.overdue = True
                self.on_overdue()
                return
            if transport.due() and self.lead.acquire(blocking=False):
                try:
                    transport.poll(0.0)
                finally:
                    self.lead.release()

    def sleep_until_left(self) -> None:
        """Someone leads and has nothing to do: sleep until it leaves. ``leave`` releases the lead
        first and looks at ``asleep`` then; we do it the other way round, so one of us sees the
        other.
        """
        self.asleep = True
        if self.lead.locked():
            self.bell.wait()
        self.asleep = False
