"""An owner that creates and calls actors, whose node and workers are played by the test."""

from __future__ import annotations

from core.owners import NODE, Bench, worker
from core.world import World, death, function_id, inline, lease, task_id
from freehold.core.calls import ActorTask
from freehold.core.entries import Entry
from freehold.core.submission import Function, Task
from freehold.ids import ObjectId, TaskId, return_id
from freehold.wire.actors import Place, packed
from freehold.wire.messages import (
    ACTOR,
    Address,
    Call,
    Creation,
    DefineFunction,
    LeaseEnded,
    LeaseGranted,
    PushTask,
    Reference,
    Release,
    RequestLease,
    TaskDone,
    Value,
)


def place(number: int, life: int = 0) -> Value:
    """The value of an actor that lives in worker ``number``."""
    return Value(ACTOR, packed(Place(worker(number), life)))


class Stage(Bench):
    """Actors are a1, a2, ...; their calls c1, c2, ...; workers as in ``Bench``."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.acting = self.owner.acting
        self.actors = 0
        self.named: dict[TaskId, str] = {}

    def task(self, name: str, what: Call | Creation, **options: object) -> ActorTask:
        function = Function(function_id("A"), "A", b"code")
        task = ActorTask(
            task_id(name),
            function,
            b"args",
            resources={},
            name=name,
            **options,  # type: ignore[arg-type]
        )
        task.actor = what
        self.named[task.id] = name
        return task

    def create(self, restarts: int = 0, deps: list[Reference] | None = None) -> ActorTask:
        """Ask for an actor."""
        self.actors += 1
        task = self.task(f"a{self.actors}", Creation(), max_retries=-1, deps=deps or [])
        self.acting.create(task, restarts)
        return task

    def living(self, restarts: int = 0, number: int = 1) -> ObjectId:
        """An actor that lives in worker ``number``, which is its first lease."""
        task = self.create(restarts)
        self.world.one(RequestLease)
        self.grant(number)
        self.made(task, number)
        return return_id(task.id, 0)

    def grant(self, number: int) -> None:
        self.say(LeaseGranted(lease(number), worker(number), 100 + number))

    def made(self, task: Task, number: int, life: int = 0) -> None:
        """The constructor has run in worker ``number``."""
        assert self.pushed(number) == [task.id]
        self.done(task, number, results=[place(number, life)])

    def call(
        self,
        actor: ObjectId,
        *,
        ordered: bool = True,
        retries: int = 0,
        deps: list[Reference] | None = None,
        parent: str = "",
    ) -> ActorTask:
        """Call an actor, in the task ``parent`` if this process runs tasks."""
        self.count += 1
        task = self.task(f"c{self.count}", Call("m"), max_retries=retries, deps=deps or [])
        task.parent = task_id(parent) if parent else None
        self.acting.calls.submit(task, self.acting.calls.callee(actor, ordered=ordered))
        return task

    def sent(self, number: int) -> list[str]:
        """Claim the calls that were pushed to a worker, by name."""
        return [self.named[m.task] for m in self.world.take(PushTask, worker(number))]

    def answer(self, task: Task, number: int, *results: Value) -> None:
        self.say(TaskDone(task.id, task.attempt, list(results) or [inline()], 10), worker(number))

    def stream_ends(self, number: int) -> None:
        self.owner.peer_lost(worker(number))

    def reaped(self, number: int) -> None:
        self.say(LeaseEnded(lease(number), death("SIGKILL")))

    def outcome(self, task: Task) -> bytes | None:
        """What a call has come to."""
        value = self.value(task)
        return value.data if value is not None else None

    def entry_of(self, actor: ObjectId) -> Entry:
        return self.owner.ownership.entries[actor]

    def let_go(self, actor: ObjectId) -> None:
        """The last handle is dropped."""
        self.owner.ownership.drop_handle(actor)

    def empty(self) -> None:
        """Nothing is left."""
        self.world.take(DefineFunction)
        counts = self.owner.counts()
        assert counts == dict.fromkeys(counts, 0)


__all__ = ["NODE", "Address", "Release", "Stage", "place", "worker"]
