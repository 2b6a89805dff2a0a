"""Actors as a program sees them: state, order, handles, kinds, ends, errors, options."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import itertools
import os
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import freehold as fh
from api.conftest import returns_to, tables, until
from freehold.errors import (
    ActorAlreadyExistsError,
    ActorDiedError,
    GetTimeoutError,
    PendingCallsLimitExceededError,
    TaskCancelledError,
)

pytestmark = pytest.mark.usefixtures("two_cpus")


class Base:
    """Undecorated: only the leaf is an actor class."""

    def __init__(self, start: int = 0) -> None:
        self.count = start
        self.seen: list[Any] = []

    def add(self, by: int = 1) -> int:
        self.count += by
        return self.count


@fh.remote
class Counter(Base):
    """Counts."""

    def note(self, what: Any) -> None:
        self.seen.append(what)

    def noted(self) -> list[Any]:
        return self.seen

    def pid(self) -> int:
        return os.getpid()

    def wait_for(self, path: str) -> str:
        while not Path(path).exists():
            time.sleep(0.01)
        return path

    def fail(self) -> None:
        raise KeyError("nothing here")

    @fh.method(num_returns=2)
    def halves(self, text: str) -> tuple[str, str]:
        return text[: len(text) // 2], text[len(text) // 2 :]

    def keep(self, ref: list[Any]) -> None:
        self.kept = ref

    def make(self) -> Any:
        self.child = Counter.remote(100)
        return self.child

    def put(self, value: Any) -> list[Any]:
        return [fh.put(value)]

    def exit(self) -> None:
        fh.exit_actor()

    @staticmethod
    def double(x: int) -> int:
        return 2 * x

    @classmethod
    def kind(cls) -> str:
        return cls.__name__


@fh.remote
class Mourner:
    """Leaves a file when it ends in good order."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __shutdown__(self) -> None:
        Path(self.path).write_text("ended")

    def ping(self) -> int:
        return os.getpid()


