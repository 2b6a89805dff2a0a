"""Values that were lost with a node are made again, by real processes on several nodes.

The machines of it have tests of their own (``core/lineage``, the simulator). Here a node daemon is
killed with SIGKILL, its store and its spill files go with it, and the program asks for what lay
there. Nodes with the resource ``spot`` are those that die; the program's own node has none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import freehold as fh
from freehold.core import lineage
from freehold.runtime import current
from freehold.testing import Cluster, ClusterNode
from processes.programs import until

BIG = 1 << 20  # bytes: far above what rides in messages, so that it lies in a store


class Spots:
    """The cluster of a test: the program's node, and one node that may be killed."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.spot = self.add()

    def add(self, **settings: Any) -> ClusterNode:
        """One more node whose tasks may be lost."""
        return self.cluster.add_node(num_cpus=2, resources={"spot": 4}, **settings)

    def lose(self, *, replace: bool = True) -> None:
        """Kill the node with all that it stores. Returns when the program has been told."""
        before = sum(node["Alive"] for node in fh.nodes())
        self.cluster.kill_node(self.spot)
        until(lambda: sum(node["Alive"] for node in fh.nodes()) < before)
        if replace:
            self.spot = self.add()


@pytest.fixture
def spots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spots]:
    """Two nodes; the program is connected."""
    monkeypatch.setenv("FREEHOLD_HOME", str(tmp_path))
    with Cluster(1, num_cpus=1) as cluster:
        fh.init(address=cluster.address, log_to_driver=False)
        yield Spots(cluster)


def note(folder: Path, name: object) -> int:
    """A task says that it runs, each time. Returns how often it has before."""
    count = len(list(folder.glob(f"{name}.*")))
    (folder / f"{name}.{os.urandom(4).hex()}").touch()
    return count


def runs(folder: Path, name: object) -> int:
    return len(list(folder.glob(f"{name}.*")))


@fh.remote(resources={"spot": 1})
def filled(folder: Path, name: int, size: int = BIG) -> Any:
    note(folder, name)
    return np.full(size, name % 251, np.uint8)


@fh.remote(resources={"spot": 1})
def raised(folder: Path, name: int, *parts: Any) -> Any:
    """The sum of the parts and one, element by element."""
    note(folder, name)
    return sum(parts) + np.ones_like(parts[0])


def test_a_stored_value_is_made_again(spots: Spots, tmp_path: Path) -> None:
    """Goal: the loss of a node is invisible to who asks for a value of a task. Method: one value of
    1 MiB, its node killed and replaced; the task has run twice."""
    ref = filled.remote(tmp_path, 7)
    fh.wait([ref], fetch_local=False)
    spots.lose()
    assert np.array_equal(fh.get(ref, timeout=20), np.full(BIG, 7, np.uint8))
    assert runs(tmp_path, 7) == 2


def test_a_get_that_waits_is_served(spots: Spots, tmp_path: Path) -> None:
    """Goal: who already waits for a dependant of a lost value gets it. Method: no replacement is
    there when the get begins; one joins while it waits."""
    ref = filled.remote(tmp_path, 1)
    fh.wait([ref], fetch_local=False)
    above = raised.remote(tmp_path, 2, ref)
    fh.wait([above], fetch_local=False)
    spots.lose(replace=False)
    ready, _ = fh.wait([above], timeout=0.3)
    assert not ready
    spots.spot = spots.add()
    assert np.array_equal(fh.get(above, timeout=20), np.full(BIG, 2, np.uint8))


def test_spilled_values_are_made_again(spots: Spots, tmp_path: Path) -> None:
    """Goal: a value is lost with its node's disk as with its memory. Method: 96 MiB of values in a
    store of 32 MiB, so that two thirds are in spill files when the node dies."""
    spots.lose(replace=False)
    spots.spot = spots.add(object_store_memory=32 << 20)
    refs = [filled.remote(tmp_path, name, 8 << 20) for name in range(12)]
    fh.wait(refs, num_returns=12, fetch_local=False)
    folder = spots.spot._started.folder
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) > 32 << 20
    spots.lose()
    for name, ref in enumerate(refs):
        assert np.array_equal(fh.get(ref, timeout=30), np.full(8 << 20, name, np.uint8))
    assert [runs(tmp_path, name) for name in range(12)] == [2] * 12


