"""Every interleaving of small programs over the real ownership tables; see handoff.py for how."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from core.handoff import Found, Program, explore, owned_by_a, put_holding, task_returning
from freehold.core.ownership import Ownership
from freehold.ids import ProcessId
from freehold.wire.messages import Address, AskGone, Gone, Introduce, Release


def check(name: str, program: Program, at_least: int) -> Found:
    """Explore, print what was seen, and fail with the story of the first problem.

    ``at_least``: about four fifths of the states that there were when the program was written down.
    What makes them fewer without any change of the protocol is a better use of symmetry: since B, C
    and D are taken for each other until they have a part (``Model.virgins``), "A+BCD, 3 sends" has
    1,286 states instead of 3,584."""
    found = explore(program)
    seen = f"{name}: {found.states:,} states, {found.quiescent:,} quiescent, "
    print(seen + f"{found.blamed:,} blamed")  # noqa: T201 (shown with -s)
    assert not found.problems, "\n" + found.problems[0]
    assert found.states >= at_least, "the program shrank: it no longer tests what it did"
    assert found.quiescent
    return found


def slow(*values: object, seconds: int = 300) -> Any:
    """A program that takes more than five seconds; ``seconds``: until it is given up, on a machine
    that has other things to do as well."""
    return pytest.param(*values, marks=[pytest.mark.slow, pytest.mark.timeout(seconds)])


@pytest.mark.parametrize(
    ("name", "program", "at_least"),
    [
        ("A+BC, 4 sends", Program("ABC", 4, owned_by_a), 4_300),
        ("A+BCD, 3 sends", Program("ABCD", 3, owned_by_a), 1_000),
        ("A+BC, 2 sends, 2 crashes", Program("ABC", 2, owned_by_a, crashes=2), 6_500),
        slow("A+BCD, 4 sends", Program("ABCD", 4, owned_by_a), 13_700),
        slow("A+BC, 3 sends, 1 crash", Program("ABC", 3, owned_by_a, crashes=1), 13_300),
    ],
)
def test_one_object(name: str, program: Program, at_least: int) -> None:
    """Goal: no premature free, no leak, nobody stuck, whoever passes the reference to whom.

    Method: owner A and its borrowers pass one reference on, also back to A, and drop it at any
    time; borrowers crash at any time, also in the middle of a hand-off."""
    check(name, program, at_least)


def put(
    outer: str, sends: int, crashes: int = 0, *, loses: bool = False, orphans: bool = False
) -> Program:
    setup = partial(put_holding, outer=outer)
    return Program("ABC", sends, setup, crashes=crashes, locates=True, loses=loses, orphans=orphans)


@pytest.mark.parametrize(
    ("name", "program", "at_least"),
    [
        ("put by B, 1 send", put("B", 1), 2_700),
        slow("put by A, 2 sends", put("A", 2), 10_900),
        slow("put by B, 1 send, 1 crash", put("B", 1, crashes=1), 32_700),
    ],
)
def test_put_value_contains_reference(name: str, program: Program, at_least: int) -> None:
    """Goal: a reference inside a put value lives as long as the value, wherever it is read.

    Method: the putter (the owner of the inner object, or a borrower of it) passes the outer one on;
    takers ask for its value, open it, pass on what they found, and drop everything in any order."""
    check(name, program, at_least)


def result(
    worker: str,
    owner: str,
    sends: int,
    crashes: int = 0,
    *,
    loses: bool = False,
    locates: bool = True,
) -> Program:
    setup = partial(task_returning, worker=worker, owner=owner)
    return Program("ABC", sends, setup, crashes=crashes, locates=locates, loses=loses)


@pytest.mark.parametrize(
    ("name", "program", "at_least"),
    [
        ("result, the worker's, 1 send", result("B", "B", 1), 2_900),
        ("result, our own, 1 send", result("B", "A", 1), 4_000),
        ("result, a third's", result("B", "C", 0), 670),
        slow("result, a third's, 1 send", result("B", "C", 1), 34_700),
    ],
)
def test_result_contains_reference(name: str, program: Program, at_least: int) -> None:
    """Goal: a task's result may contain a reference of the worker, of a third process or our own.

    Method: the reply is on its way; A may drop its handle before it comes, the worker its own.
    (Crashes of the worker and of the inner object's owner: below, with and without loss.)"""
    check(name, program, at_least)


# -- bytes are lost --------------------------------------------------------------------------------


def losing(
    names: str, sends: int, crashes: int = 1, *, hasty: int = 0, orphans: bool = False
) -> Program:
    return Program(
        names, sends, owned_by_a, crashes=crashes, loses=True, hasty=hasty, orphans=orphans
    )


@pytest.mark.parametrize(
    ("name", "program", "at_least", "is_told"),
    [
        ("A+BC, 2 sends, 1 crash", losing("ABC", 2), 1_450, True),
        ("the same, hasty", losing("ABC", 2, hasty=1), 2_400, True),
        ("A+BCD, 2 sends, 1 crash", losing("ABCD", 2), 4_000, True),
        ("put by the owner", put("A", 1, 1, loses=True), 2_700, False),
        ("put by a borrower", put("B", 0, 1, loses=True), 380, False),
        ("result, the worker's", result("B", "B", 0, 1, loses=True), 560, False),
        ("result, our own", result("B", "A", 0, 1, loses=True), 680, False),
        (
            "result, a third's",
            result("B", "C", 0, 1, loses=True, locates=False),
            1_580,
            True,
        ),
        slow("A+BC, 3 sends, 1 crash", losing("ABC", 3), 16_500, True),
        ("A+BC, 2 sends, hasty twice", losing("ABC", 2, hasty=2), 3_850, True),
        slow("A+BC, 2 sends, 2 crashes", losing("ABC", 2, 2), 9_250, True),
        slow("result, a third's, located", result("B", "C", 0, 1, loses=True), 14_100, True),
        slow("put and passed on", put("B", 1, 1, loses=True), 46_800, True),
    ],
)
def test_a_crash_loses_bytes(name: str, program: Program, at_least: int, is_told: bool) -> None:
    """Goal: what a dying giver had sent to the owner but not to the taker, or the other way round,
    leaks nothing, frees nothing early and leaves nobody waiting: the taker is told, by name.

    Method: the programs above; a crash loses what was under way to one peer, to all or to none.
    ``is_told``: whether the program has a hand-over between borrowers that this can cut in half."""
    found = check(f"{name}, losing", program, at_least)
    assert bool(found.blamed) == is_told


# -- the owner dies --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "program", "at_least"),
    [
        ("A+BC, 2 sends, 1 crash", losing("ABC", 2, orphans=True), 2_250),
        ("put by A, 1 send, 1 crash", put("A", 1, 1, orphans=True), 4_100),
        ("put by B, 1 crash", put("B", 0, 1, loses=True, orphans=True), 660),
        slow("put by B, 1 send, 1 crash", put("B", 1, 1, orphans=True), 60_700),
        slow(
            "A+BCD, 3 sends, 1 crash",
            losing("ABCD", 3, orphans=True),
            120_000,
            seconds=900,  # one minute on an idle core
        ),
    ],
)
def test_anyone_crashes(name: str, program: Program, at_least: int) -> None:
    """Goal: the death of an owner in the middle of a hand-off leaks nothing at its borrowers and
    leaves nobody waiting for its introductions, however many they are.

    Method: as above, and A is mortal too; its object does not come back (in test_afterlife it
    does). The last one is the hand-off at its full size: an owner and three borrowers, three sends,
    and one crash of any of them at any time, with or without loss of what it had sent."""
    check(f"{name}, also of A", program, at_least)


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


def asks_nobody(self: Ownership, giver: ProcessId) -> None:
    """A planted bug: a taker relies on a dead giver's word for ever."""


def answers_at_once(self: Ownership, message: AskGone, peer: Address) -> None:
    """A planted bug: the owner says that nothing will come before it has heard the giver out."""
    self.world.send(peer, Gone(message.process))


def keeps_what_came_late(self: Ownership, message: Introduce) -> None:
    """A planted bug: an introduction waits for a reference that its dead giver never sent."""
    lost, self.lost = self.lost, set()
    on_introduce(self, message)
    self.lost = lost


on_provide, on_release = Ownership.on_provide, Ownership.on_release
on_introduce = Ownership.on_introduce


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


@pytest.mark.parametrize(
    ("method", "bug"),
    [
        ("ask_owners", asks_nobody),
        ("on_ask_gone", answers_at_once),
        ("on_introduce", keeps_what_came_late),
    ],
)
def test_explorer_sees_planted_bugs_of_loss(
    method: str, bug: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal and method as above, where a crash loses bytes."""
    monkeypatch.setattr(Ownership, method, bug)
    assert explore(losing("ABC", 2)).problems
