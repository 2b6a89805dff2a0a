"""Where things run: placement groups, strategies, labels, GPUs, threads, priorities; on a real
cluster of three nodes with two CPUs and two GPUs each.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import freehold as fh
from freehold.errors import (
    ActorDiedError,
    PlacementGroupRemovedError,
    TaskPlacementGroupRemovedError,
    UnschedulableError,
)
from freehold.testing import Cluster

from .conftest import until

TOTAL = {"CPU": 6.0, "GPU": 6.0, "slot": 3.0}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three nodes, in zones a, b and c; the last two have disks."""
    with Cluster(0, infeasible_grace=1) as made:
        for zone, disk in (("a", {}), ("b", {"disk": "ssd"}), ("c", {"disk": "hdd"})):
            made.add_node(
                num_cpus=2, num_gpus=2, resources={"slot": 1}, labels={"zone": zone, **disk}
            )
        fh.init(address=made.address, log_to_driver=False)
        yield made


@pytest.fixture(autouse=True)
def nothing_reserved(cluster: Cluster) -> Iterator[None]:
    """After each test every group that it has left is removed, and everything is free again."""
    yield
    for row in fh.placement_group_table().values():
        if row["state"] != "REMOVED":
            bundles = list(row["bundles"].values())
            group = bytes.fromhex(row["placement_group_id"])
            fh.remove_placement_group(fh.PlacementGroup(group, bundles))  # type: ignore[arg-type]
    assert until(lambda: free() == TOTAL), free()


def free() -> dict[str, float]:
    return {name: fh.available_resources().get(name, 0.0) for name in TOTAL}


@fh.remote
def where() -> str:
    return fh.get_runtime_context().get_node_id()


@fh.remote
def sleep(seconds: float) -> None:
    time.sleep(seconds)


@fh.remote(num_cpus=0)
class Seat:
    def node(self) -> str:
        return fh.get_runtime_context().get_node_id()


def at(group: fh.PlacementGroup, bundle: int = -1, **more: Any) -> dict[str, Any]:
    return {"scheduling_strategy": fh.PlacementGroupSchedulingStrategy(group, bundle), **more}


def nodes_of(group: fh.PlacementGroup) -> list[str]:
    return list(fh.placement_group_table(group)["bundles_to_node_id"].values())


# -- placement groups -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "different"),
    [("PACK", 1), ("STRICT_PACK", 1), ("SPREAD", 2), ("STRICT_SPREAD", 2)],
)
def test_a_group_is_placed_by_its_strategy_and_tasks_run_in_its_bundles(
    strategy: str, different: int
) -> None:
    """Goal: each strategy places two small bundles as it says; what runs in a bundle runs where it
    is; amounts are taken from the bundle, not from the node. Method: tasks in each bundle.
    """
    group = fh.placement_group([{"CPU": 1}, {"CPU": 1}], strategy)
    assert fh.get(group.ready(), timeout=10) == group
    assert group.wait(1)
    places = nodes_of(group)
    assert len(set(places)) == different
    ran = fh.get([where.options(**at(group, n)).remote() for n in (0, 1)], timeout=10)
    assert ran == places
    assert fh.get(where.options(**at(group)).remote(), timeout=10) in places
    assert until(lambda: free()["CPU"] == 4.0)


def test_bundles_hold_no_more_than_they_reserve() -> None:
    """Goal: two tasks of one CPU in a bundle of one CPU run one after the other, while the node has
    room; one that no bundle can hold is refused and told so.
    """
    group = fh.placement_group([{"CPU": 1, "slot": 1}])
    tasks = [sleep.options(**at(group, 0)).remote(0.15) for _ in range(2)]
    began = time.monotonic()
    fh.get(tasks, timeout=10)
    assert time.monotonic() - began >= 0.3
    big = where.options(**at(group, 0, num_cpus=2)).remote()
    with pytest.raises(UnschedulableError, match=r"CPU 2 is needed; bundle 0 of .* has CPU 1"):
        fh.get(big, timeout=10)
    nothing = where.options(**at(group, num_gpus=1)).remote()
    with pytest.raises(UnschedulableError, match="which no bundle of placement group"):
        fh.get(nothing, timeout=10)


