"""Entries: what one process knows of one object, and where its own objects come from.

The rules by which these change are ``ownership``'s; here is only what there is to know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from freehold.ids import ObjectId, ProcessId, TaskId
from freehold.wire.messages import Address, Claim, Link, Value


class Waiter(Protocol):
    """Anyone who wants to know that an object is finished."""

    def resolved(self, entry: Entry) -> None:
        """``entry.value`` is known. Called under the core's lock: note it and return."""

    def renamed(self, old: ObjectId, new: ObjectId) -> None:
        """What it waits for has another id now."""


class Origin:
    """One run of a task in this process, as that from which our objects come.

    ``line``: what the references to them carry. ``alive``: how many of them there are, and of
    tasks submitted in it that may have to run (again). ``claims``: what holders of a dead owner's
    objects want of it, by the name of the task or object that has to be made first.
    """

    __slots__ = ("alive", "claims", "line", "running", "submitter", "task")

    def __init__(self, task: TaskId, submitter: Address, line: tuple[Link, ...]) -> None:
        self.task = task
        self.submitter = submitter
        self.line = line
        self.alive = 0
        self.running = True
        self.claims: dict[bytes, dict[tuple[ObjectId, ProcessId], Claim]] = {}


class Maker:
    """An entry's ``task`` that makes its object again itself, as an actor: lineage lets it be."""

    __slots__ = ()


class Entry:
    """What one process knows of one object.

    ``owner`` is None when this process owns it. ``value`` is None until known. ``handles``:
    references in user code. ``pins``: pending tasks and live values that need it. ``holders``:
    borrowers and how often they were given the reference, less what they released (owner only).
    ``received``: how often we were given it since our last release, ``owed``: introductions seen
    (+) or still expected (-) per giver (borrower only). ``task``: the task that makes it, and can
    again (owner only). ``lineage``: tasks that would need it if they ran again (owner only).
    ``origin``: the run that it comes from, if any (owner only); ``line`` as in a Reference.
    ``asked``: its owner is dead, and we have asked that process to have it made again (b"" for
    none yet). ``aliases``: other ids under which the table knows it.
    """

    __slots__ = (
        "aliases",
        "asked",
        "handles",
        "holders",
        "line",
        "lineage",
        "object",
        "origin",
        "owed",
        "owner",
        "pins",
        "received",
        "task",
        "value",
        "waiters",
        "watchers",
    )

    def __init__(
        self, object_id: ObjectId, owner: Address | None, line: tuple[Link, ...] = ()
    ) -> None:
        self.object = object_id
        self.owner = owner
        self.line = line
        self.origin: Origin | None = None
        self.lineage = 0
        self.asked: ProcessId | None = None
        self.aliases: list[ObjectId] | None = None
        self.value: Value | None = None
        self.task: object | None = None
        self.handles = 0
        self.pins = 0
        self.received = 0
        self.waiters: list[Waiter] | None = None
        self.watchers: list[Address] | None = None
        self.holders: dict[ProcessId, int] | None = None
        self.owed: dict[ProcessId, int] | None = None


class Gate:
    """A value or task that may not be used before the references in it have been introduced.

    ``open`` is called when they all have; ``shut``, instead, when one of them never will be.
    """

    __slots__ = ("open", "shut", "waiting")

    def __init__(self, opened: Callable[[], None], shut: Callable[[ProcessId], None]) -> None:
        self.waiting = 0
        self.open = opened
        self.shut = shut

    def introduced(self) -> None:
        """One of the references has been."""
        self.waiting -= 1
        if not self.waiting:
            self.open()

    def broken(self, giver: ProcessId) -> None:
        """One of the references never will be: its giver died before the owner heard of it."""
        if self.waiting > 0:
            self.waiting = 0
            self.shut(giver)
