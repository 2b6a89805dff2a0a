"""What a Ray Core program relies on: the session, calls, references, get, put, wait, cancel.

One short test for each line of behaviour. Where Freehold differs on purpose the test says so, and
docs/ray.md gives the reason.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import freehold as fh
from api.conftest import returns_to, tables, until

pytestmark = pytest.mark.usefixtures("two_cpus")


@fh.remote
def echo(value: Any = None) -> Any:
    return value


@fh.remote
def fail(text: str) -> None:
    raise LookupError(text)


@fh.remote
def when(path: str, value: Any = None) -> Any:
    while not Path(path).exists():
        time.sleep(0.005)
    return value


# -- the session ----------------------------------------------------------------------------------


def test_a_second_init_raises_unless_told_to_ignore_it(two_cpus: fh.Session) -> None:
    """Goal: init twice is a RuntimeError; with ``ignore_reinit_error`` nothing happens."""
    with pytest.raises(RuntimeError):
        fh.init()
    fh.init(ignore_reinit_error=True)
    assert fh.is_initialized()


def test_decorating_starts_nothing_and_functions_outlive_a_session() -> None:
    """Goal: decorate before ``init``; the first call starts a session; after ``shutdown``, which
    may come twice, and another ``init`` the same functions work. Method: in local mode, beside the
    module's cluster: in a program of its own."""

    @fh.remote
    def program() -> list[Any]:
        import subprocess
        import sys

        text = (
            "import freehold as fh\n"
            "f = fh.remote(lambda x: x + 1)\n"
            "said = [fh.is_initialized()]\n"
            "for _ in range(2):\n"
            "    fh.init(mode='local')\n"
            "    said += [fh.is_initialized(), fh.get(f.remote(1))]\n"
            "    fh.shutdown()\n"
            "    fh.shutdown()\n"
            "print(said + [fh.is_initialized()])\n"
        )
        done = subprocess.run([sys.executable, "-c", text], capture_output=True, check=True)
        return [done.stdout.decode().strip()]

    assert fh.get(program.remote()) == ["[False, True, 2, True, 2, False]"]


def test_the_cluster_describes_itself() -> None:
    """Goal: ``nodes``, ``cluster_resources`` and ``available_resources`` have the known keys, and
    fractions are exact to 1e-4."""
    (node,) = fh.nodes()
    assert {"NodeID", "Alive", "Resources", "Labels"} <= set(node)
    assert fh.cluster_resources()["CPU"] == 2.0

    @fh.remote(num_cpus=0.5)
    def free() -> float:
        return fh.available_resources()["CPU"]

    assert fh.get(free.remote()) <= 2.0


# -- remote functions -----------------------------------------------------------------------------


def test_a_remote_function_is_not_called_directly() -> None:
    """Goal: TypeError that says what to write."""
    with pytest.raises(TypeError, match=r"\.remote\("):
        echo(1)  # type: ignore[operator]


def test_options_are_checked_where_they_are_written() -> None:
    """Goal: unknown options and impossible values raise at once and name the option."""
    for options, kind, word in (
        ({"num_cpu": 1}, ValueError, "did you mean num_cpus"),
        ({"num_cpus": -1}, ValueError, "num_cpus"),
        ({"num_cpus": "one"}, TypeError, "num_cpus"),
        ({"resources": {"CPU": 1}}, ValueError, "num_cpus"),
        ({"resources": {"GPU": 1}}, ValueError, "num_gpus"),
        ({"max_retries": -2}, ValueError, "max_retries"),
        ({"num_returns": -1}, ValueError, "num_returns"),
        ({"retry_exceptions": [5]}, TypeError, "retry_exceptions"),
        ({"backpressure": 0}, ValueError, "backpressure"),
        ({"scheduling_strategy": "EVEN"}, ValueError, "scheduling_strategy"),
        ({"name": 5}, TypeError, "name"),
    ):
        with pytest.raises(kind, match=word):
            echo.options(**options)


def test_coroutine_functions_are_tasks() -> None:
    """Goal: ``async def`` works as a task, where Ray raises ValueError."""

    @fh.remote
    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return await echo.remote(x)  # type: ignore[no-any-return]

    assert fh.get(later.remote(3)) == 3


