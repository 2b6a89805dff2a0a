"""Placement groups when the head or nodes are killed under them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import freehold as fh
from freehold.testing import Cluster
from processes.programs import left_after, named, until


@pytest.fixture
def cluster(home: Path) -> Iterator[Cluster]:
    """Three nodes of one CPU each; this process is connected."""
    with Cluster(3, num_cpus=1) as three:
        fh.init(address=three.address, log_to_driver=False)
        yield three
    assert left_after(home) == []


@fh.remote
def where(seconds: float = 0.0) -> str:
    """The node that runs it."""
    time.sleep(seconds)
    return fh.get_runtime_context().get_node_id()


def at(group: fh.PlacementGroup, bundle: int) -> Any:
    return where.options(scheduling_strategy=fh.PlacementGroupSchedulingStrategy(group, bundle))


def nodes_of(group: fh.PlacementGroup) -> list[str]:
    return list(fh.placement_group_table(group)["bundles_to_node_id"].values())


def free_cpus() -> float:
    return fh.available_resources().get("CPU", 0.0)


def test_groups_outlive_the_head(cluster: Cluster, home: Path) -> None:
    """Goal: what is placed works on without a head and is known to the next one, a group that was
    waiting is placed by it, and one that it removes is gone everywhere. Method: two bundles of one
    CPU each on three nodes, then a group that finds room for one of its two; kill the head.
    """
    placed = fh.placement_group([{"CPU": 1}] * 2, "STRICT_SPREAD", name="placed")
    assert placed.wait(10)
    waits = fh.placement_group([{"CPU": 1}] * 2, "STRICT_SPREAD", name="waits")
    ready = waits.ready()
    before = nodes_of(placed)
    running = at(placed, 0).remote(1.0)
    (head,) = named(home, "freehold-head")
    os.kill(head, signal.SIGKILL)
    assert fh.get(at(placed, 1).remote(), timeout=10) == before[1]
    assert fh.get(running, timeout=10) == before[0]
    assert fh.get_placement_group("placed") == placed
    assert nodes_of(placed) == before
    assert fh.wait([ready], timeout=0)[0] == []
    fh.remove_placement_group(placed)
    assert fh.get(ready, timeout=20) == waits
    fh.remove_placement_group(waits)
    until(lambda: free_cpus() == 3.0)


def test_a_dead_nodes_bundle_moves_and_its_task_runs_again(cluster: Cluster) -> None:
    """Goal: the lost bundle alone is placed anew, and the task that ran in it is retried there."""
    group = fh.placement_group([{"CPU": 1}] * 2, "STRICT_SPREAD")
    assert group.wait(10)
    before = nodes_of(group)
    here = fh.get_runtime_context().get_node_id()
    lost = next(index for index, node in enumerate(before) if node != here)
    running = at(group, lost).remote(2.0)
    time.sleep(0.3)
    cluster.kill_node(next(node for node in cluster.nodes if node.node_id == before[lost]))
    spare = {node.node_id for node in cluster.nodes if node.alive} - set(before)
    assert fh.get(running, timeout=30) == spare.pop()
    after = nodes_of(group)
    assert after[1 - lost] == before[1 - lost]
    assert after[lost] == fh.get(running)
    fh.remove_placement_group(group)
    until(lambda: free_cpus() == 2.0)


GROUPS = 200
AT_ONCE = 3  # (more could come to hold what the oldest of them waits for)
CHURN = 40  # a node is killed and another joins every so many groups


@fh.remote(num_cpus=0.5)
def occupy() -> tuple[str, float, float]:
    """Hold half a CPU for a moment: where, from when, to when (the machine's clock)."""
    begun = time.monotonic()
    time.sleep(0.02)
    return fh.get_runtime_context().get_node_id(), begun, time.monotonic()


def churn(cluster: Cluster) -> None:
    """Kill a node that is not ours; another joins."""
    here = fh.get_runtime_context().get_node_id()
    cluster.kill_node(next(n for n in cluster.nodes if n.alive and n.node_id != here))
    cluster.add_node(num_cpus=1)


def most_at_once(spans: list[tuple[str, float, float]]) -> int:
    """How many of the spans overlap on one node, at most."""
    most = 0
    for node, begun, _ in spans:
        most = max(most, sum(other == node and b <= begun < e for other, b, e in spans))
    return most


def test_200_groups_while_nodes_come_and_go(cluster: Cluster) -> None:
    """Goal: groups that come and go while nodes do take nothing away for good, and nothing is given
    to two of them. Method: 200 groups, three at a time, on three nodes of one CPU; four times one
    is killed and another joins. A task holds half a CPU in most, and says where and when. No node
    may ever have run three at once; at the end every node has its CPU, a group can have all of
    them, and there is no other group.
    """
    waiting: list[tuple[fh.PlacementGroup, Any]] = []
    spans = []
    ended = 0
    for number in range(GROUPS):
        if number % CHURN == CHURN - 1 and number < GROUPS - 1:
            churn(cluster)
        strategy = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")[number % 4]
        group = fh.placement_group([{"CPU": 0.5}] * (1 + number % 2), strategy)
        there = fh.PlacementGroupSchedulingStrategy(group)
        waiting.append((group, occupy.options(scheduling_strategy=there).remote()))
        if len(waiting) < AT_ONCE and number < GROUPS - 1:
            continue
        oldest, result = waiting.pop(0)
        if number % 3:  # the others go with whatever runs or waits in them
            spans.append(fh.get(result, timeout=20))
        fh.remove_placement_group(oldest)
        ended += 1
    for group, result in waiting:
        spans.append(fh.get(result, timeout=20))
        fh.remove_placement_group(group)
        ended += 1
    assert ended == GROUPS
    assert len(spans) > GROUPS / 2
    assert most_at_once(spans) <= 2
    until(lambda: free_cpus() == 3.0)
    whole = fh.placement_group([{"CPU": 1}] * 3, "STRICT_SPREAD")
    assert whole.wait(10)
    assert set(nodes_of(whole)) == {node.node_id for node in cluster.nodes if node.alive}
    fh.remove_placement_group(whole)
    until(lambda: free_cpus() == 3.0)
    assert {row["state"] for row in fh.placement_group_table().values()} == {"REMOVED"}
