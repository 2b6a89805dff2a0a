"""Execution: the tasks that lie at a worker, and which of them may run next.

A pushed task first waits until the references in it have been introduced (``ownership``) and its
stored arguments are here (``fetching``); then it is ready, and the thread that runs user code
takes it. Tasks run in the order in which they became ready. If an argument cannot be found, the
task goes back to its owner at once: the argument may have to be made again first, and that may
need the very CPU that this task would hold.

A worker whose task blocks in ``get`` or runs for long gives the tasks behind it back to their
owners (``give_back``): any of them might be what the blocked task waits for, and none should wait
behind a slow one.

A task is answered exactly once per attempt, by TaskDone or TaskReturned.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from freehold.core.entries import Gate, Origin
from freehold.core.fetching import Fetching
from freehold.core.ownership import Ownership
from freehold.core.world import World
from freehold.ids import FunctionId, NodeId, ObjectId, ProcessId, TaskId
from freehold.wire.fetches import ARGUMENT, CALL
from freehold.wire.messages import (
    FAILED,
    STORED,
    Address,
    CancelTask,
    DefineFunction,
    Missing,
    PushTask,
    Reference,
    TaskBegun,
    TaskDone,
    TaskReturned,
    Value,
)

if TYPE_CHECKING:
    from freehold.core.hosting import Hosting

NEVER: Final = float("-inf")


class Run:
    """One task at this worker. ``args``: the values of its top-level references, by slot."""

    __slots__ = (
        "begun",
        "cancelled",
        "found",
        "gate",
        "message",
        "missing",
        "needs",
        "origin",
        "pinned",
        "submitter",
        "timeout",
        "token",
        "told",
    )

    def __init__(self, message: PushTask, submitter: Address) -> None:
        self.message = message
        self.submitter = submitter
        self.found: dict[ObjectId, tuple[int, int]] = {}
        self.missing = 0
        self.needs: Needs | None = None  # waits for its stored arguments
        self.pinned: list[Reference] = []
        self.begun = False
        self.cancelled = False
        self.told = NEVER  # when it was last interrupted
        self.timeout = 0.0  # it is to end because it has run for so many seconds
        self.token: Any = None  # the shell's: what user code asks whether it is cancelled
        self.origin: Origin | None = None
        self.gate: Gate | None = None  # before which the references that came with it are counted

    def args(self) -> Sequence[Value]:
        """The values of the top-level references."""
        return [argument.value for argument in self.message.deps]


class Execution:
    """The queue of one worker."""

    def __init__(self, world: World, ownership: Ownership, fetching: Fetching) -> None:
        self.world = world
        self.ownership = ownership
        self.fetching = fetching
        self.runs: dict[TaskId, Run] = {}
        self.ready: deque[Run] = deque()
        self.functions: dict[FunctionId, DefineFunction] = {}
        self.current: Run | None = None
        self.began = 0.0  # when the current task did
        self.hosting: Hosting | None = None  # once this worker is the home of an actor
        self.slow = False  # the current task has been at it for a while: nothing may wait behind it
        self.cancelled_error: Callable[[Run], bytes]
        # the role's: whether something made in the run is left; what it was to make and did not
        self.run_over: Callable[[TaskId], tuple[bool, list[ObjectId]]]
        self.interrupt: Callable[[Run], None]

    # ------------------------------------------------------------------ tasks in

    def on_define(self, message: DefineFunction) -> None:
        """A function that tasks will name."""
        self.functions[message.function] = message

    def on_push(self, message: PushTask, submitter: Address) -> None:
        """A task: see to its references and arguments."""
        known = self.runs.get(message.task)
        if known is not None and known.message.attempt >= message.attempt:
            return
        run = Run(message, submitter)
        self.runs[message.task] = run
        hosting = self.hosting
        if message.deps or message.borrowed:
            if hosting is not None:
                hosting.pushed(run)
            self.gather(run)
        elif hosting is not None:
            hosting.complete(run)
        else:
            self.ready.append(run)

    def gather(self, run: Run) -> None:
        """Have its references counted, and its arguments brought here."""
        message = run.message
        run.missing = 1  # held until everything has been asked for
        gate = Gate(lambda: self.arrived(run), lambda giver: None)  # (its submitter is gone)
        run.gate = gate
        self.take_references(run, gate, message.borrowed)
        stored = []
        for argument in message.deps:
            value = argument.value
            if value.contains:
                self.take_references(run, gate, value.contains)
            if value.kind == STORED:
                stored.append(argument)
        if stored:
            run.missing += len(stored)
            run.needs = Needs(self, run)
            priority = ARGUMENT if self.hosting is None and message.actor is None else CALL
            self.fetching.fetch_together(stored, run.needs, priority)
        for argument in message.deps:
            if argument.value.kind == FAILED:  # lost between the task's submission and its push
                self.abandon(run)
                self.fail(run, argument.value.data)
                return
        if gate.waiting:
            run.missing += 1  # for the gate
        self.arrived(run)

    def take_references(self, run: Run, gate: Gate, references: Sequence[Reference]) -> None:
        """References that came with the task: pinned until it is answered."""
        self.ownership.take_in(references, run.submitter, gate)
        run.pinned.extend(references)

    def arrived(self, run: Run) -> None:
        """One more of the things that the task needs is here."""
        run.missing -= 1
        if not run.missing and self.runs.get(run.message.task) is run:
            if self.hosting is None:
                self.ready.append(run)
            else:
                self.hosting.arrived(run)

    # ------------------------------------------------------------------ running

    def next(self) -> Run | None:
        """The task to run now; the caller runs it and then calls ``finished``."""
        if not self.ready:
            return None
        run = self.ready.popleft()
        run.begun = True
        self.current = run
        self.began = self.world.now()
        return run

    def user_code_begins(self, run: Run) -> None:
        """All that a task whose time is limited had to wait for is there."""
        self.world.send(run.submitter, TaskBegun(run.message.task, run.message.attempt))

    def finished(self, run: Run, results: list[Value], micros: int, retry: bool) -> None:
        """User code has ended: answer the owner. References in the results are handed to it
        first.
        """
        self.current = None
        self.slow = False
        submitter, message = run.submitter, run.message
        if submitter.process in self.ownership.lost:  # nobody waits for it
            self.run_over(message.task)
            self.drop(run)
            return
        for value in results:
            if value.contains:
                results = [self.ownership.for_peer(value, submitter) for value in results]
                break
        children, unclaimed = self.run_over(message.task)
        self.world.send(
            submitter,
            TaskDone(message.task, message.attempt, results, micros, retry, children, unclaimed),
        )
        self.drop(run)  # (after it: what we release is the submitter's again by then)

    def drop(self, run: Run) -> None:
        """Forget an answered task and what was held for it."""
        del self.runs[run.message.task]
        for ref in run.pinned:
            self.ownership.unpin(ref.object)

    def give_back(self) -> None:
        """Return every task that has not begun. (An actor is the only place for its calls.)"""
        if self.hosting is not None:
            return
        for run in list(self.runs.values()):
            if not run.begun:
                self.abandon(run)
                self.world.send(run.submitter, TaskReturned(run.message.task, run.message.attempt))

    def argument_missing(self, run: Run, object_id: ObjectId, tried: Sequence[NodeId]) -> None:
        """An argument is not where it was said to be: the task's owner has to see to it."""
        if self.runs.get(run.message.task) is run and not run.begun:
            self.abandon(run, returned=True)
            message = run.message
            lost = Missing(object_id, list(tried))
            self.world.send(run.submitter, TaskReturned(message.task, message.attempt, [lost]))

    def abandon(self, run: Run, *, returned: bool = False) -> None:
        """A task that will not run here, now that it is over or ``returned`` for want of an
        argument: release what was fetched for it.
        """
        message = run.message
        if run in self.ready:
            self.ready.remove(run)
        run.missing = -1_000_000  # late arrivals change nothing
        for object_id in run.found:
            self.fetching.release(object_id)
        run.found.clear()
        if run.needs is not None:
            for argument in message.deps:
                self.fetching.abandon(argument.ref.object, run.needs)
        self.drop(run)
        if self.hosting is not None:
            if returned:
                self.hosting.returned(run)
            else:
                self.hosting.left(run)

    # ------------------------------------------------------------------ ends

    def on_cancel(self, message: CancelTask) -> None:
        """The owner wants the task to end."""
        run = self.runs.get(message.task)
        if run is None:
            if self.hosting is not None:
                self.hosting.given_up(message.task)
            return
        run.cancelled = True
        run.timeout = message.timeout
        now = self.world.now()
        if not run.begun:
            self.abandon(run)
            self.fail(run, self.cancelled_error(run))
        elif now - run.told >= message.grace:
            run.told = now
            self.interrupt(run)

    def fail(self, run: Run, error: bytes) -> None:
        """Answer an abandoned task with an error."""
        message = run.message
        results = [Value(FAILED, error)] * message.num_returns
        children, unclaimed = self.run_over(
            message.task
        )  # (of an earlier run something may be left)
        unclaimed += [claim.object for claim in message.claims]
        done = TaskDone(message.task, message.attempt, results)
        done.children, done.unclaimed = children, unclaimed
        self.world.send(run.submitter, done)

    def peer_lost(self, process: ProcessId) -> None:
        """An owner is gone: nobody waits for its tasks."""
        for run in list(self.runs.values()):
            if run.submitter.process == process:
                if not run.begun:
                    self.abandon(run)
                elif self.hosting is None:
                    run.cancelled = True
                    self.interrupt(run)
        if self.hosting is not None:
            self.hosting.caller_lost(process)


