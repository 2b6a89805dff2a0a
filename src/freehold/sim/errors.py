"""Errors in the simulated world: a kind and what it is about, instead of a pickled exception."""

from __future__ import annotations

import msgspec

from freehold.ids import ObjectId, ProcessId
from freehold.wire.messages import Address, Death


class Failure(Exception):
    """What ``get`` raises in simulated user code.

    Args: kind: user, worker_died, cancelled, unschedulable, lost, freed, store_full, owner_died,
    handover_lost, actor_died, actor_ended, actor_unavailable, interrupted or timeout; about: what
    or whom, as far as a checker needs to know.
    """

    def __init__(self, kind: str, about: str = "") -> None:
        super().__init__(f"{kind} ({about})")
        self.kind = kind
        self.about = about
        self.kinds = {kind}  # of several errors that may be met first (the oracle's)


def dump(kind: str, about: str = "") -> bytes:
    """The shipped form."""
    return msgspec.msgpack.encode([kind, about])


def load(data: bytes) -> Failure:
    """Back from the shipped form."""
    kind, about = msgspec.msgpack.decode(data)
    return Failure(kind, about)


class ShippedErrors:
    """Implements ``roles.owner.Errors``."""

    def worker_died(self, task: str, death: Death) -> bytes:
        return dump("worker_died", f"{task}: {death.detail}")

    def cancelled(self, task: str) -> bytes:
        return dump("cancelled", task)

    def timed_out(self, task: str, seconds: float) -> bytes:
        return dump("timed_out", task)

    def actor_died(self, actor: str, death: Death, restarts: int) -> bytes:
        return dump("actor_died", f"{actor}: {death.detail}")

    def actor_ended(self, actor: str, how: str) -> bytes:
        return dump("actor_ended", f"{actor}: {how}")

    def actor_failed(self, call: str, error: bytes) -> bytes:
        return error  # (judged as what it is)

    def actor_unavailable(self, call: str, why: str) -> bytes:
        return dump("actor_unavailable", f"{call}: {why}")

    def unschedulable(self, task: str, reason: str) -> bytes:
        return dump("unschedulable", f"{task}: {reason}")

    def actor_group_removed(self, actor: str, group: bytes) -> bytes:
        return dump("actor_died", f"{actor}: {group.hex()} was removed")

    def group_removed(self, task: str, group: bytes) -> bytes:
        return dump("group_removed", f"{task}: {group.hex()}")

    def environment_failed(self, task: str, reason: str) -> bytes:
        return dump("environment_failed", f"{task}: {reason}")

    def lost(self, object_id: ObjectId, reason: str, *, evicted: bool = False) -> bytes:
        return dump("freed" if "freed" in reason else "lost", f"{object_id.hex()}: {reason}")

    def replay_failed(self, task: str, before: int, now: int) -> bytes:
        return dump("replay_failed", f"{task}: {now} of {before}")

    def handover_lost(self, giver: ProcessId) -> bytes:
        return dump("handover_lost", giver.hex())

    def store_full(self, reason: str, disk: bool) -> bytes:
        return dump("store_full", reason)

    def owner_died(self, object_id: ObjectId, owner: Address, why: str) -> bytes:
        return dump("owner_died", f"{owner.process.hex()} {object_id.hex()} {why}")
