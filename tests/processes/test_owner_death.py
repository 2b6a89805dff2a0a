"""What a dead owner owned comes back, among real processes.

A task that starts tasks owns their results. Here such a worker is killed after it has answered,
and somebody else, who holds references to what it made, asks for them. The reference tells in
whose run the object was made; whoever submitted that run repeats it (``core/rebirth``).
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import freehold as fh
from freehold.core import lineage
from freehold.core.workers import IDLE_SECONDS
from freehold.runtime import current
from processes.programs import until

BIG = 1 << 20  # bytes: far above what rides in messages


@pytest.fixture(autouse=True)
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One node of three CPUs, so that parents, their children and a third process have room. What
    nobody claims is forgotten sooner than by default, so that a test can wait for it.
    """
    monkeypatch.setenv("FREEHOLD_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir(mode=0o700)
    monkeypatch.setattr(lineage, "CLAIM_SECONDS", 2.0)
    with fh.init(num_cpus=3, log_to_driver=False):
        yield


@fh.remote
def tripled(x: int) -> int:
    return 3 * x


@fh.remote
def array(x: int) -> Any:
    return np.full(BIG, x, np.uint8)


@fh.remote
def parent(base: int) -> tuple[int, list[Any]]:
    """References to what four children make, small and large; and whom to kill."""
    small = [tripled.remote(base + index) for index in range(2)]
    large = [array.remote(base + index) for index in range(2)]
    fh.wait([*small, *large], num_returns=4)
    return os.getpid(), [*small, *large]


@fh.remote
def grandparent(base: int) -> tuple[int, Any]:
    """A reference to what a task of its own returns, which owns the rest."""
    ref = parent.remote(base)
    fh.wait([ref])
    return os.getpid(), ref


def kill(pid: int) -> None:
    """SIGKILL a worker and wait until this program knows that it is dead: until then a value in
    its node's store is as good as before. (It may be gone already, with the owner of its lease.)
    """
    process = current.process()
    assert process is not None
    known = len(process.role.ownership.lost)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        until(lambda: len(process.role.ownership.lost) > known)
    until(lambda: not Path(f"/proc/{pid}").exists())


def check(refs: list[Any], base: int) -> None:
    """What ``parent`` has returned."""
    values = fh.get(refs, timeout=20)
    assert values[:2] == [3 * base, 3 * base + 3]
    for index, value in enumerate(values[2:]):
        assert np.array_equal(value, np.full(BIG, base + index, np.uint8))


def nothing_left(within: float = 10.0) -> None:
    """The program's own tables become empty."""
    process = current.process()
    assert process is not None

    def left() -> dict[str, int]:
        with process.lock:
            process.settle()
            process.transport.flush()
            counts = process.role.counts()
            return {name: count for name, count in counts.items() if count and name != "leases"}

    deadline = time.monotonic() + within
    while (found := left()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not found


def test_references_of_a_dead_parent_give_their_values() -> None:
    """Goal: refs to a dead worker's values are as good as before. Method: the worker that ran a
    parent is killed after its answer; its four children's values, inline and stored, are asked
    for; later nothing is left of them."""
    pid, refs = fh.get(parent.remote(10), timeout=20)
    kill(pid)
    check(refs, 10)
    del refs
    nothing_left()


def test_a_get_under_way_when_the_owner_dies_is_served(tmp_path: Path) -> None:
    """Goal: the same for who waits already. Method: the child sleeps in its first run; the driver
    waits for it when its owner is killed."""

    @fh.remote
    def slow(folder: Path, x: int) -> int:
        if not (folder / "ran").exists():
            (folder / "ran").touch()
            time.sleep(60)
        return x

    @fh.remote
    def of_slow(folder: Path) -> tuple[int, Any]:
        return os.getpid(), slow.remote(folder, 5)

    pid, ref = fh.get(of_slow.remote(tmp_path), timeout=20)
    until((tmp_path / "ran").exists)
    with pytest.raises(fh.errors.GetTimeoutError):
        fh.get(ref, timeout=0.2)
    os.kill(pid, signal.SIGKILL)
    assert fh.get(ref, timeout=20) == 5


@pytest.mark.parametrize("victims", ["both", "inner", "outer"])
def test_two_levels_deep(victims: str) -> None:
    """Goal: recovery goes up to the nearest submitter that lives, and down again from there.
    Method: the outer task's worker owns the inner task, whose worker owns the values; either or
    both are killed after they have answered."""
    outer, ref = fh.get(grandparent.remote(20), timeout=20)
    inner, refs = fh.get(ref, timeout=20)
    assert outer != inner
    for pid in {"both": (outer, inner), "inner": (inner,), "outer": (outer,)}[victims]:
        kill(pid)
    check(refs, 20)
    _, refs_again = fh.get(ref, timeout=20)
    check(refs_again, 20)
    del ref, refs, refs_again
    if victims == "inner":
        return  # the outer worker waits for claims on what it owned, for CLAIM_SECONDS
    # (So may the one in its place: the inner worker is vacated when its lease's owner dies, and may
    # have been given to it by the time that the second kill strikes.)
    nothing_left(within=10.0 if victims == "outer" else lineage.CLAIM_SECONDS + 10.0)


@fh.remote
def hold(refs: list[Any]) -> int:
    """A third process keeps references beyond its task."""
    time.sleep(0.3)  # so that three at once have a worker each
    sys.held = refs  # (a global of this module would be another one in each function)
    return os.getpid()


@fh.remote
def held(pid: int) -> Any:
    """Read what is kept, in the process that keeps it; None in any other."""
    if os.getpid() != pid:
        time.sleep(0.05)
        return None
    return fh.get(sys.held[0], timeout=20), int(fh.get(sys.held[2], timeout=20).sum())


def test_references_that_another_worker_keeps_come_back() -> None:
    """Goal: whoever holds a reference may claim, not only who got it first. Method: a worker has
    stored references in a global; their owner is killed, the driver drops its own."""
    pid, refs = fh.get(parent.remote(30), timeout=20)
    holders = fh.get([hold.remote(refs) for _ in range(3)], timeout=20)
    holder = next(holder for holder in holders if holder != pid)
    del refs
    kill(pid)
    found: list[Any] = []

    def asked() -> bool:
        found[:] = [v for v in fh.get([held.remote(holder) for _ in range(3)], timeout=40) if v]
        return bool(found)

    until(asked, 40)
    assert found[0] == (90, 30 * BIG)


def test_a_put_in_a_task_comes_back() -> None:
    """Goal: what a task has put is made again by its run. Method: puts of both kinds, equal ones
    among them, in a task whose worker is killed."""

    @fh.remote
    def putter() -> tuple[int, list[Any]]:
        values = [1, 1, np.zeros(BIG, np.uint8), np.ones(BIG, np.uint8), np.ones(BIG, np.uint8)]
        return os.getpid(), [fh.put(value) for value in values]

    pid, refs = fh.get(putter.remote(), timeout=20)
    kill(pid)
    values = fh.get(refs, timeout=20)
    assert values[:2] == [1, 1]
    assert [int(value.sum()) for value in values[2:]] == [0, BIG, BIG]
    del values, refs
    nothing_left()


def test_a_value_that_contains_the_references_stays_good() -> None:
    """Goal: the result that carried the references is usable after their owner's death too, also
    by a task. Method: it is passed on and its references are followed there."""

    @fh.remote
    def follow(found: tuple[int, list[Any]]) -> list[int]:
        return [int(np.sum(value)) for value in fh.get(found[1], timeout=20)]

    ref = parent.remote(1)
    pid, refs = fh.get(ref, timeout=20)
    del refs
    kill(pid)
    assert fh.get(follow.remote(ref), timeout=30) == [3, 6, BIG, 2 * BIG]


def test_a_pending_task_waits_for_what_comes_back(tmp_path: Path) -> None:
    """Goal: a task submitted with a dead owner's reference runs when the value is there again.
    Method: references as top-level arguments and in a list, submitted after the death."""

    @fh.remote
    def total(small: int, large: Any, rest: list[Any]) -> int:
        return small + int(large.sum()) + sum(int(np.sum(v)) for v in fh.get(rest, timeout=20))

    pid, refs = fh.get(parent.remote(2), timeout=20)
    kill(pid)
    task = total.remote(refs[0], refs[2], [refs[1], refs[3]])
    assert fh.get(task, timeout=30) == 6 + 2 * BIG + 9 + 3 * BIG


def test_another_path_is_an_error_and_never_another_value() -> None:
    """Goal: a parent that does otherwise when run again cannot pass another task's value off as
    the one that was lost. Method: children with random arguments; every get fails by name."""

    @fh.remote
    def wayward() -> tuple[int, list[Any]]:
        chance = random.SystemRandom()
        refs = [tripled.remote(chance.randrange(1 << 60)) for _ in range(5)]
        fh.wait(refs, num_returns=5)
        return os.getpid(), refs

    pid, refs = fh.get(wayward.remote(), timeout=20)
    kill(pid)
    for ref in refs:
        with pytest.raises(fh.errors.OwnerDiedError, match="took another path"):
            fh.get(ref, timeout=20)
    del ref, refs
    nothing_left()


def test_a_parent_that_fails_the_second_time_says_so(tmp_path: Path) -> None:
    """Goal: a run that raises before it makes what is claimed ends the wait. Method: a parent that
    succeeds once."""

    @fh.remote
    def once(folder: Path) -> tuple[int, Any]:
        if (folder / "ran").exists():
            raise RuntimeError("not twice")
        (folder / "ran").touch()
        ref = tripled.remote(1)
        fh.wait([ref])
        return os.getpid(), ref

    pid, ref = fh.get(once.remote(tmp_path), timeout=20)
    kill(pid)
    with pytest.raises(fh.errors.OwnerDiedError, match=r"took another path|has failed"):
        fh.get(ref, timeout=20)


def test_without_retries_the_error_comes_at_once(
    record_property: Callable[[str, object], None],
) -> None:
    """Goal: what cannot come back is told as such without delay. Method: a parent of
    max_retries=0; the get fails within a second (5 on a loaded machine), and names the parent."""
    pid, refs = fh.get(parent.options(max_retries=0).remote(40), timeout=20)
    kill(pid)
    began = time.monotonic()
    with pytest.raises(fh.errors.OwnerDiedError, match=r"parent\(\), may not run twice"):
        fh.get(refs[2], timeout=20)
    seconds = time.monotonic() - began
    record_property("seconds", seconds)  # (0.005 on two idle cores)
    assert seconds < 5


def test_retries_are_spent_on_owners_too(tmp_path: Path) -> None:
    """Goal: each re-run counts as a retry, and then no more. Method: a parent with one; its worker
    is killed, what it made comes back, and the worker of that run is killed too."""

    @fh.remote(max_retries=1)
    def told(folder: Path) -> list[Any]:
        ref = array.remote(2)
        fh.wait([ref])
        (folder / f"{time.time_ns()}-{os.getpid()}").touch()
        return [ref]

    def killed_last() -> None:
        kill(int(max(path.name for path in (tmp_path / "ran").iterdir()).split("-")[1]))

    (tmp_path / "ran").mkdir()
    (ref,) = fh.get(told.remote(tmp_path / "ran"), timeout=20)
    killed_last()
    assert int(fh.get(ref, timeout=20).sum()) == 2 * BIG
    process = current.process()
    assert process is not None
    until(lambda: not process.role.counts()["tasks"])  # the second run is over, not only its child
    killed_last()
    with pytest.raises(fh.errors.OwnerDiedError, match="has used its 1 retries"):
        fh.get(ref, timeout=20)


def test_a_worker_with_owned_values_is_not_stopped_when_idle(tmp_path: Path) -> None:
    """Goal: the pool stops idle workers beyond its three CPUs, but none that owns a value. Method:
    of twelve tasks at once six put a value that the driver holds; when the other workers have
    been trimmed, all owners live, all values are right, and each of the six has run once."""

    @fh.remote(num_cpus=0)
    def owner(x: int) -> tuple[int, Any]:
        (tmp_path / f"{x}-{time.time_ns()}").touch()
        time.sleep(0.3)  # so that all are at work at once, each on a worker of its own
        return os.getpid(), fh.put(np.full(BIG, x, np.uint8))

    @fh.remote(num_cpus=0)
    def other(x: int) -> int:
        time.sleep(0.3)
        return os.getpid()

    found = fh.get([owner.remote(x) for x in range(6)] + [other.remote(x) for x in range(6)])
    owners = {pid for pid, _ in found[:6]}
    others = set(found[6:]) - owners
    assert len(owners) >= 4  # (more than the three CPUs)
    until(lambda: sum(Path(f"/proc/{pid}").exists() for pid in others) <= 3, 3 * IDLE_SECONDS)
    assert all(Path(f"/proc/{pid}").exists() for pid in owners)
    for x, (_, ref) in enumerate(found[:6]):
        assert np.array_equal(fh.get(ref, timeout=20), np.full(BIG, x, np.uint8))
    assert len(list(tmp_path.glob("*-*"))) == 6
