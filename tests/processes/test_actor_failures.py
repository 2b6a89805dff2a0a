"""Actors under SIGKILL: order, at most once, restarts, and never two lives at once.

The machines of it have tests of their own (``core/actors``, ``core/calls``). Here four processes
call one actor while it is killed again and again. The actor writes each call into a file as it
runs, so that what really happened is known, whatever the callers were told.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import freehold as fh
from freehold.errors import ActorDiedError, ActorUnavailableError
from freehold.testing import Cluster
from processes.programs import until

CALLERS, CALLS, KILLS = 4, 150, 5


@pytest.fixture
def session() -> Iterator[None]:
    """A local cluster."""
    fh.init(num_cpus=2, log_to_driver=False)
    yield
    fh.shutdown()


def alive(pid: int) -> bool:
    """Whether a process runs (one that is only not waited for yet does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@fh.remote
class Diary:
    """Writes down who called, in which life."""

    def __init__(self, path: str) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.pids = Path(path + ".pids")
        before = self.pids.read_text().split() if self.pids.exists() else []
        overlap = [pid for pid in before if alive(int(pid))]
        self.write(f"born {os.getpid()} beside {len(overlap)}")
        self.pids.write_text(" ".join([*before, str(os.getpid())]))

    def write(self, line: str) -> None:
        os.write(self.file, f"{line}\n".encode())

    def call(self, caller: int, number: int) -> int:
        self.write(f"call {os.getpid()} {caller} {number}")
        time.sleep(0.002)
        return number

    def pid(self) -> int:
        return os.getpid()


@fh.remote(num_cpus=0.25)
def caller(diary: Any, me: int, count: int) -> list[str]:
    """Call in windows of ten; what came of each call."""
    outcomes = []
    for begin in range(0, count, 10):
        for ref in [diary.call.remote(me, number) for number in range(begin, begin + 10)]:
            try:
                outcomes.append(f"ran {fh.get(ref)}")
            except ActorUnavailableError:
                outcomes.append("unavailable")
    return outcomes


def killed_while_called(diary: Any, path: Path) -> list[list[str]]:
    """Four callers at work, and as many kills; what came of the calls."""
    fh.get(diary.pid.remote())
    pids = Path(f"{path}.pids")
    work = [caller.remote(diary, me, CALLS) for me in range(CALLERS)]
    for life in range(1, KILLS + 1):
        written = path.stat().st_size
        until(lambda least=written + 200: path.stat().st_size > least)  # type: ignore[misc]
        os.kill(int(pids.read_text().split()[-1]), signal.SIGKILL)
        until(lambda lives=life: len(pids.read_text().split()) > lives)  # type: ignore[misc]
    return fh.get(work, timeout=60)


def what_ran(path: Path) -> tuple[list[int], dict[int, list[int]]]:
    """The lives in which calls ran, in order, and the numbers that ran by caller."""
    lives: list[int] = []
    ran: dict[int, list[int]] = {me: [] for me in range(CALLERS)}
    for line in path.read_text().splitlines():
        kind, pid, *facts = line.split()
        if kind == "born":
            assert facts == ["beside", "0"], "two lives at once"
            lives.append(int(pid))
        else:
            assert int(pid) == lives[-1], "a life went on after the next had begun"
            ran[int(facts[0])].append(int(facts[1]))
    return lives, ran


@pytest.mark.usefixtures("session")
def test_at_most_once_and_in_order(tmp_path: Path) -> None:
    """Goal: under kills no call runs twice, those of a caller run in the order sent, each that is
    said to have run did, and no two lives overlap. Method: four callers, five kills."""
    path = tmp_path / "diary"
    diary = Diary.options(max_restarts=-1).remote(str(path))
    outcomes = killed_while_called(diary, path)
    lives, ran = what_ran(path)
    assert len(lives) == KILLS + 1
    for me in range(CALLERS):
        assert ran[me] == sorted(set(ran[me])), "twice, or out of order"
        said = {n for n, words in enumerate(outcomes[me]) if words == f"ran {n}"}
        assert said <= set(ran[me])
        assert len(outcomes[me]) == CALLS
    assert any("unavailable" in words for words in outcomes)


@pytest.mark.usefixtures("session")
def test_with_retries_every_call_runs(tmp_path: Path) -> None:
    """Goal: with ``max_task_retries`` every call gets its value, and what is run again is so in the
    old order. Method: the same; repeats only begin again where a life did."""
    path = tmp_path / "diary"
    diary = Diary.options(max_restarts=-1, max_task_retries=-1).remote(str(path))
    outcomes = killed_while_called(diary, path)
    assert outcomes == [[f"ran {number}" for number in range(CALLS)]] * CALLERS
    lives, ran = what_ran(path)
    assert len(lives) == KILLS + 1
    for numbers in ran.values():
        assert sorted(set(numbers)) == list(range(CALLS))
        steps = [later - earlier for earlier, later in pairwise(numbers)]
        assert all(step == 1 or -10 < step <= 0 for step in steps)


def test_its_node_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: an actor whose node dies lives on another; one that has no restarts is dead, and says
    that its node is. Method: two on a node that is killed, and a node to take one over."""
    monkeypatch.setenv("FREEHOLD_HOME", str(tmp_path))
    with Cluster(1, num_cpus=1) as cluster:
        fh.init(address=cluster.address, log_to_driver=False)
        doomed = cluster.add_node(num_cpus=2, resources={"spot": 2})
        kind = Diary.options(resources={"spot": 1})
        lasting = kind.options(max_restarts=1).remote(str(tmp_path / "one"))
        mortal = kind.remote(str(tmp_path / "two"))
        before = fh.get([lasting.pid.remote(), mortal.pid.remote()], timeout=30)
        cluster.add_node(num_cpus=2, resources={"spot": 2})
        cluster.kill_node(doomed)
        with pytest.raises(ActorDiedError, match="The actor died"):
            fh.get(mortal.pid.remote(), timeout=30)
        again = lasting.pid.options(max_task_retries=-1).remote()
        assert fh.get(again, timeout=30) not in before
        fh.shutdown()
