"""A million small objects: a shuffle of 1,000 x 1,000 blocks, and what each costs in memory.

A thousand tasks return a thousand blocks each; a thousand tasks take one block of each of them. All
references are alive at once, in one program, which owns every object. The blocks are 32 bytes, so
that they travel inside messages and what is measured is the cost of knowing them. What a node's
daemon needs for an object is measured with values of 104 KB, which lie in its store, and most of
them on its disk: a fiftieth as many, because a million would be 104 GB.

$FREEHOLD_BENCH_BLOCKS: another number than 1,000, for a quicker look: 300 takes a twelfth of the
time. Memory is what the system counts as the process's own (RssAnon), after less before.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.clock import MIB
from bench.engines import load
from bench.figure import Figure, Metric, Samples, Target

BLOCKS = int(os.environ.get("FREEHOLD_BENCH_BLOCKS", "1000"))
BLOCK_BYTES = 32
STORE = 64 * MIB
STORED_BYTES = 104_000


def split(row: int, count: int) -> list[bytes]:
    """A map: a block for each reduce, which says where it comes from and where it goes."""
    return [b"%d %d" % (row, column) + bytes(BLOCK_BYTES - 16) for column in range(count)]


def merge(column: int, *blocks: bytes) -> int:
    """A reduce: the number of blocks, each of which it looks at."""
    for row, block in enumerate(blocks):
        if block.rstrip(b"\0") != b"%d %d" % (row, column):
            raise AssertionError(f"block {row} of column {column} is {block!r}")
    return len(blocks)


def own() -> Samples:
    """The shuffle, and then what a node keeps of an object."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        engine = load("freehold")
        engine.init(
            num_cpus=2, object_store_memory=STORE, spill_folders=[folder], log_to_driver=False
        )
        try:
            yield from shuffle(engine)
            yield "node_bytes", stored(engine)
        finally:
            engine.shutdown()


def shuffle(engine: Any) -> Samples:
    """All blocks, from all maps to all reduces."""
    mapper = engine.remote(num_returns=BLOCKS)(split)
    reducer = engine.remote(merge)
    engine.get([reducer.remote(0), mapper.remote(0, BLOCKS)[0]])
    before = used(os.getpid())
    begun = perf_counter()
    rows = [mapper.remote(row, BLOCKS) for row in range(BLOCKS)]
    engine.wait([ref for row in rows for ref in row[-1:]], num_returns=BLOCKS)
    engine.get([row[0] for row in rows])
    yield "map_seconds", perf_counter() - begun
    yield "owner_bytes", (used(os.getpid()) - before) / BLOCKS**2
    sizes = [reducer.remote(column, *[row[column] for row in rows]) for column in range(BLOCKS)]
    if sum(engine.get(sizes)) != BLOCKS**2:
        raise AssertionError("blocks are missing")
    yield "seconds", perf_counter() - begun


def stored(engine: Any) -> float:
    """Bytes of the daemon's own memory for each object in its store or on its disk."""
    import numpy as np

    daemon = engine.nodes()[0]["Pid"]
    count = BLOCKS**2 // 50
    warm = [engine.put(np.zeros(STORED_BYTES, np.uint8)) for _ in range(2 * STORE // STORED_BYTES)]
    before = used(daemon)
    refs = [engine.put(np.zeros(STORED_BYTES, np.uint8)) for _ in range(count)]
    after = used(daemon)
    del warm, refs
    return (after - before) / count


def used(pid: int) -> int:
    """Bytes of a process's own memory; the store, which all share, is no part of it."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise OSError(f"/proc/{pid}/status does not say how much memory is the process's own")


FIGURE = Figure(
    name="million",
    title=f"A shuffle of {BLOCKS:,} x {BLOCKS:,} small blocks",
    metrics=(
        Metric("map_seconds", "s", "lower", "until all blocks are made and known to the program"),
        Metric("seconds", "s", "lower", "until the last reduce has ended"),
        Metric(
            "owner_bytes",
            "B",
            "lower",
            "the program's memory for each block, its reference and its 32 bytes included",
            (Target(1000.0),),
        ),
        Metric(
            "node_bytes",
            "B",
            "lower",
            "the daemon's memory for each value of 104 KB in its store or on its disk",
            (Target(1000.0),),
        ),
    ),
    own={"freehold": own},
    limit=1800.0,
)