def test_a_chain_whose_links_are_gone_is_made_again(spots: Spots, tmp_path: Path) -> None:
    """Goal: what a lost value was made of is made again first. Method: a chain of six, of which
    only the last can be named, so that five arguments were freed when they were used."""
    ref = filled.remote(tmp_path, 0)
    for link in range(1, 6):
        ref = raised.remote(tmp_path, link, ref)
    fh.wait([ref], fetch_local=False)
    spots.lose()
    assert np.array_equal(fh.get(ref, timeout=30), np.full(BIG, 5, np.uint8))
    assert [runs(tmp_path, link) for link in range(6)] == [2] * 6


def test_a_fan_in_runs_each_argument_once_more(spots: Spots, tmp_path: Path) -> None:
    """Goal: one run serves all who need it. Method: eight values made of one, and one made of the
    eight; only that can be named; all eight argue for the first, which runs once more."""
    first = filled.remote(tmp_path, 100)
    middle = [raised.remote(tmp_path, name, first) for name in range(8)]
    last = raised.remote(tmp_path, 200, *middle)
    fh.wait([last], fetch_local=False)
    del first, middle
    spots.lose()
    wanted = np.full(BIG, (8 * 101 + 1) % 256, np.uint8)
    assert np.array_equal(fh.get(last, timeout=30), wanted)
    assert [runs(tmp_path, name) for name in (100, *range(8), 200)] == [2] * 10


def test_one_of_several_returns_is_made_again(spots: Spots, tmp_path: Path) -> None:
    """Goal: a task of several returns runs again for the one that is needed, and the others do not
    stay. Method: three returns; one is dropped, one was brought here before, one is asked for."""

    @fh.remote(resources={"spot": 1}, num_returns=3)
    def three(folder: Path) -> Any:
        note(folder, "three")
        return [np.full(BIG, index, np.uint8) for index in range(3)]

    here, lost, dropped = three.remote(tmp_path)
    held = fh.get(here)
    fh.wait([lost, dropped], num_returns=2, fetch_local=False)
    del dropped
    spots.lose()
    assert np.array_equal(fh.get(lost, timeout=20), np.full(BIG, 1, np.uint8))
    assert np.array_equal(fh.get(here, timeout=20), held)
    assert runs(tmp_path, "three") == 2
    del held, here, lost
    until(lambda: not current.process().role.counts()["objects"])  # type: ignore[union-attr]


def test_retries_are_spent_at_last(spots: Spots, tmp_path: Path) -> None:
    """Goal: a value is not made again for ever. Method: a task that may run once more; its node is
    lost twice; the error names the task and the number."""
    ref = filled.options(max_retries=1).remote(tmp_path, 1)
    fh.wait([ref], fetch_local=False)
    spots.lose()
    fh.wait([ref], fetch_local=False)
    spots.lose()
    with pytest.raises(fh.errors.ObjectLostError, match=r"filled\(\) has used its 1 retries"):
        fh.get(ref, timeout=20)
    assert runs(tmp_path, 1) == 2


def test_a_task_that_may_not_run_twice_does_not(spots: Spots, tmp_path: Path) -> None:
    """Goal: max_retries=0 is kept, also when a value is lost, and the error says so. Method: as
    above; a dependant of the lost value fails under the same error."""
    ref = filled.options(max_retries=0).remote(tmp_path, 1)
    fh.wait([ref], fetch_local=False)
    spots.lose()
    with pytest.raises(fh.errors.ObjectLostError, match=r"filled\(\) has max_retries=0"):
        fh.get(ref, timeout=20)
    with pytest.raises(fh.errors.ObjectLostError, match="max_retries=0"):
        fh.get(raised.remote(tmp_path, 2, ref), timeout=20)
    assert runs(tmp_path, 1) == 1


