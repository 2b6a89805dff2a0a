"""One run: a cluster, its drivers, and what goes wrong, until all is quiet again.

Phase 1: programs run while faults strike; every promise is checked at every step. Phase 2: main
programs are over and have dropped what they held; what had still to strike does not; when nothing
moves any more, no table may hold anything. Phase 3: drivers leave; their jobs must be gone
everywhere."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from freehold.core.submission import Function
from freehold.ids import ObjectId, ProcessId
from freehold.sim.checkers import Watch
from freehold.sim.generate import Case, Fault
from freehold.sim.network import Network, Style
from freehold.sim.node import NodeProcess, node_address
from freehold.sim.oracle import Oracle
from freehold.sim.process import HeadProcess, Process, head_address
from freehold.sim.user import UserProcess, definition
from freehold.sim.worker import DriverProcess, WorkerProcess
from freehold.sim.world import MILLI, SECOND, Violation, World, nanoseconds
from freehold.wire.messages import Message

#: Virtual time after the last fault within which everything must end; the core waits at most 60 s.
HORIZON: Final = 400 * SECOND
#: Steps after which a run is taken to go in circles.
MOST_STEPS: Final = 150_000


@dataclass
class Outcome:
    """How a run ended. ``promise`` is empty if every promise held."""

    case: Case
    promise: str = ""
    detail: str = ""
    digest: str = ""
    steps: int = 0
    seconds: float = 0.0
    known: str = ""
    marks: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    story: list[str] = field(default_factory=list)


class Cluster:
    """Everything that exists in one run."""

    def __init__(self, case: Case, trace: bool = False) -> None:
        self.case = case
        self.world = World(f"{case.seed}/{case.profile}", trace)
        self.network = Network(self.world, Style(case.style, case.tail))
        self.processes: dict[ProcessId, Process] = {}
        self.names: dict[ObjectId, tuple[int, str]] = {}
        self.struck: set[str] = set()
        self.pull_failures = 0
        self.workers = 0
        self.limit = ""  # a known one that this run has met: docs/simulator.md, "Not promised yet"
        self.functions: dict[tuple[int, int, ProcessId], Function] = {}
        programs = case.programs
        self.lenient = [Oracle(p, n, failures=False) for n, p in enumerate(programs)]
        self.strict = (
            [Oracle(p, n, failures=True) for n, p in enumerate(programs)] if case.exact else []
        )
        self.watch = Watch(self)
        head = head_address()
        self.head = HeadProcess(self, head)
        ids = self.world.stream("ids")
        self.nodes: dict[ProcessId, NodeProcess] = {}
        for number, spec in enumerate(case.nodes):
            address = node_address(ids.randbytes(8), number)
            node = NodeProcess(self, f"n{number}", address, head, spec.cpus, spec.store)
            self.nodes[address.process] = node
            node.arrange(int(MILLI * ids.random()), node.role.start, "joins")
        self.drivers: list[DriverProcess] = []
        hosts = list(self.nodes.values())
        for number, home in enumerate(case.homes[: len(programs)]):
            delay = int(MILLI + 30 * MILLI * ids.random())  # (its node is up before it)
            node = hosts[home % len(hosts)]
            self.world.after(delay, partial(self.add_driver, number, node))
        self.faults = [
            self.world.at(nanoseconds(fault.at), partial(self.strike, fault))
            for fault in case.faults
        ]

    # ------------------------------------------------------------------ processes

    def add_worker(self, node: NodeProcess, start: int) -> WorkerProcess:
        """A worker was forked."""
        self.workers += 1
        worker = WorkerProcess(self, f"w{self.workers}", node, start)
        self.watch.watch_frees(worker)
        return worker

    def add_driver(self, number: int, node: NodeProcess) -> None:
        """A driver starts."""
        driver = DriverProcess(self, number, node)
        self.watch.watch_frees(driver)
        self.drivers.append(driver)

    def users(self) -> Iterator[UserProcess]:
        """Every driver and worker, dead ones too."""
        for process in self.processes.values():
            if isinstance(process, UserProcess):
                yield process

    def live_nodes(self) -> list[NodeProcess]:
        """The nodes that are up."""
        return [node for node in self.nodes.values() if node.alive]

    def function(self, driver: int, number: int, process: Process) -> Function:
        """A function as this process knows it: one object per process, for its measurements."""
        key = (driver, number, process.address.process)
        if key not in self.functions:
            self.functions[key] = definition(driver, number)
        return self.functions[key]

    def named(self, object_id: ObjectId, driver: int, name: str) -> None:
        """User code has made an object."""
        known = self.names.setdefault(object_id, (driver, name))
        if known != (driver, name):
            raise Violation("ids", f"{object_id.hex()} is {known} and {(driver, name)}")

    # ------------------------------------------------------------------ for people

    def name_of(self, process: ProcessId) -> str:
        """What the story calls a process."""
        known = self.processes.get(process)
        return known.name if known is not None else process.hex()[:4]

    def name_object(self, object_id: ObjectId) -> str:
        """What the story calls an object."""
        return self.names.get(object_id, (0, object_id.hex()[:8]))[1]

    def show(self, message: Message) -> str:
        """A message in the story: its type and what it is about."""
        about = []
        for attribute in ("object", "task", "lease"):
            value = getattr(message, attribute, None)
            if value is not None and attribute == "object":
                about.append(self.name_object(value))
            elif value is not None and attribute == "task":
                about.append(self.name_object(value + bytes(4)).partition("#")[0])
            elif value is not None:
                about.append(value.hex()[:4])
        attempt = getattr(message, "attempt", 0)
        if attempt:
            about.append(f"attempt {attempt}")
        return f"{type(message).__name__}({', '.join(about)})"

    def crashed_in_handler(self, process: Process, what: str, error: Exception) -> None:
        """An exception came out of a role: the real transport would log it and go on."""
        raise Violation(
            "no exception", f"{process.name}, {what}: {type(error).__name__}: {error}"
        ) from error

    # ------------------------------------------------------------------ faults

    def strike(self, fault: Fault) -> None:
        """Make something go wrong, if there is something that it can strike."""
        victims = self.victims(fault.kind)
        if not victims and fault.kind != "fail pull":
            return
        victim: Any = victims[int(fault.pick * len(victims))] if victims else None
        self.struck.add(fault.kind)
        self.world.mark(fault.kind)
        self.world.note("----", str(fault))
        until = self.world.now_ns + nanoseconds(fault.length)
        match fault.kind:
            case "kill worker" | "kill node" | "kill driver":
                victim.die("killed")
            case "stop worker" | "stop node" | "stop driver":
                victim.stopped_until = max(victim.stopped_until, until)
            case "partition":
                one, other = victim
                self.network.hold(one, other, until)
                if fault.pick * 7 % 1 < 0.7:  # the rest are cut one way only
                    self.network.hold(other, one, until)
            case "fail start":
                victim.failing_starts = 1 + int(fault.length * 2)
            case "disk full":
                victim.disk_full_until = until
            case "disk unreadable":
                victim.disk_unreadable_until = until
            case "fail pull":
                self.pull_failures += 1

    def victims(self, kind: str) -> list[Any]:
        """Whom a fault of this kind may strike."""
        nodes = self.live_nodes()
        if kind.endswith("worker"):
            return [worker for worker in self.users() if worker.alive and worker.kind == "worker"]
        if kind == "kill node":  # (a driver without its node is not promised anything yet)
            homes = {driver.node for driver in self.drivers if driver.alive}
            homes |= {list(self.nodes.values())[home % len(self.nodes)] for home in self.case.homes}
            return [node for node in nodes if node not in homes]
        if kind == "kill driver":
            return [driver for driver in self.drivers if driver.alive and not driver.finished]
        if kind == "partition":
            places = [node.address.node for node in nodes] + [self.head.address.node]
            return [(one, other) for one in places for other in places if one != other]
        return nodes

    # ------------------------------------------------------------------ the run

    def run(self) -> None:
        """All phases. Raises Violation."""
        self.run_until(self.mains_over, HORIZON)
        for fault in self.faults:
            fault.cancel()
        self.run_until(lambda: False, HORIZON)
        self.watch.check_quiet()
        for driver in self.drivers:
            if driver.alive:
                driver.leave()
        self.run_until(lambda: False, HORIZON)
        self.watch.check_gone()

    def mains_over(self) -> bool:
        """Whether every main program has ended."""
        return len(self.drivers) == len(self.case.programs) and all(
            driver.finished or not driver.alive for driver in self.drivers
        )

    def run_until(self, over: Any, patience: int) -> None:
        """Step until ``over()`` or until nothing is left to happen."""
        last = max((nanoseconds(fault.at + fault.length) for fault in self.case.faults), default=0)
        deadline = max(self.world.now_ns, last) + patience
        world = self.world
        while not over():
            if not world.step():
                if over is self.mains_over or over == self.mains_over:
                    raise Violation("every get ends", self.pending("nothing is left to happen"))
                return
            if world.now_ns > deadline or world.steps > MOST_STEPS:
                raise Violation(
                    "every get ends" if over == self.mains_over else "comes to rest",
                    self.pending(f"after {world.now_ns / SECOND:.0f} s, {world.steps} steps"),
                )

    def pending(self, why: str) -> str:
        """What has not ended, and what it waits for."""
        lines = [why]
        for driver in self.drivers:
            if driver.alive and not driver.finished:
                lines.append(driver.pending())
        for process in self.users():
            thread = process.thread
            if process.alive and process.kind == "worker" and thread is not None:
                lines.append(f"{process.name} runs {thread.asking[:2]}")
        for node in self.live_nodes():
            for queued in node.role.scheduling.queue:
                owner = self.name_of(queued.wire.owner.process)
                lines.append(
                    f"{node.name} queues {queued.wire.label} for {owner}: "
                    f"{node.role.scheduling.why(queued.wire)}"
                )
        return "\n".join(lines)


@contextmanager
def knobs(case: Case) -> Iterator[None]:
    """The core's constants as this case wants them."""
    before: list[tuple[Any, str, Any]] = []
    try:
        for name, value in case.knobs:
            module_name, attribute = name.split(".")
            package = "roles" if module_name == "node" else "core"
            module = importlib.import_module(f"freehold.{package}.{module_name}")
            before.append((module, attribute, getattr(module, attribute)))
            setattr(module, attribute, value)
        yield
    finally:
        for module, attribute, value in before:
            setattr(module, attribute, value)


def run_case(case: Case, trace: bool = False) -> Outcome:
    """Run one case."""
    outcome = Outcome(case)
    with knobs(case):
        cluster = Cluster(case, trace)
        try:
            cluster.run()
        except Violation as violation:
            outcome.promise = violation.promise
            outcome.detail = violation.detail
            outcome.known = cluster.limit
        world = cluster.world
        outcome.digest = world.digest.hexdigest()
        outcome.steps = world.steps
        outcome.seconds = world.now_ns / SECOND
        outcome.marks = dict(world.marks)
        outcome.outcomes = dict(cluster.watch.outcomes)
        outcome.story = list(world.story)
    return outcome