@fh.remote
class Async:
    """Coroutines and plain methods side by side."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.blocked = threading.Event()

    async def wait(self) -> str:
        await self.event.wait()
        return "waited"

    async def set(self) -> None:
        self.event.set()

    def block(self) -> str:
        self.blocked.wait(30)
        return threading.current_thread().name

    async def unblock(self) -> None:
        self.blocked.set()

    async def sleep(self, seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    async def value_of(self, refs: list[Any]) -> Any:
        return await refs[0]

    async def name(self) -> str | None:
        await asyncio.sleep(0.001)
        return fh.get_runtime_context().get_task_name()

    async def fail(self) -> None:
        raise KeyError("async")

    async def hold_up(self, path: str) -> None:
        Path(path).write_text("begun")  # noqa: ASYNC240
        time.sleep(1.0)  # noqa: ASYNC251  # (the loop with it)

    async def make_tasks_otherwise(self) -> None:
        def factory(loop: Any, coroutine: Any, **more: Any) -> Any:
            return asyncio.Task(coroutine, loop=loop, **more)

        asyncio.get_running_loop().set_task_factory(factory)


@fh.remote(concurrency_groups={"one": 1})
class Threaded:
    """Several calls at once."""

    def __init__(self, parties: int) -> None:
        self.barrier = threading.Barrier(parties)

    def meet(self) -> bool:
        self.barrier.wait(20)
        return True

    def spin(self) -> None:
        while True:
            pass

    def ask(self, refs: list[Any]) -> Any:
        return fh.get(refs[0])

    @fh.method(concurrency_group="one")
    def alone(self) -> float:
        began = time.monotonic()
        time.sleep(0.05)
        return began


@fh.remote
def slowly(x: int) -> int:
    time.sleep(0.1)
    return x


@fh.remote
def add_to(counter: Any, by: int) -> int:
    return fh.get(counter.add.remote(by))


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


# -- state and order ------------------------------------------------------------------------------


def test_state_order_and_results() -> None:
    """Goal: an actor keeps its state between calls, and the calls of one caller run in order,
    also behind one whose argument is late. Method: a thousand calls in flight; a late argument in
    the middle; several returns; static and class methods; an inherited one."""
    counter = Counter.remote(10)
    assert fh.get([counter.add.remote() for _ in range(1000)]) == list(range(11, 1011))
    counter.note.remote("first")
    counter.note.remote(slowly.remote(2))
    counter.note.remote("third")
    assert fh.get(counter.noted.remote()) == ["first", 2, "third"]
    assert fh.get(counter.halves.remote("abcd")) == ["ab", "cd"]
    assert fh.get(counter.halves.options(num_returns=1).remote("abcd")) == ("ab", "cd")
    assert fh.get([counter.double.remote(4), counter.kind.remote()]) == [8, "Counter"]
    with pytest.raises(KeyError, match=r"Counter\.fail\(\) raised KeyError"):
        fh.get(counter.fail.remote())
    assert fh.get(counter.add.remote(0)) == 1010


def test_large_values_and_references() -> None:
    """Goal: arguments and results of any size, and references inside them, as for tasks. Method: a
    megabyte both ways; a reference that the actor keeps holds its value."""
    counter = Counter.remote()
    blob = bytes(1 << 20)
    counter.note.remote(blob)
    assert fh.get(counter.noted.remote()) == [blob]
    ref = fh.put([1, 2])
    fh.get(counter.keep.remote([ref]))
    fh.get(counter.note.remote([ref]))
    del ref
    again = fh.get(counter.noted.remote())[1][0]
    assert fh.get(again) == [1, 2]


# -- handles --------------------------------------------------------------------------------------


def test_handles_are_names() -> None:
    """Goal: a handle is compared by its actor, copied, passed, returned and stored; its attributes
    are the methods. Method: a set, copies, a task that calls, a value that holds it, ``dir``."""
    counter = Counter.remote()
    same = fh.get(fh.put([counter]))[0]
    assert same == counter == copy.deepcopy(counter)
    assert len({counter, same, Counter.remote()}) == 2
    assert fh.get(add_to.remote(counter, 5)) == 5
    assert fh.get(add_to.remote(same, 5)) == 10
    assert fh.get(counter.add.remote()) == 11
    assert {"add", "note", "halves"} <= set(dir(counter))
    assert not hasattr(counter, "missing")
    with pytest.raises(AttributeError, match=r"Counter has no method 'missing'; it has: add"):
        counter.missing.remote()
    with pytest.raises(TypeError, match=r"Counter\.add is a method of an actor.*remote"):
        counter.add()
    with pytest.raises(TypeError, match=r"Counter\.add\.remote\(\): too many"):
        counter.add.remote(1, 2)
    with pytest.raises(TypeError, match=r"Counter\.remote\(\): too many"):
        Counter.remote(1, 2)


def test_the_last_handle_ends_it_after_its_calls(tmp_path: Path) -> None:
    """Goal: an actor ends when nobody can name it and its calls are done, and in good order.
    Method: drop the only handle with a call blocked; release it; the hook runs, the process goes,
    the books
    are as before."""
    before = tables()
    counter = Counter.remote()
    pid = fh.get(counter.pid.remote())
    gate = tmp_path / "gate"
    calls = [counter.wait_for.remote(str(gate)), counter.add.remote()]
    del counter
    assert fh.wait(calls, num_returns=1, timeout=0.2)[0] == []
    gate.touch()
    assert fh.get(calls) == [str(gate), 1]
    assert until(lambda: not alive(pid))
    mourner = Mourner.remote(str(tmp_path / "hook"))
    pid = fh.get(mourner.ping.remote())
    del mourner, calls
    assert until(lambda: not alive(pid))
    assert (tmp_path / "hook").read_text() == "ended"
    assert returns_to(before, "actors callees objects tasks granted") == {}


def test_what_it_made_outlives_it() -> None:
    """Goal: an actor that ends in good order hands over what it owns, as other workers do. Method:
    it puts a value; its last handle goes; the value is read from its reference."""
    counter = Counter.remote()
    pid = fh.get(counter.pid.remote())
    ref = fh.get(counter.put.remote([1, 2, 3]))[0]
    del counter
    assert until(lambda: not alive(pid))
    assert fh.get(ref, timeout=20) == [1, 2, 3]


def test_handles_in_other_hands_keep_it() -> None:
    """Goal: copies in other processes keep the actor alive, and so does a value that contains one.
    Method: an actor made by an actor; its maker's handle is the only one for a while."""
    maker = Counter.remote()
    child = fh.get(maker.make.remote())
    assert fh.get(child.add.remote()) == 101
    del child
    again = fh.get(maker.make.remote())  # (the first child is dropped)
    assert fh.get(again.add.remote()) == 101
    pid = fh.get(again.pid.remote())
    del maker  # and with it the owner of the child
    assert until(lambda: not alive(pid))
    with pytest.raises(ActorDiedError, match="the process that created it has ended"):
        fh.get(again.add.remote(), timeout=20)


