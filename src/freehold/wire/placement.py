"""Placement: what travels about where things may run, and about placement groups.

``Placement`` goes with a request for a lease. The life of a group, in messages: a process tells the
head what it wants (CreateGroup); the head has nodes set bundles aside (ReserveBundles), all of them
or none; when all have, every node is told where they are (GroupChanged), and the nodes that hold
them may use them. A process that waits for a group asks its own node (AwaitGroup), which hears of
every change.

A GroupInfo is a fact: told twice, or late, it does no harm, because ``version`` only grows and
``REMOVED`` is for ever. A *round* is one attempt to reserve; it has an id of its own, so that no
answer can be taken for that to another attempt.
"""

from typing import Final

import msgspec

from freehold.ids import GroupId, JobId, NodeId
from freehold.resources import Resources
from freehold.wire.records import Address, Record

PACK: Final = "PACK"
SPREAD: Final = "SPREAD"
STRICT_PACK: Final = "STRICT_PACK"
STRICT_SPREAD: Final = "STRICT_SPREAD"

PENDING: Final = "PENDING"  #: never yet placed
CREATED: Final = "CREATED"  #: every bundle has its place
RESCHEDULING: Final = "RESCHEDULING"  #: was placed; some bundles were lost with their nodes
REMOVED: Final = "REMOVED"  #: for ever


class Clause(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A node's label must be one of ``values`` or, ``negated``, be none of them (or be missing)."""

    label: str
    values: tuple[str, ...]
    negated: bool = False


class Placement(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """Where a task or an actor may run, beside what it needs; part of its scheduling class.

    ``bundle`` of ``group``, -1 for any; with ``capture`` its children run in the group too.
    ``node``: only there or, ``soft``, there while that is possible. ``spread``: not where others
    of its kind are. ``selectors``: alternatives, the first that some node satisfies; the clauses
    of one must all hold. ``priority``: see ``core.scheduling``.
    """

    group: GroupId = GroupId(b"")
    bundle: int = -1
    capture: bool = False
    node: NodeId = NodeId(b"")
    soft: bool = False
    spread: bool = False
    selectors: tuple[tuple[Clause, ...], ...] = ()
    priority: int = 0


class Place(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """Where a bundle is: the node, and the round in which it was reserved there."""

    node: Address
    round: bytes


class GroupInfo(Record):
    """A placement group, as the head says it is. ``places``: one for each bundle, None for one
    that has no place (yet, or any more); ``reason``: why not.
    """

    group: GroupId
    job: JobId
    bundles: list[Resources]
    strategy: str = PACK
    name: str = ""
    namespace: str = ""
    detached: bool = False
    selectors: list[tuple[Clause, ...]] = []  #: one for each bundle, or none at all
    state: str = PENDING
    places: list[Place | None] = []
    version: int = 0
    reason: str = ""


def grave(group: GroupId) -> GroupInfo:
    """What there is to say of a group that is gone."""
    return GroupInfo(group, JobId(b""), [], state=REMOVED)


class CreateGroup(Record, tag=110):
    """Process to head: have such a group. The answer is Groups. Repeated, it is the same group;
    ``again``: it may be, and an earlier head may know more of it.
    """

    request: int
    info: GroupInfo
    again: bool = False


class RemoveGroup(Record, tag=111):
    """Process to head: remove the group and what runs in it. The answer is Groups, also if it is
    gone already.
    """

    request: int
    group: GroupId


class FindGroups(Record, tag=112):
    """Process to head: which groups are there? One, by its id or by its name; or all."""

    request: int
    group: GroupId = GroupId(b"")
    name: str = ""
    namespace: str = ""


class Groups(Record, tag=113):
    """Head to process: the answer. ``error``: why the request was refused."""

    request: int
    groups: list[GroupInfo]
    error: str = ""


class ReserveBundles(Record, tag=114):
    """Head to node: set these aside, all or none. The answer is BundlesReserved; ``insist``: not
    before there is room, unless there cannot be.
    """

    group: GroupId
    round: bytes
    bundles: dict[int, Resources]
    insist: bool = False


class BundlesReserved(Record, tag=115):
    """Node to head: they are set aside for this round or, if ``refused`` says why, none is. Also,
    refused, when a place that the head names is not held here. ``free``: what is left.
    """

    group: GroupId
    round: bytes
    refused: str = ""
    free: Resources = {}


class ReleaseBundles(Record, tag=116):
    """Head to node: forget what was set aside in this round."""

    group: GroupId
    round: bytes


class GroupChanged(Record, tag=117):
    """Head to every node: this is how the group is now. Also how the head's journal keeps it; and
    a process to its node, once the head has made or removed a group for it: so somebody knows even
    if the head's journal loses that.
    """

    info: GroupInfo


class AwaitGroup(Record, tag=118):
    """Process to its node: say (GroupSettled) when the group is placed or removed. Node to head:
    say (GroupChanged) how this group is, of which nobody told me; REMOVED if it is not known.
    """

    group: GroupId


class GroupSettled(Record, tag=119):
    """Node to process: every bundle of the group has a place; or the group is gone."""

    group: GroupId
    removed: bool = False
