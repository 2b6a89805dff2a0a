"""A head and its nodes: groups are placed whole or not at all, and nothing is lost or held twice,
whatever the order in which messages of different streams come and whoever dies when.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from freehold.core.bundles import Bundles
from freehold.core.placement import INSIST_SECONDS, PATIENCE, Placing
from freehold.core.scheduling import Scheduling
from freehold.ids import GroupId
from freehold.resources import UNIT, Resources
from freehold.wire.messages import Address, BundlesReserved, Placement
from freehold.wire.placement import (
    CREATED,
    PACK,
    PENDING,
    SPREAD,
    STRICT_PACK,
    STRICT_SPREAD,
    GroupInfo,
)
from roles.gathering import Gathering, Machine

STRATEGIES = (PACK, SPREAD, STRICT_PACK, STRICT_SPREAD)
TOTAL = {"CPU": 4 * UNIT, "GPU": 2 * UNIT}


def cpu(amount: float = 1) -> Resources:
    return {"CPU": round(amount * UNIT)}


def agreed(gathering: Gathering) -> None:
    """The head and the nodes say the same, and each group has all of its bundles or none."""
    placed = {
        (info.group, index, place.round): place.node.node
        for info in gathering.placing.groups.values()
        for index, place in enumerate(info.places)
        if place is not None
    }
    held = {
        (group, index, bundle.round): machine.address.node
        for machine in gathering.machines.values()
        for group, bundles in machine.scheduling.bundles.held.items()
        for index, bundle in bundles.items()
        if bundle.round not in gathering.placing.rounds
    }
    assert held == placed
    assert gathering.head is not None
    for info in gathering.placing.groups.values():
        assert info.detached or info.job in gathering.head.membership.jobs
        places = [place is not None for place in info.places]
        assert all(places) == (info.state == CREATED)
        assert any(places) <= (info.state != PENDING)
        nodes = [place.node.node for place in info.places if place is not None]
        if info.strategy == STRICT_PACK:
            assert len(set(nodes)) <= 1
        if info.strategy == STRICT_SPREAD:
            assert len(set(nodes)) == len(nodes)


def end(gathering: Gathering) -> None:
    """Remove every group and return every lease: then everything is free, everywhere."""
    for group in list(gathering.placing.groups):
        gathering.remove(next(iter(gathering.machines.values())), group)
    for machine in gathering.machines.values():
        for lease in list(machine.open):
            machine.give_back(lease)
    gathering.settle()
    assert not gathering.placing.groups
    assert not gathering.placing.rounds
    for machine in gathering.machines.values():
        assert not machine.scheduling.bundles.held
        assert not machine.scheduling.granted
        assert machine.scheduling.free == TOTAL


def test_placed_used_and_removed() -> None:
    """Goal: the life of a group. Method: two bundles on two nodes, a lease in each; then remove."""
    gathering = Gathering(1)
    one, two = gathering.add_node(TOTAL), gathering.add_node(TOTAL)
    gathering.settle()
    group = gathering.create(one, [cpu(3), cpu(2)], STRICT_SPREAD)
    gathering.settle(0.5)
    agreed(gathering)
    assert gathering.placing.groups[group].state == CREATED
    leases = [one.request(cpu(2), Placement(group, index)) for index in (0, 1)]
    gathering.settle(0.5)
    granted = [set(m.scheduling.granted) & set(leases) for m in (one, two)]
    assert [len(leases) for leases in granted] == [1, 1]
    gathering.remove(one, group)
    gathering.settle()
    assert {message.removed for message in one.ends} == {bytes(group)}  # type: ignore[attr-defined]
    end(gathering)


def test_nothing_is_kept_of_a_round_that_one_node_refuses() -> None:
    """Goal: all or none. Method: a node's CPUs are leased before it is asked; the head cannot know.
    The other's part is free again; when the lease ends the group is placed.
    """
    gathering = Gathering(2)
    one, two = gathering.add_node(TOTAL), gathering.add_node(TOTAL)
    gathering.settle()
    busy = one.request(cpu(4))
    gathering.deliver((one.address.node, one.address.node))
    group = gathering.create(two, [cpu(3), cpu(3)], SPREAD)
    for _ in range(12):
        gathering.step()
    gathering.settle(0.2)
    assert gathering.placing.groups[group].state == PENDING
    gathering.settle(1)
    assert two.scheduling.free == TOTAL
    one.give_back(busy)
    gathering.settle()
    assert gathering.placing.groups[group].state == CREATED
    agreed(gathering)
    end(gathering)


def test_only_lost_bundles_move() -> None:
    """Goal: a node's death moves its bundles and no others. Method: three nodes, two bundles."""
    gathering = Gathering(3)
    machines = [gathering.add_node(TOTAL) for _ in range(3)]
    gathering.settle()
    group = gathering.create(machines[0], [cpu(2), cpu(2)], STRICT_SPREAD, detached=True)
    gathering.settle(0.5)
    before = list(gathering.placing.groups[group].places)
    assert before[0] is not None
    gathering.kill_node(gathering.machines[before[0].node.node])
    gathering.settle()
    after = gathering.placing.groups[group].places
    assert after[1] == before[1]
    assert after[0] is not None
    assert after[1] is not None
    assert after[0].node.node not in (before[0].node.node, after[1].node.node)
    agreed(gathering)
    end(gathering)


