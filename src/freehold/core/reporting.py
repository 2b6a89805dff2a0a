"""Reporting: what a node tells of itself, and when. At the node; ``news`` is the other side.

A report goes out when something has changed that others want to know, a while after it was
noticed, so that a task of a millisecond is not worth two. While the head is away nothing is
reported: all is told when the node calls.
"""

from __future__ import annotations

from freehold.core import news
from freehold.core.attendance import Attendance
from freehold.core.objects import Objects
from freehold.core.scheduling import Scheduling
from freehold.core.workers import Workers
from freehold.core.world import Timer, World
from freehold.resources import Resources
from freehold.wire.messages import NodeInfo

#: What others want to know, in steps that are worth a message.
State = tuple[Resources, int, int, int, int, dict[bytes, Resources], int]


class Reporting:
    """The reports of one node."""

    def __init__(
        self,
        world: World,
        info: NodeInfo,
        scheduling: Scheduling,
        workers: Workers,
        objects: Objects,
        attendance: Attendance,
    ) -> None:
        self.world = world
        self.info = info
        self.scheduling = scheduling
        self.workers = workers
        self.objects = objects
        self.attendance = attendance
        self.timer: Timer | None = None
        self.reported: State | None = None

    def changed(self) -> None:
        """Have a report sent soon, if there is anything new to report."""
        if self.timer is None and self.attendance.joined and self.state() != self.reported:
            due = self.world.now() + news.report_seconds(len(self.scheduling.peers) + 1)
            self.timer = self.world.call_at(due, self.report)

    def state(self) -> State:
        """What there is to report."""
        return (
            dict(self.scheduling.free),
            len(self.scheduling.queue),
            len(self.workers.all),
            self.objects.room.used >> 20,
            self.objects.spilling.bytes >> 20,
            self.scheduling.bundles.in_use(),
            self.scheduling.costless,
        )

    def report(self) -> None:
        """Tell the head, which tells the others."""
        self.timer = None
        self.attendance.tell(news.report_of(self.told()))

    def told(self) -> NodeInfo:
        """This node as it is now, which others are about to know."""
        self.reported = self.state()
        return self.snapshot()

    def snapshot(self) -> NodeInfo:
        """This node as it is now."""
        info = self.info
        return NodeInfo(
            info.address,
            info.hostname,
            info.pid,
            info.total,
            {name: max(amount, 0) for name, amount in self.scheduling.free.items()},
            info.labels,
            len(self.scheduling.queue),
            self.objects.room.capacity,
            self.objects.room.used,
            self.objects.spilling.bytes,
            len(self.workers.all),
            draining=info.draining,
            bundles=self.scheduling.bundles.in_use(),
            costless=self.scheduling.costless,
        )
