"""Fitting: on which nodes the bundles of a placement group go. A search, and nothing else.

The bundles are taken in order of size, the largest first, and each is tried on the nodes in the
order that the strategy likes: one that packs likes nodes that have bundles of the group, one that
spreads those that have fewest. A bundle that fits nowhere takes the one before it to its next
node. Equal bundles are interchangeable, and so are tried on later nodes only: without that a group
of twenty that does not fit would be tried in twenty factorial ways.

To fit things into boxes is hard in general: the search ends after ``STEPS`` and the group waits,
though there may be a way. Groups that people make are found in as many steps as they have bundles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from freehold import resources
from freehold.core.strategies import satisfies
from freehold.ids import NodeId
from freehold.resources import Resources
from freehold.wire.messages import NodeInfo
from freehold.wire.placement import SPREAD, STRICT_PACK, STRICT_SPREAD, Clause, GroupInfo

#: Bundles tried on nodes until the search ends: 10 ms with ten nodes.
STEPS: Final = 1_000

#: Which bundle goes where.
Fit = dict[int, NodeId]


class Search:
    """One search: ``free`` is what each node has left as it goes on."""

    def __init__(
        self, group: GroupInfo, missing: Sequence[int], nodes: Mapping[NodeId, NodeInfo]
    ) -> None:
        self.group = group
        self.nodes = nodes
        self.free = {node: dict(info.free) for node, info in nodes.items()}
        self.bundles = dict.fromkeys(nodes, 0)  # of this group, by node
        for place in group.places:
            if place is not None:
                self.bundles[place.node.node] = self.bundles.get(place.node.node, 0) + 1
        self.order = sorted(missing, key=lambda i: (-_size(group.bundles[i], nodes), i))
        self.ranking = sorted(nodes, key=lambda node: (-self.room(node), node))
        self.fit: Fit = {}
        self.steps = 0

    def run(self) -> Fit | None:
        """Where the missing bundles go, or None."""
        wanted: Resources = {}
        free: Resources = {}
        for index in self.order:
            resources.add(wanted, self.group.bundles[index])
        for left in self.free.values():
            resources.add(free, left)
        return self.fit if resources.fits(wanted, free) and self.place(0) else None

    def place(self, number: int) -> bool:
        """Find places for the bundles from the ``number``-th on."""
        if number == len(self.order):
            return True
        index = self.order[number]
        amounts = self.group.bundles[index]
        passed = self.passed(number)
        for node in self.candidates(index):
            if node in passed or not resources.fits(amounts, self.free[node]):
                continue
            self.steps += 1
            if self.steps > STEPS:
                return False
            self.put(index, node, 1)
            if self.place(number + 1):
                return True
            self.put(index, node, -1)
        return False

    def put(self, index: int, node: NodeId, times: int) -> None:
        """Put a bundle on a node, or (-1) take it off again."""
        for name, amount in self.group.bundles[index].items():
            self.free[node][name] -= times * amount
        self.bundles[node] += times
        if times > 0:
            self.fit[index] = node
        else:
            del self.fit[index]

    def passed(self, number: int) -> set[NodeId]:
        """Nodes that an equal bundle before this one was moved away from: what comes there now has
        been tried with that one.
        """
        if self.group.strategy != STRICT_SPREAD or not number:
            return set()
        before, index = self.order[number - 1], self.order[number]
        if self.kind(before) != self.kind(index):
            return set()
        return set(self.ranking[: self.ranking.index(self.fit[before])])

    def kind(self, index: int) -> tuple[Resources, tuple[Clause, ...]]:
        """What makes two bundles equal."""
        return self.group.bundles[index], self.selector(index)

    def selector(self, index: int) -> tuple[Clause, ...]:
        """What the bundle asks of its node's labels."""
        return self.group.selectors[index] if self.group.selectors else ()

    def candidates(self, index: int) -> list[NodeId]:
        """The nodes that the strategy allows a bundle, those it likes best first."""
        strategy, bundles = self.group.strategy, self.bundles
        selector = self.selector(index)
        nodes = [node for node in self.ranking if satisfies(selector, self.nodes[node])]
        if strategy == STRICT_SPREAD:
            return [node for node in nodes if not bundles[node]]
        if strategy == STRICT_PACK and any(bundles.values()):
            return [node for node in nodes if bundles[node]]
        if strategy == SPREAD:
            return sorted(nodes, key=lambda node: (bundles[node], -self.room(node)))
        return sorted(nodes, key=lambda node: (-bundles[node], -self.room(node)))

    def room(self, node: NodeId) -> float:
        """How empty a node is."""
        total = self.nodes[node].total
        return sum(self.free[node].get(name, 0) / most for name, most in total.items() if most)


def _size(amounts: Resources, nodes: Mapping[NodeId, NodeInfo]) -> float:
    """How large a bundle is: the largest part that it takes of what any node has."""
    largest = 0.0
    for name, amount in amounts.items():
        most = max((info.total.get(name, 0) for info in nodes.values()), default=0)
        largest = max(largest, amount / most if most else float("inf"))
    return largest


def fit(group: GroupInfo, missing: Sequence[int], nodes: Mapping[NodeId, NodeInfo]) -> Fit | None:
    """Where the missing bundles of a group go among these nodes, by what is free there."""
    return Search(group, missing, nodes).run()


def shortfall(group: GroupInfo, missing: Sequence[int], nodes: Mapping[NodeId, NodeInfo]) -> str:
    """Why a group does not fit, in a clause: now, or even into an empty cluster."""
    empty = {
        node: NodeInfo(info.address, "", 0, info.total, info.total, info.labels)
        for node, info in nodes.items()
    }
    for index in missing:
        amounts = resources.describe(group.bundles[index])
        selector = group.selectors[index] if group.selectors else ()
        if not any(
            resources.fits(group.bundles[index], info.total) and satisfies(selector, info)
            for info in nodes.values()
        ):
            return f"no node has what bundle {index} needs ({amounts}); one may join"
    if fit(group, missing, empty) is None:
        few = len({place.node.node for place in group.places if place is not None})
        where = f"{len(nodes)} nodes, {few} of them in use by it" if few else f"{len(nodes)} nodes"
        return f"{group.strategy} cannot be met by {where}, even if they were empty"
    return "not enough is free now"
