"""Every exception a user of Freehold can see.

Theory of operation. An error is a message for a person and a value for a program. The person
reads one paragraph: what happened, then what to do. The program reads the class, the attributes
and two class attributes:

* ``fault``: ``"program"`` (the code you wrote), ``"machine"`` (memory, disk, network, power),
  ``"setup"`` (how the cluster or the call is configured), ``"freehold"`` (a bug here) or
  ``"unclear"``.
* ``retryable``: True when the same call, unchanged, may well succeed if it is made again.

The first argument of each class is the sentence that says what happened; keyword arguments are
facts, kept as attributes of the same name. The remedy belongs to the class and is added when the
error is printed.

Errors travel between processes, so each is rebuilt from its arguments and attributes without a
second run of ``__init__``. A task's own exception travels as a ``TaskError``; that journey is
told in ``wire/failures.py``. This module knows no other part of Freehold but
``wording``, imports nothing that takes time, holds no state and therefore has no races.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from freehold.wording import (
    SIGNAL_ADVICE,
    TaskFacts,
    describe,
    headline,
    manner_of_death,
    sentence,
)


def rebuild(
    kind: type[FreeholdError], args: tuple[Any, ...], facts: dict[str, Any]
) -> FreeholdError:
    """Make an error again from what its ``__reduce__`` recorded, without ``__init__``."""
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(facts)
    return error


class FreeholdError(Exception):
    """Base of every error that Freehold raises; catch it to catch them all.

    The subclass tells what happened, whose fault it is and what to do.

    Args:
        message: one sentence that says what happened and names the thing it happened to.
    """

    fault: ClassVar[str] = "unclear"
    retryable: ClassVar[bool] = False
    summary: ClassVar[str] = "something went wrong in Freehold"
    remedy: str = ""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or self.summary)

    @property
    def message(self) -> str:
        """What happened, without the remedy."""
        return str(self.args[0]) if self.args else self.summary

    def __str__(self) -> str:
        return f"{sentence(self.message)} {self.remedy}".rstrip()

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild, (type(self), self.args, dict(self.__dict__))


# -- the task, its worker, its actor, its node ----------------------------------------------------


class TaskError(FreeholdError):
    """A task or actor method raised an exception.

    What happened: your function ran and raised. The error arrives as an instance of both this
    class and the type that was raised, so ``except ValueError`` works in the caller as it would
    around a plain call. Three kinds arrive as a plain ``TaskError``: types outside ``Exception``,
    such as ``KeyboardInterrupt`` and ``SystemExit`` (they would end the caller),
    ``StopIteration`` (it would silently end the caller's loop), and types that allow no subclass.
    Fault: the program. Retryable: no, unless the task names exceptions to retry.
    What to do: read the remote traceback in the message, or examine ``cause``.

    Attributes:
        function_name: the task that raised.
        cause: the user's exception, of exactly the user's type where that exists here.
        traceback_text: the remote traceback, without the frames of Freehold.
        pid, node_id: where it ran.
        passed_on: names of the tasks the error came through afterwards, in order.

    A user's attribute that has one of these names is found on ``cause``.
    """

    fault = "program"
    summary = "a task raised an exception"

    def __init_subclass__(cls, **options: Any) -> None:
        # The class made for one user type is no subclass in its author's eyes: it must not enter
        # a registry kept by the author's own __init_subclass__, so the call ends here.
        pass

    def __init__(
        self,
        function_name: str = "",
        cause: BaseException | None = None,
        *,
        traceback_text: str = "",
        pid: int = 0,
        node_id: str = "",
        passed_on: Sequence[str] = (),
    ) -> None:
        line = describe(cause) if cause is not None else "an exception"
        through = tuple(passed_on)
        facts = TaskFacts(function_name, cause, line, traceback_text, pid, node_id, through, b"")
        super().__init__(headline(facts))
        self.__dict__["_facts"] = facts

    @property
    def facts(self) -> TaskFacts:
        """Everything known, as one tuple."""
        return self.__dict__.get("_facts") or TaskFacts("", None, "", "", 0, "", (), b"")

    @property
    def function_name(self) -> str:
        """Name of the task that raised."""
        return self.facts.function_name

    @property
    def cause(self) -> BaseException | None:
        """The exception as the task raised it."""
        return self.facts.cause

    @property
    def traceback_text(self) -> str:
        """The remote traceback, without the frames of Freehold."""
        return self.facts.traceback_text

    @property
    def pid(self) -> int:
        """Process id of the worker that raised."""
        return self.facts.pid

    @property
    def node_id(self) -> str:
        """Node of the worker that raised."""
        return self.facts.node_id

    @property
    def passed_on(self) -> tuple[str, ...]:
        """Names of the tasks that the error came through afterwards."""
        return self.facts.passed_on

    @property
    def message(self) -> str:
        """What happened, without the traceback."""
        facts = self.facts
        text = headline(facts)
        if facts.passed_on:
            text += "\n  passed on by " + ", ".join(f"{name}()" for name in facts.passed_on)
        return text

    def __str__(self) -> str:
        trace = self.traceback_text.rstrip()
        return f"{self.message}\n\n{trace}" if trace else self.message


class TaskCancelledError(FreeholdError):
    """The task was cancelled, and has no result.

    Fault: the program; someone asked for it. Retryable: yes, by submitting it again.
    What to do: catch it where you cancel.
    The message is made from ``function_name`` and ``reason`` when left out.
    """

    fault = "program"
    retryable = True
    summary = "the task was cancelled"
    remedy = "Submit it again if its result is still wanted."

    def __init__(self, message: str = "", *, function_name: str = "", reason: str = "") -> None:
        named = f"{function_name}() was cancelled" if function_name else self.summary
        super().__init__(message or (f"{named}: {reason}" if reason else named))
        self.function_name = function_name
        self.reason = reason


class TaskTimeoutError(FreeholdError, TimeoutError):
    """The task has run for longer than its ``timeout``, and was ended.

    What happened: it was interrupted, or its worker killed because it did not hear; its children
    with it. Time in queues does not count. Fault: the program. Retryable: yes; ``retry_exceptions``
    does it, each attempt with the same timeout.
    What to do: see ``where`` it was; give it more time, or less to do.
    The message is made from ``function_name``, ``timeout`` (seconds) and ``where`` when left out.
    """

    fault = "program"
    retryable = True
    summary = "the task ran for longer than its timeout"
    remedy = "Give it a longer timeout, or less to do."

    def __init__(
        self, message: str = "", *, function_name: str = "", timeout: float = 0.0, where: str = ""
    ) -> None:
        if function_name and not message:
            message = f"{function_name}() ran for longer than its timeout of {timeout:g} s"
            message += f", and was at {where}" if where else ""
        super().__init__(message)
        self.function_name = function_name
        self.timeout = timeout
        self.where = where


class WorkerDiedError(FreeholdError):
    """The worker process died while it ran the task, and the task has no retries left.

    What happened: the operating system tells how the process ended: by a signal or with an exit
    code, and what memory looked like. Fault: unclear; the program (a crash in native code,
    ``os._exit``) or the machine (out of memory). Retryable: yes, unless the task does it each time.
    What to do: read the signal and the last lines of stderr, both in the message. After a SIGKILL
    with memory evidence give the task more ``memory=`` or run fewer at a time.

    Args:
        message: what was running; the rest of the text is made from the facts.
        pid, node_id: the process that died.
        signal: number of the signal that ended it, or None.
        exit_code: its exit code, or None.
        memory: a sentence on memory at the time, "" when nothing points there.
        stderr_tail: the last lines it wrote to stderr, oldest first.
    """

    retryable = True
    summary = "the worker died unexpectedly"

    def __init__(
        self,
        message: str = "",
        *,
        pid: int = 0,
        node_id: str = "",
        signal: int | None = None,
        exit_code: int | None = None,
        memory: str = "",
        stderr_tail: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.pid = pid
        self.node_id = node_id
        self.signal = signal
        self.exit_code = exit_code
        self.memory = memory
        self.stderr_tail = list(stderr_tail)

    def __str__(self) -> str:
        where = [f"pid {self.pid}"] if self.pid else []
        where += [f"node {self.node_id}"] if self.node_id else []
        where += [manner_of_death(self.signal, self.exit_code)]
        parts = [f"{self.message} ({', '.join(where)})."]
        if self.memory:
            parts += [sentence(self.memory), "Give it more memory= or run fewer such at a time."]
        elif self.signal is not None:
            parts += [SIGNAL_ADVICE.get(self.signal, "")]
        parts += [self.remedy]
        if self.stderr_tail:
            parts += ["Last lines of its stderr:\n  " + "\n  ".join(self.stderr_tail)]
        return " ".join(part for part in parts if part)


class ActorDiedError(WorkerDiedError):
    """The actor is dead and will not be restarted; this and later calls to it fail.

    What happened: its process died with no restarts left, its constructor raised, or it was killed
    on purpose; the message says which. Fault: unclear, as for ``WorkerDiedError``.
    Retryable: no, the actor and its state are gone.
    What to do: create it again; give it ``max_restarts`` if it can rebuild its state.
    Arguments are those of ``WorkerDiedError``.
    """

    retryable = False
    summary = "The actor died"
    remedy = "Its state is gone: create it again, or set max_restarts if it can rebuild its state."

    def __str__(self) -> str:
        if not self.pid:  # it was ended, by no accident
            return FreeholdError.__str__(self)
        return super().__str__()


class ActorUnavailableError(FreeholdError):
    """The actor could not be reached for now; it may or may not have run the call.

    Fault: the machine. Retryable: yes, if the call may safely run twice.
    What to do: call again, or set ``max_task_retries`` on the actor.
    """

    fault = "machine"
    retryable = True
    summary = "the actor cannot be reached for now"
    remedy = "The call may or may not have run: repeat it if running twice does no harm."


class NodeDiedError(FreeholdError):
    """A machine of the cluster was declared dead, and what ran there could not be moved.

    Fault: the machine (power, network, its own daemon). Retryable: yes, elsewhere.
    What to do: submit again; read that node's daemon log if it should be alive.
    The message is made from ``node_id`` and ``reason`` when left out.
    """

    fault = "machine"
    retryable = True
    summary = "a node died"
    remedy = "Submit again to run elsewhere; the log of that node's daemon tells more."

    def __init__(self, message: str = "", *, node_id: str = "", reason: str = "") -> None:
        named = f"node {node_id} died" if node_id else self.summary
        super().__init__(message or (f"{named}: {reason}" if reason else named))
        self.node_id = node_id
        self.reason = reason


# -- values ---------------------------------------------------------------------------------------


class GetTimeoutError(FreeholdError, TimeoutError):
    """The value was not ready within the timeout. Its task is still running or waiting.

    Fault: unclear; ``waiting`` tells what it waits for. Retryable: yes, the reference stays good.
    What to do: read ``waiting``; get again with a longer timeout, or cancel.

    Args:
        message: what was asked for, and for how many seconds.
        waiting: explanation, one line for each thing waited for.
    """

    retryable = True
    summary = "the value was not ready within the timeout"
    remedy = "The reference is still good: get it again with a longer timeout, or cancel it."

    def __init__(self, message: str = "", *, waiting: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.waiting = list(waiting)

    def __str__(self) -> str:
        lines = ["It waits for:", *self.waiting] if self.waiting else []
        return " ".join([super().__str__(), "\n  ".join(lines)]).rstrip()


class ObjectLostError(FreeholdError):
    """Every copy of the value is gone and it could not be made again.

    What happened: the nodes that held it died, and its task could not run again (it was ``put``,
    or retries are spent); the message says why. Fault: the machine.
    Retryable: yes, by submitting the task again yourself.
    What to do: just that; make by tasks, not by ``put``, what must survive a machine.
    ``object_id`` is the value's id.
    """

    fault = "machine"
    retryable = True
    summary = "the value is lost: no copy of it is left"
    remedy = "Submit its task again; values made by tasks can be rebuilt, those of put cannot."

    def __init__(self, message: str = "", *, object_id: str = "") -> None:
        super().__init__(message)
        self.object_id = object_id


class LineageEvictedError(ObjectLostError):
    """Every copy of the value is gone, and how to make it again was forgotten to save memory.

    What happened: an owner keeps the tasks behind its values up to a number of bytes, the oldest
    go first. Fault: the machine that lost the value. Retryable: yes, by submitting the task again.
    What to do: hold fewer references at a time, or pass large arguments by reference: the bytes
    are mostly those of arguments.
    """

    summary = "the value is lost, and its lineage was dropped to save memory"
    remedy = "Submit its task again; pass large arguments by reference: lineage stays small."


class OwnerDiedError(ObjectLostError):
    """The process that owned the value died, and so did the chain of owners above it.

    What happened: the owner keeps a value's place and lineage. After its death its own owner runs
    it again; here that chain ends (a driver died, retries are spent, or the value was ``put``).
    Fault: the machine, or whoever ended the driver. Retryable: no, not under this reference.
    What to do: let a process that stays create what must live long, or store it elsewhere.
    """

    retryable = False
    summary = "the process that owned the value died"
    remedy = "Let a process that stays create what must live long, or store it outside the cluster."


class ObjectStoreFullError(FreeholdError):
    """The node's shared memory is full, and nothing in it can be dropped or spilled.

    Fault: the setup, or a program that keeps too much alive. Retryable: yes, when room was made.
    What to do: drop references, give the store more memory at ``init``, or a folder to spill to.
    ``wanted``, ``used`` and ``capacity`` are bytes.
    """

    fault = "setup"
    retryable = True
    summary = "the object store is full"
    remedy = "Drop references, give the store more memory, or let it spill to disk."

    def __init__(
        self, message: str = "", *, wanted: int = 0, used: int = 0, capacity: int = 0
    ) -> None:
        super().__init__(message)
        self.wanted = wanted
        self.used = used
        self.capacity = capacity

    def __str__(self) -> str:
        if not self.capacity:
            return super().__str__()
        sizes = f"{self.wanted:,} bytes wanted, {self.used:,} of {self.capacity:,} in use"
        return f"{self.message} ({sizes}). {self.remedy}"


class OutOfDiskError(FreeholdError):
    """Values had to be spilled to disk, and the disk or the spill quota is full.

    Fault: the machine. Retryable: yes, once there is room.
    What to do: free space, raise the quota, or name another spill folder.
    ``folder`` is the spill folder.
    """

    fault = "machine"
    retryable = True
    summary = "there is no room left to spill values to disk"
    remedy = "Free disk space, raise the spill quota or name another spill folder."

    def __init__(self, message: str = "", *, folder: str = "") -> None:
        super().__init__(message or (f"{self.summary} in {folder}" if folder else ""))
        self.folder = folder


class UnschedulableError(FreeholdError):
    """No node, present or promised, can ever give what the task, actor or group asks for.

    Fault: the setup. Retryable: no, until the request or the cluster changes.
    What to do: compare the request with the nearest miss; ask for less or add a node.

    Args:
        message: what cannot be placed.
        nearest: the node that comes closest, and what it lacks.
        request: the amounts asked for, by name of the resource.
    """

    fault = "setup"
    summary = "no node can run this"
    remedy = "Ask for less, or add a node that has it."

    def __init__(
        self, message: str = "", *, nearest: str = "", request: Mapping[str, float] | None = None
    ) -> None:
        super().__init__(message)
        self.nearest = nearest
        self.request = dict(request or {})

    def __str__(self) -> str:
        parts = [sentence(self.message)]
        if self.request:
            wants = ", ".join(f"{name}={amount:g}" for name, amount in self.request.items())
            parts += [f"It asks for {wants}."]
        if self.nearest:
            parts += [f"Nearest miss: {sentence(self.nearest)}"]
        return " ".join([*parts, self.remedy])


class RuntimeEnvSetupError(FreeholdError):
    """The runtime environment of a task or actor could not be made where it was to run.

    What happened: a package could not be fetched, the installer failed or took too long, or the
    setup hook raised; the message has the installer's last lines. Fault: the setup.
    Retryable: yes; nothing of the failure is kept, the next task tries anew.
    What to do: read the last lines; try the same requirements with the installer by hand.
    """

    fault = "setup"
    retryable = True
    summary = "the runtime environment could not be made"
    remedy = "Mend runtime_env and submit again: a failed environment is tried anew."


class SerializationError(FreeholdError, TypeError):
    """A value cannot be turned into bytes, or bytes cannot be turned into a value in this process.

    What happened: the message names the part at fault, as in ``argument 'cfg'.model.lock is a
    _thread.lock``, or the module that is missing here. Fault: the program. Retryable: no.
    What to do: leave the part out (``__getstate__``), create it inside the task, or pass what it
    is made from.

    Args:
        message: what could not be pickled or rebuilt, and why.
        path: where in the object the culprit sits, "" when unknown.
        remedy: what to do, where the usual advice does not fit.
    """

    fault = "program"
    summary = "a value cannot be serialised"
    remedy = "Leave that part out with __getstate__, or create it inside the task."

    def __init__(self, message: str = "", *, path: str = "", remedy: str | None = None) -> None:
        super().__init__(message)
        self.path = path
        if remedy is not None:
            self.remedy = remedy


# -- the cluster ----------------------------------------------------------------------------------


class AuthenticationError(FreeholdError):
    """A connection was refused: one side could not prove that it holds the cluster's token.

    Fault: the setup, or a stranger. Retryable: no.
    What to do: start this process with the token of the cluster it connects to.
    """

    fault = "setup"
    summary = "the connection was refused: the two sides do not hold the same cluster token"
    remedy = "Start this process with the token of the cluster it connects to."


class ProtocolError(FreeholdError):
    """Bytes arrived that cannot be read: cut short, damaged, or made by something else.

    Fault: Freehold, or a process that is no Freehold. Retryable: no.
    What to do: check that both ends run the same version and the address is right; else report it.
    """

    fault = "freehold"
    summary = "bytes arrived that cannot be read"
    remedy = "Check that both ends run the same version of Freehold; if so, please report this bug."


class ClusterUnreachableError(FreeholdError, ConnectionError):
    """No cluster answers at the address, or the connection to it was lost for good.

    Fault: the machine or the setup. Retryable: yes.
    What to do: check the address, and that the cluster is up.
    ``address`` is what was tried.
    """

    fault = "machine"
    retryable = True
    summary = "the cluster cannot be reached"
    remedy = "Check the address, that the cluster is up, and that no firewall stands between."

    def __init__(self, message: str = "", *, address: str = "") -> None:
        super().__init__(message or (f"{self.summary} at {address}" if address else ""))
        self.address = address


class NotInitializedError(FreeholdError, RuntimeError):
    """The call needs a running Freehold, and this process has none.

    Fault: the program. Retryable: no. What to do: call ``freehold.init()`` first.
    """

    fault = "program"
    summary = "Freehold is not running in this process"
    remedy = "Call freehold.init() first."


class AlreadyInitializedError(FreeholdError, RuntimeError):
    """``init`` was called while Freehold already runs in this process.

    Fault: the program. Retryable: no.
    What to do: call ``freehold.shutdown()`` first, or drop the second call.
    """

    fault = "program"
    summary = "Freehold is already running in this process"
    remedy = "Call freehold.shutdown() before another init(), or drop the second call."


# -- calls of actors, streams, placement groups ---------------------------------------------------

from freehold import call_errors, group_errors  # noqa: E402  (they are made of the class above)

PendingCallsLimitExceededError = call_errors.PendingCallsLimitExceededError
ActorAlreadyExistsError = call_errors.ActorAlreadyExistsError
NoEventLoopError = call_errors.NoEventLoopError
StreamReplayError = call_errors.StreamReplayError
PlacementGroupRemovedError = group_errors.PlacementGroupRemovedError
TaskPlacementGroupRemovedError = group_errors.TaskPlacementGroupRemovedError
ActorPlacementGroupRemovedError = group_errors.ActorPlacementGroupRemovedError
