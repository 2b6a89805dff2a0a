"""Ray Data: a dataset of Arrow blocks, ``sort`` by two columns, and a datasink for the files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.data import Datasink

from bench.sorts import records


def sort(source: Path, target: Path, memory: int) -> None:
    """Sort on a new cluster of two processors."""
    pieces = records.slices(source)
    ray.init(
        num_cpus=2,
        object_store_memory=memory or None,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    numbers = ray.data.range(len(pieces), override_num_blocks=len(pieces))

    def load(batch: Any) -> Iterable[Any]:
        for number in batch["id"]:
            yield pa.Table.from_batches([records.batch(records.read(pieces[number]))])

    unsorted = numbers.map_batches(load)
    unsorted.sort(["high", "low"]).write_datasink(Files(target))
    ray.shutdown()


class Files(Datasink[int]):
    """A file for each task of the write, numbered in the order of the data."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def write(self, blocks: Iterable[Any], ctx: Any) -> int:
        """Write the blocks of one task."""
        path = self.target / f"part-{ctx.task_idx:05d}"
        records.write(path, (c for block in blocks for c in block["record"].chunks))
        return path.stat().st_size


if __name__ == "__main__":
    records.main(sort)
