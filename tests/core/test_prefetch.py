"""What an owner tells a node ahead of a task: which values it will read there."""

from __future__ import annotations

from core.owners import NEAR, NODE, Bench
from core.world import World, stored
from freehold.ids import ObjectId
from freehold.wire.fetches import ARGUMENT, FetchAhead, FetchObject
from freehold.wire.messages import Reference


def test_what_the_next_task_reads_is_announced(world: World) -> None:
    """Goal: while a worker is busy its node hears, once, what the next task will read, so that it
    is there in time; of short tasks many lie at the worker, which asks for what they read itself.

    Method: tasks of a function that was never measured, two workers; then of one known as short."""
    bench = Bench(world)
    large = bench.submit("g")
    bench.grant(1)
    bench.done(large, 1, results=[stored(10**6, NEAR)])
    ref = Reference(ObjectId(large.id + bytes(4)), world.address)
    wish = FetchObject(ref.object, 10**6, world.address, [NEAR], ARGUMENT)
    tasks = [bench.submit("slow", deps=[ref]) for _ in range(4)]
    bench.submit("slow")  # reads nothing
    world.sent.clear()
    bench.grant(2)
    assert world.take(FetchAhead, NODE) == [FetchAhead([wish])]  # for the second task
    bench.grant(3)
    assert world.take(FetchAhead, NODE) == [FetchAhead([wish])]  # for the third
    bench.done(tasks[0], 2, micros=100_000)
    assert world.take(FetchAhead, NODE) == [FetchAhead([wish])]  # for the fourth
    bench.done(tasks[1], 3, micros=100_000)
    assert world.take(FetchAhead) == []
    for _ in range(3):
        bench.submit("short", micros=100.0, deps=[ref])
    bench.done(tasks[2], 2, micros=100_000)
    assert world.take(FetchAhead) == []
    world.sent.clear()
