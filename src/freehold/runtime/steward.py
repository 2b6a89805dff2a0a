"""The steward: the process that owns one detached actor.

Forked by a node's zygote because the head wants it (``core.detached``). It is a driver without a
program: it takes over from where the program that asked for the actor imported, joins the cluster
with a job of its own, takes the name and makes the actor. From then on it is an owner as any
other, which restarts the actor and tells who calls where it lives. When the actor has ended it sees
to it that the head knows, stays for those who want to hear how, and leaves; with it ends the job.

It runs no code of the user: class and arguments pass through as they came.

Standard output and error are a log of its own, in which there is also what the actor prints.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from freehold import errors
from freehold.core.actors import Actor
from freehold.core.calls import ActorTask
from freehold.core.submission import Function
from freehold.ids import function_id
from freehold.runtime import current
from freehold.runtime.driver import Driver
from freehold.runtime.process import read_node_file
from freehold.runtime.waking import Signal
from freehold.wire.detached import Blueprint, ReadBlueprint, RestartsLeft
from freehold.wire.messages import (
    Address,
    EnvironmentDescribed,
    Message,
    NameActor,
    Stop,
    UnnameActor,
)
from freehold.wire.names import NamedActor

#: Seconds for which an ended actor still says how it ended to who has just found its name: a
#: finder waits ten for the head (``api.named``).
LINGER: Final = 10.0
#: Seconds between two looks at whether anybody still holds a handle of an ended actor.
LOOK: Final = 1.0


class Steward(Driver):
    """The process core of a steward. ``done``: the actor has ended."""

    def __init__(self, folder: Path, key: bytes) -> None:
        super().__init__(
            folder, read_node_file(folder), log_to_driver=True, namespace="", explain_after=None
        )
        self.key = key
        self.done = False
        self.signal = Signal()
        self.kept: NamedActor

    # ------------------------------------------------------------------ making

    def take_over(self) -> bool:
        """Have the actor made. False if it is not wanted any more, or another has made it."""
        blueprint = self.blueprint()
        if blueprint is None:
            return False
        sys.path[:] = blueprint.python_path
        with contextlib.suppress(OSError):
            os.chdir(blueprint.cwd)
        self.namespace = blueprint.namespace
        self.detached = f"{blueprint.namespace}/{blueprint.name}"
        self.role.telling.title = f"steward {os.getpid()} of {self.detached}"
        self.start()
        task = self.creation(blueprint)
        actor = self.kept = NamedActor(
            blueprint.namespace,
            blueprint.name,
            task.returns[0],
            self.address,
            blueprint.kind,
            self.key,
        )
        acting = self.role.acting
        with self.lock:
            acting.begin_naming(actor.object, self.head)
        holder = self.ask_head(lambda number: NameActor(number, self.job, actor)).actors
        if [named.object for named in holder] != [actor.object]:
            return False
        with self.lock:
            acting.actors.over = self.over
            acting.actors.spent = self.spent
            acting.create(task, blueprint.restarts)
            self.transport.flush()
        return True

    def blueprint(self) -> Blueprint | None:
        """What the head wants made; None: nothing any more."""
        answer = self.ask_head(lambda number: ReadBlueprint(number, self.key))
        blueprint: Blueprint | None = answer.blueprint
        return blueprint

    def creation(self, blueprint: Blueprint) -> ActorTask:
        """The task that runs the constructor."""
        fingerprint = function_id(blueprint.code)
        function = Function(fingerprint, blueprint.title, blueprint.code, (), fingerprint)
        task = ActorTask(
            self.root.names.next_task(fingerprint, blueprint.args),
            function,
            blueprint.args,
            resources=blueprint.resources,
            max_retries=-1,
            parent=self.root.task,
            name=blueprint.title,
        )
        task.placement = blueprint.placement
        task.actor = blueprint.creation
        environment = blueprint.environment
        if environment is not None:
            task.environment = self.use_environment(environment)
            if environment.packages():  # have them here: the program's node may go
                with self.lock:
                    described = EnvironmentDescribed(task.environment, environment)
                    self.transport.send(self.node, described)
        return task

    # ------------------------------------------------------------------ keeping

    def keep(self) -> None:
        """Return when the actor has ended, the head knows, and nobody wants to hear of it."""
        self.pump.wait(self, self.signal, None)
        while self.blueprint() is not None:  # our word may have gone to a head that was killed
            with self.lock:
                self.transport.send(self.head, UnnameActor(self.kept.object))
                self.transport.flush()
        ownership = self.role.ownership
        never = Never()
        self.pump.wait(never, Signal(), time.monotonic() + LINGER)
        with self.lock:
            ownership.drop_handle(self.kept.object)
        while self.kept.object in ownership.entries:
            self.pump.wait(never, Signal(), time.monotonic() + LOOK)

    def over(self, object_id: Any) -> None:
        """The actor will not be made again."""
        self.role.acting.unname(object_id)
        self.done = True
        self.signal.ring()

    def spent(self, actor: Actor) -> None:
        """A restart was used. (While the head is away it does not learn of it.)"""
        self.transport.send(self.head, RestartsLeft(self.key, actor.restarts))

    def ask_head(self, question: Callable[[int], Message]) -> Any:
        """The head's answer, however long it is away."""
        while True:
            with contextlib.suppress(errors.ClusterUnreachableError):
                return self.ask(self.head, question)
            time.sleep(LOOK)

    def other_message(self, message: Message, peer: Address) -> None:
        """A node that is drained by force ends its programs: the head has another steward begin."""
        if type(message) is Stop:
            os._exit(0)
        super().other_message(message, peer)


class Never:
    """What does not come: to wait for it is to read the sockets for a while."""

    done: Final = False


def main(folder: Path, key: bytes) -> None:
    """Entry point of a forked steward."""
    steward = Steward(folder, key)
    current.set_process(steward)
    try:
        if steward.take_over():
            steward.keep()
        steward.leave()
    except errors.ClusterUnreachableError:
        pass  # the node went away while we were starting
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
