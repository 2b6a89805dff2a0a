"""Promises about actors, seen from above: who calls whom, in which order, and which lives there
are.

The order of calls and the number of lives cannot be read off the values that programs see, for
what a call returns depends on its arguments alone (``programs``): they are looked at here, when
user code of a constructor or of a call begins. Which errors may come of a life that ends is judged
here too, for ``causes``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from freehold.core.execution import Run
from freehold.core.submission import Task
from freehold.ids import ObjectId, ProcessId, TaskId, return_id
from freehold.sim.acting import Handle
from freehold.sim.errors import Failure
from freehold.sim.world import MICRO, Violation
from freehold.wire.messages import Creation

if TYPE_CHECKING:
    from freehold.sim.cluster import Cluster
    from freehold.sim.user import UserProcess
    from freehold.sim.worker import WorkerProcess


@dataclass
class Called:
    """One call: by whom, the how many-th of that caller's to that actor, of which life it has been
    begun last. A program is one caller, an actor is, and of a worker each task."""

    caller: tuple[ProcessId, TaskId | None]
    actor: ObjectId
    number: int
    begun_in: WorkerProcess | None = None


class Acts:
    """What has happened to the actors of one run."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.calls: dict[TaskId, Called] = {}
        self.numbers: Counter[tuple[tuple[ProcessId, TaskId | None], ObjectId]] = Counter()
        self.lives: dict[ObjectId, list[WorkerProcess]] = {}
        self.latest: dict[tuple[WorkerProcess, tuple[ProcessId, TaskId | None]], int] = {}
        self.killed: set[str] = set()  # by the place in its program: for good
        self.quits: set[str] = set()
        self.deadly = 0  # what hosts die of just after a call has begun

    # ------------------------------------------------------------------ what user code does

    def on_call(self, process: UserProcess, task: Task, actor: Handle) -> None:
        """User code calls an actor."""
        one_caller = process.kind == "driver" or getattr(process, "host", None) is not None
        caller = (process.address.process, None if one_caller else task.parent)
        key = (caller, actor.ref.object)
        self.numbers[key] += 1
        self.calls[task.id] = Called(*key, self.numbers[key])
        self.cluster.world.mark("an actor is called")

    def on_kill(self, actor: Handle, *, restart: bool) -> None:
        """User code kills one."""
        assert actor.kind is not None
        self.cluster.world.mark("an actor is killed")
        if not restart:
            self.killed.add(actor.kind.path)

    def on_quit(self, worker: WorkerProcess, run: Run) -> None:
        """An actor ends itself."""
        assert worker.host is not None
        self.cluster.world.mark("an actor ends itself")
        self.quits |= {worker.host.path, run.message.name}

    # ------------------------------------------------------------------ what workers run

    def on_begin(self, worker: WorkerProcess, run: Run) -> None:
        """User code of a task, a constructor or a call begins."""
        if run.message.actor is None:
            if worker.host is not None:
                raise Violation("an actor's calls", f"{worker.name} hosts one and runs a task")
        elif type(run.message.actor) is Creation:
            self.on_life(worker, return_id(run.message.task, 0))
        else:
            self.on_run(worker, run, self.calls[run.message.task])

    def on_life(self, worker: WorkerProcess, actor: ObjectId) -> None:
        """A constructor begins: the only one at this time, and not one too many."""
        kind = self.cluster.actors[actor]
        lives = self.lives.setdefault(actor, [])
        for other in lives:
            cut_off = {other.address.node, worker.address.node} & self.cluster.declared
            if other.alive and not cut_off:
                raise Violation("one life", f"{kind.path} in {worker.name}, lives in {other.name}")
        lives.append(worker)
        node = self.cluster.node_number(kind.op.node)
        if node not in (None, worker.node) and not self.cluster.struck:
            raise Violation("placement", f"{kind.path} belongs on {node.name}, is in {worker.name}")
        if len(lives) > 1:
            self.cluster.world.mark("another life")
        if 0 <= kind.op.restarts < len(lives) - 1:
            raise Violation(
                "one life", f"{kind.path} lives {len(lives)} times, {kind.op.restarts} restarts"
            )

    def on_run(self, worker: WorkerProcess, run: Run, called: Called) -> None:
        """A call begins: where its actor lives, and after those that its caller sent before."""
        name, host = run.message.name, worker.host
        if host is None or host.actor != called.actor or not host.made:
            raise Violation("an actor's calls", f"{name} begins in {worker.name}, not its actor")
        kind = self.cluster.actors[called.actor]
        if kind.ordered:
            self.check_order(worker, name, called)
        elif len(host.beside) > kind.op.limit:
            raise Violation("an actor's calls", f"{worker.name} runs {len(host.beside)} at once")
        called.begun_in = worker
        if self.deadly:
            self.deadly -= 1
            self.cluster.world.mark("a host dies of a call")
            delay = int(MICRO * 10 ** (4 * self.cluster.world.stream("faults").random()))
            self.cluster.world.after(delay, lambda: worker.die("killed in a call"))

    def check_order(self, worker: WorkerProcess, name: str, called: Called) -> None:
        """One caller's calls begin in the order in which it made them, in each life anew. (One
        that has run and is run again comes when it comes.)
        """
        key = (worker, called.caller)
        if called.number < self.latest.get(key, 0) and called.begun_in is None:
            raise Violation(
                "call order",
                f"{worker.name} begins {name}, number {called.number} of its caller's calls, after "
                f"number {self.latest[key]}",
            )
        self.latest[key] = max(called.number, self.latest.get(key, 0))

    # ------------------------------------------------------------------ errors

    def missing(self, failure: Failure) -> str:
        """Why an error about an actor cannot be, or nothing."""
        place, _, how = failure.about.partition(":")
        causes = self.cluster.watch.causes
        lost = causes.node_died()
        if failure.kind == "actor_ended":
            if "kill()" in how:
                return "" if place in self.killed else "nobody has killed it"
            if "quit" in how or "exit_actor" in how:
                return "" if place in self.quits else "it has not ended itself"
            gone = any(not driver.alive for driver in self.cluster.drivers)
            return "" if gone or lost or causes.deaths else "who created it is there"
        if not causes.deaths and not lost:
            return "no worker died"
        if failure.kind == "actor_died":
            kinds = self.cluster.actors.values()
            restarts = next(kind.op.restarts for kind in kinds if kind.path == place)
            if restarts < 0:
                return "it is made again however often it dies"
            if not lost and len(causes.deaths) <= restarts:
                return f"it has {restarts} restarts, and {len(causes.deaths)} workers have died"
        return ""