def test_num_returns() -> None:
    """Goal: n results are n references; another number is an error in each; 0 gives an empty list,
    where Ray gives None; a generator fills n references too."""

    def three() -> tuple[int, int, int]:
        return 1, 2, 3

    def yields() -> Iterator[int]:
        yield from (1, 2, 3)

    assert fh.get(fh.remote(three).options(num_returns=3).remote()) == [1, 2, 3]
    assert fh.get(fh.remote(yields).options(num_returns=3).remote()) == [1, 2, 3]
    assert echo.options(num_returns=0).remote() == []
    for ref in fh.remote(three).options(num_returns=2).remote():
        with pytest.raises(ValueError, match="num_returns=2 but returned more values"):
            fh.get(ref)


def test_retries_of_exceptions(tmp_path: Path) -> None:
    """Goal: exceptions are not retried unless asked for, all or by type; they count against
    ``max_retries``."""

    @fh.remote(max_retries=2)
    def count(name: str) -> None:
        path = tmp_path / name
        path.write_text((path.read_text() if path.exists() else "") + "x")
        raise OSError(name)

    for name, retried, runs in (
        ("no", False, 1),
        ("all", True, 3),
        ("these", [OSError], 3),
        ("others", [KeyError], 1),
    ):
        with pytest.raises(OSError, match=name):
            fh.get(count.options(retry_exceptions=retried).remote(name))
        assert len((tmp_path / name).read_text()) == runs


# -- arguments and references ---------------------------------------------------------------------


def test_top_level_references_arrive_as_values_and_nested_ones_as_references() -> None:
    """Goal: depth decides. Method: the same reference twice at the top, once in a list."""

    @fh.remote
    def look(a: Any, b: Any, inside: list[Any], *, key: Any) -> list[Any]:
        return [a, b, type(inside[0]).__name__, fh.get(inside[0]), key]

    ref = fh.put(5)
    assert fh.get(look.remote(ref, ref, [ref], key=ref)) == [5, 5, "ObjectRef", 5, 5]


def test_an_argument_that_failed_fails_the_consumer() -> None:
    """Goal: the error of a dependency is the consumer's, with its type, and it never runs."""
    with pytest.raises(LookupError, match="source"):
        fh.get(echo.remote(echo.remote(fail.remote("source"))))


def test_references_survive_hops_closures_and_being_forgotten() -> None:
    """Goal: a value lives while anybody can name it: through a task's result, a closure, another
    value; and is freed when nobody can."""
    before = tables()
    kept = [ref := fh.put(np.arange(50_000))]

    @fh.remote
    def closed() -> int:
        return int(fh.get(kept[0]).sum())

    hop = echo.remote([echo.remote([fh.put([ref])])])
    expected = fh.get(closed.remote())
    inner = fh.get(fh.get(fh.get(hop)[0])[0])[0]
    del hop
    assert int(fh.get(inner).sum()) == expected
    del inner, ref, closed
    kept.clear()
    assert returns_to(before, "stored bytes") == {}


def test_a_reference_is_a_value_of_its_own() -> None:
    """Goal: hash and equality, hex and binary, futures of both kinds, await in any loop."""
    ref = echo.remote(7)
    (copy,) = fh.get(echo.remote([ref]))
    assert (copy == ref, hash(copy) == hash(ref), len({copy, ref})) == (True, True, 1)
    assert bytes.fromhex(ref.hex()) == ref.binary()
    assert ref.task_id() in ref.hex()
    future = ref.future()
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(20) == 7

    async def program() -> list[int]:
        return [await ref, await ref.as_future()]

    assert asyncio.run(program()) == [7, 7]


def test_references_outside_of_freehold_are_refused() -> None:
    """Goal: the user's own pickle of a reference is an error, where Ray keeps it for ever."""
    import pickle

    with pytest.raises(fh.errors.SerializationError):
        pickle.dumps(fh.put(1))


# -- get, put, wait -------------------------------------------------------------------------------


def test_get_keeps_order_and_raises_the_first_error_at_once(tmp_path: Path) -> None:
    """Goal: values in the order asked for; an error does not wait for the rest."""
    assert fh.get([echo.remote(i) for i in (3, 1, 2)]) == [3, 1, 2]
    assert fh.get([]) == []
    slow = when.remote(str(tmp_path / "go"))
    with pytest.raises(LookupError, match="now"):
        fh.get([slow, fail.remote("now")], timeout=20)
    (tmp_path / "go").touch()
    assert fh.get(slow) is None


