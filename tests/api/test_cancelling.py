"""The one rule of cancellation, for what runs anywhere: told, given a grace, killed by force."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path
from typing import Any

import pytest

import freehold as fh
from freehold.core.cancelling import GRACE
from freehold.errors import TaskCancelledError

from .conftest import until

pytestmark = pytest.mark.usefixtures("two_cpus")

#: What the machine may add to a promised time: it is shared.
SLACK = 2.0


@fh.remote
def hold(path: str) -> None:
    """Native code that holds the interpreter: no thread of the process runs Python meanwhile."""
    Path(path).write_text(str(os.getpid()))
    ctypes.PyDLL(None).sleep(1000)


@fh.remote
def deaf(path: str, seconds: float = 1000) -> str:
    """Swallows everything, until its time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with Path(path).open("a") as file:
                file.write(".")
            time.sleep(1000)
        except BaseException:
            pass
    return "done"


@fh.remote
def quick(x: int) -> int:
    return x


def note(path: str, words: str = "begun") -> None:
    Path(path).write_text(words)


def begun(path: Path) -> None:
    assert until(lambda: path.exists() and path.read_text()), f"{path.name} has not begun"


def seconds_until_cancelled(ref: Any) -> float:
    start = time.monotonic()
    with pytest.raises(TaskCancelledError, match="cancelled"):
        fh.get(ref, timeout=30)
    return time.monotonic() - start


def gone(pid: int) -> bool:
    """Whether a process has ended, also if nobody has looked at its end yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_native_code_that_holds_the_interpreter(tmp_path: Path) -> None:
    """Goal: by force it ends when the grace is over, not earlier nor much later, with its process;
    what comes after it runs. Method: libc's sleep, called so that no other thread can run."""
    ref = hold.remote(str(tmp_path / "pid"))
    begun(tmp_path / "pid")
    fh.cancel(ref, force=True)
    assert GRACE - 0.1 < seconds_until_cancelled(ref) < GRACE + SLACK
    pid = int((tmp_path / "pid").read_text())
    assert until(lambda: gone(pid))
    assert fh.get([quick.remote(i) for i in range(20)], timeout=20) == list(range(20))


def test_the_grace_is_what_was_asked_for(tmp_path: Path) -> None:
    """Goal: none at all, and half a second. Method: a task that swallows every interruption."""
    for number, grace in enumerate((0.0, 0.5)):
        path = tmp_path / f"{number}"
        ref = deaf.remote(str(path))
        begun(path)
        fh.cancel(ref, force=True, grace=grace)
        assert grace - 0.1 < seconds_until_cancelled(ref) < grace + SLACK


def test_who_swallows_it_is_interrupted_once_per_grace(tmp_path: Path) -> None:
    """Goal: cleaning up is not disturbed by cancels that come together, and a later one reaches a
    task that has swallowed the first; what it returns counts. Method: each time it is woken it
    makes a mark."""
    ref = deaf.remote(str(tmp_path / "marks"), 1.5)
    begun(tmp_path / "marks")
    for _ in range(5):
        fh.cancel(ref, grace=1.0)
    assert until(lambda: len((tmp_path / "marks").read_text()) == 2)
    time.sleep(1.6)  # the grace is over, and so is the task's time: it ends when it is woken
    assert len((tmp_path / "marks").read_text()) == 2
    fh.cancel(ref, grace=1.0)
    assert fh.get(ref, timeout=20) == "done"


def test_a_task_sees_its_own_cancellation(tmp_path: Path) -> None:
    """Goal: the token is set, TaskCancelledError is caught by its name and not as an Exception, and
    a value returned after it counts."""

    @fh.remote
    def careful(path: str) -> tuple[bool, bool, str]:
        context = fh.get_runtime_context()
        before = context.is_cancelled()
        Path(path).write_text("begun")
        try:
            try:
                time.sleep(1000)
            except Exception:
                return before, context.is_cancelled(), "as an Exception"
        except TaskCancelledError as error:
            return before, context.is_cancelled(), type(error).__name__
        return before, context.is_cancelled(), "not at all"

    ref = careful.remote(str(tmp_path / "s"))
    begun(tmp_path / "s")
    fh.cancel(ref)
    assert fh.get(ref, timeout=20) == (False, True, "Interruption")


