"""Generator tasks: what their consumer sees, on real processes."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import freehold as fh
from api.conftest import returns_to, tables, until
from freehold.runtime import current
from freehold.runtime.process import Process
from freehold.runtime.worker import Worker

pytestmark = pytest.mark.usefixtures("two_cpus")


@fh.remote
def numbers(n: int, folder: str = "", pause: float = 0.0, size: int = 0) -> Iterator[Any]:
    """Yields 0, 1, ... and leaves word in a folder of how far it is and of its end."""
    made = Path(folder) / "made"
    try:
        for i in range(n):
            if folder:
                made.write_text(str(i + 1))
            if pause:
                time.sleep(pause)
            yield bytes(size) if size else i
    finally:
        if folder:
            (Path(folder) / "end").touch()


def made(folder: Path) -> int:
    """How many the generator has begun to make."""
    text = (folder / "made").read_text() if (folder / "made").exists() else ""
    return int(text or 0)


def stays(folder: Path) -> int:
    """How many it makes before it makes no more for a third of a second."""
    last = -1
    while (now := made(folder)) != last:
        last = now
        time.sleep(0.3)
    return now


# -- what arrives ---------------------------------------------------------------------------------


def test_each_value_once_in_order() -> None:
    """Goal: the references of a stream are references, in order, and then it ends; nothing stays.
    Method: small and large values, iterated by ``for``; the number at the end; the tables.
    """

    @fh.remote
    def mixed() -> Iterator[Any]:
        yield 1
        yield np.arange(100_000)
        yield fh.put("inner")

    before = tables()
    stream = mixed.remote()
    assert not stream.is_finished()
    values = [fh.get(ref) for ref in stream]
    assert (values[0], int(values[1].sum()), fh.get(values[2])) == (1, 4_999_950_000, "inner")
    assert fh.get(stream.completed()) == 3
    assert stream.is_finished()
    with pytest.raises(StopIteration):
        next(stream)
    del stream, values
    gc.collect()
    assert returns_to(before, "owner objects") == {}


def test_first_value_comes_before_the_last_is_made(tmp_path: Path) -> None:
    """Goal: a value is there as soon as it is made. Method: a generator that sleeps between two
    values; the first is had while the second is not made.
    """
    stream = numbers.remote(2, str(tmp_path), 0.5)
    assert fh.get(next(stream)) == 0
    assert not (tmp_path / "end").exists()
    with pytest.raises(fh.errors.GetTimeoutError, match=r"next value within 0.01 s"):
        stream.next_ready(timeout=0.01)
    assert [fh.get(ref) for ref in stream] == [1]


def test_an_error_arrives_in_its_place() -> None:
    """Goal: values before an error stay good, the error is the last reference, and the whole has
    failed. Method: two values, then an exception; and a value that cannot be pickled.
    """

    @fh.remote
    def fails() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("no three")

    stream = fails.remote()
    refs = list(stream)
    assert [fh.get(ref) for ref in refs[:2]] == [1, 2]
    with pytest.raises(ValueError, match="no three"):
        fh.get(refs[2])
    with pytest.raises(ValueError, match="no three"):
        fh.get(stream.completed())
    assert len(refs) == 3

    @fh.remote
    def unpicklable() -> Iterator[Any]:
        import threading

        yield 1
        yield threading.Lock()

    one, two = unpicklable.remote()
    assert fh.get(one) == 1
    with pytest.raises(fh.errors.SerializationError, match="yielded value"):
        fh.get(two)


def test_iterables_too_but_nothing_else() -> None:
    """Goal: num_returns="streaming" on any function. Method: a list, and a number, which is told
    in words; options that make no sense; n references of a generator as ever.
    """
    streamed = fh.remote(num_returns="streaming")(sorted).remote("ba")
    assert [fh.get(ref) for ref in streamed] == ["a", "b"]
    (ref,) = fh.remote(num_returns="streaming")(len).remote("ab")
    with pytest.raises(TypeError, match=r"returned int.*should yield"):
        fh.get(ref)
    assert fh.get(numbers.options(num_returns=3).remote(3)) == [0, 1, 2]
    with pytest.raises(ValueError, match="'streaming'"):
        numbers.options(num_returns="dynamic")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="backpressure must be >= 1"):
        numbers.options(backpressure=0)


def test_what_a_generator_is_not() -> None:
    """Goal: wrong uses say what to do. Method: get it, put it, pickle it, pass it on."""
    stream = numbers.remote(1)
    with pytest.raises(TypeError, match="iterate over it"):
        fh.get(stream)  # type: ignore[call-overload]
    for use in (pickle.dumps, fh.put, fh.remote(len).remote):
        with pytest.raises(TypeError, match="Pass the references"):
            use(stream)  # type: ignore[operator]


# -- waiting --------------------------------------------------------------------------------------


def test_wait_takes_streams(tmp_path: Path) -> None:
    """Goal: a stream is ready when ``next`` has an answer. Method: one whose value takes a while,
    beside a plain reference; after its end.
    """
    stream, plain = numbers.remote(1, str(tmp_path), 0.5), fh.put(1)
    assert fh.wait([stream, plain]) == ([plain], [stream])
    assert fh.wait([stream, plain], num_returns=2) == ([stream, plain], [])
    assert fh.get(next(stream)) == 0
    assert fh.wait([stream]) == ([stream], [])
    assert list(stream) == []


def test_in_coroutines() -> None:
    """Goal: ``async for``, and the loop goes on meanwhile. Method: two streams at once, of a
    generator and of an asynchronous one, faster together than one after the other would be.
    """

    @fh.remote
    async def later(n: int) -> AsyncIterator[int]:
        for i in range(n):
            await asyncio.sleep(0.05)
            yield i

    async def consume(stream: fh.ObjectRefGenerator[int]) -> list[int]:
        return [await ref async for ref in stream]

    async def program() -> list[list[int]]:
        return list(
            await asyncio.gather(consume(numbers.remote(5, "", 0.05)), consume(later.remote(5)))
        )

    assert asyncio.run(program()) == [[0, 1, 2, 3, 4]] * 2


# -- not too many, and no more --------------------------------------------------------------------


def test_the_producer_waits_for_its_consumer(tmp_path: Path) -> None:
    """Goal: as many values lie untaken as the option says. Method: a window of ten; after one has
    been taken the generator makes the eleventh at most, and goes on when more are taken. What it
    waits for is told.
    """
    stream = numbers.options(backpressure=10).remote(1000, str(tmp_path))
    next(stream)
    assert 9 <= stays(tmp_path) <= 11
    assert "lie untaken" in fh.explain(stream.completed())
    for _ in range(20):
        next(stream)
    assert 29 <= stays(tmp_path) <= 31


def test_large_values_are_bounded_by_their_bytes(tmp_path: Path) -> None:
    """Goal: a stream of large values does not fill the store. Method: 10 MiB each; the generator
    stops at 64 MiB.
    """
    stream = numbers.remote(50, str(tmp_path), 0.0, 10 << 20)
    next(stream)
    assert stays(tmp_path) <= 8
    stream.close()


def test_who_waits_for_the_whole_does_not_hold_it_back() -> None:
    """Goal: no deadlock in ``get(stream.completed())``. Method: more values than the window; with
    the generator kept, and without.
    """
    stream = numbers.remote(3000)
    assert fh.get(stream.completed(), timeout=60) == 3000
    assert sum(1 for _ in stream) == 3000
    assert fh.get(numbers.remote(3000).completed(), timeout=60) == 3000


@pytest.mark.parametrize("how", ["close", "drop", "break"])
def test_an_early_end_stops_the_producer(tmp_path: Path, how: str) -> None:
    """Goal: the generator ends within a second, with its ``finally``, whatever it does just then.
    Method: it sleeps for a minute between two values, or waits for room; nothing stays.
    """
    before = tables()
    pause = 0.0 if how == "drop" else 60.0
    stream: Any = numbers.remote(10_000, str(tmp_path), pause)
    assert until(lambda: made(tmp_path) >= (1000 if how == "drop" else 1))
    began = time.monotonic()
    if how == "close":
        stream.close()
        assert list(stream) == []
    elif how == "break":
        with stream:
            pass
    del stream
    gc.collect()
    assert until((tmp_path / "end").exists)
    assert time.monotonic() - began < 1.0
    assert returns_to(before, "owner") == {}


def test_cancel_ends_a_stream(tmp_path: Path) -> None:
    """Goal: ``cancel`` of a generator is a cancel of its task. Method: the error is the last."""
    stream = numbers.remote(1000, str(tmp_path), 0.05)
    next(stream)
    fh.cancel(stream)
    with pytest.raises(fh.errors.TaskCancelledError):
        fh.get(list(stream))


# -- deaths ---------------------------------------------------------------------------------------


def test_a_worker_that_dies_is_replaced_without_a_gap(tmp_path: Path) -> None:
    """Goal: exactly once, in order, over a kill -9. Method: the worker kills itself in the middle,
    once; small and large values, half of them taken before.
    """

    @fh.remote
    def mortal(died: Path) -> Iterator[Any]:
        for i in range(40):
            if i == 20 and not died.exists():
                died.touch()
                os.kill(os.getpid(), 9)
            yield np.full(50_000, i) if i % 2 else i

    values = [fh.get(ref) for ref in mortal.remote(tmp_path / "died")]
    assert [int(np.asarray(value).flat[0]) for value in values] == list(range(40))


def test_a_replay_that_yields_fewer_is_an_error(tmp_path: Path) -> None:
    """Goal: what is not the same twice is told. Method: a run yields three values and dies when
    they were taken; the second yields one.
    """

    @fh.remote
    def whimsical(taken: Path) -> Iterator[int]:
        yield 0
        if taken.exists():
            return
        yield 1
        yield 2
        deadline = time.monotonic() + 20
        while not taken.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), 9)

    stream = whimsical.remote(tmp_path / "taken")
    assert [fh.get(next(stream)) for _ in range(3)] == [0, 1, 2]
    (tmp_path / "taken").touch()
    (ref,) = stream
    with pytest.raises(fh.errors.StreamReplayError, match=r"3 values.*only 1"):
        fh.get(ref)


# -- many -----------------------------------------------------------------------------------------


@fh.remote
def weighed(n: int, folder: str) -> Iterator[int]:
    """Yields 0, 1, ...; writes down, at each 997th, what its process holds and weighs."""
    process = current.process()
    assert isinstance(process, Worker)
    try:
        with (Path(folder) / "weights").open("w", buffering=1) as weights:
            for i in range(n):
                if i % 997 == 0:  # (no multiple of the steps in which room is given)
                    with process.lock:
                        streams = list(process.executor.yielding.streams.values())
                        held = sum(stream.made - stream.taken for stream in streams)
                        unsent = unsent_bytes(process)
                    counts = process.role.counts()
                    print(held, unsent, counts["objects"], private_bytes(), file=weights)
                yield i
    finally:
        (Path(folder) / "end").touch()


def private_bytes() -> int:
    """The memory of this process that nobody shares."""
    return int(psutil.Process().memory_full_info().uss)


def unsent_bytes(process: Process) -> int:
    """What lies in this process's transport because a peer does not take it."""
    connections = [c for peers in process.transport.peers.values() for c in peers]
    return sum(len(piece) for connection in connections for piece in connection.unsent)


