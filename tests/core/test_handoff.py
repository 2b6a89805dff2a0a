"""Every interleaving of small programs over the real ownership tables; see handoff.py for how."""

from __future__ import annotations

from functools import partial

import pytest

from core.handoff import Found, Program, explore, owned_by_a, put_holding, task_returning
from freehold.core.ownership import Ownership
from freehold.ids import ProcessId
from freehold.wire.messages import Address, AskGone, Gone, Introduce, Release


def check(name: str, program: Program, at_least: int) -> Found:
    """Explore, print what was seen, and fail with the story of the first problem."""
    found = explore(program)
    seen = f"{name}: {found.states:,} states, {found.quiescent:,} quiescent, "
    print(seen + f"{found.blamed:,} blamed")  # noqa: T201 (shown with -s)
    assert not found.problems, "\n" + found.problems[0]
    # (A third: since an orphan is claimed at once, many of the states after a death are one.)
    assert found.states >= at_least // 3, "the program shrank: it no longer tests what it did"
    assert found.quiescent
    return found


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


def put(outer: str, sends: int, crashes: int = 0, *, loses: bool = False) -> Program:
    setup = partial(put_holding, outer=outer)
    return Program("ABC", sends, setup, crashes=crashes, locates=True, loses=loses)


@pytest.mark.parametrize(
    ("program", "at_least"),
    [
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
    ("program", "at_least"),
    [
        (result("B", "B", 1), 3_000),
        (result("B", "A", 1), 4_000),
        (result("B", "C", 0), 100),
        pytest.param(result("B", "C", 1), 30_000, marks=pytest.mark.slow),
    ],
)
def test_result_contains_reference(program: Program, at_least: int) -> None:
    """Goal: a task's result may contain a reference of the worker, of a third process or our own.

    Method: the reply is on its way; A may drop its handle before it comes, the worker its own.
    (Crashes of the worker and of the inner object's owner: below, with and without loss.)"""
    check("result", program, at_least)


# -- bytes are lost --------------------------------------------------------------------------------


def losing(names: str, sends: int, crashes: int = 1, *, hasty: int = 0) -> Program:
    return Program(names, sends, owned_by_a, crashes=crashes, loses=True, hasty=hasty)


@pytest.mark.parametrize(
    ("program", "at_least", "is_told"),
    [
        pytest.param(losing("ABC", 2), 2_000, True, id="A+BC, 2 sends, 1 crash"),
        pytest.param(losing("ABC", 2, hasty=1), 4_000, True, id="the same, hasty"),
        pytest.param(losing("ABCD", 2), 12_000, True, id="A+BCD, 2 sends, 1 crash"),
        pytest.param(put("A", 1, 1, loses=True), 4_000, False, id="put by the owner"),
        pytest.param(put("B", 0, 1, loses=True), 400, False, id="put by a borrower"),
        pytest.param(result("B", "B", 0, 1, loses=True), 600, False, id="result, the worker's"),
        pytest.param(result("B", "A", 0, 1, loses=True), 800, False, id="result, our own"),
        pytest.param(
            result("B", "C", 0, 1, loses=True, locates=False), 1_900, True, id="result, a third's"
        ),
        *(
            pytest.param(*large, True, id=name, marks=pytest.mark.slow)
            for name, *large in (
                ("A+BC, 3 sends, 1 crash", losing("ABC", 3), 20_000),
                ("A+BC, 2 sends, hasty twice", losing("ABC", 2, hasty=2), 5_000),
                ("A+BC, 2 sends, 2 crashes", losing("ABC", 2, 2), 12_000),
                ("result, a third's, located", result("B", "C", 0, 1, loses=True), 17_000),
                ("put and passed on", put("B", 1, 1, loses=True), 50_000),
            )
        ),
    ],
)
def test_a_crash_loses_bytes(program: Program, at_least: int, is_told: bool) -> None:
    """Goal: what a dying giver had sent to the owner but not to the taker, or the other way round,
    leaks nothing, frees nothing early and leaves nobody waiting: the taker is told, by name.

    Method: the programs above; a crash loses what was under way to one peer, to all or to none.
    ``is_told``: whether the program has a hand-over between borrowers that this can cut in half."""
    found = check("losing", program, at_least)
    assert bool(found.blamed) == is_told


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
