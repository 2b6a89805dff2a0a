"""A model of the hand-off, on the real ``Ownership``: every interleaving of a small program over
FIFO links. (``exploring`` visits the states; owners that die and are replaced: ``afterlife``.)

Theory of operation. Three or four processes, each with a real ``Ownership`` table and a user who
holds handles, passes references on, asks for values and drops what it has. Between each two
processes lies a link that keeps order; nothing else is ordered. A *state* is all tables, all links
and what the users may still do. A step is one message delivered or one thing done by a user.

Processes without any part in the first state are interchangeable, so only the first of them may be
given something, or crash, before it has had a part: a state in which C and D stand for each other
is visited once (``virgins``).

Promises, checked in every state: an object that its owner has freed is named by nobody: no handle,
no reference on its way that the taker could use at once. No event raises. Nobody is told that a
hand-over was lost before bytes were. At quiescence (nothing on its way, nothing left to do but what
the budget forbids; handles may always be dropped, so none is left): every table is empty, no gate
is shut, and whoever was given a reference has been able to use it or has been told that its giver
died.

A crash takes a process out between two of its events, also in the middle of a hand-off. Its bytes
on the way still arrive, or, where ``loses`` says so, those to one peer do not (its end of the
connection broke) or those to none (its machine went). Then each peer is told that its stream has
ended; what is sent to it later comes back as one more such end. Losing all that is under way to a
peer is losing any part of it: what would have arrived may do so before the crash.

The timers of ``AskGone`` and of the knock at a late owner are longer than any stream takes to end,
so none goes off, except where ``hasty`` says that so many may, at any time: then a hand-over may be
called lost in vain, and all other promises stand.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any

from core.exploring import Found, Step
from core.exploring import explore as explore_model
from core.world import World, failed, inline, object_id, process, reference, task_id
from freehold.core.entries import Entry, Gate
from freehold.core.ownership import Ownership
from freehold.core.rebirth import NOBODY
from freehold.core.submission import PUSHED, Function, Submission, Task
from freehold.ids import FunctionId, ObjectId, ProcessId
from freehold.wire.messages import (
    Address,
    AskGone,
    Gone,
    Introduce,
    Locate,
    Located,
    Message,
    Provide,
    Reference,
    Release,
    TaskDone,
    Value,
)


class Carry:
    """A message of the program that carries one reference, as a task's arguments do."""

    def __init__(self, ref: Reference) -> None:
        self.ref = ref


class Ended:
    """The end of the stream of a process that crashed."""


class Links(World):
    """A world whose messages go into the links of a model."""

    def __init__(self, model: Model, address: Address) -> None:
        super().__init__(address)
        self.model = model

    def send(self, to: Address, message: Any) -> None:
        self.model.links.setdefault((self.address, to), deque()).append(message)


class Process:
    """One process: its table, its user's wish to know values, and a submission for results."""

    def __init__(self, model: Model, name: str) -> None:
        self.name = name
        self.model = model
        self.address = process(name)
        self.world = Links(model, self.address)
        self.table = Ownership(self.world)
        self.table.handover_lost = self.handover_lost
        self.submission = Submission(self.world, self.table)
        self.table.orphaned = self.orphaned
        self.submission.keep = lambda task, results, worker: False  # (lineage: see afterlife.py)
        self.crashed = False
        self.carrying = 0  # references that came and are neither named nor given up

    def resolved(self, entry: Entry) -> None:
        """As a Waiter: the user asks ``entry.value`` when it wants to."""

    def handle(self, ref: Reference) -> None:
        """User code gets a handle; a second one to the same object adds nothing to the model."""
        if not self.table.entries[ref.object].handles:
            self.table.add_handle(ref)

    def carried(self, ref: Reference, giver: Address) -> None:
        """A reference came as a task's argument does: pinned, and named once it is introduced."""
        self.carrying += 1
        gate = Gate(lambda: self.named(ref), lambda lost: self.given_up(ref, lost))
        self.table.take_in([ref], giver, gate)
        if not gate.waiting:
            self.named(ref)

    def named(self, ref: Reference) -> None:
        self.carrying -= 1
        self.handle(ref)
        self.table.unpin(ref.object)

    def given_up(self, ref: Reference, lost: ProcessId) -> None:
        self.carrying -= 1
        self.handover_lost(lost)
        self.table.unpin(ref.object)

    def handover_lost(self, giver: ProcessId) -> bytes:
        """The error's shipped form; the model judges whether it may be."""
        self.model.blamed(self.name, giver)
        return b"lost by " + giver

    def ended(self, peer: Address) -> None:
        """A stream has ended."""
        for entry in self.table.peer_lost(peer.process):
            self.orphaned(entry)

    def orphaned(self, entry: Entry) -> None:
        """Nobody makes things again here: what a dead process owned is an error."""
        entry.asked = NOBODY
        if entry.value is None:
            self.table.resolve(entry, failed(b"owner died"))

    def deliver(self, message: Any, giver: Address) -> None:
        """What the owner role does with each of these messages."""
        table = self.table
        match message:
            case Carry():
                self.carried(message.ref, giver)
            case Provide():
                table.on_provide(message, giver.process)
            case Introduce():
                table.on_introduce(message)
            case Release():
                table.on_release(message, giver.process)
            case Locate():
                table.on_locate(message, giver)
            case Located():
                table.on_located(message, giver)
            case TaskDone():
                task = self.submission.tasks.get(message.task)
                if task is None or task.attempt != message.attempt:
                    self.submission.discard(message, giver, free=task is None)
                else:
                    self.submission.on_done(task, message, giver)
            case AskGone():
                table.on_ask_gone(message, giver)
            case Gone():
                table.on_gone(message, giver.process)
            case Ended():
                self.ended(giver)
            case _:
                raise AssertionError(f"no test sends {message!r}")


