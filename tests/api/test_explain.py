"""fh.explain, and the same text where nobody asked for it: timeouts, long waits, dead owners.

Texts are compared after ``plain``: process ids, node ids, times and ids of tasks become letters.
What a text says of a state that takes a moment to come about is awaited.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import freehold as fh
from api.conftest import returns_to, run_script, tables, until
from freehold.observe import explain as observe
from freehold.runtime import current
from freehold.runtime.explainer import WALK, WALK_LATE

MIB = 1 << 20
#: Seconds that a get waits in these tests until it says for what.
AFTER = 0.3


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[fh.Session]:
    """Four CPUs, one GPU, a small store that cannot spill."""
    yield fh.init(
        num_cpus=4,
        num_gpus=1,
        object_store_memory=64 * MIB,
        spill_quota=0,
        infeasible_grace=60,
        explain_after=AFTER,
        log_to_driver=False,
    )
    fh.shutdown()


@fh.remote
def until_there(path: str) -> str:
    """A task that the test holds: it ends when the file is there."""
    while not Path(path).exists():
        time.sleep(0.01)
    return path


@fh.remote
def waits_in_a_library(seconds: float) -> bool:
    return threading.Event().wait(seconds)


@fh.remote
def fails_once_there(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.01)
    raise ValueError("now")


@fh.remote
def get_inside(box: list[Any], timeout: float | None = None) -> Any:
    return fh.get(box[0], timeout=timeout)


@fh.remote
def either(a: Any, b: Any) -> Any:
    return a or b


@fh.remote
def needs_a_gpu() -> str:
    return "had one"


@fh.remote
def asks_for_the_gpu_of_its_own() -> str:
    return fh.get(needs_a_gpu.options(num_gpus=1).remote())


@fh.remote
def ask_for_two_gpus() -> str:
    return fh.get(needs_a_gpu.options(num_gpus=2).remote())


@fh.remote
def zeros(size: int) -> np.ndarray:
    return np.zeros(size, np.uint8)


@fh.remote
def stop_itself(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    os.kill(os.getpid(), signal.SIGSTOP)


@fh.remote(max_retries=0)
def parent(path: str) -> tuple[Any, int]:
    return [until_there.remote(path)], os.getpid()


def plain(text: str) -> str:
    """The text without what differs from run to run."""
    text = re.sub(r"\[[0-9a-f]{8}\]", "[ID]", text)
    text = re.sub(r"worker \d+", "worker W", text)
    text = re.sub(r"(node|process|object) [0-9a-f]{8}", r"\1 N", text)
    text = re.sub(r"\d[\d.]* s\b", "T", text)
    return re.sub(r"line \d+ of \S*/test_explain.py", "line L", text)


def soon(ref: fh.ObjectRef[Any], wanted: str) -> str:
    """The explanation, once it has the words; the last one if it never does."""
    text = ""

    def said() -> bool:
        nonlocal text
        text = plain(fh.explain(ref))
        return wanted in text

    until(said)
    return text


@pytest.fixture
def held(tmp_path: Path) -> Iterator[fh.ObjectRef[str]]:
    """A task that runs until the test is over."""
    ref = until_there.remote(str(tmp_path / "over"))
    yield ref
    (tmp_path / "over").touch()
    assert fh.get(ref) == str(tmp_path / "over")


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[fh.ObjectRef[None]]:
    """A task whose worker does not listen until the test is over."""
    file = tmp_path / "pid"
    ref = stop_itself.remote(str(file))
    until(lambda: file.exists() and file.read_text())
    yield ref
    os.kill(int(file.read_text()), signal.SIGCONT)
    assert fh.get(ref) is None


RUNS = "was sent to worker W on node N, where it has run for T"
AT = "and is at line L, in until_there()"


# -- asked for -------------------------------------------------------------------------------------


def test_a_running_task_says_where_it_is(held: fh.ObjectRef[str]) -> None:
    """Goal: who waits for a task that sleeps sees the line that sleeps."""
    assert soon(held, ", in until_there") == f"until_there() [ID] {RUNS} {AT}"


def test_the_line_is_the_users_own() -> None:
    """Goal: of a task that is deep in a library the line that called it is told."""
    ref = waits_in_a_library.remote(60)
    text = soon(ref, "is at")
    assert text == f"waits_in_a_library() [ID] {RUNS} and is at line L, in waits_in_a_library()"
    fh.cancel(ref)


def test_a_chain_through_three_processes(tmp_path: Path) -> None:
    """Goal: the text goes from an argument through tasks that are blocked in get, over borrowed
    references, to the request that no node can grant, and says what that lacks."""
    inner = ask_for_two_gpus.remote()
    last = either.remote(get_inside.remote([inner]), 1)
    lines = soon(last, "GPU 2").split("\n")
    assert lines[:3] == [
        "either() [ID] waits for 1 of its 1 arguments",
        f"  get_inside() [ID] {RUNS}, and waits in get() for 1 value",
        f"    ask_for_two_gpus() [ID] {RUNS}, and waits in get() for 1 value",
    ]
    queued = "      needs_a_gpu() [ID], submitted by worker W, is queued at node N for T: "
    assert lines[3].startswith(queued + "CPU 1, GPU 2 is needed; the node has ")
    assert lines[3].endswith("short of GPU 1; it fails in T unless such a node joins")
    assert len(lines) == 4
    fh.cancel(inner)
    with pytest.raises(fh.errors.TaskCancelledError):
        fh.get(last)


def test_tasks_that_hold_what_they_wait_for() -> None:
    """Goal: a deadlock is named, with its members. Method: a task holds the only GPU and gets the
    result of one that needs it."""
    ref = asks_for_the_gpu_of_its_own.options(num_gpus=1).remote()
    lines = soon(ref, "Deadlock").split("\n")
    one, other = "asks_for_the_gpu_of_its_own() [ID]", "needs_a_gpu() [ID]"
    assert lines[0] == (
        f"Deadlock: {other} waits for {one}, which waits for {other}. Cancel one of them, or give "
        "it a timeout."
    )
    assert lines[1] == f"{one} {RUNS}, and waits in get() for 1 value"
    assert "waits for GPU 1 to come free" in lines[2]
    assert lines[3].endswith(
        f"{one} holds CPU 1, GPU 1; it was sent to worker W on node N: see above"
    )
    with pytest.raises(fh.errors.GetTimeoutError, match="Deadlock: "):
        fh.get(ref, timeout=0.1)
    fh.cancel(ref)
    with pytest.raises(fh.errors.TaskCancelledError):
        fh.get(ref)


def test_a_get_with_a_timeout_is_no_deadlock(held: fh.ObjectRef[str]) -> None:
    """Goal: the timeout of a task's own get is told, since it will go on by itself."""
    ref = get_inside.remote([held], 50)
    text = soon(ref, "waits in get()")
    waits = f"get_inside() [ID] {RUNS}, and waits in get() for 1 value (T left until its timeout)"
    assert text.split("\n")[0] == waits
    fh.cancel(ref)