# -- kinds ----------------------------------------------------------------------------------------


def test_threads() -> None:
    """Goal: ``max_concurrency`` calls run at once, may wait for each other, and may call ``get``;
    groups have limits of their own. Method: a barrier; gets inside; a group of one."""
    actor = Threaded.options(max_concurrency=3).remote(3)
    assert fh.get([actor.meet.remote() for _ in range(6)], timeout=20) == [True] * 6
    refs = [[slowly.remote(n)] for n in range(3)]
    assert fh.get([actor.ask.remote(ref) for ref in refs], timeout=20) == [0, 1, 2]
    began = sorted(fh.get([actor.alone.remote() for _ in range(3)], timeout=20))
    assert all(later - earlier >= 0.05 for earlier, later in itertools.pairwise(began))
    spinning = actor.spin.remote()
    assert fh.wait([spinning], timeout=0.2)[0] == []
    fh.cancel(spinning)
    with pytest.raises(TaskCancelledError):
        fh.get(spinning, timeout=20)


def test_context_variables_of_one_call_are_not_the_next_ones() -> None:
    """Goal: a coroutine sees what the constructor has set, also if it begins at another's end."""

    @fh.remote(max_concurrency=1)
    class Setting:
        def __init__(self) -> None:
            self.variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
            self.variable.set("constructor")

        async def change(self) -> str:
            seen = self.variable.get()
            self.variable.set("call")
            await asyncio.sleep(0.01)
            return seen

    actor = Setting.remote()
    assert fh.get([actor.change.remote() for _ in range(4)]) == ["constructor"] * 4


def test_coroutines_answer_and_end_whatever_comes_together(tmp_path: Path) -> None:
    """Goal: a call that is cancelled, calls that answer at once and one that holds the loop up may
    come in one turn of it. Method: submit all while the loop is held up; once with a task factory
    of the actor's own.
    """
    actor = Async.remote()
    for round_ in range(2):
        begun = tmp_path / str(round_)
        held = actor.hold_up.remote(str(begun))
        assert until(begun.exists)
        cancelled = [actor.wait.remote() for _ in range(3)]
        rest = [actor.sleep.remote(0) for _ in range(100)]
        for ref in cancelled:
            fh.cancel(ref)
        assert fh.get(rest, timeout=20) == [0] * 100
        for ref in cancelled:
            with pytest.raises(TaskCancelledError):
                fh.get(ref, timeout=20)
        fh.get(held)
        fh.get(actor.make_tasks_otherwise.remote())


