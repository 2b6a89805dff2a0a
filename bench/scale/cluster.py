"""A simulated cluster made to be measured: the roles and shells of ``freehold.sim``, without its
checks at every step, with a count of every message, links with a bandwidth and processes that a
message costs time.

The simulator of the tests looks for wrong orders: its links are slow on purpose, and a message
costs its receiver nothing. Here links are those of one data centre (``costs``), and a process that
handles a message does nothing else until that is over. So a process with too much to do falls
behind, as a real one would.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bench.scale import costs
from freehold.core.execution import Run
from freehold.ids import NodeId, ObjectId, ProcessId
from freehold.sim.acting import Blob
from freehold.sim.bodies import Read
from freehold.sim.checkers import Watch
from freehold.sim.cluster import Cluster
from freehold.sim.generate import Case, NodeSpec
from freehold.sim.network import Direction, Network, Style
from freehold.sim.ops import Call, Function, Get, Program, Sleep
from freehold.sim.process import Process
from freehold.sim.user import UserProcess
from freehold.sim.worker import WorkerProcess
from freehold.sim.world import SECOND, World
from freehold.wire.messages import Address, Message

#: Virtual seconds in which nodes join and their first workers start, before anything is measured.
WARM = 1.0


@dataclass(frozen=True)
class Span:
    """One execution of a task: its call, where, and from when to when (virtual seconds)."""

    path: str
    node: NodeId
    begun: float
    ended: float


class Meter(Watch):
    """Counts instead of checks. Values are still compared with what they should be."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self.counting = False
        self.sent: Counter[tuple[str, str]] = Counter()  # (kind of process, message)
        self.received: Counter[tuple[str, str]] = Counter()
        self.bytes: Counter[tuple[str, str]] = Counter()  # (kind of process, "in" or "out")
        self.begun: dict[WorkerProcess, tuple[str, float]] = {}
        self.spans: list[Span] = []

    def on_send(self, process: Process, to: Address, message: Message) -> None:
        """A message was queued."""
        if self.counting:
            self.sent[process.kind, type(message).__name__] += 1

    def on_receive(self, process: Process, peer: Address, message: Message) -> None:
        """A message is about to be handled: its receiver is busy for a while."""
        if self.counting:
            self.received[process.kind, type(message).__name__] += 1
        now = self.world.now_ns
        process.stopped_until = max(process.stopped_until, now) + costs.MESSAGE_NS[process.kind]

    def on_begin(self, worker: WorkerProcess, run: Run, call: Blob) -> int:
        """User code of a task begins."""
        self.runs[run.message.task] += 1
        self.begun[worker] = (call.path, self.world.now_ns / SECOND)
        return self.runs[run.message.task]

    def task_ended(self, worker: WorkerProcess) -> None:
        """And ends."""
        path, begun = self.begun.pop(worker)
        self.spans.append(Span(path, worker.address.node, begun, self.world.now_ns / SECOND))

    def on_worker_death(self, worker: WorkerProcess, how: str) -> None:
        """A worker process is gone, and what it ran."""
        self.begun.pop(worker, None)

    def value_read(self, process: UserProcess, here: str, object_id: ObjectId, read: Read) -> None:
        """User code has a value in hand: is it the one?"""
        driver, name = self.cluster.names[object_id]
        if read.content != self.cluster.lenient[driver].names[name].content:
            raise AssertionError(f"{process.name} read {name} at {here} and saw something else")

    def after(self, process: Process) -> None:
        """Tables are not looked at."""

    def watch_frees(self, process: UserProcess) -> None:
        """Frees are not looked at; the end of each task is."""
        if isinstance(process, WorkerProcess):
            ended = process.body_ended

            def noted(*args: Any) -> None:
                self.task_ended(process)
                ended(*args)

            process.body_ended = noted  # type: ignore[method-assign]

    def watch_losses(self, process: UserProcess) -> None:
        """Losses are not looked at."""

    def messages(self, kind: str) -> Counter[str]:
        """What processes of a kind have sent and received, by message."""
        counts: Counter[str] = Counter()
        for (who, what), count in [*self.sent.items(), *self.received.items()]:
            if who == kind:
                counts[what] += count
        return counts


class Wire(Direction):
    """One way of a connection: a frame takes its latency and its bytes' time, and is counted."""

    __slots__ = ()

    def push(self, frame: bytes, messages: list[Message], rounds: int = 1) -> None:
        """Send one frame."""
        network = self.network
        if messages and self.target is not None and isinstance(network, Links):
            network.count(self.source, self.target.process, len(frame))
            rounds += len(frame) // costs.BYTES_PER_LATENCY
        super().push(frame, messages, rounds)


