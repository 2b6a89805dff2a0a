"""Planted bugs in what nodes and the head tell each other: attendance, membership, fencing.

As in ``mutants``, which takes these in."""

from __future__ import annotations

from typing import Any, Final

from freehold.core.attendance import Attendance
from freehold.core.membership import BEATS, Ended, Membership
from freehold.roles.node import Node
from freehold.sim.hunt import Method, Mutant
from freehold.sim.process import Process


def never_calls_again(true: Method) -> Method:
    def lost(self: Attendance) -> None:
        self.away = True
        self.joined = False

    return lost


def judges_in_its_sleep(true: Method) -> Method:
    def look(self: Membership) -> None:
        late = self.world.now() - self.due
        self.due += max(0.0, late - self.dead_after / BEATS)  # as if it had looked all along
        true(self)

    return look


def only_streams_end(true: Method) -> Method:
    def look(self: Membership) -> None:
        for member in self.members.values():
            member.heard = self.world.now()
        true(self)

    return look


def nothing_has_ended(true: Method) -> Method:
    def facts(self: Node) -> Any:
        ended, self.ended = self.ended, Ended()
        try:
            return true(self)
        finally:
            self.ended = ended

    return facts


def jobs_never_ended(true: Method) -> Method:
    def on_join(self: Membership, message: Any, peer: Any) -> None:
        theirs = [job for job in self.jobs.values() if job.driver.node == peer.node]
        message.jobs = [*message.jobs, *theirs]
        true(self, message, peer)

    return on_join


def answer_unread(true: Method) -> Method:
    def on_joined(self: Node, message: Any, peer: Any) -> None:
        if self.reporting.reported is not None and self.ended.processes:  # not its first
            message.nodes, message.gone, message.jobs, message.ended = [], [], [], []
        true(self, message, peer)

    return on_joined


def forgotten_for_good(true: Method) -> Method:
    def expect(self: Membership, info: Any) -> None: ...

    return expect


def hears_the_dead(true: Method) -> Method:
    def fence(self: Process, node: Any) -> None: ...

    return fence


HEADS: Final = ("head",)
FENCES: Final = ("fence",)
HEAD_MUTANTS: Final = (
    Mutant("nobody calls a new head", Attendance, "lost", HEADS, 0, never_calls_again),
    Mutant("a head judges in its sleep", Membership, "look", HEADS, 15, judges_in_its_sleep),
    Mutant("silence is no death", Membership, "look", HEADS, 12, only_streams_end),
    Mutant("ends are told once", Node, "facts", HEADS, 19, nothing_has_ended),
    Mutant("jobs outlive an absence", Membership, "on_join", HEADS, 0, jobs_never_ended),
    Mutant("the head's answer is unread", Node, "on_joined", HEADS, 19, answer_unread),
    Mutant("nobody misses a lost record", Membership, "expect", HEADS, 44, forgotten_for_good),
    Mutant("the dead are heard", Process, "fence", FENCES, 0, hears_the_dead),
)
