"""Strategies: on which nodes a request may be granted, and which of them is best.

Pure questions about one request and the nodes as they are known here, from the head's reports;
``scheduling`` acts on the answers. Groups are not asked about here: their places are facts
(``bundles``).

* A node's id: only that node; *soft*: that node while it lives, is not drained and is big enough,
  else any.
* Spread: the node with the largest part of its CPUs free, counted as they would be afterwards. It
  is chosen once, by the first node that is asked; the chosen one treats the request as its own.
* A request that takes no CPU is placed as if it took one, and so are those that are granted
  (``room``): by resources alone a thousand actors fit on one node. It is granted there none the
  less, if that is the emptiest.
* Selectors are alternatives: the first is used for which a node exists that satisfies it and is big
  enough, whether or not that node has anything free now: a later alternative is for clusters
  that do not have what the earlier one names, not for hours in which it is busy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from freehold import resources
from freehold.ids import NodeId, short
from freehold.resources import CPU, UNIT, Resources
from freehold.wire.messages import NodeInfo, Placement, RequestLease
from freehold.wire.placement import Clause

#: What a node's id is called in its own labels.
NODE_LABEL = "freehold/node-id"


def satisfies(selector: Iterable[Clause], node: NodeInfo) -> bool:
    """Whether a node's labels meet every clause."""
    return all(_holds(clause, node) for clause in selector)


def _holds(clause: Clause, node: NodeInfo) -> bool:
    if clause.label == NODE_LABEL:
        value: str | None = node.address.node.hex()
    else:
        value = node.labels.get(clause.label)
    return (value in clause.values) != clause.negated


def usable(node: NodeInfo, request: Mapping[str, int]) -> bool:
    """Whether the node could ever grant so much."""
    return not node.draining and resources.fits(request, node.total)


def allowed(wire: RequestLease, nodes: Sequence[NodeInfo]) -> Sequence[NodeInfo]:
    """Those of ``nodes``, which are all that there are, on which the request may be granted."""
    placement = wire.placement
    if placement is None:
        return nodes
    if placement.node:
        there = [node for node in nodes if node.address.node == placement.node]
        if not placement.soft or any(usable(node, wire.resources) for node in there):
            return there
    if placement.selectors:
        for selector in placement.selectors:
            matching = [node for node in nodes if satisfies(selector, node)]
            if any(usable(node, wire.resources) for node in matching):
                return matching
        return [
            node
            for node in nodes
            if any(satisfies(selector, node) for selector in placement.selectors)
        ]
    return nodes


def is_bound(placement: Placement | None) -> bool:
    """Whether the strategy restricts the nodes at all."""
    return placement is not None and bool(placement.node or placement.selectors)


def room(node: NodeInfo, request: Mapping[str, int]) -> int:
    """The CPUs that would be free afterwards, if whatever takes none took one."""
    asked = request.get(CPU, 0) or UNIT
    return node.free.get(CPU, 0) - node.costless * UNIT - asked


def emptiest(
    wire: RequestLease, nodes: Iterable[NodeInfo], sent: Mapping[NodeId, int]
) -> NodeInfo | None:
    """Where there is most room left in proportion, of those that have room now; of equals, that to
    which fewest were ``sent`` before.
    """
    best, most = None, (0.0, 0)
    for node in nodes:
        if not node.draining and resources.fits(wire.resources, node.free):
            total = node.total.get(CPU, 0) or 1
            rank = room(node, wire.resources) / total, -sent.get(node.address.node, 0)
            if best is None or rank > most:
                best, most = node, rank
    return best


def described(placement: Placement) -> str:
    """What the strategy asks for, in a clause that follows "needed" or "waits for"."""
    if placement.node:
        return f"on node {short(placement.node)}"
    if placement.selectors:
        return "on a node with " + " or else ".join(
            " and ".join(_clause(clause) for clause in selector) for selector in placement.selectors
        )
    return ""


def _clause(clause: Clause) -> str:
    values = ", ".join(clause.values)
    if len(clause.values) == 1:
        return f"label {clause.label}={'!' if clause.negated else ''}{values}"
    return f"label {clause.label}={'!' if clause.negated else ''}in({values})"


def no_such_node(wire: RequestLease, gone: Mapping[NodeId, NodeInfo]) -> str:
    """Why a request for one node alone can never be granted: that node is gone for ever."""
    placement = wire.placement
    if placement is None or not placement.node or placement.soft:
        return ""
    info = gone.get(placement.node)
    if info is None:
        return ""
    return f"it may run on node {short(placement.node)} alone, which is gone: it {info.reason}"


def describe_request(request: Resources, placement: Placement | None) -> str:
    """Amounts, and where."""
    where = described(placement) if placement is not None else ""
    return f"{resources.describe(request)}{' ' + where if where else ''}"
