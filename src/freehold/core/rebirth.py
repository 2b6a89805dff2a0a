"""Rebirth: the values of an owner that has died come back.

What a driver owns ends with the driver. What a *worker* owns was made in the run of a task, and the
process that submitted that task keeps it (``lineage``) as long as anything is left of what the run
made. So the run can be repeated, and makes the same objects again: under other ids (docs/design/
0005-names.md), of which one half, the *name*, is what any run of the task would give them. NSDI'21
describes this recovery and leaves it out (section 4.3); Ray never had it.

Three parts, and any process may play each:

* The **holder** of a reference whose owner has died (``orphaned``) *claims* the object. The
  reference names its ``line``: the task in whose run it was made and who submitted it, the task in
  whose run that one was submitted and who submitted it, and so on up to the driver. The claim goes
  to the nearest submitter that lives, with the path down from there.
* The **submitter** runs the task again (once, however many claim from it) and sends the claims
  along with the push; if that run is under way or over already, it sends them after it. The
  constructor of an actor runs again when the actor does (``actors``): until then the claim waits.
* The **runner** answers when it makes an object of a claimed name: it counts the holder and sends
  it the new reference (``Reborn``), before user code could drop it. A claim whose path goes on is
  kept until the run submits the task that comes next, and then the runner is a submitter.

``Claimed`` tells the holder with each step where its claim lies, so that it can claim again when
that process dies too, or the one that said so: a run is dropped when its submitter dies. A run that
ends without having made what was claimed from it has taken another path than the first: the holder
is told so by name, and never given something else.

Races considered: a claim that comes when the run has dropped the object already (the runner sends
it back, naming itself as the dead owner: one more run, and each counts as a retry; if that one is
under way by then, the claim follows it); a holder that hears of a runner's death before the
submitter has that runner's answer (which does not settle the claim: ``ran``); an owner that
is cut off from the holder but lives (its objects and the new ones have different ids, and it sees
the end of the holder's stream as the holder sees its); a holder that drops the reference meanwhile
(it gives the count back when ``Reborn`` comes); one that claims twice (it is counted twice and
told twice). Not told apart: a claim that comes while the run goes on, which has made and dropped
the object, from one on what the run will not make: both are refused when it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from freehold.core.entries import Entry, Origin
from freehold.core.lineage import Lineage
from freehold.core.ownership import Ownership
from freehold.core.submission import PUSHED, Submission, Task
from freehold.core.world import World
from freehold.ids import ObjectId, ProcessId, TaskId, name_of
from freehold.wire.messages import (
    FAILED,
    STORED,
    Address,
    ChildrenGone,
    Claim,
    Claimed,
    ClaimFrom,
    ClaimObject,
    Creation,
    Link,
    Reborn,
    Reference,
    Unclaimed,
    Value,
)
from freehold.wire.records import LONGEST_LINE

NOBODY = ProcessId(b"")


class Rebirth:
    """Claims of ours, claims on us."""

    def __init__(
        self, world: World, ownership: Ownership, submission: Submission, lineage: Lineage
    ) -> None:
        self.world = world
        self.ownership = ownership
        self.submission = submission
        self.lineage = lineage
        self.orphans: dict[ObjectId, Entry] = {}
        self.sponsors: dict[ObjectId, ProcessId] = {}  # who would tell us that it cannot be
        self.origins: dict[TaskId, Origin] = {}
        self.owner_died: Callable[[Entry, str], bytes]  # the role's: the shipped form of the error
        self.stop_fetching: Callable[[Entry], None]  # the role's: what is under way is of no use

    # ------------------------------------------------------------------ the holder

    def orphaned(self, entry: Entry) -> None:
        """The owner of a reference that we hold has died."""
        entry.asked = NOBODY
        value = entry.value
        if value is not None and value.kind == STORED:
            entry.value = None  # its copies go with their owner
            self.ownership.forget(value)
        self.stop_fetching(entry)
        self.claim(entry)

    def claim(self, entry: Entry) -> None:
        """Ask the nearest submitter that lives to have the object made again."""
        assert entry.owner is not None
        path: list[TaskId] = []
        for link in entry.line:
            path.insert(0, link.task)
            if link.submitter.process not in self.ownership.lost:
                claim = Claim(entry.object, self.world.address, entry.owner.process, path)
                entry.asked = link.submitter.process
                self.orphans[entry.object] = entry
                self.sponsors[entry.object] = entry.asked
                if entry.asked == self.world.address.process:
                    self.on_claim(claim, self.world.address.process)
                else:
                    self.world.send(link.submitter, ClaimObject(claim))
                return
        if entry.line:
            why = "and so have all who could run its task again"
        else:
            why = "and nobody can make it again: no task that is kept made it"
        self.give_up(entry, why)

    def give_up(self, entry: Entry, why: str) -> None:
        """It will not come back. (What we know of it already stays good.)"""
        entry.asked = NOBODY
        self.settled(entry.object)
        if entry.value is None:
            self.ownership.resolve(entry, Value(FAILED, self.owner_died(entry, why)))

    def settled(self, object_id: ObjectId) -> Entry | None:
        """Our claim has been answered. Returns whose it was, if there still was one."""
        self.sponsors.pop(object_id, None)
        return self.orphans.pop(object_id, None)

    def on_claimed(self, message: Claimed, sponsor: ProcessId) -> None:
        """Our claim has moved on. The run that answers it ends with its submitter, the sponsor."""
        entry = self.orphans.get(message.object)
        if entry is not None and entry.asked is not None:
            entry.asked = message.at.process
            self.sponsors[message.object] = sponsor
            if entry.asked in self.ownership.lost:
                self.claim(entry)

    def on_reborn(self, message: Reborn) -> None:
        """The object is there again, and we are counted for it. It has another id, unless its owner
        had time to leave it to someone (``estate``).
        """
        ownership, ref = self.ownership, message.ref
        new = ownership.entries.get(ref.object)
        if new is not None and new.asked is not None:
            ownership.move(new, ref)
        if new is None:
            new = ownership.entries[ref.object] = Entry(ref.object, ref.owner, ref.line)
        new.received += 1
        self.found(message.object, new)

    def found(self, object_id: ObjectId, new: Entry) -> None:
        """An orphan of ours is the same as ``new`` from now on."""
        self.settled(object_id)
        old = self.ownership.entries.get(object_id)
        if old is not None and old is not new and old.object == object_id:
            self.ownership.merge(old, new)
        self.ownership.collect(new)

    def on_unclaimed(self, message: Unclaimed) -> None:
        """It cannot be brought back."""
        entry = self.settled(message.object)
        if entry is not None and entry.asked is not None:
            self.give_up(entry, message.reason)

    def peer_lost(self, process: ProcessId) -> None:
        """Claims of ours that lay there are made anew; claims on us from there are void."""
        for object_id, entry in list(self.orphans.items()):
            if self.ownership.entries.get(object_id) is not entry:
                self.settled(object_id)
            elif process in (entry.asked, self.sponsors[object_id]):
                self.claim(entry)
        for origin in self.origins.values():
            for name, claims in list(origin.claims.items()):
                for key in [key for key in claims if key[1] == process]:
                    del claims[key]
                if not claims:
                    del origin.claims[name]

    # ------------------------------------------------------------------ the submitter

    def on_claim(self, claim: Claim, peer: ProcessId) -> None:
        """Someone holds what a run of a task of ours has made, and its owner has died; or a runner
        (``peer``) has dropped what it made, and sends the claim back.
        """
        inherited = self.ownership.entries.get(claim.object)
        if inherited is not None and inherited.owner is None:
            self.give(inherited, claim)
            return
        task_id, gone = claim.path[0], claim.dead
        if peer == gone:  # it lives: what is pushed there now, or will be, is a later run
            claim = Claim(claim.object, claim.holder, NOBODY, claim.path)
        task = self.submission.tasks.get(task_id)
        if task is not None:
            self.add_claim(task, claim)
            pushed = task.state is PUSHED
            worker = task.lease.worker if pushed else None  # type: ignore[attr-defined]
            if worker is None or worker.process == claim.dead:
                return  # (if its answer is still to come: see ``ran``)
            if worker.process not in self.ownership.lost:  # (dead and not buried yet: it would go
                self.pass_on(worker, task.id, claim)  # back and forth between us for ever)
            return
        task = self.lineage.tasks.get(task_id)
        if task is None:
            self.refuse(claim, self.lineage.why_not(task_id, gone))
            return
        assert task.ran_at is not None
        at = task.ran_at.process
        if at != gone and at not in self.ownership.lost:
            self.pass_on(task.ran_at, task.id, claim)
        elif type(task.actor) is Creation:
            if peer == gone:
                self.refuse(claim, f"and {task.title}, whose constructor made it, lives without it")
            else:
                self.add_claim(task, claim)  # the actor is made again as soon as it is buried
        elif self.submission.may_retry(task):
            self.add_claim(task, claim)
            self.lineage.run_again(task)
        else:
            self.refuse(claim, f"and {self.lineage.obstacle(task)[0]}")

    def add_claim(self, task: Task, claim: Claim) -> None:
        """Have the task's next run bring the object back."""
        if task.claims is None:
            task.claims = {}
        task.claims[claim.object, claim.holder.process] = claim
        self.tell(claim, Claimed(claim.object, self.world.address))

    def pass_on(self, worker: Address, task: TaskId, claim: Claim) -> None:
        """The run that will make it, or has made it again, is there."""
        self.tell(claim, Claimed(claim.object, worker))
        self.world.send(worker, ClaimFrom(task, claim))  # (to ourselves too: after the push)

    def ran(self, task: Task, unclaimed: Sequence[ObjectId], worker: ProcessId) -> list[Claim]:
        """A run of a task of ours has ended. What it made of what was claimed has been given.

        Returns claims on what this very run had made: its worker has died since, as their holders
        have heard and we have not. They are to be made again when the task is over.
        """
        missed = set(unclaimed)
        claims = task.claims or {}
        late = {key: claim for key, claim in claims.items() if claim.dead == worker}
        task.claims = {
            key: claim
            for key, claim in claims.items()
            if claim.object in missed and key not in late
        }
        return list(late.values())

    def task_over(self, task: Task, *, failed: bool) -> None:
        """A task of ours is done, and will not be tried again: what it did not bring back is
        lost.
        """
        how = "has failed" if failed else "took another path, which did not make it"
        self.refuse_all(task, f"and running {task.title}() again {how}")

    def actor_over(self, task: Task) -> None:
        """An actor that was to be made again will not be."""
        self.refuse_all(task, f"and {task.title}, whose constructor made it, has ended")

    def refuse_all(self, task: Task, reason: str) -> None:
        """The task's claims come to nothing."""
        claims, task.claims = task.claims, None
        for claim in (claims or {}).values():
            self.refuse(claim, reason)

    def refuse(self, claim: Claim, reason: str) -> None:
        """The object cannot be brought back."""
        self.tell(claim, Unclaimed(claim.object, reason))

    def tell(self, claim: Claim, message: Claimed | Reborn | Unclaimed) -> None:
        """Say to the holder, which may be us."""
        if claim.holder.process != self.world.address.process:
            if claim.holder.process not in self.ownership.lost:
                self.world.send(claim.holder, message)
        elif isinstance(message, Claimed):
            self.on_claimed(message, self.world.address.process)
        elif isinstance(message, Unclaimed):
            self.on_unclaimed(message)

    # ------------------------------------------------------------------ the runner

    def begin(
        self, task: TaskId, submitter: Address, line: tuple[Link, ...], claims: Sequence[Claim]
    ) -> Origin:
        """A run begins to make things, or to be asked for them. (Of an earlier run of the task here
        something may be left.)
        """
        origin = self.origins.get(task)
        if origin is None:
            line = (Link(task, submitter), *line)[:LONGEST_LINE]
            origin = self.origins[task] = Origin(task, submitter, line)
        origin.running = True
        for claim in claims:
            self.await_name(origin, claim)
        return origin

    def await_name(self, origin: Origin, claim: Claim) -> None:
        """The run has not made yet what the claim needs first."""
        rest = claim.path[1:]
        name = name_of(rest[0] if rest else claim.object)
        origin.claims.setdefault(name, {})[claim.object, claim.holder.process] = claim

    def on_claim_from(self, task: TaskId, claim: Claim, submitter: Address) -> None:
        """A claim on what our run of a task has made or will make."""
        origin = self.origins.get(task)
        rest = claim.path[1:]
        if origin is not None and rest:
            child = self.submitted_in(origin, name_of(rest[0]))
            if child is not None:
                path = [child.id, *rest[1:]]
                claim = Claim(claim.object, claim.holder, claim.dead, path)
                self.on_claim(claim, submitter.process)
                return
        elif origin is not None:
            entry = self.made_in(origin, name_of(claim.object))
            if entry is not None:
                self.give(entry, claim)
                if entry.value is None:  # (only lineage needed it)
                    self.lineage.recover(entry, "its value went with its last reference")
                return
        if origin is not None and origin.running:
            self.await_name(origin, claim)
            return
        # Made and gone: only another run can help.
        me = self.world.address.process
        claim = Claim(claim.object, claim.holder, me, claim.path)
        if submitter.process == me:
            self.on_claim(claim, me)
        else:
            self.world.send(submitter, ClaimObject(claim))

    def made_in(self, origin: Origin, name: bytes) -> Entry | None:
        """The object of that name, if it was made in this run and is still there, or will be."""
        for entry in self.ownership.entries.values():
            if entry.origin is origin and name_of(entry.object) == name:
                there = entry.value is not None or isinstance(entry.task, Task)
                return entry if there else None
        return None

    def submitted_in(self, origin: Origin, name: bytes) -> Task | None:
        """The task of that name, if it was submitted in this run and may run (again)."""
        for tasks in (self.submission.tasks, self.lineage.tasks):
            for task in tasks.values():
                if task.origin is origin and name_of(task.id) == name:
                    return task
        return None

    def born(self, entry: Entry) -> None:
        """An object has been made in a run that is claimed from."""
        assert entry.origin is not None
        for claim in entry.origin.claims.pop(name_of(entry.object), {}).values():
            self.give(entry, claim)

    def give(self, entry: Entry, claim: Claim) -> None:
        """The holder holds this one from now on."""
        me = self.world.address
        if claim.holder.process == me.process:
            self.found(claim.object, entry)
        elif claim.holder.process not in self.ownership.lost:
            ref = Reference(entry.object, me, entry.line)
            self.ownership.hand_out(ref, claim.holder)
            self.world.send(claim.holder, Reborn(claim.object, ref))

    def submitted(self, task: Task) -> None:
        """A task was submitted in a run that is claimed from."""
        assert task.origin is not None
        for claim in task.origin.claims.pop(name_of(task.id), {}).values():
            rest = claim.path[1:]
            self.add_claim(
                task, Claim(claim.object, claim.holder, claim.dead, [task.id, *rest[1:]])
            )

    def run_over(self, task: TaskId) -> tuple[bool, list[ObjectId]]:
        """Our run of a task has ended: whether something is left of it here, and what was claimed
        and not made.
        """
        origin = self.origins.get(task)
        if origin is None:
            return False, []
        origin.running = False
        unclaimed = [object_id for claims in origin.claims.values() for object_id, _ in claims]
        origin.claims = {}
        if not origin.alive:
            del self.origins[task]
        return bool(origin.alive), unclaimed

    def origin_spent(self, origin: Origin) -> None:
        """Nothing is left of what an ended run has made."""
        del self.origins[origin.task]
        if origin.submitter.process not in self.ownership.lost:
            self.world.send(origin.submitter, ChildrenGone(origin.task))
