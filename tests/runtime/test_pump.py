"""The pump's rules for threads that submit, on a transport that only notes what is asked of it."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

from freehold.runtime.pump import LONGEST_GATHER, Pump
from freehold.runtime.transport import GATHER


class Noting:
    """Stands in for a transport. ``now`` stands still until the test moves it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.clock = 100.0
        self.done: list[str] = []
        self.woken = threading.Event()

    def now(self) -> float:
        return self.clock

    def flush(self) -> None:
        self.done.append("flush")

    def flush_soon(self) -> None:
        self.done.append("flush soon")

    def poll(self, timeout: float | None) -> bool:
        self.done.append("poll")
        if timeout is None:
            self.woken.wait(5.0)
        return False

    def wake(self) -> None:
        self.woken.set()


def made() -> tuple[Pump, Noting]:
    transport: Any = Noting()
    return Pump(transport), transport


def test_a_burst_is_sent_and_read_at_intervals_by_the_thread_that_submits() -> None:
    """The first leaves at once, those that follow wait for each other, and who sends reads."""
    pump, transport = made()
    pump.send_soon()
    assert transport.done == ["flush"]
    for _ in range(10):
        pump.send_soon()
    assert transport.done == ["flush"]
    transport.clock += 2 * GATHER
    pump.send_soon()
    pump.send_soon()
    assert transport.done == ["flush", "poll"]
    assert not pump.lead.locked()


def test_the_longer_a_burst_lasts_the_longer_its_messages_gather() -> None:
    """Goal: a long burst costs few system calls, a short one waits no longer than it must. Method:
    submit every 50 us and look at when it is sent; then again after a wait.
    """
    pump, transport = made()
    began = transport.clock
    over: Any = type("Over", (), {"done": True})

    def sent_after() -> list[int]:
        times = []
        for _ in range(80):
            seen = len(transport.done)
            pump.send_soon()
            if len(transport.done) > seen:
                times.append(round((transport.clock - began) * 1e6))
            transport.clock += 5e-5
        return times

    first = sent_after()
    pump.wait(over, pump.bell, None)
    began = transport.clock
    longest = round(LONGEST_GATHER * 1e6)
    for times in (first, sent_after()):
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert times[0] == 0
        assert gaps[0] <= 2.5e6 * GATHER
        assert gaps == sorted(gaps)
        assert longest <= gaps[-1] <= longest + 100


def test_after_a_wait_a_submission_leaves_at_once() -> None:
    """A loop that waits for each result is no burst, however fast it turns."""
    pump, transport = made()
    over: Any = type("Over", (), {"done": True})
    for _ in range(3):
        pump.send_soon()
        pump.wait(over, pump.bell, None)
    assert transport.done == ["flush"] * 3


def test_who_submits_beside_threads_that_wait_leaves_the_reading_to_them() -> None:
    """Another thread is in ``get``: it reads."""
    pump, transport = made()
    pump.waiting = 1
    pump.send_soon()
    assert transport.done == ["flush soon"]


def test_where_another_thread_reads_a_burst_is_sent_without_reading() -> None:
    """Nobody waits for the lead under the core's lock."""
    pump, transport = made()
    pump.send_soon()
    pump.send_soon()
    transport.clock += 2 * GATHER
    with pump.lead:
        pump.send_soon()
    assert transport.done == ["flush", "flush"]


def test_the_end_of_a_burst_is_sent_by_the_background_thread() -> None:
    """The submitting thread computes on: what it has left is sent for it, soon."""
    pump, transport = made()
    pump.start()
    try:
        pump.send_soon()
        pump.send_soon()
        assert pump.gathering
        until = time.monotonic() + 5.0
        while transport.done.count("flush") < 2 and time.monotonic() < until:
            time.sleep(0.001)
        assert transport.done.count("flush") == 2
        assert not pump.gathering
    finally:
        pump.stop()
