"""Errors of the cluster and of how it is used: places, groups, connections, sessions."""

from __future__ import annotations

from collections.abc import Mapping

from freehold.errors.base import FreeholdError
from freehold.wording import sentence


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


class PlacementGroupRemovedError(FreeholdError):
    """The placement group was removed, and with it what was running or waiting in it.

    What happened: someone called ``remove_placement_group``, or the job that made the group has
    ended. Fault: the program. Retryable: no, the group does not come back.
    What to do: make another group, and submit again with it.
    ``group_id`` is the group's id.
    """

    fault = "program"
    retryable = False
    summary = "the placement group was removed"
    remedy = "Make another placement group and submit again with it."

    def __init__(self, message: str = "", *, group_id: str = "") -> None:
        super().__init__(message or (f"placement group {group_id} was removed" if group_id else ""))
        self.group_id = group_id


class TaskPlacementGroupRemovedError(PlacementGroupRemovedError):
    """The task ran, or waited, in a placement group that was removed.

    Fault: the program. Retryable: no. What to do: as for ``PlacementGroupRemovedError``.
    """

    summary = "the task's placement group was removed"


class ActorPlacementGroupRemovedError(PlacementGroupRemovedError):
    """The actor lived, or waited, in a placement group that was removed.

    Fault: the program. Retryable: no. What to do: as for ``PlacementGroupRemovedError``.
    """

    summary = "the actor's placement group was removed"


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


class NoEventLoopError(FreeholdError, RuntimeError):
    """Something that only works inside a running asyncio event loop was used outside one.

    Fault: the program. Retryable: no.
    What to do: call it in a coroutine that runs under ``asyncio.run``, or use ``get``.
    """

    fault = "program"
    summary = "there is no running event loop in this thread"
    remedy = "Call it in a coroutine that asyncio.run() runs, or use freehold.get() and wait()."
