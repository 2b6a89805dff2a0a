"""Planted bugs: proof that the simulator can see.

Each mutant breaks one rule of one machine by exchanging one method for the length of a run. It
must be found within ``MOST_SEEDS`` seeds of the profiles that exercise the rule. A change to the
simulator after which one of these gets away has made the simulator blind somewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from freehold.core.execution import Execution
from freehold.core.fetching import Fetching
from freehold.core.leasing import Leasing
from freehold.core.objects import Objects
from freehold.core.ownership import Ownership
from freehold.core.scheduling import Granted, Scheduling
from freehold.core.submission import DONE, Submission
from freehold.core.workers import Workers
from freehold.roles.owner import Owner
from freehold.sim.cluster import run_case
from freehold.sim.generate import make_case
from freehold.wire.messages import Release

MOST_SEEDS: Final = 400

Method = Callable[..., Any]


@dataclass(frozen=True)
class Mutant:
    """One planted bug: what is wrong, and which method of which class it takes the place of.

    ``make`` is given the true method and returns the false one."""

    name: str
    owner: type
    method: str
    profiles: tuple[str, ...]
    make: Callable[[Method], Method]


@dataclass(frozen=True)
class Found:
    """How a mutant was found; ``seeds`` is 0 if it was not."""

    mutant: Mutant
    seeds: int
    seed: int = 0
    profile: str = ""
    promise: str = ""


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """The bug is in the code."""
    true = getattr(mutant.owner, mutant.method)
    setattr(mutant.owner, mutant.method, mutant.make(true))
    try:
        yield
    finally:
        setattr(mutant.owner, mutant.method, true)


def hunt(mutant: Mutant, start: int = 0, most: int = MOST_SEEDS) -> Found:
    """Try seeds until a promise breaks."""
    with planted(mutant):
        for count in range(most):
            profile = mutant.profiles[count % len(mutant.profiles)]
            outcome = run_case(make_case(start + count, profile))
            if outcome.promise and not outcome.known:
                return Found(mutant, count + 1, start + count, profile, outcome.promise)
    return Found(mutant, 0)


# ------------------------------------------------------------------ the bugs


def name_before_count(true: Method) -> Method:
    def accept(self: Ownership, ref: Any, giver: Any, gate: Any) -> None:
        waiting = gate.waiting
        true(self, ref, giver, gate)
        if gate.waiting > waiting:  # used at once; the introduction opens nothing
            gate.waiting = waiting
            key = (ref.object, giver.process)
            self.gates[key][-1] = type(gate)(lambda: None, lambda giver: None)
            self.gates[key][-1].waiting = 1

    return accept


def boolean_release(true: Method) -> Method:
    def on_release(self: Ownership, message: Any, peer: Any) -> None:
        holders = self.entries[message.object].holders or {}
        true(self, Release(message.object, holders.get(peer, message.count)), peer)

    return on_release


def uncounted(true: Method) -> Method:
    def hand_out(self: Ownership, ref: Any, to: Any) -> None:
        if ref.owner.process != self.world.address.process or to.process == ref.owner.process:
            true(self, ref, to)

    return hand_out


def release_of_one(true: Method) -> Method:
    def collect(self: Ownership, entry: Any) -> None:
        if entry.owner is not None and entry.received > 1 and not entry.owed:
            if not (entry.handles or entry.pins):
                entry.received = 1
        true(self, entry)

    return collect


def forgets_watchers(true: Method) -> Method:
    def resolve(self: Ownership, entry: Any, value: Any) -> None:
        entry.watchers = None
        true(self, entry, value)

    return resolve


def keeps_arguments(true: Method) -> Method:
    def finish(self: Submission, task: Any, *rest: Any) -> None:
        task.deps = ()
        true(self, task, *rest)

    return finish


def any_attempt(true: Method) -> Method:
    def on_task_done(self: Owner, message: Any, peer: Any) -> None:
        task = self.submission.tasks.get(message.task)
        if task is not None:
            message.attempt = task.attempt
        true(self, message, peer)

    return on_task_done


def endless_retries(true: Method) -> Method:
    def may_retry(self: Submission, task: Any) -> bool:
        true(self, task)
        return bool(task.used_retries < 20)

    return may_retry


def cancel_leaves_queued(true: Method) -> Method:
    def withdraw(self: Leasing, task: Any) -> bool:
        return bool(task.state is DONE)

    return withdraw


def silent_give_back(true: Method) -> Method:
    def give_back(self: Execution) -> None:
        for run in [run for run in self.runs.values() if not run.begun]:
            self.abandon(run)

    return give_back


def double_answer(true: Method) -> Method:
    def on_cancel(self: Execution, message: Any) -> None:
        run = self.runs.get(message.task)
        true(self, message)
        if run is not None and not run.begun:
            self.fail(run, self.cancelled_error(run))

    return on_cancel


def leased_twice(true: Method) -> Method:
    def bind(self: Workers, worker: Any, lease: Any, job: Any) -> None:
        true(self, worker, lease, job)
        self.idle[worker.start] = worker

    return bind


def resources_kept(true: Method) -> Method:
    def release(self: Scheduling, lease: Any) -> Any:
        granted = self.granted.get(lease)
        if granted is not None and granted.lent:
            granted.lent = False  # gives back what was lent out already
        return true(self, lease)

    return release


def lent_twice(true: Method) -> Method:
    def held(self: Granted) -> Any:
        return self.wire.resources

    return held


def forgets_queue(true: Method) -> Method:
    def redirect(self: Scheduling, queued: Any) -> bool:
        return bool(true(self, queued)) or queued.wire.hops > 0  # a redirected one may not wait

    return redirect


def keeps_pins(true: Method) -> Method:
    def release(self: Fetching, object_id: Any) -> None:
        local = self.locals[object_id]
        local.pins -= 1
        if not local.pins and not local.fetchers:
            del self.locals[object_id]

    return release


def frees_pinned(true: Method) -> Method:
    def free(self: Objects, stored: Any) -> None:
        pins, stored.pins = stored.pins, {}
        true(self, stored)
        stored.pins = pins

    return free


def evicts_primaries(true: Method) -> Method:
    def evict_one(self: Objects) -> bool:
        for stored in self.table.values():
            stored.primary = False
        return bool(true(self))

    return evict_one


def silent_pull(true: Method) -> Method:
    def pulled(self: Objects, object_id: Any, error: str) -> None:
        stored = self.table[object_id]
        owner, send = stored.owner, self.world.send
        muted = lambda to, message: None if to == owner else send(to, message)  # noqa: E731
        self.world.send = muted  # type: ignore[method-assign]
        try:
            true(self, object_id, error)
        finally:
            del self.world.send

    return pulled


def keeps_of_the_dead(true: Method) -> Method:
    def process_lost(self: Objects, process: Any) -> None:
        for stored in self.table.values():
            stored.pins.pop(process, None)

    return process_lost


OWNERS: Final = ("calm", "borrow")
MUTANTS: Final = (
    Mutant("name before count", Ownership, "accept", ("borrow",), name_before_count),
    Mutant("release as a boolean", Ownership, "on_release", OWNERS, boolean_release),
    Mutant("handed out uncounted", Ownership, "hand_out", OWNERS, uncounted),
    Mutant("release of one of many", Ownership, "collect", OWNERS, release_of_one),
    Mutant("borrowers are not told", Ownership, "resolve", OWNERS, forgets_watchers),
    Mutant("arguments stay pinned", Submission, "finish", OWNERS, keeps_arguments),
    Mutant("any attempt's answer", Owner, "on_task_done", ("nodes", "storm"), any_attempt),
    Mutant("endless retries", Submission, "may_retry", ("crash",), endless_retries),
    Mutant("cancel leaves it queued", Leasing, "withdraw", ("cancel",), cancel_leaves_queued),
    Mutant("tasks given back silently", Execution, "give_back", OWNERS, silent_give_back),
    Mutant("cancel answers twice", Execution, "on_cancel", ("cancel",), double_answer),
    Mutant("a worker leased twice", Workers, "bind", OWNERS, leased_twice),
    Mutant("lent CPUs given twice", Scheduling, "release", ("crash", "drivers"), resources_kept),
    Mutant("lent CPUs still held", Granted, "held", OWNERS, lent_twice),
    Mutant("redirected requests vanish", Scheduling, "redirect", ("nodes",), forgets_queue),
    Mutant("pins are never returned", Fetching, "release", OWNERS, keeps_pins),
    Mutant("pinned values are freed", Objects, "free", ("pressure",), frees_pinned),
    Mutant("the only copy is evicted", Objects, "evict_one", ("pressure",), evicts_primaries),
    Mutant("new copies are not told", Objects, "pulled", ("nodes", "calm"), silent_pull),
    Mutant("values outlive owners", Objects, "process_lost", ("crash",), keeps_of_the_dead),
)
