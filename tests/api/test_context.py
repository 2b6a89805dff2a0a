"""``get_runtime_context``: in a driver, a task, a thread of a task, actors of each kind."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import freehold as fh

pytestmark = pytest.mark.usefixtures("two_cpus")


def ids(context: fh.RuntimeContext) -> dict[str, Any]:
    return {
        "job": context.get_job_id(),
        "node": context.get_node_id(),
        "worker": context.get_worker_id(),
        "task": context.get_task_id(),
        "name": context.get_task_name(),
        "actor": context.get_actor_id(),
        "group": context.get_placement_group_id(),
        "attempt": context.get_attempt_number(),
    }


@fh.remote(name="looker", num_cpus=0.5)
def look() -> dict[str, Any]:
    context = fh.get_runtime_context()
    found = ids(context)
    found["resources"] = context.get_assigned_resources()
    found["gpus"] = context.get_accelerator_ids()
    found["all"] = context.get()
    return found


def test_in_a_driver() -> None:
    """Goal: ids that apply are hex strings, those that do not are None; nothing is cancelled."""
    context = fh.get_runtime_context()
    found = ids(context)
    for name in ("job", "node", "worker"):
        assert len(bytes.fromhex(found.pop(name))) == 8
    assert set(found.values()) == {None}
    assert context.get_assigned_resources() == {}
    assert context.get_accelerator_ids() == {"GPU": []}
    assert (context.is_cancelled(), context.namespace) == (False, "")
    assert set(context.get()) == {"job_id", "node_id", "worker_id", "namespace"}
    host, _, port = context.address.rpartition(":")
    assert host
    assert port.isdigit()


def test_in_a_task() -> None:
    """Goal: its own ids, the job's and node's as in the driver, another worker's."""
    here = ids(fh.get_runtime_context())
    ref = look.remote()
    there = fh.get(ref)
    assert (there["job"], there["node"]) == (here["job"], here["node"])
    assert there["worker"] != here["worker"]
    assert (there["task"], there["name"]) == (ref.task_id(), "looker")
    assert (there["actor"], there["group"], there["attempt"]) == (None, None, 0)
    assert there["resources"] == {"CPU": 0.5}
    assert there["gpus"] == {"GPU": []}
    assert there["all"]["task_id"] == ref.task_id()
    assert fh.get(look.remote())["task"] != ref.task_id()


def test_on_a_thread_that_a_task_has_made() -> None:
    """Goal: the process's ids, and none of the task; a context object is of the thread that asks
    it, and the token of the task that it was taken from."""

    @fh.remote
    def parent() -> tuple[Any, ...]:
        context = fh.get_runtime_context()
        token = context.cancel_token
        found: list[Any] = []

        def other() -> None:
            found.append((context.get_task_id(), context.is_cancelled(), token.is_set()))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        return context.get_task_id(), *found[0]

    task, other, cancelled, is_set = fh.get(parent.remote())
    assert len(bytes.fromhex(task)) == 16
    assert (other, cancelled, is_set) == (None, False, False)


def test_an_attempt_knows_its_number() -> None:
    """Goal: it grows with each retry."""

    @fh.remote(retry_exceptions=True)
    def twice() -> int | None:
        number = fh.get_runtime_context().get_attempt_number()
        if not number:
            raise ValueError
        return number

    assert fh.get(twice.remote()) == 1


def test_in_actors() -> None:
    """Goal: the actor's id is that of its handle, in the constructor and in methods, for serial,
    threaded and async actors; the method's name is the task's."""

    class Base:
        def __init__(self) -> None:
            self.made_as = fh.get_runtime_context().get_actor_id()

        def made(self) -> Any:
            return self.made_as

    @fh.remote
    class Serial(Base):
        def look(self) -> dict[str, Any]:
            return ids(fh.get_runtime_context())

    @fh.remote(max_concurrency=3)
    class Threaded(Base):
        def look(self) -> dict[str, Any]:
            return ids(fh.get_runtime_context())

    @fh.remote
    class Async(Base):
        async def look(self) -> dict[str, Any]:
            return ids(fh.get_runtime_context())

    for kind in (Serial, Threaded, Async):
        actor: Any = kind.remote()
        ref = actor.look.remote()
        there = fh.get(ref, timeout=20)
        assert there["actor"] == actor._ref.hex() == fh.get(actor.made.remote(), timeout=20)
        assert there["task"] == ref.task_id()
        assert there["name"].endswith(".look")
