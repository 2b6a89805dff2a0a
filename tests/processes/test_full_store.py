"""A store too small for what several tasks need at once: they run one after the other."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import freehold as fh

MIB = 1 << 20
STORE = 64 * MIB


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    """A session whose store holds two of the test's arrays, and where it spills."""
    folder = tmp_path / "spill"
    fh.init(num_cpus=4, object_store_memory=STORE, spill_folders=[str(folder)], log_to_driver=False)
    yield folder
    fh.shutdown()


@fh.remote
def total(left: Any, right: Any) -> int:
    time.sleep(0.05)
    return int(left[0]) + int(right[-1])


def test_tasks_with_half_a_store_each(folder: Path) -> None:
    """Goal: two tasks, of which each needs two values, together almost all of the store, and finds
    one of them there, run one after the other. (Each used to hold the one until both had failed.)

    Method: eight values of 30 MiB, two of them in memory; four workers, four tasks at once."""
    refs = [fh.put(np.full(30 * MIB // 8, number)) for number in range(8)]
    assert list(folder.glob("*/*")), "nothing was spilled: this is no test"
    pairs = [(6, 0), (7, 1), (2, 4), (3, 5)]
    sums = [total.remote(refs[left], refs[right]) for left, right in pairs]
    assert fh.get(sums, timeout=55) == [left + right for left, right in pairs]
