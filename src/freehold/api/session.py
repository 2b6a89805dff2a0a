"""The session: ``init``, ``shutdown``, and what the cluster consists of."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from freehold import resources as amounts
from freehold.api import environments, local
from freehold.api.options import text
from freehold.core.membership import DEAD_AFTER
from freehold.errors import (
    AlreadyInitializedError,
    ClusterUnreachableError,
    NotInitializedError,
)
from freehold.runtime import current, machine, places
from freehold.wire.messages import Describe, Description, Message, NodeInfo

if TYPE_CHECKING:
    from freehold.runtime import launch
    from freehold.runtime.driver import Driver
    from freehold.runtime.local import Local
    from freehold.runtime.process import Process
    from freehold.runtime.settings import NodeSettings

_starting = threading.Lock()
#: Seconds to wait for a head that does not answer. One that was killed is back in half a second.
HEAD_PATIENCE = 5.0


class Session(dict[str, Any]):
    """What ``init`` returns: the cluster's address and this node's id; a context manager that
    shuts down at its end.
    """

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        shutdown()


def init(  # long: half of it is the table of its options
    address: str | None = None,
    *,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    memory: float | None = None,
    resources: Mapping[str, float] | None = None,
    labels: Mapping[str, str] | None = None,
    object_store_memory: int | None = None,
    spill_folders: Sequence[str | os.PathLike[str]] | None = None,
    spill_quota: int | None = None,
    namespace: str | None = None,
    log_to_driver: bool = True,
    ignore_reinit_error: bool = False,
    infeasible_grace: float = 10.0,
    dead_after: float = DEAD_AFTER,
    explain_after: float | None = 10.0,
    runtime_env: Mapping[str, Any] | None = None,
    preload: Sequence[str] | None = None,
    mode: str = "cluster",
) -> Session:
    """Connect this program to a cluster, or start one on this machine.

    Args:
        address: HOST:PORT of a head whose cluster has a node on this machine; "auto" for any such
            cluster; "local" for a new one in any case. None: $FREEHOLD_ADDRESS if set, else a new
            one, which ends with this program.
        num_cpus, num_gpus, memory, resources, labels: what the new node offers (default: what the
            machine has).
        object_store_memory: bytes of shared memory for values (default: 30 % of the machine's
            memory). Only what is used is taken.
        spill_folders, spill_quota: where values go when that is full, and how many bytes at most;
            folders, or URLs such as "s3://bucket/prefix" (docs/object-store.md).
        namespace: of names made by this program.
        log_to_driver: print what workers print.
        ignore_reinit_error: do nothing if already connected, instead of raising.
        infeasible_grace: seconds after which a task that no node can ever run fails with
            UnschedulableError.
        dead_after: seconds without a word after which the new cluster's head declares a node
            dead.
        explain_after: seconds after which a ``get`` without a timeout says, by a warning of the
            logger "freehold", what it waits for. None: never.
        runtime_env: what this program's tasks and actors find around them: see ``RuntimeEnv``.
        preload: modules that are imported once on each node, before workers are made: these have
            them from the start, in memory that they share.

        mode: "local": everything runs in this process, each task in ``remote()`` itself: for
            debuggers. See docs/local.md.

    Raises:
        AlreadyInitializedError: this process is connected already.
        ValueError: options that only a new node could honour, with a running cluster's address.
        ClusterUnreachableError: there is no such cluster, or the new one does not come up.
    """
    with _starting:
        if current.process() is not None:
            if ignore_reinit_error:
                return _described(connected())
            raise AlreadyInitializedError(
                "this process is connected already; call shutdown() first, or pass "
                "ignore_reinit_error=True"
            )
        offer = {
            "num_cpus": num_cpus,
            "num_gpus": num_gpus,
            "memory": memory,
            "resources": resources,
            "labels": labels,
            "object_store_memory": object_store_memory,
            "spill_folders": spill_folders,
            "spill_quota": spill_quota,
        }
        here = local.wanted(mode, address, runtime_env=runtime_env, preload=preload)
        address = text("address", address or os.environ.get("FREEHOLD_ADDRESS") or "local")
        namespace = text("namespace", namespace or "")
        if not isinstance(log_to_driver, bool):
            raise TypeError(f"log_to_driver must be True or False, not {log_to_driver!r}")
        _check_patience(explain_after)
        if here:
            process = local.begin(offer, namespace)
            current.set_process(process)
            atexit.register(shutdown)
            return _described(process)
        environment = environments.checked(runtime_env or {})
        modules = environments.checked_modules(preload)
        started = None
        if address == "local":
            started = _start_local(offer, infeasible_grace, dead_after)
            folder, file = started.folder, started.file
        else:
            folder, file = _find(address, offer)
        from freehold.runtime.driver import Driver  # late: ``launch.start`` imports it as it waits

        driver = Driver(
            folder,
            file,
            log_to_driver=log_to_driver,
            namespace=namespace,
            explain_after=explain_after,
        )
        driver.started = started
        try:
            driver.start()
            if environment or modules:
                environments.announce(driver, environment, modules)
        except BaseException:
            driver.leave()
            raise
        current.set_process(driver)
        atexit.register(shutdown)
        return _described(driver)


def _start_local(offer: dict[str, Any], grace: float, dead_after: float) -> launch.Started:
    """A cluster of one node on this machine that ends with this process."""
    from freehold.runtime import launch  # late: only a starter needs it (10 ms)

    settings = local_settings(**offer, infeasible_grace=grace, dead_after=dead_after)
    return launch.start(settings, tied=True)


def _find(address: str, offer: dict[str, Any]) -> tuple[Path, places.NodeFile]:
    """The node of a running cluster on this machine."""
    given = [name for name, value in offer.items() if value is not None]
    if given:
        raise ValueError(
            f"{', '.join(given)} describe a new node, but {address} is a running cluster; "
            "give them to 'freehold start' there"
        )
    return places.find_node(address)


def local_settings(
    *,
    num_cpus: float | None,
    num_gpus: float | None,
    memory: float | None,
    resources: Mapping[str, float] | None,
    labels: Mapping[str, str] | None,
    object_store_memory: int | None,
    spill_folders: Sequence[str | os.PathLike[str]] | None,
    spill_quota: int | None,
    infeasible_grace: float,
    dead_after: float,
) -> NodeSettings:
    """Settings of a first node with a head, on loopback, in a session of its own."""
    from freehold.runtime import launch
    from freehold.runtime.settings import NodeSettings, head_address

    _check_node(labels, spill_folders, spill_quota, infeasible_grace)
    machine.check_patience(dead_after)
    offer = machine.offer(num_cpus, num_gpus, memory, resources)
    store = machine.store_bytes(object_store_memory)
    fuse_bytes, prefetch = machine.spill_file_bytes(), machine.prefetch()
    places.sweep()
    session, _ = places.new_session()
    return NodeSettings(
        session=str(session),
        node=launch.new_node_id(),
        head=head_address("127.0.0.1", 0),
        host="127.0.0.1",
        resources=offer,
        store_bytes=store,
        labels=dict(labels or {}),
        spill_folders=[os.fspath(folder) for folder in spill_folders or ()],
        spill_quota=spill_quota,
        fuse_bytes=fuse_bytes,
        prefetch=prefetch,
        infeasible_grace=infeasible_grace,
        start_head=True,
        dead_after=dead_after,
    )


def _check_node(
    labels: object, folders: Sequence[str | os.PathLike[str]] | None, quota: object, grace: object
) -> None:
    """Raise TypeError or ValueError for settings that a new node could not read."""
    if labels is not None:
        if not isinstance(labels, Mapping):
            raise TypeError(f"labels must be a dict of strings to strings, not {labels!r}")
        for name, value in labels.items():
            text("a label's name", name)
            text(f"label {name!r}", value)
    if isinstance(folders, str | bytes | os.PathLike):
        raise TypeError(f"spill_folders must be a list of folders, not {folders!r}")
    if folders:
        from freehold.store.spill import local_folder

        for folder in folders:
            local_folder(folder)
    if quota is not None:
        if isinstance(quota, bool) or not isinstance(quota, int):
            raise TypeError(f"spill_quota must be bytes, not {quota!r}")
        if quota < 0:
            raise ValueError(f"spill_quota must be >= 0 bytes, not {quota}")
    if isinstance(grace, bool) or not isinstance(grace, int | float):
        raise TypeError(f"infeasible_grace must be seconds, not {grace!r}")
    if not 0 <= grace < float("inf"):
        raise ValueError(f"infeasible_grace must be finite seconds >= 0, not {grace}")


def _check_patience(explain_after: object) -> None:
    """Raise TypeError or ValueError for what is no time to wait."""
    if explain_after is None:
        return
    if isinstance(explain_after, bool) or not isinstance(explain_after, int | float):
        raise TypeError(f"explain_after must be seconds or None (never), not {explain_after!r}")
    if not 0 < explain_after < float("inf"):
        raise ValueError(
            f"explain_after must be finite seconds > 0, or None (never), not {explain_after}"
        )


def _described(process: Process) -> Session:
    return Session(
        address=f"{process.head.host}:{process.head.port}",
        node_id=process.node.node.hex(),
        session=str(process.session),
    )


def shutdown() -> None:
    """Leave the cluster; if ``init`` started it, stop it. References made before are dead.
    Harmless when not connected.
    """
    with _starting:
        process = current.process()
        if process is None:
            return
        from freehold.runtime.driver import Driver  # late: who never connected needs none of it

        if isinstance(process, Driver) or not process.sockets:
            current.set_process(None)
            atexit.unregister(shutdown)
            cast("Driver | Local", process).leave()


def is_initialized() -> bool:
    """Whether this process is connected to a cluster."""
    return current.process() is not None


def connected() -> Process:
    """The process core; starts a local cluster if there is none yet (``init()`` with no
    arguments).
    """
    process = current.process()
    if process is None:
        init(ignore_reinit_error=True)  # another thread's first call may be quicker
        process = current.process()
        assert process is not None
    return process


def _cluster() -> Description:
    process = current.process()
    if process is None:
        raise NotInitializedError("not connected to a cluster: call init() first")
    answer: Description = ask_head(process, Describe)
    return answer


def ask_head(process: Process, make: Callable[[int], Message]) -> Any:
    """The head's answer to a question that does no harm when it is asked twice. Raises
    ClusterUnreachableError.
    """
    deadline = time.monotonic() + HEAD_PATIENCE
    while True:
        try:
            return process.ask(process.head, make, HEAD_PATIENCE)
        except ClusterUnreachableError as error:
            if time.monotonic() < deadline and not process.node_gone:
                time.sleep(0.05)
                continue
            raise ClusterUnreachableError(
                f"the head at {places.place(process.head)}, which knows what the cluster consists "
                f"of, has not answered for {HEAD_PATIENCE:g} s. Tasks and values go on without it; "
                "ask again later, or see the log of the node that started it",
                address=places.place(process.head),
            ) from error


def nodes() -> list[dict[str, Any]]:
    """The nodes of the cluster, also those that have gone: one dict each, with Ray's keys where
    they make sense.
    """
    return [_node(info) for info in _cluster().nodes]


def _node(info: NodeInfo) -> dict[str, Any]:
    return {
        "NodeID": info.address.node.hex(),
        "Alive": info.alive,
        "Draining": info.draining and info.alive,
        "NodeManagerAddress": info.address.host,
        "NodeManagerHostname": info.hostname,
        "NodeManagerPort": info.address.port,
        "Pid": info.pid,
        "Resources": {
            **amounts.floats(info.total),
            "object_store_memory": float(info.store_bytes),
        },
        "Available": amounts.floats(info.free),
        "Labels": dict(info.labels),
        "ObjectStoreUsed": info.store_used,
        "SpilledBytes": info.spilled_bytes,
        "Workers": info.workers,
        "Queued": info.queued,
        "DeathReason": info.reason,
    }


def cluster_resources() -> dict[str, float]:
    """What all living nodes have together."""
    return _summed("total")


def available_resources() -> dict[str, float]:
    """What is free on all living nodes together, as last reported (every 0.1 s)."""
    return _summed("free")


def _summed(field: str) -> dict[str, float]:
    total: dict[str, int] = {}
    for info in _cluster().nodes:
        if info.alive:
            amounts.add(total, getattr(info, field))
    return amounts.floats(total)
