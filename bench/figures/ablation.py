"""Ablations of the object plane (Exoshuffle, SIGCOMM'23, microbenchmarks): one part switched off.

*Fused files*: values of 100 KB, then of 1 MB, put through a store of a sixteenth of them, so that
nearly all are written to disk; then with a file for each value. *Prefetch*: tasks that read 20
spilled values of 1 MB each and then compute for a while, with what they read fetched while the task
before them runs; then without. On and off alternate within a round, each in a cluster of its own,
and every value is checked when it is read back.

The paper has 16 GB through 1 GiB on one disk: writing fused is 12.7 times as fast at 100 KB (a file
for each value takes 14 ms, a seek), 1.25 at 1 MB; prefetch 1.6 to 1.9. Here the files lie in
$TMPDIR, by default on what /var/tmp is on, and 1 GiB fits into the page cache: no put waits for the
disk, and the ratios show the system calls and the passes through the daemon. So *synced* shows what
the disk adds once the cache is full: the same sizes written by one loop without a runtime, each
file on the disk before the next.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.clock import MIB
from bench.engines import load
from bench.figure import Figure, Metric, Samples, Target

STORE = 64 * MIB
FUSED_BYTES = 1024 * MIB
"""Of values, for each size and setting: 16 times the store, as in the paper."""

SIZES = {"100kb": 100_000 + 4_000, "1mb": 1_000_000}
"""Bytes of a value. The smaller is just above what travels inside messages (100 KiB)."""

SYNCED_BYTES = 100 * MIB
"""Of values, for each size, written and synced; a fused file has as many as here."""

TASKS, PARTS = 40, 20
COMPUTES = 0.05
"""Seconds of computing in a task that has read 20 MB."""

CACHED = (
    "the files stay in the page cache and no put waits for a disk, so that a file for each value "
    "costs its system calls (0.3 ms) beside a put (1 ms); `synced` is the ratio where each file "
    "must be on the disk before the next"
)

SWITCHES = {"fused": "FREEHOLD_SPILL_FILE_BYTES", "prefetch": "FREEHOLD_PREFETCH"}


def own() -> Samples:
    """Each setting with its part on, then off."""
    for name, size in SIZES.items():
        on, off = (spilled(size, fused=fused) for fused in (True, False))
        yield f"fused_{name}_on", on
        yield f"fused_{name}_off", off
        yield f"fused_{name}_ratio", off / on
        on, off = (synced(size, fused=fused) for fused in (True, False))
        yield f"synced_{name}_on", on
        yield f"synced_{name}_off", off
        yield f"synced_{name}_ratio", off / on
    on, off = (read(ahead=ahead) for ahead in (True, False))
    yield "prefetch_on", on
    yield "prefetch_off", off
    yield "prefetch_ratio", off / on


@contextmanager
def plane(part: str, on: bool) -> Iterator[Any]:
    """A cluster with a small store, with or without a part of it."""
    engine = load("freehold")
    if not on:
        os.environ[SWITCHES[part]] = "0"
    try:
        with tempfile.TemporaryDirectory(dir=_folder()) as folder:
            engine.init(
                num_cpus=1, object_store_memory=STORE, spill_folders=[folder], log_to_driver=False
            )
            try:
                yield engine
            finally:
                engine.shutdown()
    finally:
        os.environ.pop(SWITCHES[part], None)


def _folder() -> str:
    """Where files go: /tmp may be memory."""
    return os.environ.get("TMPDIR", "/var/tmp")


def spilled(size: int, *, fused: bool) -> float:
    """Seconds to put the values, until all but what fits into the store are on disk."""
    import numpy as np

    count = FUSED_BYTES // size
    with plane("fused", fused) as engine:
        begun = perf_counter()
        refs = [engine.put(np.full(size, number % 251, np.uint8)) for number in range(count)]
        seconds = perf_counter() - begun
        for number in range(0, count, 97):
            if engine.get(refs[number])[-1] != number % 251:
                raise AssertionError(f"value {number} is not what was put")
    return seconds


def synced(size: int, *, fused: bool) -> float:
    """Seconds to write the values, each file on the disk before the next."""
    count = SYNCED_BYTES // size
    value = os.urandom(size)
    files = [count] if fused else [1] * count
    with tempfile.TemporaryDirectory(dir=_folder()) as folder:
        begun = perf_counter()
        for number, values in enumerate(files):
            with Path(folder, str(number)).open("wb", buffering=0) as file:
                file.writelines([value] * values)
                os.fsync(file.fileno())
        return perf_counter() - begun


def work(*parts: Any) -> int:
    """A task: it computes for a while on what it has read."""
    until = time.perf_counter() + COMPUTES
    while time.perf_counter() < until:
        pass
    return sum(int(part[-1]) for part in parts)


def read(*, ahead: bool) -> float:
    """Seconds of tasks one after the other, each of which reads what is on disk."""
    import numpy as np

    with plane("prefetch", ahead) as engine:
        task = engine.remote(work)
        engine.get(task.remote())
        count = TASKS * PARTS
        refs = [engine.put(np.full(1_000_000, i % 251, np.uint8)) for i in range(count)]
        begun = perf_counter()
        sums = [task.remote(*refs[first : first + PARTS]) for first in range(0, count, PARTS)]
        found = sum(engine.get(sums))
        seconds = perf_counter() - begun
        if found != sum(i % 251 for i in range(count)):
            raise AssertionError(f"the tasks found {found}")
    return seconds


def metrics() -> tuple[Metric, ...]:
    """Three for each part: with it, without it, and how many times as long without."""
    made = []
    put = f"to put {FUSED_BYTES // MIB} MiB through a store of {STORE // MIB}"
    ran = f"{TASKS} tasks on one worker, each reads {PARTS} spilled values of 1 MB"
    parts = [(f"fused_{size}", f"values of {size.upper()}, {put}") for size in SIZES]
    wrote = f"to write {SYNCED_BYTES // MIB} MiB and have them on the disk, without a runtime"
    disk = [(f"synced_{size}", f"values of {size.upper()}, {wrote}") for size in SIZES]
    for name, meaning in [*parts, *disk, ("prefetch", ran)]:
        made.append(Metric(f"{name}_on", "s", "lower", meaning))
        made.append(Metric(f"{name}_off", "s", "lower", "the same, with this part switched off"))
        made.append(_ratio(name))
    return tuple(made)


def _ratio(name: str) -> Metric:
    """How many times as long without a part; at 100 KB the paper's disk makes 12.7 of it."""
    if not name.endswith("_100kb"):
        return Metric(f"{name}_ratio", "x", "neither", "off over on")
    return Metric(f"{name}_ratio", "x", "higher", "off over on", (Target(5.0),), spent_on=CACHED)


FIGURE = Figure(
    name="ablation",
    title="Parts of the object plane, switched off one at a time",
    metrics=metrics(),
    own={"freehold": own},
    limit=600.0,
)
