"""``map`` and ``starmap``: order, batches, errors in place, bounded, lazy, closed."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import freehold as fh
from freehold import errors
from freehold.api.mapping import BATCH_ITEMS, WINDOW

from .conftest import returns_to, tables, until

pytestmark = pytest.mark.usefixtures("two_cpus")


@fh.remote
def square(x: int) -> int:
    return x * x


@fh.remote
def add(x: int, y: int = 100) -> int:
    return x + y


def test_values_in_order() -> None:
    """Goal: as the built-in map, for more items than a batch takes, and for none."""
    assert list(square.map(range(5000))) == [x * x for x in range(5000)]
    assert list(square.map([])) == []
    assert list(square.map(iter(range(10)))) == [x * x for x in range(10)]
    assert list(fh.map(lambda x: x + 1, range(10))) == list(range(1, 11))


def test_several_iterables_and_tuples() -> None:
    """Goal: one argument from each, until the shortest ends; tuples of any length with starmap;
    references arrive as their values, also among others."""
    assert list(add.map([1, 2, 3], itertools.count(10))) == [11, 13, 15]
    assert list(add.starmap([(1, 2), (3,), (4, 5)], batch_size=3)) == [3, 103, 9]
    assert list(fh.starmap(add, [(1, 2)])) == [3]
    assert list(fh.map(add, [1, 2], [3, 4])) == [4, 6]
    refs = [fh.put(i) for i in range(20)]
    assert list(square.map(refs, batch_size=7)) == [i * i for i in range(20)]


def test_as_they_come(tmp_path: Path) -> None:
    """Goal: with ordered=False a slow item holds up nobody. Method: the first one waits for a file
    that is written when the others are there."""

    @fh.remote(num_cpus=0.5)
    def wait_for(path: str) -> str:
        while path and not Path(path).exists():
            time.sleep(0.01)
        return path

    values = wait_for.map([str(tmp_path / "there"), *[""] * 20], ordered=False)
    assert [next(values) for _ in range(20)] == [""] * 20
    (tmp_path / "there").touch()
    assert list(values) == [str(tmp_path / "there")]


def words(error: ValueError) -> str:
    """What the function said in its error, which must be that of a task."""
    assert isinstance(error, errors.TaskError)
    assert error.function_name.endswith("picky")
    return str(error.cause)


@pytest.mark.parametrize("batch_size", [None, 1, 4, 100])
def test_errors_in_place(batch_size: int | None) -> None:
    """Goal: an item that raises fails alone, where it stands, as the error of a task; the iterator
    goes on after it. Method: every third item, with batches of each kind."""

    @fh.remote
    def picky(x: int) -> int:
        if x % 3 == 0:
            raise ValueError(f"no {x}")
        return x

    values = picky.map(range(10), batch_size=batch_size)
    seen: list[Any] = []
    while True:
        try:
            seen.append(next(values))
        except StopIteration:
            break
        except ValueError as error:
            seen.append(words(error))
    expected = [f"no {x}" if x % 3 == 0 else x for x in range(10)]
    assert seen == expected
    kept = picky.map(range(10), batch_size=batch_size, return_exceptions=True)
    assert [words(x) if isinstance(x, ValueError) else x for x in kept] == expected


def test_a_death_fails_only_the_culprit() -> None:
    """Goal: a batch that dies with its worker is run again item by item."""

    @fh.remote(max_retries=0)
    def deadly(x: int) -> int:
        if x == 5:
            os._exit(3)
        return x

    outcomes = list(deadly.map(range(12), batch_size=6, return_exceptions=True))
    died = [type(outcome) for outcome in outcomes if not isinstance(outcome, int)]
    assert died == [errors.WorkerDiedError]
    assert [outcome for outcome in outcomes if isinstance(outcome, int)] == [
        *range(5),
        *range(6, 12),
    ]


def test_options_that_are_about_one_call() -> None:
    """Goal: a timeout is each item's own, and so are retries."""

    @fh.remote(timeout=0.5, retry_exceptions=[KeyError], max_retries=1)
    def slow(x: float) -> float:
        if x < 0:
            raise KeyError(x)
        time.sleep(x)
        return x

    outcomes = list(slow.map([0.3, 1000, 0.3, -1, 0.3], return_exceptions=True))
    kinds = [type(outcome).__mro__[0] for outcome in outcomes]
    assert outcomes[0::2] == [0.3] * 3
    assert kinds[1] is errors.TaskTimeoutError
    assert isinstance(outcomes[3], KeyError)


