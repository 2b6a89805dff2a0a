"""Local mode, as ``init`` begins it. What it is stands in ``runtime.local``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from freehold.runtime import machine

if TYPE_CHECKING:
    from freehold.runtime.local import Local

MODES = ("cluster", "local")


def wanted(mode: object, address: str | None, **of_clusters: object) -> bool:
    """Whether ``init`` shall begin local mode. Raises TypeError or ValueError for bad options."""
    if not isinstance(mode, str):
        raise TypeError(f"mode must be 'cluster' or 'local', not {mode!r}")
    if mode not in MODES:
        raise ValueError(f"mode must be 'cluster' or 'local', not {mode!r}")
    if mode == "cluster":
        return False
    if address not in (None, "local"):
        raise ValueError(f"mode='local' runs in this process alone, and cannot join {address}")
    given = [name for name, value in of_clusters.items() if value]
    if given:
        raise ValueError(f"{' and '.join(given)}: not in local mode, where there is no worker")
    return True


def begin(offer: dict[str, Any], namespace: str) -> Local:
    """A process that is everything. It offers what a new node on this machine would."""
    from freehold.runtime.local import Local  # (it brings what workers need, and asyncio)

    amounts = machine.offer(
        offer["num_cpus"], offer["num_gpus"], offer["memory"], offer["resources"]
    )
    return Local(amounts, namespace)
