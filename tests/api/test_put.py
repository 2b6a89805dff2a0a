"""put: every kind of value comes back equal; what cannot travel is named."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import gc
import pathlib
import re
import threading
import uuid
from typing import Any

import numpy as np
import pytest

import freehold as fh

pytestmark = pytest.mark.usefixtures("two_cpus")


@dataclasses.dataclass
class Point:
    x: int
    y: Any = None


class Colour(enum.Enum):
    RED = 1


class Slotted:
    __slots__ = ("a",)

    def __init__(self, a: int) -> None:
        self.a = a

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slotted) and self.a == other.a

    __hash__ = None  # type: ignore[assignment]


Pair = collections.namedtuple("Pair", "left right")

ZOO: dict[str, Any] = {
    "none": None,
    "ellipsis": ...,
    "bool": True,
    "big int": 10**1000,
    "float": -0.0,
    "complex": 1 + 2j,
    "text": "äπ🦊\0 end",
    "lone surrogate": "\ud800",
    "empty bytes": b"",
    "bytes": bytes(range(256)),
    "inline limit": b"x" * (100 * 1024),
    "10 MB": b"ab" * 5_000_000,
    "bytearray": bytearray(b"abc" * 100_000),
    "big text": "é" * 300_000,
    "nested": {"a": [1, (2, {3: {4}}), frozenset({5})], None: b"6"},
    "range": range(0, 100, 3),
    "slice": slice(1, None, 2),
    "date": dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC),
    "decimal": decimal.Decimal("1.10"),
    "fraction": fractions.Fraction(1, 3),
    "uuid": uuid.UUID(int=5),
    "path": pathlib.Path("a/b"),
    "pattern": re.compile(r"\d+", re.IGNORECASE),
    "ordered": collections.OrderedDict(b=1, a=2),
    "counter": collections.Counter("abracadabra"),
    "defaultdict": collections.defaultdict(list, {"k": [1]}),
    "deque": collections.deque([1, 2], maxlen=3),
    "namedtuple": Pair(1, [2]),
    "dataclass": Point(1, Point(2)),
    "enum": Colour.RED,
    "slots": Slotted(3),
    "class": Point,
    "exception type": ValueError,
    "builtin": len,
    "long list": list(range(200_000)),
}


@pytest.mark.parametrize("name", ZOO)
def test_values_come_back_equal(name: str) -> None:
    """Goal: put and get are the identity, and so is a task. Method: each kind, both ways."""
    value = ZOO[name]
    ref = fh.put(value)
    echo = fh.remote(_echo)
    for got in (fh.get(ref), fh.get(echo.remote(ref)), fh.get(echo.remote(value))):
        assert got == value
        assert type(got) is type(value)


def _echo(x: Any) -> Any:
    return x


ARRAYS: dict[str, Any] = {
    **{
        f"{kind} {n}": np.arange(n).astype(kind)
        for kind in ("?", "i1", "u2", "i4", "i8", "f2", "f4", "f8", "c8", "c16", ">i4", "U5", "S3")
        for n in (0, 3, 60_000)
    },
    "datetime64": np.arange(0, 30_000).astype("M8[s]"),
    "zero dimensions": np.array(5.0),
    "scalar": np.float32(1.5),
    "fortran": np.asfortranarray(np.arange(60_000.0).reshape(200, 300)),
    "transposed": np.arange(60_000.0).reshape(200, 300).T,
    "every other": np.arange(120_000)[::2],
    "backwards": np.arange(60_000)[::-1],
    "broadcast": np.broadcast_to(np.arange(300.0), (200, 300)),
    "records": np.zeros(20_000, dtype=[("key", "S10"), ("value", "<u8")]),
    "objects": np.array(["a", None, 3], dtype=object),
    "masked": np.ma.masked_array(np.arange(50_000), mask=np.arange(50_000) % 2 == 0),
    "empty shape": np.zeros((0, 5)),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_back_equal(name: str) -> None:
    """Goal: dtype, shape and content of every kind of array survive. Method: put, and a task."""
    array = ARRAYS[name]
    ref = fh.put(array)
    for got in (fh.get(ref), fh.get(fh.remote(_echo).remote(ref))):
        assert got.dtype == array.dtype
        assert got.shape == array.shape
        assert np.array_equal(np.ma.filled(got, 0), np.ma.filled(array, 0))


def test_a_dict_of_arrays_shares_the_store() -> None:
    """Goal: arrays inside containers are views too. Method: their flags."""
    value = {f"w{i}": np.full((100, 100, 10), i, dtype="f4") for i in range(5)}
    got = fh.get(fh.put(value))
    assert {k: float(v.mean()) for k, v in got.items()} == {f"w{i}": float(i) for i in range(5)}
    assert not any(v.flags.owndata or v.flags.writeable for v in got.values())


def test_arrays_are_aligned_for_vector_registers() -> None:
    """Goal: views begin at multiples of 64 bytes. Method: odd sizes in one value."""
    got = fh.get(fh.put([np.ones(n, dtype="u1") for n in (100_001, 33_333, 70_007)]))
    assert [a.__array_interface__["data"][0] % 64 for a in got] == [0, 0, 0]


def test_the_value_is_a_snapshot() -> None:
    """Goal: a later change here is not seen there. Method: change after put and after remote."""
    array, small = np.zeros(100_000), [1]
    big_ref, small_ref = fh.put(array), fh.put(small)
    task = fh.remote(_echo).remote(array)
    array[:] = 9
    small.append(2)
    assert float(fh.get(big_ref).max()) == 0
    assert fh.get(small_ref) == [1]
    assert float(fh.get(task).max()) == 0


def test_an_object_that_is_met_twice_stays_one_object() -> None:
    """Goal: identity inside one value is kept, cycles too. Method: a list in itself."""
    inner: list[Any] = [1]
    loop: list[Any] = [inner, inner]
    loop.append(loop)
    got = fh.get(fh.put(loop))
    assert got[0] is got[1]
    assert got[2] is got


def test_put_of_a_reference_is_refused() -> None:
    """Goal: no accidental ref of a ref. Method: the error says what to do."""
    with pytest.raises(TypeError, match="names a value already"):
        fh.put(fh.put(1))


def test_unpicklable_parts_are_named_by_their_path() -> None:
    """Goal: the culprit is found for the user. Method: a lock three levels down, a generator."""
    bad = {"model": Point(1, [threading.Lock()])}
    with pytest.raises(fh.errors.SerializationError, match=r"\['model'\]\.y\[0\].*lock") as caught:
        fh.put(bad)
    assert caught.value.path
    with pytest.raises(fh.errors.SerializationError, match="generator"):
        fh.put(i for i in range(3))


def test_an_error_while_pickling_leaves_nothing_behind() -> None:
    """Goal: a failed put holds no memory. Method: many fail, then a value of most of the store."""

    class Bomb:
        def __reduce__(self) -> Any:
            raise RuntimeError("boom")

    for _ in range(50):
        with pytest.raises(fh.errors.SerializationError, match="boom"):
            fh.put([np.ones(100_000), Bomb()])
    gc.collect()
    assert fh.get(fh.put("fine")) == "fine"


def test_a_value_whose_loading_fails_says_so() -> None:
    """Goal: unpickling errors belong to get, with their cause. Method: a __setstate__ that
    raises."""

    class Sour:
        def __init__(self) -> None:
            self.x = 1

        def __setstate__(self, state: Any) -> None:
            raise KeyError("sour state")

    ref = fh.put(Sour())
    with pytest.raises(fh.errors.SerializationError, match="sour state"):
        fh.get(ref)
    with pytest.raises(fh.errors.SerializationError, match="sour state"):
        fh.get(fh.remote(_echo).remote(ref))


def test_put_inside_a_task() -> None:
    """Goal: workers own what they put. Method: the refs come back and are read after the task."""

    @fh.remote
    def make(n: int) -> list[Any]:
        return [fh.put(np.full(50_000, i)) for i in range(n)]

    refs = fh.get(make.remote(5))
    assert [int(array[0]) for array in fh.get(refs)] == [0, 1, 2, 3, 4]
