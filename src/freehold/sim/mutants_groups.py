"""Planted bugs in placement groups: the head's side (``placement``) and the nodes' (``bundles``).

As in ``mutants``, which takes these in."""

from __future__ import annotations

from typing import Any, Final

from freehold.core.bundles import Bundle, Bundles
from freehold.core.membership import Membership
from freehold.core.placement import Placing
from freehold.core.scheduling import Scheduling
from freehold.sim.bugs import ignored
from freehold.sim.hunt import Method, Mutant

PARCELS: Final = ("parcels",)


def first_yes_is_all(true: Method) -> Method:
    """A round is complete with the first answer."""

    def on_reserved(self: Placing, message: Any, peer: Any) -> None:
        under_way = self.rounds.get(message.round)
        if under_way is not None and not message.refused:
            under_way.waiting = {peer.node}
        true(self, message, peer)

    return on_reserved


def takes_what_fits(true: Method) -> Method:
    """A node sets aside what it can of a round, and says that it is all."""

    def reserve(self: Bundles, message: Any) -> str:
        for index, amounts in list(message.bundles.items()):
            if len(message.bundles) > 1 and not self.own.fits(amounts):
                del message.bundles[index]
        return str(true(self, message))

    return reserve


def used_before_it_is_placed(true: Method) -> Method:
    """A bundle may be used as soon as it is set aside."""

    def reserve(self: Bundles, message: Any) -> str:
        refused = str(true(self, message))
        for bundle in self.held.get(message.group, {}).values():
            bundle.placed = True
        return refused

    return reserve


def all_of_it_comes_back(true: Method) -> Method:
    """A bundle that ends gives back what tasks still hold of it."""

    def end(self: Bundles, group: Any, index: int, removed: bytes = b"") -> None:
        bundle = self.held[group][index]
        bundle.pool.free.update(bundle.amounts)
        true(self, group, index, removed)

    return end


def nothing_comes_back(true: Method) -> Method:
    """A bundle that ends keeps what was set aside."""

    def end(self: Bundles, group: Any, index: int, removed: bytes = b"") -> None:
        self.held[group][index].pool.free.clear()
        true(self, group, index, removed)

    return end


def the_first_is_all(true: Method) -> Method:
    """A head that begins anew decides when the first node has called."""
    return lambda self: True


def taken_from_the_node(true: Method) -> Method:
    """A lease of a group is taken from what is not set aside."""

    def source_for(self: Scheduling, wire: Any) -> Any:
        source = true(self, wire)
        return self.plain if source is not None and self.own.fits(wire.resources) else source

    return source_for


def goes_on_running(true: Method) -> Method:
    """What runs in a bundle that is over goes on."""

    def evict(self: Scheduling, bundle: Bundle, removed: bytes) -> None:
        for granted in self.granted.values():
            if granted.bundle is bundle:
                granted.pool, granted.bundle, granted.removed = self.own, None, removed

    return evict


GROUP_MUTANTS: Final = (
    Mutant("the first yes is enough", Placing, "on_reserved", PARCELS, 2, first_yes_is_all),
    Mutant("part of a round is set aside", Bundles, "reserve", PARCELS, 120, takes_what_fits),
    Mutant("used when set aside", Bundles, "reserve", PARCELS, 0, used_before_it_is_placed),
    Mutant("bundles come back in use", Bundles, "end", PARCELS, 0, all_of_it_comes_back),
    Mutant("bundles do not come back", Bundles, "end", PARCELS, 1, nothing_comes_back),
    Mutant("the first to call is all", Membership, "complete", PARCELS, 8008871, the_first_is_all),
    Mutant("groups run outside", Scheduling, "source_for", PARCELS, 0, taken_from_the_node),
    Mutant("tasks outlive their group", Scheduling, "evict", PARCELS, 10, goes_on_running),
    Mutant("groups outlive their job", Placing, "job_over", PARCELS, 3, ignored),
    Mutant("a removal is not told", Placing, "remove", PARCELS, 0, ignored),
)
