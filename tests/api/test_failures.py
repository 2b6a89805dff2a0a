"""What a failed task raises where its value is wanted: the user's exceptions, deaths, retries."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import freehold as fh

pytestmark = pytest.mark.usefixtures("two_cpus")


class NeedsTwo(Exception):
    """Cannot be called with its ``args`` alone, so a naive unpickling of it fails."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


@fh.remote
def raise_it(error: BaseException) -> None:
    raise error


@fh.remote
def raise_needs_two(reason: str) -> None:
    raise NeedsTwo(5, reason=reason)


@fh.remote
def echo(x: Any) -> Any:
    return x


def count_call(path: str) -> int:
    """Note one more call in a file; how many there were before."""
    with Path(path).open("ab") as file:
        before = file.tell()
        file.write(b".")
    return before


def calls(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


# -- the user's own exceptions --------------------------------------------------------------------


def test_both_types_and_the_facts() -> None:
    """Goal: ``except ValueError`` and ``except TaskError`` both work. Method: catch as each; read
    function, pid, cause and remote traceback."""
    with pytest.raises(ValueError, match=r"raise_it.*bad") as caught:
        fh.get(raise_it.remote(ValueError("bad", 7)))
    error = caught.value
    assert isinstance(error, fh.errors.TaskError)
    assert isinstance(error, fh.errors.FreeholdError)
    assert error.function_name == "raise_it"
    assert error.pid != os.getpid()
    assert type(error.cause) is ValueError
    assert error.cause.args == ("bad", 7)
    assert "test_failures.py" in error.traceback_text
    assert "freehold/runtime" not in error.traceback_text


def test_an_exception_whose_init_wants_more() -> None:
    """Goal: ``__init__`` is not called again. Method: a required keyword; attributes arrive."""
    with pytest.raises(NeedsTwo) as caught:
        fh.get(raise_needs_two.remote("why"))
    assert (caught.value.code, caught.value.reason) == (5, "why")


def test_an_exception_that_cannot_be_pickled() -> None:
    """Goal: its type and text arrive all the same. Method: a lock among the attributes."""

    @fh.remote
    def bad() -> None:
        import threading

        error = LookupError("holding a lock")
        error.lock = threading.Lock()  # type: ignore[attr-defined]
        raise error

    with pytest.raises(LookupError, match="holding a lock"):
        fh.get(bad.remote())


def test_a_class_that_only_the_task_knows() -> None:
    """Goal: a local exception class does not hide the error. Method: defined in the task."""

    @fh.remote
    def bad() -> None:
        class Local(KeyError):
            pass

        raise Local("only here")

    with pytest.raises(KeyError, match="only here") as caught:
        fh.get(bad.remote())
    assert "Local" in type(caught.value.cause).__name__


def test_cause_chain_notes_and_groups() -> None:
    """Goal: what Python shows of an error is kept. Method: raise-from, add_note, a group."""

    @fh.remote
    def bad() -> None:
        try:
            {}["missing"]
        except KeyError as first:
            error = RuntimeError("second")
            error.add_note("a note")
            raise error from first

    with pytest.raises(RuntimeError, match="second") as caught:
        fh.get(bad.remote())
    cause = caught.value.cause
    assert isinstance(cause, RuntimeError)
    assert isinstance(cause.__cause__, KeyError)
    assert "a note" in cause.__notes__
    assert "KeyError: 'missing'" in caught.value.traceback_text

    group = ExceptionGroup("several", [ValueError(1), TypeError(2)])
    with pytest.raises(ExceptionGroup) as several:
        fh.get(raise_it.remote(group))
    assert [type(e) for e in several.value.exceptions] == [ValueError, TypeError]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, StopIteration, GeneratorExit])
def test_exceptions_that_would_end_the_caller(kind: type[BaseException]) -> None:
    """Goal: they arrive as a plain TaskError and leave the worker usable. Method: one each."""

    @fh.remote
    def bad() -> None:
        raise kind("from a task")

    with pytest.raises(fh.errors.TaskError, match=kind.__name__) as caught:
        fh.get(bad.remote())
    assert not isinstance(caught.value, kind)
    assert isinstance(caught.value.cause, kind)
    assert fh.get(echo.remote(1)) == 1


def test_sys_exit_in_a_task() -> None:
    """Goal: sys.exit ends the task, not the worker, and is reported. Method: exit code 3."""

    @fh.remote
    def leave() -> None:
        sys.exit(3)

    with pytest.raises(fh.errors.TaskError, match="SystemExit"):
        fh.get(leave.remote())