def test_a_full_store_names_its_readers() -> None:
    """Goal: a task that waits for room says so, with the sizes and who holds the rest. Method: two
    thirds of the store are read here."""
    views = [fh.get(fh.put(np.zeros(20 * MIB, np.uint8))) for _ in range(2)]
    ref = zeros.remote(30 * MIB)
    text = soon(ref, "for room")
    assert re.fullmatch(
        r"zeros\(\) \[ID\] was sent to worker W on node N, where it has run for T and has a value "
        r"to store; it has waited for T for room for 31,45\d,\d+ bytes in the store of node N: "
        r"41,94\d,\d+ of 67,108,864 bytes are in use, and held by readers: 41,94\d,\d+ bytes by "
        rf"driver {os.getpid()}",
        text,
    )
    del views
    assert len(fh.get(ref)) == 30 * MIB


def test_what_is_there_says_so() -> None:
    """Goal: a value and an error are not explained away."""
    small, large = fh.put(1), fh.put(np.zeros(MIB, np.uint8))
    assert re.fullmatch(r"object N is done: \d+ bytes, in memory", plain(fh.explain(small)))
    assert "bytes in the store of node N" in plain(fh.explain(large))
    bad = get_inside.remote([])
    fh.wait([bad])
    assert "has failed: get() raises its error" in fh.explain(bad)


