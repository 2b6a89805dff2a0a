"""Streams over the death of a node, by real processes: what was taken and is lost is made again,
and what was not made yet is made elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import freehold as fh
from freehold.testing import Cluster
from processes.programs import until

BIG = 1 << 20  # bytes: far above what rides in messages, so that it lies in a store


@fh.remote(resources={"spot": 1})
def filled(n: int, go_on: Path) -> Iterator[Any]:
    """Large values; before the last it waits for word."""
    for i in range(n):
        deadline = time.monotonic() + 30
        while i == n - 1 and not go_on.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        yield np.full(BIG, i, np.uint8)


def lose(cluster: Cluster, node: Any) -> None:
    """Kill a node and give the cluster another. Returns when the program has been told."""
    before = sum(node["Alive"] for node in fh.nodes())
    cluster.kill_node(node)
    until(lambda: sum(node["Alive"] for node in fh.nodes()) < before)


def test_a_stream_outlives_its_node(tmp_path: Path, monkeypatch: Any) -> None:
    """Goal: no value is lost, doubled or out of order when the node dies that makes and stores
    them, in the middle of the stream or after it. Method: five values, two taken; the node is
    killed; the rest comes from another. Then that one is killed, and all five are had again.
    """
    monkeypatch.setenv("FREEHOLD_HOME", str(tmp_path))
    with Cluster(1, num_cpus=1) as cluster:
        fh.init(address=cluster.address, log_to_driver=False)
        node = cluster.add_node(num_cpus=2, resources={"spot": 1})
        stream = filled.remote(5, tmp_path / "go on")
        refs = [next(stream), next(stream)]
        until(lambda: fh.wait([stream], timeout=0, fetch_local=False)[0])
        lose(cluster, node)
        node = cluster.add_node(num_cpus=2, resources={"spot": 1})
        (tmp_path / "go on").touch()
        refs += list(stream)
        assert [int(value[0]) for value in fh.get(refs, timeout=60)] == [0, 1, 2, 3, 4]
        assert fh.get(stream.completed()) == 5
        lose(cluster, node)
        cluster.add_node(num_cpus=2, resources={"spot": 1})
        assert [int(value[-1]) for value in fh.get(refs, timeout=60)] == [0, 1, 2, 3, 4]
