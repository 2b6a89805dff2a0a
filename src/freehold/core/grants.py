"""Requests for leases at a node: one that waits, and one that was granted. What becomes of them is
``scheduling``'s business; here is only what there is to know.
"""

from __future__ import annotations

from freehold.core.bundles import Bundle
from freehold.core.pools import Pool, Shares
from freehold.core.workers import Worker
from freehold.resources import CPU, Resources
from freehold.wire.messages import Placement, RequestLease

#: Where a request stands: depth, then when it came (less what its priority is worth), then number.
Order = tuple[int, float, int]


class Queued:
    """A request that waits."""

    __slots__ = ("infeasible_since", "order", "since", "told", "wire")

    def __init__(self, wire: RequestLease, order: Order, since: float) -> None:
        self.wire = wire
        self.order = order
        self.since = since
        self.told = False
        self.infeasible_since: float | None = None


class Granted:
    """A request that was granted; ``worker`` is None while one is being started for it.

    ``pool``: from what it was taken, the node's own or that of ``bundle``; ``shares``: which GPUs;
    ``removed``: the group whose removal has ended it.
    """

    __slots__ = (
        "bundle",
        "index",
        "lent",
        "pool",
        "removed",
        "shares",
        "since",
        "wanted",
        "wire",
        "worker",
    )

    def __init__(
        self, wire: RequestLease, since: float, pool: Pool, index: int, bundle: Bundle | None
    ) -> None:
        self.wire = wire
        self.since = since
        self.pool = pool
        self.index = index
        self.bundle = bundle
        self.shares: Shares = pool.take(wire.resources)
        self.removed = b""
        self.worker: Worker | None = None
        self.wanted = False
        self.lent = False

    def held(self) -> Resources:
        """What the grant holds now."""
        if not self.lent:
            return self.wire.resources
        return {name: amount for name, amount in self.wire.resources.items() if name != CPU}

    def placement(self) -> Placement | None:
        """Where it is, for whoever runs in it."""
        placement = self.wire.placement
        if placement is None or not placement.group:
            return placement
        return Placement(placement.group, self.index, placement.capture)
