"""Objects that stand for placement groups: resolved by the word of our node."""

from __future__ import annotations

from core.world import World, inline, node, object_id
from freehold.core.awaiting import AwaitingGroups
from freehold.core.ownership import Ownership
from freehold.ids import GroupId
from freehold.wire.messages import FAILED, AwaitGroup, GroupSettled

GROUP, OTHER = GroupId(b"group..."), GroupId(b"other...")


def test_resolved_when_placed_and_failed_when_removed(world: World) -> None:
    """Goal: the node is asked once for a group, every object that stands for it gets its value, one
    that nobody can name any more is skipped, and those of a removed group fail. Method: three
    objects, one of them dropped, and one for another group.
    """
    ownership = Ownership(world)
    awaiting = AwaitingGroups(world, ownership, node())
    awaiting.removed_error = lambda group: b"removed " + group
    one, two, three, other = (object_id(name) for name in ("one", "two", "three", "other"))
    for name in (one, two):
        awaiting.begin(name, GROUP, inline(name))
    ownership.drop_handle(two)
    awaiting.begin(three, GROUP, inline(three))
    awaiting.begin(other, OTHER, inline(other))
    world.expect((node(), AwaitGroup(GROUP)), (node(), AwaitGroup(OTHER)))
    assert awaiting.group_of(three) == GROUP
    assert awaiting.group_of(two) is None
    awaiting.on_settled(GroupSettled(GROUP))
    awaiting.on_settled(GroupSettled(GROUP))
    awaiting.on_settled(GroupSettled(OTHER, removed=True))
    assert ownership.entries[one].value == inline(one)
    assert ownership.entries[three].value == inline(three)
    failed = ownership.entries[other].value
    assert failed is not None
    assert (failed.kind, failed.data) == (FAILED, b"removed other...")
    assert two not in ownership.entries
    assert not awaiting.objects
