"""The sort on several real nodes and as a command: deaths and Ctrl-C on the way."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

import freehold as fh
from freehold.cli import sort as command
from freehold.shuffle import auto, files, gensort, jobs, records, sort
from freehold.testing import Cluster

pytestmark = pytest.mark.processes


@contextmanager
def two_nodes() -> Iterator[Cluster]:
    """Two nodes of one CPU, with stores that 100 MB do not fit in, and this program connected."""
    with Cluster(nodes=2, num_cpus=1, object_store_memory=40 << 20) as cluster:
        fh.init(address=cluster.address)
        try:
            yield cluster
        finally:
            fh.shutdown()


def generated_in_order(count: int) -> bytes:
    """The benchmark's first records, sorted in memory; their keys are all different."""
    block = gensort.records(0, count)
    return records.take(block, records.sort_order(block)).tobytes()


def read_parts(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in files.record_files(folder))


def test_several_nodes_share_the_work(tmp_path: Path) -> None:
    """Goal: parts cross between nodes and both nodes work. Method: two nodes of one CPU; 100 MB
    that their stores do not hold; exact bytes; each node ran maps and reduces.
    """
    with two_nodes():
        jobs.generate(tmp_path / "in", 1_000_000, 2)
        report = sort.sort(tmp_path / "in", tmp_path / "out")
    assert read_parts(tmp_path / "out") == generated_in_order(1_000_000)
    assert len(report.stages["map"].tasks) == 2
    assert len(report.stages["reduce"].tasks) == 2
    assert 0 < report.moved < report.bytes
    assert report.spilled_peak > 0


def kill_workers(cluster: Cluster, over: threading.Event, seed: int) -> int:
    """SIGKILL a worker of any node every 0.2 s. Returns how many. Workers are forked by a node's
    zygote, which the node daemon forked."""
    chance = random.Random(seed)
    killed = 0
    while not over.wait(0.2):
        workers = [
            worker
            for node in cluster.nodes
            for zygote in psutil.Process(node.pid).children()
            for worker in zygote.children()
        ]
        if workers:
            with suppress(psutil.NoSuchProcess):
                chance.choice(workers).kill()
                killed += 1
    return killed


def test_workers_that_die_all_the_time_cost_only_time(tmp_path: Path) -> None:
    """Goal: deaths of workers change nothing in the result, nor leave half-written files.
    Method: two nodes, 100 MB; a thread kills a random worker every 0.2 s; compare bytes.
    """
    over, killed = threading.Event(), []
    with two_nodes() as cluster:
        jobs.generate(tmp_path / "in", 1_000_000, 2)
        thread = threading.Thread(target=lambda: killed.append(kill_workers(cluster, over, 1)))
        thread.start()
        try:
            sort.sort(tmp_path / "in", tmp_path / "out")
        finally:
            over.set()
            thread.join()
    assert killed[0] > 0
    assert read_parts(tmp_path / "out") == generated_in_order(1_000_000)
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("strategy", auto.STRATEGIES)
def test_a_node_that_dies_half_way_costs_only_time(tmp_path: Path, strategy: str) -> None:
    """Goal: what a node took with it is made again, by every strategy. Method: the command with
    three nodes of one CPU and 30 MB; one node is killed when half is done; compare bytes.
    """
    (tmp_path / "in").mkdir()
    gensort.records(0, 300_000).tofile(tmp_path / "in" / "all")
    options = ["--nodes", "3", "--kill-node-at", "50", "--strategy", strategy, "--partitions", "9"]
    arguments = ["run", str(tmp_path / "in"), str(tmp_path / "out"), *options]
    ran = CliRunner().invoke(command.sort, arguments)
    assert ran.exit_code == 0, ran.output
    assert "killed node" in ran.stderr
    assert read_parts(tmp_path / "out") == generated_in_order(300_000)


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_quota_that_is_reached_ends_the_sort_and_leaves_nothing(
    tmp_path: Path, nodes: int
) -> None:
    """Goal: one line that names the quota and the remedy, and no file. Method: 100 MB through
    32 MiB of store and 4 MB of disk a node; the module's search for leaks finds processes and
    folders.
    """
    (tmp_path / "in").mkdir()
    gensort.records(0, 1_000_000).tofile(tmp_path / "in" / "all")
    limits = ["--object-store-memory", "32MiB", "--spill-quota", "4MB", "--nodes", str(nodes)]
    arguments = ["run", *limits, str(tmp_path / "in"), str(tmp_path / "out")]
    ran = CliRunner().invoke(command.sort, arguments)
    assert ran.exit_code == 1
    told = ran.stderr.splitlines()[-1]
    assert told.startswith("Error: the store is full, and spilling ")
    assert "would exceed the spill quota" in told
    assert "of 4,000,000 bytes are in use" in told
    assert "raise the spill quota" in told
    assert "Traceback" not in ran.output
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("stage", ["map", "reduce"])
def test_ctrl_c_leaves_no_half_written_file(tmp_path: Path, stage: str) -> None:
    """Goal: an interrupted command ends soon, says so in one word, and cleans up. Method: SIGINT
    at the first line of each stage; the module's search for leaks finds processes and folders.
    """
    (tmp_path / "in").mkdir()
    gensort.records(0, 2_000_000).tofile(tmp_path / "in" / "all")
    command = [sys.executable, "-c", "from freehold.cli.sort import sort; sort()", "run"]
    process = subprocess.Popen(
        [*command, tmp_path / "in", tmp_path / "out"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    with process, process.stderr as lines:
        for line in lines:
            if line.startswith(stage):
                process.send_signal(signal.SIGINT)
                break
        said = lines.read()
    assert process.returncode == 1, said
    assert said.splitlines()[-1] == "Aborted!"
    assert "Traceback" not in said
    left = [path.name for path in (tmp_path / "out").iterdir()]
    assert [name for name in left if name.startswith(".")] == []
