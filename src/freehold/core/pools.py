"""Pools: what can be granted, and which GPUs of it by number.

A node has one pool of its own, and one more for each bundle of a placement group that it has set
aside: what is taken from the node's goes into the bundle's, and back when the bundle ends. A pool
knows amounts and nothing of requests, leases or groups.

GPUs are not alike as CPUs are: a process is told which ones are its own. A request for whole GPUs
takes as many that nobody shares; a share of one takes the fullest that has room, so that whole ones
stay whole. No GPU is ever given out for more than 1, and there may be room in sum and none in any:
two halves are not one GPU.

``free`` may be below zero for CPUs alone (``scheduling``, "resources lent out").
"""

from __future__ import annotations

from collections.abc import Mapping

from freehold import resources
from freehold.resources import GPU, UNIT, Resources

#: What is held of GPUs: an amount by number.
Shares = dict[int, int]


def numbered(amount: int) -> Shares:
    """GPUs counted from 0; a remainder is a GPU with less room."""
    whole = dict.fromkeys(range(amount // UNIT), UNIT)
    return {**whole, len(whole): amount % UNIT} if amount % UNIT else whole


class Pool:
    """Amounts that are free, of those that there are."""

    __slots__ = ("free", "gpus", "total")

    def __init__(self, total: Mapping[str, int], gpus: Shares | None = None) -> None:
        """``gpus``: which ones, if they are a part of another pool's."""
        self.total = dict(total)
        self.free = dict(total)
        self.gpus = numbered(self.total.get(GPU, 0)) if gpus is None else dict(gpus)

    def fits(self, request: Resources) -> bool:
        """Whether the request can be taken now."""
        if not resources.fits(request, self.free):
            return False
        return GPU not in request or bool(self.choose(request[GPU]))

    def choose(self, amount: int) -> Shares:
        """Which GPUs would be taken; none if there is no room in any."""
        if amount >= UNIT:
            whole = [number for number, free in self.gpus.items() if free >= UNIT]
            count = amount // UNIT
            return dict.fromkeys(whole[:count], UNIT) if len(whole) >= count else {}
        rooms = [(free, number) for number, free in self.gpus.items() if free >= amount]
        return {min(rooms)[1]: amount} if rooms else {}

    def take(self, request: Resources) -> Shares:
        """Take a request that fits; says which GPUs it has got."""
        resources.subtract(self.free, request)
        if GPU not in request:
            return {}
        shares = self.choose(request[GPU])
        assert shares, "taken without looking whether it fits"
        for number, amount in shares.items():
            self.gpus[number] -= amount
            assert self.gpus[number] >= 0, "a GPU was granted twice"
        return shares

    def give(self, amounts: Resources, shares: Shares) -> None:
        """Take back what had been taken."""
        resources.add(self.free, amounts)
        for number, amount in shares.items():
            self.gpus[number] = self.gpus.get(number, 0) + amount
            assert self.gpus[number] <= UNIT, "a GPU was given back twice"
