"""The planted bugs, as code: each function is given a true method of a machine and returns one that
breaks one of its rules. ``mutants`` says which method each takes the place of."""

from __future__ import annotations

from typing import Any

from freehold.core.draining import Draining
from freehold.core.entries import Gate
from freehold.core.execution import Execution
from freehold.core.fetching import Fetching, Wait
from freehold.core.grants import Granted
from freehold.core.leasing import Leasing
from freehold.core.lineage import Lineage
from freehold.core.moving import Moving
from freehold.core.objects import Objects
from freehold.core.ownership import Ownership
from freehold.core.rebirth import Rebirth
from freehold.core.scheduling import Scheduling
from freehold.core.spilling import Spilling
from freehold.core.submission import DONE, QUEUED, Submission
from freehold.core.workers import Workers
from freehold.ids import Names, TaskId
from freehold.roles.owner import Owner
from freehold.sim.hunt import Method
from freehold.wire.messages import Release


def ignored(true: Method) -> Method:
    """The event is not heard."""
    del true

    def method(self: Any, *args: Any, **rest: Any) -> None: ...

    return method


def never(true: Method) -> Method:
    """The question is answered with no."""
    del true

    def method(self: Any, *args: Any, **rest: Any) -> bool:
        return False

    return method


def always(true: Method) -> Method:
    """The question is answered with yes."""
    del true

    def method(self: Any, *args: Any, **rest: Any) -> bool:
        return True

    return method


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
    def evict_one(self: Spilling, table: Any) -> bool:
        for stored in list(self.spillable.values()):
            stored.primary = False
            self.rest(stored)
        return bool(true(self, table))

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


def gate_half_open(true: Method) -> Method:
    def introduced(self: Gate) -> None:
        self.waiting = min(self.waiting, 1)
        true(self)

    return introduced


def taker_uncounted(true: Method) -> Method:
    def on_provide(self: Ownership, message: Any, giver: Any) -> None:
        entry = self.entries[message.object]
        before = dict(entry.holders or {})
        true(self, message, giver)
        entry.holders = before

    return on_provide


def dead_hold_on(true: Method) -> Method:
    def peer_lost(self: Ownership, peer: Any) -> Any:
        held = [(entry, entry.holders) for entry in self.entries.values() if entry.holders]
        for entry, _ in held:
            entry.holders = None
        orphans = true(self, peer)
        for entry, holders in held:
            entry.holders = holders
        return orphans

    return peer_lost


def inner_uncounted(true: Method) -> Method:
    del true

    def for_peer(self: Ownership, value: Any, peer: Any) -> Any:
        return value

    return for_peer


def waiters_left_behind(true: Method) -> Method:
    def merge(self: Ownership, old: Any, new: Any) -> None:
        old.waiters = None
        true(self, old, new)

    return merge


def keeps_lease(true: Method) -> Method:
    del true

    def give_back(self: Leasing, lease: Any) -> None:
        self.forget(lease)

    return give_back


def dies_with_node(true: Method) -> Method:
    def node_lost(self: Leasing, node: Any, detail: str) -> None:
        requests = dict(self.asked)
        self.asked.clear()
        true(self, node, detail)
        self.asked.update(requests)

    return node_lost


def dead_in_queue(true: Method) -> Method:
    def forget_owner(self: Scheduling, owner: Any) -> Any:
        queue = list(self.queue)
        orphans = true(self, owner)
        self.queue = queue
        return orphans

    return forget_owner


def any_worker(true: Method) -> Method:
    def pick(self: Workers, job: Any) -> Any:
        return true(self, job) or next(iter(self.idle.values()), None)

    return pick


def job_lives_on(true: Method) -> Method:
    def end_job(self: Workers, job: Any) -> None:
        self.wanting = {lease: w for lease, w in self.wanting.items() if w.job != job}

    return end_job


def slot_is_lost(true: Method) -> Method:
    def leave_arena(self: Spilling, stored: Any) -> None:
        true(self, stored)
        if stored.size > 2000:
            stored.slot = None

    return leave_arena


def dying_is_forgotten(true: Method) -> Method:
    def unused(self: Objects, stored: Any) -> None:
        stored.dying = False
        true(self, stored)

    return unused


def nobody_pinned_it(true: Method) -> Method:
    def on_ready(self: Fetching, message: Any) -> None:
        if message.object in self.locals:
            true(self, message)

    return on_ready