def test_a_group_ends_with_its_job_unless_detached() -> None:
    """Goal: fate-sharing. Method: the driver that made two groups dies with its node."""
    gathering = Gathering(4)
    one, two = gathering.add_node(TOTAL), gathering.add_node(TOTAL)
    gathering.settle()
    gathering.create(two, [cpu()], PACK)
    stays = gathering.create(two, [cpu()], PACK, detached=True)
    gathering.settle(0.5)
    gathering.kill_node(two)
    gathering.settle()
    assert list(gathering.placing.groups) == [stays]
    assert gathering.placing.groups[stays].state == CREATED
    agreed(gathering)
    assert one.scheduling.free["CPU"] == 3 * UNIT
    end(gathering)


def test_a_head_that_dies_between_asking_and_telling() -> None:
    """Goal: what was set aside for a round that a dead head has begun is given back, and a group
    that it has told of stays. Method: kill it after each step of a creation.
    """
    for steps in range(14):
        gathering = Gathering(steps)
        one, two = gathering.add_node(TOTAL), gathering.add_node(TOTAL)
        gathering.settle()
        group = gathering.create(one, [cpu(3), cpu(3)], STRICT_SPREAD)
        for _ in range(steps):
            gathering.step()
        known = group in gathering.placing.groups
        gathering.kill_head()
        gathering.start_head()
        gathering.settle()
        agreed(gathering)
        assert (group in gathering.placing.groups) == known
        if known:
            assert gathering.placing.groups[group].state == CREATED
        else:
            assert two.scheduling.free == TOTAL
        end(gathering)


def test_a_group_that_has_waited_long_is_not_passed_any_more() -> None:
    """Goal: where there is always more to do than CPUs, a group gets its own in the end; it does
    not keep them from others for ever if what runs does not end. Method: leases of one CPU that are
    returned while others wait: first those are granted, then the CPUs are kept for the group.
    """
    gathering = Gathering(5)
    one = gathering.add_node(TOTAL)
    gathering.settle()
    for _ in range(12):
        one.request(cpu())
    gathering.settle(0.2)
    group = gathering.create(one, [cpu(3)], PACK)
    gathering.settle(0.5)

    def give_back(count: int) -> int:
        """Return so many; how many are granted then."""
        for lease in sorted(one.scheduling.granted)[:count]:
            one.give_back(lease)
        gathering.settle(0.2)
        return len(one.scheduling.granted)

    assert give_back(2) == 4
    gathering.settle(PATIENCE)
    assert give_back(2) == 2
    gathering.settle(INSIST_SECONDS)
    assert len(one.scheduling.granted) == 4
    gathering.settle(PATIENCE)
    assert give_back(3) == 1
    assert gathering.placing.groups[group].state == CREATED
    agreed(gathering)
    end(gathering)