def test_the_token_on_other_threads_and_loops(tmp_path: Path) -> None:
    """Goal: a thread that a task has started waits for the token, or awaits it in a loop of its
    own; both wake when it is set. A driver's token is never set."""

    @fh.remote
    def parent(path: str) -> None:
        import asyncio
        import threading

        token = fh.get_runtime_context().cancel_token

        async def awaits() -> None:
            note(path + ".loop")
            await token
            note(path + ".awaited", str(token.is_set()))

        def waits() -> None:
            assert not token.wait(0.01)
            Path(path + ".thread").write_text("begun")
            Path(path + ".waited").write_text(str(token.wait(1000)))

        threads = [
            threading.Thread(target=waits),
            threading.Thread(target=lambda: asyncio.run(awaits())),
        ]
        try:
            for thread in threads:
                thread.start()
            Path(path + ".task").write_text("begun")
            time.sleep(1000)
        finally:
            for thread in threads:
                thread.join()

    path = tmp_path / "s"
    ref = parent.remote(str(path))
    for name in ("loop", "thread", "task"):
        begun(path.with_suffix(f".{name}"))
    fh.cancel(ref)
    assert seconds_until_cancelled(ref) < SLACK
    assert path.with_suffix(".waited").read_text() == "True"
    assert path.with_suffix(".awaited").read_text() == "True"
    assert not fh.get_runtime_context().is_cancelled()


def test_a_tree_of_fifty_children(tmp_path: Path) -> None:
    """Goal: a parent's end is its children's, those that run and those that wait, and theirs: no
    process works on. Method: ten at a time sleep, one of them holds the interpreter; after it all
    resources are free."""

    @fh.remote(num_cpus=0.2)
    def child(path: str) -> None:
        Path(path).touch()
        time.sleep(1000)

    @fh.remote(num_cpus=0.1)
    def parent(path: str) -> None:
        refs = [child.remote(f"{path}/{number}") for number in range(49)]
        refs.append(hold.options(num_cpus=0.1).remote(f"{path}/pid"))
        fh.get(refs)

    ref = parent.remote(str(tmp_path))
    begun(tmp_path / "pid")
    assert until(lambda: len(list(tmp_path.iterdir())) >= 6)
    fh.cancel(ref, force=True)
    assert seconds_until_cancelled(ref) < GRACE + SLACK
    pid = int((tmp_path / "pid").read_text())
    assert until(lambda: gone(pid), 2 * GRACE + SLACK)
    assert until(lambda: fh.available_resources().get("CPU") == 2.0, 2 * GRACE + SLACK)


def test_calls_of_actors(tmp_path: Path) -> None:
    """Goal: the same rule on a serial actor's main thread, in a threaded actor's threads and on an
    async actor's loop; the actor lives on. Method: a sleep, a busy loop, an await."""

    @fh.remote
    class Serial:
        def sleep(self, path: str) -> None:
            Path(path).write_text("begun")
            time.sleep(1000)

        def fine(self) -> str:
            return "fine"

    @fh.remote(max_concurrency=2)
    class Threaded:
        def spin(self, path: str) -> None:
            Path(path).write_text("begun")
            while True:
                time.monotonic()

        def fine(self) -> str:
            return "fine"

    @fh.remote
    class Async:
        async def rest(self, path: str) -> None:
            import asyncio

            note(path)
            await asyncio.sleep(1000)

        async def fine(self) -> str:
            return "fine"

    for kind, name in ((Serial, "sleep"), (Threaded, "spin"), (Async, "rest")):
        actor = kind.remote()
        ref = getattr(actor, name).remote(str(tmp_path / name))
        begun(tmp_path / name)
        fh.cancel(ref)
        assert seconds_until_cancelled(ref) < SLACK
        assert fh.get(actor.fine.remote(), timeout=20) == "fine"


def test_what_has_no_task_to_cancel() -> None:
    """Goal: no effect and no error: a value of put, a value that is there, one whose owner died."""

    @fh.remote(max_retries=0)
    def made() -> list[Any]:
        return [fh.put("x"), os.getpid()]

    value, done = fh.put("put"), quick.remote(5)
    inner, pid = fh.get(made.remote())
    assert fh.get(done) == 5
    os.kill(pid, 9)
    with pytest.raises(fh.errors.OwnerDiedError):
        fh.get(inner, timeout=20)
    for ref in (value, done, inner):
        fh.cancel(ref, force=True)
    assert fh.get([value, done]) == ["put", 5]


@pytest.mark.parametrize("wrong", [-1, float("inf"), float("nan"), "1", None, True])
def test_wrong_graces(wrong: Any) -> None:
    """Goal: refused here, by name."""
    ref = quick.remote(1)
    with pytest.raises((TypeError, ValueError), match="grace must be"):
        fh.cancel(ref, grace=wrong)
    assert fh.get(ref) == 1
