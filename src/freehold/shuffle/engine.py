"""Which futures the shuffle runs on: Freehold's, or those of a Ray cluster.

Theory of operation
-------------------
The strategies need six names: ``remote``, ``put``, ``get``, ``wait``, ``cancel`` and ``nodes``;
tasks ask on which node they are, and some are asked to run on one. ``futures()`` is the module
that has the names. It is Freehold unless ``use("ray")`` was called in this process, or a task that
was submitted so runs in it.

Ray's names mean the same, so the adapter is short: a task first says in its own process which
engine it is on; and the keys of ``nodes`` are Ray's already.

This file must not know what a shuffle is. Ray is imported only when it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import freehold as fh

_chosen: Any = fh


def use(name: str) -> Any:
    """Choose the engine of this process, "freehold" or "ray", and return its futures.

    Raises ValueError for any other name, ImportError where Ray is not installed.
    """
    global _chosen
    if name not in ("freehold", "ray"):
        raise ValueError(f"there is no engine {name!r}: choose freehold or ray")
    _chosen = fh if name == "freehold" else Ray()
    return _chosen


def futures() -> Any:
    """The futures of the chosen engine."""
    return _chosen


def here() -> str:
    """The id of the node that this process runs on."""
    return str(_chosen.get_runtime_context().get_node_id())


def name() -> str:
    """The name of the chosen engine."""
    return "freehold" if _chosen is fh else "ray"


def pinned(node: str | None) -> dict[str, Any]:
    """Options of a task that should run on a node: elsewhere only if that is gone."""
    return {"scheduling_strategy": _affinity()(node, soft=True)} if node else {}


def urgent() -> dict[str, Any]:
    """Options of a task that should go before those that wait already: Ray has no such thing."""
    return {"priority": 1} if _chosen is fh else {}


def _affinity() -> Any:
    if _chosen is fh:
        return fh.NodeAffinitySchedulingStrategy
    strategies = importlib.import_module("ray.util.scheduling_strategies")
    return strategies.NodeAffinitySchedulingStrategy


def losses() -> tuple[type[Exception], ...]:
    """What calls of an actor, and what it made, end with when its process is gone."""
    if _chosen is fh:
        return (
            fh.errors.ActorDiedError,
            fh.errors.ActorUnavailableError,
            fh.errors.ObjectLostError,
        )
    errors = importlib.import_module("ray.exceptions")
    return (errors.RayActorError, errors.ObjectLostError)


class Ray:
    """Ray under the names that we use. Its start and stop are the caller's."""

    def __init__(self) -> None:
        self._ray = importlib.import_module("ray")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ray, name)

    def remote(self, made: Callable[..., Any]) -> Any:
        """A remote function, or an actor's class, which must call ``use`` itself."""
        if isinstance(made, type):
            return self._ray.remote(made)

        def on_ray(*args: Any) -> Any:
            use("ray")
            return made(*args)

        return self._ray.remote(on_ray)
