"""The clock, the chance and the memory of one simulated run.

A run is a heap of (time, sequence, action). Time is an integer of nanoseconds; equal times are
taken in the order in which they were arranged, so nothing depends on addresses or on the hash
seed. Chance comes in named streams, each seeded from the run's seed and its name: one draw more in
one stream leaves all others as they were, so that deleting an operation does not reshuffle the
network. The digest covers every step; two runs are the same run if their digests are."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable
from hashlib import sha256
from random import Random
from typing import Final

SECOND: Final = 1_000_000_000
MILLI: Final = 1_000_000
MICRO: Final = 1_000

Action = Callable[[], None]


class Violation(Exception):
    """A promise was broken.

    Args: promise: its short name, the same for every way of breaking it; detail: what was seen.
    """

    def __init__(self, promise: str, detail: str) -> None:
        super().__init__(f"{promise}: {detail}")
        self.promise = promise
        self.detail = detail


class Event:
    """A call that has been arranged; ``core.world.Timer`` as a role sees it."""

    __slots__ = ("action", "pulse")

    def __init__(self, action: Action) -> None:
        self.action: Action | None = action
        self.pulse = False

    def cancel(self) -> None:
        """Do not make the call."""
        self.action = None


class World:
    """Clock, chance, digest, and counts of what happened."""

    def __init__(self, seed: str, trace: bool = False, tail: int = 40) -> None:
        """Args: seed; trace: keep every line of the story, else the last ``tail`` only."""
        self.seed = seed
        self.now_ns = 0
        self.active_ns = 0  # when a message other than the background's was last handled
        self.heap: list[tuple[int, int, Event]] = []
        self.sequence = 0
        self.ahead = 0  # events on the heap that are no pulses
        self.steps = 0
        self.digest = sha256()
        self.streams: dict[str, Random] = {}
        self.marks: Counter[str] = Counter()
        self.story: deque[str] = deque(maxlen=None if trace else tail)

    def stream(self, name: str) -> Random:
        """The chance called ``name``."""
        stream = self.streams.get(name)
        if stream is None:
            stream = self.streams[name] = Random(f"{self.seed}:{name}")
        return stream

    def at(self, when: int, action: Action) -> Event:
        """Have ``action`` called at ``when`` (ns), or now if that is past."""
        event = Event(action)
        self.push(max(when, self.now_ns), event)
        return event

    def push(self, when: int, event: Event) -> None:
        """Put an event, again or for the first time, on the heap."""
        self.sequence += 1
        self.ahead += not event.pulse
        heapq.heappush(self.heap, (when, self.sequence, event))

    def is_pulse(self, event: Event) -> None:
        """An event on the heap comes round for ever: nothing waits for it."""
        event.pulse = True
        self.ahead -= 1

    def after(self, delay: int, action: Action) -> Event:
        """Have ``action`` called in ``delay`` ns."""
        return self.at(self.now_ns + delay, action)

    def step(self) -> bool:
        """Make the next call. False when none is left but pulses."""
        while self.ahead:
            when, _, event = heapq.heappop(self.heap)
            self.ahead -= not event.pulse
            action = event.action
            if action is None:
                continue
            event.action = None
            self.now_ns = when
            self.steps += 1
            action()
            return True
        return False

    def note(self, who: str, what: str) -> None:
        """One line of the story, which is what the digest covers."""
        line = f"{self.now_ns / SECOND:.6f} {who:<4} {what}"
        self.digest.update(line.encode())
        self.story.append(line)

    def mark(self, name: str) -> None:
        """Count that something rare was reached."""
        self.marks[name] += 1


def nanoseconds(seconds: float) -> int:
    """``seconds`` on the world's clock."""
    return round(seconds * SECOND)
