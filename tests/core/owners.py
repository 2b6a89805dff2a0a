"""An owner whose node and workers are played by the test: for tests of leasing and of the role."""

from __future__ import annotations

from typing import Any

from core.world import (
    World,
    cpus,
    death,
    function_id,
    info,
    inline,
    job,
    lease,
    node,
    process,
    stored,
    task_id,
)
from freehold.core.entries import Entry
from freehold.core.leasing import (
    HOLD,
)
from freehold.core.submission import Function, Task
from freehold.ids import ObjectId, TaskId, return_id
from freehold.resources import Resources
from freehold.roles.owner import Owner
from freehold.wire.messages import (
    Address,
    DefineFunction,
    LeaseEnded,
    LeaseGranted,
    Message,
    NodeChanged,
    PushTask,
    Reference,
    RequestLease,
    ReturnLease,
    TaskDone,
    Value,
)

NODE, NEAR = node(), node("near")


class Errors:
    """System errors as plain words."""

    def __getattr__(self, kind: str) -> Any:
        return lambda *facts, **flags: f"{kind}: {facts[0]}".encode()


class Bench:
    """An owner with tasks of a few functions; workers are named w1, w2, ... by their lease."""

    role: type[Owner] = Owner

    def __init__(self, world: World) -> None:
        self.world = world
        self.owner = self.role(world, Errors(), NODE, job())  # type: ignore[arg-type]
        self.functions: dict[str, Function] = {}
        self.count = 0

    def function(self, name: str, micros: float | None = None) -> Function:
        if name not in self.functions:
            self.functions[name] = Function(function_id(name), name, b"code")
        if micros is not None:
            self.functions[name].micros = None
            self.functions[name].measured(micros)
        return self.functions[name]

    def submit(
        self,
        function: str = "f",
        *,
        micros: float | None = None,
        resources: Resources | None = None,
        **options: Any,
    ) -> Task:
        self.count += 1
        name = f"t{self.count}"
        task = Task(
            task_id(name),
            self.function(function, micros),
            b"args",
            resources=resources or cpus(1),
            name=name,
            **options,
        )
        self.owner.submit(task)
        return task

    def say(self, message: Message, by: Address = NODE) -> None:
        self.owner.handle(message, by)

    def grant(self, number: int) -> None:
        self.say(LeaseGranted(lease(number), worker(number), 100 + number))

    def done(self, task: Task, number: int, micros: int = 10, **fields: Any) -> None:
        results = fields.pop("results", [inline()] * len(task.returns))
        self.say(TaskDone(task.id, task.attempt, results, micros, **fields), worker(number))

    def end(self, number: int) -> None:
        """The worker dies: its stream ends and its node says how."""
        self.owner.peer_lost(worker(number))
        self.say(LeaseEnded(lease(number), death("SIGKILL")))

    def pushed(self, number: int) -> list[TaskId]:
        """Claim what was pushed to a worker; its function comes before its first task."""
        self.world.take(DefineFunction, worker(number))
        return [message.task for message in self.world.take(PushTask, worker(number))]

    def asked(self) -> int:
        return len(self.world.take(RequestLease))

    def running(self, count: int = 1, **options: Any) -> list[Task]:
        """That many tasks of a short function, all at worker 1."""
        first = self.submit(micros=1.0, **options)
        self.grant(1)
        tasks = [first, *(self.submit(**options) for _ in range(count - 1))]
        assert self.pushed(1) == [task.id for task in tasks]
        self.asked()
        return tasks

    def value(self, task: Task, index: int = 0) -> Value | None:
        return self.owner.ownership.entries[ObjectId(task.id + index.to_bytes(4, "big"))].value

    def drop(self, *tasks: Task) -> None:
        for task in tasks:
            self.owner.ownership.drop_handle(ObjectId(task.id + bytes(4)))

    def finished(self) -> None:
        """Nothing is left but what the tests hold."""
        self.world.advance(2 * HOLD)
        self.world.take(ReturnLease)
        leasing = self.owner.leasing
        assert (leasing.leases, leasing.asked, leasing.by_worker) == ({}, {}, {})
        assert self.owner.submission.tasks == {}


def worker(number: int) -> Address:
    return process(f"w{number}")


class Words(Errors):
    """Says why a value is lost, and whether for want of lineage."""

    def lost(self, key: ObjectId, reason: str, *, evicted: bool = False) -> bytes:
        return f"{'evicted' if evicted else 'lost'}: {reason}".encode()


class Home(Bench):
    """An owner with one worker that runs whatever it is sent, and values in the store of NEAR."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.owner.errors = Words()  # type: ignore[assignment]
        self.lineage = self.owner.lineage
        self.at: dict[TaskId, tuple[int, PushTask]] = {}  # tasks that have come to a worker

    def work(self, *expected: Task, at: Address = NEAR, **fields: Any) -> None:
        """Each of these comes to a worker, one after the other, and is done; the results are stored
        ``at``.
        """
        for task in expected:
            number = self.taken(task)
            results = [stored(100, at) for _ in range(len(task.returns))]
            self.done(task, number, **{"results": results} | fields)

    def taken(self, task: Task) -> int:
        """The number of the worker to which this task has come; what is asked for is granted."""
        return self.push_of(task)[0]

    def push_of(self, task: Task) -> tuple[int, PushTask]:
        """The same, and with what message."""
        while requests := self.world.take(RequestLease):
            for request in requests:
                if request.lease in self.owner.leasing.asked:
                    self.grant(int.from_bytes(request.lease, "big"))
        self.world.take(DefineFunction)
        for to, message in list(self.world.sent):
            if isinstance(message, PushTask):
                assert message.task not in self.at, "it has come twice"
                self.at[message.task] = (int(to.process.strip(b"w.")), message)
        self.world.take(PushTask)
        return self.at.pop(task.id)

    def rest(self) -> None:
        """Nothing has come that no test has taken, and leases go back."""
        assert self.at == {}
        self.world.take(RequestLease)
        self.finished()

    def made(self, **options: Any) -> Task:
        """A task that is done; its results are stored at NEAR and held."""
        task = self.submit(**options)
        self.work(task)
        return task

    def ref(self, task: Task, index: int = 0) -> Reference:
        return Reference(return_id(task.id, index), self.world.address)

    def entry(self, task: Task, index: int = 0) -> Entry:
        return self.owner.ownership.entries[return_id(task.id, index)]

    def node_dies(self, address: Address = NEAR) -> None:
        self.say(NodeChanged(info(address, {}, alive=False, reason="lost power")))

    def nothing_kept(self) -> None:
        """All books are empty."""
        self.rest()
        counts = self.owner.counts()
        assert counts == dict.fromkeys(counts, 0)
        assert (self.lineage.size, self.lineage.strays) == (0, {})
