"""Placement groups at the head: bundles of resources, reserved together on one or more nodes.

The life of a group: *pending* -> *created*, when each bundle has its place -> *rescheduling*, while
bundles that were lost with a node have no new one -> created ... -> *removed*, by whoever asks, or
with the job that made it unless it is detached.

A reservation is a *round*: the head chooses nodes for all bundles that have no place, by what is
free there as far as it knows, and asks each of these nodes to set its part aside. When all have
said yes the places are written into the journal, and then everybody is told: from then on the
bundles may be used. If one says no, or goes, the others are told to let go, and the group is
tried again when something has come free. So either all bundles of a round have their places or
none has, and nothing is ever used that is not written down.

A group that has waited for ``PATIENCE``, though the nodes would be large enough if they were idle,
is reserved with insistence: the nodes that are asked let nothing pass that could be used for it,
until they can say yes. There is one such round at a time, the oldest group's, and it is given up
after ``INSIST_SECONDS``, because what holds the resources may be tasks without an end.

What the nodes hold and what the head believes can differ only while the head, or the stream between
the two, is away. A node that calls again is told every group, and says which bundles it holds that
are not placed with it; rounds with such a node are given up here (it may never have heard of them),
and what it holds for none it is told to let go (``unsure``). A round that was under way when a head
died is unknown to the next one. What a torn journal has lost the nodes tell (``adopt``); that a
group was removed counts more than anything else that is said of it. That a group was made, or
removed, the node of the process that asked for it knows in any case: the process tells it when the
head has answered.

So a head that begins anew knows for sure how things are only when every node that it expects has
called or is gone. Until then it places no group that an earlier head may have known, and takes
nothing back: the node that calls next may know that a round was completed of which the others have
not heard. Groups that were made since then (``young``) do not wait.

Races considered: an answer to a round that was given up is not known any more, and the node has
been told to let go; a job that ends before its group's creation has come (they travel on different
streams), or whose end was written when the head was killed before it had removed the groups:
groups without a job are looked at again after ``dead_after``.

Not known here: who runs what in a bundle; that is the nodes' (``bundles``, ``scheduling``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from freehold import resources
from freehold.core.fitting import fit, shortfall
from freehold.core.journal import Journal
from freehold.core.membership import Membership
from freehold.core.world import Timer, World
from freehold.ids import GroupId, JobId, NodeId, short
from freehold.resources import Resources
from freehold.wire.messages import (
    Address,
    AwaitGroup,
    BundlesReserved,
    CreateGroup,
    FindGroups,
    GroupChanged,
    Groups,
    NodeInfo,
    ReleaseBundles,
    RemoveGroup,
    ReserveBundles,
)
from freehold.wire.placement import (
    CREATED,
    PENDING,
    REMOVED,
    RESCHEDULING,
    GroupInfo,
    Place,
    grave,
)

#: Seconds until groups that wait are looked at again, once something may have come free: reports
#: of nodes come every 0.1 s, and several of them in one look are cheaper.
LOOK_AFTER: Final = 0.01
#: Seconds until a group whose round was refused is tried again; twice as long each time.
FIRST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 1.0
#: Seconds that a group waits for room to come by chance, and how long it may keep others waiting.
PATIENCE: Final = 5.0
INSIST_SECONDS: Final = 20.0
#: Removed groups that are remembered, and told: of an older one nothing is left anywhere.
REMOVED_KEPT: Final = 1000


class Round:
    """One attempt to reserve: which bundles on which nodes, and who has not answered yet."""

    __slots__ = ("bundles", "group", "id", "waiting")

    def __init__(self, round_: bytes, group: GroupInfo, bundles: dict[int, Address]) -> None:
        self.id = round_
        self.group = group
        self.bundles = bundles
        self.waiting = {address.node for address in bundles.values()}

    def on(self, node: NodeId) -> list[int]:
        """The bundles that are to be on a node."""
        return [index for index, address in self.bundles.items() if address.node == node]


class Pause:
    """How long a group waits whose rounds are refused. ``since``: when it began to wait at all."""

    __slots__ = ("seconds", "since", "until")

    def __init__(self, since: float) -> None:
        self.seconds = FIRST_PAUSE
        self.since = since
        self.until = 0.0

    def next(self, now: float) -> float:
        """Until when it waits now; twice as long the next time."""
        self.until = now + self.seconds
        self.seconds = min(2 * self.seconds, LONGEST_PAUSE)
        return self.until


class Placing:
    """All placement groups of the cluster."""

    def __init__(self, world: World, journal: Journal, members: Membership) -> None:
        self.world = world
        self.journal = journal
        self.members = members
        self.groups: dict[GroupId, GroupInfo] = {}
        self.removed: dict[GroupId, None] = {}
        self.names: dict[tuple[str, str], GroupId] = {}
        self.rounds: dict[bytes, Round] = {}
        self.insisting = b""  # the round with which we do
        self.pauses: dict[GroupId, Pause] = {}
        self.young: set[GroupId] = set()  # no head before us can know of them
        self.unsure: dict[tuple[NodeId, bytes], GroupId] = {}  # rounds of an earlier head, held
        self.looker: Timer | None = None
        self.sweeper: Timer | None = None
        for record in journal.load():
            if isinstance(record, GroupChanged):
                self.adopt([record.info])
        for node in members.gone:
            self.node_gone(node)

    # ------------------------------------------------------------------ what processes ask for

    def on_create(self, message: CreateGroup, peer: Address) -> None:
        """A process wants a group."""
        info = message.info
        known = self.groups.get(info.group)
        holder = self.names.get((info.namespace, info.name)) if info.name else None
        error = ""
        if info.group in self.removed:
            error = f"placement group {short(info.group)} was removed"
        elif holder is not None and holder != info.group:
            error = (
                f"a placement group named {info.name!r} exists already in this namespace: get it "
                "with get_placement_group(), or remove it first"
            )
        elif known is None:
            info.state, info.places, info.version = PENDING, [None] * len(info.bundles), 1
            if not message.again:
                self.young.add(info.group)
            self.keep(info)
            self.sweep_later(info)
            self.try_to_place(info, self.picture())
            known = info
        self.world.send(peer, Groups(message.request, [known] if known else [], error))

    def on_remove(self, message: RemoveGroup, peer: Address) -> None:
        """A process wants a group to end, with what runs in it."""
        self.remove(message.group)
        self.world.send(peer, Groups(message.request, []))

    def on_find(self, message: FindGroups, peer: Address) -> None:
        """A process asks for groups."""
        found = list(self.groups.values())
        if message.name:
            group = self.names.get((message.namespace, message.name))
            found = [self.groups[group]] if group is not None else []
        elif message.group:
            found = [info for info in found if info.group == message.group]
            if message.group in self.removed:
                found = [grave(message.group)]
        else:
            found += [grave(group) for group in self.removed]
        self.world.send(peer, Groups(message.request, found))

    def on_await(self, message: AwaitGroup, peer: Address) -> None:
        """A node has heard of a group from others alone."""
        info = self.groups.get(message.group) or grave(message.group)
        self.world.send(peer, GroupChanged(info))

    # ------------------------------------------------------------------ the table

    def keep(self, info: GroupInfo) -> None:
        """A group has changed: write it down, then tell."""
        self.groups[info.group] = info
        if info.name:
            self.names[info.namespace, info.name] = info.group
        self.journal.put(info.group, GroupChanged(info))
        self.members.tell(GroupChanged(info))

    def change(self, info: GroupInfo, places: Sequence[Place | None], reason: str = "") -> None:
        """Bundles have places now, or have lost them."""
        info.places = list(places)
        info.version += 1
        info.reason = reason
        if all(place is not None for place in places):
            info.state = CREATED
        elif info.state == CREATED:
            info.state = RESCHEDULING
        self.keep(info)

    def remove(self, group: GroupId) -> None:
        """A group ends. That is remembered also of one that nobody knows: its creation may come."""
        if group in self.removed:
            return
        info = self.groups.pop(group, None)
        self.young.discard(group)
        self.give_up(group)
        self.pauses.pop(group, None)
        if info is not None and self.names.get((info.namespace, info.name)) == group:
            del self.names[info.namespace, info.name]
        self.removed[group] = None
        self.journal.put(group, GroupChanged(grave(group)))
        if len(self.removed) > REMOVED_KEPT:
            oldest = next(iter(self.removed))
            del self.removed[oldest]
            self.journal.delete(oldest)
        self.members.tell(GroupChanged(grave(group)))

    def facts(self) -> list[GroupInfo]:
        """All groups, for a node that calls."""
        return [*self.groups.values(), *map(grave, self.removed)]

    def adopt(self, infos: Sequence[GroupInfo]) -> None:
        """Groups from the journal, or those that a node was told of: we may have forgotten them."""
        for info in infos:
            known = self.groups.get(info.group)
            if info.group in self.removed:
                continue
            if info.state == REMOVED:
                self.remove(info.group)
            elif known is None or info.version > known.version:
                self.give_up(info.group)
                self.keep(info)
                self.sweep_later(info)
                for node in {place.node.node for place in info.places if place is not None}:
                    if node in self.members.gone:
                        self.node_gone(node)
                self.look_later()

    # ------------------------------------------------------------------ rounds

    def look_later(self) -> None:
        """Something may have come free for groups that wait."""
        waiting = self.unsure or any(info.state != CREATED for info in self.groups.values())
        if self.looker is None and waiting:
            self.looker = self.world.call_at(self.world.now() + LOOK_AFTER, self.look)

    def look(self) -> None:
        """Try those that wait, oldest first."""
        self.looker = None
        if self.members.complete():
            self.let_go()
        nodes = self.picture()
        for info in list(self.groups.values()):
            if info.state != CREATED:
                self.try_to_place(info, nodes)

    def let_go(self) -> None:
        """All have called: what they hold of rounds that nobody knows to be complete is over."""
        for (node, round_), group in self.unsure.items():
            member = self.members.members.get(node)
            if member is not None and not self.is_placed(group, node, round_):
                self.world.send(member.info.address, ReleaseBundles(group, round_))
        self.unsure.clear()

    def is_placed(self, group: GroupId, node: NodeId, round_: bytes) -> bool:
        """Whether a bundle of a group has its place by this round on this node."""
        info = self.groups.get(group)
        return info is not None and any(
            place is not None and (place.node.node, place.round) == (node, round_)
            for place in info.places
        )

    def try_to_place(self, info: GroupInfo, nodes: dict[NodeId, NodeInfo]) -> None:
        """Begin a round for the bundles without a place, if there seems to be room; what it takes
        goes off the picture.
        """
        pause = self.pauses.get(info.group)
        if pause is not None and self.world.now() < pause.until:
            return
        if info.group not in self.young and not self.members.complete():
            if not info.reason:
                self.change(info, info.places, "the head began anew, and not all nodes have called")
            return
        if any(under_way.group is info for under_way in self.rounds.values()):
            return
        missing = [index for index, place in enumerate(info.places) if place is None]
        found = fit(info, missing, nodes)
        insist = found is None and self.may_insist(info)
        if insist:
            found = fit(info, missing, self.idle(nodes))
        if found is None:
            if not info.reason:
                self.change(info, info.places, shortfall(info, missing, nodes))
            return
        where = {index: nodes[node].address for index, node in found.items()}
        under_way = Round(self.world.new_id(), info, where)
        self.rounds[under_way.id] = under_way
        if insist:
            self.insisting = under_way.id
            end = self.world.now() + INSIST_SECONDS
            self.world.call_at(end, lambda: self.insisted(under_way))
        for node in sorted(under_way.waiting):
            part = {index: info.bundles[index] for index in sorted(under_way.on(node))}
            for amounts in part.values():
                resources.subtract(nodes[node].free, amounts)
            self.world.send(
                nodes[node].address, ReserveBundles(info.group, under_way.id, part, insist)
            )

    def picture(self) -> dict[NodeId, NodeInfo]:
        """The nodes that can be asked, with what is free there less what they were asked for."""
        picture = {}
        for node, member in self.members.members.items():
            info = member.info
            if member.present and not info.draining:
                free = dict(info.free)
                picture[node] = NodeInfo(
                    info.address, info.hostname, 0, info.total, free, info.labels
                )
        for under_way in self.rounds.values():
            for index, address in under_way.bundles.items():
                if address.node in under_way.waiting and address.node in picture:
                    amounts = under_way.group.bundles[index]
                    resources.subtract(picture[address.node].free, amounts)
        return picture

    def on_reserved(self, message: BundlesReserved, peer: Address) -> None:
        """A node has set its part aside, or not."""
        member = self.members.members.get(peer.node)
        if member is not None and message.free:
            member.info.free = message.free
        under_way = self.rounds.get(message.round)
        if under_way is None:
            if message.refused:
                self.not_held(message, peer.node)
            else:
                self.unsure[peer.node, message.round] = message.group
                self.look_later()
        elif message.refused:
            self.pause(message.group)
            under_way.waiting.discard(peer.node)
            self.abandon(under_way, but=peer.node)
        else:
            under_way.waiting.discard(peer.node)
            if not under_way.waiting:
                self.complete(under_way)

    def pause(self, group: GroupId) -> None:
        """A group waits a while until it is tried again."""
        now = self.world.now()
        pause = self.pauses.setdefault(group, Pause(now))
        self.world.call_at(pause.next(now), self.look_later)

    def may_insist(self, info: GroupInfo) -> bool:
        """Whether a group that does not fit now has waited for long enough, and nobody insists."""
        now = self.world.now()
        pause = self.pauses.get(info.group)
        if pause is None:
            pause = self.pauses[info.group] = Pause(now)
            self.world.call_at(now + PATIENCE, self.look_later)
        return self.insisting not in self.rounds and now - pause.since >= PATIENCE

    def idle(self, nodes: dict[NodeId, NodeInfo]) -> dict[NodeId, NodeInfo]:
        """The nodes as if nothing ran there but placement groups."""
        idle = {
            node: NodeInfo(info.address, "", 0, info.total, dict(info.total), info.labels)
            for node, info in nodes.items()
        }
        for info in self.groups.values():
            for place, amounts in zip(info.places, info.bundles):
                if place is not None and place.node.node in idle:
                    resources.subtract(idle[place.node.node].free, amounts)
        return idle

    def insisted(self, under_way: Round) -> None:
        """We have kept others waiting for as long as we may."""
        if under_way.id in self.rounds:
            self.abandon(under_way)
            self.pauses[under_way.group.group] = Pause(self.world.now())
            self.world.call_at(self.world.now() + PATIENCE, self.look_later)

    def complete(self, under_way: Round) -> None:
        """Every node has said yes."""
        del self.rounds[under_way.id]
        info = under_way.group
        self.pauses.pop(info.group, None)
        places = list(info.places)
        for index, address in under_way.bundles.items():
            assert places[index] is None, "a bundle was placed twice"
            places[index] = Place(address, under_way.id)
        self.change(info, places)

    def abandon(self, under_way: Round, but: NodeId | None = None) -> None:
        """A round has failed: what was set aside is free again."""
        del self.rounds[under_way.id]
        told = {address.node: address for address in under_way.bundles.values()}
        for node, address in sorted(told.items()):
            member = self.members.members.get(node)
            if node != but and member is not None and member.present:
                message = ReleaseBundles(under_way.group.group, under_way.id)
                self.world.send(address, message)
        self.look_later()

    def give_up(self, group: GroupId) -> None:
        """Abandon the round that is under way for a group, if there is one."""
        for under_way in list(self.rounds.values()):
            if under_way.group.group == group:
                self.abandon(under_way)

    def not_held(self, message: BundlesReserved, node: NodeId) -> None:
        """A node says that a bundle which we believe to be there is not."""
        info = self.groups.get(message.group)
        if info is None:
            return
        places = [
            None if place and (place.node.node, place.round) == (node, message.round) else place
            for place in info.places
        ]
        if places != info.places:
            self.change(info, places)
            self.look_later()

    # ------------------------------------------------------------------ nodes and jobs

    def node_calls(self, node: NodeId, told: Sequence[GroupInfo]) -> None:
        """A node calls, perhaps again: what it was asked on an earlier stream is void. It is not
        taken in yet.
        """
        for under_way in list(self.rounds.values()):
            if under_way.on(node):
                self.abandon(under_way, but=node)
        self.adopt(told)
        for info in self.groups.values():
            info.reason = ""  # with it there may be enough: say anew why not
        self.look_later()

    def node_reports(self, before: Resources, now: Resources) -> None:
        """What is free on a node has changed."""
        if not resources.fits(now, before):
            self.look_later()

    def node_gone(self, node: NodeId) -> None:
        """A node is gone, and its bundles."""
        for under_way in list(self.rounds.values()):
            if under_way.on(node):
                self.abandon(under_way, but=node)
        for info in list(self.groups.values()):
            lost = [place is not None and place.node.node == node for place in info.places]
            if any(lost):
                self.change(
                    info,
                    [None if gone else place for gone, place in zip(lost, info.places)],
                    f"node {short(node)}, where it was, is gone",
                )
        self.look_later()

    def job_over(self, job: JobId) -> None:
        """A job has ended, and its groups with it, unless they are detached."""
        for info in list(self.groups.values()):
            if info.job == job and not info.detached:
                self.remove(info.group)

    def sweep_later(self, info: GroupInfo) -> None:
        """See to it that a group whose job nobody knows does not stay."""
        known = info.detached or info.job in self.members.jobs
        if not known and self.sweeper is None:
            when = self.world.now() + 2 * self.members.dead_after
            self.sweeper = self.world.call_at(when, self.sweep)

    def sweep(self) -> None:
        """By now every node has called, and said which jobs there are."""
        self.sweeper = None
        for info in list(self.groups.values()):
            if not info.detached and info.job not in self.members.jobs:
                self.remove(info.group)
