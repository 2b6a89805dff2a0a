"""What a Ray Core program relies on: actors, their handles, names and ends; the runtime context."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import freehold as fh
from api.conftest import until

pytestmark = pytest.mark.usefixtures("two_cpus")


class Plain:
    """An undecorated base."""

    def __init__(self, start: int = 0) -> None:
        self.seen = [start]

    def note(self, x: Any) -> int:
        self.seen.append(x)
        return len(self.seen)

    def noted(self) -> list[Any]:
        return self.seen

    def leave(self) -> None:
        fh.exit_actor()

    def context(self) -> dict[str, Any]:
        return fh.get_runtime_context().get()

    @staticmethod
    def double(x: int) -> int:
        return 2 * x

    @classmethod
    def kind(cls) -> str:
        return cls.__name__


@fh.remote
class Notes(Plain):
    """The leaf."""


def test_classes_are_created_by_remote_only_and_are_no_bases() -> None:
    """Goal: calling an actor class, deriving from it, or calling a method directly is a TypeError
    that says what to write; inherited, static and class methods work."""
    with pytest.raises(TypeError, match=r"Notes\.remote"):
        Notes()
    with pytest.raises(TypeError, match="cannot be a base"):

        class More(Notes):
            pass

    notes = Notes.remote()
    with pytest.raises(TypeError, match=r"\.remote"):
        notes.note(1)
    with pytest.raises(AttributeError, match="no method 'nte'"):
        notes.nte.remote(1)
    assert fh.get([notes.double.remote(4), notes.kind.remote()]) == [8, "Notes"]
    assert {"note", "noted", "double", "kind"} <= set(dir(notes))


def test_a_wrong_call_fails_where_it_is_made() -> None:
    """Goal: arguments that do not fit raise at ``.remote()``, for constructors and methods."""
    with pytest.raises(TypeError, match="Notes"):
        Notes.remote(1, 2)
    with pytest.raises(TypeError, match="note"):
        Notes.remote().note.remote()


def test_options_of_actors_are_checked() -> None:
    """Goal: unknown options and impossible values raise where they are written."""
    for options, kind, word in (
        ({"num_returns": 2}, ValueError, "num_returns"),
        ({"max_restarts": -2}, ValueError, "max_restarts"),
        ({"max_concurrency": 0}, ValueError, "max_concurrency"),
        ({"max_pending_calls": 0}, ValueError, "max_pending_calls"),
        ({"get_if_exists": True}, ValueError, "name"),
        ({"name": ""}, ValueError, "empty"),
        ({"concurrency_groups": {"io": 0}}, ValueError, "io"),
    ):
        with pytest.raises(kind, match=word):
            Notes.options(**options)
    with pytest.raises(ValueError, match="num_cpus"):
        fh.method(num_cpus=1)


def test_calls_of_one_caller_run_in_order_also_behind_a_late_argument() -> None:
    """Goal: first called, first run, whatever its arguments wait for."""

    @fh.remote
    def late() -> str:
        return "late"

    notes = Notes.remote()
    notes.note.remote(late.remote())
    for i in range(5):
        notes.note.remote(i)
    assert fh.get(notes.noted.remote()) == [0, "late", 0, 1, 2, 3, 4]


def test_handles_can_be_passed_stored_and_compared() -> None:
    """Goal: a handle names the same actor wherever it goes, and keeps it alive."""

    @fh.remote
    def use(handles: list[fh.ActorHandle[Any]]) -> Any:
        fh.get(handles[0].note.remote("task"))
        return handles[0]

    notes = Notes.remote()
    back = fh.get(use.remote([notes]))
    assert (back == notes, hash(back) == hash(notes)) == (True, True)
    del notes
    assert fh.get(back.noted.remote()) == [0, "task"]


def test_calls_made_before_the_last_handle_went_run_to_their_end() -> None:
    """Goal: dropping the handle drops no call."""
    notes = Notes.remote()
    refs = [notes.note.remote(i) for i in range(20)]
    del notes
    assert fh.get(refs) == list(range(2, 22))


def test_an_error_does_not_end_an_actor_and_a_constructor_that_fails_does() -> None:
    """Goal: a raising method is a failed call; a raising constructor is a dead actor whose calls
    raise ActorDiedError with the cause."""

    @fh.remote
    class Frail:
        def __init__(self, sound: bool) -> None:
            if not sound:
                raise LookupError("no table")

        def fail(self) -> None:
            raise LookupError("call")

        def ping(self) -> str:
            return "pong"

    frail = Frail.remote(True)
    with pytest.raises(LookupError, match="call"):
        fh.get(frail.fail.remote())
    assert fh.get(frail.ping.remote()) == "pong"
    with pytest.raises(fh.errors.ActorDiedError) as raised:
        fh.get(Frail.remote(False).ping.remote())
    assert isinstance(raised.value.__cause__, LookupError)


def test_kill_and_exit() -> None:
    """Goal: after ``kill`` and ``exit_actor`` calls raise ActorDiedError; with ``no_restart=False``
    the actor is made again by its constructor alone."""
    notes = Notes.options(max_restarts=1).remote(7)
    fh.get(notes.note.remote(1))
    fh.kill(notes, no_restart=False)

    def again() -> Any:
        try:
            return fh.get(notes.noted.remote())
        except fh.errors.ActorUnavailableError:
            return None

    assert until(lambda: again() == [7])
    fh.kill(notes)
    with pytest.raises(fh.errors.ActorDiedError):
        fh.get(notes.noted.remote())
    leaver = Notes.options(max_restarts=-1).remote()
    with pytest.raises(fh.errors.ActorDiedError):
        fh.get(leaver.leave.remote())
    with pytest.raises(fh.errors.ActorDiedError):
        fh.get(leaver.noted.remote())
    with pytest.raises(RuntimeError, match="actor"):
        fh.exit_actor()
    with pytest.raises(TypeError, match="kill"):
        fh.kill(Notes)  # type: ignore[arg-type]


def test_named_actors() -> None:
    """Goal: one living actor for a name; found by it; ValueError for a name that nobody has; free
    again after its end; ``get_if_exists`` gives the one there is."""
    notes = Notes.options(name="board").remote(1)
    assert fh.get_actor("board") == notes
    assert Notes.options(name="board", get_if_exists=True).remote(2) == notes
    with pytest.raises(fh.errors.ActorAlreadyExistsError) as raised:
        Notes.options(name="board").remote()
    assert isinstance(raised.value, ValueError)
    assert "board" in fh.list_named_actors()
    for wrong in ("nobody", ""):
        with pytest.raises(ValueError, match="name"):
            fh.get_actor(wrong)
    with pytest.raises(ValueError, match="elsewhere"):
        fh.get_actor("board", namespace="elsewhere")
    fh.kill(notes)
    assert until(lambda: "board" not in fh.list_named_actors())
    assert fh.get(Notes.options(name="board").remote(3).noted.remote()) == [3]


def test_the_kinds_of_actors() -> None:
    """Goal: threads with ``max_concurrency``, coroutines side by side with ``async def``, a group's
    own limit; a plain method of an async actor does not block the loop, where Ray's does."""

    @fh.remote(max_concurrency=2, concurrency_groups={"ask": 1})
    class Threaded:
        def __init__(self) -> None:
            self.barrier = threading.Barrier(2)
            self.asked = threading.Event()

        def meet(self) -> str:
            self.barrier.wait(20)
            self.asked.wait(20)
            return "met"

        @fh.method(concurrency_group="ask")
        def ask(self) -> str:
            self.asked.set()
            return "asked"

    threaded: Any = Threaded.remote()
    meeting = [threaded.meet.remote(), threaded.meet.remote()]
    assert fh.get([threaded.ask.remote(), *meeting], timeout=20) == ["asked", "met", "met"]

    @fh.remote
    class Mixed:
        def __init__(self) -> None:
            self.loop_ran = threading.Event()

        def block(self) -> bool:
            return self.loop_ran.wait(20)

        async def run(self) -> int:
            await asyncio.sleep(0)
            self.loop_ran.set()
            return 1

    mixed: Any = Mixed.remote()
    assert fh.get([mixed.block.remote(), mixed.run.remote()], timeout=20) == [True, 1]


