"""Results: what becomes of a value that a task has made, when it reaches the owner.

Usually it is the first under its id, somebody can name it, and its entry learns it. The other cases
are the file's reason: nobody can name it any more (its bytes are freed); it was there already and
is still good, because the task ran twice (it stays, someone may be reading it); it carries
references that have not been introduced yet (it is known once they are); it comes from an attempt
that another has replaced (it is refused).

A part of ``submission``, which says when; it knows entries and values, and no tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from freehold.core.entries import Entry, Gate
from freehold.core.ownership import Ownership
from freehold.core.world import World
from freehold.ids import ObjectId, ProcessId, return_id
from freehold.wire.messages import (
    FAILED,
    STORED,
    Address,
    FreeObjects,
    Release,
    TaskDone,
    Value,
)


def without(nodes: Iterable[Address], others: Iterable[Address]) -> list[Address]:
    """Those of the nodes that are not among the others."""
    known = [node.process for node in others]
    return [node for node in nodes if node.process not in known]


class Results:
    """Values on their way into their entries."""

    def __init__(self, world: World, ownership: Ownership) -> None:
        self.world = world
        self.ownership = ownership

    def result(self, entry: Entry, value: Value, giver: Address | None) -> None:
        """One result. A value from an earlier run that is still good stays: someone may be reading
        it.
        """
        old = entry.value
        if old is None and not value.contains:  # as usual
            self.ownership.resolve(entry, value)
            if not entry.handles and not entry.pins:
                self.ownership.collect(entry)
        elif old is not None and (value.kind == FAILED or not self.stale(old)):
            self.unwanted(entry.object, value, giver, spare=without(value.nodes, old.nodes))
        elif value.contains:
            assert giver is not None
            self.gated(entry.object, value, giver, free=True)
        else:
            self.renew(entry, value)

    def unwanted(
        self, object_id: ObjectId, value: Value, giver: Address | None, spare: list[Address]
    ) -> None:
        """A result that nobody can name, or that is there already: its copies on ``spare`` go."""
        if value.contains:
            assert giver is not None
            self.gated(object_id, value, giver, free=False)
        if value.kind == STORED:
            self.free(object_id, spare)

    def stale(self, value: Value) -> bool:
        """Whether a value names objects whose owner has died."""
        lost = self.ownership.lost
        return any(inner.owner.process in lost for inner in value.contains)

    def renew(self, entry: Entry, value: Value) -> None:
        """A result is known, the first time or after a re-run."""
        old = entry.value
        self.ownership.resolve(entry, value)
        if old is not None:
            self.free(entry.object, without(old.nodes, value.nodes))
            self.ownership.forget(old)
        if not entry.handles and not entry.pins:
            self.ownership.collect(entry)  # (a by-product of a re-run)

    def gated(self, object_id: ObjectId, value: Value, giver: Address, *, free: bool) -> None:
        """A result with references inside: it is known once each of them has been introduced.

        If nobody can name it any more it is forgotten then, and its bytes too if ``free``."""
        ownership = self.ownership
        entry = ownership.entries.get(object_id) if free else None

        def opened() -> None:
            if entry is not None and ownership.entries.get(entry.object) is entry:
                self.renew(entry, value)
                entry.pins -= 1
                ownership.collect(entry)
            else:
                ownership.forget(value)
                if free and value.kind == STORED:
                    self.free(object_id, value.nodes)

        def give_up(lost: ProcessId) -> None:
            ownership.forget(value)
            if entry is not None:
                self.renew(entry, Value(FAILED, ownership.handover_lost(lost)))
                entry.pins -= 1
                ownership.collect(entry)
            if free and value.kind == STORED:
                self.free(object_id, value.nodes)

        gate = Gate(opened, give_up)
        if entry is not None:
            entry.pins += 1
        ownership.take_in(value.contains, giver, gate)
        if not gate.waiting:
            opened()

    def discard(self, message: TaskDone, worker: Address, *, free: bool) -> None:
        """A stale attempt's results: nobody will name them.

        They are freed only when no newer attempt is about, because that one writes under the same
        ids.
        """
        for index, value in enumerate(message.results):
            self.refuse(return_id(message.task, index), value, worker, free=free)

    def refuse(self, object_id: ObjectId, value: Value, worker: Address, *, free: bool) -> None:
        """One result of a stale attempt."""
        entry = self.ownership.entries.get(object_id)
        good = entry.value.nodes if entry is not None and entry.value is not None else ()
        if worker.process != self.world.address.process:
            # What a stale attempt owns bears the names of what the new one makes: it must not
            # enter the table, where that may stand already.
            for ref in value.contains:
                if ref.owner.process == worker.process:
                    self.world.send(worker, Release(ref.object, 1))
            value.contains = [ref for ref in value.contains if ref.owner.process != worker.process]
        if value.contains:
            self.gated(object_id, value, worker, free=False)
        if free and value.kind == STORED:
            self.free(object_id, without(value.nodes, good))

    def free(self, object_id: ObjectId, nodes: Sequence[Address]) -> None:
        """Have these copies of a value dropped."""
        for node in nodes:
            self.world.send(node, FreeObjects([object_id]))
