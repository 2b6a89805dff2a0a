"""One object of 1 GiB from one node to all others: in a tree that grows by itself, and in turn.

Who sends to whom is decided by the real ``core.relaying``, one for each node. The links are a
model: an object is 64 pieces; a network card sends a piece after another, to its receivers in turn,
and receives as fast as it is sent to; a node that passes an object on sends the pieces that it has.
All ask the first node at the same moment, each a little later than the one before.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any, Final

from bench.scale import costs
from freehold.core.relaying import FIRST, RELAYED, Relaying, Sending
from freehold.core.stored import PULLING, SEALED
from freehold.ids import NodeId, ObjectId, ProcessId
from freehold.wire.messages import Address

SIZE: Final = 1 << 30
PIECES: Final = 64
PIECE_SECONDS: Final = SIZE / PIECES / costs.LINK_BYTES_PER_SECOND
LATENCY: Final = costs.REMOTE_NS / 1e9
OBJECT: Final = ObjectId(bytes(20))


class Copy:
    """A node's copy, as ``core.stored`` has it: what relaying looks at."""

    def __init__(self, *, whole: bool) -> None:
        self.id = OBJECT
        self.state = SEALED if whole else PULLING
        self.size = SIZE
        self.offset = 0
        self.slot = None


class Store:
    """A node's objects, as far as relaying asks."""

    def __init__(self, copy: Copy) -> None:
        self.table = {OBJECT: copy}

    def pin(self, stored: Copy, process: ProcessId) -> None:
        """Nothing is evicted here."""

    def unpin(self, object_id: ObjectId, process: ProcessId) -> None:
        """Nothing is evicted here."""


class Machine:
    """A node: its copy, its relaying, and to whom its card sends."""

    def __init__(self, number: int) -> None:
        self.number = number
        key = number.to_bytes(8, "big")
        self.address = Address(ProcessId(key), NodeId(key), "host", 1)
        self.copy = Copy(whole=number == 0)
        store: Any = Store(self.copy)
        self.relaying = Relaying(store)
        self.have = PIECES if number == 0 else 0
        self.receivers: list[tuple[Machine, Sending]] = []
        self.next = 0
        self.sending = False


class Spread:
    """One broadcast. ``machines[0]`` has the object."""

    def __init__(self, nodes: int) -> None:
        self.machines = [Machine(number) for number in range(nodes)]
        self.by_process = {machine.address.process: machine for machine in self.machines}
        self.now = 0.0
        self.order = count()
        self.events: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Have something happen."""
        heapq.heappush(self.events, (when, next(self.order), action))

    def run(self) -> float:
        """Until everybody has all of it. Returns the seconds that takes."""
        for machine in self.machines[1:]:
            self.ask(machine, self.machines[0], FIRST, machine.number * 20e-6)
        while self.events:
            self.now, _, action = heapq.heappop(self.events)
            action()
        assert all(machine.have == PIECES for machine in self.machines)
        return self.now

    def ask(self, asker: Machine, of: Machine, manner: int, after: float) -> None:
        """A node asks another for the object."""
        self.at(self.now + after + LATENCY, lambda: self.answer(asker, of, manner))

    def answer(self, asker: Machine, of: Machine, manner: int) -> None:
        """It is sent the object, or sent on."""
        answer = of.relaying.ask(OBJECT, asker.address, manner)
        assert answer is not None
        if isinstance(answer, Address):
            self.ask(asker, self.by_process[answer.process], RELAYED, LATENCY)
        else:
            of.receivers.append((asker, answer))
            self.send(of)

    def send(self, machine: Machine) -> None:
        """The card is free: the next piece for a receiver that lacks one which is here."""
        if machine.sending:
            return
        for _ in machine.receivers:
            machine.next = (machine.next + 1) % len(machine.receivers)
            receiver, sending = machine.receivers[machine.next]
            if receiver.have < machine.have:
                machine.sending = True
                there = partial(self.sent, machine, receiver, sending)
                self.at(self.now + PIECE_SECONDS, there)
                return

    def sent(self, machine: Machine, receiver: Machine, sending: Sending) -> None:
        """A piece is there."""
        machine.sending = False
        receiver.have += 1
        if receiver.have == PIECES:
            receiver.copy.state = SEALED
            machine.relaying.over(sending)
            machine.receivers.remove((receiver, sending))
        self.send(receiver)
        self.send(machine)


def measure(nodes: int) -> dict[str, Any]:
    """Seconds together, and one after another."""
    once = PIECES * PIECE_SECONDS + 2 * LATENCY
    return {"together": Spread(nodes).run(), "one_by_one": once * (nodes - 1), "one": once}
