"""init, shutdown and what a program can learn about where it runs."""

from __future__ import annotations

import gc
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import freehold as fh

from .conftest import run_script

pytestmark = pytest.mark.usefixtures("disconnected")


@fh.remote
def square(x: int) -> int:
    return x * x


@fh.remote
def where() -> dict[str, Any]:
    context = fh.get_runtime_context()
    return {
        "pid": os.getpid(),
        "job": context.get_job_id(),
        "node": context.get_node_id(),
        "worker": context.get_worker_id(),
        "task": context.get_task_id(),
        "name": context.get_task_name(),
        "resources": context.get_assigned_resources(),
    }


# -- beginning and end ----------------------------------------------------------------------------


def test_shutdown_leaves_no_process() -> None:
    """Goal: a session is clean. Method: processes after one. (How long it takes to the first
    result is measured: bench/figures/startup.py.)
    """
    import psutil

    fh.init(num_cpus=1)
    assert fh.get(square.remote(3)) == 9
    children = psutil.Process().children(recursive=True)
    assert children
    fh.shutdown()
    _, alive = psutil.wait_procs(children, 5)
    assert alive == []


def test_is_initialized() -> None:
    """Goal: it follows init and shutdown. Method: three looks."""
    assert not fh.is_initialized()
    fh.init(num_cpus=1)
    assert fh.is_initialized()
    fh.shutdown()
    assert not fh.is_initialized()


def test_init_twice() -> None:
    """Goal: refused in words, or ignored if so asked, with the same session. Method: both."""
    first = fh.init(num_cpus=1)
    with pytest.raises(fh.errors.AlreadyInitializedError, match="ignore_reinit_error") as caught:
        fh.init()
    assert isinstance(caught.value, RuntimeError)
    assert fh.init(ignore_reinit_error=True) == first


def test_shutdown_twice_and_before_init() -> None:
    """Goal: harmless. Method: three times, and work afterwards."""
    fh.shutdown()
    fh.init(num_cpus=1)
    fh.shutdown()
    fh.shutdown()
    fh.init(num_cpus=1)
    assert fh.get(square.remote(2)) == 4


def test_the_session_is_a_context_manager() -> None:
    """Goal: ``with fh.init()`` ends the session. Method: also when the block raises."""
    with fh.init(num_cpus=1) as session:
        assert session["address"].count(":") == 1
        assert session["node_id"] == fh.nodes()[0]["NodeID"]
    assert not fh.is_initialized()
    with pytest.raises(KeyError), fh.init(num_cpus=1):
        raise KeyError("inside")
    assert not fh.is_initialized()


def test_the_first_call_starts_a_session() -> None:
    """Goal: no init needed; decorating alone starts nothing. Method: put, and remote."""

    @fh.remote
    def late() -> int:
        return 5

    assert not fh.is_initialized()
    assert fh.get(fh.put(1)) == 1
    assert fh.is_initialized()
    fh.shutdown()
    assert fh.get(late.remote()) == 5


def test_two_threads_start_one_session() -> None:
    """Goal: auto-init is safe. Method: eight threads make the first call at once."""
    results: list[Any] = []

    def call() -> None:
        try:
            results.append(fh.get(square.remote(4)))
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [16] * 8


def test_functions_survive_a_new_session() -> None:
    """Goal: decorated functions, options() and captured values work in the next session. Method:
    call, shut down, call."""
    twin = square.options(num_cpus=0.5)
    for _ in range(3):
        fh.init(num_cpus=1)
        assert fh.get([square.remote(5), twin.remote(6)]) == [25, 36]
        fh.shutdown()