def test_hundred_thousand_values_and_a_slow_consumer(tmp_path: Path) -> None:
    """Goal: memory is bounded at both ends, for as long as the stream goes on; and the producer
    ends within a second of its consumer. Method: a stream of which 100,000 values are taken,
    slower than they are made. At each 997th the producer writes down how many of its values lie
    untaken, what waits in its sockets, its table and its private memory; at each 2,000th the
    consumer pauses and looks at its own. Neither grows beyond the window, nor after a warm-up of a
    tenth by more than 4 MiB: the other 90,000 would be ten times that, if they were kept.
    """
    stream = weighed.remote(1_000_000, str(tmp_path))
    most = warm = grown = 0
    for count, ref in enumerate(stream):
        assert fh.get(ref) == count
        if count % 2000 == 0:
            time.sleep(0.05)
            most = max(most, tables()["owner objects"])
            if count == 10_000:
                warm = private_bytes()
            elif count > 10_000:
                grown = max(grown, private_bytes() - warm)
        if count == 99_999:
            break
    stream.close()
    began = time.monotonic()
    assert until((tmp_path / "end").exists)
    assert time.monotonic() - began < 1.0
    assert most <= 1100
    assert grown < 4 << 20
    lines = (tmp_path / "weights").read_text().splitlines()
    held, unsent, objects, weights = zip(*(map(int, line.split()) for line in lines))
    assert 101 <= len(lines) <= 102
    assert 500 <= max(held) <= 1000
    assert max(unsent) < 1 << 20
    assert max(objects) <= 10
    assert max(weights) - weights[10] < 4 << 20


