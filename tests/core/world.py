"""The world that records: what a machine asked for is kept until a test claims it.

Theory of operation. A machine gets its clock, its timers, its ids and its peers from a ``World``
(``freehold.core.world``). This one sends nothing: ``sent`` holds what was asked, in order. A test
claims messages with ``expect`` (exactly these, in this order) or ``take`` (those of one type), and
the ``world`` fixture fails a test that leaves any unclaimed: an effect nobody thought of is a
failure, not noise. Time stands still until ``advance``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, TypeVar

from freehold.ids import FunctionId, JobId, LeaseId, NodeId, ObjectId, ProcessId, TaskId, return_id
from freehold.resources import UNIT
from freehold.wire.messages import (
    FAILED,
    INLINE,
    STORED,
    Address,
    Death,
    Message,
    NodeInfo,
    Reference,
    Value,
)

Kind = TypeVar("Kind")


class Alarm:
    """A timer of the recording world."""

    def __init__(self, when: float, action: Callable[[], None]) -> None:
        self.when = when
        self.action = action
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class World:
    """Records effects; its clock moves by hand."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.clock = 1000.0
        self.sent: list[tuple[Address, Message]] = []
        self.alarms: list[Alarm] = []
        self.ids = count(1)
        self.fenced: list[NodeId] = []

    def now(self) -> float:
        return self.clock

    def send(self, to: Address, message: Message) -> None:
        self.sent.append((to, message))

    def fence(self, node: NodeId) -> None:
        self.fenced.append(node)

    def call_at(self, when: float, action: Callable[[], None]) -> Alarm:
        alarm = Alarm(when, action)
        self.alarms.append(alarm)
        return alarm

    def new_id(self) -> bytes:
        return next(self.ids).to_bytes(8, "big")

    # -- what tests use

    def advance(self, seconds: float) -> None:
        """Let time pass, calling what falls due, in order of time and then of arrangement."""
        end = self.clock + seconds
        while due := [a for a in self.alarms if not a.cancelled and a.when <= end]:
            alarm = min(due, key=lambda a: a.when)
            self.alarms.remove(alarm)
            self.clock = max(self.clock, alarm.when)
            alarm.action()
        self.clock = end

    def expect(self, *wanted: tuple[Address, Message]) -> None:
        """Exactly these messages have been sent since the last claim, in this order."""
        sent, self.sent = self.sent, []
        assert sent == list(wanted)

    def take(self, kind: type[Kind], to: Address | None = None) -> list[Kind]:
        """Claim every message of one type (to one peer) and return them, oldest first."""
        mine = [p for p in self.sent if isinstance(p[1], kind) and to in (None, p[0])]
        self.sent = [p for p in self.sent if p not in mine]
        return [message for _, message in mine]  # type: ignore[misc]

    def one(self, kind: type[Kind], to: Address | None = None) -> Kind:
        """Claim the only message of a type."""
        (message,) = self.take(kind, to)
        return message

    def nothing_left(self) -> None:
        """Every effect has been claimed."""
        assert self.sent == [], "effects that no test claimed"


# -- short names for the things that tests are about -----------------------------------------------


def eight(name: str) -> bytes:
    return name.encode().ljust(8, b".")[:8]


def node(name: str = "node") -> Address:
    """A node daemon: its process is the node."""
    return Address(ProcessId(eight(name)), NodeId(eight(name)), "host", 1)


def process(name: str, on: str = "node") -> Address:
    return Address(ProcessId(eight(name)), NodeId(eight(on)), "host", 1)


def job(name: str = "job") -> JobId:
    return JobId(eight(name))


def lease(number: int) -> LeaseId:
    """The lease whose id a World makes in its ``number``-th call of ``new_id``."""
    return LeaseId(number.to_bytes(8, "big"))


def task_id(name: str) -> TaskId:
    return TaskId(name.encode().ljust(16, b"."))


def function_id(name: str) -> FunctionId:
    return FunctionId(eight(name))


def object_id(name: str) -> ObjectId:
    return return_id(task_id(name), 0)


def reference(name: str, owner: Address) -> Reference:
    return Reference(object_id(name), owner)


def inline(data: bytes = b"value", *contains: Reference) -> Value:
    return Value(INLINE, data, contains=list(contains))


def stored(size: int, *nodes: Address, contains: list[Reference] | None = None) -> Value:
    return Value(STORED, b"", size, list(nodes), contains or [])


def failed(data: bytes = b"error") -> Value:
    return Value(FAILED, data)


def death(detail: str = "killed") -> Death:
    return Death(7, NodeId(eight("node")), signal=9, detail=detail)


def cpus(amount: float) -> dict[str, int]:
    return {"CPU": round(amount * UNIT)}


def info(
    address: Address,
    total: dict[str, int],
    free: dict[str, int] | None = None,
    **others: Any,
) -> NodeInfo:
    return NodeInfo(
        address, "machine", 1, dict(total), dict(total if free is None else free), **others
    )
