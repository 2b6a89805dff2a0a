"""Detached actors: the program that made one is gone, by any end; the actor is not.

What the head decides is tested without processes (``core/test_detached``). Here are programs that
come and go, and what is killed is what carries the actor: its worker, its steward, the head, a
node.
"""

from __future__ import annotations

import os
import signal
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import freehold as fh
from freehold.cli.main import main
from freehold.errors import (
    ActorAlreadyExistsError,
    ActorDiedError,
    ActorUnavailableError,
    FreeholdError,
)
from freehold.testing import Cluster
from processes.programs import Program, left_after, named, until

STEWARD = "freehold-stewar"  # (the kernel keeps fifteen letters of a name)
NAMESPACE = "shop"
CLASS = """
@fh.remote(num_cpus=0)
class Counter:
    def __init__(self, count=0, note=b""):
        if count is None:
            raise ValueError("no count")
        self.count, self.note = count, note
    def add(self):
        self.count += 1
        return self.count
    def size(self):
        return len(self.note)
    def pid(self):
        return os.getpid()
    def large(self):
        return bytes(1 << 20)
    def elsewhere(self, name):
        return fh.get(fh.get_actor(name).add.remote())

fh.init(address=sys.argv[1], namespace="shop")
"""


@pytest.fixture
def cluster(home: Path) -> Iterator[Cluster]:
    """Two nodes of one CPU each; this process is connected."""
    with Cluster(2, num_cpus=1, dead_after=2.0) as two:
        fh.init(address=two.address, namespace=NAMESPACE)
        yield two
    assert left_after(home) == []


def run(home: Path, cluster: Cluster, text: str) -> None:
    """A program that makes actors, is killed, and leaves nothing but them."""
    script = CLASS + textwrap.dedent(text) + "\nsay('made')\ntime.sleep(1000)"
    with Program(home, script, cluster.address) as it:
        assert it.line() == "made"
        it.kill()


def make(home: Path, cluster: Cluster, restarts: int, *args: str) -> Any:
    """A detached actor whose program was killed; its handle."""
    given = ", ".join(args)
    run(
        home,
        cluster,
        f"""
        made = Counter.options(name="c", lifetime="detached", max_restarts={restarts})
        assert fh.get(made.remote({given}).add.remote()) == 1
        """,
    )
    return fh.get_actor("c")


def again(handle: Any) -> int:
    """What a call returns, once the actor is there again."""
    found: list[int] = []

    def answers() -> bool:
        try:
            found.append(fh.get(handle.add.remote()))
        except ActorUnavailableError:
            return False
        return True

    until(answers)
    return found[0]


def fresh() -> Any:
    """The actor by its name, as soon as it can be called."""
    found: list[Any] = []

    def answers() -> bool:
        try:
            found.append(fh.get_actor("c"))
            fh.get(found[-1].pid.remote())
        except (FreeholdError, ValueError):
            return False
        return True

    until(answers, 20)
    return found[-1]


def gone(name: str = "c") -> bool:
    return name not in fh.list_named_actors()


def test_it_outlives_its_program_and_ends_by_kill(cluster: Cluster, home: Path) -> None:
    """Goal: state stays when the program that made the actor is killed; handles come by the name,
    pass through tasks and other programs; kill ends the actor, its name and its steward. Method:
    three programs use one counter."""
    handle = make(home, cluster, 0)

    @fh.remote(num_cpus=0)
    def use(counter: Any) -> int:
        return fh.get(counter.add.remote())  # type: ignore[no-any-return]

    assert fh.get(use.remote(handle)) == 2
    run(home, cluster, "assert fh.get(fh.get_actor('c').add.remote()) == 3")
    assert fh.get(handle.add.remote()) == 4
    assert fh.get_actor("c") == handle
    large = handle.large.remote()
    assert fh.wait([large], timeout=10)[0]
    fh.kill(handle)
    until(gone)
    with pytest.raises(ActorDiedError, match=r"killed by kill\(\)"):
        fh.get([handle.add.remote(), handle.add.remote()])
    with pytest.raises(ValueError, match="no living actor has the name 'c'"):
        fh.get_actor("c")
    del handle
    until(lambda: not named(home, STEWARD), 20)
    assert len(fh.get(large)) == 1 << 20  # it is the caller's, whatever became of the actor


def test_restarts_go_on_without_the_program(cluster: Cluster, home: Path) -> None:
    """Goal: max_restarts holds when the creator is gone. Method: kill the worker twice; one restart
    is left."""
    handle = make(home, cluster, 1)
    os.kill(fh.get(handle.pid.remote()), signal.SIGKILL)
    assert again(handle) == 1
    os.kill(fh.get(handle.pid.remote()), signal.SIGKILL)
    with pytest.raises(ActorDiedError, match="restart"):
        again(handle)
    until(gone)


def test_a_killed_steward_is_followed_by_another(cluster: Cluster, home: Path) -> None:
    """Goal: nothing that carries the actor is its end but the last restart. Method: kill the
    steward: the actor is made anew, found by its name, with one restart less; then again."""
    old = make(home, cluster, 1, "fh.put(0)", "note=bytes(3 << 20)")
    pid = fh.get(old.pid.remote())
    (steward,) = named(home, STEWARD)
    os.kill(steward, signal.SIGKILL)
    new = fresh()
    assert new != old
    assert fh.get(new.pid.remote()) != pid
    assert not Path(f"/proc/{pid}").exists()
    assert fh.get([new.add.remote(), new.size.remote()]) == [1, 3 << 20]
    with pytest.raises(ActorDiedError, match="get_actor"):
        fh.get(old.add.remote())
    (steward,) = named(home, STEWARD)
    os.kill(steward, signal.SIGKILL)
    until(gone)