def test_an_old_reference_gives_a_clear_error() -> None:
    """Goal: a ref of an ended session is refused by name, before and after the next init. Method:
    get, wait, cancel, as argument, in a container, awaited."""
    import asyncio

    fh.init(num_cpus=1)
    old = fh.put(1)
    fh.shutdown()

    async def awaited() -> Any:
        return await old

    for _ in range(2):
        fh.init(num_cpus=1)
        for use in (
            lambda: fh.get(old, timeout=5),
            lambda: fh.get([fh.put(1), old], timeout=5),
            lambda: fh.wait([old], timeout=5),
            lambda: fh.cancel(old),
            lambda: square.remote(old),
            lambda: fh.put([old]),
            lambda: asyncio.run(asyncio.wait_for(awaited(), 5)),
        ):
            with pytest.raises(fh.errors.FreeholdError, match="session that was shut down"):
                use()
        assert fh.get(square.remote(3)) == 9
        fh.shutdown()


def test_a_function_that_captured_an_old_reference() -> None:
    """Goal: the same for closures. Method: call it in the next session."""
    fh.init(num_cpus=1)
    old = fh.put(1)

    @fh.remote
    def captured() -> Any:
        return fh.get(old)

    assert fh.get(captured.remote()) == 1
    fh.shutdown()
    fh.init(num_cpus=1)
    with pytest.raises(fh.errors.FreeholdError, match="session that was shut down"):
        fh.get(captured.remote(), timeout=5)


def test_a_get_that_waits_is_ended_by_shutdown() -> None:
    """Goal: no thread waits for ever on a closed session. Method: shut down under a get."""
    fh.init(num_cpus=1)
    ref = fh.remote(time.sleep).remote(1000)
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            fh.get(ref)
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    time.sleep(0.3)
    fh.shutdown()
    thread.join(10)
    assert not thread.is_alive()
    assert isinstance(caught[0], fh.errors.FreeholdError), repr(caught)


def test_views_outlive_the_session() -> None:
    """Goal: arrays got before shutdown stay readable. Method: sum one afterwards."""
    import numpy as np

    fh.init(num_cpus=1)
    array = fh.get(fh.put(np.ones(100_000)))
    fh.shutdown()
    gc.collect()
    assert float(array.sum()) == 100_000


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"num_cpus": -1}, ValueError, "num_cpus"),
        ({"num_cpus": "2"}, TypeError, "num_cpus"),
        ({"resources": {"CPU": 2}}, ValueError, "num_cpus"),
        ({"object_store_memory": 10}, ValueError, "object_store_memory"),
        ({"object_store_memory": 1e9}, TypeError, "object_store_memory"),
        ({"address": "127.0.0.1:1"}, fh.errors.ClusterUnreachableError, "127.0.0.1:1"),
        ({"address": "127.0.0.1:1", "num_cpus": 1}, ValueError, "num_cpus"),
        ({"address": "auto"}, fh.errors.ClusterUnreachableError, "start"),
        ({"address": "nonsense"}, Exception, "nonsense"),
        ({"address": 5}, TypeError, "address"),
        ({"infeasible_grace": -1}, ValueError, "infeasible_grace"),
        ({"infeasible_grace": "1"}, TypeError, "infeasible_grace"),
        ({"log_to_driver": 1}, TypeError, "log_to_driver"),
        ({"namespace": 5}, TypeError, "namespace"),
        ({"labels": {"a": 1}}, TypeError, "label 'a'"),
        ({"labels": ["a"]}, TypeError, "labels"),
        ({"spill_folders": "one"}, TypeError, "spill_folders"),
        ({"spill_quota": -1}, ValueError, "spill_quota"),
        ({"spill_quota": "1"}, TypeError, "spill_quota"),
    ],
)
def test_bad_settings(options: dict[str, Any], error: type[Exception], words: str) -> None:
    """Goal: a wrong setting is named and nothing is started. Method: still not initialised."""
    with pytest.raises(error, match=words):
        fh.init(**options)
    assert not fh.is_initialized()


@pytest.mark.parametrize(
    "call", [fh.nodes, fh.cluster_resources, fh.available_resources], ids=lambda f: f.__name__
)
def test_questions_do_not_start_a_cluster(call: Any) -> None:
    """Goal: asking about a cluster that is not there is an error. Method: one call each."""
    with pytest.raises(fh.errors.NotInitializedError, match="init"):
        call()


