"""Errors that pass through several tasks, and errors that resist: wire/failures.py."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold import errors
from freehold.errors import FreeholdError, ObjectLostError, ProtocolError, TaskError
from freehold.wire import failures
from freehold.wire.failures import dump_error, load_error


class NeedsArguments(Exception):
    def __init__(self, code: int, *, where: str) -> None:
        super().__init__(f"code {code}")
        self.code = code
        self.where = where


def caught(function: Callable[[], object]) -> BaseException:
    """The exception that ``function`` raises, with its traceback."""
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("it did not raise")


def thrower(error: BaseException) -> Callable[[], object]:
    def user_code() -> None:
        raise error

    return user_code


def shipped(error: BaseException, function_name: str = "f", pid: int = 42) -> bytes:
    """As a worker ships it: raised, caught and dumped."""
    raised = caught(thrower(error))
    return dump_error(raised, function_name=function_name, pid=pid, node_id="n1")


def arrived(error: BaseException, function_name: str = "f") -> Any:
    """As it arrives at whoever asked for the result."""
    return load_error(shipped(error, function_name))


# -- through several tasks ------------------------------------------------------------------------


def passed_through(data: bytes, *names: str) -> Any:
    """What arrives after each named task got the error and let it pass."""
    for name in names:
        data = dump_error(
            caught(thrower(load_error(data))), function_name=name, pid=1, node_id="n2"
        )
    return load_error(data)


def test_passing_through_tasks_keeps_the_type_and_names_the_way() -> None:
    """Goal: no wrapper around a wrapper; the origin stays the origin, the way is told."""
    error = passed_through(shipped(NeedsArguments(5, where="here")), "g", "h")
    assert isinstance(error, NeedsArguments)
    assert type(error.cause) is NeedsArguments
    assert error.where == "here"
    assert (error.function_name, error.pid, error.passed_on) == ("f", 42, ("g", "h"))
    lines = str(error).splitlines()
    assert lines[0].startswith("f() raised ")
    assert lines[0].endswith("NeedsArguments: code 5")
    assert lines[1] == "  passed on by g(), h()"
    assert str(error).count("NeedsArguments: code 5") == 2  # headline and traceback, not per task


def test_a_task_that_never_ran_passes_the_error_on() -> None:
    """Goal: a failed dependency: the error was not raised in g, so it has no frames there."""
    data = dump_error(load_error(shipped(KeyError("k"))), function_name="g", pid=0, node_id="")
    error: Any = load_error(data)
    assert error.passed_on == ("g",)
    assert error.traceback_text.endswith("Passed on by g(), pid 0.")


def test_a_very_long_way_is_bounded() -> None:
    """Goal: 1,000 tasks in a row neither grow the record nor lose its ends."""
    data = shipped(KeyError("k"))
    for index in range(1000):
        error = load_error(data)
        data = dump_error(error, function_name=f"t{index}", pid=0, node_id="")
    assert len(data) < 4000
    last: Any = load_error(data)
    assert last.function_name == "f"
    assert last.passed_on == ("t0", "t1", "t2", "... 993 more ...", "t996", "t997", "t998", "t999")


def test_notes_added_on_the_way_arrive() -> None:
    """Goal: add_note on what arrived survives the next task, once."""
    error = load_error(shipped(KeyError("k")))
    error.add_note("seen in g")
    again = passed_through(dump_error(error, function_name="g", pid=1, node_id=""), "h")
    assert again.__notes__ == ["seen in g"]


def test_a_task_error_as_the_cause_of_another() -> None:
    """Goal: ``raise RuntimeError from e``: the new type on top, the old error whole below it."""
    first = load_error(shipped(NeedsArguments(5, where="here"), "f"))

    def g() -> None:
        try:
            raise first
        except NeedsArguments as error:
            raise RuntimeError("worse") from error

    error: Any = load_error(dump_error(caught(g), function_name="g", pid=1, node_id="n"))
    assert isinstance(error, RuntimeError)
    assert error.function_name == "g"
    below = error.__cause__
    assert isinstance(below, TaskError)
    assert isinstance(below, NeedsArguments)
    assert (below.function_name, below.where) == ("f", "here")


def test_causes_nested_for_ever_are_bounded() -> None:
    """Goal: each of 40 tasks raises from the error before: size and depth stay bounded."""
    data = shipped(KeyError("k"))
    for index in range(40):
        error = RuntimeError(index)
        error.__cause__ = load_error(data)
        data = shipped(error, f"t{index}")
    last = load_error(data)
    assert isinstance(last, RuntimeError)
    assert last.args == (39,)
    assert len(data) < 2_000_000
    depth = 0
    one: BaseException | None = last
    while one is not None:
        assert isinstance(one, TaskError)
        one = one.__cause__
        depth += 1
    assert depth <= 10
    assert "f() raised KeyError: 'k'" in str(last)


def test_what_happened_around_it_on_the_way_is_told() -> None:
    """Goal: the error passes while another is handled: that other one is in the text."""
    first = load_error(shipped(KeyError("k")))

    def g() -> None:
        try:
            _ = 1 / 0
        except ZeroDivisionError:
            raise first  # noqa: B904  # the context is what is tested

    error = load_error(dump_error(caught(g), function_name="g", pid=1, node_id="n"))
    assert "ZeroDivisionError: division by zero" in str(error)


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy])
def test_task_errors_pickle_and_copy(way: Callable[[Any], Any]) -> None:
    """Goal: a task may return or store an error that it caught: same facts, no task added."""
    error = passed_through(shipped(NeedsArguments(5, where="here")), "g")
    made = way(error)
    back = pickle.loads(made) if isinstance(made, bytes) else made
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert back.passed_on == ("g",)
    assert back.where == "here"


def test_task_errors_made_by_hand() -> None:
    """Goal: the constructor alone makes an error that prints, pickles and travels."""
    made = TaskError("f", ValueError("v"), traceback_text="trace", pid=3, node_id="n")
    assert str(made) == "f() raised ValueError: v\n\ntrace"
    back = pickle.loads(pickle.dumps(made))
    assert isinstance(back, ValueError)
    assert (back.function_name, back.pid) == ("f", 3)
    onward: Any = load_error(dump_error(made, function_name="g", pid=4, node_id="n"))
    assert (onward.function_name, onward.passed_on) == ("f", ("g",))


def test_errors_of_freehold_arrive_as_themselves() -> None:
    """Goal: a value lost inside a task is that for the caller too; a note says where it was."""
    error = arrived(ObjectLostError("gone", object_id="ab"))
    assert type(error) is ObjectLostError
    assert error.object_id == "ab"
    assert error.__notes__ == ["[raised in f(), pid 42 on node n1]"]

    class Users(FreeholdError):
        pass

    assert isinstance(arrived(Users("x")), TaskError)


# -- bounds and bad luck --------------------------------------------------------------------------


def test_huge_things_are_bounded() -> None:
    """Goal: no error carries megabytes. Method: message, attribute, chain and depth, all huge."""
    big = ValueError("x" * 10_000_000)
    big.load = list(range(2_000_000))  # type: ignore[attr-defined]
    data = shipped(big)
    assert len(data) < 500_000
    error: Any = load_error(data)
    assert "characters left out" in error.args[0]
    assert error.load == "<list, left out>"

    top = ValueError(0)
    one: BaseException = top
    for index in range(5000):
        one.__context__ = KeyError(index)
        one = one.__context__
    data = shipped(top)
    assert len(data) < 200_000
    assert "rest cut" in load_error(data).__notes__[0]


def test_a_chain_that_bites_its_tail() -> None:
    """Goal: a cycle of causes ends."""
    first, second = ValueError("a"), KeyError("b")
    first.__cause__, second.__cause__ = second, first
    error = arrived(first)
    assert type(error.__cause__) is KeyError
    assert type(error.__cause__.__cause__) is ValueError


def test_endless_recursion_arrives_short() -> None:
    """Goal: the 1,000 frames of a RecursionError become a page."""

    def f() -> None:
        f()

    error = load_error(dump_error(caught(f), function_name="f", pid=1, node_id="n"))
    assert isinstance(error, RecursionError)
    assert "previous line repeated" in str(error).lower()
    assert len(str(error)) < 3000


def test_text_that_is_not_unicode() -> None:
    """Goal: a lone surrogate, as in an undecodable file name, does no harm."""
    error = arrived(OSError(2, "no", "a\udcff"), "na\udcffme")
    assert error.filename == "a\udcff"
    assert "\\udcff" in str(error)


def test_a_hostile_exception_still_arrives() -> None:
    """Goal: dump_error never raises. Method: __reduce__, __dict__ and args all misbehave."""

    class Hostile(Exception):
        @property
        def __dict__(self) -> Any:  # type: ignore[override]
            raise RuntimeError("no dict")

        def __reduce_ex__(self, protocol: Any) -> Any:
            raise RuntimeError("no reduce")

    error = load_error(shipped(Hostile("h")))
    assert isinstance(error, TaskError)
    assert "Hostile" in str(error)


@given(st.binary(max_size=200))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    """Goal: garbage is a ProtocolError, never another error and never an exception to raise."""
    with pytest.raises(ProtocolError):
        load_error(data)


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_cut_record_is_refused(start: int, length: int) -> None:
    """Goal: the same for a proper part of real bytes."""
    data = shipped(ExceptionGroup("g", [ValueError("v")]))
    part = data[start % len(data) :][:length]
    if part != data:
        with pytest.raises(ProtocolError):
            load_error(part)


def test_each_get_makes_a_fresh_exception() -> None:
    """Goal: raising one copy does not lengthen the traceback of the next."""
    data = shipped(ValueError("v"))
    first, second = load_error(data), load_error(data)
    caught(thrower(first))
    assert first is not second
    assert second.__traceback__ is None


def test_caches_are_bounded() -> None:
    """Goal: types made at run time do not pile up in a driver."""
    assert failures.both_types.cache_info().maxsize == 256
    assert failures.stand_in.cache_info().maxsize == 256


def test_a_class_of_main_comes_back_as_itself(tmp_path: Path) -> None:
    """Goal: a script's own exception class is caught by that script.

    Method: three processes as in life: the script ships a function by value to a worker, which
    runs it and ships the error back; the script checks that the class is the very same.
    """
    worker = tmp_path / "worker.py"
    worker.write_text(
        textwrap.dedent("""
        import sys
        from freehold.wire import failures, serial
        function = serial.load_function(sys.stdin.buffer.read())
        try:
            function()
        except BaseException as error:
            data = failures.dump_error(error, function_name="f", pid=1, node_id="n")
            sys.stdout.buffer.write(data)
        """)
    )
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import subprocess, sys
        from freehold.errors import TaskError
        from freehold.wire import failures, serial
        class Mine(Exception):
            def __init__(self, a, b):
                self.a, self.b = a, b
        def f():
            raise Mine(1, b=2)
        data, refs = serial.pickle_function(f)
        run = subprocess.run([sys.executable, sys.argv[1]], input=data, capture_output=True)
        assert run.returncode == 0, run.stderr
        error = failures.load_error(run.stdout)
        assert isinstance(error, Mine) and isinstance(error, TaskError)
        assert type(error.cause) is Mine and (error.a, error.b) == (1, 2)
        assert "raise Mine(1, b=2)" in str(error), str(error)
        """)
    )
    source = str(Path(errors.__file__).parents[2])
    run = subprocess.run(
        [sys.executable, script, worker],
        check=False,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": source},
    )
    assert run.returncode == 0, run.stderr