def test_a_lost_put_says_that_it_was_put(spots: Spots, tmp_path: Path) -> None:
    """Goal: nobody can make a put value again, and the error says so. Method: a task on the spot
    puts a value and keeps its process; the value is lost while its owner, on another node,
    lives: a put moves to another node only by being asked for there, so the owner is the driver
    and its copy is taken away by hand."""
    ref = fh.put(np.zeros(BIG, np.uint8))
    process = current.process()
    assert process is not None
    with process.lock:
        process.role.copy_gone(ref._ref.object, process.node.node, "node 00 died")
        process.transport.flush()
    with pytest.raises(fh.errors.ObjectLostError, match="it was put, not made by a task"):
        fh.get(ref, timeout=20)


def test_lineage_that_was_dropped_has_an_error_of_its_own(
    spots: Spots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: lineage has a limit, the oldest goes first, and who is struck by it reads so. Method:
    room for the tasks of about eighteen values; of thirty, those that were made first are lost."""
    monkeypatch.setattr(lineage, "LINEAGE_BYTES", 10_000)
    refs = [filled.remote(tmp_path, name, 1 << 18) for name in range(30)]
    fh.wait(refs, num_returns=30, fetch_local=False)
    spots.lose()
    evicted = 0
    for name, ref in enumerate(refs):
        try:
            value = fh.get(ref, timeout=20)
        except fh.errors.LineageEvictedError as error:
            evicted += "the lineage of filled() was dropped to keep within 10,000" in str(error)
        else:
            assert np.array_equal(value, np.full(1 << 18, name, np.uint8))
            evicted += 100
    assert 5 <= evicted % 100 <= 25
    assert evicted // 100 + evicted % 100 == 30


def test_a_run_of_another_length_is_named(spots: Spots, tmp_path: Path) -> None:
    """Goal: a re-run that returns another number of values gives an error that says so, not a
    neighbour's value. Method: a task that yields three values first and two when run again."""

    @fh.remote(resources={"spot": 1}, num_returns=3)
    def dwindling(folder: Path) -> Any:
        for index in range(3 - note(folder, "dwindling")):
            yield np.full(BIG, index, np.uint8)

    refs = dwindling.remote(tmp_path)
    fh.wait(refs, num_returns=3, fetch_local=False)
    spots.lose()
    for ref in refs:
        with pytest.raises(ValueError, match=r"num_returns=3 but returned 2 values"):
            fh.get(ref, timeout=20)


def test_an_error_of_the_second_run_is_the_tasks_own(spots: Spots, tmp_path: Path) -> None:
    """Goal: a re-run that raises tells what it raised. Method: a task that succeeds once."""

    @fh.remote(resources={"spot": 1})
    def fickle(folder: Path) -> Any:
        if note(folder, "fickle"):
            raise RuntimeError("not twice")
        return np.zeros(BIG, np.uint8)

    ref = fickle.remote(tmp_path)
    fh.wait([ref], fetch_local=False)
    spots.lose()
    with pytest.raises(RuntimeError, match="not twice"):
        fh.get(ref, timeout=20)


def test_a_stored_value_with_references_brings_them_back(spots: Spots, tmp_path: Path) -> None:
    """Goal: a lost value that contains references comes back with good ones. Method: a task on the
    spot returns 1 MiB and a list of references to tasks of its own, on the spot too."""

    @fh.remote(resources={"spot": 1})
    def both(folder: Path) -> Any:
        return np.zeros(BIG, np.uint8), [filled.remote(folder, name) for name in range(3)]

    ref = both.remote(tmp_path)
    fh.wait([ref], fetch_local=False)
    spots.lose()
    _, inner = fh.get(ref, timeout=30)
    for name, one in enumerate(inner):
        assert np.array_equal(fh.get(one, timeout=30), np.full(BIG, name, np.uint8))