def runs_too_early(true: Method) -> Method:
    def arrived(self: Execution, run: Any) -> None:
        if run.missing > 1:
            run.missing -= 1
        true(self, run)

    return arrived


def free_of_charge(true: Method) -> Method:
    def begin_again(self: Lineage, task: Any) -> Any:
        task.used_retries -= 1
        return true(self, task)

    return begin_again


def arguments_not_made(true: Method) -> Method:
    def begin_again(self: Lineage, task: Any) -> Any:
        true(self, task)
        return []

    return begin_again


def reborn_uncounted(true: Method) -> Method:
    def give(self: Rebirth, entry: Any, claim: Any) -> None:
        holders = dict(entry.holders or {})
        true(self, entry, claim)
        entry.holders = holders

    return give


def hasty_drop(true: Method) -> Method:
    def on_taken(self: Moving, message: Any, peer: Any) -> None:
        true(self, message, peer)
        if not message.reason:  # before its owner knows the other place
            self.objects.on_free(message.object)

    return on_taken


def taken_as_copy(true: Method) -> Method:
    def on_take(self: Objects, message: Any, giver: Any) -> None:
        true(self, message, giver)
        if message.object in self.table:
            self.table[message.object].primary = False

    return on_take


def place_forgotten(true: Method) -> Method:
    def on_object_moved(self: Owner, message: Any, peer: Any) -> None:
        entry = self.ownership.entries.get(message.object)
        value = entry.value if entry is not None else None
        nodes = value.nodes if value is not None else []
        true(self, message, peer)
        if value is not None:
            value.nodes = nodes

    return on_object_moved


def both_copies_stay(true: Method) -> Method:
    def on_object_moved(self: Owner, message: Any, peer: Any) -> None:
        send = self.world.send
        muted = lambda to, what: None if to == message.giver else send(to, what)  # noqa: E731
        self.world.send = muted  # type: ignore[method-assign]
        try:
            true(self, message, peer)
        finally:
            del self.world.send

    return on_object_moved


def grants_when_drained(true: Method) -> Method:
    def can_grant(self: Scheduling, wire: Any) -> bool:
        drained, self.drained = self.drained, False
        try:
            return bool(true(self, wire))
        finally:
            self.drained = drained

    return can_grant


def leaves_too_early(true: Method) -> Method:
    def empty(self: Draining) -> bool:
        return not any(self.moving.left)

    return empty


def holders_forgotten(true: Method) -> Method:
    def collect(self: Ownership, entry: Any) -> None:
        if entry.owner is None:
            entry.holders = None
        true(self, entry)

    return collect


def names_again(true: Method) -> Method:
    del true

    def next_task(self: Names, *args: Any) -> TaskId:
        return TaskId(bytes(8) + self.run)

    return next_task


def pushed_twice(true: Method) -> Method:
    def push(self: Submission, task: Any, *rest: Any) -> None:
        true(self, task, *rest)
        if task.attempt:
            true(self, task, *rest)

    return push


def never_again(true: Method) -> Method:
    def on_done(self: Submission, task: Any, message: Any, worker: Any) -> Any:
        message.retry = False
        return true(self, task, message, worker)

    return on_done


def cancelled_in_queue(true: Method) -> Method:
    def cancel(self: Submission, task: Any, **rest: Any) -> None:
        if task.state is QUEUED:
            task.cancelled = True
        else:
            true(self, task, **rest)

    return cancel


def one_too_few(true: Method) -> Method:
    def settle(self: Wait, object_id: Any) -> None:
        self.needed -= self.needed > 1
        true(self, object_id)

    return settle


def room_is_lost(true: Method) -> Method:
    def leave_arena(self: Spilling, stored: Any) -> None:
        free = self.room.free
        self.room.free = ignored(free)  # type: ignore[method-assign]
        true(self, stored)
        self.room.free = free  # type: ignore[method-assign]

    return leave_arena


def discarded_twice(true: Method) -> Method:
    def drop(self: Objects, stored: Any) -> None:
        true(self, stored)
        if stored.slot is not None:
            self.mover.discard(stored.slot)

    return drop


def remains_stay(true: Method) -> Method:
    def on_object_at(self: Owner, message: Any, peer: Any) -> None:
        if not message.remains:
            true(self, message, peer)

    return on_object_at
