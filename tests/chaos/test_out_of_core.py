"""A shuffle of four times the store while workers are killed: right, and nothing left on disk."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import freehold as fh

from .test_worker_kills import Killer

MIB = 1 << 20
STORE = 32 * MIB
PARTS = 16
PART_BYTES = 4 * STORE // PARTS**2


@fh.remote(max_retries=-1, num_returns=PARTS)
def split(row: int) -> list[Any]:
    """A block for each reduce: all of it says where it comes from and where it goes."""
    return [np.full(PART_BYTES // 8, row * PARTS + column) for column in range(PARTS)]


@fh.remote(max_retries=-1)
def merge(column: int, *blocks: Any) -> list[int]:
    """What stands in the blocks of a column, if each says the same from end to end."""
    return [int(block[0]) if (block == block[0]).all() else -1 for block in blocks]


@pytest.fixture(autouse=True)
def session() -> None:
    """The test starts its own cluster."""


@pytest.mark.timeout(150)
def test_four_times_the_store_under_fire(tmp_path: Path) -> None:
    """Goal: what was spilled is found, or made again, whoever dies; and what nobody can name any
    more leaves the disk.

    Method: 16 x 16 blocks of 512 KiB through 32 MiB, a worker killed twice a second, until the
    reduces have ended; then all references are dropped."""
    folder = tmp_path / "spill"
    fh.init(num_cpus=2, object_store_memory=STORE, spill_folders=[str(folder)], log_to_driver=False)
    try:
        with Killer(0.5, seed=2) as killer:
            rows = [split.remote(row) for row in range(PARTS)]
            spilled = 0
            columns = [merge.remote(c, *[row[c] for row in rows]) for c in range(PARTS)]
            for column, ref in enumerate(columns):
                wanted = [row * PARTS + column for row in range(PARTS)]
                assert fh.get(ref, timeout=120) == wanted
                spilled = max(spilled, fh.nodes()[0]["SpilledBytes"])
        assert killer.kills
        assert spilled > STORE, "hardly anything was spilled: this is no test"
        del rows, columns, ref
        deadline = time.monotonic() + 30
        while list(folder.glob("*/*")) and time.monotonic() < deadline:
            fh.nodes()  # (what was dropped is settled in the next call)
            time.sleep(0.1)
        assert list(folder.glob("*/*")) == []
    finally:
        fh.shutdown()
    assert list(folder.glob("*")) == []
