"""What users touch: remote functions, references, get, put, wait, cancel, the session."""

from freehold.api.calls import cancel, explain, get, put, wait
from freehold.api.refs import ObjectRef
from freehold.api.remote import RemoteFunction, remote
from freehold.api.session import (
    RuntimeContext,
    Session,
    available_resources,
    cluster_resources,
    get_runtime_context,
    init,
    is_initialized,
    nodes,
    shutdown,
)

__all__ = [
    "ObjectRef",
    "RemoteFunction",
    "RuntimeContext",
    "Session",
    "available_resources",
    "cancel",
    "cluster_resources",
    "explain",
    "get",
    "get_runtime_context",
    "init",
    "is_initialized",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "wait",
]
