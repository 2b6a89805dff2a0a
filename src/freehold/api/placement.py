"""Placement groups: resources reserved together, on one node or on several.

Every call here but ``ready`` asks the head and waits for its answer. A handle is the group's id and
bundles; it can be passed to tasks, stored and compared, and does not keep the group: that ends with
``remove_placement_group``, or with the program that made it unless it is detached.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from freehold import resources
from freehold.api import calls, session
from freehold.api.options import text
from freehold.api.refs import ObjectRef
from freehold.api.strategies import clauses
from freehold.errors import PlacementGroupRemovedError
from freehold.ids import GroupId
from freehold.resources import CPU, GPU, MEMORY, Resources
from freehold.wire import serial
from freehold.wire.messages import (
    INLINE,
    CreateGroup,
    FindGroups,
    GroupChanged,
    Groups,
    Message,
    Reference,
    RemoveGroup,
    Value,
)
from freehold.wire.placement import (
    PACK,
    REMOVED,
    SPREAD,
    STRICT_PACK,
    STRICT_SPREAD,
    Clause,
    GroupInfo,
    grave,
)

if TYPE_CHECKING:
    from freehold.runtime.process import Process

STRATEGIES: Final = (PACK, SPREAD, STRICT_PACK, STRICT_SPREAD)
#: What the same amounts are called as options of tasks, by which errors name them.
OPTIONS: Final = {CPU: "num_cpus", GPU: "num_gpus", MEMORY: "memory"}
#: Bundles of one group: the search for places is tried with as many.
MOST_BUNDLES: Final = 10_000


class PlacementGroup:
    """A handle of a placement group. Made by ``placement_group``."""

    def __init__(self, group: GroupId, bundles: Sequence[Mapping[str, float]]) -> None:
        self._group = group
        self._bundles = [dict(bundle) for bundle in bundles]

    @property
    def id(self) -> str:
        """The group's id, in hex digits."""
        return self._group.hex()

    @property
    def bundle_specs(self) -> list[dict[str, float]]:
        """What each bundle reserves."""
        return [dict(bundle) for bundle in self._bundles]

    @property
    def bundle_count(self) -> int:
        """How many bundles it has."""
        return len(self._bundles)

    @property
    def is_empty(self) -> bool:
        """Whether it has none: never, for a group that ``placement_group`` has made."""
        return not self._bundles

    def ready(self) -> ObjectRef[PlacementGroup]:
        """A reference that gets its value, this handle, when every bundle has its place. Its
        ``get`` raises PlacementGroupRemovedError if the group is removed.
        """
        process = session.connected()
        names = process.context().names
        value = Value(INLINE, serial.serialize(self).to_bytes())
        object_id = names.next_put(b"ready" + self._group)
        with process.lock:
            process.role.awaiting.begin(object_id, self._group, value)
            process.transport.flush()
        return ObjectRef(process, Reference(object_id, process.address, ()))

    def wait(self, timeout_seconds: float = 30) -> bool:
        """Wait until every bundle has its place: True, or False if the time is over. Raises
        PlacementGroupRemovedError.
        """
        ref = self.ready()
        ready, _ = calls.wait([ref], timeout=timeout_seconds)
        if ready:
            calls.get(ref)
        return bool(ready)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroup) and other._group == self._group

    def __hash__(self) -> int:
        return hash(self._group)

    def __reduce__(self) -> Any:
        return PlacementGroup, (self._group, self._bundles)

    def __repr__(self) -> str:
        return f"PlacementGroup({self.id}, {self._bundles})"


def placement_group(
    bundles: Sequence[Mapping[str, float]],
    strategy: str = PACK,
    name: str = "",
    lifetime: str | None = None,
    *,
    bundle_label_selector: Sequence[Mapping[str, str]] | None = None,
) -> PlacementGroup:
    """Have resources reserved together: all bundles or none, now or as soon as there is room.

    Args:
        bundles: what to reserve, ``[{"CPU": 2, "GPU": 1}, {"CPU": 1}]``; each bundle lies on one
            node. Memory is in bytes, under "memory".
        strategy: "PACK" (on as few nodes as possible), "SPREAD" (on as many), "STRICT_PACK" (on
            one node), "STRICT_SPREAD" (each on another node).
        name: by which ``get_placement_group`` finds it, once in a namespace.
        lifetime: None: it ends with this program; "detached": it stays until it is removed.
        bundle_label_selector: for each bundle the labels that its node must have, as
            ``label_selector`` of tasks.

    Raises:
        TypeError, ValueError: what cannot be such a group, or a name that is taken.
        ClusterUnreachableError: the head does not answer.
    """
    amounts = _bundles(bundles)
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, not {strategy!r}")
    if lifetime not in (None, "detached"):
        raise ValueError(f'lifetime must be None or "detached", not {lifetime!r}')
    selectors: list[tuple[Clause, ...]] = []
    if bundle_label_selector is not None:
        selectors = [clauses("bundle_label_selector", item) for item in bundle_label_selector]
        if len(selectors) != len(amounts):
            raise ValueError(
                f"bundle_label_selector has {len(selectors)} items for {len(amounts)} bundles: "
                "give one for each, {} for any node"
            )
    process = session.connected()
    info = GroupInfo(
        GroupId(os.urandom(8)),
        process.role.job,
        amounts,
        strategy,
        text("name", name),
        _namespace(process),
        lifetime == "detached",
        selectors,
    )
    asked = count()
    answer = _ask(process, lambda request: CreateGroup(request, info, next(asked) > 0))
    if answer.error:
        raise ValueError(answer.error)
    _tell_node(process, answer.groups[0])
    return _handle(info)


