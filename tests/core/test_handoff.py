"""Every interleaving of small programs over the real ownership tables; see handoff.py for how."""

from __future__ import annotations

from functools import partial

import pytest

from core.handoff import Program, explore, owned_by_a, put_holding, task_returning
from freehold.core.ownership import Ownership


def check(name: str, program: Program, at_least: int) -> None:
    """Explore, print what was seen, and fail with the story of the first problem."""
    found = explore(program)
    print(f"{name}: {found.states:,} states, {found.quiescent:,} quiescent")
    assert not found.problems, "\n" + found.problems[0]
    assert found.states >= at_least, "the program shrank: it no longer tests what it did"
    assert found.quiescent


def test_one_object_two_borrowers() -> None:
    """Goal: no premature free, no leak, nobody stuck, whoever passes the reference to whom.

    Method: owner A and borrowers B and C pass it on up to three times in all, also back to A."""
    check("A+BC, 3 sends", Program("ABC", 3, owned_by_a), 1_000)


@pytest.mark.slow
def test_one_object_three_borrowers() -> None:
    """Goal and method as above, with three borrowers."""
    check("A+BCD, 3 sends", Program("ABCD", 3, owned_by_a), 10_000)


def test_borrower_crashes() -> None:
    """Goal: a borrower's death gives back what it held, and nothing else.

    Method: one crash of B or C at any moment at which it is not handing the reference on."""
    check("A+BC, 2 sends, 1 crash", Program("ABC", 2, owned_by_a, crashes=1), 500)


@pytest.mark.slow
def test_borrower_crashes_after_three_sends() -> None:
    """Goal and method as above, one hand-off more."""
    check("A+BC, 3 sends, 1 crash", Program("ABC", 3, owned_by_a, crashes=1), 5_000)


@pytest.mark.parametrize("outer", ["A", "B"])
def test_put_value_contains_reference(outer: str) -> None:
    """Goal: a reference inside a put value lives as long as the value, wherever it is read.

    Method: the putter (the owner of the inner object, or a borrower of it) passes the outer one on;
    takers ask for its value, open it, pass on what they found, and drop everything in any order."""
    program = Program("ABC", 2, partial(put_holding, outer=outer), locates=True)
    check(f"put by {outer}, 2 sends", program, 1_000)


@pytest.mark.parametrize(("worker", "owner"), [("B", "B"), ("B", "C"), ("B", "A")])
def test_result_contains_reference(worker: str, owner: str) -> None:
    """Goal: a task's result may contain a reference of the worker, of a third process or our own.

    Method: the reply is on its way; A may drop its handle before it comes, the worker its own."""
    program = Program("ABC", 1, partial(task_returning, worker=worker, owner=owner), locates=True)
    check(f"result by {worker} with {owner}'s", program, 50)


# -- can the explorer see? --------------------------------------------------------------------------


def names_at_once(self: Ownership, ref: object, giver: object, gate: object) -> None:
    """A planted bug: the taker does not wait for the introduction."""
    shut = type(gate)(lambda: None)  # type: ignore[call-arg]
    accept(self, ref, giver, shut)  # type: ignore[arg-type]


def counts_late(self: Ownership, ref: object, to: object) -> None:
    """A planted bug: the owner does not count before it sends."""


def forgets_to_tell(self: Ownership, message: object, giver: object) -> None:
    """A planted bug: the owner counts the taker but does not introduce."""
    send, self.world.send = self.world.send, lambda to, message: None  # type: ignore[method-assign]
    on_provide(self, message, giver)  # type: ignore[arg-type]
    self.world.send = send  # type: ignore[method-assign]


accept, on_provide = Ownership.accept, Ownership.on_provide


@pytest.mark.parametrize(
    ("method", "bug"),
    [("accept", names_at_once), ("hand_out", counts_late), ("on_provide", forgets_to_tell)],
)
def test_explorer_sees_planted_bugs(
    method: str, bug: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the explorer fails where it should. Method: the protocol with one step left out."""
    monkeypatch.setattr(Ownership, method, bug)
    assert explore(Program("ABC", 3, owned_by_a)).problems