@dataclass
class Program:
    """What is explored. ``setup`` makes the first state; ``sends``, ``crashes`` and ``hasty``
    (timers that go off early) are budgets. ``orphans``: the owner A may crash too.
    """

    names: str
    sends: int
    setup: Callable[[Model], None]
    crashes: int = 0
    locates: bool = False
    loses: bool = False
    hasty: int = 0
    orphans: bool = False
    cap: int = 400_000


class Model:
    """The processes and links in one state."""

    def __init__(self, program: Program) -> None:
        self.links: dict[tuple[Address, Address], deque[Any]] = {}
        self.processes = {name: Process(self, name) for name in program.names}
        self.by_address = {p.address: p for p in self.processes.values()}
        self.sends, self.crashes = program.sends, program.crashes
        self.locates = program.locates
        self.mortal = program.names if program.orphans else program.names.replace("A", "")
        self.loses, self.hasty = program.loses, program.hasty
        self.lost = False  # bytes were
        self.early = False  # a timer was
        self.told: list[str] = []  # who was told that a hand-over was lost, in this path
        self.problem = ""
        program.setup(self)
        self.virgins = [  # those without a part so far, first the one that gets it next
            name
            for name, one in self.processes.items()
            if not one.table.entries and not any(one.address in link for link in self.links)
        ]

    # -- steps

    def steps(self) -> list[Step]:
        """Everything that can happen next."""
        found: list[Step] = [("deliver", *link) for link, queue in self.links.items() if queue]
        for name, giver in self.processes.items():
            if giver.crashed:
                continue
            for key, entry in giver.table.entries.items():
                found += self.user_steps(name, key, entry)
            if self.crashes and name in self.mortal and name not in self.virgins[1:]:
                found += [("crash", name, losing) for losing in self.losses(giver)]
            if self.hasty:
                found += [("hurry", name, which) for which in range(len(giver.world.alarms))]
        return found

    def losses(self, gone: Process) -> list[tuple[Address, ...]]:
        """Whose bytes a crash may lose: nobody's, one peer's or everybody's."""
        under_way = [
            taker
            for (giver, taker), queue in self.links.items()
            if giver == gone.address and queue and not self.by_address[taker].crashed
        ]
        found: list[tuple[Address, ...]] = [()]
        if self.loses:
            found += [(taker,) for taker in under_way]
            if len(under_way) > 1:
                found.append(tuple(under_way))
        return found

    def user_steps(self, name: str, key: ObjectId, entry: Entry) -> list[Step]:
        """What the user of a process may do with one object."""
        if not entry.handles:
            return []
        found: list[Step] = [("drop", name, key)]
        if self.sends:
            takers = [to for to in self.processes if to != name and to not in self.virgins[1:]]
            found += [("pass", name, key, to) for to in takers]
        if self.locates and entry.value is None and entry.waiters is None and entry.task is None:
            found.append(("locate", name, key))
        if entry.value is not None and any(
            not self.processes[name].table.entries[inner.object].handles
            for inner in entry.value.contains
        ):
            found.append(("open", name, key))
        return found

    def take(self, step: Step) -> None:
        """Do one step."""
        kind, *rest = step
        getattr(self, kind)(*rest)

    def touches(self, step: Step) -> frozenset[str]:
        """Its process; all that is bounded is shared, and a crash that loses bytes is a matter of
        their takers too.
        """
        kind, name, *rest = step
        if kind == "deliver":
            return frozenset((self.by_address[rest[0]].name,))
        if kind == "crash":
            takers = (self.by_address[taker].name for taker in rest[0])
            return frozenset((name, "bounds", *takers))
        return frozenset((name, "bounds") if kind in {"pass", "hurry"} else (name,))

    def deliver(self, source: Address, target: Address) -> None:
        message = self.links[source, target].popleft()
        taker = self.by_address[target]
        if not taker.crashed:
            taker.deliver(message, source)
        elif not isinstance(message, Ended):  # refused: the sender learns that the peer is gone
            self.links.setdefault((target, source), deque()).append(Ended())

    def takes_part(self, name: str) -> None:
        """A process is not like the untouched ones any more."""
        if name in self.virgins:
            self.virgins.remove(name)

    def drop(self, name: str, key: ObjectId) -> None:
        self.processes[name].table.drop_handle(key)

    def locate(self, name: str, key: ObjectId) -> None:
        giver = self.processes[name]
        giver.table.wait_for(giver.table.entries[key], giver)

    def open(self, name: str, key: ObjectId) -> None:
        """User code reads a value and gets handles to the references in it."""
        giver = self.processes[name]
        value = giver.table.entries[key].value
        assert value is not None
        for inner in value.contains:
            giver.handle(inner)

    def __getattr__(self, name: str) -> Any:
        if name == "pass":  # a keyword, and the right word
            return self.hand_on
        raise AttributeError(name)

    def hand_on(self, name: str, key: ObjectId, to: str) -> None:
        self.sends -= 1
        self.takes_part(to)
        giver, taker = self.processes[name], self.processes[to].address
        ref = giver.table.reference(key)
        giver.table.hand_out(ref, taker)
        giver.world.send(taker, Carry(ref))

    def hurry(self, name: str, which: int) -> None:
        """A timer of a process goes off, whatever is still on its way."""
        self.hasty -= 1
        self.early = True
        self.processes[name].world.alarms.pop(which).action()

    def crash(self, name: str, losing: tuple[Address, ...]) -> None:
        self.crashes -= 1
        self.takes_part(name)
        gone = self.processes[name]
        gone.crashed = True
        for taker in losing:
            self.lost = True
            self.links[gone.address, taker].clear()
        for other in self.by_address:
            if other != gone.address:
                self.links.setdefault((gone.address, other), deque()).append(Ended())

    # -- promises

    def blamed(self, name: str, giver: ProcessId) -> None:
        """A process is told that a giver's death has cost it a reference."""
        self.told.append(name)
        if not next(p for p in self.processes.values() if p.address.process == giver).crashed:
            self.problem = f"{name} is told that a living process died"
        elif not self.lost and not self.early:
            self.problem = f"{name} is told that a hand-over was lost, and no bytes were"

    def broken(self) -> str:
        """The first promise that this state breaks, or nothing."""
        if self.problem:
            return self.problem
        for name, holder in self.processes.items():
            if holder.crashed:
                continue
            for entry in holder.table.entries.values():
                if entry.handles and entry.owner and not self.owned(entry.object, entry.owner):
                    return f"{name} holds an object that its owner has freed"
        for (source, target), queue in self.links.items():
            for message in queue:
                if isinstance(message, Carry) and message.ref.owner == source:
                    taker = self.by_address[target]
                    if not taker.crashed and not self.owned(message.ref.object, source):
                        return "a freed object's reference is on its way from its owner"
        return ""

    def owned(self, key: ObjectId, owner: Address) -> bool:
        """Whether the owner still has the object; a crashed owner breaks no promise."""
        at = self.by_address[owner]
        return at.crashed or key in at.table.entries

    def left_over(self) -> str:
        """What a quiescent state should not have."""
        for name, holder in self.processes.items():
            if holder.crashed:
                continue
            if holder.table.gates or holder.carrying:
                return f"{name} waits for an introduction that nobody will send"
            for entry in holder.table.entries.values():
                return f"{name} keeps an object for ever: {canonical_entry(entry)}"
        return ""

    def canonical(self) -> Hashable:
        """Equal for equal states."""
        tables = tuple(
            (
                holder.crashed,
                tuple(sorted(canonical_entry(e) for e in holder.table.entries.values())),
                tuple(sorted((key, len(g)) for key, g in holder.table.gates.items())),
                tuple(holder.submission.tasks),
                holder.carrying,
                tuple(sorted(holder.table.lost)),
                canonical_askers(holder.table.askers),
                (len(holder.world.alarms), holder.table.prober is not None) if self.hasty else (),
            )
            for holder in self.processes.values()
        )
        links = tuple(
            sorted(
                (source.process, target.process, tuple(canonical_message(m) for m in queue))
                for (source, target), queue in self.links.items()
                if queue
            )
        )
        return tables, links, tuple(self.virgins), self.sends, self.crashes, self.hasty, self.lost


