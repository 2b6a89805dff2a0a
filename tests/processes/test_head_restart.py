"""The head is killed, and comes back under a running cluster.

The rule under test: the head is on no task's path. While it is away tasks, gets and transfers go
on; a second later at most it is back where it was, knows what it knew, and finds out what happened
meanwhile.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import freehold as fh
from freehold.cli.main import main
from freehold.runtime import keeper, places
from freehold.runtime.journal import DAMAGED, FILE
from freehold.testing import Cluster
from processes.programs import Program, left_after, named, until


@pytest.fixture
def cluster(home: Path) -> Iterator[Cluster]:
    """Two nodes of one CPU each; this process is connected."""
    with Cluster(2, num_cpus=1) as two:
        fh.init(address=two.address)
        yield two
        for pid in named(home, "freehold-head"):  # a test that failed may have left it stopped
            os.kill(pid, signal.SIGCONT)
    assert left_after(home) == []


@fh.remote
def where(seconds: float = 0.0) -> str:
    """The node that runs it."""
    time.sleep(seconds)
    return fh.get_runtime_context().get_node_id()


@fh.remote
def large(number: int) -> bytes:
    """A value for the store."""
    return bytes([number]) * (1 << 20)


def the_head(home: Path) -> int:
    (pid,) = named(home, "freehold-head")
    return pid


def kill_all(home: Path) -> None:
    """What a power failure does to a machine: nobody there sees another's end. Nodes first: one
    would start its head again.
    """
    killed = named(home, "freehold-node") + named(home, "freehold-head")
    for how in (signal.SIGSTOP, signal.SIGKILL):
        for pid in killed:
            os.kill(pid, how)
    # (A process on its way out has lost its environment, by which it is found, before its end.)
    until(lambda: not any(places.alive(pid) for pid in killed))
    until(lambda: not named(home, "freehold-zygote"))


def alive() -> set[str]:
    return {node["NodeID"] for node in fh.nodes() if node["Alive"]}


def freehold(*arguments: object) -> str:
    """What a command says; it must succeed."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_killed_head_is_back_within_a_second(cluster: Cluster, home: Path) -> None:
    """Goal: the head is back, whole, in less than a second. Method: kill it; ask for the nodes
    until both are there as before; three times, and the fastest counts, since other tests share
    this machine. The second kill strikes a head that was itself restarted."""
    before = alive()
    times = []
    for _ in range(3):
        old = the_head(home)
        began = time.monotonic()
        os.kill(old, signal.SIGKILL)
        while alive() != before:
            assert time.monotonic() < began + 10
        times.append(time.monotonic() - began)
        assert the_head(home) != old
    sys.stdout.write(f"seconds until the head was back: {[round(t, 3) for t in times]}\n")
    assert min(times) < 1.0


def test_work_goes_on_without_a_head(cluster: Cluster, home: Path) -> None:
    """Goal: submitting, getting and moving values between nodes need no head. Method: the head is
    stopped, which is worse than killed, for nobody is told; tasks run on both nodes, a value is
    carried from one to the other; then it is killed while tasks run, and they end as usual."""
    head = the_head(home)
    os.kill(head, signal.SIGSTOP)
    ran: set[str] = set()
    until(lambda: ran.update(fh.get([where.remote(0.1) for _ in range(4)])) or len(ran) == 2)
    values = fh.get([large.remote(number) for number in range(4)], timeout=20)
    assert [value[-1] for value in values] == [0, 1, 2, 3]
    running = [where.remote(1.0) for _ in range(2)]
    os.kill(head, signal.SIGKILL)
    assert len(set(fh.get(running, timeout=20))) == 2
    until(lambda: len(alive()) == 2)


def test_nodes_join_and_jobs_begin_after_a_restart(cluster: Cluster, home: Path) -> None:
    """Goal: the restarted head is a head: a node joins, a program begins and ends, and `status`
    shows them. Method: kill, then do all of it; what only the new node can run must find it."""
    os.kill(the_head(home), signal.SIGKILL)
    added = cluster.add_node(num_cpus=1, resources={"disk": 1})
    assert fh.get(where.options(resources={"disk": 1}).remote(), timeout=10) == added.node_id
    text = """
    fh.init(address=sys.argv[1])
    say("up")
    time.sleep(60)
    """
    with Program(home, text, cluster.address) as program:
        assert program.line() == "up"
        until(lambda: "3 nodes, 2 jobs" in freehold("status", "--address", cluster.address))
        program.kill()
        until(lambda: "3 nodes, 1 job" in freehold("status", "--address", cluster.address))


def test_what_died_without_a_head_is_found_dead(home: Path) -> None:
    """Goal: a node that dies while the head is away does not stay in the list. Method: the head
    is stopped, a node killed, the head killed: nobody has told anybody."""
    with Cluster(3, num_cpus=1, dead_after=1.0) as cluster:
        fh.init(address=cluster.address)
        head = the_head(home)
        os.kill(head, signal.SIGSTOP)
        victim = cluster.nodes[2]
        cluster.kill_node(victim)
        os.kill(head, signal.SIGKILL)
        until(lambda: alive() == {node.node_id for node in cluster.nodes[:2]})
        (gone,) = [node for node in fh.nodes() if not node["Alive"]]
        assert gone["NodeID"] == victim.node_id
        assert "did not come back" in gone["DeathReason"]
    assert left_after(home) == []


