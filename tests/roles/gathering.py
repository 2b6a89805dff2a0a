"""A head and some nodes, joined by streams that a test delivers from, one message at a time.

Theory of operation. The roles are the real ones; what lies between them is a first-in first-out
queue for each direction of each pair, and nothing else, so that any interleaving of different
streams can be had. A stream to the head ends with either side's process: what was sent before a
process died may still arrive, a part of it or all (``lose``). Time is one clock for all. Processes
of a node are as simple as can be: a worker registers when it is started, ends when it is killed.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any

from core.making import Making
from core.world import Alarm, death, eight, info, node
from freehold.core.placement import Placing
from freehold.core.scheduling import Scheduling
from freehold.ids import GroupId, JobId, LeaseId, NodeId, ProcessId
from freehold.resources import UNIT, Resources
from freehold.roles.head import Head
from freehold.roles.node import Node
from freehold.sim.head import SimJournal
from freehold.store.allocator import Allocator
from freehold.wire.messages import (
    Address,
    CreateGroup,
    LeaseEnded,
    LeaseGranted,
    LeaseRedirected,
    LeaseRefused,
    Message,
    Placement,
    Register,
    RemoveGroup,
    RequestLease,
    ReturnLease,
    Wire,
)
from freehold.wire.placement import GroupInfo

HEAD = node("head")
DEAD_AFTER = 10.0


class World:
    """The world of one process of the gathering."""

    def __init__(self, gathering: Gathering, address: Address) -> None:
        self.gathering = gathering
        self.address = address
        self.alarms: list[Alarm] = []
        self.alive = True

    def now(self) -> float:
        return self.gathering.clock

    def send(self, to: Address, message: Message) -> None:
        if self.alive:
            self.gathering.post(self.address, to, message)

    def fence(self, node_id: NodeId) -> None:
        pass  # (what the dead still say is dropped by the streams' end)

    def call_at(self, when: float, action: Callable[[], None]) -> Alarm:
        alarm = Alarm(when, action)
        self.alarms.append(alarm)
        return alarm

    def new_id(self) -> bytes:
        return next(self.gathering.ids).to_bytes(8, "big")


class Shell(Making):
    """Processes that do as they are told, a little later."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine

    def fenced(self, reason: str) -> None:
        self.machine.gathering.kill_node(self.machine)

    def start_worker(self, start: int, zygote: bytes = b"") -> None:
        self.machine.chores.append(lambda: self.machine.worker_up(start))

    def kill_worker(self, start: int) -> None:
        self.machine.chores.append(lambda: self.machine.worker_ends(start))