class Needs:
    """Waits for the stored arguments of a task, each of which is told by itself."""

    __slots__ = ("execution", "run")

    def __init__(self, execution: Execution, run: Run) -> None:
        self.execution = execution
        self.run = run

    def fetched(self, object_id: ObjectId, offset: int, size: int) -> None:
        """It is here, pinned until the task's last view of it is gone."""
        if self.run.missing < 0 or object_id in self.run.found:
            self.execution.fetching.release(object_id)
        else:
            self.run.found[object_id] = (offset, size)
        self.execution.arrived(self.run)

    def missing(self, object_id: ObjectId, tried: Sequence[NodeId]) -> bool:
        """It has to be found or made again, and not while we hold a worker. (A call waits: it has
        its place in the order, and no other worker.)
        """
        if tried and self.execution.hosting is not None:
            return False
        self.execution.argument_missing(self.run, object_id, tried)
        return True

    def unfetched(self, object_id: ObjectId, value: Value) -> None:
        """It is not stored after all: use the value that the owner has now."""
        for argument in self.run.message.deps:
            if argument.ref.object == object_id:
                argument.value = value
        if self.run.missing < 0:
            return
        if value.kind == FAILED:
            self.execution.abandon(self.run)
            self.execution.fail(self.run, value.data)
        else:
            self.execution.arrived(self.run)