def test_an_error_comes_through_two_tasks() -> None:
    """Goal: type and origin survive, and the way is told. Method: get inside a task that does not
    catch."""

    @fh.remote
    def middle() -> Any:
        return fh.get(raise_needs_two.remote("deep"))

    @fh.remote
    def outer() -> Any:
        return fh.get(middle.remote())

    with pytest.raises(NeedsTwo, match="deep") as caught:
        fh.get(outer.remote())
    error: Any = caught.value
    assert error.function_name == "raise_needs_two"
    assert [name.rpartition(".")[2] for name in error.passed_on] == ["middle", "outer"]


def test_a_failed_argument_fails_its_task() -> None:
    """Goal: a dependant never runs and raises its argument's error. Method: three in a row; a
    file that would show a run."""
    first = raise_needs_two.remote("dependency")
    with pytest.raises(NeedsTwo, match="dependency") as caught:
        fh.get(echo.remote(echo.remote(first)))
    assert caught.value.function_name == "raise_needs_two"  # type: ignore[attr-defined]


def test_an_error_inside_a_nested_reference_is_the_getters() -> None:
    """Goal: a failed ref in a container only raises when it is got. Method: catch in the task."""

    @fh.remote
    def careful(box: list[Any]) -> str:
        try:
            fh.get(box[0])
        except ValueError as error:
            return f"caught {error.args and 'it'}"
        return "no error"

    assert fh.get(careful.remote([raise_it.remote(ValueError("x"))])) == "caught it"


def test_an_unpicklable_result_names_its_part() -> None:
    """Goal: the user learns which part of the result cannot travel. Method: a nested lock."""

    @fh.remote
    def bad() -> Any:
        import threading

        return {"state": [threading.Lock()]}

    with pytest.raises(fh.errors.SerializationError, match=r"\['state'\]\[0\].*lock"):
        fh.get(bad.remote())


def test_one_bad_result_of_several() -> None:
    """Goal: all returns of a task fail together. Method: the second cannot be pickled."""

    @fh.remote(num_returns=2)
    def half() -> Any:
        yield np.ones(100_000)
        yield (i for i in range(2))

    for ref in half.remote():
        with pytest.raises(fh.errors.SerializationError, match="generator"):
            fh.get(ref)


def test_errors_print_what_the_user_needs(capfd: pytest.CaptureFixture[str]) -> None:
    """Goal: an uncaught error shows the user's line. Method: format it as the interpreter does."""
    import traceback

    try:
        fh.get(raise_it.remote(ValueError("shown")))
    except ValueError as error:
        text = "".join(traceback.format_exception(error))
    assert "raise error" in text
    assert "raise_it() raised ValueError: shown" in text


# -- deaths ---------------------------------------------------------------------------------------


def _die_by_signal() -> None:
    os.write(2, b"last words by signal\n")
    os.kill(os.getpid(), signal.SIGKILL)


def _die_by_exit() -> None:
    os.write(2, b"last words by exit\n")
    os._exit(3)


def _die_by_segfault() -> None:
    os.write(2, b"last words by segfault\n")
    ctypes.string_at(0)


@pytest.mark.parametrize(
    ("death", "signal_number", "exit_code", "words"),
    [
        (_die_by_signal, signal.SIGKILL, None, "SIGKILL"),
        (_die_by_exit, None, 3, "exit code 3"),
        (_die_by_segfault, signal.SIGSEGV, None, "SIGSEGV"),
    ],
)
def test_a_dead_worker_is_described(
    death: Any, signal_number: int | None, exit_code: int | None, words: str
) -> None:
    """Goal: the error says how the process ended and what it said last. Method: three deaths."""
    ref = fh.remote(max_retries=0)(death).remote()
    with pytest.raises(fh.errors.WorkerDiedError, match=words) as caught:
        fh.get(ref)
    error = caught.value
    assert (error.signal, error.exit_code) == (signal_number, exit_code)
    assert death.__name__ in str(error)
    assert any("last words by" in line for line in error.stderr_tail)
    assert error.pid
    assert error.node_id
    assert fh.get(echo.remote("alive")) == "alive"


def test_a_death_costs_the_neighbours_nothing() -> None:
    """Goal: tasks that lay behind the culprit run, with retries spent by the culprit alone.
    Method: 200 quick tasks around one that kills its worker each time."""

    @fh.remote(max_retries=2)
    def work(i: int) -> int:
        if i == 100:
            os._exit(9)
        return i

    refs = [work.remote(i) for i in range(200)]
    for i, ref in enumerate(refs):
        if i == 100:
            with pytest.raises(fh.errors.WorkerDiedError, match="exit code 9"):
                fh.get(ref)
        else:
            assert fh.get(ref) == i


# -- retries --------------------------------------------------------------------------------------


def test_a_death_is_retried_under_the_same_reference(tmp_path: Path) -> None:
    """Goal: the third attempt's value is the ref's. Method: two deaths, counted in a file."""

    @fh.remote(max_retries=3)
    def third_time(path: str) -> tuple[int, str | None]:
        before = count_call(path)
        if before < 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return before, fh.get_runtime_context().get_task_id()

    counter = tmp_path / "calls"
    ref = third_time.remote(str(counter))
    assert fh.get(ref, timeout=60) == (2, ref.task_id())
    assert calls(counter) == 3