def test_it_outlives_the_head(cluster: Cluster, home: Path) -> None:
    """Goal: a head that is killed changes nothing: the same actor with its state, its name, and
    what ends it. Method: kill the head, call on; kill it again while the actor is ended."""
    handle = make(home, cluster, 0)
    (head,) = named(home, "freehold-head")
    os.kill(head, signal.SIGKILL)
    assert fh.get(handle.add.remote()) == 2
    assert fresh() == handle
    heads = named(home, "freehold-head")
    os.kill(heads[0], signal.SIGKILL)
    fh.kill(handle)
    until(lambda: named(home, "freehold-head") not in ([], heads))
    until(gone, 20)
    assert len(named(home, STEWARD)) == 1


def test_it_outlives_the_node_of_its_steward(cluster: Cluster, home: Path) -> None:
    """Goal: with the machine of its steward the actor is made again elsewhere. Method: kill the
    node; the head, which ran beside it, lives."""
    make(home, cluster, -1)
    fh.shutdown()
    os.kill(cluster.nodes[0].pid, signal.SIGKILL)
    until(lambda: len(named(home, "freehold-zygote")) == 1)
    fh.init(address=cluster.address, namespace=NAMESPACE)
    assert fh.get(fresh().add.remote()) == 1


def test_actors_find_each_other(cluster: Cluster, home: Path) -> None:
    """Goal: a detached actor looks for others in the namespace of its program, which has ended.
    Method: one calls another by its name."""
    run(
        home,
        cluster,
        """
        for name in ("a", "b"):
            Counter.options(name=name, lifetime="detached").remote()
        """,
    )
    assert fh.get(fh.get_actor("a").elsewhere.remote("b")) == 1
    assert fh.get(fh.get_actor("b").add.remote()) == 2


def test_its_files_outlive_the_program(cluster: Cluster, home: Path, tmp_path: Path) -> None:
    """Goal: a restart finds the files of the runtime environment and the modules of the program,
    both of which went with the program. Method: a working_dir; a module that only the program's
    path leads to, first imported after the restart. It is listed as what it is."""
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "note.txt").write_text("packed")
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "late.py").write_text("WORD = 'late'")
    run(
        home,
        cluster,
        f"""
        sys.path.insert(0, {str(tmp_path / "modules")!r})

        @fh.remote(  # (a call made before we hear of the death may be lost with it: once more)
            max_restarts=1,
            max_task_retries=1,
            runtime_env={{"working_dir": {str(tmp_path / "packed")!r}}},
        )
        class Reader:
            def pid(self):
                return os.getpid()
            def read(self):
                import late
                return open("note.txt").read() + " " + late.WORD

        made = Reader.options(name="c", lifetime="detached").remote()
        assert fh.get(made.pid.remote())
        """,
    )
    handle = fh.get_actor("c")
    pid = fh.get(handle.pid.remote())
    os.kill(pid, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists())
    assert fh.get(handle.read.remote()) == "packed late"
    told = CliRunner().invoke(main, ["status", "--address", cluster.address])
    assert f"detached {NAMESPACE}/c" in told.output


def test_a_constructor_that_raises(cluster: Cluster, home: Path) -> None:
    """Goal: who made it learns what was raised; name and steward go."""
    run(
        home,
        cluster,
        """
        made = Counter.options(name="c", lifetime="detached", max_restarts=5).remote(None)
        try:
            fh.get(made.add.remote())
        except fh.errors.ActorDiedError as error:
            assert isinstance(error.__cause__.cause, ValueError), error.__cause__
        else:
            raise AssertionError("it lives")
        """,
    )
    until(gone)
    until(lambda: not named(home, STEWARD), 20)


@fh.remote(num_cpus=0)
class Mine:
    def __init__(self, given: object = None) -> None:
        self.given = given

    def ping(self) -> object:
        return self.given


def test_wrong_use(cluster: Cluster) -> None:
    """Goal: what cannot outlive the program is refused with the reason. Method: no name, a name
    that is taken, references that are not arguments, too much, a lifetime that does not exist."""
    with pytest.raises(ValueError, match="needs a name"):
        Mine.options(lifetime="detached").remote()
    with pytest.raises(ValueError, match='lifetime must be None or "detached"'):
        Mine.options(lifetime="long")
    detached = Mine.options(name="m", lifetime="detached")
    with pytest.raises(ValueError, match=r"an argument .* holds a reference or a handle"):
        detached.remote([fh.put(1)])
    with pytest.raises(ValueError, match="the head keeps no more"):
        detached.remote(bytes(20 << 20))
    assert fh.list_named_actors() == []
    first = detached.remote(fh.put("first"))
    with pytest.raises(ActorAlreadyExistsError, match="has the name 'm'"):
        detached.remote("second")
    assert detached.options(get_if_exists=True).remote("third") == first
    assert fh.get(first.ping.remote()) == "first"
    plain = Mine.options(name="p").remote("plain")
    with pytest.raises(ActorAlreadyExistsError):
        Mine.options(name="p", lifetime="detached").remote()
    assert fh.get(plain.ping.remote()) == "plain"


def test_it_ends_with_a_cluster_of_its_program(home: Path) -> None:
    """Goal: a cluster that init() started ends with the program, and all that is in it. Method: a
    program makes one and is killed."""
    text = CLASS.replace("address=sys.argv[1], ", "") + (
        "made = Counter.options(name='c', lifetime='detached').remote()\n"
        "say(fh.get(made.add.remote()))\ntime.sleep(1000)"
    )
    with Program(home, text) as program:
        assert program.line() == "1"
        assert len(named(home, STEWARD)) == 1
        program.kill()
    assert left_after(home) == []
