"""Freehold: distributed futures with ownership, in plain Python.

import freehold as fh

@fh.remote
def square(x: int) -> int:
    return x * x

print(fh.get([square.remote(i) for i in range(10)]))
"""

from typing import TYPE_CHECKING, Any

from freehold import errors
from freehold.api import (
    Actor,
    ActorClass,
    ActorHandle,
    NodeAffinitySchedulingStrategy,
    ObjectRef,
    ObjectRefGenerator,
    PlacementGroup,
    PlacementGroupSchedulingStrategy,
    RemoteFunction,
    RuntimeContext,
    RuntimeEnv,
    Session,
    as_completed,
    available_resources,
    cancel,
    cluster_resources,
    exit_actor,
    explain,
    get,
    get_actor,
    get_current_placement_group,
    get_gpu_ids,
    get_placement_group,
    get_runtime_context,
    init,
    is_initialized,
    kill,
    list_named_actors,
    map,  # noqa: A004
    method,
    nodes,
    placement_group,
    placement_group_table,
    put,
    remote,
    remove_placement_group,
    shutdown,
    starmap,
    wait,
    wait_async,
)

if TYPE_CHECKING:
    from freehold import util

__version__ = "0.1.0"

__all__ = [
    "init",
    "shutdown",
    "is_initialized",
    "remote",
    "map",
    "starmap",
    "get",
    "put",
    "wait",
    "wait_async",
    "as_completed",
    "cancel",
    "explain",
    "kill",
    "get_actor",
    "list_named_actors",
    "method",
    "exit_actor",
    "placement_group",
    "remove_placement_group",
    "get_placement_group",
    "placement_group_table",
    "get_current_placement_group",
    "get_gpu_ids",
    "nodes",
    "cluster_resources",
    "available_resources",
    "get_runtime_context",
    "Actor",
    "ActorClass",
    "ActorHandle",
    "PlacementGroup",
    "PlacementGroupSchedulingStrategy",
    "NodeAffinitySchedulingStrategy",
    "ObjectRef",
    "ObjectRefGenerator",
    "RemoteFunction",
    "RuntimeContext",
    "RuntimeEnv",
    "Session",
    "errors",
    "util",
]


def __getattr__(name: str) -> Any:
    """``freehold.util`` without its own import statement: it is made of the names above, and loads
    asyncio, which takes a fifth of the time that all else takes.
    """
    if name == "util":
        from importlib import import_module

        return import_module("freehold.util")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
