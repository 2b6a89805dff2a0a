"""Right calls: a type checker must accept each line and know each type.

``assert_type`` fails the check when the inferred type differs, so this file is a table of what
``.remote()``, ``get``, ``put`` and ``wait`` mean to a checker.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
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


# Generators stream, coroutines are run.
@fh.remote
def countdown(n: int) -> Iterator[int]:
    yield from range(n, 0, -1)


@fh.remote(backpressure=10)
async def letters(n: int) -> AsyncIterator[str]:
    for _ in range(n):
        yield "a"


@fh.remote
async def later(n: int) -> float:
    return n / 2


assert_type(countdown.remote(3), fh.ObjectRefGenerator[int])
assert_type(next(countdown.remote(3)), ObjectRef[int])
assert_type(letters.remote(3), fh.ObjectRefGenerator[str])
assert_type(countdown.options(num_returns=3).remote(3), list[ObjectRef[Any]])
assert_type(countdown.options(backpressure=3).remote(3), fh.ObjectRefGenerator[int])
assert_type(later.remote(1), ObjectRef[float])
assert_type(fh.get(list(countdown.remote(3))), list[int])


# Actors: a handle of a class that derives from Actor knows its decorated methods.
@fh.remote
class Counter(fh.Actor):
    def __init__(self, start: int = 0) -> None:
        self.count = start

    @fh.method
    def add(self, by: int = 1) -> int:
        return self.count + by

    @fh.method(concurrency_group="io")
    async def name(self, text: str) -> str:
        return text

    @fh.method
    def upto(self, end: int) -> Iterator[int]:
        yield from range(self.count, end)

    @fh.method(backpressure=5)
    async def slowly(self, end: int) -> AsyncIterator[int]:
        for number in range(self.count, end):
            yield number

    @fh.method(num_returns=2)
    def pair(self, by: int) -> tuple[int, int]:
        return self.count, by


class Plain:
    def ping(self) -> int:
        return 1


Untyped = fh.remote(max_restarts=1)(Plain)

counter = Counter.remote(5)
assert_type(counter, Counter)
assert_type(counter.add.remote(2), ObjectRef[int])
assert_type(counter.add.remote(counter.add.remote()), ObjectRef[int])
assert_type(fh.get(counter.name.remote("a")), str)
assert_type(counter.upto.remote(9), fh.ObjectRefGenerator[int])
assert_type(counter.slowly.remote(counter.add.remote()), fh.ObjectRefGenerator[int])
assert_type(counter.pair.remote(1), list[ObjectRef[Any]])
assert_type(Counter.options(name="c", lifetime="detached").remote(5), Counter)
assert_type(Counter.options(num_cpus=1).remote(5), Counter)
assert_type(Untyped.remote(), fh.ActorHandle[Plain])
assert_type(Untyped.options(num_cpus=1).remote().ping.remote(), Any)
fh.kill(counter)

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
    assert_type(await later.remote(1), float)
    async for number in countdown.remote(3):
        assert_type(await number, int)
    async for one in fh.as_completed([twice.remote(1)]):
        assert_type(one, ObjectRef[int])
    assert_type((await fh.wait_async([twice.remote(1)]))[0], list[ObjectRef[int]])


with fh.init(num_cpus=2) as session:
    assert_type(fh.nodes(), list[dict[str, Any]])
    assert_type(fh.get_runtime_context().get_task_id(), str | None)