def test_a_program_that_ends_without_a_head_is_over(cluster: Cluster, home: Path) -> None:
    """Goal: the end of a job that nobody could be told of is told later, to all nodes. Method: a
    program has a worker on each node; the head is stopped, the program killed, the head killed."""
    text = """
    fh.init(address=sys.argv[1])

    @fh.remote
    def hold():
        time.sleep(60)

    refs = [hold.remote() for _ in range(2)]
    time.sleep(60)
    """
    with Program(home, text, cluster.address) as program:
        until(lambda: fh.available_resources().get("CPU", 0) == 0)
        head = the_head(home)
        os.kill(head, signal.SIGSTOP)
        program.kill()
        os.kill(head, signal.SIGKILL)
    until(lambda: fh.available_resources().get("CPU", 0) == 2)
    assert set(fh.get([where.remote(0.2) for _ in range(4)], timeout=10)) == alive()


def test_a_damaged_journal_keeps_no_head_down(cluster: Cluster, home: Path) -> None:
    """Goal: whatever is in the file, the head starts, and learns from the nodes. Method: garbage
    over the journal, then a kill. The file is set aside for people."""
    before = alive()
    folder = cluster.session / "head"
    for path in folder.glob(FILE + "*"):
        path.write_bytes(b"garbage" * 1000)
    os.kill(the_head(home), signal.SIGKILL)
    until(lambda: alive() == before)
    assert (folder / DAMAGED).exists()


def test_a_head_that_dies_at_once_comes_back_later_each_time(cluster: Cluster, home: Path) -> None:
    """Goal: the pause before a restart doubles, tasks go on meanwhile, and a head that may live at
    last is there for everybody. Method: kill every head that comes, at once; then let one live."""
    before = alive()
    killed: set[int] = set()
    pauses = []
    for _ in range(5):
        began = time.monotonic()
        until(lambda: set(named(home, "freehold-head")) - killed)
        pauses.append(time.monotonic() - began)
        pid = max(set(named(home, "freehold-head")) - killed)
        os.kill(pid, signal.SIGKILL)
        killed.add(pid)
    assert pauses[-1] >= 4 * keeper.FIRST_PAUSE, pauses
    assert fh.get(where.remote(), timeout=10) in before
    assert named(home, "freehold-head") == []
    until(lambda: alive() == before)


def test_programs_own_cluster_and_its_head(home: Path) -> None:
    """Goal: a cluster that init() started bears its head's death too, and ends with its program
    as ever. Method: a program kills its own head, works, asks, and ends."""
    text = """
    from freehold.runtime import places
    fh.init(num_cpus=1)

    @fh.remote
    def double(x):
        return 2 * x

    head = next(places.heads_here())[1].pid
    os.kill(head, signal.SIGKILL)
    say(fh.get(double.remote(4), timeout=10))
    say(len(fh.nodes()), next(places.heads_here())[1].pid != head)
    """
    with Program(home, text) as program:
        assert [program.line(), program.line()] == ["8", "1 True"]
        assert program.end()[0] == 0
    assert left_after(home) == []


def test_a_whole_machine_comes_back_by_hand(home: Path, tmp_path: Path) -> None:
    """Goal: where all of the head's machine has died, `start --head --session` brings it back at
    the same place, and the node that lives elsewhere comes back to it with its tasks. Method: a
    second home stands for the other machine; kill everything of the first."""
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    try:
        freehold("start", "--head", "--num-cpus", 1)
        session = next(home.glob("s-*"))
        address = freehold("status").split()[2].rstrip(":")
        os.environ["FREEHOLD_HOME"] = str(other)
        freehold("start", "--address", address, "--token-file", session / "token", "--num-cpus", 1)
        fh.init(address=address)
        ref = where.remote(4.0)
        os.environ["FREEHOLD_HOME"] = str(home)
        kill_all(home)
        again = ("start", "--head", "--session", session, "--num-cpus", 1, "--dead-after", 2)
        started = freehold(*again)
        assert f"Started a cluster at {address}:" in started
        until(lambda: "did not come back to the head for 2 s" in freehold("status"))
        until(lambda: f"Cluster at {address}: 2 nodes, 1 job" in freehold("status"))
        assert fh.get(ref, timeout=20)
        fh.shutdown()
    finally:
        fh.shutdown()
        for folder in (home, other):
            os.environ["FREEHOLD_HOME"] = str(folder)
            freehold("stop")
    assert left_after(home) + left_after(other) == []


def test_a_dead_session_is_kept_and_cleared_away(home: Path) -> None:
    """Goal: what a head knew is not swept up by the next start, which names it; `stop` clears it
    away. Method: kill all of a cluster; start another; stop."""
    freehold("start", "--head", "--num-cpus", 1)
    session = next(home.glob("s-*"))
    kill_all(home)
    assert f"--session {session}" in freehold("start", "--head", "--num-cpus", 1)
    stopped = freehold("stop")
    assert f"Cleared away: {session}" in stopped
    assert "Stopped: 1 node, 1 head." in stopped
    assert left_after(home) == []


def test_sessions_that_cannot_be_brought_back(home: Path) -> None:
    """Goal: the error says what is wrong. Method: no session, a living one, a port that somebody
    else has taken meanwhile, options that contradict it."""

    def failed(*arguments: object) -> str:
        result = CliRunner().invoke(main, ["start", *map(str, arguments)])
        assert result.exit_code != 0
        return result.output

    assert "is not the folder of a session" in failed("--head", "--session", home)
    freehold("start", "--head", "--num-cpus", 1)
    session = next(home.glob("s-*"))
    assert "runs: pid" in failed("--head", "--session", session)
    assert "goes alone" in failed("--head", "--session", session, "--port", 7)
    assert "--port is the head's" in failed("--address", "127.0.0.1:1", "--session", session)
    port = int(freehold("status").split()[2].rstrip(":").rpartition(":")[2])
    kill_all(home)
    taken = socket.create_server(("127.0.0.1", port))
    try:
        assert "cannot listen" in failed("--head", "--session", session, "--num-cpus", 1)
    finally:
        taken.close()
    assert session.exists()
    freehold("stop")
    assert left_after(home) == []
