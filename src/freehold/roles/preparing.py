"""Preparing: what a node does for runtime environments, where they touch leases and workers.

A request whose environment is not ready waits in the queue and takes nothing; when it is, requests
are looked at again, and a worker is wanted that is bound to the environment or may be. When it
cannot be made, the requests that wait for it are refused. Which environments are in use is what
workers are bound to and requests name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from freehold.core.environments import Environments, Made, Maker
from freehold.core.scheduling import Scheduling
from freehold.core.workers import Worker, Workers
from freehold.core.world import World
from freehold.ids import JobId, LeaseId, NodeId
from freehold.wire.messages import (
    AddPackage,
    Address,
    EnvironmentDescribed,
    Furnished,
    Message,
    PackagePart,
    PullPackage,
    RequestLease,
)


class Preparing:
    """Environments, scheduling and the pool of one node, joined."""

    def __init__(
        self, world: World, maker: Maker, scheduling: Scheduling, workers: Workers
    ) -> None:
        self.world = world
        self.environments = Environments(world, maker)
        self.scheduling = scheduling
        self.workers = workers
        scheduling.environment_ready = self.ready
        scheduling.environment_why = self.environments.why
        scheduling.want_worker = self.want_worker
        self.environments.node_of = self.node_of
        self.environments.in_use = self.in_use
        self.environments.changed = self.changed
        self.environments.refused = scheduling.refuse_environment

    def handlers(self) -> dict[type[Message], Callable[[Any, Address], None]]:
        """Which message goes where."""
        environments = self.environments
        return {
            AddPackage: environments.on_add,
            PullPackage: environments.on_pull,
            PackagePart: environments.on_part,
            EnvironmentDescribed: environments.on_described,
        }

    def ready(self, wire: RequestLease) -> bool:
        """Whether the request's environment is ready here; if not, it is seen to."""
        return self.environments.ready(wire.environment, wire.owner)

    def want_worker(self, lease: LeaseId, job: JobId) -> None:
        """A grant needs a worker of its job, in its environment."""
        granted = self.scheduling.granted[lease]
        key = granted.wire.environment
        gpus = tuple(sorted(granted.shares))
        self.workers.want(lease, job, key, self.environments.zygote(key) if key else b"", gpus)

    def furnished(self, worker: Worker) -> Furnished | None:
        """What a worker is told of its environment."""
        return self.environments.binding(worker.environment) if worker.environment else None

    def node_of(self, node: NodeId) -> Address | None:
        """Where a living node is."""
        if node == self.world.address.node:
            return self.world.address
        peer = self.scheduling.peers.get(node)
        return peer.address if peer is not None else None

    def in_use(self) -> set[bytes]:
        """The environments that workers are bound to or requests name."""
        used = {worker.environment for worker in self.workers.all.values()}
        used.update(queued.wire.environment for queued in self.scheduling.queue)
        used.update(granted.wire.environment for granted in self.scheduling.granted.values())
        return used

    def changed(self, made: Made) -> None:
        """An environment is ready: begin with its workers."""
        if made.workers:
            made.workers = False
            self.workers.prestart(self.workers.keep, made.zygote)
        self.scheduling.dispatch()