@pytest.mark.parametrize("max_retries", [0, 1, 2])
def test_max_retries_bounds_the_attempts(tmp_path: Path, max_retries: int) -> None:
    """Goal: exactly max_retries + 1 attempts. Method: a task that always dies, counted."""

    @fh.remote(max_retries=max_retries)
    def hopeless(path: str) -> None:
        count_call(path)
        os._exit(1)

    counter = tmp_path / "calls"
    with pytest.raises(fh.errors.WorkerDiedError):
        fh.get(hopeless.remote(str(counter)), timeout=60)
    time.sleep(0.1)
    assert calls(counter) == max_retries + 1


def test_max_retries_without_end(tmp_path: Path) -> None:
    """Goal: -1 goes on. Method: more deaths than the default allows."""

    @fh.remote(max_retries=-1)
    def stubborn(path: str) -> int:
        before = count_call(path)
        if before < 6:
            os._exit(1)
        return before

    assert fh.get(stubborn.remote(str(tmp_path / "calls")), timeout=60) == 6


def test_max_retries_zero_never_runs_twice(tmp_path: Path) -> None:
    """Goal: at most once, also for those that shared a worker with the culprit. Method: 60 tasks,
    every tenth kills its worker; each notes its runs."""

    @fh.remote(max_retries=0)
    def once(folder: str, i: int) -> int:
        count_call(f"{folder}/{i}")
        if i % 10 == 5:
            os._exit(1)
        return i

    refs = [once.remote(str(tmp_path), i) for i in range(60)]
    for i, ref in enumerate(refs):
        if i % 10 == 5:
            with pytest.raises(fh.errors.WorkerDiedError):
                fh.get(ref, timeout=60)
        else:
            assert fh.get(ref, timeout=60) == i
    assert {calls(tmp_path / str(i)) for i in range(60)} == {1}


def test_exceptions_are_not_retried_unless_asked_for(tmp_path: Path) -> None:
    """Goal: by default a raise is final. Method: count."""

    @fh.remote
    def bad(path: str) -> None:
        count_call(path)
        raise ValueError("once")

    with pytest.raises(ValueError, match="once"):
        fh.get(bad.remote(str(tmp_path / "calls")))
    assert calls(tmp_path / "calls") == 1


@pytest.mark.parametrize(
    ("wanted", "attempts"),
    [(True, 3), ([OSError], 3), ([ConnectionError, KeyError], 3), ([KeyError], 1), ([], 1)],
)
def test_retry_exceptions(tmp_path: Path, wanted: Any, attempts: int) -> None:
    """Goal: True and lists, subclasses included. Method: a ConnectionResetError each time, counted
    against max_retries=2."""

    @fh.remote(max_retries=2, retry_exceptions=wanted)
    def flaky(path: str) -> None:
        count_call(path)
        raise ConnectionResetError("again")

    with pytest.raises(ConnectionError, match="again"):
        fh.get(flaky.remote(str(tmp_path / "calls")), timeout=60)
    assert calls(tmp_path / "calls") == attempts


def test_a_retry_that_succeeds(tmp_path: Path) -> None:
    """Goal: the caller never sees the failed attempts. Method: the second call returns."""

    @fh.remote(retry_exceptions=[NeedsTwo])
    def second(path: str) -> str:
        if not count_call(path):
            raise NeedsTwo(1, reason="first")
        return "fine"

    assert fh.get(second.remote(str(tmp_path / "calls"))) == "fine"


def test_a_retried_task_finds_its_arguments_again(tmp_path: Path) -> None:
    """Goal: arguments live until the last attempt. Method: large and nested refs, dropped here."""

    @fh.remote
    def use(path: str, array: Any, box: list[Any]) -> float:
        if not count_call(path):
            os._exit(1)
        return float(array.sum() + fh.get(box[0]).sum())

    ref = use.remote(str(tmp_path / "c"), fh.put(np.ones(100_000)), [fh.put(np.ones(100_000))])
    assert fh.get(ref, timeout=60) == 200_000


def test_a_retried_parent_gets_its_children_again(tmp_path: Path) -> None:
    """Goal: a parent that dies after its children ran succeeds on the next attempt. Method: die
    once between two gets."""

    @fh.remote
    def parent(path: str) -> list[Any]:
        values = fh.get([echo.remote(i) for i in range(3)])
        ref = echo.remote(np.ones(50_000))
        fh.wait([ref])
        if not count_call(path):
            os.kill(os.getpid(), signal.SIGKILL)
        return [*values, float(fh.get(ref).sum())]

    assert fh.get(parent.remote(str(tmp_path / "c")), timeout=60) == [0, 1, 2, 50_000.0]
