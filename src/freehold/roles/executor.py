"""The executor: a worker is an owner that also runs tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from freehold.core.entries import Origin
from freehold.core.execution import Execution, Run
from freehold.core.fetching import Creation as Room
from freehold.core.hosting import Hosting
from freehold.core.telling import Awaits
from freehold.core.telling import Blocked as BlockedIn
from freehold.core.world import World
from freehold.core.yielding import Yielding
from freehold.ids import FunctionId, JobId, ObjectId, ProcessId, TaskId
from freehold.roles.owner import Errors, Owner
from freehold.wire.messages import (
    ActorExited,
    Address,
    Blocked,
    CancelTask,
    Claim,
    ClaimFrom,
    CloseStream,
    Creation,
    DefineFunction,
    EndActor,
    Inherited,
    Message,
    ObjectAt,
    ObjectMoved,
    ObjectsGiven,
    PushTask,
    Retire,
    Stop,
    StreamTaken,
    Unblocked,
    Vacate,
    Vacated,
    Value,
)

NO_JOB: Final = JobId(b"")


class Executor(Owner):
    """An owner with a queue of tasks to run."""

    def __init__(self, world: World, errors: Errors, node: Address, job: JobId) -> None:
        super().__init__(world, errors, node, job)
        self.execution = Execution(world, self.ownership, self.fetching)
        self.acting.calls.by_task = True
        self.telling.execution = self.execution
        self.execution.cancelled_error = lambda run: errors.cancelled(run.message.name)
        executing: dict[type[Message], Callable[[Any, Address], None]] = {
            PushTask: self.on_push,
            DefineFunction: lambda message, peer: self.execution.on_define(message),
            CancelTask: self.on_cancel,
            ClaimFrom: lambda message, peer: self.claim_from(message.task, message.claim, peer),
        }
        self.execution.run_over = self.rebirth.run_over
        self.yielding = Yielding(world, self.ownership, self.execution)
        self.handlers[StreamTaken] = lambda message, peer: self.yielding.on_taken(message)
        self.handlers[CloseStream] = lambda message, peer: self.yielding.on_close(message)
        self.vacating: set[ProcessId] = set()
        self.calls: Counter[FunctionId] = Counter()  # of functions with a limit
        self.retired = False
        self.end_actor: Callable[[], None]  # the shell's: in good order, when the actor is idle
        self.abort_actor: Callable[[], None]  # the shell's: at once, its owner is gone
        self.handlers[Vacate] = lambda message, peer: self.on_vacate(message.owner)
        self.handlers[ObjectsGiven] = lambda message, peer: self.estate.on_word(peer.process)
        self.handlers[Inherited] = lambda message, peer: self.estate.on_word(peer.process)
        self.handlers[EndActor] = lambda message, peer: self.end_actor()
        self.handlers.update(executing)
        for kind in (ObjectAt, ObjectMoved):
            self.handlers[kind] = partial(self.unless_given, self.handlers[kind])

    def create(
        self, object_id: ObjectId, size: int, owner: Address, wake: Callable[[], None]
    ) -> Room:
        """Room for a value in this node's store. What an actor makes for a caller is the caller's,
        who may be of another job, and goes with the caller, not with the job of the actor.
        """
        callers = self.execution.hosting is not None and owner != self.world.address
        if not callers:
            return super().create(object_id, size, owner, wake)
        return self.creating.create(object_id, size, owner, NO_JOB, wake)

    def on_cancel(self, message: CancelTask, peer: Address) -> None:
        self.execution.on_cancel(message)
        self.yielding.nudge(message.task)
        if message.recursive:
            self.cancel_children(message.task, force=message.force, grace=message.grace)

    def origin(self, run: Run) -> Origin:
        """The running task makes something for the first time, or something is claimed from it."""
        message = run.message
        if run.origin is None:
            run.origin = self.rebirth.begin(message.task, run.submitter, message.line, ())
        return run.origin

    def begin(self) -> Run | None:
        """The task to run now, if one is ready; the caller runs it and then calls
        ``execution.finished``.
        """
        run = self.execution.next()
        if run is not None and run.message.claims:
            message = run.message
            run.origin = self.rebirth.begin(
                message.task, run.submitter, message.line, message.claims
            )
        return run

    def claim_from(self, task: TaskId, claim: Claim, submitter: Address) -> None:
        """A claim on what our run of a task has made or will make."""
        run = self.execution.runs.get(task)
        if run is not None and not run.begun:
            run.message.claims = [*run.message.claims, claim]
            return
        if run is not None:
            self.origin(run)
        self.rebirth.on_claim_from(task, claim, submitter)

    def on_push(self, message: PushTask, peer: Address) -> None:
        self.execution.on_push(message, peer)
        if self.execution.slow:
            self.execution.give_back()

    def give_way(self) -> None:
        """The running task has been at it for a while: nothing waits behind it, now or until it
        ends.
        """
        if self.execution.current is not None:
            self.execution.slow = True
        self.execution.give_back()

    def block(self, awaited: Awaits, deadline: float | None) -> None:
        """The running task waits in ``get``, until ``deadline`` at most: its CPUs are lent out and
        nothing waits behind it.
        """
        self.telling.blocked = BlockedIn(awaited, self.world.now(), deadline)
        self.give_way()
        self.world.send(self.node, Blocked())

    def unblock(self) -> None:
        """The running task goes on."""
        self.telling.blocked = None
        self.world.send(self.node, Unblocked())

    def unless_given(
        self, handler: Callable[[Any, Address], None], message: ObjectAt | ObjectMoved, by: Address
    ) -> None:
        """A node says something of a copy: if we have handed the object over its heir is told."""
        if not (self.estate.leaving and self.estate.pass_on(message)):
            handler(message, by)

    def host(self, run: Run) -> Hosting:
        """The constructor of an actor is about to run: from now on this worker is its home."""
        assert isinstance(run.message.actor, Creation)
        hosting = Hosting(self.execution, run.message.actor, run.submitter)
        self.execution.hosting = hosting
        self.acting.calls.by_task = False  # (from now on it is the actor that calls)
        return hosting

    def exit_actor(self) -> None:
        """The actor ends itself: its owner shall not take this for an accident."""
        assert self.execution.hosting is not None
        self.world.send(self.execution.hosting.owner, ActorExited())

    def finished(self, run: Run, results: list[Value], micros: int, retry: bool) -> None:
        """The running task's user code has ended."""
        self.execution.finished(run, results, micros, retry)
        if self.execution.hosting is not None:
            if type(run.message.actor) is not Creation:
                self.execution.hosting.finished(run)
            return
        if self.vacating:
            self.vacate()
        if run.message.max_calls:
            self.calls[run.message.function] += 1
            if not self.retired and self.calls[run.message.function] >= run.message.max_calls:
                self.retired = True
                self.world.send(self.node, Retire())
        if self.retired:
            self.execution.slow = True  # what is pushed now goes back
            self.execution.give_back()

    def on_vacate(self, owner: ProcessId) -> None:
        """Our node asks us to let go of a dead owner's tasks."""
        self.vacating.add(owner)
        self.vacate()

    def vacate(self) -> None:
        """Tell our node of which dead owners nothing runs here: their streams have ended, so that
        nothing will.
        """
        running = {run.submitter.process for run in self.execution.runs.values()}
        for owner in sorted((self.vacating & self.ownership.lost) - running):
            self.vacating.discard(owner)
            self.world.send(self.node, Vacated(owner))

    def stop(self, message: Stop) -> None:
        """Asked to exit, if nothing keeps us here: ``estate.gone`` is called when we may.

        What we own keeps us unless we have to hand it over: here it can be made again if it is lost
        with a node, its heir can only keep it.
        """
        if self.estate.leaving or not self.may_leave():
            return
        if (message.hand_over or not self.ownership.entries) and self.estate.leave():
            self.execution.slow = True  # what is pushed now goes back

    def may_leave(self) -> bool:
        """Whether nobody needs this process: no task runs here or for us, none that we keep may
        have to run again for others, and no worker is leased, which would be killed as that of a
        dead owner, with what it owns.
        """
        leasing = self.leasing
        return not (
            self.acting.busy()
            or self.execution.runs
            or self.submission.tasks
            or leasing.leases
            or leasing.asked
            or any(task.homes for task in self.lineage.tasks.values())
        )

    def peer_lost(self, peer: Address) -> None:
        """Tasks of a dead owner are dropped."""
        super().peer_lost(peer)
        self.yielding.peer_lost(peer.process)
        self.execution.peer_lost(peer.process)
        hosting = self.execution.hosting
        if hosting is not None and hosting.owner.process == peer.process:
            self.abort_actor()
        self.vacate()
        self.estate.on_word(peer.process)
