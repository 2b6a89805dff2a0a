"""Planted bugs in what is done about actors: who makes them, who calls them, where they live."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from freehold.core.actors import Actors
from freehold.core.calls import Calls
from freehold.core.hosting import Hosting, lane_of
from freehold.sim.bugs import ignored
from freehold.sim.hunt import Method, Mutant
from freehold.wire.messages import Death

LIVES: Final = ("lives", "tours")
ACTS: Final = ("actors", "lives")


def unordered(true: Method) -> Method:
    """Calls to a serial actor leave when their own arguments are there."""

    def submit(self: Calls, task: Any, callee: Any) -> None:
        ordered, callee.ordered = callee.ordered, False
        true(self, task, callee)
        callee.ordered = ordered

    return submit


def no_lanes(true: Method) -> Method:
    """Calls to a serial actor begin when their own arguments are there."""
    del true

    def arrived(self: Hosting, run: Any) -> None:
        lane = self.lanes.get(lane_of(run))
        if lane is not None and run in lane:
            lane.remove(run)
        self.execution.ready.append(run)

    return arrived


def no_limit(true: Method) -> Method:
    """All calls begin at once."""

    def arrived(self: Hosting, run: Any) -> None:
        if self.ordered:
            true(self, run)
        else:
            self.begin(run, self.group_of(run))

    return arrived


def again_unasked(true: Method) -> Method:
    """A call that may have run is sent to the next life."""

    def worker_lost(self: Calls, process: Any) -> None:
        self.submission.may_retry = lambda task: True  # type: ignore[method-assign]
        try:
            true(self, process)
        finally:
            del self.submission.may_retry

    return worker_lost


def lives_for_ever(true: Method) -> Method:
    """A restart is not counted."""

    def bury(self: Actors, actor: Any) -> None:
        restarts = actor.restarts
        true(self, actor)
        actor.restarts = restarts

    return bury


def killed_and_forgotten(true: Method) -> Method:
    """The next life begins when the last is to end, and not when it has ended."""

    def kill(self: Actors, object_id: Any, *, restart: bool) -> None:
        entry = self.ownership.entries.get(object_id)
        actor: Any = entry.task if entry is not None else None
        if restart and actor is not None and actor.worker is not None and not actor.over:
            actor.death = Death(actor.pid, actor.node.node)
            self.bury(actor)
        else:
            true(self, object_id, restart=restart)

    return kill


def calls_hold_nothing(true: Method) -> Method:
    """The actor is not pinned by calls that are not done."""

    def count(self: Calls, callee: Any) -> None:
        true(self, callee)
        if callee.pending == 1:
            callee.entry.pins -= 1

    return count


def never_told_to_end(true: Method) -> Method:
    """Nobody can name it, and its worker is not told."""

    def dropped(self: Actors, actor: Any) -> Sequence[Any]:
        worker, actor.worker = actor.worker, None
        held: Sequence[Any] = true(self, actor)
        actor.worker = worker
        return held

    return dropped


ACT_MUTANTS: Final = (
    Mutant("calls pass each other", Calls, "submit", ACTS, 7, unordered),
    Mutant("calls overtake at the host", Hosting, "arrived", ACTS, 7, no_lanes),
    Mutant("too many calls at once", Hosting, "arrived", ACTS, 8, no_limit),
    Mutant("calls run again unasked", Calls, "worker_lost", LIVES, 10, again_unasked),
    Mutant("restarts are not counted", Actors, "bury", LIVES, 18, lives_for_ever),
    Mutant("two lives at once", Actors, "kill", ("lives",), 10, killed_and_forgotten),
    Mutant("calls do not hold the actor", Calls, "count", ACTS, 0, calls_hold_nothing),
    Mutant("actors are not ended", Actors, "dropped", ACTS, 0, never_told_to_end),
    Mutant("unsure calls hang", Calls, "lives_on", LIVES, 16, ignored),
    Mutant("the next life is not asked for", Calls, "ask", LIVES, 10, ignored),
    Mutant("a dead actor's calls wait", Actors, "on_ended", LIVES, 0, ignored),
    Mutant("an actor's exit is an accident", Actors, "on_exited", ("lives",), 29, ignored),
)