def test_who_is_silent_is_told_in_time(stopped: fh.ObjectRef[None]) -> None:
    """Goal: a worker that does not answer costs a second and is named, never a hang. Method: it
    has stopped itself; we ask with the usual time, with less and with none."""
    silent = "stop_itself() [ID] was sent to worker W on node N; it did not answer in time (is it "
    silent += "stopped, or busy in native code?); it is worker W, and runs"
    for timeout in (1.0, 0.2):
        start = time.monotonic()
        assert plain(fh.explain(stopped, timeout=timeout)) == silent
        assert timeout <= time.monotonic() - start < timeout + 1
    alone = "stop_itself() [ID] was sent to worker W on node N"
    assert plain(fh.explain(stopped, timeout=0)) == alone


@pytest.mark.parametrize(
    ("ref", "options", "words"),
    [
        (1, {}, "explain() takes an ObjectRef, not int 1"),
        ([], {}, "explain() takes an ObjectRef, not list []"),
        (None, {"timeout": "1"}, "timeout must be seconds or None, not str '1'"),
        (None, {"timeout": -1}, "timeout must be >= 0 seconds, not -1"),
        (None, {"timeout": None}, "timeout must be finite seconds, not None"),
    ],
)
def test_bad_arguments(ref: Any, options: dict[str, Any], words: str) -> None:
    """Goal: what cannot be explained is refused by name."""
    with pytest.raises((TypeError, ValueError), match=re.escape(words)):
        fh.explain(fh.put(1) if ref is None else ref, **options)


@pytest.mark.parametrize("seconds", ["0", "-1", "float('nan')", "float('inf')", "True", "'10'"])
def test_bad_settings(seconds: str, tmp_path: Path) -> None:
    """Goal: ``explain_after`` is checked before anything is started."""
    done = run_script(tmp_path, f"import freehold; freehold.init(explain_after={seconds})")
    assert "explain_after must be " in done.stderr.splitlines()[-1]


# -- unasked ---------------------------------------------------------------------------------------


class Heard(logging.Handler):
    """What the logger "freehold" was given."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        assert record.levelno == logging.WARNING
        self.texts.append(record.getMessage())


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler = Heard()
    logging.getLogger("freehold").addHandler(handler)
    yield handler
    logging.getLogger("freehold").removeHandler(handler)


def test_a_timeout_explains_itself(held: fh.ObjectRef[str]) -> None:
    """Goal: GetTimeoutError carries the text, of the values that are missing and no others."""
    there = fh.put(1)
    ref = get_inside.remote([held])
    soon(ref, "waits in get()")
    with pytest.raises(fh.errors.GetTimeoutError) as caught:
        fh.get([there, ref], timeout=0.05)
    assert caught.value.message == "1 of 2 values were not there within 0.05 s"
    assert [plain(line) for line in caught.value.waiting] == [
        f"get_inside() [ID] {RUNS}, and waits in get() for 1 value",
        f"  until_there() [ID] {RUNS} {AT}",
    ]
    fh.cancel(ref)


def test_a_timeout_is_not_much_longer_for_it(stopped: fh.ObjectRef[None]) -> None:
    """Goal: a timeout of 0 stays instant and asks nobody; any other is late by WALK_LATE at most,
    whoever is silent. Method: the worker asked has stopped itself."""
    for timeout, late, silent in ((0, 0.1, False), (0.1, WALK_LATE + 0.4, True)):
        start = time.monotonic()
        with pytest.raises(fh.errors.GetTimeoutError) as caught:
            fh.get(stopped, timeout=timeout)
        assert time.monotonic() - start < timeout + late
        assert ("did not answer" in str(caught.value)) == silent


def test_a_long_get_says_why_at_doubling_times(
    held: fh.ObjectRef[str], heard: Heard, tmp_path: Path
) -> None:
    """Goal: a get without a timeout speaks up once it has waited for long, and then ever more
    seldom. Method: end the task when it has spoken twice."""
    ref = until_there.remote(str(tmp_path / "twice"))

    class Ends(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if len(heard.texts) == 2:
                (tmp_path / "twice").touch()

    handler = Ends()
    logging.getLogger("freehold").addHandler(handler)
    assert fh.get(ref) == str(tmp_path / "twice")
    logging.getLogger("freehold").removeHandler(handler)
    said = [text.split("\n") for text in heard.texts[:2]]
    assert [lines[0] for lines in said] == [
        f"get() has waited {seconds:g} s for 1 value:" for seconds in (AFTER, 2 * AFTER)
    ]
    assert [plain(lines[1]) for lines in said] == [f"  until_there() [ID] {RUNS} {AT}"] * 2


def test_a_get_goes_on_while_it_is_explained(
    stopped: fh.ObjectRef[None], heard: Heard, tmp_path: Path
) -> None:
    """Goal: a get ends when its value is there, whatever its explanation waits for, and says
    nothing then. Method: of two values one is a stopped worker's, which keeps the walk busy for
    WALK; the other fails as soon as the walk has begun."""
    process = current.process()
    assert process is not None
    explainer = process.explainer
    ref = fails_once_there.remote(str(tmp_path / "go"))
    begun = []

    def begin() -> None:
        until(explainer.saying.locked)
        begun.append(time.monotonic())
        (tmp_path / "go").touch()

    thread = threading.Thread(target=begin)
    thread.start()
    with pytest.raises(ValueError, match="now"):
        fh.get([stopped, ref])
    over = time.monotonic()
    thread.join()
    assert over - begun[0] < WALK
    until(lambda: not explainer.saying.locked())
    assert heard.texts == []


QUIET = """
import logging
import freehold as fh, time