# -- actors ---------------------------------------------------------------------------------------


def test_methods_of_actors_stream_too() -> None:
    """Goal: a method that yields makes a stream, on the main thread, beside others, or in a loop.
    Method: a serial actor, whose next call comes after the stream; a coroutine actor with five
    streams at once; a stream dropped early leaves both of them well.
    """

    @fh.remote
    class Counter:
        def __init__(self) -> None:
            self.given = 0

        def count(self, n: int) -> Iterator[int]:
            for i in range(n):
                self.given += 1
                yield i

        def total(self) -> int:
            return self.given

    @fh.remote
    class Loop:
        async def count(self, n: int) -> AsyncIterator[int]:
            for i in range(n):
                await asyncio.sleep(0.001)
                yield i

        def plain(self, n: int) -> Iterator[int]:
            yield from range(n)

        async def alive(self) -> bool:
            return True

    serial: Any = Counter.remote()
    stream = serial.count.remote(4)
    assert fh.get(serial.total.remote()) == 4
    assert [fh.get(ref) for ref in stream] == [0, 1, 2, 3]
    held = serial.count.options(backpressure=2).remote(1000)
    assert fh.get(next(held)) == 0
    del held
    gc.collect()
    assert fh.get(serial.total.remote(), timeout=20) < 10

    loop: Any = Loop.remote()
    streams = [loop.count.remote(50) for _ in range(5)]
    assert [sum(fh.get(ref) for ref in stream) for stream in streams] == [1225] * 5
    assert [fh.get(ref) for ref in loop.plain.remote(3)] == [0, 1, 2]
    endless = loop.count.remote(1_000_000)
    next(endless)
    endless.close()
    assert fh.get(loop.alive.remote(), timeout=20)
