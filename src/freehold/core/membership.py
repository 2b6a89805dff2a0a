"""Membership: which nodes make up the cluster, which are gone, and which jobs run. At the head.

The life of a node: it joins under an id that nobody had before, says something at least once a
second (any message will do, ``Heartbeat`` if there is nothing to say), and is *gone* when its
stream ends or when nothing was heard of it for ``dead_after`` seconds. Gone is for ever: the id is
an incarnation, what it still says is answered with ``Fenced`` and changes nothing, and the others
are told to hear it no more. The machine comes back as a new node with a new id.

The head itself may end and come back. What must not be forgotten is in the journal before anybody
is told: nodes that joined, nodes that are gone (or a fenced one could return), jobs. Everything
else is told again. A head that begins expects every node of its journal (``present`` is false): it
counts as alive, and has ``dead_after`` from now to call. A node that calls, for the first time or
again, says all that the head may have missed: itself, its drivers' jobs, which processes have ended
and which nodes it was told are gone. The answer says the same of all others. All of these are facts
that never become untrue, so it does no harm to hear one twice, in any order, and nobody has to know
what the other has already: that is why there is no list of unsent news and no acknowledgement. A
record lost with a torn journal comes back in the same way.

Races considered: a head that was stopped, or got no CPU, for a while has not read what the nodes
said meanwhile, so a look that comes late itself judges nobody. A node may open a second stream
before the first has ended (it calls again): that is no new node. News of a node may reach others
before it has called again: they go to present nodes only, the others get them with their answer.

No epochs: two heads cannot listen at one place, and a node calls a new head only after its stream
to the old one has ended.

Not known here: resources (a node's ``NodeInfo`` is passed on as it came), leases, objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from freehold.core import news
from freehold.core.journal import Journal
from freehold.core.world import World
from freehold.ids import JobId, NodeId, ProcessId
from freehold.wire.messages import (
    Address,
    Fenced,
    JobEnded,
    JobStarted,
    JoinCluster,
    Joined,
    Message,
    NodeChanged,
    NodeInfo,
    NodeReport,
    Stop,
)
from freehold.wire.placement import GroupInfo

#: Seconds without a word after which a node is gone. A cut or a stop that is shorter costs nothing,
#: a longer one costs the node's work. Losing packets for 5 s is seen in practice (a switch that
#: restarts, a machine that swaps); tasks that wait for a machine which never comes back wait this
#: long. A process that ends is noticed by the end of its stream at once, whatever this says.
DEAD_AFTER: Final = 10.0
#: Looks, and heartbeats, within that time: one that is late or lost is nothing; a death is noticed
#: a tenth late at most; one small message a second and node is not seen in any load.
BEATS: Final = 10
#: Nodes that are gone and processes that have ended, kept to be told again and to be fenced. What
#: is older than so many others has no trace anywhere.
GONE_KEPT: Final = 1000
ENDED_KEPT: Final = 4096


class Member:
    """A node that is alive, as far as is known. ``heard``: when it last said something.
    ``present``: it has called this head; if not, an earlier one knew it.
    """

    __slots__ = ("heard", "info", "present")

    def __init__(self, info: NodeInfo, heard: float, present: bool) -> None:
        self.info = info
        self.heard = heard
        self.present = present


class Ended:
    """Processes that have ended: the last ``ENDED_KEPT`` that were told of, each told once."""

    def __init__(self) -> None:
        self.processes: dict[ProcessId, None] = {}

    def add(self, process: ProcessId) -> bool:
        """Note one. False if it was known."""
        if process in self.processes:
            return False
        self.processes[process] = None
        if len(self.processes) > ENDED_KEPT:
            del self.processes[next(iter(self.processes))]
        return True


class Membership:
    """Nodes and jobs."""

    def __init__(self, world: World, journal: Journal, dead_after: float) -> None:
        """``dead_after``: see DEAD_AFTER."""
        self.world = world
        self.journal = journal
        self.dead_after = dead_after
        self.members: dict[NodeId, Member] = {}
        self.gone: dict[NodeId, NodeInfo] = {}
        self.jobs: dict[JobId, JobStarted] = {}
        self.ended = Ended()
        self.news = news.Gathering(world, self.tell, lambda: len(self.members))
        # the role's: what is said of placement groups, and what ends groups or their bundles
        self.groups: Callable[[], list[GroupInfo]] = list
        self.node_gone: Callable[[NodeId], None] = lambda node: None
        self.job_over: Callable[[JobId], None] = lambda job: None
        self.recover(journal.load())
        self.due = world.now()
        self.look_later()

    def recover(self, records: Iterable[Message]) -> None:
        """Begin where an earlier head ended."""
        now = self.world.now()
        for record in records:
            if isinstance(record, JobStarted):
                self.jobs[record.job] = record
            elif isinstance(record, NodeChanged):
                node = record.info.address.node
                if record.info.alive:
                    self.members[node] = Member(record.info, now, False)
                else:
                    self.gone[node] = record.info
        for job in list(self.jobs.values()):
            if job.driver.node in self.gone:  # its end was written after that of its node, and lost
                self.end_job(job.job, None)

    # ------------------------------------------------------------------ joining

    def on_join(self, message: JoinCluster, peer: Address) -> None:
        """A node calls, for the first time or again: take its facts, tell it ours."""
        node = peer.node
        if node not in self.members:
            self.journal.put(node, NodeChanged(message.info))
        self.members[node] = Member(message.info, self.world.now(), True)
        self.news.forget(node)
        for dead in message.gone:
            self.bury(dead)
        for process in message.ended:
            self.process_ended(process)
        running = {job.job for job in message.jobs}
        for job in list(self.jobs.values()):
            if job.driver.node == node and job.job not in running:
                self.end_job(job.job, node)
        for job in message.jobs:
            if job.job not in self.jobs:
                self.on_job_started(job, peer)
        others = [member.info for other, member in self.members.items() if other != node]
        self.world.send(
            peer,
            Joined(
                others,
                list(self.gone.values()),
                list(self.jobs.values()),
                list(self.ended.processes),
                self.dead_after,
                self.groups(),
            ),
        )
        self.tell(NodeChanged(message.info), but=node)

    def expect(self, info: NodeInfo) -> None:
        """A node that another one knows. If we do not, our journal has lost it: if it does not
        call either, it died while there was no head, and the others have to be told.
        """
        node = info.address.node
        if node not in self.members and node not in self.gone:
            self.journal.put(node, NodeChanged(info))
            self.members[node] = Member(info, self.world.now(), False)

    def complete(self) -> bool:
        """Whether every node that is expected has called: nothing is known better elsewhere."""
        return all(member.present for member in self.members.values())

    def fenced(self, message: Message, peer: Address) -> bool:
        """Whether this node is gone, and so what it says is void. It is told, and why; one that
        asks again whether it may leave, that it may.
        """
        info = self.gone.get(peer.node)
        if info is None:
            return False
        leaves = isinstance(message, NodeChanged) and not message.info.alive
        self.world.send(peer, Stop() if leaves else Fenced(info.reason))
        return True

    # ------------------------------------------------------------------ news

    def on_report(self, message: NodeReport, peer: Address) -> None:
        """What is free on a node."""
        member = self.members.get(peer.node)
        if member is not None:
            news.note(message, member.info)
            self.news.report(message)

    def on_changed(self, message: NodeChanged, peer: Address) -> None:
        """A node is drained, or not any more; or it leaves, and waits for our word."""
        member = self.members.get(peer.node)
        if not message.info.alive:
            self.lost(peer.node, message.info.reason)
            self.world.send(peer, Stop())
        elif member is not None:
            member.info = message.info
            self.news.forget(peer.node)
            self.tell(message, but=peer.node)

    def on_job_started(self, message: JobStarted, peer: Address) -> None:
        """A driver is up."""
        if peer.node in self.members:
            self.journal.put(message.job, message)
            self.jobs[message.job] = message
            self.tell(message, but=peer.node)

    def end_job(self, job: JobId, at: NodeId | None) -> None:
        """A driver is gone, as the node ``at`` says."""
        if self.jobs.pop(job, None) is not None:
            self.journal.delete(job)
            self.tell(JobEnded(job), but=at)
            self.job_over(job)

    def process_ended(self, process: ProcessId) -> None:
        """A process is gone, as its node says."""
        if self.ended.add(process):
            self.news.process_ended(process)

    def has_ended(self, process: Address) -> bool:
        """Whether we know that a process is gone."""
        return process.process in self.ended.processes or process.node in self.gone

    def tell(self, message: Message, but: NodeId | None = None) -> None:
        """Send to every node that is present but one."""
        for node, member in self.members.items():
            if node != but and member.present:
                self.world.send(member.info.address, message)

    # ------------------------------------------------------------------ deaths

    def heard(self, node: NodeId) -> None:
        """A node has said something."""
        member = self.members.get(node)
        if member is not None:
            member.heard = self.world.now()

    def look_later(self) -> None:
        """Have the next look."""
        self.due += self.dead_after / BEATS
        self.world.call_at(self.due, self.look)

    def look(self) -> None:
        """Who has been silent for too long is gone, unless it was us who did not listen."""
        now = self.world.now()
        if now - self.due > self.dead_after / BEATS:
            self.due = now
            for member in self.members.values():
                member.heard = now
        for node, member in list(self.members.items()):
            if now - member.heard > self.dead_after:
                silent = "said nothing" if member.present else "did not come back to the head"
                self.lost(node, f"{silent} for {self.dead_after:g} s")
        self.look_later()

    def lost(self, node: NodeId, reason: str) -> None:
        """A node is gone. ``reason`` follows its name in messages."""
        member = self.members.get(node)
        if member is not None:
            member.info.alive = False
            member.info.reason = reason
            self.bury(member.info)

    def bury(self, info: NodeInfo) -> None:
        """A node is gone, by our own word or by that of the head before us, and with it its
        drivers: for ever, so it is written down first.
        """
        node = info.address.node
        if node in self.gone:
            return
        self.members.pop(node, None)
        self.news.forget(node)
        self.gone[node] = info
        self.journal.put(node, NodeChanged(info))
        if len(self.gone) > GONE_KEPT:
            oldest = next(iter(self.gone))
            del self.gone[oldest]
            self.journal.delete(oldest)
        self.tell(NodeChanged(info))
        for job in list(self.jobs.values()):
            if job.driver.node == node:
                self.end_job(job.job, None)
        self.node_gone(node)