def test_coroutines() -> None:
    """Goal: coroutine methods run at once on one loop, which a plain method never blocks; each
    knows
    which call it is. Method: waits that a later call ends; a blocked plain method beside them."""
    actor = Async.remote()
    waits = [actor.wait.remote() for _ in range(20)]
    blocked = actor.block.remote()
    assert fh.get(actor.value_of.remote([slowly.remote(7)]), timeout=20) == 7
    assert fh.get([actor.name.remote() for _ in range(3)]) == ["Async.name"] * 3
    assert fh.wait([*waits, blocked], num_returns=21, timeout=0.1)[0] == []
    fh.get(actor.set.remote())
    assert fh.get(waits, timeout=20) == ["waited"] * 20
    fh.get(actor.unblock.remote())
    assert fh.get(blocked, timeout=20) != "MainThread"
    began = time.monotonic()
    assert sum(fh.get([actor.sleep.remote(0.2) for _ in range(200)], timeout=20)) > 39
    assert time.monotonic() - began < 10
    sleeping = actor.sleep.remote(1000)
    assert fh.wait([sleeping], timeout=0.1)[0] == []
    fh.cancel(sleeping)
    with pytest.raises(TaskCancelledError):
        fh.get(sleeping, timeout=20)
    with pytest.raises(KeyError, match="async"):
        fh.get(actor.fail.remote())


# -- ends -----------------------------------------------------------------------------------------


def test_a_constructor_that_raises() -> None:
    """Goal: the first call says that the actor could not be made, with the cause and where it was
    raised. Method: a bad argument; two calls."""
    counter = Counter.remote("x")  # type: ignore[arg-type]
    broken = Mourner.options(max_restarts=3).remote(None)  # type: ignore[arg-type]
    assert isinstance(fh.get(broken.ping.remote()), int)  # (its hook alone would fail)

    @fh.remote
    class Broken:
        def __init__(self) -> None:
            raise ValueError("no such table")

        def ping(self) -> None:
            pass

    actor = Broken.remote()
    for _ in range(2):
        with pytest.raises(
            ActorDiedError, match=r"The actor died: the constructor of Broken.*no such"
        ) as caught:
            fh.get(actor.ping.remote(), timeout=20)
        assert isinstance(caught.value.__cause__, ValueError)
        cause: Any = caught.value.__cause__
        assert "test_actors.py" in cause.traceback_text
    with pytest.raises(TypeError, match=r"Counter\.add"):
        fh.get(counter.add.remote())


def test_kill_and_exit(tmp_path: Path) -> None:
    """Goal: ``kill`` ends the actor without its hook, ``exit_actor`` with it, both for good.
    Method:
    what runs, what is queued, and what comes later each say how it ended."""
    counter = Counter.options(max_restarts=3).remote()
    pid = fh.get(counter.pid.remote())
    calls = [counter.wait_for.remote(str(tmp_path / "never")), counter.add.remote()]
    assert fh.wait(calls, timeout=0.1)[0] == []
    fh.kill(counter)
    for call in [*calls, counter.add.remote()]:
        with pytest.raises(ActorDiedError, match=r"Counter: it was killed by kill\(\)"):
            fh.get(call, timeout=20)
    assert until(lambda: not alive(pid))
    counter = Counter.options(max_restarts=3).remote()
    calls = [counter.add.remote(), counter.exit.remote(), counter.add.remote()]
    assert fh.get(calls[0]) == 1
    for call in [*calls[1:], counter.add.remote()]:
        with pytest.raises(ActorDiedError, match=r"it has called exit_actor\(\)"):
            fh.get(call, timeout=20)
    with pytest.raises(RuntimeError, match="in a method of an actor"):
        fh.exit_actor()


def test_kill_one_life() -> None:
    """Goal: ``no_restart=False`` ends one life. Method: the state is the constructor's again."""
    counter = Counter.options(max_restarts=1).remote(5)
    assert fh.get(counter.add.remote()) == 6
    pid = fh.get(counter.pid.remote())
    fh.kill(counter, no_restart=False)
    assert until(lambda: not alive(pid))
    assert fh.get(counter.add.options(max_task_retries=1).remote(), timeout=20) == 6


# -- options --------------------------------------------------------------------------------------


def test_pending_calls_are_limited(tmp_path: Path) -> None:
    """Goal: a caller that is ahead by ``max_pending_calls`` is told so. Method: a blocked actor;
    the
    call after the limit raises; when the others are done it is accepted."""
    gate = tmp_path / "gate"
    counter = Counter.options(max_pending_calls=2).remote()
    calls = [counter.wait_for.remote(str(gate)), counter.add.remote()]
    with pytest.raises(PendingCallsLimitExceededError, match="2 calls of Actor"):
        counter.add.remote()
    gate.touch()
    fh.get(calls)
    assert fh.get(counter.add.remote()) == 2


