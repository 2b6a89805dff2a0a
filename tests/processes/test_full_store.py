"""A store too small for what several tasks need at once: they run one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import freehold as fh
from freehold.runtime import current
from freehold.runtime.context import INLINE_TOTAL

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


def test_what_was_dropped_makes_room_first(folder: Path) -> None:
    """Goal: a loop that drops a value and puts the next needs room for one, and spills nothing.

    Method: values of which the store holds one, also as what an actor keeps; look at the files."""

    @fh.remote
    class Keeper:
        def change(self) -> None:
            self.ref = None
            self.ref = fh.put(np.ones(40 * MIB // 8))

    for number in range(4):
        ref = None
        ref = fh.put(np.full(40 * MIB // 8, number))
        assert fh.get(ref)[-1] == number
    ref = None
    keeper = Keeper.remote()
    for _ in range(4):
        fh.get(keeper.change.remote())
    assert not list(folder.glob("*/*"))


@pytest.mark.parametrize(("fused", "files"), [("", 2), ("0", 30)])
def test_one_file_for_many_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fused: str, files: int
) -> None:
    """Goal: what is spilled goes into few files, or into one for each value where that is wanted;
    either way it comes back right and no file is left.

    Method: 120 MiB in values of 1 MiB through a store of 64; look at the files."""
    monkeypatch.setenv("FREEHOLD_SPILL_FILE_BYTES", fused)
    folder = tmp_path / "spill"
    fh.init(num_cpus=1, object_store_memory=STORE, spill_folders=[str(folder)], log_to_driver=False)
    try:
        refs = [fh.put(np.full(MIB // 8, number)) for number in range(120)]
        found = len(list(folder.glob("*/*")))
        assert found >= files if fused else found <= files
        assert [int(fh.get(ref)[-1]) for ref in refs] == list(range(120))
        del refs
        deadline = time.monotonic() + 20
        while list(folder.glob("*/*")) and time.monotonic() < deadline:
            fh.nodes()  # (what was dropped is settled in the next call)
            time.sleep(0.05)
        assert list(folder.glob("*/*")) == []
    finally:
        fh.shutdown()


def test_the_disk_quota_has_a_clear_end(tmp_path: Path) -> None:
    """Goal: at the quota a program is told which quota, what is in use, where, and what to do; it
    loses nothing, goes on when it has dropped something, and leaves no file behind.

    Method: values of 8 MiB through a store of 64 MiB with 40 MiB of disk, until one is refused."""
    folder = tmp_path / "spill"
    fh.init(
        num_cpus=1,
        object_store_memory=STORE,
        spill_folders=[str(folder)],
        spill_quota=40 * MIB,
        log_to_driver=False,
    )
    try:
        refs: list[Any] = []
        with pytest.raises(fh.errors.OutOfDiskError) as caught:
            refs.extend(fh.put(np.full(MIB, number)) for number in range(20))
        text = str(caught.value)
        assert "spill quota" in text
        assert "of 41,943,040 bytes are in use" in text
        assert str(folder) in text
        assert text.count("raise the spill quota") == 1
        assert len(refs) >= 10  # 64 MiB and 40 MiB hold seven and four, and one may be in between
        del refs[-2:]  # room to read the others back in
        assert [int(fh.get(ref)[-1]) for ref in refs] == list(range(len(refs)))
        assert int(fh.get(fh.put(np.full(MIB, 99)))[0]) == 99
    finally:
        fh.shutdown()
    assert list(folder.glob("*")) == []


@pytest.mark.parametrize("name", ["FREEHOLD_SPILL_FILE_BYTES", "FREEHOLD_PREFETCH"])
def test_a_switch_that_is_no_switch(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Goal: a value that means nothing is refused by name, before anything is started."""
    monkeypatch.setenv(name, "maybe")
    with pytest.raises(ValueError, match=rf"\${name} must be .* not 'maybe'"):
        fh.init()


@fh.remote(num_returns=400)
def parts(first: int) -> list[Any]:
    """20 MiB in parts of 52 KB, each small enough for a message."""
    return [np.full(52_000 // 8, first + index, np.int64) for index in range(400)]


def test_many_small_returns_do_not_fill_their_owner(folder: Path) -> None:
    """Goal: what a task returns in many small parts goes to the store, not into the memory of the
    program; tasks that do so at once through a store that is too small for them all end, and every
    part is right.

    Method: eight tasks of 20 MiB, four at a time, through 64 MiB; what the program holds inline."""
    many = [parts.remote(1_000 * number) for number in range(8)]
    fh.wait([refs[-1] for refs in many], num_returns=8, fetch_local=False)
    entries = current.process().role.ownership.entries  # type: ignore[union-attr]
    for number, refs in enumerate(many):
        values = [entries[ref._ref.object].value for ref in refs]
        assert sum(len(value.data) for value in values if value is not None) <= INLINE_TOTAL
        for index in range(0, 400, 13):
            assert int(fh.get(refs[index])[-1]) == 1_000 * number + index
    assert list(folder.glob("*/*")), "nothing was spilled: this is no test"


@fh.remote(num_returns=300)
def mixed() -> Iterator[Any]:
    """References, large values, small values and nothing, in turn."""
    for index in range(300):
        yield [fh.put(index), np.full(60_000 // 8, index), index, None][index % 4]


def test_returns_of_all_kinds_keep_their_order(folder: Path) -> None:
    """Goal: whether a value travels in the message or through the store, each reference has its own
    value, and those inside live. Method: 300 returns of four kinds, all read, in any order."""
    refs = mixed.remote()
    for index in sorted(range(300), key=lambda index: index % 7):
        value = fh.get(refs[index])
        if index % 4 == 0:
            value = fh.get(value)
        elif index % 4 == 1:
            value = int(value[-1])
        assert value == (index if index % 4 < 3 else None)


@fh.remote(max_concurrency=2)
class Parts:
    """Makes many small parts, in two threads of one process."""

    @fh.method(num_returns=200)
    def make(self, first: int) -> list[Any]:
        return [np.full(52_000 // 8, first + index, np.int64) for index in range(200)]


def test_threads_that_fill_a_store_tell_of_what_they_have_written(tmp_path: Path) -> None:
    """Goal: who waits for room has told its node of all that it has written, or that could not be
    spilled for it. (Two threads stood still for a minute: neither read the sockets itself.)

    Method: two calls at once, of 10 MiB each, through a store of 1 MiB."""
    fh.init(num_cpus=2, object_store_memory=MIB, spill_folders=[str(tmp_path)], log_to_driver=False)
    try:
        actor = Parts.remote()
        many = [actor.make.remote(1_000 * number) for number in range(2)]
        fh.wait([refs[-1] for refs in many], num_returns=2, timeout=30, fetch_local=False)
        for number, refs in enumerate(many):
            for index in range(0, 200, 37):
                assert int(fh.get(refs[index], timeout=5)[-1]) == 1_000 * number + index
    finally:
        fh.shutdown()
