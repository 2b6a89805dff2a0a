"""The floor of the sort: two forked processes and shared memory, with our kernels and no runtime.

    python -m bench.sort_floor IN OUT [MEMORY]

Phase 1: the processes take turns at the slices of the input; each is read, sorted, cut at
boundaries from a sample, and its parts are laid into one anonymous shared mapping. Phase 2: they
take turns at the partitions; each is merged and written. Everything is planned beforehand, and
nothing survives a death: what a runtime adds is measured against this.

Where MEMORY, in bytes, is less than the input, the parts go to a file instead, and a partition is
read from it before it is merged: a few blocks are in memory then, and no more.

The kernels are loaded from their file, so that the package and its imports are not paid for.
"""

from __future__ import annotations

import importlib.util
import mmap
import os
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

PROCESSES = 2
BLOCK = 640_000  # records: 64 MB
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


class Runs:
    """Sorted records of all blocks, one after the other, in shared memory."""

    def __init__(self, total: int) -> None:
        self._all = np.frombuffer(mmap.mmap(-1, total * 100), np.uint8).reshape(-1, 100)

    def fill(self, begin: int, end: int, write: Callable[[Any], None]) -> None:
        """Let ``write`` fill the records ``begin`` to ``end``."""
        write(self._all[begin:end])

    def read(self, stretches: list[tuple[int, int]]) -> list[Any]:
        """The records of some stretches."""
        return [self._all[begin:end] for begin, end in stretches]


class FileRuns:
    """The same in a file without a name; each process has one buffer, as warm as a mapping."""

    def __init__(self, most: int) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (lives as long as we do)
        self._warm = np.empty((most, 100), np.uint8)

    def fill(self, begin: int, end: int, write: Callable[[Any], None]) -> None:
        """Let ``write`` fill the records ``begin`` to ``end``."""
        block = self._warm[: end - begin]
        write(block)
        transfer(os.pwrite, self._file.fileno(), block, begin)

    def read(self, stretches: list[tuple[int, int]]) -> list[Any]:
        """The records of some stretches."""
        size = sum(end - begin for begin, end in stretches)
        if size > len(self._warm):
            self._warm = np.empty((size, 100), np.uint8)
        place, found = 0, []
        for begin, end in stretches:
            found.append(self._warm[place : place + end - begin])
            transfer(read_at, self._file.fileno(), found[-1], begin)
            place += end - begin
        return found


def transfer(call: Callable[[int, Any, int], int], file: int, block: Any, first: int) -> None:
    """Read or write all of a block at a record of a file."""
    view, place = memoryview(block.reshape(-1)), first * 100
    while view:
        done = call(file, view, place)
        assert done, "a file was cut short"
        view, place = view[done:], place + done


def read_at(file: int, view: Any, place: int) -> int:
    """``os.preadv`` with the arguments of ``os.pwrite``."""
    return os.preadv(file, [view], place)


def sort(source: Path, target: Path, memory: int) -> None:
    """Sort the records of a folder into as many parts as there are blocks."""
    records = kernels()
    inputs = [np.memmap(path, np.uint8, "r").reshape(-1, 100) for path in sorted(source.iterdir())]
    starts = np.cumsum([0, *(len(block) for block in inputs)])
    total = int(starts[-1])
    blocks = max(16, -(-total // BLOCK))
    edges = [total * i // blocks for i in range(blocks + 1)]
    bounds = sample(records, inputs, starts, blocks)
    most = -(-total // blocks)
    kept = Runs(total) if not memory or 100 * total <= memory else FileRuns(most)
    places = np.frombuffer(mmap.mmap(-1, blocks * (blocks + 1) * 8), np.int64).reshape(blocks, -1)
    warm = np.empty((most, 100), np.uint8)  # each process has its own after the fork

    def map_slice(number: int) -> None:
        begin, end = edges[number : number + 2]
        block = warm[: end - begin]
        for data, first in zip(inputs, starts.tolist(), strict=False):
            low, high = max(begin, first), min(end, first + len(data))
            if low < high:
                with Path(data.filename).open("rb", buffering=0) as file:
                    stretch = block[low - begin : high - begin]
                    transfer(read_at, file.fileno(), stretch, low - first)
        order = records.sort_order(block)
        places[number] = begin + records.cuts(block, order, bounds, begin)
        kept.fill(begin, end, lambda out: records.take(block, order, out=out))

    def reduce_part(number: int) -> None:
        runs = kept.read([(row[number], row[number + 1]) for row in places.tolist()])
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
    sort(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