def canonical_askers(askers: dict[ProcessId, list[Address]]) -> tuple[Any, ...]:
    return tuple(
        sorted((gone, tuple(asker.process for asker in peers)) for gone, peers in askers.items())
    )


def canonical_entry(entry: Entry) -> tuple[Any, ...]:
    return (
        entry.object,
        entry.handles,
        entry.pins,
        entry.received,
        entry.value is not None and (entry.value.kind, entry.value.data),
        entry.waiters is not None and len(entry.waiters),
        tuple(sorted(watcher.process for watcher in entry.watchers or ())),
        tuple(sorted((entry.holders or {}).items())),
        tuple(sorted((entry.owed or {}).items())),
        entry.asked,
    )


def canonical_message(message: Any) -> tuple[Any, ...]:
    match message:
        case Carry():
            return "carry", message.ref.object
        case Provide():
            return "provide", message.object, message.taker.process
        case Introduce():
            return "introduce", message.ref.object, message.giver
        case Release():
            return "release", message.object, message.count
        case Locate():
            return "locate", message.object
        case Located():
            return "located", message.object, message.value.kind
        case AskGone():
            return "ask gone", message.process
        case Gone():
            return "gone", message.process
        case TaskDone():
            return "done", message.task
        case _:
            return ("ended",)


