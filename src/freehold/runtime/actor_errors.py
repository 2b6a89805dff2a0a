"""What calls of an actor may end in, in words (see ``runtime.system_errors``)."""

from __future__ import annotations

import os

from freehold import errors
from freehold.ids import short
from freehold.wire.failures import dump_error, load_error
from freehold.wire.messages import Death
from freehold.wording import describe


def ship(error: errors.FreeholdError, function: str = "") -> bytes:
    """The shipped form of one of our own errors."""
    return dump_error(error, function_name=function, pid=os.getpid(), node_id="")


class ActorErrors:
    """Implements ``roles.acting.ActorErrors``."""

    def actor_died(self, actor: str, death: Death, restarts: int) -> bytes:
        """Its process has ended and no restart is left."""
        used = f" after {restarts} restart{'s' * (restarts != 1)}" if restarts else ""
        when = f" at {death.when}" if death.when else ""
        return ship(
            errors.ActorDiedError(
                f"The actor died: the process of {actor} ended{when}{used}",
                pid=death.pid,
                node_id=short(death.node),
                signal=death.signal,
                exit_code=death.exit_code,
                memory=death.detail,
                stderr_tail=death.stderr_tail,
            )
        )

    def actor_ended(self, actor: str, how: str) -> bytes:
        """It has ended without an accident, and how."""
        return ship(errors.ActorDiedError(f"The actor died: {actor}: {how}"))

    def actor_failed(self, call: str, error: bytes) -> bytes:
        """The actor was ended by that error: what its calls raise."""
        cause = load_error(error)
        if isinstance(cause, errors.ActorDiedError):
            return error
        name = call.partition(".")[0]
        died = errors.ActorDiedError(f"The actor died: {name} could not be made: {cause}")
        died.__cause__ = cause
        return ship(died)

    def actor_group_removed(self, actor: str, group: bytes) -> bytes:
        """The placement group in which it lived, or was to live, is gone."""
        where = f"{actor} was in placement group {short(group)}, which was removed"
        removed = errors.ActorPlacementGroupRemovedError(where, group_id=group.hex())
        died = errors.ActorDiedError(f"The actor died: {where}")
        died.__cause__ = removed
        return ship(died)

    def actor_unavailable(self, call: str, why: str) -> bytes:
        """It lives on, but this call may or may not have been run."""
        return ship(errors.ActorUnavailableError(f"{call}() was lost with its actor: {why}"))


def constructor_raised(actor: str, error: BaseException, node_id: str) -> bytes:
    """The shipped form of what ends an actor whose constructor has raised ``error``."""
    packed = dump_error(error, function_name=f"{actor}.__init__", pid=os.getpid(), node_id=node_id)
    cause = load_error(packed)
    line = describe(error)
    died = errors.ActorDiedError(f"The actor died: the constructor of {actor} raised {line}")
    died.__cause__ = cause
    return ship(died)
