"""What lives and what dies: programs, workers, zygotes, nodes and heads, in every order.

The rule under test: whatever ends, however it ends, what depended on it ends or goes on as
documented within two seconds, and leaves no process and no file behind.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import freehold as fh
import leaks
from freehold import errors
from freehold.runtime import places
from freehold.testing import Cluster
from processes.programs import Program, left_after, named, processes, until


@pytest.fixture
def cluster(home: Path) -> Iterator[Cluster]:
    """Three nodes of one CPU each; this process is connected."""
    with Cluster(3, num_cpus=1) as three:
        fh.init(address=three.address)
        yield three


# --- the program ends ----------------------------------------------------------------------------

BUSY = """
fh.init(num_cpus=2)

@fh.remote
def nap(path, index):
    open(f"{path}/{index}", "w").close()
    time.sleep(60)

refs = [nap.remote(sys.argv[1], index) for index in range(2)]
while len(os.listdir(sys.argv[1])) < 2:
    time.sleep(0.01)
try:
    say("running")
    fh.get(refs)
except KeyboardInterrupt:
    if len(sys.argv) < 3:
        raise

@fh.remote
def double(x):
    return 2 * x

for ref in refs:
    fh.cancel(ref)
say(fh.get([double.remote(i) for i in range(100)]) == [2 * i for i in range(100)])
"""


def test_ctrl_c_ends_everything(home: Path, tmp_path: Path) -> None:
    """Goal: Ctrl-C while tasks run ends the program and its cluster. Method: SIGINT to the whole
    process group, as a terminal sends it; then look for what is left."""
    (tmp_path / "marks").mkdir()
    with Program(home, BUSY, tmp_path / "marks") as program:
        assert program.line() == "running"
        program.interrupt()
        _, _, words = program.end(5)
        assert words.rstrip().endswith("KeyboardInterrupt"), words
    assert left_after(home) == []


def test_a_program_may_go_on_after_ctrl_c(home: Path, tmp_path: Path) -> None:
    """Goal: KeyboardInterrupt is an exception, not the end of the cluster. Method: the program
    catches it, cancels its tasks and runs others."""
    (tmp_path / "marks").mkdir()
    with Program(home, BUSY, tmp_path / "marks", "go on") as program:
        assert program.line() == "running"
        program.interrupt()
        assert program.line() == "True"
        assert program.end()[0] == 0
    assert left_after(home) == []


def test_a_killed_program_leaves_nothing(home: Path, tmp_path: Path) -> None:
    """Goal: kill -9 of the driver takes all processes and files along within 2 s. Method: do it
    while its tasks run."""
    (tmp_path / "marks").mkdir()
    with Program(home, BUSY, tmp_path / "marks") as program:
        assert program.line() == "running"
        assert len(named(home, "freehold-worker")) == 2
        program.kill()
        assert left_after(home, 2.0) == []


def test_what_a_task_started_dies_with_its_worker(home: Path) -> None:
    """Goal: a task's own child processes do not outlive the job. Method: tasks start a long
    sleep each; the driver is killed."""
    text = """
    import subprocess
    fh.init(num_cpus=1)

    @fh.remote
    def start():
        return subprocess.Popen(["sleep", "60"]).pid

    say(fh.get(start.remote()))
    time.sleep(60)
    """
    with Program(home, text) as program:
        pid = int(program.line())
        until(lambda: pid in processes(home))  # its environment shows a moment after its start
        program.kill()
        assert left_after(home, 2.0) == []


def test_init_and_shutdown_twenty_times_leak_nothing(home: Path) -> None:
    """Goal: a session leaves no descriptor, thread, process or file. Method: snapshot this
    process after one session to warm up, then again after twenty more."""

    @fh.remote
    def double(x: int) -> int:
        return 2 * x

    def session(value: int) -> None:
        fh.init(num_cpus=1, object_store_memory=1 << 26)
        assert fh.get(double.remote(value)) == 2 * value
        assert len(fh.get(fh.put(bytes(1 << 20)))) == 1 << 20
        fh.shutdown()

    session(0)
    before = leaks.look(home)
    for value in range(20):
        session(value)
    assert leaks.left_behind(before, home) == []


# --- a worker or its parent ends ----------------------------------------------------------------


def test_a_killed_worker_is_replaced(cluster: Cluster, tmp_path: Path) -> None:
    """Goal: a task whose worker is killed runs again and its result is right. Method: kill the
    worker of one of three running tasks from outside."""

    @fh.remote
    def slow(folder: Path, index: int) -> int:
        first = not (folder / f"{index}").exists()
        (folder / f"{index}").write_text(str(os.getpid()))
        if first:
            time.sleep(60 if index == 1 else 0.3)
        return index * 10

    refs = [slow.remote(tmp_path, index) for index in range(3)]
    until(lambda: (tmp_path / "1").exists() and (tmp_path / "1").read_text())
    os.kill(int((tmp_path / "1").read_text()), signal.SIGKILL)
    assert fh.get(refs, timeout=10) == [0, 10, 20]


def test_a_killed_zygote_ends_its_node(cluster: Cluster, home: Path) -> None:
    """Goal: a node without its zygote could start no worker: it stops, and the tasks go on
    elsewhere. Method: kill the zygote of a node that we are not on."""

    @fh.remote
    def double(x: int) -> int:
        return 2 * x

    victim = cluster.nodes[2]
    (zygote,) = [pid for pid in named(home, "freehold-zygote") if parent(pid) == victim.pid]
    os.kill(zygote, signal.SIGKILL)
    cluster._gone(victim)
    assert not victim._started.folder.exists()
    until(lambda: sum(node["Alive"] for node in fh.nodes()) == 2)
    assert fh.get([double.remote(i) for i in range(50)], timeout=10) == [2 * i for i in range(50)]


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


# --- a node or the head ends --------------------------------------------------------------------


def test_a_killed_node_leaves_nothing_and_its_tasks_go_on(cluster: Cluster, home: Path) -> None:
    """Goal: kill -9 of a node takes its workers and its folder along; its tasks run again on the
    others. Method: three long tasks, one a node; kill a node that the driver is not on."""
    folder = cluster.session / "marks"
    folder.mkdir()

    @fh.remote
    def where(folder: Path, index: int) -> str:
        node = fh.get_runtime_context().get_node_id()
        (folder / f"{index}-{node}-{os.getpid()}").touch()
        time.sleep(1.0)
        return node

    refs = [where.remote(folder, index) for index in range(3)]
    until(lambda: len(list(folder.iterdir())) == 3)
    victim = cluster.nodes[1]
    (mark,) = [path for path in folder.iterdir() if victim.node_id in path.name]
    worker = int(mark.name.split("-")[2])
    cluster.kill_node(victim)
    assert not victim._started.folder.exists()
    until(lambda: worker not in processes(home), 2)
    nodes = fh.get(refs, timeout=20)
    assert victim.node_id not in nodes
    assert len(nodes) == 3
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


OWN_NODE = """
import threading
fh.init(num_cpus=1)