def test_get_with_a_timeout(tmp_path: Path) -> None:
    """Goal: GetTimeoutError is a TimeoutError; 0 polls; the value can still be had."""
    ref = when.remote(str(tmp_path / "go"), 1)
    for seconds in (0, 0.05):
        with pytest.raises(TimeoutError) as raised:
            fh.get(ref, timeout=seconds)
        assert isinstance(raised.value, fh.errors.GetTimeoutError)
    (tmp_path / "go").touch()
    assert fh.get(ref, timeout=20) == 1
    assert fh.get(ref, timeout=0) == 1


def test_what_get_and_put_and_wait_refuse() -> None:
    """Goal: wrong kinds of arguments are errors that say so."""
    ref = fh.put(1)
    for wrong in ({"a": ref}, 5, [ref, 5], "ref", None):
        with pytest.raises(TypeError, match=r"get\(\)"):
            fh.get(wrong)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="put"):
        fh.put(ref)
    with pytest.raises(TypeError, match="wait"):
        fh.wait(ref)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="duplicates"):
        fh.wait([ref, ref])
    with pytest.raises(ValueError, match="timeout"):
        fh.wait([ref], timeout=-1)
    with pytest.raises(ValueError, match="num_returns"):
        fh.wait([ref], num_returns=2)
    with pytest.raises(ValueError, match="num_returns"):
        fh.wait([ref], num_returns=0)


def test_wait_keeps_order_and_gives_no_more_than_asked_for(tmp_path: Path) -> None:
    """Goal: both lists in the order of the input, at most ``num_returns`` ready."""
    refs = [fh.put(i) for i in range(4)]
    slow = when.remote(str(tmp_path / "go"))
    ready, rest = fh.wait([refs[2], slow, refs[0], refs[1]], num_returns=2)
    assert (ready, rest) == ([refs[2], refs[0]], [slow, refs[1]])
    assert fh.wait([slow], timeout=0.05) == ([], [slow])
    (tmp_path / "go").touch()
    assert fh.wait([slow], timeout=20) == ([slow], [])


def test_arrays_are_read_only_views_unless_asked_for() -> None:
    """Goal: zero copies and no writing into shared memory; ``writable=True`` gives one's own."""
    ref = fh.put(np.zeros(100_000))
    array = fh.get(ref)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    mine = fh.get(ref, writable=True)
    mine[0] = 1
    assert (mine[0], fh.get(ref)[0]) == (1.0, 0.0)


def test_a_task_in_get_lends_its_cpu() -> None:
    """Goal: recursion deeper than there are CPUs ends."""

    @fh.remote
    def down(n: int) -> int:
        return 0 if n == 0 else 1 + fh.get(down.remote(n - 1))  # type: ignore[no-any-return]

    assert fh.get(down.remote(6), timeout=60) == 6


# -- streams --------------------------------------------------------------------------------------


def test_a_stream() -> None:
    """Goal: eager, in order, ready for ``wait`` when its next item is, an error in its place and
    then the end, not to be passed on; completed() tells the number."""

    @fh.remote
    def two_and_fail() -> Iterator[int]:
        yield 1
        yield 2
        raise LookupError("third")

    stream = two_and_fail.remote()
    assert fh.wait([stream], timeout=20) == ([stream], [])
    with pytest.raises(TypeError, match="one consumer"):
        echo.remote(stream)
    assert [fh.get(next(stream)), fh.get(next(stream))] == [1, 2]
    with pytest.raises(LookupError, match="third"):
        fh.get(next(stream))
    with pytest.raises(StopIteration):
        next(stream)
    assert stream.is_finished()


# -- cancel ---------------------------------------------------------------------------------------


def test_cancel(tmp_path: Path) -> None:
    """Goal: running tasks are interrupted, those behind them never run, children too; what is done
    stays done; nothing is retried; always TaskCancelledError, where Ray has two kinds of error."""

    @fh.remote(max_retries=5)
    def parent(folder: str) -> None:
        (Path(folder) / "began").touch()
        fh.get(when.remote(folder + "/never"))

    running = parent.remote(str(tmp_path))
    behind = echo.remote(running)
    assert until((tmp_path / "began").exists)
    fh.cancel(running)
    for ref in (running, behind):
        with pytest.raises(fh.errors.TaskCancelledError):
            fh.get(ref, timeout=20)
    forced = when.remote(str(tmp_path / "never"))
    fh.cancel(forced, force=True)
    with pytest.raises(fh.errors.TaskCancelledError):
        fh.get(forced, timeout=20)
    done = echo.remote(1)
    assert fh.get(done) == 1
    fh.cancel(done)
    assert fh.get(done) == 1
    with pytest.raises(TypeError, match="cancel"):
        fh.cancel([done])  # type: ignore[arg-type]