class Storm:
    """Programs, deaths and time, by one seed."""

    def __init__(self, seed: int) -> None:
        self.gathering = gathering = Gathering(seed)
        self.chance = gathering.chance
        self.groups: list[GroupId] = []
        for _ in range(3):
            gathering.add_node(TOTAL)

    def machine(self) -> Machine:
        machines = self.gathering.machines
        return machines[self.chance.choice(sorted(machines))]

    def amounts(self) -> Resources:
        chance = self.chance
        gpu = {"GPU": round(chance.choice([0.5, 1, 2]) * UNIT)} if chance.random() < 0.3 else {}
        return {**cpu(chance.choice([0.5, 1, 1, 2, 3])), **gpu}

    def step(self) -> None:
        """Mostly messages; now and then a program does something; seldom someone dies."""
        gathering, chance = self.gathering, self.chance
        luck = chance.random()
        if luck < 0.75 and gathering.step():
            return
        if luck < 0.85:
            gathering.advance(chance.choice([0.01, 0.05, 0.3, 1.1]))
        elif luck < 0.90 and gathering.head is not None:
            bundles = [self.amounts() for _ in range(chance.randrange(1, 5))]
            strategy, detached = chance.choice(STRATEGIES), chance.random() < 0.5
            made = gathering.create(self.machine(), bundles, strategy, detached=detached)
            self.groups.append(made)
        elif luck < 0.93 and self.groups:
            gathering.remove(self.machine(), chance.choice(self.groups))
        elif luck < 0.96:
            placement = None
            if self.groups and chance.random() < 0.7:
                placement = Placement(chance.choice(self.groups), chance.choice([-1, 0, 1]))
            self.machine().request(self.amounts(), placement)
        elif luck < 0.985:
            machine = self.machine()
            if machine.open:
                machine.give_back(chance.choice(sorted(machine.open)))
        elif luck < 0.993:
            gathering.kill_node(self.machine())
            gathering.add_node(TOTAL)
        elif gathering.head is None:
            gathering.start_head()
        else:
            gathering.kill_head(torn=chance.choice([0, 0, 1, 3]))


@pytest.mark.parametrize("seed", range(60))
def test_nothing_is_lost_or_held_twice(seed: int) -> None:
    """Goal: in any order of messages, with nodes and heads that die at any moment, each node's
    resources add up after every step; when all has settled the head and the nodes agree; when all
    groups are removed everything is free. Method: 400 random steps.
    """
    weather(seed)


def weather(seed: int) -> None:
    """One storm, and what must be true during and after it."""
    storm = Storm(seed)
    for _ in range(400):
        storm.step()
        storm.gathering.check()
    if storm.gathering.head is None:
        storm.gathering.start_head()
    storm.gathering.settle(25.0)  # (groups whose job nobody knows go after twice DEAD_AFTER)
    agreed(storm.gathering)
    end(storm.gathering)


def used_before_all_agree(true: Callable[..., None]) -> Callable[..., None]:
    """A head that takes the first yes for that of all."""

    def on_reserved(self: Placing, message: BundlesReserved, peer: Address) -> None:
        under_way = self.rounds.get(message.round)
        if under_way is not None and not message.refused:
            under_way.waiting.clear()
        true(self, message, peer)

    return on_reserved


def keeps_what_the_head_forgot(true: Callable[..., None]) -> Callable[..., None]:
    """A node that is taken in again and keeps what it had set aside."""

    def reconcile(self: Bundles, groups: list[GroupInfo]) -> None:
        for info in groups:
            self.on_changed(info)

    return reconcile


def nothing(true: Callable[..., None]) -> Callable[..., None]:
    """It is not done at all."""
    return lambda *args: None


MISTAKES: list[tuple[type, str, Callable[..., Any]]] = [
    (Placing, "on_reserved", used_before_all_agree),
    (Placing, "node_gone", nothing),
    (Placing, "job_over", nothing),
    (Placing, "sweep_later", nothing),
    (Placing, "let_go", nothing),
    (Bundles, "reconcile", keeps_what_the_head_forgot),
    (Bundles, "on_release", nothing),
    (Scheduling, "evict", nothing),
]


@pytest.mark.parametrize(
    ("kind", "name", "mistake"), MISTAKES, ids=lambda value: getattr(value, "__name__", value)
)
def test_the_storm_finds_mistakes(
    kind: type, name: str, mistake: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the test above can fail. Method: one thing done wrong; a storm among the first 100 must
    notice.
    """
    monkeypatch.setattr(kind, name, mistake(getattr(kind, name)))
    for seed in range(100):
        try:
            weather(seed)
        except (AssertionError, KeyError):
            return
    pytest.fail("nobody noticed")
