"""Remote functions: what can be one, how it is called, and what is refused at once."""

from __future__ import annotations

import enum
import functools
import math
import operator
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import freehold as fh

from .conftest import run_script

pytestmark = pytest.mark.usefixtures("two_cpus")


@fh.remote
def add(a: int, b: int = 10, *, c: int = 100) -> int:
    return a + b + c


@fh.remote
def collect(*args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
    return args, kwargs


@fh.remote
def factorial(n: int) -> int:
    return 1 if n == 0 else n * fh.get(factorial.remote(n - 1))


# -- what a call looks like -----------------------------------------------------------------------


def test_plain_and_with_options() -> None:
    """Goal: both spellings of the decorator make remote functions. Method: call one of each."""

    @fh.remote(num_cpus=1, max_retries=0)
    def twice(x: int) -> int:
        return 2 * x

    assert fh.get(add.remote(1)) == 111
    assert fh.get(twice.remote(21)) == 42
    assert fh.get(fh.remote(math.sqrt).remote(49.0)) == 7.0


def test_defaults_keywords_and_varargs() -> None:
    """Goal: arguments arrive as in a plain call. Method: all kinds of parameter."""
    assert fh.get(add.remote(1, b=2, c=3)) == 6
    assert fh.get(add.remote(a=1)) == 111
    assert fh.get(collect.remote(1, "two", k=3)) == ((1, "two"), {"k": 3})
    assert fh.get(collect.remote()) == ((), {})
    assert fh.get(collect.remote(*range(1000))) == (tuple(range(1000)), {})


def test_local_runs_here() -> None:
    """Goal: ``.local`` is the undecorated function. Method: it sees and changes this process."""
    seen = []

    @fh.remote
    def note(x: int) -> int:
        seen.append(x)
        return x

    assert note.local(5) == 5
    assert seen == [5]


def test_a_direct_call_is_refused_with_advice() -> None:
    """Goal: nobody runs a task by accident. Method: the error names both ways to call."""
    with pytest.raises(TypeError, match=r"add\.remote\(\.\.\.\).*add\.local\(\.\.\.\)"):
        add(1)


def test_options_chain_and_leave_the_original_alone() -> None:
    """Goal: ``options`` makes another function. Method: chain two, compare with the first."""
    pair = collect.options(num_returns=2).options(name="pair")
    refs = pair.remote(1, x=2)
    assert isinstance(refs, list)
    assert fh.get(refs) == [(1,), {"x": 2}]
    assert isinstance(collect.remote(), fh.ObjectRef)


def test_name_option_is_seen_in_the_task() -> None:
    """Goal: ``name`` names the task. Method: the task's own context."""

    @fh.remote
    def who() -> str | None:
        return fh.get_runtime_context().get_task_name()

    assert fh.get(who.options(name="a task of mine").remote()) == "a task of mine"


def test_a_remote_function_keeps_its_name_and_doc() -> None:
    """Goal: help() and wraps-aware tools work. Method: the attributes themselves."""
    assert add.__name__ == "add"
    assert "add" in repr(add)
    assert add.__wrapped__.__name__ == "add"


# -- what is refused, and when --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"num_cpu": 1}, ValueError, r"'num_cpu'.*num_cpus"),
        ({"nonsense": 1}, ValueError, r"nonsense.*num_cpus"),
        ({"num_cpus": -1}, ValueError, "num_cpus"),
        ({"num_cpus": "two"}, TypeError, "num_cpus.*two"),
        ({"num_cpus": float("nan")}, ValueError, "num_cpus"),
        ({"num_cpus": float("inf")}, ValueError, "num_cpus"),
        ({"num_cpus": 0.00001}, ValueError, "num_cpus"),
        ({"num_cpus": True}, TypeError, "num_cpus"),
        ({"num_gpus": 1.5}, ValueError, "num_gpus|GPU"),
        ({"memory": -5}, ValueError, "memory"),
        ({"num_returns": -1}, ValueError, "num_returns"),
        ({"num_returns": 1.5}, TypeError, "num_returns"),
        ({"num_returns": True}, TypeError, "num_returns"),
        ({"max_retries": -2}, ValueError, "max_retries"),
        ({"max_retries": "3"}, TypeError, "max_retries"),
        ({"retry_exceptions": ValueError}, TypeError, "retry_exceptions"),
        ({"retry_exceptions": ["ValueError"]}, TypeError, "retry_exceptions"),
        ({"resources": ["a"]}, TypeError, "resources"),
        ({"resources": {"CPU": 1}}, ValueError, "num_cpus"),
        ({"resources": {"GPU": 1}}, ValueError, "num_gpus"),
        ({"resources": {"": 1}}, TypeError, "resource"),
        ({"resources": {"a": -1}}, ValueError, "a must"),
        ({"resources": {"a": "1"}}, TypeError, "a must"),
        ({"name": 5}, TypeError, "name"),
        ({"name": "\ud800"}, ValueError, "name.*Unicode"),
        ({"resources": {"\ud800": 1}}, ValueError, "name.*Unicode"),
        ({"memory": 1e300}, ValueError, "memory"),
        ({"max_retries": 1 << 70}, ValueError, "max_retries"),
        ({"num_returns": 1 << 31}, ValueError, "num_returns"),
    ],
)
def test_bad_options_are_refused_where_they_are_written(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    """Goal: a wrong option fails eagerly and is named. Method: decorator and options() alike."""
    with pytest.raises(error, match=words):
        fh.remote(**options)
    with pytest.raises(error, match=words):
        add.options(**options)


class Few(enum.IntEnum):
    TWO = 2


class Word(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "options",
    [
        {"name": Word("n")},
        {"name": np.str_("n")},
        {"num_returns": Few.TWO},
        {"max_retries": Few.TWO},
        {"num_cpus": np.float64(0.5)},
        {"num_cpus": np.int64(1)},
        {"num_cpus": np.float32(0.5)},
        {"resources": {np.str_("slot"): 0}},
    ],
    ids=repr,
)
def test_kinds_of_int_and_str_are_as_good_as_plain(options: dict[str, Any]) -> None:
    """Goal: values that come out of numpy or an enum work as options. Method: a task with each;
    one that a message could not carry would end a connection, so a plain task follows."""
    ref = collect.options(**options).remote(1, b=2)
    assert fh.get(ref, timeout=20) in (((1,), {"b": 2}), [(1,), {"b": 2}])
    assert fh.get(add.remote(1), timeout=20) == 111


def test_what_cannot_be_a_remote_function() -> None:
    """Goal: a clear word for non-functions. Method: a value, a remote function, an actor class."""
    with pytest.raises(TypeError, match="takes a function"):
        fh.remote(5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="already"):
        fh.remote(add)
    with pytest.raises(TypeError, match="is an actor class already"):
        fh.remote(fh.remote(type("Thing", (), {})))


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((), {}, "missing a required argument: 'a'"),
        ((1, 2, 3), {}, "too many positional"),
        ((1,), {"d": 4}, "unexpected keyword argument 'd'"),
        ((1,), {"a": 1}, "multiple values for argument 'a'"),
    ],
)
def test_wrong_arguments_are_refused_by_remote(
    args: tuple[Any, ...], kwargs: dict[str, Any], words: str
) -> None:
    """Goal: a wrong call fails here, not on a worker, and names the function. Method: four."""
    with pytest.raises(TypeError, match=r"add.*" + words):
        add.remote(*args, **kwargs)