@fh.remote
def nap():
    time.sleep(60)

ref = nap.remote()
say(fh.nodes()[0]["Pid"])
try:
    fh.get(ref)
except fh.errors.FreeholdError as error:
    say(type(error).__name__)
try:
    fh.get(nap.remote())
except fh.errors.FreeholdError as error:
    say(type(error).__name__)
fh.shutdown()
say("down")
"""


@pytest.mark.parametrize("which", ["freehold-node", "freehold-zygote"])
def test_without_its_own_node_a_program_gets_a_named_error(home: Path, which: str) -> None:
    """Goal: no hang when the program's own node ends, whatever ended it: a waiting get and the
    next task fail with a named error, and shutdown is clean. Method: kill the node daemon or its
    zygote. (The head's end is none: test_head_restart.)"""
    with Program(home, OWN_NODE) as program:
        program.line()
        until(lambda: named(home, which))
        os.kill(named(home, which)[0], signal.SIGKILL)
        assert program.line(10) in ("ClusterUnreachableError", "NodeDiedError", "WorkerDiedError")
        assert program.line(10) in ("ClusterUnreachableError", "NodeDiedError")
        assert program.line(10) == "down"
        assert program.end()[0] == 0
    assert left_after(home) == []


# --- several programs, several nodes ------------------------------------------------------------

GUEST = """
fh.init(address=sys.argv[1])

@fh.remote
def where(folder, seconds):
    open(f"{folder}/{fh.get_runtime_context().get_node_id()}-{os.getpid()}", "w").close()
    time.sleep(seconds)
    return os.getpid()

refs = [where.remote(sys.argv[2], float(sys.argv[3])) for _ in range(3)]
say("started")
say(*fh.get(refs))
"""


def test_two_programs_do_not_disturb_each_other(cluster: Cluster, tmp_path: Path) -> None:
    """Goal: programs share nodes, not workers; one that is killed does not hurt the other.
    Method: two take turns on three CPUs; the first is killed; the second's results are right."""

    @fh.remote
    def mine(x: int) -> tuple[int, int]:
        time.sleep(0.02)
        return x, os.getpid()

    home = Path(os.environ["FREEHOLD_HOME"])
    with Program(home, GUEST, cluster.address, tmp_path, 60) as guest:
        assert guest.line() == "started"
        refs = [mine.remote(i) for i in range(60)]
        until(lambda: len(list(tmp_path.glob("*-*"))) > 0)
        guest.kill()
        results = fh.get(refs, timeout=20)
    assert [x for x, _ in results] == list(range(60))
    theirs = {path.name.split("-")[1] for path in tmp_path.glob("*-*")}
    assert theirs.isdisjoint(str(pid) for _, pid in results)
    until(lambda: fh.available_resources().get("CPU") == 3.0)


def test_a_killed_programs_workers_die_on_every_node(cluster: Cluster, tmp_path: Path) -> None:
    """Goal: a job ends everywhere. Method: a program keeps a task running on each of three
    nodes; kill it; its workers are gone within 2 s, the nodes are not."""
    home = Path(os.environ["FREEHOLD_HOME"])
    with Program(home, GUEST, cluster.address, tmp_path, 60) as guest:
        until(lambda: len(list(tmp_path.glob("*-*"))) == 3)
        marks = [path.name.split("-") for path in tmp_path.glob("*-*")]
        assert len({node for node, _ in marks}) == 3
        guest.kill()
    until(lambda: not processes(home).keys() & {int(pid) for _, pid in marks}, 2)
    assert len(named(home, "freehold-node")) == 3


def test_three_nodes_are_one_cluster(cluster: Cluster) -> None:
    """Goal: what three nodes have is visible and used. Method: add the resources up; run enough
    tasks at once that each node must take some."""

    @fh.remote
    def where() -> str:
        time.sleep(0.2)
        return fh.get_runtime_context().get_node_id()

    assert fh.cluster_resources()["CPU"] == 3.0
    ids = {node["NodeID"] for node in fh.nodes() if node["Alive"]}
    assert ids == {node.node_id for node in cluster.nodes}
    assert set(fh.get([where.remote() for _ in range(12)], timeout=20)) == ids


def test_nodes_come_and_go(cluster: Cluster) -> None:
    """Goal: a node that joins is used, one that is removed is told as gone, and why. Method: a
    task that only the new node can run; then take that node away again."""

    @fh.remote(resources={"disk": 1})
    def where() -> str:
        return fh.get_runtime_context().get_node_id()

    ref = where.remote()
    ready, _ = fh.wait([ref], timeout=0.3)
    assert not ready
    added = cluster.add_node(num_cpus=1, resources={"disk": 2}, labels={"zone": "b"})
    assert fh.get(ref, timeout=10) == added.node_id
    assert fh.cluster_resources()["disk"] == 2.0
    cluster.remove_node(added)
    until(lambda: "disk" not in fh.cluster_resources())
    (gone,) = [node for node in fh.nodes() if node["NodeID"] == added.node_id]
    assert (gone["Alive"], bool(gone["DeathReason"])) == (False, True)
    assert gone["Labels"] == {"zone": "b"}


# --- fork ---------------------------------------------------------------------------------------


def test_a_forked_child_is_not_connected(home: Path) -> None:
    """Goal: a child does not use its parent's sockets, and does not hang; the parent goes on.
    Method: fork; in the child use a reference of the parent, then init anew and run a task."""
    text = """
    fh.init(num_cpus=1)

    @fh.remote
    def double(x):
        return 2 * x

    ref = double.remote(4)
    pid = os.fork()
    if not pid:
        say("child", fh.is_initialized())
        try:
            fh.get(ref, timeout=5)
        except fh.errors.FreeholdError as error:
            say(type(error).__name__)
        fh.shutdown()
        with fh.init(num_cpus=1):
            say(fh.get(double.remote(1)))
        sys.exit(0)
    say("status", os.waitpid(pid, 0)[1])
    say(fh.get([ref, double.remote(5)]))
    """
    with Program(home, text) as program:
        lines = [program.line() for _ in range(5)]
        assert program.end()[0] == 0
    assert lines[0] == "child False"
    assert lines[1].endswith("Error")
    assert lines[2:] == ["2", "status 0", "[8, 10]"]
    assert left_after(home) == []


def test_a_forked_child_does_not_keep_the_cluster_alive(home: Path) -> None:
    """Goal: a child that outlives the killed program holds none of its sockets. Method: fork a
    child that sleeps, kill the parent; the cluster is gone, the child is not."""
    text = """
    fh.init(num_cpus=1)
    child = os.fork()
    if not child:
        time.sleep(60)
    say(child)
    time.sleep(60)
    """
    with Program(home, text) as program:
        child = int(program.line())
        program.kill()
        try:
            until(lambda: not [p for p in processes(home) if p != child], 2)
            assert not list(home.iterdir())
            assert child in processes(home)
        finally:
            os.kill(child, signal.SIGKILL)


# --- the home folder ----------------------------------------------------------------------------


def test_a_long_home_is_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a unix socket's path may have 107 bytes, a home folder may have more. Method: a home
    of 300."""
    home = tmp_path / ("long-" * 30) / ("name-" * 30)
    monkeypatch.setenv("FREEHOLD_HOME", str(home))

    @fh.remote
    def double(x: int) -> int:
        return 2 * x

    with fh.init(num_cpus=1):
        assert fh.get(double.remote(2)) == 4
        assert len(fh.get(fh.put(bytes(1 << 20)))) == 1 << 20
    assert left_after(home) == []


def test_a_relative_home_is_meant_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: daemons run in / and still find it. Method: a home named from the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FREEHOLD_HOME", "here")
    with fh.init(num_cpus=1):
        assert fh.get(fh.put(1)) == 1
        assert list((tmp_path / "here").iterdir())


@pytest.mark.parametrize("case", ["open to others", "foreign", "no folder"])
def test_an_unsafe_home_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """Goal: whoever can enter the home can run code as us, so it must be ours alone; the error
    names the folder and the remedy. Method: one that others may read, one that is another
    user's, one that cannot be made because a file is in the way."""
    home = tmp_path / "home"
    if case == "open to others":
        home.mkdir()
        home.chmod(0o755)
    elif case == "foreign":
        home.mkdir(mode=0o700)
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    else:
        (tmp_path / "home").write_text("in the way")
        home = home / "sub"
    monkeypatch.setenv("FREEHOLD_HOME", str(home))
    with pytest.raises(PermissionError, match="FREEHOLD_HOME") as caught:
        fh.init(num_cpus=1)
    assert str(home) in str(caught.value)


def test_stale_sessions_are_swept(home: Path) -> None:
    """Goal: the next start removes what the dead left and nothing else. Method: folders as a
    crash of everything leaves them, one of a process whose id is somebody else's now, one that
    is just being made, two that somebody else keeps there; then start."""

    def leave(name: str, pid: int | None, age: float = 0) -> Path:
        node = home / name / "0011223344556677"
        node.mkdir(mode=0o700, parents=True)
        (home / name / "token").write_text("x" * 64)
        if pid is not None:
            address = places.Address(b"p", b"n", "127.0.0.1", 1)  # type: ignore[arg-type]
            file = places.NodeFile(address, address, pid, str(home / name))
            places.write_node_file(node, file)
        for path in (node, node.parent):
            os.utime(path, (time.time() - age, time.time() - age))
        return home / name

    stale = [
        leave("s-00000001", 2**22 - 1),
        leave("s-00000002", os.getpid()),  # lives, and is no daemon of ours
        leave("s-00000003", None, age=7200),
    ]
    kept = [leave("s-00000004", None), leave("mine", None, age=7200), leave("s-mine", None, 7200)]
    with fh.init(num_cpus=1):
        assert [path.exists() for path in stale + kept] == [False] * 3 + [True] * 3


def test_errors_when_not_connected(home: Path) -> None:
    """Goal: no cluster, a wrong address and a node's options for a running cluster are told
    apart. Method: init with each."""
    with pytest.raises(errors.ClusterUnreachableError, match="no cluster has a node here"):
        fh.init(address="auto")
    with pytest.raises(errors.ClusterUnreachableError, match=r"the cluster 127\.0\.0\.1:1 "):
        fh.init(address="127.0.0.1:1")
    with pytest.raises(ValueError, match="num_cpus"):
        fh.init(address="auto", num_cpus=1)
