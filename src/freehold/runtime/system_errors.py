"""The shipped form of system errors: roles say which, this says it in words."""

from __future__ import annotations

from freehold import errors
from freehold.ids import ObjectId, ProcessId, short
from freehold.runtime.actor_errors import ActorErrors, ship
from freehold.wire.messages import Address, Death


class SystemErrors(ActorErrors):
    """Implements ``roles.owner.Errors``."""

    def worker_died(self, task: str, death: Death) -> bytes:
        """The worker that ran it is gone and no retry is left."""
        return ship(
            errors.WorkerDiedError(
                f"{task}() was running on a worker that died"
                + (f" at {death.when}" if death.when else ""),
                pid=death.pid,
                node_id=short(death.node),
                signal=death.signal,
                exit_code=death.exit_code,
                memory=death.detail,
                stderr_tail=death.stderr_tail,
            )
        )

    def cancelled(self, task: str) -> bytes:
        """The task was cancelled."""
        return ship(errors.TaskCancelledError(f"{task}() was cancelled", function_name=task))

    def timed_out(self, task: str, seconds: float, where: str = "") -> bytes:
        """The task has run for longer than it may; ``where`` it was then."""
        return ship(errors.TaskTimeoutError(function_name=task, timeout=seconds, where=where))

    def unschedulable(self, task: str, reason: str) -> bytes:
        """No node can ever run it."""
        return ship(errors.UnschedulableError(f"{task}() cannot be placed: {reason}"))

    def group_removed(self, task: str, group: bytes) -> bytes:
        """The placement group in which it was to run is gone; of a task, or of the group itself."""
        if not task:
            return ship(errors.PlacementGroupRemovedError(group_id=group.hex()))
        return ship(
            errors.TaskPlacementGroupRemovedError(
                f"{task}() was in placement group {short(group)}, which was removed",
                group_id=group.hex(),
            )
        )

    def environment_failed(self, task: str, reason: str) -> bytes:
        """Its runtime environment cannot be made."""
        return ship(errors.RuntimeEnvSetupError(f"{task}() has no environment: {reason}"))

    def lost(self, object_id: ObjectId, reason: str, *, evicted: bool = False) -> bytes:
        """Every copy of a value is gone, and it cannot be made again."""
        kind = errors.LineageEvictedError if evicted else errors.ObjectLostError
        return ship(kind(f"object {short(object_id)}: {reason}", object_id=object_id.hex()))

    def replay_failed(self, task: str, before: int, now: int) -> bytes:
        """A task that yields was run again and has yielded fewer values than before."""
        return ship(
            errors.StreamReplayError(
                f"{task}() had yielded {before} values when it had to be run again, and yielded "
                f"only {now} then"
            ),
            task,
        )

    def handover_lost(self, giver: ProcessId) -> bytes:
        """The process that handed a reference over died before its owner had counted it."""
        return ship(
            errors.ObjectLostError(
                f"process {short(giver)} died while it handed over a reference inside this value"
            )
        )

    def store_full(self, reason: str, disk: bool) -> bytes:
        """There is no room in this node's store, or none on disk for what would make some."""
        kind = errors.OutOfDiskError if disk else errors.ObjectStoreFullError
        return ship(kind(reason))

    def owner_died(self, object_id: ObjectId, owner: Address, why: str) -> bytes:
        """The process that owned the value is gone, and why it does not come back."""
        process = f"process {short(owner.process)} on node {short(owner.node)}"
        what = f"object {short(object_id)}: {process}, which owned it, is gone, {why}"
        return ship(errors.OwnerDiedError(what, object_id=object_id.hex()))
