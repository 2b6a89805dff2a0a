"""Local mode: the whole of it in one process, with the semantics of a cluster."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import freehold as fh
from freehold import errors
from freehold.runtime import current

from .conftest import run_script


@pytest.fixture(autouse=True)
def in_local_mode() -> Iterator[None]:
    """A session in this process for each test. At its end nothing is left of what the test has
    dropped, in any table."""
    fh.shutdown()
    fh.init(mode="local", num_cpus=4, num_gpus=0)
    yield
    process = current.process()
    assert process is not None
    gc.collect()  # (errors hold the frames they went through)
    time.sleep(0.25)  # the hold of idle leases (leasing.HOLD), by the clock on the wall
    process.settle()
    process.transport.flush()
    counts = process.role.counts()
    fh.shutdown()
    assert counts == dict.fromkeys(counts, 0)


@fh.remote
def square(x: int) -> int:
    return x * x


@fh.remote
def place() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


def test_a_task_runs_in_this_thread_when_it_is_submitted() -> None:
    """Goal: a debugger stops where the user sits, with the caller's frames above the task's.
    Method: process, thread, and the frames themselves."""

    @fh.remote
    def caller() -> bool:
        frame: Any = sys._getframe()
        found = []
        while frame is not None:
            found.append(frame.f_code.co_name)
            frame = frame.f_back
        return "test_a_task_runs_in_this_thread_when_it_is_submitted" in found

    assert fh.get(place.remote()) == (os.getpid(), threading.get_ident())
    assert fh.get(caller.remote()) is True


def test_it_runs_whether_or_not_anybody_asks(tmp_path: Path) -> None:
    """Goal: side effects happen at the call. Method: a file, with the reference dropped."""

    @fh.remote
    def touch(path: str) -> None:
        Path(path).touch()

    touch.remote(str(tmp_path / "there"))
    assert (tmp_path / "there").exists()


def test_nobody_changes_anothers_values() -> None:
    """Goal: arguments, results and values of put are copies; arrays are read-only, unless asked
    for as writable, and then private."""

    @fh.remote
    def grow(items: list[int]) -> list[int]:
        items.append(5)
        return items

    mine = [1]
    ref = grow.remote(mine)
    fh.get(ref).append(7)
    assert (mine, fh.get(ref)) == ([1], [1, 5])
    array = fh.put(np.zeros(1000))
    with pytest.raises(ValueError, match="read-only"):
        fh.get(array)[0] = 1
    fh.get(array, writable=True)[0] = 1
    assert fh.get(array)[0] == 0


def test_graphs_of_tasks() -> None:
    """Goal: references as arguments and inside values, nested tasks, several returns, wait."""

    @fh.remote
    def nest(box: list[Any]) -> list[Any]:
        return [square.remote(fh.get(box[0])), box[0]]

    @fh.remote(num_returns=3)
    def three() -> Iterator[int]:
        yield from (1, 2, 3)

    first = square.remote(2)
    inner, same = fh.get(nest.remote([first]))
    assert (fh.get(inner), same) == (16, first)
    assert fh.get(three.remote()) == [1, 2, 3]
    assert fh.get(square.remote(square.remote(3))) == 81
    refs = [square.remote(i) for i in range(4)]
    assert fh.wait(refs, num_returns=3) == (refs[:3], refs[3:])
    assert fh.get(refs, timeout=0) == [0, 1, 4, 9]


def test_errors_are_those_of_tasks(tmp_path: Path) -> None:
    """Goal: raised at get, as both types, passed on to dependants, retried if that was asked for;
    what cannot travel and what nobody can hold are named."""

    @fh.remote(retry_exceptions=[KeyError], max_retries=2, retry_delay=0.01)
    def fail(path: str, kind: type[Exception]) -> None:
        with Path(path).open("a") as file:
            file.write(".")
        raise kind("why")

    for kind, runs in ((KeyError, 3), (ValueError, 1)):
        path = tmp_path / kind.__name__
        with pytest.raises(kind) as caught:
            fh.get(square.remote(fail.remote(str(path), kind)))
        assert isinstance(caught.value, errors.TaskError)
        assert "fail() raised" in str(caught.value)
        assert path.read_text() == "." * runs
    with pytest.raises(errors.SerializationError):
        square.remote(threading.Lock())  # type: ignore[arg-type]
    with pytest.raises(errors.UnschedulableError, match="this process, in local mode, offers CPU"):
        fh.get(square.options(num_cpus=8).remote(1))
    with pytest.raises(TypeError):
        square.remote()  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="unknown option"):
        square.options(cpus=1)


def test_what_is_meant_for_the_person_passes_through() -> None:
    """Goal: Ctrl-C, and quitting a debugger, end the program and not only the task. Method: the
    session goes on for a program that catches them, and ends here, because the references that
    ``remote`` did not come to return stay on the books."""
    import bdb

    @fh.remote
    def stop(kind: type[BaseException]) -> None:
        raise kind

    for kind in (KeyboardInterrupt, SystemExit, bdb.BdbQuit):
        with pytest.raises(kind):
            stop.remote(kind)
    assert fh.get(square.remote(3)) == 9
    fh.shutdown()
    fh.init(mode="local")


def test_breakpoint_lands_in_the_terminal(tmp_path: Path) -> None:
    """Goal: the point of it all. Method: a program of its own with pdb's commands on its stdin."""
    program = tmp_path / "prog.py"
    program.write_text(
        "import freehold as fh\n"
        "fh.init(mode='local')\n"
        "@fh.remote\n"
        "def f(x):\n"
        "    breakpoint()\n"
        "    return x + 1\n"
        "print('got', fh.get(f.remote(41)))\n"
    )
    done = subprocess.run(
        [sys.executable, str(program)],
        input="p x * 1000\nc\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "41000" in done.stdout, done
    assert done.stdout.endswith("got 42\n")


def test_no_other_process(tmp_path: Path) -> None:
    """Goal: nothing is started, and nothing left in the folders. Method: a program that looks for
    children of its own; auto-started local mode is shut down at its exit."""
    done = run_script(
        tmp_path,
        """
        import os, threading
        import freehold as fh
        fh.init(mode="local")
        f = fh.remote(lambda x: x + 1)
        assert list(f.map(range(100))) == list(range(1, 101))
        children = [p for p in os.listdir("/proc") if p.isdigit()]
        def parent(pid):
            try:
                return int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
            except OSError:
                return 0
        print([p for p in children if parent(p) == os.getpid()], threading.active_count())
        """,
    )
    assert (done.stdout, done.stderr) == ("[] 1\n", "")


def test_actors(tmp_path: Path) -> None:
    """Goal: state, order, named errors of the constructor, kill, exit, restart, and the hook when
    the last handle goes. Method: one small class for each."""

    @fh.remote(max_restarts=1)
    class Counter:
        def __init__(self, start: int, path: str = "") -> None:
            if start < 0:
                raise ValueError("negative")
            self.total = start
            self.path = path

        def add(self, x: int) -> int:
            self.total += x
            return self.total

        def leave(self) -> None:
            fh.exit_actor()

        def __shutdown__(self) -> None:
            if self.path:
                Path(self.path).touch()

    counter = Counter.remote(5, str(tmp_path / "gone"))
    assert fh.get([counter.add.remote(1), counter.add.remote(2)]) == [6, 8]
    fh.kill(counter, no_restart=False)
    assert fh.get(counter.add.remote(1)) == 6  # made again
    assert not (tmp_path / "gone").exists()
    del counter
    fh.put(0)  # (the next call settles what was dropped)
    assert (tmp_path / "gone").exists()
    for end in (fh.kill, lambda actor: actor.leave.remote()):
        actor = Counter.remote(1)
        end(actor)
        with pytest.raises(errors.ActorDiedError):
            fh.get(actor.add.remote(1))
    with pytest.raises(errors.ActorDiedError, match="negative"):
        fh.get(Counter.remote(-1).add.remote(1))


def test_coroutines_and_streams(tmp_path: Path) -> None:
    """Goal: async tasks and methods run; await works; a stream makes each value when it is asked
    for, so that one without an end can be read, and closed."""

    @fh.remote
    async def slow(x: int) -> int:
        await asyncio.sleep(0.01)
        return x + 1

    @fh.remote
    def endless(path: str) -> Iterator[int]:
        number = 0
        while True:
            Path(path).write_text(str(number))
            yield number
            number += 1

    @fh.remote
    async def few() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    @fh.remote
    class Async:
        async def twice(self, x: int) -> int:
            return 2 * x

    async def main() -> list[int]:
        actor = Async.remote()
        return list(await asyncio.gather(slow.remote(1), slow.remote(2), actor.twice.remote(4)))

    assert fh.get(slow.remote(1)) == 2
    assert asyncio.run(main()) == [2, 3, 8]
    stream = endless.remote(str(tmp_path / "at"))
    assert [fh.get(next(stream)) for _ in range(3)] == [0, 1, 2]
    assert (tmp_path / "at").read_text() == "2"
    stream.close()
    assert [fh.get(ref) for ref in few.remote()] == [0, 1, 2]


def test_cancel_and_time_are_harmless() -> None:
    """Goal: a cancel finds the task done; a timeout is not enforced."""
    ref = square.options(timeout=0.001).remote(5)
    fh.cancel(ref, force=True)
    assert fh.get(ref) == 25

    @fh.remote(timeout=0.01)
    def slow() -> str:
        time.sleep(0.05)
        return "whole"

    assert fh.get(slow.remote()) == "whole"


def test_what_it_says_of_itself() -> None:
    """Goal: the context's ids, resources and nodes are there; what only a cluster has is refused
    by name."""

    @fh.remote(num_cpus=2)
    def inside() -> tuple[Any, ...]:
        context = fh.get_runtime_context()
        return context.get_task_name(), context.get_assigned_resources(), context.is_cancelled()

    name, amounts, cancelled = fh.get(inside.remote())
    assert name.endswith("inside")
    assert (amounts, cancelled) == ({"CPU": 2.0}, False)
    assert fh.get_runtime_context().get_task_id() is None
    assert fh.cluster_resources()["CPU"] == 4.0
    assert len(fh.nodes()) == 1
    with pytest.raises(errors.NotInitializedError, match="needs a cluster"):
        fh.placement_group_table()
    with pytest.raises(errors.NotInitializedError, match="runtime_env needs a cluster"):
        square.options(runtime_env={"env_vars": {"A": "1"}}).remote(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "eager"}, "mode must be 'cluster' or 'local'"),
        ({"mode": 5}, "mode must be 'cluster' or 'local'"),
        ({"mode": "local", "address": "127.0.0.1:6380"}, "cannot join 127.0.0.1:6380"),
        ({"mode": "local", "preload": ["json"]}, "preload: not in local mode"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    """Goal: refused by name. Method: a second session, once the first is shut down."""
    fh.shutdown()
    try:
        with pytest.raises((TypeError, ValueError), match=message):
            fh.init(**options)
    finally:
        fh.init(mode="local")