def test_a_limit_of_pending_calls() -> None:
    """Goal: the call above ``max_pending_calls`` raises where it is made."""

    @fh.remote(max_pending_calls=2)
    class Slow:
        def __init__(self) -> None:
            self.event = asyncio.Event()

        async def wait(self) -> None:
            await self.event.wait()

    slow: Any = Slow.remote()
    refs = [slow.wait.remote(), slow.wait.remote()]
    with pytest.raises(fh.errors.PendingCallsLimitExceededError, match="max_pending_calls"):
        slow.wait.remote()
    fh.kill(slow)
    assert len(refs) == 2


def test_force_does_not_go_with_calls_of_actors() -> None:
    """Goal: cancelling one call never kills an actor without ``fh.kill``: Ray refuses ``force``;
    here a threaded or async actor's call is interrupted and the actor lives."""

    @fh.remote
    class Waiter:
        async def wait(self) -> None:
            await asyncio.sleep(1000)

        async def ping(self) -> str:
            return "pong"

    waiter: Any = Waiter.remote()
    ref = waiter.wait.remote()
    assert fh.get(waiter.ping.remote()) == "pong"
    fh.cancel(ref)
    with pytest.raises(fh.errors.TaskCancelledError):
        fh.get(ref, timeout=20)
    assert fh.get(waiter.ping.remote()) == "pong"


def test_the_runtime_context() -> None:
    """Goal: ids are hex strings of their place, the same job everywhere, None where they do not
    apply; the task's name and resources."""

    @fh.remote(num_cpus=0.5, name="titled")
    def look() -> dict[str, Any]:
        context = fh.get_runtime_context()
        return {
            **context.get(),
            "resources": context.get_assigned_resources(),
            "cancelled": context.is_cancelled(),
        }

    context = fh.get_runtime_context()
    assert (context.get_task_id(), context.get_actor_id(), context.get_task_name()) == (None,) * 3
    task = look.remote()
    found = fh.get(task)
    assert found["task_id"] == task.task_id()
    assert (found["job_id"], found["node_id"]) == (context.get_job_id(), context.get_node_id())
    assert (found["task_name"], found["resources"]) == ("titled", {"CPU": 0.5})
    assert found["worker_id"] != context.get_worker_id()
    assert found["cancelled"] is False
    notes = Notes.remote()
    first, second = fh.get([notes.context.remote(), notes.context.remote()])
    assert first["actor_id"] == second["actor_id"]
    assert first["task_id"] != second["task_id"]
    for name, value in first.items():
        if name.endswith("_id"):
            assert bytes.fromhex(value), name
