"""Broadcast: one object of 1 GiB to eight other nodes of this machine.

Once node after node, which is what a holder pays that sends to each by itself, and once to all at
the same time. An unmeasured round before makes every store's memory warm.

All nodes share one machine, so that what bounds the second is not a network card but the kernel's
loopback, where each byte is copied twice by the same few processors. The floor is that: as many
bytes between bare processes through bare sockets into warm memory, one stream after another and
two, four and eight at a time, of which the best counts. Where one stream keeps both processors
busy already, sending together gains nothing, for the floor as for anybody.
"""

from __future__ import annotations

import socket
from multiprocessing import Barrier, Process
from typing import Any

from bench.clock import GIB, MIB, seconds
from bench.engines import many_nodes
from bench.figure import Figure, Metric, Samples, Target

SIZE = GIB
NODES = 8
CHUNK = MIB

BUFFER = 128 * MIB
"""What a bare process sends from and receives into, again and again: larger than the caches, and
16 of them fit into memory.
"""


def length(values: Any) -> int:
    """The task: its argument has to be on its node, whole."""
    return len(values) if values[0] == values[-1] else 0


def shared(name: str) -> Samples:
    """A warm-up, then one after another, then together; each a new object."""
    import numpy as np

    values = np.full(SIZE, 7, np.uint8)
    with many_nodes(name, NODES, 2 * SIZE) as engine:
        task = engine.remote(length)
        tasks = [task.options(resources={f"node{index}": 1}) for index in range(NODES)]
        small = engine.put(np.full(1, 7, np.uint8))
        engine.get([each.remote(small) for each in tasks])  # the workers are up

        def together() -> None:
            ref = engine.put(values)
            spent.append(seconds(lambda: check(engine.get([each.remote(ref) for each in tasks]))))

        def one_by_one() -> None:
            ref = engine.put(values)
            spent.append(seconds(lambda: check([engine.get(each.remote(ref)) for each in tasks])))

        spent: list[float] = []
        for way in (together, one_by_one, together):
            way()
        yield from results(spent[1], spent[2])


def check(lengths: list[int]) -> None:
    """Every node had all of it."""
    if lengths != [SIZE] * NODES:
        raise AssertionError(f"the nodes found {lengths} bytes")


def results(one_by_one: float, together: float) -> Samples:
    """The metrics from the two times."""
    yield "one_by_one", one_by_one
    yield "together", together
    yield "advantage", one_by_one / together


def floor() -> Samples:
    """The same through bare sockets."""
    one_by_one = bare(1, NODES * SIZE)
    yield from results(one_by_one, min(bare(count, NODES * SIZE) for count in (2, 4, 8)))


def bare(count: int, size: int) -> float:
    """Seconds for `size` bytes in all through `count` loopback streams at a time."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ends = []
        for _ in range(count):
            sender = socket.create_connection(server.getsockname())
            ends.append((sender, server.accept()[0]))
    warm = Barrier(2 * count + 1)
    processes = [
        Process(target=work, args=(end, size // count // BUFFER, warm))
        for sender, receiver in ends
        for work, end in ((send, sender), (receive, receiver))
    ]
    for process in processes:
        process.start()
    warm.wait()

    def finish() -> None:
        for process in processes:
            process.join()

    return seconds(finish)


def send(link: socket.socket, times: int, warm: Any) -> None:
    """Warm the memory, wait for the others, send."""
    data = memoryview(bytearray(b"7") * BUFFER)
    tune(link)
    warm.wait()
    for _ in range(times):
        link.sendall(data)


def receive(link: socket.socket, times: int, warm: Any) -> None:
    """Warm the memory, wait for the others, receive."""
    data = memoryview(bytearray(b"0") * BUFFER)
    tune(link)
    warm.wait()
    for _ in range(times):
        for start in range(0, BUFFER, CHUNK):
            link.recv_into(data[start : start + CHUNK], 0, socket.MSG_WAITALL)


def tune(link: socket.socket) -> None:
    """Buffers as the runtime's."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIB)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)


FIGURE = Figure(
    name="broadcast",
    title="One object of 1 GiB to eight nodes of this machine",
    metrics=(
        Metric("one_by_one", "s", "lower", "a task on each node reads it, node after node"),
        Metric(
            "together",
            "s",
            "lower",
            "the same, all tasks at once; floor: the best of 2, 4 and 8 streams",
            (Target(0.8, "floor"),),
        ),
        Metric(
            "advantage",
            "x",
            "higher",
            "the one over the other",
            (Target(3.0),),
            spent_on="in copies: all nodes are on one machine, and one sender fills its memory's "
            "bandwidth already; bare sockets gain as little from several (compare the floor)",
        ),
    ),
    shared=shared,
    own={"floor": floor},
    limit=300.0,
)
