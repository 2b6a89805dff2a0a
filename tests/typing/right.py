"""Right calls: a type checker must accept each line and know each type.

``assert_type`` fails the check when the inferred type differs, so this file is a table of what
``.remote()``, ``get``, ``put`` and ``wait`` mean to a checker.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, assert_type

import freehold as fh
from freehold import ObjectRef


@fh.remote
def twice(x: int) -> int:
    return 2 * x


@fh.remote(num_cpus=0.5, max_retries=0)
def join(a: str, b: str, sep: str = "-", *, upper: bool = False) -> str:
    return (a + sep + b).upper() if upper else a + sep + b


@fh.remote(num_returns=2)
def halves(text: str) -> Iterator[str]:
    yield text[: len(text) // 2]
    yield text[len(text) // 2 :]


@fh.remote
def total(*values: float) -> float:
    return sum(values)


@fh.remote
def nothing() -> None:
    pass


def plain(x: int) -> list[int]:
    return [x]


# A call gives a reference to what the function returns.
assert_type(twice.remote(1), ObjectRef[int])
assert_type(join.remote("a", "b"), ObjectRef[str])
assert_type(join.remote("a", "b", "+", upper=True), ObjectRef[str])
assert_type(join.remote("a", b="b"), ObjectRef[str])
assert_type(nothing.remote(), ObjectRef[None])
assert_type(fh.remote(plain).remote(1), ObjectRef[list[int]])
assert_type(fh.remote(lambda: 1.5).remote(), ObjectRef[float])

# A reference may stand for a positional argument, and mix with values.
text = fh.put("t")
assert_type(text, ObjectRef[str])
assert_type(twice.remote(twice.remote(1)), ObjectRef[int])
assert_type(join.remote(text, "b"), ObjectRef[str])
assert_type(join.remote("a", text), ObjectRef[str])
assert_type(join.remote(text, text, text), ObjectRef[str])

# Options keep the signature; num_returns makes a list.
assert_type(twice.options(num_cpus=2).remote(1), ObjectRef[int])
assert_type(twice.options(name="t").options(max_retries=1).remote(twice.remote(1)), ObjectRef[int])
assert_type(halves.remote("abcd"), list[ObjectRef[Any]])
assert_type(twice.options(num_returns=0).remote(1), list[ObjectRef[Any]])

# Values come back with their type.
assert_type(fh.get(twice.remote(1)), int)
assert_type(fh.get([twice.remote(1), twice.remote(2)]), list[int])
assert_type(fh.get(fh.put({"k": 1.0}), timeout=3), dict[str, float])
assert_type(twice.local(4), int)
assert_type(twice.remote(1).future(), Future[int])
ready, rest = fh.wait([twice.remote(1), twice.remote(2)], num_returns=1)
assert_type(ready, list[ObjectRef[int]])
assert_type(rest, list[ObjectRef[int]])

# A reference is covariant: one of bool may stand where one of int is wanted.
flag: ObjectRef[int] = fh.put(True)


async def awaited() -> None:
    assert_type(await twice.remote(1), int)


with fh.init(num_cpus=2) as session:
    assert_type(fh.nodes(), list[dict[str, Any]])
    assert_type(fh.get_runtime_context().get_task_id(), str | None)
