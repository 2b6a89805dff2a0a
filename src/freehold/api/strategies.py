"""Where tasks and actors may run: what users write, and what it is on the wire.

``placement_of`` turns the options of a task or an actor into the one record that goes with its
requests for a worker (``wire.placement.Placement``), or None if they say nothing; ``inherited``
adds what a task inherits that is submitted in a placement group.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from msgspec import structs

from freehold.core.strategies import NODE_LABEL
from freehold.ids import GroupId, NodeId
from freehold.wire.messages import Placement
from freehold.wire.placement import Clause

if TYPE_CHECKING:
    from freehold.api.placement import PlacementGroup

#: The scheduler's place in a queue is moved by minutes for each step.
MOST_PRIORITY: Final = 1_000_000

Selector = Mapping[str, str]


class PlacementGroupSchedulingStrategy:
    """Run in a bundle of a placement group.

    Args:
        placement_group: the group.
        placement_group_bundle_index: which of its bundles; -1 for any.
        placement_group_capture_child_tasks: have what is submitted in there run in the group too,
            unless it has a strategy of its own ("DEFAULT" for none).
    """

    def __init__(
        self,
        placement_group: PlacementGroup,
        placement_group_bundle_index: int = -1,
        placement_group_capture_child_tasks: bool | None = None,
    ) -> None:
        self.placement_group = placement_group
        self.placement_group_bundle_index = placement_group_bundle_index
        self.placement_group_capture_child_tasks = placement_group_capture_child_tasks
        self.to_placement()

    def to_placement(self) -> Placement:
        """The wire form. Raises TypeError or ValueError, naming what is wrong."""
        return in_group(
            self.placement_group,
            self.placement_group_bundle_index,
            self.placement_group_capture_child_tasks,
        )

    def __repr__(self) -> str:
        index = self.placement_group_bundle_index
        return f"PlacementGroupSchedulingStrategy({self.placement_group!r}, {index})"


class NodeAffinitySchedulingStrategy:
    """Run on one node.

    Args:
        node_id: the node's id, as ``nodes()`` and ``get_node_id()`` give it.
        soft: run elsewhere if that node is gone, drained or too small. Otherwise the task fails
            with UnschedulableError.
    """

    def __init__(self, node_id: str, soft: bool = False) -> None:
        self.node_id = node_id
        self.soft = soft
        self.to_placement()

    def to_placement(self) -> Placement:
        """The wire form. Raises TypeError or ValueError, naming what is wrong."""
        if not isinstance(self.node_id, str):
            raise TypeError(f"node_id must be a string of hex digits, not {self.node_id!r}")
        if not isinstance(self.soft, bool):
            raise TypeError(f"soft must be True or False, not {self.soft!r}")
        if not re.fullmatch("[0-9a-f]{16}", self.node_id):
            raise ValueError(
                f"node_id must be 16 hex digits, as nodes() gives them, not {self.node_id!r}"
            )
        return Placement(node=NodeId(bytes.fromhex(self.node_id)), soft=self.soft)

    def __repr__(self) -> str:
        return f"NodeAffinitySchedulingStrategy({self.node_id!r}, soft={self.soft})"


class Wishes(Protocol):
    """The options that say where: those of tasks and those of actors have them."""

    @property
    def scheduling_strategy(self) -> Any:
        """A strategy, "SPREAD" or "DEFAULT"."""

    @property
    def label_selector(self) -> Any:
        """Labels that the node must have."""

    @property
    def fallback_strategy(self) -> Any:
        """Further selectors, tried in order."""

    @property
    def priority(self) -> Any:
        """How urgent it is."""

    @property
    def placement_group(self) -> Any:
        """A group, by an older way of writing it."""

    @property
    def placement_group_bundle_index(self) -> Any:
        """Its bundle."""

    @property
    def placement_group_capture_child_tasks(self) -> Any:
        """Whether children are captured."""


def placement_of(options: Wishes) -> Placement | None:
    """What the options say about where; None if nothing. Raises TypeError or ValueError, naming
    the option, its value and what it takes.
    """
    base = _strategy(options)
    selectors = _selectors(options.label_selector, options.fallback_strategy)
    priority = _priority(options.priority)
    if base is None and not selectors and not priority:
        return None
    base = base or Placement()
    if selectors and (base.group or base.node):
        raise ValueError(
            "label_selector cannot be combined with a placement group or a node: these say where "
            "already. Bundles take selectors of their own (bundle_label_selector=)"
        )
    return structs.replace(base, selectors=selectors, priority=priority)


def inherited(own: Placement | None, around: Placement | None) -> Placement | None:
    """What a task has that says ``own`` and is submitted by one with ``around``."""
    if around is None or not around.capture:
        return own
    if own is None:
        return Placement(around.group, -1, True)
    return own


def in_group(group: object, index: object, capture: object) -> Placement:
    """A bundle of a group. Raises TypeError or ValueError."""
    from freehold.api.placement import PlacementGroup  # it needs a session, which needs options

    if not isinstance(group, PlacementGroup):
        raise TypeError(
            f"placement_group must be a PlacementGroup, as placement_group() returns, not {group!r}"
        )
    if isinstance(index, bool) or not isinstance(index, int):
        raise TypeError(f"placement_group_bundle_index must be an integer, not {index!r}")
    if capture is not None and not isinstance(capture, bool):
        raise TypeError(
            f"placement_group_capture_child_tasks must be True or False, not {capture!r}"
        )
    if not -1 <= index < group.bundle_count:
        raise ValueError(
            f"placement_group_bundle_index={index}: the group has {group.bundle_count} bundles, "
            f"0 to {group.bundle_count - 1}; -1 is any of them"
        )
    return Placement(GroupId(bytes.fromhex(group.id)), int(index), bool(capture))


def _strategy(options: Wishes) -> Placement | None:
    strategy = options.scheduling_strategy
    if options.placement_group is not None:
        if strategy is not None:
            raise ValueError(
                "placement_group= and scheduling_strategy= both say where to run: give one; "
                "scheduling_strategy=PlacementGroupSchedulingStrategy(group) is the newer way"
            )
        return in_group(
            options.placement_group,
            options.placement_group_bundle_index,
            options.placement_group_capture_child_tasks,
        )
    if strategy is None:
        return None
    if isinstance(strategy, PlacementGroupSchedulingStrategy | NodeAffinitySchedulingStrategy):
        return strategy.to_placement()
    if strategy == "DEFAULT":
        return Placement()  # (not None: it also leaves a group that captures)
    if strategy == "SPREAD":
        return Placement(spread=True)
    raise (ValueError if isinstance(strategy, str) else TypeError)(
        'scheduling_strategy must be "DEFAULT", "SPREAD", a PlacementGroupSchedulingStrategy or a '
        f"NodeAffinitySchedulingStrategy, not {strategy!r}"
    )


def _priority(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"priority must be an integer, not {value!r}")
    if not -MOST_PRIORITY <= value <= MOST_PRIORITY:
        raise ValueError(f"priority must be within +-{MOST_PRIORITY:,}, not {value}")
    return int(value)


def _selectors(selector: object, fallback: object) -> tuple[tuple[Clause, ...], ...]:
    """A selector and those that are tried after it."""
    if fallback is not None and selector is None:
        raise ValueError("fallback_strategy is for when label_selector finds no node: give both")
    if selector is None:
        return ()
    found = [clauses("label_selector", selector)]
    if fallback is not None:
        if not isinstance(fallback, Sequence) or isinstance(fallback, str):
            raise TypeError(f"fallback_strategy must be a list of dicts, not {fallback!r}")
        for item in fallback:
            if not isinstance(item, Mapping) or set(item) != {"label_selector"}:
                raise ValueError(
                    'each item of fallback_strategy must be {"label_selector": {...}}, '
                    f"not {item!r}"
                )
            found.append(clauses("fallback_strategy", item["label_selector"]))
    return tuple(found)


def clauses(option: str, selector: object) -> tuple[Clause, ...]:
    """``{"zone": "in(a,b)", "spot": "!true"}``. Raises TypeError or ValueError."""
    if not isinstance(selector, Mapping):
        raise TypeError(f"{option} must be a dict of labels to values, not {selector!r}")
    return tuple(_clause(option, label, value) for label, value in selector.items())


def _clause(option: str, label: object, value: object) -> Clause:
    if not isinstance(label, str) or not isinstance(value, str) or not label:
        raise TypeError(f"{option}: labels and values are strings, not {label!r}: {value!r}")
    text = value.strip()
    negated = text.startswith("!")
    text = text[1:].strip() if negated else text
    listed = re.fullmatch(r"in\((.*)\)", text)
    values = [item.strip() for item in listed[1].split(",")] if listed else [text]
    if not all(re.fullmatch(r"[^\s!(),]+", item) for item in values):
        raise ValueError(
            f"{option}: {label}={value!r} must be a value, !value, in(a,b) or !in(a,b); values are "
            "words without spaces, commas, brackets and exclamation marks"
        )
    name = NODE_LABEL if label == "ray.io/node-id" else label
    return Clause(name, tuple(values), negated)
