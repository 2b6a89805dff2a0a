"""A process that holds what a dead owner owned, submitted what made it, or runs that again."""

from __future__ import annotations

from core.owners import Home
from core.world import World, cpus, failed, inline, lease, process, task_id
from freehold.core.entries import Entry
from freehold.core.execution import Run
from freehold.core.submission import Task
from freehold.ids import FunctionId, ObjectId, TaskId, return_id
from freehold.roles.executor import Executor
from freehold.wire.messages import (
    Address,
    Claim,
    Claimed,
    ClaimObject,
    Link,
    PushTask,
    Reference,
    TaskDone,
    Value,
)

DEAD, BOSS, CHIEF = process("dead"), process("boss"), process("chief")
NEW, NEXT, THIRD = process("new"), process("next"), process("third")
PARENT, CHILD = task_id("parent"), task_id("child")
#: What DEAD owned was made in a run of CHILD, which BOSS submitted, and that in one of PARENT,
#: which CHIEF did.
LINE = (Link(CHILD, BOSS), Link(PARENT, CHIEF))


def named(name: str, run: str) -> ObjectId:
    """What a run calls the object of that name."""
    return return_id(TaskId(name.encode().ljust(8, b".") + run.encode().ljust(8, b".")), 0)


OLD, MADE = named("x", "first"), named("x", "second")
X = Reference(OLD, DEAD, LINE)
REBORN = Reference(MADE, NEW, (Link(CHILD, BOSS),))


class Hand(Home):
    """A worker: it holds, submits and runs."""

    role = Executor

    def __init__(self, world: World) -> None:
        super().__init__(world)
        assert isinstance(self.owner, Executor)
        self.hand = self.owner
        self.hand.execution.interrupt = lambda run: None
        self.rebirth = self.owner.rebirth
        self.me = world.address

    def loop(self) -> None:
        """What we send to ourselves arrives."""
        while to_us := [(to, message) for to, message in self.world.sent if to == self.me]:
            self.world.sent.remove(to_us[0])
            self.say(to_us[0][1], self.me)

    # -- the holder

    def hold(self, ref: Reference = X, value: Value | None = None) -> Entry:
        """Our user code holds a reference that its owner gave us."""
        entry = self.owner.ownership.entries[ref.object] = Entry(ref.object, ref.owner, ref.line)
        entry.handles, entry.received, entry.value = 1, 1, value
        return entry

    def claimed(self, at: Address, by: Address) -> None:
        self.say(Claimed(OLD, at), by)

    def error(self, object_id: ObjectId = OLD) -> str:
        value = self.owner.ownership.entries[object_id].value
        assert value is not None
        assert value.kind == failed().kind
        return str(value.data.decode())

    def let_go(self, object_id: ObjectId) -> None:
        self.owner.ownership.drop_handle(object_id)

    # -- the runner

    def run(self, *claims: Claim, line: tuple[Link, ...] = (), begin: bool = True) -> Run:
        """BOSS pushes CHILD to us, and it begins."""
        push = PushTask(CHILD, 0, lease(1), FunctionId(b"function"), b"")
        push.claims, push.line = list(claims), line
        self.say(push, BOSS)
        run = self.hand.begin() if begin else self.hand.execution.runs[CHILD]
        assert run is not None
        return run

    def put(self, run: Run, object_id: ObjectId = MADE, value: Value | None = None) -> Entry:
        self.owner.put(object_id, value or inline(), self.hand.origin(run))
        return self.owner.ownership.entries[object_id]

    def call(self, task_id: TaskId, run: Run) -> Task:
        """The run submits a task."""
        task = Task(
            task_id,
            self.function("g"),
            b"args",
            resources=cpus(1),
            name="g",
            origin=self.hand.origin(run),
        )
        self.owner.submit(task)
        return task

    def finish(self, run: Run, *results: Value, retry: bool = False) -> None:
        self.hand.execution.finished(run, list(results) or [inline()], 5, retry)

    def answer(self, *, children: bool = False, unclaimed: list[ObjectId] | None = None) -> None:
        """This is what BOSS is told, and nobody anything else."""
        done = TaskDone(CHILD, 0, [inline()], 5, False, children, unclaimed or [])
        self.world.expect((BOSS, done))

    def nothing_left(self) -> None:
        """All books are empty."""
        self.nothing_kept()
        assert (self.rebirth.orphans, self.rebirth.sponsors) == ({}, {})


def claim(holder: Address = THIRD, *path: TaskId, dead: Address = DEAD) -> Claim:
    return Claim(OLD, holder, dead.process, list(path) or [CHILD])


def mine(*path: TaskId) -> ClaimObject:
    """Our claim on x, as it is sent."""
    return ClaimObject(claim(process("me"), *path))
