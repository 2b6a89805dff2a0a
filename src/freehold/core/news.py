"""News: what is free on every node, and which processes have ended, on the way to all nodes.

At the head. Every node wants to know what every other has free, and may say so ten times a second:
with n nodes that would be 10 n² messages a second, more than a process can send from 80 nodes on.
So news are gathered and go out to all nodes in *rounds*, one message a node, and in the long run
no oftener than once in ``SECONDS_PER_NODE`` for each node. Nodes report as often in a large
cluster, every ``REPORT_SECONDS`` in one of up to 100 nodes. So the head sends and hears no more
than 1,000 of these a second, however large the cluster. Of a node's reports the last one counts.
Reports are encoded once for all nodes.

The price is age: with 1,000 nodes, what is known of others may be 2 s old. It serves only to
choose where a request goes; who is asked in vain sends it on (``scheduling``).

What cannot wait does not come here: nodes that join, are drained or are gone, and jobs. After a
quiet time news do not wait either: as many rounds as ``CREDIT_SECONDS`` pay for begin at once.

Races considered: a node says more of itself than a report (it joins, or is drained) while a report
of it waits: that one is dropped, or it would arrive after the newer word and stand. A node dies:
the same. A node that joins meanwhile hears a round of what its answer had said already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from freehold.core.world import Timer, World
from freehold.ids import NodeId, ProcessId
from freehold.wire.attendance import pack_reports
from freehold.wire.messages import Message, News, NodeInfo, NodeReport

#: Seconds between reports of what is free on a node: they serve only to choose between nodes.
REPORT_SECONDS: Final = 0.1
#: Seconds between rounds, for each node: n messages a round are 1,000 a second. With 1,000 nodes
#: that all have news each is 45 KB, which takes 3 us to frame and 0.5 ms to take apart, besides
#: what the kernel takes (docs/scale.md).
SECONDS_PER_NODE: Final = 0.001
#: For how long news need not wait, after a quiet time: in a small cluster they are told at once.
#: (In one of 10 nodes, 10 ms between any two rounds had requests leave for nodes that had just
#: become full: 31 % of tasks ran where their argument lay, not 71 %.)
CREDIT_SECONDS: Final = REPORT_SECONDS


def report_seconds(nodes: int) -> float:
    """Seconds between a node's reports in a cluster of so many nodes."""
    return max(REPORT_SECONDS, round_seconds(nodes))


def round_seconds(nodes: int) -> float:
    """Seconds between rounds in a cluster of so many nodes."""
    return nodes * SECONDS_PER_NODE


def report_of(info: NodeInfo) -> NodeReport:
    """The part of what there is to say of a node that changes all the time."""
    return NodeReport(
        info.address.node,
        info.free,
        info.queued,
        info.store_used,
        info.spilled_bytes,
        info.workers,
        info.bundles,
        info.costless,
    )


def note(report: NodeReport, info: NodeInfo) -> None:
    """Bring what is known of a node up to date."""
    info.free = report.free
    info.queued = report.queued
    info.store_used = report.store_used
    info.spilled_bytes = report.spilled_bytes
    info.workers = report.workers
    info.bundles = report.bundles
    info.costless = report.costless


class Gathering:
    """News that wait for the next round."""

    def __init__(
        self, world: World, tell: Callable[[Message], None], nodes: Callable[[], int]
    ) -> None:
        """``tell``: send to every node; ``nodes``: how many there are."""
        self.world = world
        self.tell = tell
        self.nodes = nodes
        self.reports: dict[NodeId, NodeReport] = {}
        self.ended: list[ProcessId] = []
        self.paid = float("-inf")  # when all rounds so far are paid for
        self.timer: Timer | None = None

    def report(self, report: NodeReport) -> None:
        """A node has told what is free there."""
        self.reports[report.node] = report
        self.soon()

    def process_ended(self, process: ProcessId) -> None:
        """A process is gone."""
        self.ended.append(process)
        self.soon()

    def forget(self, node: NodeId) -> None:
        """What a node has reported is out of date."""
        self.reports.pop(node, None)

    def soon(self) -> None:
        """See to it that there will be a round."""
        if self.timer is None:
            due = max(self.world.now(), self.paid - CREDIT_SECONDS)
            self.timer = self.world.call_at(due, self.round)

    def round(self) -> None:
        """Tell all nodes what was gathered."""
        self.timer = None
        if self.reports or self.ended:
            self.paid = max(self.paid, self.world.now()) + round_seconds(self.nodes())
            self.tell(News(pack_reports(list(self.reports.values())), self.ended))
            self.reports, self.ended = {}, []
