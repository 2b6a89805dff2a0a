"""A worker that hosts an actor: ``runtime.hosting`` in the simulated world.

Serial actors run on the main thread, on the path of tasks (``worker``). Of those that run several
calls at once each call has a thread beside the main one, which goes on reading the sockets. The
instance itself holds nothing but what its methods keep in globals (``UserProcess.kept``): whether
calls come in order and to whom, the checkers see from above (``acts``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from freehold.core.execution import Run
from freehold.core.hosting import Hosting
from freehold.ids import ObjectId, TaskId, return_id
from freehold.sim.errors import Failure
from freehold.wire.actors import Place, packed
from freehold.wire.messages import ACTOR, Call, Creation, Value

if TYPE_CHECKING:
    from freehold.sim.user import Thread
    from freehold.sim.worker import WorkerProcess


class Host:
    """The actor that lives in a worker. ``made``: its constructor has ended well."""

    def __init__(self, worker: WorkerProcess, run: Run, begin: Callable[[Run], None]) -> None:
        creation = run.message.actor
        assert isinstance(creation, Creation)
        self.worker = worker
        self.actor: ObjectId = return_id(run.message.task, 0)
        self.path = run.message.name
        self.life = creation.life
        self.made = False
        self.exiting = False
        self.hosting: Hosting = worker.executor.host(run)
        self.hosting.start = self.start
        self.begin = begin
        self.beside: dict[TaskId, Thread | None] = {}  # calls that run, and their threads

    def place(self) -> Value:
        """The constructor's result."""
        self.made = True
        return Value(ACTOR, packed(Place(self.worker.address, self.life)))

    def start(self, run: Run) -> None:
        """Run a call beside those that run: its thread begins in a moment."""
        self.beside[run.message.task] = None
        self.worker.arrange(self.worker.cost(), lambda: self.begin(run), "a call's thread begins")

    def interrupt(self, run: Run) -> bool:
        """A call that has begun is cancelled. False if it does not run beside the main thread."""
        if run.message.task not in self.beside:
            return False
        thread = self.beside[run.message.task]
        if thread is not None:
            thread.interrupt(Failure("interrupted", run.message.name))
        return True

    def ended(self, run: Run, failure: Failure | None) -> None:
        """A body has ended, and was not answered yet."""
        if failure is not None and failure.kind == "quit" and type(run.message.actor) is Call:
            self.exiting = True
            self.worker.cluster.watch.acts.on_quit(self.worker, run)

    def stop(self) -> None:
        """No further call begins."""
        self.hosting.closing = True
        self.worker.executor.execution.ready.clear()
