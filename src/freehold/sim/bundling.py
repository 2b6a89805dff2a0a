"""Promises about placement groups, seen from above: the head and every node at once.

A bundle is *held* by a node from the moment when it is set aside there, and *placed* when the node
has heard that the whole group has its places."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from freehold.core.execution import Run
from freehold.ids import GroupId, LeaseId
from freehold.resources import CPU, UNIT
from freehold.sim.world import Violation
from freehold.wire.placement import CREATED, PENDING, STRICT_PACK, STRICT_SPREAD, GroupInfo

if TYPE_CHECKING:
    from freehold.sim.cluster import Cluster
    from freehold.sim.head import HeadProcess
    from freehold.sim.node import NodeProcess
    from freehold.sim.user import UserProcess
    from freehold.sim.worker import WorkerProcess

#: Seconds until what runs in a group that was removed has ended: it is killed at once.
ENDING: Final = 5.0


class Bundling:
    """All placement groups of one run."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.makers: dict[GroupId, UserProcess] = {}
        self.removed: set[GroupId] = set()  # by their programs
        self.ending: dict[LeaseId, float] = {}  # leases of removed groups, since when
        self.inside: set[LeaseId] = set()  # leases that were granted in a bundle
        self.created: dict[GroupId, int] = {}  # had all their places; the last version that did

    def on_create(self, group: GroupId, maker: UserProcess) -> None:
        """User code wants a group."""
        self.makers[group] = maker

    def on_remove(self, group: GroupId) -> None:
        """User code wants no more of it."""
        self.removed.add(group)
        self.cluster.world.mark("a group is removed")

    def may_be_gone(self, group: GroupId) -> bool:
        """Whether a group may be removed: its program has asked for that, or has ended."""
        return group in self.removed or not self.makers[group].alive

    # ------------------------------------------------------------------ while it runs

    def on_begin(self, worker: WorkerProcess, run: Run) -> None:
        """A task begins: in a bundle of the group that it names, and in which it may run."""
        scheduling = worker.node.role.scheduling
        granted = scheduling.granted.get(run.message.lease)
        if granted is None or granted.bundle is None or granted.wire.placement is None:
            return
        wanted = granted.wire.placement
        self.cluster.world.mark("a task runs in a group")
        held = scheduling.bundles.held.get(wanted.group, {})
        if held.get(granted.index) is not granted.bundle or not granted.bundle.placed:
            raise Violation("groups", f"{run.message.name} runs in {worker.name}, in no bundle")
        if wanted.bundle not in (-1, granted.index):
            raise Violation("groups", f"{run.message.name} runs in bundle {granted.index}")

    def check_head(self, head: HeadProcess) -> None:
        """All places or none, and those that the strategy allows."""
        for info in head.role.placing.groups.values():
            there = [place.node.node for place in info.places if place is not None]
            if info.state == CREATED and self.created.get(info.group, 0) < info.version:
                self.check_created(info)
            if info.state == PENDING and there:
                raise Violation("all or nothing", f"{self.show(info)} is PENDING")
            if info.strategy == STRICT_SPREAD and len(set(there)) < len(there):
                raise Violation("groups", f"{self.show(info)}: two bundles on one node")
            if info.strategy == STRICT_PACK and len(set(there)) > 1:
                raise Violation("groups", f"{self.show(info)}: bundles on several nodes")

    def check_created(self, info: GroupInfo) -> None:
        """A group is told to have all its places: each is set aside where it is said to be."""
        self.cluster.world.mark("a group is placed")
        self.created[info.group] = info.version
        for index, place in enumerate(info.places):
            if place is None:
                raise Violation("all or nothing", f"{self.show(info)} is CREATED")
            node = self.cluster.nodes[place.node.process]
            if node.alive and place.node.node not in self.cluster.declared:
                held = node.role.scheduling.bundles.held.get(info.group, {}).get(index)
                if held is None or held.round != place.round:
                    raise Violation("all or nothing", f"{self.show(info)}: not so for {node.name}")

    def show(self, info: GroupInfo) -> str:
        """A group for people."""
        places = [
            self.cluster.name_of(place.node.process) if place is not None else "nowhere"
            for place in info.places
        ]
        return f"group {info.group.hex()[:4]}, bundles on {', '.join(places)}"

    def check_node(self, node: NodeProcess) -> None:
        """What is set aside adds up, is nobody else's, and is not used before all have said yes."""
        scheduling = node.role.scheduling
        used: Counter[int] = Counter()
        for lease, granted in scheduling.granted.items():
            placement = granted.wire.placement
            if granted.removed and granted.worker is not None:
                since = self.ending.setdefault(lease, node.now())
                if node.now() - since > ENDING:
                    raise Violation("groups", f"{node.name}: a removed group's task runs on")
            if granted.bundle is not None:
                self.inside.add(lease)
                used[id(granted.bundle)] += granted.held().get(CPU, 0)
            elif placement is not None and placement.group and lease not in self.inside:
                raise Violation("groups", f"{node.name} grants a lease of a group in no bundle")
        for group, held in scheduling.bundles.held.items():
            for index, bundle in held.items():
                free, total = bundle.pool.free.get(CPU, 0), bundle.amounts.get(CPU, 0)
                if free + used[id(bundle)] != total:
                    raise Violation(
                        "resources",
                        f"{node.name}: free + held is not {total / UNIT:g} in bundle {index} of "
                        f"group {group.hex()[:4]}",
                    )
                if bundle.placed:
                    self.check_placed(node, group, index)

    def check_placed(self, node: NodeProcess, group: GroupId, index: int) -> None:
        """One bundle that may be used on a node."""
        if group not in self.created:
            raise Violation("all or nothing", f"{node.name} uses bundle {index}, others have none")
        if node.address.node in self.cluster.declared:
            return
        for other in self.cluster.live_nodes():
            there = other.role.scheduling.bundles.held.get(group, {}).get(index)
            lost = other is node or other.address.node in self.cluster.declared
            if there is not None and there.placed and not lost:
                raise Violation(
                    "a bundle has one place",
                    f"bundle {index} of group {group.hex()[:4]} is on {node.name} and {other.name}",
                )

    # ------------------------------------------------------------------ at rest

    def check_quiet(self, node: NodeProcess) -> None:
        """Nothing is set aside for a group that was removed, nor for a round that is over."""
        bundles = node.role.scheduling.bundles
        left = [group.hex()[:4] for group in bundles.held if self.may_be_gone(group)]
        unplaced = [
            group.hex()[:4]
            for group, held in bundles.held.items()
            if not all(bundle.placed for bundle in held.values())
        ]
        if left or unplaced or bundles.claims:
            raise Violation(
                "no leak",
                f"{node.name} has set aside for groups that are gone {left}, for none {unplaced}, "
                f"claims {len(bundles.claims)}",
            )

    def check_head_quiet(self) -> None:
        """What is left of groups lies on nodes that are there."""
        for info in self.cluster.head.role.placing.groups.values():
            for place in info.places:
                if place is not None and not self.cluster.nodes[place.node.process].alive:
                    raise Violation("all or nothing", f"{self.show(info)}: one is on a dead node")

    def check_gone(self) -> None:
        """Every program has ended: no group is left, and the nodes have all that they have."""
        placing = self.cluster.head.role.placing
        if placing.groups or placing.rounds:
            raise Violation("job ends", f"the head has {len(placing.groups)} groups")
        for node in self.cluster.live_nodes():
            own = node.role.scheduling.own
            if own.free != own.total or node.role.scheduling.bundles.held:
                raise Violation("resources", f"{node.name} has lost some: {own.free} {own.total}")
