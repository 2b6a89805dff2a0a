"""Estate: a worker that exits in good order hands the values that it owns over.

A worker has to leave when its node is drained, or when it has run as many tasks as its function
allows (``max_calls``). (One that is merely idle stays as long as it owns something.) What it owns
was made in runs of tasks, and would come back by running them again (``rebirth``); but nobody has
to run anything again for a process that has time to say good-bye.

The life of one estate: the leaver gives each value to its *heir* (``Bequeath``), waits for the
heirs' word, tells the nodes with copies who owns them from now on (``GiveObject``), waits for
theirs, and exits. The heir is the process to which holders would turn anyway: the nearest living
submitter up the line. It keeps what it inherits for ``CLAIM_SECONDS``, in which the holders notice
the death of the old owner, claim as always, and are given the value that is there.

The heir must know of a value before any node speaks to it of a copy (it would have what it does
not know freed), and a node must know the heir before the leaver is gone (it would free what a dead
process owns). In between, what nodes say to the leaver is passed on (``pass_on``).

So there is no list of holders to hand over and no race with references that are under way: until
its end the leaver is the owner, after that whoever holds one claims it. If a word does not come
within ``LEAVE_SECONDS`` the leaver exits nevertheless, and lineage does the rest.

What cannot be handed over keeps the process: a value that is not known yet, a reference in its own
user code, something that no task's run has made. And it leaves only when it has no task, no lease
and no kept task: ``roles.executor`` sees to that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from freehold.core.entries import Entry
from freehold.core.lineage import CLAIM_SECONDS, Lineage, Never
from freehold.core.ownership import Ownership
from freehold.core.submission import Submission, Task
from freehold.core.world import World
from freehold.ids import ObjectId, ProcessId, TaskId
from freehold.wire.estate import Bequeath, Bequest, GiveObject, Inherited
from freehold.wire.messages import STORED, Address, Link, ObjectAt, ObjectMoved

#: Seconds until a leaver goes without the word of a node or an heir: as long as its node waits
#: before it gives the worker to someone else (``workers.STOP_SECONDS``).
LEAVE_SECONDS: Final = 1.0


class Estate:
    """What this process leaves, and what it has inherited."""

    def __init__(
        self, world: World, ownership: Ownership, submission: Submission, lineage: Lineage
    ) -> None:
        self.world = world
        self.ownership = ownership
        self.submission = submission
        self.lineage = lineage
        self.leaving = False
        self.silent: set[ProcessId] = set()  # heirs, then nodes, whose word is still to come
        self.heirs: dict[ObjectId, Address] = {}
        self.giving = False
        self.gone: Callable[[], None]  # the role's: nothing is left to do here

    # ------------------------------------------------------------------ the leaver

    def leave(self) -> bool:
        """Begin to hand everything over; ``gone`` is called when it is done. False: it cannot be,
        and the process stays.
        """
        heirs: dict[ProcessId, tuple[Address, list[Entry]]] = {}
        for object_id, entry in self.ownership.entries.items():
            if entry.handles:
                return False
            if entry.owner is not None or entry.object != object_id:
                continue  # borrowed, or an alias
            heir = self.heir_of(entry)
            if entry.value is None or heir is None:
                return False
            heirs.setdefault(heir.process, (heir, []))[1].append(entry)
        self.leaving = True
        for heir, entries in heirs.values():
            self.bequeath(heir, entries)
        self.world.call_at(self.world.now() + LEAVE_SECONDS, self.gone)
        if not heirs:
            self.gone()
        return True

    def bequeath(self, heir: Address, entries: list[Entry]) -> None:
        """Tell an heir what is its own from now on."""
        bequests = []
        for entry in entries:
            assert entry.value is not None
            entry.pins += 1  # ours until the end, whoever lets go of it now
            self.heirs[entry.object] = heir
            value = self.ownership.for_peer(entry.value, heir)
            bequests.append(Bequest(entry.object, value, entry.line))
        self.silent.add(heir.process)
        self.world.send(heir, Bequeath(bequests))

    def heir_of(self, entry: Entry) -> Address | None:
        """Whom the holders will ask: the nearest living submitter, not being ourselves."""
        me = self.world.address.process
        for link in entry.line:
            process = link.submitter.process
            if process not in self.ownership.lost:
                return link.submitter if process != me else None
        return None

    def on_word(self, process: ProcessId) -> None:
        """An heir or a node has done its part, or is dead."""
        if process in self.silent:
            self.silent.discard(process)
            if not self.silent and not self.giving:
                self.give()
            if not self.silent:
                self.gone()

    def give(self) -> None:
        """The heirs know their values: the copies are theirs too."""
        self.giving = True
        copies: dict[tuple[ProcessId, ProcessId], tuple[Address, GiveObject]] = {}
        for object_id, heir in self.heirs.items():
            value = self.ownership.entries[object_id].value
            if value is not None and value.kind == STORED:
                for node in value.nodes:
                    gift = (node, GiveObject([], heir))
                    copies.setdefault((node.process, heir.process), gift)[1].objects.append(
                        object_id
                    )
        for node, message in copies.values():
            self.silent.add(node.process)
            self.world.send(node, message)

    def pass_on(self, message: ObjectAt | ObjectMoved) -> bool:
        """What a node says of a copy is the heir's to know. False: it is not an heir's."""
        heir = self.heirs.get(message.object)
        if heir is None:
            return False
        node = message.node if isinstance(message, ObjectAt) else message.taker
        self.world.send(heir, message)
        self.world.send(node, GiveObject([message.object], heir))
        return True

    # ------------------------------------------------------------------ the heir

    def on_bequeath(self, message: Bequeath, leaver: Address) -> None:
        """A process that ran tasks of ours leaves us what it owned."""
        for bequest in message.bequests:
            self.inherit(bequest, leaver)
        self.world.send(leaver, Inherited())

    def inherit(self, bequest: Bequest, leaver: Address) -> None:
        """One value is ours from now on."""
        ownership = self.ownership
        entry = ownership.entries.get(bequest.object)
        if entry is None:
            entry = ownership.entries[bequest.object] = Entry(bequest.object, None)
        entry.owner = None
        entry.line = bequest.line
        entry.received = 0
        entry.task = Never("the process that could make it again has left")
        entry.pins += 1
        task = self.task_of(bequest.line, leaver.process)
        origin = task.origin if task is not None else None
        if origin is not None and (origin.alive or origin.running):
            entry.origin = origin
            origin.alive += 1
        self.submission.gated(entry.object, bequest.value, leaver, free=True)
        ownership.open_gates(entry)

        def unclaimed() -> None:
            entry.pins -= 1
            ownership.collect(entry)

        self.world.call_at(self.world.now() + CLAIM_SECONDS, unclaimed)

    def task_of(self, line: tuple[Link, ...], leaver: ProcessId) -> Task | None:
        """The task of ours whose run has made it."""
        for link in line:
            if link.submitter.process == self.world.address.process:
                task_id: TaskId = link.task
                known = self.submission.tasks.get(task_id) or self.lineage.tasks.get(task_id)
                return known or self.lineage.left_at(leaver, task_id)
        return None
