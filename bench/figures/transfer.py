"""Transfer: one object from one node of this machine to another, 256 MiB, memory warm.

A task on the other node reads an object that was put on the program's; the fastest of five, since
two processors that others use as well make the slower ones slower. The floor is one stream of bare
sockets between two processes, which is what two copies by the kernel cost.
"""

from __future__ import annotations

from typing import Any

from bench.clock import GIB, MIB, seconds
from bench.engines import many_nodes
from bench.figure import Figure, Metric, Samples, Target
from bench.figures.broadcast import bare

SIZE = 256 * MIB
TIMES = 5


def length(values: Any) -> int:
    """The task: its argument has to be on its node, whole."""
    return len(values) if values[0] == values[-1] else 0


def shared(name: str) -> Samples:
    """A new object each time; the first, into fresh memory, does not count."""
    import numpy as np

    values = np.full(SIZE, 7, np.uint8)
    with many_nodes(name, 1, 4 * SIZE) as engine:
        task = engine.remote(length).options(resources={"node0": 1})

        def move() -> float:
            ref = engine.put(values)

            def read() -> None:
                if engine.get(task.remote(ref)) != SIZE:
                    raise AssertionError("the other node has not got all of it")

            return seconds(read)

        move()
        yield "speed", SIZE / GIB / min(move() for _ in range(TIMES))


def floor() -> Samples:
    """Bare sockets."""
    yield "speed", SIZE / GIB / min(bare(1, SIZE) for _ in range(TIMES))


FIGURE = Figure(
    name="transfer",
    title="An object of 256 MiB from one node of this machine to another",
    metrics=(
        Metric(
            "speed",
            "GiB/s",
            "higher",
            "from the submission of the task that reads it to its answer",
            (Target(0.7, "floor"),),
        ),
    ),
    shared=shared,
    own={"floor": floor},
    main=True,
)
