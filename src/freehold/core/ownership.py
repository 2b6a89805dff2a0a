"""Ownership: who may name which object, what is known of its value, and when it is freed.

Every process has one table with an :class:`Entry` per object it can name, whether it owns the
object or has borrowed it. The owner's entry is the only truth about a value; a borrower's entry
is a copy on request.

The life of one reference through three processes:

1. A makes it (``own``). A handle in user code, a pending task that uses it, or a live value that
   contains it hold the entry (``handles``, ``pins``).
2. A sends it to B (``hand_out``): it counts B *before* the message leaves. B's entry notes how
   often it was given the reference (``received``); when B holds it no more, it sends ``Release``
   with that count. A reference that crosses a release on the way is thereby harmless: A's count
   for B has not reached zero.
3. B sends it on to C: it tells A (``Provide``) and sends the reference at once. C may not let user
   code see it until A's ``Introduce`` has arrived (``accept``): *count before name*. B's own
   release follows its Provide on the same stream, so B need not pin anything meanwhile.
4. B dies: its stream to A ends *after its last bytes*, so A has seen every Provide that B sent. A
   forgets B's count. If C still waits for an introduction on B's word, it asks A (``AskGone``),
   and gives up when A answers that none will follow (``Gone``).

An object is freed when its owner's entry has no handle, pin or holder. References inside a value
are pinned by the entry that knows the value. If only lineage needs it (a task that may have to run
again takes it as an argument), its value goes and its entry stays: ``lineage`` can make it again.

When its owner dies, an object may be made again under another id by another owner
(``core/rebirth``). The holder's entry then becomes one with the new one (``merge``): the table
knows it under both ids, and ``current`` gives the reference that is good now.

What this file must not know: how tasks run, sockets, where bytes lie in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from freehold.core.entries import Entry, Gate, Origin, Waiter
from freehold.core.world import Timer, World
from freehold.ids import NodeId, ObjectId, ProcessId
from freehold.wire.messages import (
    FAILED,
    STORED,
    Address,
    AskGone,
    FreeObjects,
    Gone,
    Introduce,
    Locate,
    Located,
    Provide,
    Reference,
    Release,
    Value,
)

#: Seconds after which an owner that has no stream to a dead giver says that none is to come, and
#: after which one who waits for an introduction looks whether the owner lives.
PATIENCE: Final = 2.0


#: Shared by all values that are in no store, or have no references in them: a program may own
#: millions, and two empty lists are 112 bytes. Nobody changes them.
NOWHERE: Final[list[Address]] = []
NOTHING: Final[list[Reference]] = []


class Ownership:
    """The table and the counting."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.entries: dict[ObjectId, Entry] = {}
        self.gates: dict[tuple[ObjectId, ProcessId], list[Gate]] = {}
        self.lost: set[ProcessId] = set()  # owners that have ended: they introduce nothing any more
        self.prober: Timer | None = None
        self.askers: dict[ProcessId, list[Address]] = {}  # who wants to know that it is gone
        self.handover_lost: Callable[[ProcessId], bytes]  # the role's: an error's shipped form
        self.on_free: Callable[[Entry], None] = lambda entry: None  # the role's
        # the role's: a task's result is gone. Returns what only its lineage held
        self.result_gone: Callable[[Entry], Iterable[Entry]] = lambda entry: ()
        self.origin_spent: Callable[[Origin], None] = lambda origin: None  # the role's
        self.orphaned: Callable[[Entry], None]  # the role's: a reference to a dead owner's object
        self.born: Callable[[Entry], None]  # the role's: made in a run that someone claims from

    # ------------------------------------------------------------------ making and holding

    def own(self, object_id: ObjectId, origin: Origin | None = None) -> Entry:
        """A new object of ours, value unknown."""
        entry = Entry(object_id, None)
        if origin is not None:
            entry.origin = origin
            entry.line = origin.line
            origin.alive += 1
        self.entries[object_id] = entry
        if origin is not None and origin.claims:
            entry.handles += 1  # or a claim of our own, answered, would free it before it is held
            self.born(entry)
            entry.handles -= 1
        return entry

    def reference(self, object_id: ObjectId) -> Reference:
        """The reference to an object that we know, as it is now."""
        entry = self.entries[object_id]
        return Reference(entry.object, entry.owner or self.world.address, entry.line)

    def current(self, ref: Reference) -> Reference:
        """``ref``, or what it has become if its owner has died and it was made again."""
        if ref.owner.process in self.lost:
            entry = self.entries.get(ref.object)
            if entry is not None and (entry.owner is None or entry.asked is None):
                return self.reference(ref.object)
        return ref

    def add_handle(self, ref: Reference) -> None:
        """User code holds one more handle. The entry must exist: a name is counted before it is
        used.
        """
        self.entries[ref.object].handles += 1

    def drop_handle(self, object_id: ObjectId) -> None:
        """User code dropped a handle."""
        entry = self.entries[object_id]
        assert entry.handles > 0
        entry.handles -= 1
        if not entry.handles:
            self.collect(entry)

    def pin(self, object_id: ObjectId) -> None:
        """A pending task or a live value needs the object."""
        self.entries[object_id].pins += 1

    def unpin(self, object_id: ObjectId) -> None:
        """The task is done, or the value that contained the reference is gone."""
        entry = self.entries[object_id]
        assert entry.pins > 0
        entry.pins -= 1
        if not entry.pins and not entry.handles:
            self.collect(entry)

    def collect(self, entry: Entry) -> None:
        """Free what nobody can name. A worklist, because a value may contain references to values
        that do.
        """
        work = [entry]
        while work:
            entry = work.pop()
            if entry.handles or entry.pins or entry.holders or entry.owed:
                continue  # (owed: a reference and its introduction have not met yet)
            value = entry.value
            if entry.lineage:
                if value is None or (value.kind != STORED and not value.contains):
                    continue
                entry.value = None  # it can be made again
                self.on_free(entry)
            elif self.entries.pop(entry.object, None) is None:
                continue
            else:
                self.on_free(entry)
                if entry.aliases:
                    for alias in entry.aliases:
                        del self.entries[alias]
                if entry.task is not None:
                    work.extend(self.result_gone(entry))
                if entry.origin is not None:
                    self.one_less(entry.origin)
            if entry.owner is not None:
                if entry.received and entry.asked is None:
                    self.world.send(entry.owner, Release(entry.object, entry.received))
            elif value is not None and value.kind == STORED:
                for node in value.nodes:
                    self.world.send(node, FreeObjects([entry.object]))
            if value is not None:
                for inner in value.contains:
                    held = self.entries[inner.object]
                    held.pins -= 1
                    work.append(held)

    def one_less(self, origin: Origin) -> None:
        """One thing less is left of what a run has made: tell the role if it was the last."""
        origin.alive -= 1
        if not origin.alive and not origin.running:
            self.origin_spent(origin)

    # ------------------------------------------------------------------ values

    def resolve(self, entry: Entry, value: Value) -> None:
        """The value is known (and the references in it are accepted and pinned by the caller)."""
        if value.kind != STORED:
            value.nodes = NOWHERE
            if not value.contains:
                value.contains = NOTHING
        entry.value = value
        if entry.watchers:
            watchers, entry.watchers = entry.watchers, None
            for watcher in watchers:
                self.world.send(watcher, Located(entry.object, self.for_peer(value, watcher)))
        waiters = entry.waiters
        if waiters is not None:
            entry.waiters = None
            for waiter in waiters:
                waiter.resolved(entry)

    def wait_for(self, entry: Entry, waiter: Waiter) -> None:
        """Have ``waiter`` told when the value is known. Asks the owner if that is someone else."""
        assert entry.value is None
        if entry.waiters is None:
            entry.waiters = []
            if entry.owner is not None and entry.asked is None:
                self.world.send(entry.owner, Locate(entry.object))
        entry.waiters.append(waiter)

    def ask_again(self, entry: Entry, tried: Sequence[NodeId]) -> None:
        """The nodes that were said to have a borrowed value do not: the owner shall look."""
        value, entry.value = entry.value, None
        entry.waiters = []
        assert entry.owner is not None
        self.world.send(entry.owner, Locate(entry.object, list(tried)))
        if value is not None:
            self.forget(value)

    def for_peer(self, value: Value, peer: Address) -> Value:
        """``value`` as it is told to ``peer``: the references in it are handed out first."""
        if not value.contains:
            return value
        contains = self.handed_out(value.contains, peer)
        return Value(value.kind, value.data, value.size, value.nodes, contains)

    def take_in(self, contains: Iterable[Reference], giver: Address, gate: Gate) -> None:
        """A message from ``giver`` carries these references: accept and pin each; ``gate`` counts
        the waits.
        """
        for ref in contains:
            self.accept(ref, giver, gate)
            self.pin(ref.object)

    # ------------------------------------------------------------------ handing references on

    def hand_out(self, ref: Reference, to: Address) -> None:
        """We are about to send ``ref`` to process ``to``: count it, or have its owner count it."""
        me = self.world.address.process
        if to.process == ref.owner.process and to.process != me:
            return  # the owner knows its own; our release follows on the same stream
        if ref.owner.process == me:  # (also to ourselves: a worker may lease itself)
            entry = self.entries[ref.object]
            if entry.holders is None:
                entry.holders = {}
            entry.holders[to.process] = entry.holders.get(to.process, 0) + 1
        elif ref.owner.process in self.lost:
            # Nobody is left to count it, and the taker may be too young to have heard of the
            # owner's death: we open its gate, and it finds out when it asks for the value.
            self.world.send(to, Introduce(ref, me))
        else:
            self.world.send(ref.owner, Provide(ref.object, to))

    def handed_out(self, refs: Iterable[Reference], to: Address) -> list[Reference]:
        """The references as they are good now, handed out to process ``to``."""
        current = [self.current(ref) for ref in refs]
        for ref in current:
            self.hand_out(ref, to)
        return current

    def accept(self, ref: Reference, giver: Address, gate: Gate) -> None:
        """``giver`` sent us ``ref``. If it does not own it, ``gate`` waits for the introduction.

        The caller pins the reference at once, in the same event, so the entry cannot be collected
        in between.
        """
        me = self.world.address.process
        if ref.owner.process == me:
            entry = self.entries.get(ref.object)
            assert entry is not None, "a reference of ours came back after we freed it"
            if giver.process == me:
                self.count_back(entry)
            return
        entry = self.entries.get(ref.object)
        if entry is None:
            entry = self.entries[ref.object] = Entry(ref.object, ref.owner, ref.line)
        if not self.same_owner(entry, ref):
            return
        if giver.process == ref.owner.process:
            entry.received += 1
            return
        if ref.owner.process in self.lost:
            if entry.asked is None:
                self.orphaned(entry)
            return  # usable at once: nobody is left to introduce it
        owed = self.owe(entry, giver.process, -1)
        if owed < 0:
            gate.waiting += 1
            self.gates.setdefault((ref.object, giver.process), []).append(gate)
            if self.prober is None:
                self.prober = self.world.call_at(self.world.now() + PATIENCE, self.probe)

    def same_owner(self, entry: Entry, ref: Reference) -> bool:
        """Whether a reference and what we know of its object agree. If the object has changed
        hands, the later word counts; False: that is ours, and the reference needs no counting.
        """
        if entry.owner is None:
            return False
        if entry.owner.process != ref.owner.process:
            if ref.owner.process in self.lost:
                return False
            self.move(entry, ref)
        return True

    def probe(self) -> None:
        """Introductions are late: knock at the owners that owe them. We may have no stream to one
        and be too young to have been told of its death; if it is dead, the knock fails.
        """
        self.prober = None
        waiting = [self.entries[object_id].owner for object_id, _ in self.gates]
        for owner in {owner.process: owner for owner in waiting if owner is not None}.values():
            self.world.send(owner, AskGone(owner.process))
        if self.gates:
            self.prober = self.world.call_at(self.world.now() + PATIENCE, self.probe)

    def count_back(self, entry: Entry) -> None:
        """A reference of ours that we sent to ourselves has arrived: it is not under way now."""
        me = self.world.address.process
        assert entry.holders is not None
        entry.holders[me] -= 1
        if not entry.holders[me]:
            del entry.holders[me]

    def owe(self, entry: Entry, giver: ProcessId, change: int) -> int:
        """Add to the balance of introductions from ``giver``; return the new balance."""
        if entry.owed is None:
            entry.owed = {}
        balance = entry.owed.get(giver, 0) + change
        if balance:
            entry.owed[giver] = balance
        else:
            entry.owed.pop(giver, None)
        return balance

    # ------------------------------------------------------------------ events from the wire

    def on_introduce(self, message: Introduce) -> None:
        """The owner has counted us for a reference from ``giver``, which may come before or after
        this.
        """
        ref = message.ref
        if ref.owner.process in self.lost:
            return  # its references need no introduction
        entry = self.entries.get(ref.object)
        if entry is None:
            entry = self.entries[ref.object] = Entry(ref.object, ref.owner, ref.line)
        elif not self.same_owner(entry, ref):
            return
        entry.received += 1
        balance = self.owe(entry, message.giver, +1)
        if balance <= 0:
            key = (ref.object, message.giver)
            waiting = self.gates[key]
            gate = waiting.pop(0)
            if not waiting:
                del self.gates[key]
            gate.introduced()
            self.collect(entry)
        elif message.giver in self.lost and entry.owed:
            del entry.owed[message.giver]  # the reference itself never came, and will not
            self.collect(entry)

    def on_provide(self, message: Provide, giver: ProcessId) -> None:
        """A borrower passes our object on: count the taker, then introduce the object to it."""
        entry = self.entries[message.object]
        taker = message.taker
        if entry.holders is None:
            entry.holders = {}
        entry.holders[taker.process] = entry.holders.get(taker.process, 0) + 1
        self.world.send(taker, Introduce(self.reference(message.object), giver))

    def on_release(self, message: Release, peer: ProcessId) -> None:
        """A borrower gives back so many counts."""
        entry = self.entries[message.object]
        assert entry.holders is not None
        left = entry.holders[peer] - message.count
        assert left >= 0
        if left:
            entry.holders[peer] = left
        else:
            del entry.holders[peer]
            if not entry.handles and not entry.pins:
                self.collect(entry)

    def on_locate(self, message: Locate, peer: Address) -> None:
        """A borrower wants the value: tell it now or when it is there."""
        entry = self.entries[message.object]
        if entry.value is not None:
            self.world.send(peer, Located(message.object, self.for_peer(entry.value, peer)))
            return
        if entry.watchers is None:
            entry.watchers = []
        entry.watchers.append(peer)

    def on_located(self, message: Located, giver: Address) -> None:
        """The owner tells us a value. Its references may have to wait for their introductions."""
        entry = self.entries.get(message.object)
        value = message.value

        def finish() -> None:
            if entry is None or self.entries[message.object] is not entry:
                self.forget(value)  # not wanted, or the object has been made again meanwhile
            elif value.kind == STORED and entry.asked is not None:
                self.forget(value)  # its owner has died meanwhile, and its copies go with it
            else:
                self.replace(entry, value)
            let_go()

        def give_up(lost: ProcessId) -> None:
            self.forget(value)
            if entry is not None and entry.value is None and entry.asked is None:
                self.resolve(entry, Value(FAILED, self.handover_lost(lost)))
            let_go()

        def let_go() -> None:
            if entry is not None:
                now = self.entries[message.object]  # (another entry if it has been made again)
                now.pins -= 1
                self.collect(now)

        gate = Gate(finish, give_up)
        if entry is not None:
            entry.pins += 1  # until the gate opens or breaks
        self.take_in(value.contains, giver, gate)
        if not gate.waiting:
            finish()

    def replace(self, entry: Entry, value: Value) -> None:
        """A borrower's entry learns a value, the first time or anew."""
        old = entry.value
        self.resolve(entry, value)
        if old is not None:
            self.forget(old)

    def move(self, entry: Entry, ref: Reference) -> None:
        """The object has a new owner under its old id: the old one had time to hand it over."""
        entry.owner, entry.line = ref.owner, ref.line
        entry.asked = None
        entry.received = 0
        self.open_gates(entry)
        if entry.waiters:
            self.world.send(ref.owner, Locate(entry.object))

    def merge(self, old: Entry, new: Entry) -> None:
        """``old`` has been made again as ``new``: from now on they are one."""
        aliases = [old.object, *(old.aliases or ())]
        for alias in aliases:
            self.entries[alias] = new
        new.aliases = (new.aliases or []) + aliases
        new.handles += old.handles
        new.pins += old.pins
        waiters, value = old.waiters or (), old.value
        old.waiters = old.value = None
        for waiter in waiters:
            waiter.renamed(old.object, new.object)
            if new.value is None:
                self.wait_for(new, waiter)
            else:
                waiter.resolved(new)
        if value is not None:
            self.forget(value)

    def forget(self, value: Value) -> None:
        """Drop the pins that a value had on the references inside it."""
        for inner in value.contains:
            self.unpin(inner.object)

    # ------------------------------------------------------------------ ends

    def peer_lost(self, peer: ProcessId) -> list[Entry]:
        """A process has ended and its stream is drained. Returns our entries that it owned.

        What it held is released. Introductions that it owed as an owner will not come: those who
        wait for them go on, with references whose owner has died. Those that others owe us on its
        word may still come: we ask.
        """
        self.lost.add(peer)
        orphans = []
        for object_id, entry in list(self.entries.items()):
            if entry.object != object_id:
                continue  # an alias
            if entry.owner is not None and entry.owner.process == peer:
                if entry.asked is None:
                    orphans.append(entry)
            elif entry.holders and entry.holders.pop(peer, 0):
                self.collect(entry)
            elif entry.owed and entry.owed.get(peer, 0) > 0:
                del entry.owed[peer]  # introduced, and the reference itself was never sent
                self.collect(entry)
            if entry.watchers:
                entry.watchers = [watcher for watcher in entry.watchers if watcher.process != peer]
        for entry in orphans:
            self.open_gates(entry)
            self.collect(entry)
        self.ask_owners(peer)
        self.tell_gone(peer)
        return orphans

    def open_gates(self, entry: Entry) -> None:
        """Nobody will introduce this object any more: let go on who waits for it."""
        owed, entry.owed = entry.owed, None
        for giver in owed or ():
            for gate in self.gates.pop((entry.object, giver), ()):
                gate.introduced()

    def ask_owners(self, giver: ProcessId) -> None:
        """A giver is gone: its owners say when no introduction on its word can follow."""
        owners = {}
        for object_id, waited in self.gates:
            owner = self.entries[object_id].owner
            if waited == giver and owner is not None:
                owners[owner.process] = owner
        for owner in owners.values():
            self.world.send(owner, AskGone(giver))

    def on_ask_gone(self, message: AskGone, peer: Address) -> None:
        """A borrower asks whether we have seen the end of a giver's stream."""
        process = message.process
        if process == self.world.address.process:
            return  # a knock: see ``probe``
        self.askers.setdefault(process, []).append(peer)
        if process in self.lost:
            self.tell_gone(process)
        else:  # its end is on its way to us, or it never had a stream to us
            self.world.call_at(self.world.now() + PATIENCE, lambda: self.tell_gone(process))

    def tell_gone(self, process: ProcessId) -> None:
        """Whatever it sent us, we have acted upon."""
        for asker in self.askers.pop(process, ()):
            self.world.send(asker, Gone(process))

    def on_gone(self, message: Gone, owner: ProcessId) -> None:
        """The owner will introduce nothing more on that giver's word: give up what waits for it."""
        giver = message.process
        for key in [key for key in self.gates if key[1] == giver]:
            entry = self.entries[key[0]]
            if entry.owner is None or entry.owner.process != owner:
                continue
            if entry.owed:
                entry.owed.pop(giver, None)
            for gate in self.gates.pop(key):
                gate.broken(giver)
            self.collect(entry)

    def owners_on(self, node: NodeId) -> list[Address]:
        """The owners of what we have borrowed that live on a node."""
        owners = {
            entry.owner.process: entry.owner
            for entry in self.entries.values()
            if entry.owner is not None and entry.owner.node == node
        }
        return list(owners.values())
