"""Nodes that fall silent: for less than the head's patience it is nothing, for longer it is for
ever, and the machine comes back as another node.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import freehold as fh
from freehold.testing import Cluster, ClusterNode
from processes.programs import Program, left_after, named, processes, until

PATIENCE = 1.5


@pytest.fixture
def cluster(home: Path) -> Iterator[Cluster]:
    """Three nodes of one CPU each, and a head of little patience; this process is connected."""
    with Cluster(3, num_cpus=1, dead_after=PATIENCE) as three:
        fh.init(address=three.address)
        yield three
    assert left_after(home) == []


@fh.remote
def stay(folder: Path, seconds: float) -> str:
    """Where it runs; each run leaves a mark when it begins and one when it ends."""
    node = fh.get_runtime_context().get_node_id()
    (folder / f"begun-{node}-{os.getpid()}").touch()
    time.sleep(seconds)
    (folder / f"ended-{node}-{os.getpid()}").touch()
    return node


def alive() -> set[str]:
    return {node["NodeID"] for node in fh.nodes() if node["Alive"]}


def stop(node: ClusterNode) -> None:
    os.kill(node.pid, signal.SIGSTOP)


def go_on(node: ClusterNode) -> None:
    os.kill(node.pid, signal.SIGCONT)


def test_a_short_silence_is_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """Goal: a node that is stopped for less than the patience loses nothing. Method: a task runs
    on each; stop a node for half the patience, twice; each task runs once, the nodes are the
    same."""
    before = alive()
    refs = [stay.remote(tmp_path, 2 * PATIENCE) for _ in range(3)]
    until(lambda: len(list(tmp_path.glob("begun-*"))) == 3)
    for _ in range(2):
        stop(cluster.nodes[1])
        time.sleep(PATIENCE / 2)
        go_on(cluster.nodes[1])
        time.sleep(PATIENCE / 4)
    assert set(fh.get(refs, timeout=20)) == before
    assert len(list(tmp_path.glob("begun-*"))) == 3
    assert alive() == before


def test_a_long_silence_is_a_death(cluster: Cluster, home: Path, tmp_path: Path) -> None:
    """Goal: a node that is stopped for longer than the patience is dead. When it goes on, what it
    still runs is ended, its folder goes, and the same process is a node of another name, to which
    its task comes again.

    Method: a task that only one node can run; stop that node's daemon until it is declared dead,
    and let it go on."""
    victim = cluster.add_node(num_cpus=1, resources={"here": 1})
    ref = stay.options(resources={"here": 1}).remote(tmp_path, 3 * PATIENCE)
    until(lambda: list(tmp_path.glob("begun-*")))
    (mark,) = tmp_path.glob("begun-*")
    worker = int(mark.name.split("-")[2])
    stop(victim)
    began = time.monotonic()
    until(lambda: victim.node_id not in alive())
    assert time.monotonic() - began > 0.8 * PATIENCE
    (gone,) = [node for node in fh.nodes() if not node["Alive"]]
    assert gone["DeathReason"] == f"said nothing for {PATIENCE:g} s"
    go_on(victim)
    until(lambda: len(alive()) == 4)
    until(lambda: worker not in processes(home))
    assert not list(tmp_path.glob("ended-*"))
    assert not victim._started.folder.exists()
    (new,) = [node for node in fh.nodes() if node["Pid"] == victim.pid and node["Alive"]]
    assert new["NodeID"] != victim.node_id
    assert fh.get(ref, timeout=30) == new["NodeID"]
    assert len(list(tmp_path.glob("ended-*"))) == 1


def test_a_machine_that_hangs(cluster: Cluster, tmp_path: Path) -> None:
    """Goal: tasks of a machine on which everything hangs run elsewhere after the patience, and what
    the old ones say when it goes on is heard by nobody. Method: a task on each node; stop the
    daemon of one and all that it has started; let it go on when the tasks are done."""
    refs = [stay.remote(tmp_path, 1.0) for _ in range(3)]
    until(lambda: len(list(tmp_path.glob("begun-*"))) == 3)
    victim = cluster.nodes[2]
    everything = [victim.pid, *(p.pid for p in psutil.Process(victim.pid).children(recursive=True))]
    for pid in everything:
        os.kill(pid, signal.SIGSTOP)
    try:
        results = fh.get(refs, timeout=20)
    finally:
        for pid in reversed(everything):
            os.kill(pid, signal.SIGCONT)
    others = {cluster.nodes[0].node_id, cluster.nodes[1].node_id}
    assert (len(results), set(results)) == (3, others)
    assert len(list(tmp_path.glob("begun-*"))) >= 3
    until(lambda: len(alive()) == 3 and victim.node_id not in alive())
    assert set(fh.get(refs)) == others


def test_a_program_on_a_node_that_was_declared_dead(home: Path) -> None:
    """Goal: the program hears what happened to its node, also what waits already; shutdown is
    clean, and leaves nothing. Method: a program stops its own node for longer than the patience."""
    text = """
    fh.init(num_cpus=1, dead_after=0.5)
    node = fh.nodes()[0]["Pid"]

    @fh.remote
    def nap():
        time.sleep(60)

    ref = nap.remote()
    time.sleep(0.3)
    os.kill(node, signal.SIGSTOP)
    time.sleep(1.5)
    os.kill(node, signal.SIGCONT)
    for attempt in range(2):
        try:
            fh.get(ref if attempt == 0 else nap.remote())
        except fh.errors.ClusterUnreachableError as error:
            say("declared dead by the head" in str(error))
    fh.shutdown()
    say("down")
    """
    with Program(home, text) as program:
        assert [program.line(), program.line(), program.line()] == ["True", "True", "down"]
        assert program.end()[0] == 0
    assert left_after(home) == []


def test_the_node_of_the_head_begins_anew(home: Path) -> None:
    """Goal: the daemon that keeps the head is still its keeper when it has begun anew. Method:
    stop the first node for too long; when it is back, kill the head; it comes back."""
    with Cluster(2, num_cpus=1, dead_after=0.5) as cluster:
        first = cluster.nodes[0]
        stop(first)
        time.sleep(1.5)
        go_on(first)
        until(lambda: not first._started.folder.exists())
        fh.init(address=cluster.address)
        until(lambda: len(alive()) == 2 and first.node_id not in alive())
        (head,) = named(home, "freehold-head")
        os.kill(head, signal.SIGKILL)
        until(lambda: len(alive()) == 2)
        assert named(home, "freehold-head") not in ([], [head])
    assert left_after(home) == []


def test_an_idle_cluster_does_nothing(cluster: Cluster) -> None:
    """Goal: heartbeats cost nothing that anybody sees. Method: the processor time of the head and
    of three nodes over two seconds, with heartbeats seven times as frequent as by default."""

    def busy() -> float:
        ticks = 0
        for pid in [node.pid for node in cluster.nodes]:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    time.sleep(1.0)  # what starting left to do
    before = busy()
    time.sleep(2.0)
    assert busy() - before <= 0.06  # two ticks of the clock a node
