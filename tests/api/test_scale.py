"""Many: tasks in flight, arguments, returns, links of a chain, and more data than memory."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import freehold as fh

from .conftest import returns_to, tables, until

pytestmark = pytest.mark.slow

STORE = 64 << 20
PIECE = 4 << 20


@pytest.fixture(scope="module", autouse=True)
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two CPUs and a store of 64 MiB that spills to a folder of the test's."""
    folder = tmp_path_factory.mktemp("spill")
    fh.init(num_cpus=2, object_store_memory=STORE, spill_folders=[str(folder)], log_to_driver=False)
    yield folder
    fh.shutdown()


@fh.remote
def plus_one(x: int) -> int:
    return x + 1


@fh.remote
def total(*values: int) -> int:
    return sum(values)


@fh.remote
def piece(seed: int) -> Any:
    return np.full(PIECE // 8, seed, dtype="i8")


def test_a_hundred_thousand_tasks_in_flight() -> None:
    """Goal: nothing grows worse than linearly. Method: submit all, then get all."""
    before = tables()
    refs = [plus_one.remote(i) for i in range(100_000)]
    assert sum(fh.get(refs, timeout=100)) == sum(range(1, 100_001))
    del refs
    gc.collect()
    assert returns_to(before, "objects tasks pinned") == {}


def test_ten_thousand_references_as_arguments() -> None:
    """Goal: one task of 10,000 arguments. Method: its sum, from puts and from results."""
    assert fh.get(total.remote(*[fh.put(i) for i in range(10_000)]), timeout=60) == 49_995_000
    refs = [plus_one.remote(i) for i in range(10_000)]
    assert fh.get(total.remote(*refs), timeout=60) == 50_005_000


def test_three_thousand_returns() -> None:
    """Goal: one task of 3,000 results. Method: each in its place."""

    @fh.remote(num_returns=3000)
    def many() -> range:
        return range(3000)

    assert fh.get(many.remote(), timeout=60) == list(range(3000))


def test_a_chain_of_ten_thousand() -> None:
    """Goal: depth costs no recursion. Method: each task takes the one before; then drop it all."""
    before = tables()
    ref: Any = fh.put(0)
    for _ in range(10_000):
        ref = plus_one.remote(ref)
    assert fh.get(ref, timeout=100) == 10_000
    del ref
    gc.collect()
    assert returns_to(before, "objects tasks") == {}


def test_waiting_for_one_of_five_thousand() -> None:
    """Goal: the loop ``ready, rest = wait(rest)`` is usable with thousands. Method: 5,000 tasks in
    less than twenty seconds of our own processor time, though each call is given the whole list."""
    pending = [plus_one.remote(i) for i in range(5000)]
    start = time.process_time()
    seen = 0
    while pending:
        ready, pending = fh.wait(pending)
        seen += len(ready)
    assert seen == 5000
    assert time.process_time() - start < 20


def spilled(folder: Path) -> int:
    """Bytes in the spill folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("maker", ["put", "task"])
def test_five_times_the_store(small_store: Path, maker: str) -> None:
    """Goal: live data of five times the store survives on disk, reads back equal in any order, and
    leaves nothing. Method: 80 values of 4 MiB in 64 MiB, put here or made by tasks; summed by
    tasks and by get; then the refs are dropped."""
    before = tables()
    count = 5 * STORE // PIECE
    if maker == "put":
        refs = [fh.put(np.full(PIECE // 8, i, dtype="i8")) for i in range(count)]
    else:
        refs = [piece.remote(i) for i in range(count)]
        fh.wait(refs, num_returns=count, fetch_local=False, timeout=100)
    assert spilled(small_store) >= 4 * STORE - 2 * PIECE

    @fh.remote
    def check(array: Any, i: int) -> bool:
        return bool((array == i).all())

    for i in (*range(0, count, 7), count - 1, 0):
        assert fh.get(check.remote(refs[i], i), timeout=60)
    for i in range(count - 1, -1, -1):
        array = fh.get(refs[i], timeout=60)
        assert bool((array == i).all())
        del array
    assert all(fh.get([check.remote(refs[i], i) for i in range(count)], timeout=100))
    del refs
    gc.collect()
    assert returns_to(before, "objects pinned stored bytes spilled") == {}
    assert until(lambda: not spilled(small_store), 10), list(small_store.rglob("*"))


def test_one_value_larger_than_the_store() -> None:
    """Goal: what can never fit is an error that names sizes, not a wait. Method: put and return
    65 MiB in 64; the session works on."""

    @fh.remote
    def huge() -> Any:
        return np.ones(STORE // 8 + 200_000)

    with pytest.raises(fh.errors.ObjectStoreFullError, match=r"[0-9,]{8,}"):
        fh.put(np.ones(STORE // 8 + 200_000))
    with pytest.raises(fh.errors.ObjectStoreFullError, match=r"[0-9,]{8,}"):
        fh.get(huge.remote(), timeout=60)
    assert fh.get(plus_one.remote(1)) == 2


def test_more_views_than_the_store_holds() -> None:
    """Goal: a program that pins everything is told so, not left waiting. Method: keep every array
    of 80; then let go and go on."""
    refs = [piece.remote(i) for i in range(5 * STORE // PIECE)]
    kept: list[Any] = []

    def keep_all() -> None:
        for ref in refs:
            kept.append(fh.get(ref, timeout=8))

    with pytest.raises(fh.errors.FreeholdError, match=r"store|pinned") as caught:
        keep_all()
    assert isinstance(caught.value, fh.errors.ObjectStoreFullError | fh.errors.GetTimeoutError)
    assert len(kept) >= STORE // PIECE - 4
    kept.clear()
    gc.collect()
    assert int(fh.get(refs[-1], timeout=60)[0]) == len(refs) - 1
