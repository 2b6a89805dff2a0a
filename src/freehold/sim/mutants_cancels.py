"""Planted bugs in cancelling: who is told, how far down it goes, and when a worker is killed.

As in ``mutants``, which takes these in."""

from __future__ import annotations

from typing import Any, Final

from freehold.core.cancelling import Cancelling
from freehold.roles.executor import Executor
from freehold.roles.owner import Owner
from freehold.sim.bugs import ignored
from freehold.sim.hunt import Method, Mutant
from freehold.wire.messages import CancelTask

GRACES: Final = ("graces",)


def no_grace(true: Method) -> Method:
    """The worker is killed at once."""

    def insist(self: Cancelling, task: Any, grace: float) -> None:
        true(self, task, grace / 2)

    return insist


def all_the_family(true: Method) -> Method:
    """What the task has submitted goes with it, asked for or not."""

    def on_cancel(self: Executor, message: CancelTask, peer: Any) -> None:
        message.recursive = True
        true(self, message, peer)

    return on_cancel


CANCEL_MUTANTS: Final = (
    Mutant("nobody insists", Cancelling, "insist", GRACES, 8, ignored),
    Mutant("half the grace", Cancelling, "insist", GRACES, 25, no_grace),
    Mutant("cancels go too far down", Executor, "on_cancel", GRACES, 52, all_the_family),
    Mutant("children are not cancelled", Owner, "cancel_children", GRACES, 1558, ignored),
    Mutant("only owners may cancel", Owner, "on_cancel_object", GRACES, 159, ignored),
)
