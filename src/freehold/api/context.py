"""The runtime context: where this code runs, as what, and whether it is still wanted.

It knows the process core and asks it at each call, so that an object made in a task stays right on
every thread: what a thread runs is a fact of that thread (``Process.context``). Ids are hex strings
of the same digits as in messages and logs; what does not apply (a task's id in a driver) is None.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from freehold import resources as amounts
from freehold.api import session
from freehold.ids import short

if TYPE_CHECKING:
    from freehold.runtime.cancelling import Token
    from freehold.runtime.context import Context
    from freehold.runtime.process import Process


class RuntimeContext:
    """Where this code runs."""

    def __init__(self, process: Process) -> None:
        self._process = process

    # ------------------------------------------------------------------ ids

    def get_job_id(self) -> str:
        """The job's id."""
        return self._process.role.job.hex()

    def get_node_id(self) -> str:
        """The id of the node that this process belongs to."""
        return self._process.node.node.hex()

    def get_worker_id(self) -> str:
        """The id of this process."""
        return self._process.address.process.hex()

    def get_task_id(self) -> str | None:
        """The id of the task that runs this code; None in a driver."""
        context = self._task()
        return context.task.hex() if context else None

    def get_task_name(self) -> str | None:
        """The name of the task that runs this code; None in a driver."""
        context = self._task()
        return context.name if context else None

    def get_attempt_number(self) -> int | None:
        """How often the task was sent to a worker before: 0 the first time. It grows with each
        retry, and also when a busy worker gives a task back that it has not begun. None in a
        driver.
        """
        context = self._task()
        return context.run.message.attempt if context and context.run else None

    def get_actor_id(self) -> str | None:
        """The id of the actor whose method runs this code; None elsewhere."""
        actor = self._process.actor_id
        return actor.hex() if actor is not None else None

    def get_placement_group_id(self) -> str | None:
        """The id of the placement group that this code runs in; None outside of one."""
        placement = self._process.context().granted.placement
        return placement.group.hex() if placement is not None and placement.group else None

    # ------------------------------------------------------------------ what it may use

    def get_assigned_resources(self) -> dict[str, float]:
        """What this task was granted; empty in a driver."""
        context = self._task()
        return amounts.floats(context.granted.resources) if context else {}

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """The GPUs that this task was granted, as CUDA_VISIBLE_DEVICES names them: ``{"GPU":
        ["0"]}``; an empty list for none.
        """
        return {"GPU": list(self._process.context().granted.gpus)}

    # ------------------------------------------------------------------ whether it is wanted

    def is_cancelled(self) -> bool:
        """Whether this task was cancelled, or has run for longer than its timeout. Always False in
        a driver, and on a thread that a task has started: give that one the ``cancel_token``.
        """
        return self.cancel_token.is_set()

    @property
    def cancel_token(self) -> Token:
        """This task's token: ask ``is_set()``, ``wait(timeout)`` or ``await`` it, on any thread or
        event loop of this process. A driver's is never set.
        """
        from freehold.runtime.cancelling import Token, token_of

        context = self._task()
        if context is None or context.run is None:
            return Token(None)
        with self._process.lock:
            return token_of(context.run)

    # ------------------------------------------------------------------ the session

    @property
    def namespace(self) -> str:
        """The namespace that ``init`` was given."""
        return getattr(self._process, "namespace", "")

    @property
    def address(self) -> str:
        """HOST:PORT of the head."""
        return f"{self._process.head.host}:{self._process.head.port}"

    def get(self) -> dict[str, Any]:
        """The ids above that apply, by name."""
        found = {
            "job_id": self.get_job_id(),
            "node_id": self.get_node_id(),
            "worker_id": self.get_worker_id(),
            "task_id": self.get_task_id(),
            "task_name": self.get_task_name(),
            "actor_id": self.get_actor_id(),
            "placement_group_id": self.get_placement_group_id(),
            "namespace": self.namespace,
        }
        return {name: value for name, value in found.items() if value is not None}

    def _task(self) -> Context | None:
        """The task that runs on this thread: none in a driver, nor on a thread that a task made."""
        context = self._process.context()
        return None if context is self._process.root else context

    def __repr__(self) -> str:
        return f"RuntimeContext(node={short(self._process.node.node)}, task={self.get_task_id()})"


def get_runtime_context() -> RuntimeContext:
    """Where this code runs: ids of job, node, worker and task; whether the task is cancelled."""
    return RuntimeContext(session.connected())
