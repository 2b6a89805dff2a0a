"""What users touch: remote functions, references, get, put, wait, cancel, the session."""

from freehold.api.actors import ActorClass, ActorHandle, exit_actor, kill
from freehold.api.aio import as_completed, wait_async
from freehold.api.calls import cancel, explain, get, put, wait
from freehold.api.context import RuntimeContext, get_runtime_context
from freehold.api.environments import RuntimeEnv
from freehold.api.generators import ObjectRefGenerator
from freehold.api.maps import map, starmap  # noqa: A004
from freehold.api.methods import Actor, method
from freehold.api.named import get_actor, list_named_actors
from freehold.api.placement import (
    PlacementGroup,
    get_current_placement_group,
    get_gpu_ids,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from freehold.api.refs import ObjectRef
from freehold.api.remote import RemoteFunction, remote
from freehold.api.session import (
    Session,
    available_resources,
    cluster_resources,
    init,
    is_initialized,
    nodes,
    shutdown,
)
from freehold.api.strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

__all__ = [
    "NodeAffinitySchedulingStrategy",
    "PlacementGroup",
    "PlacementGroupSchedulingStrategy",
    "get_current_placement_group",
    "get_gpu_ids",
    "get_placement_group",
    "placement_group",
    "placement_group_table",
    "remove_placement_group",
    "Actor",
    "ActorClass",
    "ActorHandle",
    "ObjectRef",
    "ObjectRefGenerator",
    "RemoteFunction",
    "RuntimeEnv",
    "RuntimeContext",
    "Session",
    "as_completed",
    "available_resources",
    "cancel",
    "cluster_resources",
    "exit_actor",
    "explain",
    "get",
    "get_actor",
    "get_runtime_context",
    "init",
    "map",
    "is_initialized",
    "kill",
    "list_named_actors",
    "method",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "starmap",
    "wait",
    "wait_async",
]
