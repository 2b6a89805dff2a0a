"""Bundles: what one node has set aside for placement groups. At the node; ``placement`` is the
other side, at the head.

The life of a bundle here: *reserved* (ReserveBundles: taken out of the node's pool, all of a
round's or none, and of use to nobody) -> *placed* (the head says that the whole group has its
places, and that this is one of them: leases are granted from it) -> *ended* (the group is removed,
or the head has moved the bundle: what runs in it ends, what it held goes back to the node's pool:
what is free of it at once, the rest as each lease ends).

Nothing of this is decided here. A reserved bundle is given up when the head says so. When the head,
after the stream to it has ended, takes this node in again without naming it, it is told of the
bundle (``reconcile``): it may have given up the round, or never have heard of it, and says so; or
another node knows that the round was completed, which the head has forgotten. So whatever is lost
on the way, a bundle that the head does not count on is not kept, and one that it counts on is not
given up. Should the head name a place that is not held here (its journal was torn), it is told so,
and places the bundle anew.

A reservation that does not fit is refused at once, unless the head says that the group has waited
for long: then it becomes a *claim*, answered when it has been met, and the node sees to it that
what comes free is not taken by others. The head makes one such round at a time, and ends it if it
takes too long: so two groups never hold what the other waits for.

Known here as well: how every group of the cluster is, as the head last said; requests for leases
are sent on by that. A group of which nothing was said yet is asked for; the answer for one that
nobody knows is that it was removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from freehold import resources
from freehold.core.pools import Pool, Shares
from freehold.core.world import World
from freehold.ids import GroupId, NodeId, ProcessId, short
from freehold.resources import Resources
from freehold.wire.messages import (
    Address,
    AwaitGroup,
    BundlesReserved,
    GroupSettled,
    Message,
    NodeInfo,
    Placement,
    ReleaseBundles,
    RequestLease,
    ReserveBundles,
)
from freehold.wire.placement import CREATED, REMOVED, GroupInfo, grave

#: Removed groups that are remembered, 100 bytes each. Of older ones the head is asked.
REMOVED_KEPT: Final = 1000


class Bundle:
    """Part of this node's resources, set aside. ``shares``: its GPUs, by the node's numbers."""

    __slots__ = ("amounts", "placed", "pool", "round", "shares")

    def __init__(self, round_: bytes, amounts: Resources, shares: Shares) -> None:
        self.round = round_
        self.amounts = amounts
        self.shares = shares
        self.pool = Pool(amounts, shares)
        self.placed = False


#: From what a lease is taken: a pool, and the bundle (its number, -1 for none) that it belongs to.
Source = tuple[Pool, int, Bundle | None]


class Bundles:
    """The bundles of one node, and the groups of the cluster."""

    def __init__(self, world: World, own: Pool) -> None:
        """``own``: what the node has."""
        self.world = world
        self.own = own
        self.groups: dict[GroupId, GroupInfo] = {}
        self.removed: dict[GroupId, None] = {}
        self.held: dict[GroupId, dict[int, Bundle]] = {}
        self.claims: dict[bytes, ReserveBundles] = {}  # by round
        self.asked: set[GroupId] = set()  # the head was asked how they are
        self.awaited: dict[GroupId, list[Address]] = {}  # who waits for a group to be settled
        # the role's:
        self.tell_head: Callable[[Message], None]
        self.refusing: Callable[[], str]  # why nothing is set aside now, if so
        # end what runs in a bundle that is over; the group, if it was removed
        self.evict: Callable[[Bundle, bytes], None]

    # ------------------------------------------------------------------ words of the head

    def on_reserve(self, message: ReserveBundles) -> None:
        """Set aside, all or none. A round that is known is answered again."""
        held = self.held.get(message.group, {})
        refused = ""
        if not any(bundle.round == message.round for bundle in held.values()):
            refused = self.refusing() or self.reserve(message)
            if refused and message.insist and self.possible(message):
                self.claims[message.round] = message
                return
        self.answer(message, refused)

    def answer(self, message: ReserveBundles, refused: str) -> None:
        """Say that it is done, or why not."""
        self.tell_head(
            BundlesReserved(message.group, message.round, refused, self.positive(self.own.free))
        )

    def possible(self, message: ReserveBundles) -> bool:
        """Whether everything that is not set aside would be enough."""
        wanted: Resources = {}
        for amounts in message.bundles.values():
            resources.add(wanted, amounts)
        for held in self.held.values():
            for bundle in held.values():
                resources.add(wanted, bundle.amounts)
        return not self.refusing() and resources.fits(wanted, self.own.total)

    def serve_claims(self) -> set[str]:
        """Meet the claims that can be met. The resources that the others wait for."""
        if not self.claims:
            return set()
        for round_, message in list(self.claims.items()):
            refused = self.reserve(message)
            if not refused or not self.possible(message):
                del self.claims[round_]
                self.answer(message, refused)
        return {name for amounts in self.claimed_amounts() for name in amounts}

    def claimed_amounts(self) -> list[Resources]:
        """What each bundle needs that a claim waits for."""
        return [amounts for message in self.claims.values() for amounts in message.bundles.values()]

    def reserve(self, message: ReserveBundles) -> str:
        """Take all of them out of the node's pool, or say why that cannot be. What is here of them
        from an earlier round is over, or the head would not place them anew.
        """
        for index in message.bundles.keys() & self.held.get(message.group, {}).keys():
            self.end(message.group, index)
        taken: dict[int, Bundle] = {}
        for index, amounts in message.bundles.items():
            if not self.own.fits(amounts):
                for bundle in taken.values():
                    self.own.give(bundle.amounts, bundle.shares)
                free = resources.describe(self.positive(self.own.free))
                return f"{resources.describe(amounts)} is needed, and {free} free"
            taken[index] = Bundle(message.round, amounts, self.own.take(amounts))
        self.held.setdefault(message.group, {}).update(taken)
        return ""

    def on_release(self, message: ReleaseBundles) -> None:
        """A round has failed elsewhere."""
        self.claims.pop(message.round, None)
        for index, bundle in list(self.held.get(message.group, {}).items()):
            if bundle.round == message.round:
                self.end(message.group, index)

    def on_changed(self, info: GroupInfo) -> None:
        """How a group is now."""
        group = info.group
        self.asked.discard(group)
        if info.state == REMOVED:
            self.groups.pop(group, None)
            self.removed[group] = None
            if len(self.removed) > REMOVED_KEPT:
                del self.removed[next(iter(self.removed))]
            self.claims = {r: claim for r, claim in self.claims.items() if claim.group != group}
            for index in list(self.held.get(group, ())):
                self.end(group, index, group)
        else:
            self.groups[group] = info
            self.take_places(info)
        self.settle(group)

    def on_told(self, info: GroupInfo) -> None:
        """A process was told so by the head, before we were; what we know already is not older."""
        unknown = info.group not in self.groups and info.group not in self.removed
        if unknown or info.state == REMOVED:
            self.on_changed(info)

    def take_places(self, info: GroupInfo) -> None:
        """Use what is ours of a group; end what was, and is elsewhere now."""
        held = self.held.get(info.group, {})
        for index, place in enumerate(info.places):
            bundle = held.get(index)
            mine = place is not None and place.node.node == self.world.address.node
            if place is not None and mine and (bundle is None or bundle.round != place.round):
                self.tell_head(BundlesReserved(info.group, place.round, "it is not held here"))
            elif bundle is not None and mine:
                bundle.placed = True
            elif bundle is not None and bundle.placed:
                self.end(info.group, index)

    def reconcile(self, groups: Iterable[GroupInfo]) -> None:
        """The head has taken us in (again), and these are all groups, as far as it knows: it has
        to hear what else we hold.
        """
        told = {info.group: info for info in groups}
        self.claims.clear()
        unsure, self.asked = self.asked | self.groups.keys(), set()
        for info in told.values():
            self.on_changed(info)
        for group, held in self.held.items():
            for round_ in dict.fromkeys(b.round for b in held.values() if not b.placed):
                self.tell_head(BundlesReserved(group, round_, "", self.positive(self.own.free)))
        for group in sorted(unsure - told.keys() - self.removed.keys()):
            self.ask(group)

    def ask(self, group: GroupId) -> None:
        """Have the head say how a group is."""
        self.asked.add(group)
        self.tell_head(AwaitGroup(group))

    # ------------------------------------------------------------------ ends

    def end(self, group: GroupId, index: int, removed: bytes = b"") -> None:
        """Nothing is set aside any more."""
        held = self.held[group]
        bundle = held.pop(index)
        if not held:
            del self.held[group]
        pool = bundle.pool
        shares = {number: amount for number, amount in pool.gpus.items() if amount}
        self.own.give(pool.free, shares)
        self.evict(bundle, removed)

    # ------------------------------------------------------------------ who waits for a group

    def on_await(self, group: GroupId, peer: Address) -> None:
        """A process wants to know when a group is settled."""
        self.awaited.setdefault(group, []).append(peer)
        self.known(group)
        self.settle(group)

    def settle(self, group: GroupId) -> None:
        """Tell who waits, if there is something to tell."""
        info = self.groups.get(group)
        if group in self.removed or (info is not None and info.state == CREATED):
            for peer in self.awaited.pop(group, ()):
                self.world.send(peer, GroupSettled(group, group in self.removed))

    def forget_process(self, process: ProcessId) -> None:
        """It waits for nothing any more."""
        for group, peers in list(self.awaited.items()):
            left = [peer for peer in peers if peer.process != process]
            if left:
                self.awaited[group] = left
            else:
                del self.awaited[group]

    # ------------------------------------------------------------------ what requests ask

    def known(self, group: GroupId) -> GroupInfo | None:
        """How the group is. One of which nothing is known is asked for."""
        info = self.groups.get(group)
        if info is None and group not in self.removed and group not in self.asked:
            self.ask(group)
        return info

    def usable(self, placement: Placement) -> Iterator[tuple[int, Bundle]]:
        """The bundles here that a request may use."""
        for index, bundle in self.held.get(placement.group, {}).items():
            if bundle.placed and placement.bundle in (-1, index):
                yield index, bundle

    def source_for(self, wire: RequestLease) -> Source | None:
        """The fullest bundle here in which the request fits now: so others stay whole."""
        placement = wire.placement
        assert placement is not None
        self.known(placement.group)
        fitting = [
            (sum(bundle.pool.free.values()), index, bundle)
            for index, bundle in self.usable(placement)
            if bundle.pool.fits(wire.resources)
        ]
        if not fitting:
            return None
        _, index, bundle = min(fitting, key=lambda item: item[:2])
        return bundle.pool, index, bundle

    def feasible_here(self, wire: RequestLease) -> bool:
        """Whether a bundle here is big enough."""
        placement = wire.placement
        assert placement is not None
        return any(
            resources.fits(wire.resources, bundle.amounts) for _, bundle in self.usable(placement)
        )

    def wanted(self, wire: RequestLease, info: GroupInfo) -> Iterator[int]:
        """The bundles of the group that are big enough, among those that the request may use."""
        placement = wire.placement
        assert placement is not None
        for index, amounts in enumerate(info.bundles):
            if placement.bundle in (-1, index) and resources.fits(wire.resources, amounts):
                yield index

    def elsewhere(self, wire: RequestLease, peers: Mapping[NodeId, NodeInfo]) -> Address | None:
        """Another node where the request fits in a bundle now, as far as is known, or could ever if
        it cannot here. What it will take there goes off our picture.
        """
        assert wire.placement is not None
        info = self.known(wire.placement.group)
        if info is None:
            return None
        possible = None
        for index in self.wanted(wire, info):
            place = info.places[index] if index < len(info.places) else None
            peer = peers.get(place.node.node) if place is not None else None
            if peer is None:
                continue
            key = place_key(info.group, index)
            free = peer.bundles.get(key, info.bundles[index])
            if resources.fits(wire.resources, free):
                left = dict(free)
                resources.subtract(left, wire.resources)
                peer.bundles = {**peer.bundles, key: left}
                return peer.address
            possible = peer.address
        return None if self.feasible_here(wire) else possible

    def too_small(self, wire: RequestLease) -> str:
        """Why the group can never have room for the request, if so."""
        placement = wire.placement
        assert placement is not None
        info = self.known(placement.group)
        if info is None or any(True for _ in self.wanted(wire, info)):
            return ""
        needed, group = resources.describe(wire.resources), short(info.group)
        if not -1 <= placement.bundle < len(info.bundles):
            return f"placement group {group} has no bundle {placement.bundle}"
        if placement.bundle < 0:
            each = "; ".join(resources.describe(amounts) for amounts in info.bundles[:4])
            return f"{needed} is needed, which no bundle of placement group {group} has ({each})"
        has = resources.describe(info.bundles[placement.bundle])
        return f"{needed} is needed; bundle {placement.bundle} of placement group {group} has {has}"

    def why(self, wire: RequestLease) -> str:
        """Why a request for a group waits."""
        placement = wire.placement
        assert placement is not None
        group = short(placement.group)
        which = f"bundle {placement.bundle}" if placement.bundle >= 0 else "a bundle"
        info = self.groups.get(placement.group)
        if info is None:
            return f"waits for the head to say how placement group {group} is"
        placed = [index for index in self.wanted(wire, info) if index_placed(info, index)]
        if not placed:
            needs = ", ".join(resources.describe(info.bundles[i]) for i in self.wanted(wire, info))
            return (
                f"waits for {which} of placement group {group}, not yet placed ({info.strategy}, "
                f"needs {needs}{': ' + info.reason if info.reason else ''})"
            )
        here = [bundle for _, bundle in self.usable(placement)]
        free = "; ".join(resources.describe(bundle.pool.free) for bundle in here[:4])
        return (
            f"waits for {resources.describe(wire.resources)} to come free in {which} of placement "
            f"group {group} ({free or 'nothing here'} free)"
        )

    def tell(self, group: GroupId) -> str:
        """What is known of a group, for who waits for it."""
        info = self.groups.get(group)
        if group in self.removed:
            return ", which was removed"
        if info is None:
            return ", of which the head has not told its node yet"
        missing = [n for n in range(len(info.bundles)) if not index_placed(info, n)]
        if not missing:
            return ", which is placed"
        needs = ", ".join(f"{n} ({resources.describe(info.bundles[n])})" for n in missing[:4])
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        why = f": {info.reason}" if info.reason else ""
        return f", whose bundles {needs}{more} are not yet placed ({info.strategy}){why}"

    def described(self) -> str:
        """How much of the node is set aside, for who waits for it."""
        aside: Resources = {}
        for held in self.held.values():
            for bundle in held.values():
                resources.add(aside, bundle.amounts)
        return f", {resources.describe(aside)} set aside for placement groups" if aside else ""

    def facts(self) -> list[GroupInfo]:
        """All groups, for a head that may have forgotten: also that these were removed."""
        return [*self.groups.values(), *map(grave, self.removed)]

    def in_use(self) -> dict[bytes, Resources]:
        """What is left of bundles from which something is taken, for other nodes."""
        return {
            place_key(group, index): self.positive(bundle.pool.free)
            for group, held in self.held.items()
            for index, bundle in held.items()
            if bundle.placed and bundle.pool.free != bundle.amounts
        }

    @staticmethod
    def positive(amounts: Resources) -> Resources:
        """What is lent beyond what there is counts as none."""
        return {name: max(amount, 0) for name, amount in amounts.items()}


def index_placed(info: GroupInfo, index: int) -> bool:
    """Whether a bundle of the group has its place."""
    return index < len(info.places) and info.places[index] is not None


def place_key(group: GroupId, index: int) -> bytes:
    """By which a node's report names a bundle."""
    return group + index.to_bytes(2, "big")