def test_what_runs_or_waits_in_a_removed_group_ends() -> None:
    """Goal: a running task, a queued one, a later one, an actor and ready() all learn that their
    group was removed, at once, and the bundle is free again.
    """
    group = fh.placement_group([{"CPU": 1}])
    running = sleep.options(**at(group, 0, max_retries=-1)).remote(1000)
    queued = sleep.options(**at(group, 0)).remote(1000)
    seat = Seat.options(**at(group, 0)).remote()
    assert fh.get(seat.node.remote(), timeout=10) == nodes_of(group)[0]
    waits = fh.placement_group([{"CPU": 2}] * 3 + [{"CPU": 1}])
    never = waits.ready()
    began = time.monotonic()
    fh.remove_placement_group(group)
    fh.remove_placement_group(group)
    fh.remove_placement_group(waits)
    for ref in (running, queued, where.options(**at(group)).remote()):
        with pytest.raises(TaskPlacementGroupRemovedError) as caught:
            fh.get(ref, timeout=10)
        assert caught.value.group_id == group.id
    with pytest.raises(ActorDiedError, match=r"placement group .* was removed"):
        fh.get(seat.node.remote(), timeout=10)
    with pytest.raises(PlacementGroupRemovedError):
        fh.get(never, timeout=10)
    with pytest.raises(PlacementGroupRemovedError):
        waits.wait(10)
    assert time.monotonic() - began < 5
    assert fh.placement_group_table(group)["state"] == "REMOVED"


def test_a_group_waits_until_there_is_room_and_says_for_what() -> None:
    """Goal: pending until feasible; table, explain and wait tell. Method: one group takes two
    nodes; another wants two CPUs on each of two, and gets them when the first is removed.
    """
    first = fh.placement_group([{"CPU": 2}, {"CPU": 2}], "STRICT_SPREAD")
    assert first.wait(10)
    second = fh.placement_group([{"CPU": 2}, {"CPU": 2}], "STRICT_SPREAD")
    task = where.options(**at(second, 1)).remote()
    assert not second.wait(0.2)
    assert fh.placement_group_table(second)["waits_for"] == "not enough is free now"
    said = until(lambda: "bundle 1 of placement group" in fh.explain(task) and fh.explain(task))
    assert "not yet placed (STRICT_SPREAD, needs CPU 2: not enough is free now)" in said
    assert f"placement group {second.id[:8]}" in fh.explain(second.ready())
    impossible = fh.placement_group([{"CPU": 64}])
    assert until(lambda: "no node has" in fh.placement_group_table(impossible)["waits_for"])
    fh.remove_placement_group(first)
    assert fh.get(task, timeout=10) == nodes_of(second)[1]


def test_children_are_captured_when_asked_for() -> None:
    """Goal: with capture, what a task in a group submits runs in the group, unless it says where
    itself; without, it does not. get_current_placement_group tells.
    """

    @fh.remote
    def current() -> str | None:
        group = fh.get_current_placement_group()
        return group.id if group is not None else None

    @fh.remote
    def parent(**options: Any) -> tuple[str | None, str | None]:
        own = fh.get_current_placement_group()
        ref = current.options(num_cpus=0, **options).remote()
        return own.id if own is not None else None, fh.get(ref)

    group = fh.placement_group([{"CPU": 1}])
    captured = parent.options(
        scheduling_strategy=fh.PlacementGroupSchedulingStrategy(
            group, 0, placement_group_capture_child_tasks=True
        )
    )
    assert fh.get(captured.remote(), timeout=10) == (group.id, group.id)
    assert fh.get(captured.remote(scheduling_strategy="DEFAULT"), timeout=10) == (group.id, None)
    assert fh.get(parent.options(**at(group, 0)).remote(), timeout=10) == (group.id, None)
    assert fh.get(parent.remote(), timeout=10) == (None, None)
    assert fh.get_current_placement_group() is None


