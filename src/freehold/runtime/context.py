"""What user code holds of the process that it runs in: references, and the context that says whose
code it is.

In a file of its own, since a program that only imports Freehold needs these and not yet a process:
what ``process`` brings is imported while the first node starts (an import of 0.17 s became 0.12).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from freehold.ids import Names, RunNames, TaskId
from freehold.wire import serial
from freehold.wire.messages import Placement, Reference

if TYPE_CHECKING:
    from freehold.core.execution import Run
    from freehold.runtime.process import Process

#: Values up to this many bytes travel inside messages (NSDI'21, section 4, and Ray use the same
#: figure): a copy of 100 KiB takes 10 us, a round trip to the store about 100.
INLINE_BYTES: Final = 100 * 1024
#: And so many bytes in all of what one task returns; what is beyond them goes to the store, however
#: small. A map task of 64 MiB in 2,000 parts would put all of them into its owner's own memory.
INLINE_TOTAL: Final = 1 << 20


class Granted:
    """What a lease holds of its machine: the amounts, its bundle of a placement group, and the
    names of its GPUs.
    """

    __slots__ = ("gpus", "placement", "resources")

    def __init__(
        self,
        resources: dict[str, int],
        placement: Placement | None = None,
        gpus: Sequence[str] = (),
    ) -> None:
        self.resources = resources
        self.placement = placement
        self.gpus = gpus


NOTHING_GRANTED: Final = Granted({})


class Context:
    """What user code on this thread is part of: a task, or the driver's main program."""

    __slots__ = ("_names", "depth", "granted", "name", "run", "task")

    def __init__(
        self,
        task: TaskId,
        depth: int = 0,
        name: str = "",
        run: Run | None = None,
        granted: Granted = NOTHING_GRANTED,
    ) -> None:
        self.task = task
        self.depth = depth
        self.name = name
        self.run = run
        self.granted = granted
        self._names: Names | None = None

    @property
    def names(self) -> Names:
        """What it calls what it makes. (Made when asked for: the random bytes are a tenth of what
        a task costs its worker, and most tasks make nothing.)
        """
        names = self._names
        if names is None:
            run = os.urandom(8)
            names = Names(run) if self.run is None else RunNames(run, self.task)
            self._names = names
        return names


#: What runs in this thread or coroutine, in a worker; see ``Process.context``.
CONTEXT: ContextVar[Context | None] = ContextVar("freehold context", default=None)


class ObjectRef:
    """A name of a value that may not exist yet and may live on another machine. See
    ``freehold.api.refs``.
    """

    __slots__ = ("_process", "_ref", "__weakref__")

    def __init__(self, process: Process, ref: Reference) -> None:
        self._process = process
        self._ref = ref

    def __del__(self) -> None:
        process = self._process
        process.dropped.append(self._ref.object)
        if not process.transport.unsettled:
            process.unsettle()

    def __reduce__(self) -> Any:
        return serial.reduce_ref(self)
