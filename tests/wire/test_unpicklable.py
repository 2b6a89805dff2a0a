"""Errors that name what cannot be pickled: src/freehold/wire/unpicklable.py, and serial.py."""

from __future__ import annotations

import functools
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from freehold.errors import SerializationError
from freehold.wire import serial
from freehold.wire.serial import inspect_unpicklable, serialize


class Model:
    def __init__(self, lock: Any) -> None:
        self.weights = np.zeros(3)
        self.lock = lock


class Config:
    def __init__(self, lock: Any) -> None:
        self.name = "c"
        self.model = Model(lock)


class Tree:
    def __init__(self, parent: Tree | None = None) -> None:
        self.parent = parent
        self.children = [Tree(self)] if parent is None else []
        self.handle: Any = None


class SlotsAndLock:
    __slots__ = ("lock",)

    def __init__(self) -> None:
        self.lock = threading.Lock()


def closure_over(value: Any) -> Callable[[], Any]:
    return lambda: value


def uses_a_global() -> Any:
    """A function of a program, which uses a global in a function inside it."""
    program = {"__name__": "__main__", "GUARD": Model(threading.Lock())}
    exec("def f():\n    return lambda: GUARD.lock", program)
    return program["f"]


def tree_with_lock() -> Tree:
    tree = Tree()
    tree.handle = threading.Lock()
    return tree


def ring() -> list[Any]:
    one: list[Any] = [1]
    one.append(one)
    one.append({"deep": threading.Lock()})
    return one


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: threading.Lock(), "x is a _thread.lock"),
        (lambda: Config(threading.Lock()), "x.model.lock is a _thread.lock"),
        (lambda: [1, {"k": (threading.Lock(),)}], "x[1]['k'][0] is a _thread.lock"),
        (lambda: closure_over(threading.Lock()), "x (its closure variable 'value') is a _thr"),
        (lambda: Config(threading.Lock()).model.__init__, "x.__self__.lock is a _thread.lock"),
        (tree_with_lock, "x.handle is a _thread.lock"),
        (lambda: ring(), "x[2]['deep'] is a _thread.lock"),
        (SlotsAndLock, "x.lock is a _thread.lock"),
        (lambda: (n for n in [1]), "x is a generator"),
        (lambda: functools.partial(print, threading.Lock()), "x.args[0] is a _thread.lock"),
        (lambda: functools.partial(print, end=threading.Lock()), "x.keywords['end'] is a _thread"),
        (lambda: deque([1, [threading.Lock()]]), "x[1][0] is a _thread.lock"),
        (lambda: defaultdict(list, a=[threading.Lock()]), "x['a'][0] is a _thread.lock"),
        (lambda: uses_a_global(), "x (its global 'GUARD').lock is a _thread.lock"),
    ],
)
def test_the_culprit_is_named(make: Callable[[], Any], path: str) -> None:
    """Goal: the error names the part. Method: inspect alone, then the error of serialize."""
    value = make()
    assert inspect_unpicklable(value, "x").startswith(path)
    with pytest.raises(SerializationError) as caught:
        serialize(value, "x")
    assert str(caught.value).startswith(path)
    assert caught.value.path == path.rpartition(" is a ")[0]
    assert caught.value.__cause__ is not None


def test_inspection_is_quiet_about_good_values() -> None:
    """Goal: "" for what can travel."""
    assert inspect_unpicklable([1, np.arange(3), lambda: 1]) == ""


def test_inspection_is_bounded() -> None:
    """Goal: a huge value ends the search in time with a part of the path."""
    wide = [[threading.Lock()] for _ in range(3)]
    deep: Any = threading.Lock()
    for _ in range(60):
        deep = [deep]
    assert inspect_unpicklable(wide, "x") == "x[0][0] is a _thread.lock"
    assert inspect_unpicklable(deep, "x").startswith("x[0][0][0]")


def test_nesting_too_deep_is_said_to_be_so() -> None:
    """Goal: a linked list of 100,000 nodes gets its own advice."""
    chain: Any = None
    for _ in range(100_000):
        chain = [chain]
    with pytest.raises(SerializationError, match="nested too deeply"):
        serialize(chain)
    while chain is not None:  # take it apart without recursion
        chain = chain[0]


def test_functions_that_cannot_be_pickled() -> None:
    """Goal: the same naming for functions."""
    with pytest.raises(SerializationError) as caught:
        serial.pickle_function(closure_over(threading.Lock()), "task f")
    assert str(caught.value).startswith("task f (its closure variable 'value') is a _thread.lock")
