"""The executor: a worker is an owner that also runs tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from freehold.core.execution import Execution
from freehold.core.world import World
from freehold.ids import JobId
from freehold.roles.owner import Errors, Owner
from freehold.wire.messages import (
    Address,
    Blocked,
    CancelTask,
    DefineFunction,
    Message,
    PushTask,
    Unblocked,
)


class Executor(Owner):
    """An owner with a queue of tasks to run."""

    def __init__(self, world: World, errors: Errors, node: Address, job: JobId) -> None:
        super().__init__(world, errors, node, job)
        self.execution = Execution(world, self.ownership, self.fetching)
        self.execution.cancelled_error = lambda run: errors.cancelled(run.message.name)
        executing: dict[type[Message], Callable[[Any, Address], None]] = {
            PushTask: self.on_push,
            DefineFunction: lambda message, peer: self.execution.on_define(message),
            CancelTask: self.on_cancel,
        }
        self.handlers.update(executing)

    def on_cancel(self, message: CancelTask, peer: Address) -> None:
        self.execution.on_cancel(message)
        if message.recursive:
            self.cancel_children(message.task, force=message.force)

    def on_push(self, message: PushTask, peer: Address) -> None:
        self.execution.on_push(message, peer)
        if self.execution.slow:
            self.execution.give_back()

    def give_way(self) -> None:
        """The running task has been at it for a while: nothing waits behind it, now or until it
        ends.
        """
        if self.execution.current is not None:
            self.execution.slow = True
        self.execution.give_back()

    def block(self) -> None:
        """The running task waits in ``get``: its CPUs are lent out and nothing waits behind it."""
        self.give_way()
        self.world.send(self.node, Blocked())

    def unblock(self) -> None:
        """The running task goes on."""
        self.world.send(self.node, Unblocked())

    def peer_lost(self, peer: Address) -> None:
        """Tasks of a dead owner are dropped."""
        super().peer_lost(peer)
        self.execution.peer_lost(peer.process)
