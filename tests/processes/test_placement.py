"""Placement groups when the head or a node is killed under them."""

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
