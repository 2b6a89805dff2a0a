"""Promises about cancelling, seen from above: who is cancelled, who ends, and when.

User code asks (``on_cancel``); what the roles make of it passes ``watch``: each task that an owner
is about to cancel must have been asked for, itself or, recursively, by way of one that it stands
under. In profiles without anything that holds up messages (``Profile.timely``) what is cancelled by
force must also end in time, and what stands under it if that is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from freehold.core.leasing import Lease
from freehold.core.submission import DONE, Task
from freehold.core.workers import VACATE_SECONDS
from freehold.ids import ProcessId, TaskId
from freehold.sim.ops import Cancel
from freehold.sim.world import SECOND, Violation, nanoseconds
from freehold.wire.messages import KillLease

if TYPE_CHECKING:
    from freehold.sim.acting import Handle
    from freehold.sim.cluster import Cluster
    from freehold.sim.process import Process
    from freehold.sim.user import UserProcess

#: For the messages on the way and the death's report: four frames, of which each may take a second.
SLACK: Final = 5.0


class Cancels:
    """All that was cancelled in one run."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.asked: dict[str, bool] = {}  # by the call's place in its program; recursively
        self.cancelled: set[str] = set()
        # by its owner and id: from when on a task's worker may be killed
        self.due: dict[tuple[ProcessId, TaskId], float] = {}

    # ------------------------------------------------------------------ asked for

    def on_cancel(self, process: UserProcess, handle: Handle, op: Cancel) -> None:
        """User code cancels what makes an object."""
        _, name = self.cluster.names[handle.ref.object]
        place = name.partition("#")[0]
        self.asked[place] = self.asked.get(place, False) or op.recursive
        owner = self.cluster.processes[handle.ref.owner.process]
        if owner is not process:
            self.cluster.world.mark("what another owns is cancelled")
        if not (self.cluster.profile.timely and op.force):
            return
        entry = owner.role.ownership.entries.get(handle.ref.object)  # type: ignore[attr-defined]
        if entry is None or entry.value is not None:
            return  # (it had ended: nothing happens, to what it has called neither)
        self.later(op.grace + SLACK, lambda: self.check_object(owner, handle, op))
        if op.recursive:
            patience = op.grace + VACATE_SECONDS + SLACK
            self.later(patience, lambda: self.check_below(place))

    def later(self, seconds: float, check: Any) -> None:
        """Look at it then."""
        self.cluster.world.after(nanoseconds(seconds), check)

    def was_asked(self, task: Task) -> bool:
        """Whether somebody wanted this task to end."""
        if task.stream is not None and task.stream.closed:
            return True
        place = task.name
        if place in self.asked:
            return True
        while place:
            place = place.rpartition("/")[0]
            if self.asked.get(place):
                return True
        return False

    # ------------------------------------------------------------------ done

    def watch(self, process: UserProcess) -> None:
        """Have a look at every task that this owner cancels."""
        inner = process.role.cancel_task

        def cancel_task(task: Task, *, force: bool, recursive: bool, grace: float = 1.0) -> None:
            if not self.was_asked(task):
                raise Violation("cancel", f"{process.name} cancels {task.name}, nobody wants it")
            self.cancelled.add(task.name)
            key = (process.address.process, task.id)
            if force:
                self.due[key] = min(process.now() + grace, self.due.get(key, float("inf")))
            inner(task, force=force, recursive=recursive, grace=grace)

        process.role.cancel_task = cancel_task  # type: ignore[method-assign]

    def on_kill(self, process: Process, message: KillLease) -> None:
        """An owner has a worker killed: an actor's, or for a task that had its grace."""
        if message.lease in process.role.acting.actors.leases:  # type: ignore[attr-defined]
            return
        lease = process.role.leasing.leases.get(message.lease)  # type: ignore[attr-defined]
        assert isinstance(lease, Lease)
        self.cluster.world.mark("a worker is killed for a cancel")
        me = process.address.process
        ends = [self.due[me, task] for task in lease.tasks if (me, task) in self.due]
        if not ends or min(ends) > process.now() + 1e-6:
            raise Violation("grace", f"{process.name} kills a worker before its grace is over")

    def check_object(self, owner: Process, handle: Handle, op: Cancel) -> None:
        """A task was cancelled by force, its grace and more is over: it has ended."""
        world = self.cluster.world
        if not owner.alive or owner.stopped_until + nanoseconds(op.grace + SLACK) > world.now_ns:
            return
        entry = owner.role.ownership.entries.get(handle.ref.object)  # type: ignore[attr-defined]
        if entry is None or entry.owner is not None or entry.value is not None:
            return
        task = entry.task
        if isinstance(task, Task) and task.state is not DONE:
            raise Violation(
                "cancel in time", f"{task.name}: {task.state} after a grace of {op.grace:g} s"
            )

    def check_below(self, place: str) -> None:
        """And so has what stands under it."""
        for user in self.cluster.users():
            stopped = user.stopped_until > self.cluster.world.now_ns - 10 * SECOND
            run = getattr(user, "running", None)
            if user.alive and run is not None and not stopped:
                name: str = run.message.name
                if name.startswith(f"{place}/"):
                    raise Violation("cancel in time", f"{name} runs, {place} was cancelled")

    def missing(self, about: str) -> str:
        """Why nothing can have been cancelled, or nothing."""
        return "" if about in self.cancelled else "nobody has cancelled it"
