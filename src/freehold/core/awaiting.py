"""Awaiting placement groups: ``PlacementGroup.ready()``, at its owner.

An object of ours without a task: its value, made beforehand, is resolved when our node says that
every bundle of the group has its place, or fails when the node says that the group was removed.
The node hears of every change and lives as long as we do, so there is nothing to ask again. It is
asked once for any number of objects; those that nobody can name by then are gone, and are skipped.
"""

from __future__ import annotations

from collections.abc import Callable

from freehold.core.ownership import Ownership
from freehold.core.world import World
from freehold.ids import GroupId, ObjectId
from freehold.wire.messages import FAILED, Address, AwaitGroup, GroupSettled, Value


class AwaitingGroups:
    """The objects of one process that stand for groups being placed."""

    def __init__(self, world: World, ownership: Ownership, node: Address) -> None:
        self.world = world
        self.ownership = ownership
        self.node = node
        self.objects: dict[GroupId, dict[ObjectId, Value]] = {}
        self.removed_error: Callable[[GroupId], bytes]  # the role's

    def begin(self, object_id: ObjectId, group: GroupId, value: Value) -> None:
        """An object of ours, with one handle, that gets its value when the group is placed."""
        entry = self.ownership.own(object_id, None)
        entry.handles += 1
        if group not in self.objects:
            self.world.send(self.node, AwaitGroup(group))
        waiting = self.objects.get(group, {})
        waiting = {other: v for other, v in waiting.items() if other in self.ownership.entries}
        self.objects[group] = {**waiting, object_id: value}

    def group_of(self, object_id: ObjectId) -> GroupId | None:
        """The group for which an object stands."""
        return next((g for g, waiting in self.objects.items() if object_id in waiting), None)

    def on_settled(self, message: GroupSettled) -> None:
        """The group is placed, or removed."""
        for object_id, value in self.objects.pop(message.group, {}).items():
            entry = self.ownership.entries.get(object_id)
            if entry is None:
                continue
            if message.removed:
                value = Value(FAILED, self.removed_error(message.group))
            self.ownership.resolve(entry, value)
