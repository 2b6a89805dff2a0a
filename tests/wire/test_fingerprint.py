"""Fingerprints: the same function is known again in another process, another one is not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from freehold.wire.fingerprint import fingerprint

#: A module with functions of every kind that a fingerprint looks into, and what it prints.
PROGRAM = """
from functools import partial
from freehold.wire.fingerprint import fingerprint

def plain(x):
    "What it says is part of it."
    return x in {"one", "two", "three", "four"} or x + 1.5

def nested(x, y=(1, "two", None), *, z=frozenset({"a", "b", "c"})):
    def inner(v):
        return [w for w in v if w not in {"p", "q", "r"}]
    return inner(x), lambda: y

def make(captured):
    return lambda x: (x, captured)

class Box:
    def method(self):
        return {b"bytes", "text"}

loop = [plain, nested, make(3), make({"k", "l", "m"}), make([1, {"n", "o"}]), Box.method, Box, len]
for function in loop:
    print(fingerprint(function).hex())
"""


def printed(seed: str, folder: Path, before: str = "") -> list[str]:
    """What a fresh interpreter with this seed of string hashes prints."""
    (folder / "program.py").write_text(PROGRAM)
    environment = os.environ | {"PYTHONHASHSEED": seed}
    done = subprocess.run(
        [sys.executable, "-c", f"{before}\nimport program"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.split()


def test_stable_over_processes(tmp_path: Path) -> None:
    """Goal: eight bytes that every process gives the same function, although strings hash otherwise
    and other modules were loaded before.

    Method: three fresh interpreters; sets of strings among constants, defaults and captures."""
    first = printed("1", tmp_path)
    assert len(first) == len(set(first)) == 8
    assert printed("2", tmp_path) == first
    assert printed("random", tmp_path, before="import json, decimal; plain = 'plain'") == first


def test_running_changes_nothing() -> None:
    """Goal: the interpreter's own changes to a function that is used often do not show."""

    def function(n: int) -> int:
        total = 0
        for number in range(n):
            total += number * 2
        return total

    before = fingerprint(function)
    for _ in range(1_000):
        function(10)
    assert fingerprint(function) == before


def variants() -> list[Callable[..., Any]]:
    """Functions of one name that differ in one thing each."""

    def made(text: str, captured: object = 1) -> Any:
        space: dict[str, Any] = {"captured": captured}
        exec(f"def outer(captured):\n{text}\n    return f\nf = outer(captured)", space)
        return space["f"]

    return [
        made("    def f(x): return x + 1"),
        made("    def f(x): return x + 2"),
        made("    def f(x): return x - 1"),
        made("    def f(x): return g(x)"),
        made("    def f(x): return h(x)"),
        made("    def f(y): return y + 1"),
        made("    def f(x, y=1): return x + 1"),
        made("    def f(x, y=2): return x + 1"),
        made("    def f(x, y=True): return x + 1"),
        made("    def f(x, y=1.0): return x + 1"),
        made("    def f(x): return x + captured", 1),
        made("    def f(x): return x + captured", 2),
        made("    def f(x): return x + captured", "1"),
        made("    def f(x): return x + captured", [1]),
        made("    def f(x): return lambda: x + 1"),
        made("    def f(x): return lambda: x + 2"),
    ]


def test_different_code_is_told_apart() -> None:
    """Goal: code, names, constants, defaults and plain captured values all count."""
    prints = [fingerprint(function) for function in variants()]
    assert len(set(prints)) == len(prints)
    assert [fingerprint(function) for function in variants()] == prints


def test_what_is_not_plain_counts_by_its_type() -> None:
    """Goal: a captured array is not looked into: the fingerprint is cheap, and the calls of such
    functions are told apart by their arguments and order."""

    def capturing(value: object) -> Callable[[], object]:
        return lambda: value

    one, other = capturing(np.zeros(3)), capturing(np.ones(3))
    assert fingerprint(one) == fingerprint(other)
    assert fingerprint(one) != fingerprint(capturing(3))


@pytest.mark.parametrize("function", [len, int, np.add, object().__str__, "text".join])
def test_callables_without_code(function: Callable[..., Any]) -> None:
    """Goal: they have a fingerprint too, of their name."""
    assert len(fingerprint(function)) == 8


def test_a_cell_that_is_not_filled_yet() -> None:
    """Goal: a function that refers to a variable that is assigned later can be asked all the same,
    and differs from what it is when the variable is there."""

    def inner() -> object:
        return later

    empty = fingerprint(inner)
    later = 3
    assert fingerprint(inner) != empty


def test_surrogates_in_names() -> None:
    """Goal: a name that cannot be encoded is no error."""

    def function() -> None:
        pass

    function.__qualname__ = "f\udc80"
    assert len(fingerprint(function)) == 8
