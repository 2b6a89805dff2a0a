"""Every interleaving of small programs over the real ownership tables; see handoff.py for how."""

from __future__ import annotations

from functools import partial

import pytest

from core.handoff import Program, explore, owned_by_a, put_holding, task_returning
from freehold.core.ownership import Ownership
from freehold.ids import ProcessId
from freehold.wire.messages import Release


def check(name: str, program: Program, at_least: int) -> None:
    """Explore, print what was seen, and fail with the story of the first problem."""
    found = explore(program)
    seen = f"{name}: {found.states:,} states, {found.quiescent:,} quiescent"
    print(seen)  # noqa: T201 (shown with -s)
    assert not found.problems, "\n" + found.problems[0]
    assert found.states >= at_least, "the program shrank: it no longer tests what it did"
    assert found.quiescent


SMALL = [
    ("A+BC, 4 sends", Program("ABC", 4, owned_by_a), 5_000),
    ("A+BCD, 3 sends", Program("ABCD", 3, owned_by_a), 3_000),
    ("A+BC, 2 sends, 2 crashes", Program("ABC", 2, owned_by_a, crashes=2), 5_000),
]
LARGE = [
    ("A+BCD, 4 sends", Program("ABCD", 4, owned_by_a), 30_000),
    ("A+BC, 3 sends, 1 crash", Program("ABC", 3, owned_by_a, crashes=1), 15_000),
]


@pytest.mark.parametrize(("name", "program", "at_least"), SMALL)
def test_one_object(name: str, program: Program, at_least: int) -> None:
    """Goal: no premature free, no leak, nobody stuck, whoever passes the reference to whom.

    Method: owner A and its borrowers pass one reference on, also back to A, and drop it at any
    time; borrowers crash at any time, also in the middle of a hand-off."""
    check(name, program, at_least)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "program", "at_least"), LARGE)
def test_one_object_at_length(name: str, program: Program, at_least: int) -> None:
    """Goal and method as above, larger."""
    check(name, program, at_least)


def put(outer: str, sends: int, crashes: int = 0) -> Program:
    return Program("ABC", sends, partial(put_holding, outer=outer), crashes=crashes, locates=True)


@pytest.mark.parametrize(
    ("program", "at_least"),
    [
        (put("A", 1, crashes=1), 3_000),
        (put("B", 1), 3_000),
        pytest.param(put("A", 2), 10_000, marks=pytest.mark.slow),
        pytest.param(put("B", 1, crashes=1), 30_000, marks=pytest.mark.slow),
    ],
)
def test_put_value_contains_reference(program: Program, at_least: int) -> None:
    """Goal: a reference inside a put value lives as long as the value, wherever it is read.

    Method: the putter (the owner of the inner object, or a borrower of it) passes the outer one on;
    takers ask for its value, open it, pass on what they found, and drop everything in any order."""
    check("put", program, at_least)


def result(worker: str, owner: str, sends: int, crashes: int = 0) -> Program:
    setup = partial(task_returning, worker=worker, owner=owner)
    return Program("ABC", sends, setup, crashes=crashes, locates=True)


@pytest.mark.parametrize(
    ("program", "at_least"),
    [
        (result("B", "B", 1), 3_000),
        (result("B", "A", 1), 4_000),
        (result("B", "B", 0, crashes=1), 500),
        (result("B", "A", 0, crashes=1), 500),
        (result("B", "C", 0), 100),
        pytest.param(result("B", "C", 0, crashes=1), 10_000, marks=pytest.mark.slow),
        pytest.param(result("B", "C", 1), 30_000, marks=pytest.mark.slow),
    ],
)
def test_result_contains_reference(program: Program, at_least: int) -> None:
    """Goal: a task's result may contain a reference of the worker, of a third process or our own.

    Method: the reply is on its way; A may drop its handle before it comes, the worker its own; the
    worker or the owner of the inner object may crash."""
    check("result", program, at_least)


# -- can the explorer see? -------------------------------------------------------------------------


def counts_late(self: Ownership, ref: object, to: object) -> None:
    """A planted bug: the owner does not count before it sends."""


def forgets_to_tell(self: Ownership, message: object, giver: object) -> None:
    """A planted bug: the owner counts the taker but does not introduce."""
    send, self.world.send = self.world.send, lambda to, message: None  # type: ignore[method-assign]
    on_provide(self, message, giver)  # type: ignore[arg-type]
    self.world.send = send  # type: ignore[method-assign]


def releases_all(self: Ownership, message: Release, peer: ProcessId) -> None:
    """A planted bug: a release gives everything back, also what crossed it on the way."""
    entry = self.entries[message.object]
    assert entry.holders is not None
    on_release(self, Release(message.object, entry.holders[peer]), peer)


on_provide, on_release = Ownership.on_provide, Ownership.on_release


@pytest.mark.parametrize(
    ("method", "bug"),
    [("on_release", releases_all), ("hand_out", counts_late), ("on_provide", forgets_to_tell)],
)
def test_explorer_sees_planted_bugs(
    method: str, bug: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the explorer fails where it should. Method: the protocol with one step left out."""
    monkeypatch.setattr(Ownership, method, bug)
    assert explore(Program("ABC", 3, owned_by_a)).problems