def test_resources_are_held_for_life() -> None:
    """Goal: an actor takes no CPU unless it asks for one, and keeps what it asked for. Method: two
    that hold all CPUs keep a task waiting until one ends; many without run beside."""
    idle = [Counter.remote() for _ in range(3)]
    assert fh.get([actor.add.remote() for actor in idle]) == [1, 1, 1]
    holders = [Counter.options(num_cpus=1).remote() for _ in range(2)]
    assert fh.get([actor.add.remote() for actor in holders], timeout=20) == [1, 1]
    waiting = slowly.remote(3)
    with pytest.raises(GetTimeoutError):
        fh.get(waiting, timeout=0.5)
    holders.pop()
    assert fh.get(waiting, timeout=20) == 3


WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: Counter(), TypeError, r"create an actor with Counter\.remote"),
    (lambda: fh.remote(Counter), TypeError, "is an actor class already"),
    (lambda: types.new_class("Sub", (Counter,)), TypeError, "Counter is an .* cannot be a base"),
    (lambda: Counter.options(max_restart=1), ValueError, "did you mean max_restarts"),
    (lambda: Counter.options(max_restarts=-2), ValueError, "max_restarts must be >= -1"),
    (lambda: Counter.options(max_concurrency=0), ValueError, "max_concurrency must be >= 1"),
    (lambda: Counter.options(max_pending_calls=0), ValueError, "max_pending_calls"),
    (lambda: Counter.options(concurrency_groups=["io"]), TypeError, "concurrency_groups must be"),
    (lambda: Counter.options(concurrency_groups={"io": 0}), ValueError, "limit of group 'io'"),
    (lambda: Threaded.options(concurrency_groups={"io": 1}), ValueError, "group 'one'.*has: io"),
    (lambda: fh.method(num_return=2), ValueError, "did you mean num_returns"),
    (lambda: fh.kill("x"), TypeError, "kill\\(\\) takes the handle"),  # type: ignore[arg-type]
    (lambda: fh.remote(max_restarts=True), TypeError, "max_restarts must be an integer"),
]


@pytest.mark.parametrize(("wrong", "kind", "words"), WRONG)
def test_mistakes_are_named(wrong: Callable[[], Any], kind: type[Exception], words: str) -> None:
    """Goal: each mistake raises where it is made, and says what would be right. Method: make it."""
    with pytest.raises(kind, match=words):
        wrong()


# -- names ----------------------------------------------------------------------------------------


@fh.remote
def same_by_name(name: str) -> int:
    counter = Counter.options(name=name, get_if_exists=True).remote()
    count = fh.get(counter.add.remote())
    time.sleep(0.5)  # (so that none of them has let go before the last has asked)
    return count


def test_names() -> None:
    """Goal: a name leads any process of the job to the actor, one actor has it, and it is free
    when that has ended. Method: find it, take it twice, in a race too; drop the last handle; kill.
    """
    counter = Counter.options(name="one").remote()
    assert fh.get_actor("one") == counter
    assert Counter.options(name="one", get_if_exists=True).remote() == counter
    assert fh.list_named_actors() == ["one"]
    with pytest.raises(ActorAlreadyExistsError, match="has the name 'one'"):
        Counter.options(name="one").remote()
    other = Counter.options(name="one", namespace="elsewhere").remote(5)
    assert fh.get(fh.get_actor("one", "elsewhere").add.remote()) == 6
    with pytest.raises(ValueError, match="no living actor has the name 'two'"):
        fh.get_actor("two")
    fh.kill(other)
    with pytest.raises(ValueError, match="in namespace 'elsewhere'"):
        fh.get_actor("one", "elsewhere")
    del counter
    assert until(lambda: fh.list_named_actors(all_namespaces=True) == [])
    assert sorted(fh.get([same_by_name.remote("race") for _ in range(2)], timeout=20)) == [1, 2]
