"""Every interleaving of small programs whose owners die, over the real roles; see afterlife.py for
how. Each prints how many states it has: ``pytest -s tests/core/test_afterlife.py``, and with
``-m slow`` the larger ones.
"""

from __future__ import annotations

import pytest

from core.afterlife import Op, Program, Tally, explore_program
from core.exploring import Found
from freehold.core.ownership import Ownership
from freehold.core.rebirth import Rebirth
from freehold.wire.messages import Claimed

#: Puts x, and returns its reference: whoever runs it owns x.
MAKE: list[Op] = [("put", "x", []), ("give", ["x"])]
#: The driver takes x out of MAKE's value, reads it and lets go.
TAKE: list[Op] = [("call", "t", "MAKE", []), ("get", "t", ["x"]), ("drop", "t")]
READ: list[Op] = [("get", "x", []), ("drop", "x")]


def check(name: str, program: Program, at_least: int, expected: set[str]) -> Found:
    """Explore, print what was seen, and fail with the story of the first problem.

    ``expected``: what must have been said in some interleaving, or the program tests less than it
    says."""
    tally = Tally()
    found = explore_program(program, tally)
    seen = f"{name}: {found.states:,} states, {found.quiescent:,} quiescent, "
    print(seen + f"{found.blamed:,} told of a loss")  # noqa: T201 (shown with -s)
    assert not found.problems, "\n" + found.problems[0]
    assert found.states >= at_least, "the program shrank: it no longer tests what it did"
    assert found.quiescent
    assert expected <= tally.kinds
    return found


def driver(mortal: str) -> Program:
    return Program([*TAKE, *READ], {"MAKE": MAKE}, {"MAKE": "WVU"}, mortal)


@pytest.mark.parametrize(
    ("mortal", "at_least"), [("W|V", 180), pytest.param("WV|VW", 4_850, marks=pytest.mark.slow)]
)
def test_driver_holds(mortal: str, at_least: int) -> None:
    """Goal: what a dead worker owned comes back to the driver that holds it, once and once again.

    Method: one worker dies at any time, or two."""
    check(f"driver holds, {mortal}", driver(mortal), at_least, {"Reborn", "Claimed"})


def test_value_inside_a_value() -> None:
    """Goal: a value that contains a reference comes back with what it contains, and neither is
    freed early.

    Method: x contains y; the driver opens x, drops it and reads y."""
    make: list[Op] = [("put", "y", []), ("put", "x", ["y"]), ("drop", "y"), ("give", ["x"])]
    main: list[Op] = [*TAKE, ("get", "x", ["y"]), ("drop", "x"), ("get", "y", []), ("drop", "y")]
    program = Program(main, {"MAKE": make}, {"MAKE": "WV"}, "W")
    check("x contains y", program, 400, {"Reborn"})


def held(worker: list[Op], *, mortal: str = "W", place: str = "H", drops: bool = False) -> Program:
    """The driver gives x to a task at ``place`` and lets go, first of its own reference."""
    main: list[Op] = [*TAKE, ("call", "h", "HOLD", ["x"]), ("drop", "x")]
    main += [("get", "h", []), ("drop", "h")]
    functions = {"MAKE": MAKE, "HOLD": [*worker, ("give", [])]}
    return Program(main, functions, {"MAKE": "WV", "HOLD": place}, mortal, drops=drops)


KEEP: list[Op] = [("keep", "a", "k")]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_worker_holds() -> None:
    """Goal: what only another worker's user code holds comes back to it.

    Method: it keeps the reference when its task is over; it lets go at the end."""
    check("worker holds", held(KEEP), 12_400, {"Reborn", "Introduce"})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_worker_reads() -> None:
    """Goal: a task that waits for the value when its owner dies is given the new one."""
    check("worker reads", held([("get", "a", [])]), 14_900, {"Reborn", "Locate"})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_worker_lets_go_at_any_time() -> None:
    """Goal: what a holder drops while its claim is under way is made again for nobody, and freed.

    Method: as above; the driver's reference goes with its script."""
    check("worker lets go", held(KEEP, drops=True), 27_400, {"Reborn"})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_holders() -> None:
    """Goal: driver and worker claim the same object, and one run gives it to both.

    Method: both wait for it."""
    main: list[Op] = [*TAKE, ("call", "h", "HOLD", ["x"]), ("get", "h", []), *READ, ("drop", "h")]
    functions = {"MAKE": MAKE, "HOLD": [("get", "a", []), ("give", [])]}
    program = Program(main, functions, {"MAKE": "WV", "HOLD": "H"}, "W")
    check("two holders", program, 13_300, {"Reborn", "ClaimObject"})


def test_holder_runs_the_task_again() -> None:
    """Goal: a process may be given its own object.

    Method: the task runs again at the worker that holds x."""
    program = held(KEEP)
    program.places = {"MAKE": "WH", "HOLD": "H"}
    program.since = 2
    check("holder runs it", program, 480, {"ClaimObject"})


# -- three borrowers -------------------------------------------------------------------------------


def test_owner_dies_twice() -> None:
    """Goal: a holder that hears of the second owner's death before the submitter has even that
    owner's answer gets its object all the same.

    Method: W dies, and V, which made x again, at any time after; a third run is the holder's own.
    (The claim was taken for answered: 723 states.)"""
    program = held(KEEP, mortal="WV")
    program.places["MAKE"], program.since, program.retries = "WVH", 7, 4
    check("owner dies twice", program, 1_400, {"Reborn", "Claimed", "ClaimObject"})


