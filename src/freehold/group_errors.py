"""Errors of placement groups; ``freehold.errors`` has them under its name, and tells the rules."""

from __future__ import annotations

from freehold import errors


class PlacementGroupRemovedError(errors.FreeholdError):
    """The placement group was removed, and with it what was running or waiting in it.

    What happened: someone called ``remove_placement_group``, or the job that made the group has
    ended. Fault: the program. Retryable: no, the group does not come back.
    What to do: make another group, and submit again with it.
    ``group_id`` is the group's id.
    """

    __module__ = errors.__name__  # where users find it
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

    __module__ = errors.__name__  # where users find it
    summary = "the task's placement group was removed"


class ActorPlacementGroupRemovedError(PlacementGroupRemovedError):
    """The actor lived, or waited, in a placement group that was removed.

    Fault: the program. Retryable: no. What to do: as for ``PlacementGroupRemovedError``.
    """

    __module__ = errors.__name__  # where users find it
    summary = "the actor's placement group was removed"