def test_a_missing_keyword_only_argument_is_refused() -> None:
    """Goal: required keyword-only parameters are checked too. Method: leave one out."""

    @fh.remote
    def needs(*, key: int) -> int:
        return key

    with pytest.raises(TypeError, match=r"needs.*'key'"):
        needs.remote()
    assert fh.get(needs.remote(key=1)) == 1


def test_unpicklable_argument_is_named() -> None:
    """Goal: the error says which part cannot travel. Method: a lock inside an argument."""
    import threading

    with pytest.raises(fh.errors.SerializationError) as caught:
        collect.remote(1, {"config": {"lock": threading.Lock()}})
    assert isinstance(caught.value, TypeError)
    assert caught.value.path == "args[1]['config']['lock']"
    with pytest.raises(fh.errors.SerializationError) as caught:
        collect.remote(1, b=[threading.Lock()])
    assert caught.value.path == "argument 'b'[0]"


def test_unpicklable_capture_is_named() -> None:
    """Goal: the same for what a function closes over. Method: a captured lock."""
    import threading

    lock = threading.Lock()

    @fh.remote
    def locked() -> bool:
        return lock.locked()

    with pytest.raises(fh.errors.SerializationError, match="lock"):
        locked.remote()


# -- what can be a remote function ----------------------------------------------------------------


def test_coroutine_functions_are_tasks() -> None:
    """Goal: no coroutine object ever arrives as a result. Method: what it returns does."""

    async def soon() -> int:
        return 3

    assert fh.get(fh.remote(soon).remote()) == 3


def test_lambdas_partials_builtins_and_callables() -> None:
    """Goal: whatever can be called and pickled can be a task. Method: one of each."""

    class Adder:
        def __init__(self, amount: int) -> None:
            self.amount = amount

        def __call__(self, x: int) -> int:
            return x + self.amount

    assert fh.get(fh.remote(lambda x: x * 2).remote(4)) == 8
    assert fh.get(fh.remote(functools.partial(operator.add, 5)).remote(6)) == 11
    assert fh.get(fh.remote(len).remote([1, 2, 3])) == 3
    assert fh.get(fh.remote(max).remote(3, 9, 4)) == 9
    assert fh.get(fh.remote(Adder(3)).remote(4)) == 7
    assert fh.get(fh.remote("abc".upper).remote()) == "ABC"