def remove_placement_group(placement_group: PlacementGroup) -> None:
    """Remove the group: what it reserved is free again, and what runs or waits in it ends, tasks
    with TaskPlacementGroupRemovedError. Harmless for one that was removed.
    """
    group = _checked(placement_group)._group
    process = session.connected()
    _ask(process, lambda request: RemoveGroup(request, group))
    _tell_node(process, grave(group))


def get_placement_group(name: str) -> PlacementGroup:
    """The group of that name in this program's namespace. Raises ValueError if there is none."""
    if not text("name", name):
        raise ValueError("name must not be empty: it is that which placement_group() was given")
    process = session.connected()
    namespace = _namespace(process)
    found = _ask(process, lambda request: FindGroups(request, name=name, namespace=namespace))
    if not found.groups:
        raise ValueError(
            f"there is no placement group named {name!r} in namespace {namespace!r}: it was never "
            "made, or was removed"
        )
    return _handle(found.groups[0])


def placement_group_table(placement_group: PlacementGroup | None = None) -> dict[str, Any]:
    """The state of one group, or of all by their ids: name, strategy, state (PENDING, CREATED,
    RESCHEDULING, REMOVED), bundles, where they are, and what a group without its places waits for.
    """
    process = session.connected()
    if placement_group is None:
        found = _ask(process, FindGroups)
        return {info.group.hex(): _row(info) for info in found.groups}
    group = _checked(placement_group)._group
    found = _ask(process, lambda request: FindGroups(request, group))
    return _row(found.groups[0]) if found.groups else {}


def get_current_placement_group() -> PlacementGroup | None:
    """The group in which this code runs; None outside any. Raises PlacementGroupRemovedError if it
    is being removed under it.
    """
    process = session.connected()
    placement = process.context().granted.placement
    if placement is None or not placement.group:
        return None
    group = placement.group
    found = _ask(process, lambda request: FindGroups(request, group)).groups
    if not found or found[0].state == REMOVED:
        raise PlacementGroupRemovedError(group_id=group.hex())
    return _handle(found[0])


def get_gpu_ids() -> list[int | str]:
    """The GPUs that this code may use, as CUDA_VISIBLE_DEVICES names them: by number, unless the
    node was started with other names there. None in a driver.
    """
    gpus = session.connected().context().granted.gpus
    return [int(name) if name.isdigit() else name for name in gpus]


# -- in between -----------------------------------------------------------------------------------


def _ask(process: Process, make: Callable[[int], Message]) -> Groups:
    answer: Groups = session.ask_head(process, make)
    return answer


def _tell_node(process: Process, info: GroupInfo) -> None:
    """The head has said so, and may die, and forget, before any node has heard of it."""
    with process.lock:
        process.transport.send(process.node, GroupChanged(info))
        process.transport.flush()


def _namespace(process: Process) -> str:
    return getattr(process, "namespace", "")


def _checked(value: object) -> PlacementGroup:
    if not isinstance(value, PlacementGroup):
        raise TypeError(f"this takes a PlacementGroup, not {type(value).__name__} {value!r}")
    return value


def _handle(info: GroupInfo) -> PlacementGroup:
    return PlacementGroup(info.group, [resources.floats(amounts) for amounts in info.bundles])


def _row(info: GroupInfo) -> dict[str, Any]:
    return {
        "placement_group_id": info.group.hex(),
        "name": info.name,
        "strategy": info.strategy,
        "state": info.state,
        "bundles": {n: resources.floats(amounts) for n, amounts in enumerate(info.bundles)},
        "bundles_to_node_id": {
            n: place.node.node.hex() if place is not None else ""
            for n, place in enumerate(info.places)
        },
        "detached": info.detached,
        "waits_for": info.reason,
    }


def _bundles(bundles: object) -> list[Resources]:
    """What users write, in fixed point. Raises TypeError or ValueError, naming the bundle."""
    if not isinstance(bundles, Sequence) or isinstance(bundles, str):
        raise TypeError(f"bundles must be a list of dicts of resources, not {bundles!r}")
    if not 1 <= len(bundles) <= MOST_BUNDLES:
        raise ValueError(f"bundles must be 1 to {MOST_BUNDLES:,} dicts, not {len(bundles)}")
    return [_amounts(index, bundle) for index, bundle in enumerate(bundles)]


def _amounts(index: int, bundle: object) -> Resources:
    if not isinstance(bundle, Mapping):
        raise TypeError(f"bundle {index} must be a dict of resources, not {bundle!r}")
    found: Resources = {}
    for name, value in bundle.items():
        resources.check_name(name)
        option = OPTIONS.get(name, str(name))
        try:
            amount = resources.quantity(option, value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"bundle {index}: {error}") from None
        if amount:
            found[name] = amount
    if not found:
        raise ValueError(f"bundle {index} reserves nothing: {bundle!r}")
    return found
