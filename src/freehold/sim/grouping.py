"""What user code does with placement groups: ``api.placement`` in the simulated world."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from freehold.core.fetching import Wait
from freehold.core.submission import Task
from freehold.ids import GroupId
from freehold.resources import vector
from freehold.sim.acting import Handle
from freehold.sim.asking import Question
from freehold.sim.ops import Call, Group
from freehold.sim.world import Violation
from freehold.wire.messages import (
    INLINE,
    CreateGroup,
    GroupChanged,
    Groups,
    Placement,
    RemoveGroup,
    Value,
)
from freehold.wire.placement import GroupInfo, grave

if TYPE_CHECKING:
    from freehold.sim.user import Thread


class Grouped:
    """A placement group in user code."""

    def __init__(self, group: GroupId, here: str) -> None:
        self.group = group
        self.here = here


def create(thread: Thread, here: str, op: Group) -> None:
    """``placement_group``."""
    process = thread.process
    group = GroupId(process.new_id())
    bundles = [vector(num_cpus=cpus) for cpus in op.bundles]
    info = GroupInfo(group, process.role.job, bundles, op.strategy)
    process.cluster.watch.bundling.on_create(group, process)

    def answered(message: Groups) -> None:
        if message.error and process.node.address.node not in process.cluster.declared:
            raise Violation("groups", f"{here}: {message.error}")  # (else its job is over)
        for told in message.groups:
            process.send(process.node.address, GroupChanged(told))
        thread.soon(Grouped(group, here))

    asked = count()
    Question(thread, lambda request: CreateGroup(request, info, next(asked) > 0), answered)


def remove(thread: Thread, grouped: Grouped) -> None:
    """``remove_placement_group``."""
    process, group = thread.process, grouped.group
    process.cluster.watch.bundling.on_remove(group)

    def answered(message: Groups) -> None:
        process.send(process.node.address, GroupChanged(grave(group)))
        thread.soon()

    Question(thread, lambda request: RemoveGroup(request, group), answered)


def wait_for(thread: Thread, here: str, grouped: Grouped, timeout: float) -> None:
    """``PlacementGroup.wait``."""
    process = thread.process
    process.settle()
    object_id = thread.context.names.next_put(b"ready" + grouped.group)
    process.role.awaiting.begin(object_id, grouped.group, Value(INLINE, b"ready"))
    handle = Handle(process.role.ownership.reference(object_id))
    waiting = process.role.wait(
        [object_id], 1, False, lambda: thread.wake(thread.readied, "the group is settled")
    )
    thread.await_it(waiting, ("ready", here, [handle]), timeout)


def waited(thread: Thread) -> None:
    """The group is placed or gone, or the time is over."""
    waiting = thread.waiting
    assert isinstance(waiting, Wait)
    [handle] = thread.asking[2]
    if waiting.done:
        thread.world.mark("a group is waited for")
    thread.awake()
    waiting.close()
    thread.drop(handle)
    thread.soon()


def place(task: Task, op: Call, grouped: Grouped | None) -> None:
    """A task runs in a group."""
    if grouped is not None:
        task.placement = Placement(grouped.group, op.bundle)