def test_a_script_that_ends_without_shutdown(tmp_path: Path) -> None:
    """Goal: a program that just ends, ends: quickly, quietly, code 0, nothing left. Method: a
    script with a task still running."""
    start = time.monotonic()
    done = run_script(
        tmp_path,
        """
        import freehold as fh, time
        fh.init(num_cpus=1)
        ref = fh.remote(time.sleep).remote(1000)
        time.sleep(0.3)
        print("end")
        """,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("end\n", "", 0)
    assert time.monotonic() - start < 10


def test_ctrl_c_during_get(tmp_path: Path) -> None:
    """Goal: Ctrl-C ends a waiting program as it ends any other. Method: SIGINT to itself."""
    done = run_script(
        tmp_path,
        """
        import freehold as fh, os, signal, threading, time
        fh.init(num_cpus=1)
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        try:
            fh.get(fh.remote(time.sleep).remote(1000))
        except KeyboardInterrupt:
            print("interrupted", fh.get(fh.remote(abs).options(num_cpus=0).remote(-4)))
        """,
    )
    assert done.stdout == "interrupted 4\n", done.stderr
    assert done.returncode == 0


def test_prints_of_workers_arrive(tmp_path: Path) -> None:
    """Goal: print() in a task is seen by the user, with the worker's pid. Method: a script."""
    done = run_script(
        tmp_path,
        """
        import freehold as fh, sys, time
        fh.init(num_cpus=1)
        @fh.remote
        def talk():
            print("hello from a task")
            print("and on stderr", file=sys.stderr)
        fh.get(talk.remote())
        time.sleep(0.5)
        """,
    )
    assert "hello from a task" in done.stdout
    assert "pid=" in done.stdout
    assert "and on stderr" in done.stdout + done.stderr


# -- where am I -----------------------------------------------------------------------------------


def test_context_in_a_task_and_in_the_driver() -> None:
    """Goal: ids agree and are hex. Method: compare task, ref, node and job."""
    fh.init(num_cpus=2)
    here = fh.get_runtime_context()
    ref = where.remote()
    there = fh.get(ref)
    assert there["task"] == ref.task_id()
    assert there["node"] == here.get_node_id() == fh.nodes()[0]["NodeID"]
    assert there["job"] == here.get_job_id()
    assert there["worker"] != here.get_worker_id()
    assert there["name"] == "where"
    assert there["resources"] == {"CPU": 1.0}
    assert there["pid"] != os.getpid()
    assert all(bytes.fromhex(there[key]) for key in ("task", "node", "job", "worker"))
    assert here.get_task_id() is None
    assert here.get_task_name() is None
    assert here.get_assigned_resources() == {}


def test_context_in_a_thread_of_a_task() -> None:
    """Goal: a thread that a task starts knows no wrong task. Method: its own task id, or None."""
    fh.init(num_cpus=1)

    @fh.remote
    def threaded() -> tuple[str | None, list[str | None]]:
        found: list[str | None] = []
        thread = threading.Thread(
            target=lambda: found.append(fh.get_runtime_context().get_task_id())
        )
        thread.start()
        thread.join()
        return fh.get_runtime_context().get_task_id(), found

    mine, found = fh.get(threaded.remote())
    assert found in ([mine], [None])


def test_namespace_and_address() -> None:
    """Goal: the context repeats what init was given. Method: read both."""
    session = fh.init(num_cpus=1, namespace="tests")
    context = fh.get_runtime_context()
    assert context.namespace == "tests"
    assert context.address == session["address"]


def test_nodes() -> None:
    """Goal: one entry per node with what it offers. Method: a node with labels."""
    fh.init(num_cpus=1.5, resources={"slot": 2}, labels={"zone": "a"}, object_store_memory=1 << 26)
    (node,) = fh.nodes()
    assert node["Alive"] is True
    assert node["Labels"] == {"zone": "a"}
    assert node["Resources"]["CPU"] == 1.5
    assert node["Resources"]["slot"] == 2.0
    assert node["Resources"]["object_store_memory"] == float(1 << 26)
    assert fh.cluster_resources()["slot"] == 2.0
