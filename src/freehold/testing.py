"""Clusters for tests and demonstrations: several nodes on this machine, to start, add, kill and
remove.

Each node is a real daemon with workers, a store and a TCP port of its own; between them
everything goes over TCP, as between machines.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from freehold.api import session
from freehold.core.membership import DEAD_AFTER
from freehold.errors import ClusterUnreachableError
from freehold.runtime import launch, machine, places
from freehold.runtime.settings import NodeSettings, head_address
from freehold.wire.messages import Address

#: A node that is stopped has to end within so many seconds. What it spilled goes with it, and files
#: that are just on their way to a busy disk take their time: over 10 s was seen for 12 GB.
END_SECONDS: Final = 60.0


class ClusterNode:
    """One node of a test cluster."""

    def __init__(self, started: launch.Started) -> None:
        self._started = started
        self.node_id: str = started.file.address.node.hex()
        self.pid: int = started.pid
        self.alive = True

    def __repr__(self) -> str:
        return f"ClusterNode({self.node_id}, pid={self.pid}, {'alive' if self.alive else 'gone'})"


class Cluster:
    """Several nodes on this machine, with a head of their own; a context manager.

    Args:
        nodes: how many to start with; the head runs beside the first.
        num_cpus, object_store_memory, and the others: what each node offers, as for
            ``freehold.init``.
        dead_after: seconds without a word after which the head declares a node dead.

    Programs connect with ``freehold.init(address=cluster.address)``, through the node that has
    been up longest.
    """

    def __init__(
        self,
        nodes: int = 1,
        *,
        num_cpus: float = 1,
        object_store_memory: int = 256 << 20,
        num_gpus: float = 0,
        memory: float | None = None,
        resources: Mapping[str, float] | None = None,
        labels: Mapping[str, str] | None = None,
        spill_quota: int | None = None,
        infeasible_grace: float = 10.0,
        dead_after: float = DEAD_AFTER,
    ) -> None:
        places.sweep()
        self._session, _ = places.new_session()
        self._head: Address | None = None
        self._grace = infeasible_grace
        self._dead_after = dead_after
        self.nodes: list[ClusterNode] = []
        try:
            for _ in range(nodes):
                self.add_node(
                    num_cpus=num_cpus,
                    object_store_memory=object_store_memory,
                    num_gpus=num_gpus,
                    memory=memory,
                    resources=resources,
                    labels=labels,
                    spill_quota=spill_quota,
                )
        except BaseException:
            self.shutdown()
            raise

    @property
    def address(self) -> str:
        """HOST:PORT of the head."""
        if self._head is None:
            raise ClusterUnreachableError("the cluster has no node yet: call add_node()")
        return f"{self._head.host}:{self._head.port}"

    @property
    def session(self) -> Path:
        """The folder that holds everything the cluster keeps on disk."""
        return self._session

    def add_node(
        self,
        *,
        num_cpus: float = 1,
        object_store_memory: int = 256 << 20,
        num_gpus: float = 0,
        memory: float | None = None,
        resources: Mapping[str, float] | None = None,
        labels: Mapping[str, str] | None = None,
        spill_quota: int | None = None,
    ) -> ClusterNode:
        """Start one more node and wait until it has joined."""
        settings = NodeSettings(
            session=str(self._session),
            node=launch.new_node_id(),
            head=self._head or head_address("127.0.0.1", 0),
            host="127.0.0.1",
            resources=machine.offer(num_cpus, num_gpus, memory, resources),
            store_bytes=machine.store_bytes(object_store_memory),
            labels=dict(labels or {}),
            spill_quota=spill_quota,
            fuse_bytes=machine.spill_file_bytes(),
            prefetch=machine.prefetch(),
            infeasible_grace=self._grace,
            start_head=self._head is None,
            dead_after=self._dead_after,
        )
        node = ClusterNode(launch.start(settings, tied=True))
        self._head = node._started.file.head
        self.nodes.append(node)
        return node

    def kill_node(self, node: ClusterNode) -> None:
        """SIGKILL the node daemon, as a crash would; its workers die with it."""
        os.kill(node.pid, signal.SIGKILL)
        self._gone(node)

    def remove_node(self, node: ClusterNode) -> None:
        """Stop the node in good order."""
        os.kill(node.pid, signal.SIGTERM)
        self._gone(node)

    def _gone(self, node: ClusterNode) -> None:
        node.alive = False
        try:
            node._started.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            os.kill(node.pid, signal.SIGKILL)
            node._started.process.wait()
        deadline = time.monotonic() + 5
        while node._started.folder.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        if node._started.lifeline >= 0:
            os.close(node._started.lifeline)
            node._started.lifeline = -1

    def shutdown(self) -> None:
        """Stop every node and the head, and remove the session's folder."""
        session.shutdown()
        for node in self.nodes:
            if node.alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(node.pid, signal.SIGTERM)
        for node in self.nodes:
            if node.alive:
                self._gone(node)
        if self._session.exists():
            import shutil

            shutil.rmtree(self._session, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.shutdown()