class Links(Network):
    """The links of one data centre."""

    def __init__(self, world: World, meter: Meter, cluster: Cluster) -> None:
        super().__init__(world, Style("steady", 0.0))
        self.meter = meter
        self.cluster = cluster

    def base(self, a: NodeId, b: NodeId) -> int:
        """One way, without jitter: within a machine, or between two."""
        return costs.LOCAL_NS if a == b else costs.REMOTE_NS

    def count(self, source: Address, target: Process, size: int) -> None:
        """A frame is on its way."""
        if self.meter.counting:
            sender = self.cluster.processes[source.process]
            self.meter.bytes[sender.kind, "out"] += size
            self.meter.bytes[target.kind, "in"] += size

    def connect(self, process: Process, to: Address, target: Process | None) -> Any:
        """Dial, over wires that count."""
        near = super().connect(process, to, target)
        near.direction.__class__ = Wire
        if near.direction.target is not None:
            near.direction.target.direction.__class__ = Wire
        return near


class Quiet(World):
    """A world that keeps no story: nobody reads it, and it costs half of the time."""

    def note(self, who: str, what: str) -> None:
        """Nothing."""


class Measured(Cluster):
    """A cluster of ``nodes`` equal machines, with one driver for each program."""

    def __init__(
        self,
        nodes: int,
        cpus: int,
        programs: Iterable[Program],
        homes: Iterable[int],
        seed: int = 1,
    ) -> None:
        """Args: nodes: how many; cpus: of each; programs: of the drivers; homes: which node each
        driver is on.
        """
        case = Case(
            seed=seed,
            profile="calm",
            nodes=(NodeSpec(cpus, 1 << 40),) * nodes,
            programs=tuple(programs),
            homes=tuple(homes),
            faults=(),
        )
        super().__init__(case)
        self.world.__class__ = Quiet
        self.meter = self.watch = Meter(self)
        self.network = Links(self.world, self.meter, self)

    def add_driver(self, number: int, node: Any) -> None:
        """Drivers come when the cluster is up."""
        self.world.at(int(WARM * SECOND), lambda: super(Measured, self).add_driver(number, node))

    def show(self, message: Message) -> str:
        """No story."""
        return ""

    def until(self, over: Callable[[], bool], limit: float = 10_000.0) -> None:
        """Go on until something holds. Raises TimeoutError after ``limit`` virtual seconds, or when
        nothing is left to happen.
        """
        step, world = self.world.step, self.world
        while not over():
            if not step() or world.now_ns > limit * SECOND:
                raise TimeoutError(self.pending(f"at {world.now_ns / SECOND:.1f} s"))

    def warm_up(self) -> None:
        """Have all nodes join and start their workers."""
        self.world.at(int(WARM * SECOND), lambda: None)
        self.until(lambda: self.world.now_ns >= WARM * SECOND)

    def run_drivers(self, watch: Callable[[], None] = lambda: None) -> float:
        """Count from here until every program is over. Returns the virtual seconds that takes."""
        begun = self.world.now_ns
        self.meter.counting = True
        watch()
        self.until(self.mains_over)
        self.meter.counting = False
        return (self.world.now_ns - begun) / SECOND

    def node_of(self, number: int) -> Process:
        """One of the nodes, by number."""
        return list(self.nodes.values())[number]

    def process(self, address: Address) -> Process:
        """Who has this address."""
        return self.processes[ProcessId(address.process)]


def fan_out(times: Iterable[float], cpus: float = 1.0, rounds: int = 1) -> Program:
    """A driver that calls a task for each of ``times`` (seconds) and gets all results; ``rounds``
    times over. Tasks of equal length are one function, as in a program.
    """
    times = list(times)
    lengths = list(dict.fromkeys(times))
    number = {length: index + 1 for index, length in enumerate(lengths)}
    ops: list[Any] = []
    for _ in range(rounds):
        names = []
        for length in times:
            at = len(ops)
            ops.append(Call(at, f"v{at}", number[length], cpus=cpus))
            names.append(f"v{at}")
        ops.append(Get(len(ops), tuple(names)))
    bodies = [Function((Sleep(0, length),) if length else ()) for length in lengths]
    return Program((Function(tuple(ops)), *bodies))
