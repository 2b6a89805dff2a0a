"""A node is drained: emptied in good order, under running tasks, readers and programs.

The rule under test: nothing is lost, nobody who waits is disturbed, and the node is gone afterwards
with its processes and files; or the command says clearly why not.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import freehold as fh
from freehold import errors
from freehold.cli.main import main
from freehold.testing import Cluster, ClusterNode
from processes.programs import until

MIB = 1 << 20


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Two nodes of one CPU each; this process is connected through the first."""
    with Cluster(2, num_cpus=1, infeasible_grace=1.0) as two:
        fh.init(address=two.address)
        yield two


@fh.remote
def make(number: int) -> Any:
    """1 MiB for a store."""
    return np.full(MIB, number, dtype=np.uint8)


@fh.remote
def nap(seconds: float, mark: str = "") -> str:
    """Runs for a while, and says that it does."""
    import time
    from pathlib import Path

    if mark:
        Path(mark).touch()
    time.sleep(seconds)
    return "rested"


@fh.remote
def read(box: list[Any], again: int) -> int:
    """Get borrowed values over and over. Returns how many were read."""
    count = 0
    for _ in range(again):
        for number, ref in enumerate(box):
            value = fh.get(ref)
            assert value.nbytes == MIB
            assert (value == number).all()
            count += 1
            del value
    return count


@fh.remote
def wrap(number: int) -> list[Any]:
    """A value that the worker owns: the caller only borrows it."""
    return [fh.put(np.full(MIB, number, dtype=np.uint8))]


def drain(node: ClusterNode | str, *options: object) -> Result:
    """Run the command in this process."""
    name = node if isinstance(node, str) else node.node_id
    return CliRunner().invoke(main, ["drain", name, *map(str, options)])


def info(node: ClusterNode) -> dict[str, Any]:
    return next(known for known in fh.nodes() if known["NodeID"] == node.node_id)


def is_gone(node: ClusterNode, reason: str = "has left: drained") -> None:
    """The daemon has ended by itself, its folder is gone, and the cluster knows why."""
    assert node._started.process.wait(10) == 0
    until(lambda: not node._started.folder.exists())
    assert (info(node)["Alive"], info(node)["DeathReason"]) == (False, reason)


# --- nothing is lost -----------------------------------------------------------------------------


def test_values_and_tasks_survive_a_drain(cluster: Cluster, tmp_path: Path) -> None:
    """Goal: stored and spilled values move, a running task ends, readers notice nothing.

    Method: forty values of 1 MiB on a node whose store holds sixteen; a task runs there and a
    borrower on another node reads them all, again and again, while the node is drained. Every value
    is right during and afterwards, and none was made a second time."""
    small = cluster.add_node(num_cpus=0, object_store_memory=16 * MIB, resources={"here": 2})
    there = make.options(resources={"here": 1}, num_cpus=0, max_retries=0)
    refs = [there.remote(number) for number in range(40)]
    fh.wait(refs, num_returns=40, fetch_local=False)
    until(lambda: info(small)["SpilledBytes"] > 20 * MIB)
    busy = nap.options(resources={"here": 1}, num_cpus=0, max_retries=0)
    resting = busy.remote(1.0, str(tmp_path / "runs"))
    reading = read.remote(refs, 5)
    until((tmp_path / "runs").exists)

    result = drain(small)
    assert result.exit_code == 0, result.output
    last = result.output.splitlines()[-1]
    assert re.fullmatch(
        rf"Node {small.node_id} is drained and has left\. "
        r"40 values moved \(40 MiB\) in \d+\.\d s\.",
        last,
    ), result.output
    assert fh.get(resting) == "rested"
    assert fh.get(reading) == 200
    for number, value in enumerate(fh.get(refs)):
        assert (value == number).all()
    is_gone(small)