def explore(program: Program) -> Found:
    """Visit every state of a program."""
    return explore_model(lambda: Model(program), program.cap)


# -- first states ----------------------------------------------------------------------------------


def owned_by_a(model: Model) -> None:
    """A owns "x" and holds a handle to it."""
    model.processes["A"].table.own(object_id("x")).handles = 1


def put_holding(model: Model, *, outer: str) -> None:
    """A owns "x"; ``outer`` has put "p", a value that contains it, and holds both."""
    owned_by_a(model)
    putter = model.processes[outer]
    x = reference("x", model.processes["A"].address)
    if outer != "A":
        model.processes["A"].table.hand_out(x, putter.address)
        putter.carried(x, model.processes["A"].address)
    entry = putter.table.own(object_id("p"))
    entry.handles, entry.value = 1, inline(b"p", x)
    putter.table.pin(x.object)


def task_returning(model: Model, *, worker: str, owner: str) -> None:
    """A waits for task "t" at ``worker``, which replies with a value that contains "y" of
    ``owner``.

    The reply is about to leave: handed out, on its way, and the worker still holds a handle to "y".
    """
    a, runner, maker = (model.processes[name] for name in ("A", worker, owner))
    y = reference("y", maker.address)
    maker.table.own(y.object).handles = 1
    if runner is not maker:
        maker.table.hand_out(y, runner.address)
        runner.carried(y, maker.address)
    task = Task(task_id("t"), Function(FunctionId(b"f" * 8), "f", b""), b"", resources={})
    a.submission.placing = Silent()
    a.submission.submit(task)
    task.state = PUSHED
    runner.table.hand_out(y, a.address)
    runner.world.send(a.address, TaskDone(task.id, 0, [inline(b"t", y)]))


class Silent:
    """Leasing that never places anything."""

    def enqueue(self, task: Task) -> None:
        pass

    def withdraw(self, task: Task) -> bool:
        return False


put_by = {name: partial(put_holding, outer=name) for name in "AB"}
__all__ = ["Carry", "Found", "Message", "Model", "Program", "Value", "explore", "put_by"]