def at_once(again: str) -> Program:
    """The driver gives x to a task at H and to one at K, which keep it, and reads it in the end."""
    main: list[Op] = [*TAKE, ("call", "h", "HOLD", ["x"]), ("call", "k", "KEEP", ["x"])]
    main += [("get", "h", []), ("get", "k", []), ("drop", "h"), ("drop", "k"), ("pause",), *READ]
    hold: list[Op] = [("keep", "a", "k"), ("give", [])]
    functions = {"MAKE": MAKE, "HOLD": hold, "KEEP": hold}
    return Program(main, functions, {"MAKE": "W" + again, "HOLD": "H", "KEEP": "K"}, "W", since=7)


def in_a_row() -> Program:
    """The driver gives x to a task at H, which gives it to one at K; all three hold it, and each
    lets go when it likes."""
    main: list[Op] = [*TAKE, ("call", "h", "PASS", ["x"]), ("drop", "x"), ("get", "h", [])]
    main += [("drop", "h")]
    hand_on: list[Op] = [("call", "k", "KEEP", ["a"]), ("keep", "a", "k"), ("get", "k", [])]
    keep: list[Op] = [("keep", "a", "k"), ("give", [])]
    functions = {"MAKE": MAKE, "PASS": [*hand_on, ("give", [])], "KEEP": keep}
    return Program(main, functions, {"MAKE": "WH", "PASS": "H", "KEEP": "K"}, "W")


@pytest.mark.slow
@pytest.mark.timeout(1800)  # (in a row took 756 s while six processes shared two cores)
@pytest.mark.parametrize(
    ("name", "program", "at_least"),
    [
        ("three borrowers at once", at_once("H"), 17_000),
        ("three borrowers in a row", in_a_row(), 109_000),
    ],
)
def test_three_borrowers(name: str, program: Program, at_least: int) -> None:
    """Goal: what three processes hold comes back to all three, whoever hears of the death first,
    claims first and lets go first.

    Method: three sends and one death. At once: the owner dies when all three hold x. (Two claims
    came back from a runner when x was gone again, and the second waited for ever: 3,282 states.) In
    a row: the owner dies at any time, also in the middle of a hand-off."""
    check(name, program, at_least, {"Reborn", "Introduce", "ClaimObject", "ClaimFrom"})


# -- claims that go down a line --------------------------------------------------------------------

#: A task at W calls one at V; the driver gets x, which that one has put.
NESTED: dict[str, list[Op]] = {
    "CALL": [("call", "c", "MAKE", []), ("get", "c", ["x"]), ("give", ["x"])],
    "MAKE": MAKE,
}


def nested(mortal: str, once: str = "", since: int = 4, make: str = "VX") -> Program:
    main: list[Op] = [("call", "t", "CALL", []), ("get", "t", ["x"]), ("drop", "t"), ("pause",)]
    return Program(
        [*main, *READ],
        NESTED,
        {"CALL": "W", "MAKE": make},
        mortal,
        since=since,
        once=once,
        comes_back=not once,
    )


def test_runner_is_a_submitter() -> None:
    """Goal: a claim goes to the nearest submitter, which is a worker."""
    check("nested", nested("V"), 1_680, {"ClaimObject", "Reborn"})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_submitter_dies_with_the_claim() -> None:
    """Goal: who has claimed from a worker that dies claims from the next in line, wherever the
    claim lay; here that one may not run its task again, so all are told and nobody waits.

    Method: V, which owned x, dies, then W, which had submitted its task, at any time after."""
    check("submitter dies", nested("VW", once="CALL"), 3_900, {"ClaimObject", "Claimed"})


@pytest.mark.parametrize("again", [[("give", [])], [("put", "y", []), ("give", ["y"])]])
def test_another_path(again: list[Op]) -> None:
    """Goal: a second run that does not make what was claimed gives the holder a named error, and
    never something else.

    Method: it makes nothing, or another value."""
    program = Program([*TAKE, *READ], {"MAKE": MAKE, "MAKE again": again}, {"MAKE": "WV"}, "W")
    program.comes_back = False
    found = check("another path", program, 88, {"Claimed"})
    assert found.blamed


def test_task_that_may_not_run_twice() -> None:
    """Goal: its children die with their owner, and everybody is told."""
    program = driver("W")
    program.once, program.comes_back = "MAKE", False
    assert check("once", program, 23, {"Ended"}).blamed


# -- can the explorer see? -------------------------------------------------------------------------


def forgets_its_sponsor(self: Rebirth, message: Claimed, sponsor: object) -> None:
    """A planted bug: a holder looks only at where its claim lies, not at who would refuse it."""
    on_claimed(self, message, message.at.process)


def counts_late(self: Ownership, ref: object, to: object) -> None:
    """A planted bug: the new owner does not count whom it gives the object to."""


def claims_nothing_again(self: Rebirth, process: object) -> None:
    """A planted bug: a claim that lay with a process that dies is forgotten."""


on_claimed = Rebirth.on_claimed


@pytest.mark.parametrize(
    ("machine", "method", "bug", "program"),
    [
        (Rebirth, "on_claimed", forgets_its_sponsor, nested("VW", once="CALL")),
        (Rebirth, "peer_lost", claims_nothing_again, nested("VW", once="CALL")),
        (Ownership, "hand_out", counts_late, driver("W")),
    ],
)
def test_explorer_sees_planted_bugs(
    machine: type, method: str, bug: object, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the explorer fails where it should. Method: the protocol with one step left out."""
    monkeypatch.setattr(machine, method, bug)
    assert explore_program(program).problems