@fh.remote
def nap():
    assert (logging.root.handlers, logging.root.level) == ([], logging.WARNING)
    time.sleep(1)

@fh.remote
def nested():
    return fh.get(nap.remote())

if __name__ == "__main__":
    fh.init(num_cpus=2, explain_after={after})
    {wait}
    fh.shutdown()
"""


def test_a_task_that_waits_says_so_on_the_drivers_stderr(tmp_path: Path) -> None:
    """Goal: the setting holds in workers too, and what they say arrives. Method: a driver that
    waits without get, so that only the worker has anything to say; it takes twice as long. (The
    daemon's own set-up of logging is no longer there: it had formatted every line of a worker, and
    a task's ``basicConfig`` did nothing.)"""
    done = run_script(tmp_path, QUIET.format(after=0.2, wait="fh.wait([nested.remote()])"))
    assert done.returncode == 0
    first, second = done.stderr.splitlines()[:2]
    prefix = r"\(pid=\d+, node=\w+\) "
    assert re.fullmatch(
        prefix + r"nested\(\) \[\w+\]: get\(\) has waited 0.4 s for 1 value:", first
    )
    assert re.match(prefix + r"  nap\(\) \[\w+\], submitted by worker \d+, was sent to", second)


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    """Goal: with None nothing is ever said, by the driver or by its workers."""
    done = run_script(
        tmp_path, QUIET.format(after=None, wait="fh.get([nested.remote(), nap.remote()])")
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_who_an_owner_was_and_how_it_died(tmp_path: Path) -> None:
    """Goal: the error that an owner has died says which process that was, when and of what.
    Method: a task that may not run again returns a reference of its own; its worker is killed."""
    box, pid = fh.get(parent.remote(str(tmp_path / "never")))
    text = soon(box[0], "where it has run")
    assert text == f"until_there() [ID], submitted by worker W, {RUNS} {AT}"
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(fh.errors.OwnerDiedError) as caught:
        fh.get(box[0])
    end = rf"; worker {pid} ended at \d\d:\d\d:\d\d: killed by SIGKILL, signal 9"
    assert re.search(end, str(caught.value))
    assert re.search(end, fh.explain(box[0]))


def test_asking_leaves_no_trace(held: fh.ObjectRef[str], session: fh.Session) -> None:
    """Goal: a question changes nothing where it is asked: a visitor is no peer whose end is a
    death, and nothing is kept of it. Method: ask from outside and from inside, many times; compare
    the tables, and whom we believe dead."""
    process = current.process()
    assert process is not None
    soon(held, "is at")
    before, dead = tables(), set(process.role.ownership.lost)
    host, _, port = session["address"].rpartition(":")
    for _ in range(20):
        found = observe.find(host, int(port), process.transport.token, held.hex())
        assert [match.owner for match in found.matches] == [f"driver {os.getpid()}"]
        assert "is at" in fh.explain(held)
    assert returns_to(before, "owner node") == {}
    assert set(process.role.ownership.lost) == dead