def test_new_tasks_go_elsewhere(cluster: Cluster, tmp_path: Path) -> None:
    """Goal: a drained node takes no task, and what only it could run fails with that reason.

    Method: it runs a long task; while it is drained, tasks of one CPU run on the others, and one
    that needs its own resource is refused after the grace time."""
    special = cluster.add_node(num_cpus=1, resources={"special": 1})
    where = fh.remote(lambda: fh.get_runtime_context().get_node_id())
    resting = nap.options(resources={"special": 1}).remote(4.0, str(tmp_path / "runs"))
    until((tmp_path / "runs").exists)
    with command(special) as running:
        until(lambda: "drains" in CliRunner().invoke(main, ["status"]).output)
        assert [node["NodeID"] for node in fh.nodes() if node["Draining"]] == [special.node_id]
        ran = set(fh.get([where.remote() for _ in range(20)]))
        assert special.node_id not in ran
        refused = nap.options(resources={"special": 0.5}).remote(0)
        with pytest.raises(errors.UnschedulableError, match="the only node that has it is drained"):
            fh.get(refused, timeout=20)
        output, _ = running.communicate(timeout=30)
    assert running.returncode == 0, output
    assert fh.get(resting) == "rested"
    is_gone(special)


def command(node: ClusterNode) -> subprocess.Popen[str]:
    """The command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", "from freehold.cli.main import main; main()", "drain", node.node_id],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_a_drain_can_be_cancelled(cluster: Cluster, tmp_path: Path) -> None:
    """Goal: Ctrl-C ends the command and not the drain; --cancel ends the drain, and the node works
    as before. Method: a task holds the drain up meanwhile; a second request is refused."""
    node = cluster.add_node(num_cpus=0, resources={"here": 1})
    held = nap.options(resources={"here": 1}, num_cpus=0)
    resting = held.remote(3.0, str(tmp_path / "runs"))
    until((tmp_path / "runs").exists)
    with command(node) as running:
        assert running.stdout is not None
        assert "waits for 1 lease" in running.stdout.readline()
        os.killpg(running.pid, signal.SIGINT)
        output, _ = running.communicate(timeout=10)
    assert "The drain goes on without this command" in output
    assert running.returncode == 130
    again = drain(node)
    assert again.exit_code == 1
    assert "it is being drained already" in again.output
    cancelled = drain(node, "--cancel")
    assert (cancelled.exit_code, cancelled.output) == (
        0,
        f"Node {node.node_id} stays. 0 values moved (0 B) meanwhile.\n",
    )
    assert fh.get([resting, held.remote(0)]) == ["rested", "rested"]
    assert "it is not being drained" in drain(node, "--cancel").output
    assert info(node)["Alive"]


# --- when it cannot be emptied -------------------------------------------------------------------


def test_the_end_of_the_time(cluster: Cluster, tmp_path: Path) -> None:
    """Goal: when its time is over the node leaves, the command says what was still there, and the
    task runs again elsewhere. Method: a task that outlasts the time; its second run is short."""
    node = cluster.add_node(num_cpus=4)
    runs = tmp_path / "runs"

    @fh.remote(num_cpus=1)
    def slow_once(needs_many: int) -> str:
        import time

        again = runs.exists()
        runs.touch()
        if not again:
            time.sleep(60)
        return fh.get_runtime_context().get_node_id()

    cluster.kill_node(cluster.nodes[1])  # only the driver's node and the one to drain are left
    holder = nap.remote(4.0, str(tmp_path / "held"))  # the driver's CPU is taken
    until((tmp_path / "held").exists)
    task = slow_once.remote(1)
    until(runs.exists)
    result = drain(node, "--timeout", 0.5)
    assert result.exit_code == 1
    assert (
        f"Its time was over: node {node.node_id} has left with 1 lease, 1 worker" in result.output
    )
    assert fh.get(task, timeout=20) == cluster.nodes[0].node_id
    assert fh.get(holder) == "rested"
    is_gone(
        node, "has left: drained; its time was over, with 1 running tasks, 1 workers still there"
    )


def test_a_worker_that_owns_a_value(cluster: Cluster) -> None:
    """Goal: a worker stays as long as others hold what it owns, and the drain with it. Method: a
    value put by a task and borrowed by us; when we drop it, the drain ends."""
    node = cluster.add_node(num_cpus=0, resources={"here": 1})
    outer = wrap.options(resources={"here": 1}, num_cpus=0).remote(7)
    (inner,) = fh.get(outer)
    with command(node) as running:
        until(lambda: info(node)["Workers"] == 1)
        assert (fh.get(inner) == 7).all()
        assert running.poll() is None
        del inner, outer
        output, _ = running.communicate(timeout=20)
    assert running.returncode == 0, output
    assert "is drained and has left" in output
    is_gone(node)


def test_nowhere_to_put_a_value(cluster: Cluster) -> None:
    """Goal: a value too large for every other store is waited for, and the command says why it
    stays. Method: 40 MiB beside stores of 16 and 8 MiB."""
    for node in cluster.nodes[1:]:
        cluster.remove_node(node)
    with Cluster(1, num_cpus=1, object_store_memory=16 * MIB) as narrow:
        fh.shutdown()
        fh.init(address=narrow.address)
        wide = narrow.add_node(num_cpus=0, object_store_memory=64 * MIB, resources={"wide": 1})
        fat = fh.remote(resources={"wide": 1}, num_cpus=0)(lambda: np.ones(40 * MIB, np.uint8))
        ref = fat.remote()
        fh.wait([ref], fetch_local=False)
        result = drain(wide, "--timeout", 1)
        assert result.exit_code == 1
        assert "no other node has a store for a value of" in result.output
        assert "has left with 1 value (40 MiB)" in result.output
        with pytest.raises((errors.ObjectLostError, errors.UnschedulableError)):
            fh.get(ref, timeout=30)


def test_a_program_holds_its_node(cluster: Cluster) -> None:
    """Goal: a program's node waits for it and says so; --force ends the program, by name.

    Method: drain the node that we are connected through, with little time and a cancel; then with
    force."""
    mine = cluster.nodes[0]
    with command(mine) as running:
        assert running.stdout is not None
        line = running.stdout.readline()
        assert "waits for 1 program; a program connected here must end first, or say --force" in (
            line.replace("1 worker, ", "")
        )
        assert drain(mine, "--cancel").exit_code == 0
        running.communicate(timeout=10)
    ref = nap.remote(60)
    result = drain(mine, "--force")
    assert result.exit_code == 0, result.output
    with pytest.raises(errors.ClusterUnreachableError, match=r"drained by force|has ended"):
        fh.get(ref)
    assert mine._started.process.wait(10) == 0


def test_the_last_node(cluster: Cluster) -> None:
    """Goal: the last node is not drained by mistake; with force it leaves. Method: first the other
    one is drained, so that no more than one is left."""
    mine, other = cluster.nodes
    fh.shutdown()
    assert drain(other).exit_code == 0
    refused = drain(mine)
    assert refused.exit_code == 1
    assert "no other node is left that could take its tasks and values" in refused.output
    assert drain(mine, "--force").exit_code == 0
    assert mine._started.process.wait(10) == 0


def test_names_that_are_none(cluster: Cluster) -> None:
    """Goal: each wrong name gets an answer that helps. Method: unknown, ambiguous, dead."""
    first, second = cluster.nodes
    unknown = drain("nowhere")
    assert unknown.exit_code == 1
    assert "no node 'nowhere' is known; there are" in unknown.output
    assert first.node_id in unknown.output
    hostname = fh.nodes()[0]["NodeManagerHostname"]
    several = drain(hostname)
    assert "may be any of" in several.output
    assert first.node_id in several.output
    assert second.node_id in several.output
    cluster.kill_node(second)
    until(lambda: not info(second)["Alive"])
    dead = drain(second)
    assert dead.exit_code == 1
    assert "is gone: it" in dead.output
    assert drain(first, "--timeout", -1).exit_code == 2
