"""Leases: what an owner and a node say about the right to run tasks on a worker.

Requested -> (redirected ->)* granted or refused -> returned, or ended with the worker. An owner may
take a request back at any time (ReturnLease); an answer that crosses this is for nobody.
"""

from freehold.ids import JobId, LeaseId
from freehold.resources import Resources
from freehold.wire.placement import Placement
from freehold.wire.records import Address, Death, Record


class RequestLease(Record, tag=20):
    """Owner to node: a worker for tasks of this shape, please. ``hops``: redirections so far."""

    lease: LeaseId
    owner: Address
    job: JobId
    resources: Resources
    depth: int = 0
    hops: int = 0
    label: str = ""  #: the function's name, for explanations
    placement: Placement | None = None  #: where, and with what priority
    environment: bytes = b""  #: the key of its runtime environment, if it has one


class LeaseGranted(Record, tag=21):
    """Node to owner: push to this worker until you return the lease."""

    lease: LeaseId
    worker: Address
    pid: int


class LeaseRedirected(Record, tag=22):
    """Node to owner: ask that node instead, with ``hops`` as given here."""

    lease: LeaseId
    node: Address
    hops: int


class LeaseRefused(Record, tag=23):
    """Node to owner: no node can ever grant this; ``reason`` names the nearest miss. ``removed``:
    the placement group that it was for is gone. ``unprepared``: its runtime environment could not
    be made.
    """

    lease: LeaseId
    reason: str
    removed: bytes = b""
    unprepared: bool = False


class ReturnLease(Record, tag=24):
    """Owner to node: I need the worker no more, or never did (the request may still be queued)."""

    lease: LeaseId


class LeaseWanted(Record, tag=25):
    """Node to owner: others wait; return the lease once the tasks already pushed are done."""

    lease: LeaseId


class LeaseEnded(Record, tag=26):
    """Node to owner: the worker of this lease died so. ``removed``: because the placement group in
    which it ran was removed.
    """

    lease: LeaseId
    death: Death
    removed: bytes = b""


class StillQueued(Record, tag=28):
    """Node to owner, once a request has waited a while: why it waits."""

    lease: LeaseId
    reason: str