def test_names_handles_and_bad_input() -> None:
    """Goal: a name finds its group and is taken once; handles can be stored and compared; what is
    wrong is named.
    """
    group = fh.placement_group([{"CPU": 1, "slot": 0.5}], name="train")
    assert fh.get_placement_group("train") == pickle.loads(pickle.dumps(group)) == group
    assert group.bundle_specs == [{"CPU": 1, "slot": 0.5}]
    assert (group.bundle_count, group.is_empty, len({group, group})) == (1, False, 1)
    with pytest.raises(ValueError, match="named 'train' exists already"):
        fh.placement_group([{"CPU": 1}], name="train")
    fh.remove_placement_group(group)
    with pytest.raises(ValueError, match="there is no placement group named 'train'"):
        fh.get_placement_group("train")
    wrong: list[tuple[Any, str]] = [
        ([], "1 to 10,000 dicts"),
        ([{}], "bundle 0 reserves nothing"),
        ([{"CPU": 1}, {"CPU": 0}], "bundle 1 reserves nothing"),
        ([{"CPU": -1}], "bundle 0: num_cpus"),
        ([{"GPU": 1.5}], "bundle 0: num_gpus=1.5"),
    ]
    for bundles, words in wrong:
        with pytest.raises(ValueError, match=words):
            fh.placement_group(bundles)
    with pytest.raises(TypeError, match="bundles must be a list"):
        fh.placement_group({"CPU": 1})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="strategy must be one of"):
        fh.placement_group([{"CPU": 1}], "TIGHT")
    with pytest.raises(ValueError, match='lifetime must be None or "detached"'):
        fh.placement_group([{"CPU": 1}], lifetime="long")
    with pytest.raises(ValueError, match="has 1 bundles, 0 to 0; -1 is any"):
        fh.PlacementGroupSchedulingStrategy(group, 1)
    with pytest.raises(TypeError, match="must be a PlacementGroup"):
        where.options(placement_group="train")
    with pytest.raises(ValueError, match="both say where to run"):
        where.options(placement_group=group, scheduling_strategy="SPREAD")


def test_awaited_and_passed_on() -> None:
    """Goal: ready() is a reference like any other: awaited, waited for, given to a task."""

    @fh.remote
    def count(group: fh.PlacementGroup) -> int:
        return group.bundle_count

    group = fh.placement_group([{"CPU": 1}])

    async def program() -> bool:
        return (await group.ready()) == group

    assert asyncio.run(program())
    assert fh.get(count.remote(group.ready()), timeout=10) == 1
    assert fh.wait([group.ready()], timeout=10)[0]


def test_bundles_may_ask_for_labels() -> None:
    """Goal: bundle_label_selector decides where bundles go."""
    zones = {row["NodeID"]: row["Labels"]["zone"] for row in fh.nodes() if row["Alive"]}
    selectors = [{"zone": "c"}, {"disk": "ssd"}]
    group = fh.placement_group([{"CPU": 1}] * 2, "PACK", bundle_label_selector=selectors)
    assert group.wait(10)
    assert [zones[node] for node in nodes_of(group)] == ["c", "b"]
    with pytest.raises(ValueError, match="has 1 items for 2 bundles"):
        fh.placement_group([{"CPU": 1}] * 2, bundle_label_selector=[{}])


