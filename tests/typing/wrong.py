"""Wrong calls: a type checker must reject each marked line, with the error named in its mark.

A mark is a comment ``expect: CODE``; the test compares the marked lines with mypy's report, so an
error that is missed and an error too many both fail.
"""

from __future__ import annotations

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
