"""Wrong calls: a type checker must reject each marked line, with the error named in its mark.

A mark is a comment ``expect: CODE``; the test compares the marked lines with mypy's report, so an
error that is missed and an error too many both fail.
"""

from __future__ import annotations

from collections.abc import Iterator

import freehold as fh
from freehold import ObjectRef


@fh.remote
def twice(x: int) -> int:
    return 2 * x


@fh.remote
def join(a: str, b: str) -> str:
    return a + b


@fh.remote
def keyed(*, key: int) -> int:
    return key


class Counter(fh.Actor):
    def __init__(self, start: int) -> None:
        self.count = start

    @fh.method
    def add(self, by: int) -> int:
        return self.count + by

    @fh.method(num_returns=2)
    def pair(self, by: int) -> tuple[int, int]:
        return self.count, by

    @fh.method
    def upto(self, end: int) -> Iterator[int]:
        yield from range(self.count, end)

    @fh.method
    async def later(self, by: int) -> int:
        return self.count + by


@fh.remote
def countdown(n: int) -> Iterator[int]:
    yield from range(n, 0, -1)


@fh.remote
async def half(n: int) -> float:
    return n / 2


number = fh.put(1)

join.remote("a", "b", "c")  # expect: call-overload
join.remote("a")  # expect: call-overload
join.remote("a", 2)  # expect: call-overload
join.remote(number, "b")  # expect: arg-type
join.remote(a="a", c="c")  # expect: call-overload
twice.remote("one")  # expect: call-overload
twice.remote(fh.put("one"))  # expect: arg-type
twice.remote([1])  # expect: call-overload
keyed.remote(1)  # expect: call-arg
keyed.remote(key="1")  # expect: arg-type
twice.options(num_cpus=2).remote("one")  # expect: call-overload
Counter.remote("one")  # expect: arg-type
Counter.remote(1).add.remote("one")  # expect: call-overload
Counter.remote(1).add.remote(fh.put("one"))  # expect: arg-type
wrong_count: ObjectRef[str] = Counter.remote(1).add.remote(1)  # expect: assignment
twice.local("one")  # expect: arg-type

wrong_ref: ObjectRef[str] = twice.remote(1)  # expect: assignment
wrong_value: str = fh.get(twice.remote(1))  # expect: assignment
wrong_list: list[str] = fh.get([twice.remote(1)])  # expect: list-item
fh.get(5)  # expect: call-overload
fh.get({"a": number})  # expect: call-overload
fh.wait(number)  # expect: call-overload
fh.cancel("ref")  # expect: arg-type
fh.put(1, 2)  # expect: call-arg
fh.remote(5)  # expect: call-overload

# Actors
counter = Counter.remote(1)
counter.add.remote()  # expect: call-overload
counter.add.remote(1, 2)  # expect: call-overload
counter.add.remote(to=1)  # expect: call-overload
counter.later.remote("one")  # expect: call-overload
counter.pair.remote("one")  # expect: call-overload
counter.subtract.remote(1)
wrong_pair: ObjectRef[int] = counter.pair.remote(1)  # expect: assignment
wrong_later: ObjectRef[str] = counter.later.remote(1)  # expect: assignment
fh.kill(number)  # expect: arg-type
fh.kill("name")  # expect: arg-type
fh.get(counter)  # expect: call-overload
fh.get_actor(5)  # expect: arg-type

# Streams
countdown.remote("three")  # expect: call-overload
counter.upto.remote("nine")  # expect: call-overload
wrong_stream: ObjectRef[int] = countdown.remote(3)  # expect: assignment
wrong_item: ObjectRef[str] = next(countdown.remote(3))  # expect: arg-type
fh.get(countdown.remote(3))  # expect: call-overload
for text in counter.upto.remote(9):
    wrong_text: str = fh.get(text)  # expect: assignment

# Coroutines
half.remote("one")  # expect: call-overload
wrong_half: ObjectRef[int] = half.remote(1)  # expect: assignment


async def awaited() -> None:
    _await: str = await half.remote(1)  # expect: assignment
    await counter.later.remote("one")  # expect: call-overload
    for _ in fh.as_completed([number]):
        pass
    async for item in countdown.remote(3):
        _async: str = await item  # expect: assignment
    await fh.wait_async(number)  # expect: arg-type


# Options
twice.options(2)  # expect: call-overload
twice.options(num_returns=2).remote("one")  # expect: call-overload
wrong_many: ObjectRef[int] = twice.options(num_returns=2).remote(1)  # expect: assignment
countdown.options(backpressure=3).remote("three")  # expect: call-overload
fh.remote(num_cpus=2)(5)  # expect: call-overload
