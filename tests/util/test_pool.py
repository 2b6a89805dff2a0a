"""``ActorPool``: order, timeouts, errors, and actors that come and go."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import freehold as fh
from freehold.util import ActorPool

pytestmark = pytest.mark.usefixtures("two_cpus")


@fh.remote
class Doubler:
    def double(self, x: int) -> int:
        return 2 * x

    def after(self, path: str, x: int) -> int:
        while path and not Path(path).exists():
            time.sleep(0.005)
        return x

    def fail(self, x: int) -> int:
        raise KeyError(x)


def double(actor: Any, x: int) -> Any:
    return actor.double.remote(x)


def after(actor: Any, item: tuple[str, int]) -> Any:
    return actor.after.remote(*item)


def fail(actor: Any, x: int) -> Any:
    return actor.fail.remote(x)


def test_map_keeps_the_order_and_map_unordered_does_not_wait_for_it(tmp_path: Path) -> None:
    """Goal: the two orders. Method: the first of three items takes until a file is there, which is
    made when the others have come."""
    pool = ActorPool([Doubler.remote(), Doubler.remote()])
    assert list(pool.map(double, range(7))) == [0, 2, 4, 6, 8, 10, 12]
    go = tmp_path / "go"
    results = pool.map_unordered(after, [(str(go), 1), ("", 2), ("", 3)])
    assert [next(results), next(results)] == [2, 3]
    go.touch()
    assert list(results) == [1]
    assert (pool.has_next(), pool.has_free()) == (False, True)


def test_timeouts_and_giving_up(tmp_path: Path) -> None:
    """Goal: a timeout takes nothing away; ``ignore_if_timedout`` gives the result up. Method: a
    call that waits for a file, on a pool of one, with another behind it."""
    pool = ActorPool([Doubler.remote()])
    go = tmp_path / "go"
    pool.submit(after, (str(go), 1))
    pool.submit(after, ("", 2))
    assert (pool.has_free(), pool.pop_idle()) == (False, None)
    with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
        pool.get_next(timeout=0.05)
    with pytest.raises(ValueError, match=">= 0"):
        pool.get_next(timeout=-1)
    with pytest.raises(TimeoutError):
        pool.get_next_unordered(timeout=0)
    with pytest.raises(ValueError, match="after get_next_unordered"):
        pool.get_next()
    assert pool.get_next_unordered(timeout=0.05, ignore_if_timedout=True) is None
    go.touch()
    assert pool.get_next_unordered(timeout=20) == 2
    with pytest.raises(StopIteration):
        pool.get_next()


def test_an_error_leaves_the_pool_whole() -> None:
    """Goal: a failed call raises at its place, and its actor goes on. Method: failures between
    good calls on one actor."""
    pool = ActorPool([Doubler.remote()])
    for function, x in ((double, 1), (fail, 2), (double, 3)):
        pool.submit(function, x)
    assert pool.get_next() == 2
    with pytest.raises(KeyError):
        pool.get_next()
    assert (pool.get_next(), pool.has_free()) == (6, True)


def test_actors_come_and_go() -> None:
    """Goal: ``push`` puts an actor to work at once, ``pop_idle`` takes one out; what is no member
    or one already is refused, and so is a function that calls nothing. Method: each once."""
    first, second = Doubler.remote(), Doubler.remote()
    pool: ActorPool[Any] = ActorPool([])
    with pytest.raises(ValueError, match="no actors"):
        pool.submit(double, 1)
    pool.push(first)
    with pytest.raises(ValueError, match="already"):
        pool.push(first)
    with pytest.raises(TypeError, match="handles"):
        pool.push(Doubler)
    pool.submit(double, 1)
    with pytest.raises(ValueError, match="already"):
        pool.push(first)  # busy
    pool.submit(double, 2)
    pool.push(second)
    assert (pool.get_next(), pool.get_next()) == (2, 4)
    with pytest.raises(TypeError, match="returns the reference"):
        pool.submit(lambda actor, x: x, 3)
    assert not pool.has_next()
    taken = {pool.pop_idle(), pool.pop_idle()}
    assert (taken, pool.pop_idle()) == ({first, second}, None)