def test_partials_show_a_readable_name() -> None:
    """Goal: messages name a partial by its function. Method: a wrong call."""
    pow2 = fh.remote(functools.partial(pow, 2))
    with pytest.raises(TypeError, match="pow"):
        pow2.remote(1, 2, 3, 4)


def test_closures_carry_their_values_at_first_call() -> None:
    """Goal: a function sees what it closed over. Method: numbers, arrays, another function."""
    table = np.arange(300_000)

    def helper(i: int) -> int:
        return int(table[i])

    @fh.remote
    def lookup(i: int) -> int:
        return helper(i) + 1

    assert fh.get([lookup.remote(i) for i in (0, 7, 299_999)]) == [1, 8, 300_000]


def test_a_function_captures_references() -> None:
    """Goal: a ref in a closure works and keeps its value alive. Method: drop it here first."""
    ref = fh.put(np.ones(100_000))

    @fh.remote
    def total() -> float:
        return float(fh.get(ref).sum())

    assert fh.get(total.remote()) == 100_000
    assert fh.get([total.remote() for _ in range(20)]) == [100_000.0] * 20
    assert fh.get(ref).shape == (100_000,)


def test_a_function_that_calls_itself() -> None:
    """Goal: recursion through ``.remote`` works. Method: factorial, which finds itself by name."""
    assert fh.get(factorial.remote(10)) == math.factorial(10)


def test_two_functions_that_call_each_other() -> None:
    """Goal: mutual recursion in local scope. Method: even and odd as closures of each other."""

    @fh.remote
    def even(n: int) -> bool:
        return n == 0 or fh.get(odd.remote(n - 1))

    @fh.remote
    def odd(n: int) -> bool:
        return n != 0 and fh.get(even.remote(n - 1))

    assert fh.get(even.remote(6)) is True


def test_a_remote_function_travels_as_an_argument() -> None:
    """Goal: remote functions are values. Method: pass one, call it in the task."""

    @fh.remote
    def apply(f: Any, x: int) -> int:
        return fh.get(f.remote(x))  # type: ignore[no-any-return]

    assert fh.get(apply.remote(add, 1)) == 111


def test_a_function_redefined_runs_its_new_body() -> None:
    """Goal: a notebook cell run again takes effect. Method: same name, other body."""
    results = []
    for k in range(3):

        @fh.remote
        def cell() -> int:
            return k * 10  # noqa: B023  # captured at the first call, as wanted

        results.append(fh.get(cell.remote()))
    assert results == [0, 10, 20]


def test_tasks_run_in_other_processes_and_keep_module_state_apart() -> None:
    """Goal: a task cannot change the driver. Method: compare process ids."""
    import os

    pids = set(fh.get([fh.remote(os.getpid).remote() for _ in range(20)]))
    assert os.getpid() not in pids


def test_functions_in_main_and_in_a_module_beside_it(tmp_path: Path) -> None:
    """Goal: the usual script works with no setting. Method: a program in a folder of its own, with
    a module beside it, a class of __main__ as argument and result, relative files."""
    (tmp_path / "beside.py").write_text("FACTOR = 3\n\ndef times(x):\n    return FACTOR * x\n")
    (tmp_path / "data.txt").write_text("14")
    done = run_script(
        tmp_path,
        """
        import freehold as fh
        import beside
        from pathlib import Path

        class Point:
            def __init__(self, x):
                self.x = x

        @fh.remote
        def grow(point):
            return Point(beside.times(point.x))

        @fh.remote
        def read():
            return int(Path("data.txt").read_text())

        if __name__ == "__main__":
            fh.init(num_cpus=1)
            point = fh.get(grow.remote(Point(14)))
            assert type(point) is Point
            print(point.x, fh.get(fh.remote(beside.times).remote(2)), fh.get(read.remote()))
        """,
    )
    assert done.stdout.splitlines()[-1:] == ["42 6 14"], done.stderr
    assert done.returncode == 0
    assert "Error" not in done.stderr


def test_submission_does_not_wait() -> None:
    """Goal: ``remote`` returns at once. Method: 50 sleeping tasks are submitted within their own
    time."""
    sleep = fh.remote(time.sleep)
    start = time.monotonic()
    refs = [sleep.remote(0.05) for _ in range(50)]
    assert time.monotonic() - start < 0.5
    fh.get(refs)