def test_groups_end_with_their_program_unless_detached(cluster: Cluster) -> None:
    """Goal: fate-sharing. Method: another program makes a group of each kind and dies."""
    program = f"""
import os, freehold as fh
fh.init(address={cluster.address!r})
for lifetime in (None, "detached"):
    assert fh.placement_group([{{"CPU": 1}}], name=str(lifetime), lifetime=lifetime).wait(10)
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    names = lambda: {  # noqa: E731
        row["name"] for row in fh.placement_group_table().values() if row["state"] == "CREATED"
    }
    assert until(lambda: names() == {"detached"})
    assert fh.get_placement_group("detached").wait(1)


# -- strategies -----------------------------------------------------------------------------------


def test_node_affinity(cluster: Cluster) -> None:
    """Goal: hard: there and nowhere else, and a node that is gone is named; soft: there, or
    elsewhere.
    """
    affinity = fh.NodeAffinitySchedulingStrategy
    ids = [row["NodeID"] for row in fh.nodes() if row["Alive"]]
    refs = [where.options(scheduling_strategy=affinity(node)).remote() for node in ids]
    assert fh.get(refs, timeout=10) == ids
    extra = cluster.add_node(num_cpus=1)
    assert until(lambda: any(row["NodeID"] == extra.node_id for row in fh.nodes()))
    task = where.options(scheduling_strategy=affinity(extra.node_id))
    soft = where.options(scheduling_strategy=affinity(extra.node_id, soft=True))
    assert fh.get([task.remote(), soft.remote()], timeout=10) == [extra.node_id] * 2
    cluster.kill_node(extra)
    with pytest.raises(UnschedulableError, match=f"node {extra.node_id[:8]} alone, which is gone"):
        fh.get(task.remote(), timeout=20)
    assert fh.get(soft.remote(), timeout=10) in ids
    nobody = where.options(scheduling_strategy=affinity("0123456789abcdef")).remote()
    with pytest.raises(UnschedulableError, match="on node 01234567 is needed; there is no such"):
        fh.get(nobody, timeout=20)
    with pytest.raises(ValueError, match="node_id must be 16 hex digits"):
        affinity("node-1")


def test_spread_and_labels() -> None:
    """Goal: SPREAD uses every node; selectors choose by labels, fallbacks in order, and what no
    node satisfies is told.
    """
    zones = {row["NodeID"]: row["Labels"]["zone"] for row in fh.nodes() if row["Alive"]}

    @fh.remote(scheduling_strategy="SPREAD")
    def busy() -> str:
        time.sleep(0.3)
        return fh.get_runtime_context().get_node_id()

    assert set(fh.get([busy.remote() for _ in range(3)], timeout=20)) == set(zones)

    def zone(**options: Any) -> str:
        return zones[fh.get(where.options(**options).remote(), timeout=10)]

    assert zone(label_selector={"zone": "b"}) == "b"
    assert zone(label_selector={"zone": "!in(a, b)"}) == "c"
    assert zone(label_selector={"zone": "in(a,c)", "disk": "!ssd", "slot": "!x"}) in "ac"
    assert zone(label_selector={"disk": "!in(hdd,ssd)"}) == "a"
    fallback = [{"label_selector": {"zone": "q"}}, {"label_selector": {"disk": "hdd"}}]
    assert zone(label_selector={"zone": "z"}, fallback_strategy=fallback) == "c"
    with pytest.raises(UnschedulableError, match="label zone=z is needed; there is no such node"):
        zone(label_selector={"zone": "z"})
    for wrong in ("in(a,)", "a b", "!", "in()"):
        with pytest.raises(ValueError, match="must be a value, !value, in"):
            where.options(label_selector={"zone": wrong})


def test_the_urgent_goes_first() -> None:
    """Goal: of what waits, the greater priority gets the next worker. Method: one slot, held while
    ten ordinary tasks and one urgent are queued; the order in which they ran.
    """
    folder = fh.put([0])

    @fh.remote(num_cpus=0, label_selector={"zone": "a"})
    def began(name: str, slots: Any) -> tuple[float, str]:
        del slots
        return time.monotonic(), name

    holder = sleep.options(resources={"slot": 1}, label_selector={"zone": "a"}).remote(0.7)
    time.sleep(0.1)
    plain = [began.options(resources={"slot": 1}).remote("plain", folder) for _ in range(10)]
    time.sleep(0.1)
    urgent = began.options(resources={"slot": 1}, priority=1).remote("urgent", folder)
    fh.get(holder, timeout=10)
    order = [name for _, name in sorted(fh.get([*plain, urgent], timeout=20))]
    assert order[0] == "urgent"
    with pytest.raises(TypeError, match="priority must be an integer"):
        began.options(priority="high")


# -- devices --------------------------------------------------------------------------------------


@fh.remote(num_cpus=0)
def devices(seconds: float = 0.0) -> tuple[str | None, list[int | str], int, str]:
    """What a task sees."""
    time.sleep(seconds)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible, fh.get_gpu_ids(), os.getpid(), fh.get_runtime_context().get_node_id()


def test_gpus_are_given_by_number() -> None:
    """Goal: tasks that run at once see different GPUs, two halves may share one; a task without
    sees none; and a process is never shown other GPUs than before.
    """
    node = fh.NodeAffinitySchedulingStrategy(fh.get(where.remote(), timeout=10))
    there = devices.options(scheduling_strategy=node)
    single = fh.get([there.options(num_gpus=1).remote(0.3) for _ in range(2)], timeout=20)
    assert sorted(seen[0] or "" for seen in single) == ["0", "1"]
    assert all(seen[1] == [int(seen[0] or -1)] for seen in single)
    both = fh.get(there.options(num_gpus=2).remote(), timeout=20)
    assert both[:2] == ("0,1", [0, 1])
    halves = fh.get([there.options(num_gpus=0.5).remote(0.3) for _ in range(4)], timeout=20)
    assert sorted(seen[0] or "" for seen in halves) == ["0", "0", "1", "1"]
    none = fh.get(there.remote(), timeout=20)
    assert none[:2] == ("", [])
    shown: dict[int, set[str | None]] = {}
    for seen in [*single, both, *halves, none]:
        shown.setdefault(seen[2], set()).add(seen[0])
    assert all(len(views) == 1 for views in shown.values())
    assert fh.get_gpu_ids() == []


def test_threads_follow_the_lease() -> None:
    """Goal: libraries for arithmetic use as many threads as the lease has CPUs, numpy's too, though
    it was loaded before. Method: variables, and what OpenBLAS itself says.
    """

    @fh.remote
    def threads() -> tuple[str | None, set[int]]:
        import ctypes

        import numpy as np

        np.ones((2, 2)) @ np.ones((2, 2))
        lines = Path("/proc/self/maps").read_text().splitlines()
        said = set()
        for path in {line.split()[-1] for line in lines if "openblas" in line}:
            library = ctypes.CDLL(path)
            for name in ("scipy_openblas_get_num_threads64_", "openblas_get_num_threads"):
                if hasattr(library, name):
                    said.add(getattr(library, name)())
        return os.environ.get("OMP_NUM_THREADS"), said

    for cpus in (1, 2, 1):
        variable, said = fh.get(threads.options(num_cpus=cpus).remote(), timeout=20)
        assert variable == str(cpus)
        assert said == {cpus}


# -- under churn ----------------------------------------------------------------------------------


def test_two_hundred_groups_while_nodes_come_and_go(cluster: Cluster) -> None:
    """Goal: 200 groups are created, used and removed while nodes are killed and added: in the end
    no resource is lost, and none was granted twice (the counters of each node would not add up).
    """
    chance = random.Random(4)
    extra = [cluster.add_node(num_cpus=2)]
    alive: list[fh.PlacementGroup] = []
    strategies = ["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]
    used: list[Any] = []
    for number in range(200):
        bundles = [{"CPU": chance.choice([0.5, 1, 2])} for _ in range(chance.randrange(1, 4))]
        group = fh.placement_group(bundles, chance.choice(strategies))
        used.append(where.options(**at(group, 0, num_cpus=0.5, max_retries=-1)).remote())
        alive.append(group)
        while len(alive) > 6:
            fh.remove_placement_group(alive.pop(chance.randrange(len(alive))))
        if number % 50 == 25:
            cluster.kill_node(extra.pop())
            extra.append(cluster.add_node(num_cpus=2))
    for group in alive:
        fh.remove_placement_group(group)
    cluster.kill_node(extra.pop())
    ended = {type(error_of(ref)) for ref in used}
    assert ended <= {type(None), TaskPlacementGroupRemovedError}
    assert type(None) in ended
    assert until(lambda: free() == TOTAL), free()


def error_of(ref: fh.ObjectRef[Any]) -> BaseException | None:
    try:
        fh.get(ref, timeout=30)
    except Exception as error:
        return error
    return None
