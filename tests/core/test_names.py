"""Names: what two runs of a task call the same things, and what they must not call them."""

from __future__ import annotations

import pytest

from core.world import task_id
from freehold.ids import PUT, Names, ObjectId, RunNames, TaskId, name_of, return_id

FIRST, SECOND = b"first...", b"second.."
PARENT = task_id("parent")


def runs(parent: TaskId = PARENT) -> tuple[RunNames, RunNames]:
    """Two runs of a task."""
    return RunNames(FIRST, parent), RunNames(SECOND, parent)


def test_driver_never_names_twice() -> None:
    """Goal: a driver's names are its own and all different, whatever it calls.

    Method: the same call and the same put, again and again, by two drivers."""
    made: list[bytes] = []
    for names in (Names(FIRST), Names(SECOND)):
        made += [names.next_task(b"f", b"args") for _ in range(100)]
        made += [names.next_put(b"value") for _ in range(100)]
    assert len({name[:16] for name in made}) == len(made) == 400


def test_two_runs_name_alike() -> None:
    """Goal: the same calls in the same order have the same names in every run of a task, and no id
    of one run is one of another.

    Method: tasks and puts, mixed, some of them equal; the results' names follow."""
    named = []
    for names in runs():
        made: list[bytes] = []
        for args in (b"1", b"2", b"1", b"1"):
            made += [names.next_task(b"f", args), names.next_put(args)]
        made += [return_id(TaskId(made[0]), index) for index in (0, 1, 64)]
        named.append(made)
    first, second = named
    assert [name_of(name) for name in first] == [name_of(name) for name in second]
    assert not set(first) & set(second)
    assert len({name_of(name) for name in first}) == len(first)


def test_equal_calls_are_told_apart_by_their_order() -> None:
    """Goal: the n-th of a thousand equal calls is the n-th in every run, whatever is called
    between.

    Method: a loop of equal calls; the second run makes other calls in between."""
    first, second = runs()
    loop = [first.next_task(b"f", b"x") for _ in range(1_000)]
    again = []
    for number in range(1_000):
        again.append(second.next_task(b"f", b"x"))
        second.next_task(b"g", number.to_bytes(4, "big"))
        second.next_put(b"x")
    assert list(map(name_of, loop)) == list(map(name_of, again))
    assert len(set(loop)) == 1_000


def test_what_a_name_depends_on() -> None:
    """Goal: another function, other arguments, other references, another parent, or a put in place
    of a task: another name.

    Method: a fresh run for each call, so that only the call counts."""
    other = task_id("other")
    x, y = ObjectId(b"x" * 20), ObjectId(b"y" * 20)
    calls = [
        RunNames(FIRST, PARENT).next_task(b"f", b"args"),
        RunNames(FIRST, PARENT).next_task(b"g", b"args"),
        RunNames(FIRST, PARENT).next_task(b"f", b"more"),
        RunNames(FIRST, PARENT).next_task(b"f", b"args", [x]),
        RunNames(FIRST, PARENT).next_task(b"f", b"args", [y]),
        RunNames(FIRST, PARENT).next_task(b"f", b"args", [x, y]),
        RunNames(FIRST, PARENT).next_task(b"f", b"args", [y, x]),
        RunNames(FIRST, other).next_task(b"f", b"args"),
        RunNames(FIRST, PARENT).next_put(b"args"),
        RunNames(FIRST, PARENT).next_put(b"more"),
        RunNames(FIRST, other).next_put(b"args"),
    ]
    assert len({name[:8] for name in calls}) == len(calls)
    assert {name[8:16] for name in calls} == {FIRST}


def test_references_count_by_their_names() -> None:
    """Goal: a task that is given what the run itself has made is known again, although that has
    another id in every run.

    Method: a put, and a task that takes it."""
    first, second = (names.next_task(b"f", b"", [names.next_put(b"v")]) for names in runs())
    assert first != second
    assert name_of(first) == name_of(second)


def test_runs_of_the_same_parent_name_know_each_other() -> None:
    """Goal: a child is known again when its parent, too, has another id in its second run."""
    parents = [names.next_task(b"f", b"") for names in runs()]
    first = RunNames(b"third...", parents[0]).next_put(b"v")
    second = RunNames(b"fourth..", parents[1]).next_put(b"v")
    assert name_of(first) == name_of(second)


def test_more_calls_than_can_be_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the table does not grow beyond its bound. Calls beyond it get names all the same, all
    different, and none that another run gives: nothing is taken for something else.

    Method: room for three; then ten more new calls, and the known ones again."""
    monkeypatch.setattr(RunNames, "MOST", 3)
    named = []
    for names in runs():
        known = [names.next_task(b"f", bytes([number])) for number in range(3)]
        beyond = [names.next_task(b"f", bytes([number])) for number in range(3, 13)]
        beyond.append(TaskId(names.next_put(b"v")[:16]))
        known += [names.next_task(b"f", bytes([number])) for number in range(3)]
        assert len(names.repeats) == 3
        named.append((known, beyond))
    (known, beyond), (known_again, beyond_again) = named
    assert list(map(name_of, known)) == list(map(name_of, known_again))
    assert len(set(map(name_of, [*known, *beyond]))) == len(known) + len(beyond)
    assert not set(map(name_of, [*known, *beyond])) & set(map(name_of, beyond_again))


def test_put_is_told_from_a_result() -> None:
    """Goal: the index says what an object is, whatever its name."""
    names = RunNames(FIRST, PARENT)
    assert names.next_put(b"v").endswith(PUT)
    assert not return_id(names.next_task(b"f", b""), (1 << 31) - 1).endswith(PUT)
    assert len(names.next_put(b"v")) == 20
