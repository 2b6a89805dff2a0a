"""Freehold: distributed futures with ownership, in plain Python.

import freehold as fh

@fh.remote
def square(x: int) -> int:
    return x * x

print(fh.get([square.remote(i) for i in range(10)]))
"""

from freehold import errors
from freehold.api import (
    ObjectRef,
    RemoteFunction,
    RuntimeContext,
    Session,
    available_resources,
    cancel,
    cluster_resources,
    explain,
    get,
    get_runtime_context,
    init,
    is_initialized,
    nodes,
    put,
    remote,
    shutdown,
    wait,
)

__version__ = "0.1.0"

__all__ = [
    "init",
    "shutdown",
    "is_initialized",
    "remote",
    "get",
    "put",
    "wait",
    "cancel",
    "explain",
    "nodes",
    "cluster_resources",
    "available_resources",
    "get_runtime_context",
    "ObjectRef",
    "RemoteFunction",
    "RuntimeContext",
    "Session",
    "errors",
]
