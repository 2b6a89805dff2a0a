"""Processor time of one task at driver, worker and node, measured; and what a cluster of 100 nodes
would then do, beside the 219,000 tasks a second of the Ownership paper (NSDI 2021, figure of
throughput: 100 nodes of 32 processors, a driver on every fifth, batches of 2,000 small tasks for
each node, each batch fanned in).

What is measured is user and system time of the processes, from the kernel, which other work on the
machine hardly changes; its grain of 10 ms is small beside the seconds that are used. A real cluster
of two nodes on this machine; the driver's node has no processors, so that every task goes over TCP
to the other, as nearly all do in a large cluster.

Assumptions of the prediction: a driver has a processor to itself, and is what limits; it costs the
same however many workers it feeds; the head and the nodes are no limit (``messages``: a task sends
them nothing); links are none either (a task is some 200 bytes). What it leaves out stands in
docs/scale.md.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import psutil

from bench.engines import many_nodes
from freehold.ids import NodeId
from freehold.wire import frames
from freehold.wire.attendance import pack_reports, unpack_reports
from freehold.wire.messages import News, NodeReport

BATCH: Final = 2_000
BATCHES: Final = 20
#: The paper's cluster.
NODES: Final = 100
DRIVERS: Final = 20
PROCESSORS: Final = 32
PAPER: Final = 219_000


def small() -> bytes:
    """A task of no work and a small result."""
    return b"ok"


def news() -> dict[str, float]:
    """Microseconds of a processor for a round of news of 1,000 nodes: to encode the reports, once;
    to make a frame of them, once for each node; and to take it apart, at each. Without the calls of
    the kernel.
    """
    reports = [
        NodeReport(
            NodeId(number.to_bytes(8, "big")), {"CPU": 40_000, "memory": 1 << 50}, 3, 1 << 30
        )
        for number in range(1000)
    ]
    packed = pack_reports(reports)
    (frame,) = [frames.encode([News(packed)])]
    return {
        "bytes": len(frame),
        "reports encoded": micros(lambda: pack_reports(reports)),
        "frame made": micros(lambda: frames.encode([News(packed)])),
        "taken apart": micros(lambda: unpack_reports(packed)),
    }


def micros(call: Callable[[], object], times: int = 500) -> float:
    """Microseconds of a processor that one call takes."""
    begun = time.process_time()
    for _ in range(times):
        call()
    return 1e6 * (time.process_time() - begun) / times


def measure() -> dict[str, Any]:
    """Microseconds of a processor for one task, by kind of process, and the prediction."""
    with many_nodes("freehold", 1, 1 << 26) as engine:
        task = engine.remote(small)

        def batch() -> None:
            engine.get([task.remote() for _ in range(BATCH)])

        for _ in range(3):
            batch()
        before = spent()
        for _ in range(BATCHES):
            batch()
        after = spent()
    count = BATCH * BATCHES
    micros = {kind: 1e6 * (after[kind] - before[kind]) / count for kind in sorted(after)}
    per_driver = 1e6 / micros["driver"]
    workers = NODES * PROCESSORS * 1e6 / micros["worker"]
    return {
        "micros": micros,
        "tasks": count,
        "drivers_spread": min(DRIVERS * per_driver, workers),
        "per_driver": per_driver,
        "workers_alone": workers,
        "paper": PAPER,
        "news": news(),
    }


def spent() -> Counter[str]:
    """Seconds of a processor, user and system, by kind of process; we are the driver."""
    seconds: Counter[str] = Counter()
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        times = process.cpu_times()
        kind = "driver" if process is me else process.name().removeprefix("freehold-")
        seconds[kind] += times.user + times.system
    return seconds
