"""Cancelling, the owner's side: how a task that lies at a worker is made to end.

``submission`` tells the worker (``CancelTask``), and the worker interrupts the task, with its
children if that is asked for. That ends everything that hears. What does not hear (a task that
swallows every exception, native code that holds the interpreter, a process that is stopped) ends
with its process: with ``force``, once the *grace* is over, this file asks the worker's node to kill
the worker. The node does it by signal 9 and needs no answer of the worker's.

The life of one killing: arranged -> (the task has left the worker meanwhile: dropped) -> asked
for (``KillLease``) -> the lease ends as with any death (``leasing.bury``), except that nobody is
blamed: the tasks that lay behind the cancelled one run again at no cost. From the moment it is
asked for nothing is pushed to that worker.

A task whose time is over (``limits``) goes the same way, with force and the default grace. It is
told apart by its clock, because it may be tried again.

Races considered: the result that crosses the cancel or the end of the time (it counts: whatever
arrives first); a task that ends while KillLease is on its way (its result counts, the worker dies
all the same); a task given back by its worker, or run again after its worker's death, before the
grace is over (the lease is another: nothing is killed); a cancel repeated, with other graces (each
arranges its own killing, the first one ends it); a ``TaskBegun`` that arrives after the attempt was
buried with its worker's node (the attempt is another).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from freehold.core.leasing import Lease
from freehold.core.limits import Clock
from freehold.core.submission import PUSHED, Submission, Task
from freehold.core.world import World
from freehold.wire.messages import CancelTask, KillLease, TaskBegun

#: Seconds between the interruption and the killing, if the user does not say otherwise. An
#: interruption takes milliseconds; the rest is for ``finally`` blocks. A dead owner's tasks get
#: as long (``workers.VACATE_SECONDS``), so a tree of tasks ends within twice this.
GRACE: Final = 1.0


class Cancelling:
    """Tasks of one owner that have to end."""

    def __init__(self, world: World, submission: Submission) -> None:
        self.world = world
        self.submission = submission
        # the role's: of which lease a task's worker is, if it is not one of ``leasing``
        self.killed: Callable[[Lease], None] = lambda lease: None

    def insist(self, task: Task, grace: float) -> None:
        """The task has been told to end: kill its worker if it has not ended when the grace is
        over.
        """
        if task.state is not PUSHED or not isinstance(task.lease, Lease):
            return
        kill = partial(self.kill, task, task.lease, task.attempt)
        if grace > 0:
            self.world.call_at(self.world.now() + grace, kill)
        else:
            kill()

    def kill(self, task: Task, lease: Lease, attempt: int) -> None:
        """The grace is over."""
        there = task.state is PUSHED and task.lease is lease and task.attempt == attempt
        if there and not lease.killed:
            lease.open = False
            lease.killed = True
            self.world.send(lease.node, KillLease(lease.id))

    # ------------------------------------------------------------------ time

    def on_begun(self, message: TaskBegun) -> None:
        """User code of an attempt has begun: its clock starts."""
        task = self.submission.tasks.get(message.task)
        if task is None or task.state is not PUSHED or task.attempt != message.attempt:
            return
        if task.limits is None or task.clock is not None:
            return
        when = self.world.now() + task.limits.timeout
        timer = self.world.call_at(when, partial(self.expire, task, message.attempt))
        task.clock = Clock(message.attempt, timer)

    def expire(self, task: Task, attempt: int) -> None:
        """The time of an attempt is over: end it as if it were cancelled, by force."""
        clock = task.clock
        if clock is None or clock.attempt != attempt or task.state is not PUSHED or task.cancelled:
            return
        assert task.limits is not None
        clock.expired = True
        worker = task.lease.worker  # type: ignore[attr-defined]  # a leasing.Lease
        message = CancelTask(task.id, True, True, GRACE, task.limits.timeout)
        self.world.send(worker, message)
        self.insist(task, GRACE)
