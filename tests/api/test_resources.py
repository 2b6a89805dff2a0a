"""What a task asks for: CPUs, fractions, custom resources, GPUs, memory; and what cannot be had."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import freehold as fh
from freehold.errors import UnschedulableError
from freehold.testing import Cluster

from .conftest import until

pytestmark = pytest.mark.usefixtures("machine")

GIB = 1 << 30


@pytest.fixture(scope="module")
def machine() -> Iterator[None]:
    """Two CPUs, a GPU, three units of "slot", 4 GiB for memory=."""
    fh.init(
        num_cpus=2,
        num_gpus=1,
        memory=4 * GIB,
        resources={"slot": 3},
        infeasible_grace=1,
        log_to_driver=False,
    )
    yield
    fh.shutdown()


@fh.remote
def span(folder: str, seconds: float) -> tuple[float, float]:
    """When this task began and ended, on the clock that all processes share."""
    del folder
    start = time.monotonic()
    time.sleep(seconds)
    return start, time.monotonic()


def most_at_once(spans: list[tuple[float, float]]) -> int:
    """The greatest number of spans that overlap."""
    moments = sorted([(s, 1) for s, _ in spans] + [(e, -1) for _, e in spans])
    most = now = 0
    for _, change in moments:
        now += change
        most = max(most, now)
    return most


def run(count: int, seconds: float = 0.15, **options: Any) -> int:
    """Run ``count`` such tasks; how many ran at once."""
    task = span.options(**options)
    return most_at_once(fh.get([task.remote("", seconds) for _ in range(count)], timeout=60))


def test_one_cpu_each_by_default() -> None:
    """Goal: two CPUs run two tasks. Method: overlap of six."""
    assert run(6) == 2


def test_two_cpus_exclude_all_others() -> None:
    """Goal: num_cpus=2 takes the machine. Method: three such, mixed with small ones."""
    refs = [span.options(num_cpus=2).remote("", 0.1) for _ in range(3)]
    small = [span.remote("", 0.05) for _ in range(4)]
    large = fh.get(refs, timeout=60)
    assert most_at_once(large) == 1
    for start, end in large:
        assert all(e <= start or s >= end for s, e in fh.get(small, timeout=60))


def test_a_tenth_of_a_cpu_ten_times() -> None:
    """Goal: fractions add up exactly. Method: 20 tenths beside each other on two CPUs, not 21;
    GPU shares likewise."""
    assert run(20, 1.5, num_cpus=0.1) == 20
    assert run(4, 0.3, num_cpus=0, num_gpus=0.5) == 2


def test_zero_cpus() -> None:
    """Goal: num_cpus=0 runs while both CPUs are held. Method: two sleepers first."""
    holders = [span.remote("", 1.0) for _ in range(2)]
    start = time.monotonic()
    fh.get(span.options(num_cpus=0).remote("", 0), timeout=30)
    assert time.monotonic() - start < 0.9
    fh.get(holders)


def test_custom_resources() -> None:
    """Goal: a made-up resource limits as a CPU does. Method: 3 slots, 1 and 1.5 each."""
    assert run(6, 0.2, num_cpus=0, resources={"slot": 1}) == 3
    assert run(4, 0.2, num_cpus=0, resources={"slot": 1.5}) == 2


def test_one_gpu() -> None:
    """Goal: GPUs are counted. Method: three tasks of one GPU on a node with one."""
    assert run(3, num_cpus=0, num_gpus=1) == 1


def test_memory() -> None:
    """Goal: memory= is a reservation. Method: 4 GiB hold two tasks of 1.6 GiB."""
    assert run(4, 0.2, num_cpus=0, memory=1.6 * GIB) == 2


def test_available_returns_to_full() -> None:
    """Goal: nothing stays taken after work, failures and cancels. Method: some of each, compare
    with the total."""
    bad = span.options(num_gpus=1).remote("", "not a number")
    slow = span.options(resources={"slot": 3}).remote("", 1000)
    with pytest.raises(TypeError):
        fh.get(bad)
    fh.cancel(slow)
    run(3, 0.01, memory=GIB)
    total = fh.cluster_resources()
    assert total == {"CPU": 2.0, "GPU": 1.0, "memory": 4.0 * GIB, "slot": 3.0}
    assert until(lambda: fh.available_resources() == total, 10), fh.available_resources()


def test_a_running_task_is_seen_in_available_resources() -> None:
    """Goal: the report follows within a second. Method: hold one CPU and a slot."""
    holder = span.options(resources={"slot": 1}).remote("", 1000)
    assert until(lambda: fh.available_resources().get("slot") == 2.0, 5)
    assert fh.available_resources()["CPU"] == 1.0
    fh.cancel(holder)


def test_assigned_resources_are_known_in_the_task() -> None:
    """Goal: a task can ask what it was granted. Method: fractions and custom ones."""

    @fh.remote(num_cpus=0.5, num_gpus=0.25, resources={"slot": 2})
    def mine() -> dict[str, float]:
        return fh.get_runtime_context().get_assigned_resources()

    assert fh.get(mine.remote()) == {"CPU": 0.5, "GPU": 0.25, "slot": 2.0}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_cpus": 3}, "CPU 3 .*has CPU 2.*short of CPU 1"),
        ({"num_gpus": 2}, "GPU 2 .*short of GPU 1"),
        ({"resources": {"tpu": 1}}, "tpu 1.*short of tpu 1"),
        ({"resources": {"slot": 4}}, "slot 4.*short of slot 1"),
        ({"memory": 5 * GIB}, "memory 5,120 MiB.*short of memory 1,024 MiB"),
    ],
)
def test_the_impossible_fails_soon_and_says_why(options: dict[str, Any], words: str) -> None:
    """Goal: no silent waiting for what no node has. Method: after one second of grace, the error
    names the request and the nearest miss."""
    start = time.monotonic()
    with pytest.raises(UnschedulableError, match=words) as caught:
        fh.get(span.options(**options).remote("", 0), timeout=30)
    assert 0.9 < time.monotonic() - start < 6
    assert "span()" in str(caught.value)


def test_the_impossible_does_not_hold_up_the_possible() -> None:
    """Goal: others pass it. Method: quick tasks during the grace time."""
    bad = span.options(num_cpus=50).remote("", 0)
    start = time.monotonic()
    fh.get([span.remote("", 0) for _ in range(10)])
    assert time.monotonic() - start < 0.9
    with pytest.raises(UnschedulableError):
        fh.get(bad, timeout=30)


def test_a_big_request_is_not_starved_by_small_ones(tmp_path: Path) -> None:
    """Goal: num_cpus=2 gets its turn among an endless stream of small tasks. Method: keep the
    stream going until it has."""
    refs = [span.remote("", 0.02) for _ in range(10)]
    big = span.options(num_cpus=2).remote(str(tmp_path), 0)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        ready, _ = fh.wait([big], timeout=0)
        if ready:
            break
        _, refs = fh.wait(refs)
        refs.append(span.remote("", 0.02))
    assert fh.get(big, timeout=0)


def test_custom_resources_on_two_nodes() -> None:
    """Goal: a task runs where its resource is, and waits if that node is busy. Method: two nodes
    with one made-up resource each; the driver's node has the other."""
    fh.shutdown()
    with Cluster(1, num_cpus=1, resources={"left": 1}, infeasible_grace=1) as cluster:
        right = cluster.add_node(num_cpus=1, resources={"right": 1})
        fh.init(cluster.address)

        @fh.remote
        def where() -> str:
            time.sleep(0.02)
            return fh.get_runtime_context().get_node_id()

        on_right = [where.options(resources={"right": 1}).remote() for _ in range(5)]
        on_left = [where.options(resources={"left": 0.5}).remote() for _ in range(5)]
        assert set(fh.get(on_right, timeout=30)) == {right.node_id}
        assert set(fh.get(on_left, timeout=30)) == {cluster.nodes[0].node_id}
        assert len(set(fh.get([where.remote() for _ in range(20)], timeout=30))) == 2
        with pytest.raises(UnschedulableError, match=r"(?s)none of 2 nodes"):
            fh.get(where.options(resources={"left": 1, "right": 1}).remote(), timeout=30)
        assert len([node for node in fh.nodes() if node["Alive"]]) == 2
    fh.init(num_cpus=2, num_gpus=1, memory=4 * GIB, resources={"slot": 3}, infeasible_grace=1)