class Machine:
    """A node, its workers, and one driver that asks for leases and keeps to no rules."""

    def __init__(self, gathering: Gathering, name: str, total: Resources) -> None:
        self.gathering = gathering
        self.address = node(name)
        self.driver = self.process("driver")
        self.job = JobId(eight(f"j{name}"))
        self.world = World(gathering, self.address)
        self.total = total
        self.chores: deque[Callable[[], None]] = deque()
        self.open: dict[LeaseId, Address] = {}  # requests and leases, and whom we asked last
        self.wires: dict[LeaseId, RequestLease] = {}
        self.ends: list[Message] = []  # refusals and ends that the driver was told of
        shell: Any = Shell(self)
        self.node = Node(
            self.world,
            shell,
            Allocator(1 << 16),
            info(self.address, total),
            HEAD,
            infeasible_grace=5.0,
            maker=shell,
        )
        self.node.start()
        self.node.handle(Register(self.driver, 5, self.job, 0, True, True, [], "/"), self.driver)

    @property
    def scheduling(self) -> Scheduling:
        return self.node.scheduling

    def process(self, name: str) -> Address:
        return Address(
            ProcessId(eight(name)[:4] + self.address.process[:4]), self.address.node, "host", 1
        )

    def worker_up(self, start: int) -> None:
        if start in self.node.workers.all and self.node.workers.all[start].address is None:
            address = self.process(f"w{start:03}")
            self.node.handle(Register(address, start, JobId(b""), start, False), address)

    def worker_ends(self, start: int) -> None:
        worker = self.node.workers.all.get(start)
        if worker is None:
            return
        self.node.worker_ended(start, death())
        if worker.address is not None:
            self.node.peer_lost(worker.address)

    def request(self, resources: Resources, placement: Placement | None = None) -> LeaseId:
        """The driver asks its node for a lease."""
        lease = LeaseId(self.world.new_id())
        wire = RequestLease(lease, self.driver, self.job, resources, placement=placement)
        self.wires[lease] = wire
        self.ask(wire, self.address)
        return lease

    def ask(self, wire: RequestLease, to: Address) -> None:
        self.open[wire.lease] = to
        self.gathering.post(self.driver, to, wire)

    def give_back(self, lease: LeaseId) -> None:
        self.gathering.post(self.driver, self.open.pop(lease), ReturnLease(lease))

    def told(self, message: Message, by: Address) -> None:
        """The driver hears of its requests."""
        if isinstance(message, LeaseRedirected) and message.lease in self.open:
            wire = self.wires[message.lease]
            again = RequestLease(wire.lease, wire.owner, wire.job, wire.resources, 0, message.hops)
            again.placement = wire.placement
            self.ask(again, message.node)
        elif isinstance(message, LeaseRefused | LeaseEnded):
            self.open.pop(message.lease, None)
            self.ends.append(message)
        elif isinstance(message, LeaseGranted) and message.lease not in self.open:
            self.gathering.post(self.driver, by, ReturnLease(message.lease))

    def conserved(self) -> None:
        """What is free, set aside and granted is what there is; no GPU is out for more than 1."""
        total: dict[str, int] = dict(self.scheduling.free)
        gpus = dict(self.scheduling.own.gpus)
        for held in self.scheduling.bundles.held.values():
            for bundle in held.values():
                for name, amount in bundle.pool.free.items():
                    total[name] = total.get(name, 0) + amount
                for number, amount in bundle.pool.gpus.items():
                    gpus[number] = gpus.get(number, 0) + amount
        for granted in self.scheduling.granted.values():
            for name, amount in granted.held().items():
                total[name] = total.get(name, 0) + amount
            for number, amount in granted.shares.items():
                gpus[number] = gpus.get(number, 0) + amount
        assert total == self.total, (total, self.total)
        assert gpus == dict.fromkeys(range(self.total.get("GPU", 0) // UNIT), UNIT)
        assert all(amount >= 0 for amount in self.scheduling.own.gpus.values())


class Gathering:
    """All of it. ``seed`` decides what is delivered when."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = 1000.0
        self.ids = count(1)
        self.names = count(1)
        self.journal = SimJournal()
        self.streams: dict[tuple[bytes, bytes], deque[tuple[Address, Address, bytes]]] = {}
        self.machines: dict[NodeId, Machine] = {}
        self.head_world = World(self, HEAD)
        self.head: Head | None = Head(self.head_world, self.journal, DEAD_AFTER)
        self.answers: list[Message] = []  # of the head, to whoever asked

    @property
    def placing(self) -> Placing:
        assert self.head is not None
        return self.head.placing

    def add_node(self, total: Resources) -> Machine:
        machine = Machine(self, f"n{next(self.names):03}", total)
        self.machines[machine.address.node] = machine
        return machine

    # -- streams

    def post(self, sender: Address, to: Address, message: Message) -> None:
        """On its way, through the wire's own codec: nothing is shared by accident."""
        ends = (bytes(sender.node), bytes(to.node))
        data = Wire.encode([message])
        self.streams.setdefault(ends, deque()).append((sender, to, data))

    def deliver(self, ends: tuple[bytes, bytes]) -> None:
        """The next message of one stream."""
        sender, to, data = self.streams[ends].popleft()
        if not self.streams[ends]:
            del self.streams[ends]
        (message,) = Wire.decode(data)
        machine = self.machines.get(to.node)
        if to.process == HEAD.process:
            if self.head is not None:
                self.head.handle(message, sender)
            elif sender.node in self.machines:  # nobody listens there
                self.machines[sender.node].node.peer_lost(HEAD)
        elif machine is None:
            return
        elif to.process == machine.address.process:
            if machine.node.attendance.away and sender.process == HEAD.process:
                return  # of a stream that has ended
            machine.node.handle(message, sender)
        elif to.process == machine.driver.process:
            machine.told(message, sender)

    def step(self) -> bool:
        """One thing that can happen, happens. False if nothing can but time."""
        ways: list[Callable[[], None]] = [
            lambda ends=ends: self.deliver(ends)  # type: ignore[misc]
            for ends in sorted(self.streams)
        ]
        ways += [
            lambda chores=machine.chores: chores.popleft()()  # type: ignore[misc]
            for _, machine in sorted(self.machines.items())
            if machine.chores
        ]
        if ways:
            self.chance.choice(ways)()
        return bool(ways)

    def advance(self, seconds: float) -> None:
        """Time passes; what falls due is called, in order."""
        end = self.clock + seconds
        while True:
            worlds = [self.head_world, *(machine.world for machine in self.machines.values())]
            due = [
                (alarm.when, number, alarm, world)
                for number, world in enumerate(worlds)
                for alarm in world.alarms
                if not alarm.cancelled and alarm.when <= end and world.alive
            ]
            if not due:
                break
            _, _, alarm, world = min(due, key=lambda item: item[:2])
            world.alarms.remove(alarm)
            self.clock = max(self.clock, alarm.when)
            alarm.action()
        self.clock = end

    def settle(self, seconds: float = 3.0) -> None:
        """Let everything that is under way come to an end."""
        for _ in range(int(seconds / 0.05)):
            while self.step():
                self.check()
            self.advance(0.05)
        while self.step():
            self.check()

    def check(self) -> None:
        for machine in self.machines.values():
            machine.conserved()
            for group, held in machine.scheduling.bundles.held.items():
                for bundle in held.values():
                    if bundle.placed:
                        self.whole(machine, group, bundle.round)

    def whole(self, machine: Machine, group: GroupId, round_: bytes) -> None:
        """A bundle can be used: so every other of its round is held, unless whoever held it has
        heard since that it is over.
        """
        info = machine.scheduling.bundles.groups[group]
        for index, place in enumerate(info.places):
            if place is None or place.round != round_ or place.node.node not in self.machines:
                continue
            other = self.machines[place.node.node].scheduling.bundles
            theirs = other.groups.get(group)
            if theirs is not None and theirs.version <= info.version:
                assert other.held[group][index].round == round_, "half of a group can be used"

    # -- faults

    def lose(self, *, of: bytes, keep: int) -> None:
        """A process has died: of what it sent, only so much still arrives; what was for it,
        nothing.
        """
        for ends in list(self.streams):
            if ends[0] == of:
                left = list(self.streams[ends])[:keep]
                self.streams[ends] = deque(left)
            if ends[1] == of or not self.streams[ends]:
                del self.streams[ends]

    def kill_node(self, machine: Machine) -> None:
        """A node and all its processes are gone; the head sees the end of its stream."""
        machine.world.alive = False
        del self.machines[machine.address.node]
        self.lose(of=bytes(machine.address.node), keep=self.chance.randrange(3))
        ends = (bytes(machine.address.node), bytes(HEAD.node))
        while ends in self.streams:
            self.deliver(ends)
        if self.head is not None:
            self.head.peer_lost(machine.address)

    def kill_head(self, torn: int = 0) -> None:
        """The head is gone; the nodes see the ends of their streams, each after what came."""
        self.journal.tear(torn)
        self.head_world.alive = False
        self.head = None
        self.lose(of=bytes(HEAD.node), keep=self.chance.randrange(3))
        for machine in list(self.machines.values()):
            ends = (bytes(HEAD.node), bytes(machine.address.node))
            while ends in self.streams:
                self.deliver(ends)
            machine.node.peer_lost(HEAD)
            self.streams.pop((bytes(machine.address.node), bytes(HEAD.node)), None)

    def start_head(self) -> None:
        """Another head, on the journal of the last."""
        self.head_world = World(self, HEAD)
        self.head = Head(self.head_world, self.journal, DEAD_AFTER)

    # -- what programs do

    def create(
        self, machine: Machine, bundles: list[Resources], strategy: str, *, detached: bool = False
    ) -> GroupId:
        group = GroupId(next(self.ids).to_bytes(8, "big"))
        made = GroupInfo(group, machine.job, bundles, strategy, detached=detached)
        self.post(machine.driver, HEAD, CreateGroup(1, made))
        return group

    def remove(self, machine: Machine, group: GroupId) -> None:
        self.post(machine.driver, HEAD, RemoveGroup(2, group))
