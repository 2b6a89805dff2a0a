"""The floor of the sort: two forked processes and shared memory, with our kernels and no runtime.

    python -m bench.sort_floor IN OUT [BLOCKS]

Phase 1: the processes take turns at the slices of the input; each is read, sorted, cut at
boundaries from a sample, and its parts are laid into one anonymous shared mapping. Phase 2: they
take turns at the partitions; each is merged and written. Everything is planned beforehand, nothing
is spilled, and nothing survives a death: what a runtime adds is measured against this.

The kernels are loaded from their file, so that the package and its imports are not paid for.
"""

from __future__ import annotations

import importlib.util
import mmap
import os
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

PROCESSES = 2
KERNELS = Path(__file__).resolve().parent.parent / "src/freehold/shuffle/records.py"


def kernels() -> Any:
    """freehold/shuffle/records.py, without the package around it."""
    spec = importlib.util.spec_from_file_location("records", KERNELS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def in_turns(count: int, work: Callable[[int], None]) -> None:
    """Run ``work(0)`` to ``work(count - 1)`` in two forked processes, whoever is free next."""
    context = get_context("fork")
    turn = context.Value("i", 0)

    def run() -> None:
        while True:
            with turn.get_lock():
                number = turn.value
                turn.value += 1
            if number >= count:
                return
            work(number)

    workers = [context.Process(target=run) for _ in range(PROCESSES)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        if worker.exitcode:
            raise RuntimeError(f"a process ended with {worker.exitcode}")


def sort(source: Path, target: Path, blocks: int) -> None:
    """Sort the records of a folder into as many parts as there are slices, ``blocks``."""
    records = kernels()
    inputs = [np.memmap(path, np.uint8, "r").reshape(-1, 100) for path in sorted(source.iterdir())]
    starts = np.cumsum([0, *(len(block) for block in inputs)])
    total = int(starts[-1])
    edges = [total * i // blocks for i in range(blocks + 1)]
    bounds = sample(records, inputs, starts, blocks)
    shared = np.frombuffer(mmap.mmap(-1, total * 100), np.uint8).reshape(-1, 100)
    places = np.frombuffer(mmap.mmap(-1, blocks * (blocks + 1) * 8), np.int64).reshape(blocks, -1)

    def map_slice(number: int) -> None:
        begin, end = edges[number : number + 2]
        block = np.empty((end - begin, 100), np.uint8)
        for data, first in zip(inputs, starts.tolist(), strict=False):
            low, high = max(begin, first), min(end, first + len(data))
            if low < high:
                with Path(data.filename).open("rb", buffering=0) as file:
                    view = block[low - begin : high - begin].reshape(-1).data
                    os.preadv(file.fileno(), [view], (low - first) * 100)
        order = records.sort_order(block)
        places[number] = begin + records.cuts(block, order, bounds, begin)
        records.take(block, order, out=shared[begin:end])

    def reduce_part(number: int) -> None:
        runs = [shared[places[i, number] : places[i, number + 1]] for i in range(blocks)]
        with (target / f"part-{number:05d}").open("wb", buffering=0) as file:
            for piece in records.merge(runs):
                file.write(piece.reshape(-1).data)

    in_turns(blocks, map_slice)
    in_turns(blocks, reduce_part)


def sample(records: Any, inputs: list[Any], starts: Any, partitions: int) -> Any:
    """Boundaries from 100 keys a partition."""
    positions = np.random.default_rng(0).integers(0, starts[-1], 100 * partitions)
    which = np.searchsorted(starts, positions, "right") - 1
    found = np.stack([inputs[i][p - starts[i]] for i, p in zip(which, positions, strict=True)])
    samples = np.zeros(len(found), records.BOUNDARY)
    samples["high"], samples["low"] = records.keys(found)
    samples["at"] = positions
    return records.boundaries(samples, partitions)


if __name__ == "__main__":
    sort(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 16)