def test_quick_items_travel_together() -> None:
    """Goal: the batches of an endless iterable grow to their bound; one of known length is not
    given away in a few large ones. Method: a worker says which task an item is run in."""

    @fh.remote
    def which(x: int) -> str | None:
        return fh.get_runtime_context().get_task_id()

    def sizes(tasks: Iterator[str | None]) -> list[int]:
        return [len(list(group)) for _, group in itertools.groupby(tasks)]

    endless = which.map(itertools.count())
    grown = sizes(itertools.islice(endless, 20_000))
    endless.close()
    assert grown[0] == 1
    assert max(grown) > 100
    assert max(grown) <= BATCH_ITEMS
    assert all(after <= 2 * max(grown[: at + 1]) for at, after in enumerate(grown[1:]))
    assert max(sizes(which.map(range(1000)))) <= 1000 // 16


def test_a_bounded_number_is_under_way() -> None:
    """Goal: an iterable is asked for no more than the window holds while nobody takes values, and
    is asked from the first moment on. Method: a generator that counts."""
    asked = itertools.count()

    def items() -> Iterator[int]:
        for _ in range(10_000):
            next(asked)
            yield 1

    values = square.map(items(), batch_size=5)
    assert next(asked) == WINDOW * 2 * 5
    assert next(values) == 1
    values.close()
    assert list(values) == []


def test_close_ends_what_is_under_way(tmp_path: Path) -> None:
    """Goal: nothing runs on, and nothing is kept. Method: sleepers that mark their end; the
    owner's tables."""

    @fh.remote
    def sleeper(path: str) -> None:
        try:
            Path(path).touch()
            time.sleep(1000)
        finally:
            Path(path + ".end").touch()

    assert list(square.map(range(10))) == [x * x for x in range(10)]
    before = tables()
    values = sleeper.map(str(tmp_path / f"{i}") for i in range(100))
    assert until(lambda: list(tmp_path.iterdir()))
    values.close()
    assert until(lambda: len(list(tmp_path.iterdir())) == 2 * len(list(tmp_path.glob("*.end"))))
    del values
    assert returns_to(before, "owner") == {}


def test_inside_a_task() -> None:
    """Goal: a task maps as a driver does, with its own CPU lent out while it waits."""

    @fh.remote
    def parent(n: int) -> int:
        return sum(square.map(range(n)))

    assert fh.get([parent.remote(50) for _ in range(4)], timeout=60) == [40425] * 4


wrongly: Any = square  # (what a type checker refuses too)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wrongly.map(), "takes at least one iterable"),
        (lambda: wrongly.map(5), "takes iterables, not int 5"),
        (lambda: wrongly.map(fh.put([1])), "not an ObjectRef"),
        (lambda: wrongly.map([1], batch_size=0), "batch_size must be >= 1"),
        (lambda: wrongly.map([1], batch_size=1.5), "batch_size must be an integer"),
        (lambda: wrongly.options(num_returns=2).map([1]), "one return value"),
        (lambda: fh.starmap(5, [1]), "takes a function"),  # type: ignore[arg-type]
        (lambda: list(add.map([1], [2], [3])), "takes from 1 to 2 positional arguments"),
    ],
)
def test_wrong_calls(call: Any, message: str) -> None:
    """Goal: refused by name, in the call itself."""
    with pytest.raises((TypeError, ValueError), match=message):
        call()
