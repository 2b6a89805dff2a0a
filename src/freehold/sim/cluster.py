"""One run: a cluster, its drivers, and what goes wrong, until all is quiet again.

*Safety*: programs run while faults strike; every promise is checked at every step, but nobody is
asked to get anywhere. *Healing*: the last fault is over (links carry again, what was stopped goes
on, the dead stay dead); from there every program must end within its case's bound of virtual
time. *Rest*: main programs are over and have dropped what they held; within the bound again nothing
may move any more, and no table may hold anything but what tasks keep in globals; those are dropped
too, or stay, as the case says. *Leaving*: drivers go; their jobs must be gone everywhere, what was
kept with them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from freehold.core import membership
from freehold.core.submission import Function
from freehold.ids import NodeId, ObjectId, ProcessId
from freehold.sim.acting import Kind
from freehold.sim.checkers import Watch
from freehold.sim.generate import LONG, PROFILES, Case, Fault
from freehold.sim.head import HeadProcess, SimJournal, head_address
from freehold.sim.network import Network, Style
from freehold.sim.node import NodeProcess, node_address
from freehold.sim.operator import Operator
from freehold.sim.oracle import Oracle
from freehold.sim.process import Process
from freehold.sim.user import UserProcess, definition
from freehold.sim.worker import DriverProcess, WorkerProcess
from freehold.sim.world import MILLI, SECOND, Violation, World, nanoseconds
from freehold.wire.messages import Message, Provide, SealObject, StreamItem

#: Virtual time without any message after which nothing more is to come: the longest wait in the
#: core is 60 s (``core.objects.PATIENCE``).
REST: Final = 65 * SECOND
#: Faults that strike when what they wait for happens.
LURKING: Final = ("fail pull", "kill giver", "kill writer", "kill yielder", "kill host")
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
    ended_after: float = 0.0  # virtual seconds from healing to the end of the last main program
    rested_after: float = 0.0  # and from there, or from healing, until nothing moved any more
    marks: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    story: list[str] = field(default_factory=list)


class Cluster:
    """Everything that exists in one run."""

    def __init__(self, case: Case, trace: bool = False) -> None:
        self.case = case
        self.profile = PROFILES[case.profile]
        self.world = World(f"{case.seed}/{case.profile}", trace)
        self.network = Network(self.world, Style(case.style, case.tail))
        self.processes: dict[ProcessId, Process] = {}
        self.names: dict[ObjectId, tuple[int, str]] = {}
        self.actors: dict[ObjectId, Kind] = {}
        self.struck: set[str] = set()
        self.pull_failures = 0
        self.workers = 0
        self.ended_after = self.rested_after = 0
        self.functions: dict[tuple[int, int, ProcessId], Function] = {}
        programs = case.programs
        self.lenient = [
            Oracle(program, number, failures=False, most_cpus=case.most_cpus)
            for number, program in enumerate(programs)
        ]
        self.strict = [
            Oracle(program, number, failures=True, most_cpus=case.most_cpus)
            for number, program in enumerate(programs)
            if case.exact
        ]
        self.watch = Watch(self)
        self.declared: set[NodeId] = set()  # nodes that a head has declared dead
        self.head = HeadProcess(self, head_address(), SimJournal())
        self.operator = Operator(self)
        self.nodes: dict[ProcessId, NodeProcess] = {}
        for _ in case.nodes:
            self.add_node()
        self.drivers: list[DriverProcess] = []
        hosts = list(self.nodes.values())
        ids = self.world.stream("ids")
        for number, home in enumerate(case.homes[: len(programs)]):
            delay = int(MILLI + 30 * MILLI * ids.random())  # (its node is up before it)
            node = hosts[home % len(hosts)]
            self.world.after(delay, partial(self.add_driver, number, node))
        self.faults = [
            self.world.at(nanoseconds(fault.at), partial(self.strike, fault))
            for fault in case.faults
        ]

    # ------------------------------------------------------------------ processes

    def add_node(self) -> None:
        """A node starts and joins. The first are the case's machines; a later one is one of these,
        the next in turn, that begins anew after it was fenced.
        """
        number = len(self.nodes)
        spec = self.case.nodes[number % len(self.case.nodes)]
        ids = self.world.stream("ids")
        address = node_address(ids.randbytes(8), number)
        head = self.head.address
        node = NodeProcess(self, f"n{number}", address, head, spec.cpus, spec.store)
        self.nodes[address.process] = node
        node.arrange(int(MILLI * ids.random()), node.role.start, "joins")

    def restart_head(self) -> None:
        """The head is started again on its journal."""
        self.head = HeadProcess(self, self.head.address, self.head.journal)
        self.world.note("head", "starts again")

    def add_worker(self, node: NodeProcess, start: int) -> WorkerProcess:
        """A worker was forked."""
        self.workers += 1
        worker = WorkerProcess(self, f"w{self.workers}", node, start)
        self.watch.watch_frees(worker)
        self.watch.watch_losses(worker)
        self.watch.cancels.watch(worker)
        return worker

    def add_driver(self, number: int, node: NodeProcess) -> None:
        """A driver starts."""
        driver = DriverProcess(self, number, node)
        self.watch.watch_frees(driver)
        self.watch.watch_losses(driver)
        self.watch.cancels.watch(driver)
        self.drivers.append(driver)

    def users(self) -> Iterator[UserProcess]:
        """Every driver and worker, dead ones too."""
        for process in self.processes.values():
            if isinstance(process, UserProcess):
                yield process

    def live_nodes(self) -> list[NodeProcess]:
        """The nodes that are up."""
        return [node for node in self.nodes.values() if node.alive]

    def node_number(self, number: int) -> NodeProcess | None:
        """One of the case's nodes; None for a number that is none (any more: it was shrunk)."""
        nodes = list(self.nodes.values())[: len(self.case.nodes)]
        return nodes[number] if 0 <= number < len(nodes) else None

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
        if not victims and fault.kind not in LURKING:
            return
        victim: Any = victims[int(fault.pick * len(victims))] if victims else None
        self.struck.add(fault.kind)
        self.world.mark(fault.kind)
        self.world.note("----", str(fault))
        until = self.world.now_ns + self.length(fault)
        awaited = 2 * nanoseconds(membership.DEAD_AFTER) + 3 * SECOND
        self.world.at(until + awaited, lambda: None)  # before that it is not at rest
        match fault.kind:
            case "kill worker" | "kill node" | "kill driver" | "kill actor":
                victim.die("killed")
            case "kill head":
                self.kill_head(victim, fault, until)
            case "long cut":
                self.cut(victim, fault, until)
            case "stop head" | "stop worker" | "stop node" | "stop driver" | "long stop":
                victim.stopped_until = max(victim.stopped_until, until)
            case "partition":
                one, other = victim
                self.network.hold(one, other, until)
                if fault.pick * 7 % 1 < 0.7:  # the rest are cut one way only
                    self.network.hold(other, one, until)
            case "kill home":
                self.kill_home(victim, whole=fault.pick * 11 % 1 < 0.5)
            case "kill giver":
                self.watch.deadly[Provide] += 1
            case "kill writer":
                self.watch.deadly[SealObject] += 1
            case "kill yielder":
                self.watch.deadly[StreamItem] += 1
            case "kill host":
                self.watch.acts.deadly += 1
            case "cut node":
                self.cut_and_kill(victim, until, nanoseconds(fault.length / 2))
            case "slow node":
                factor = 10 if fault.pick * 3 % 1 < 0.5 else 60
                self.network.slow(victim.address.node, until, factor)
            case "drain node":
                stays = victim in self.homes() or fault.pick * 5 % 1 < 0.2
                self.operator.drain(victim, nanoseconds(fault.length) if stays else None)
            case "new node":
                self.add_node()
            case "fail start":
                victim.failing_starts = 1 + int(fault.length * 2)
            case "disk full":
                victim.disk_full_until = until
            case "disk unreadable":
                victim.disk_unreadable_until = until
            case "fail pull":
                self.pull_failures += 1

    def kill_head(self, head: HeadProcess, fault: Fault, until: int) -> None:
        """Kill the head, now and then with the end of its journal, or all of it."""
        head.die("killed")
        if fault.pick * 5 % 1 < 0.3:
            all_of_it = fault.pick * 35 % 1 < 0.4
            head.journal.tear(1 << 30 if all_of_it else 1 + int(fault.pick * 15 % 1 * 3))
            self.world.mark("torn journal")
        self.world.at(until, self.restart_head)

    def kill_home(self, victim: NodeProcess, *, whole: bool) -> None:
        """A node that drivers are connected through dies: the ``whole`` machine with them, or its
        daemon alone, and they find out."""
        for driver in self.drivers:
            if whole and driver.node is victim:
                driver.die("no power")
        victim.die("killed")

    def cut_and_kill(self, victim: NodeProcess, until: int, delay: int) -> None:
        """A node is cut off from the other nodes and dies ``delay`` ns later: the head's word of it
        comes before what it had sent."""
        for other in self.live_nodes():
            if other is not victim:
                self.network.hold(victim.address.node, other.address.node, until)
        self.world.after(delay, lambda: victim.die("killed"))

    def cut(self, victim: NodeProcess, fault: Fault, until: int) -> None:
        """Cut a node off from the head, mostly both ways, and half the time from all others."""
        hold, me, head = self.network.hold, victim.address.node, self.head.address.node
        for other in self.live_nodes() if fault.pick * 7 % 1 < 0.5 else ():
            if other is not victim:
                hold(me, other.address.node, until)
                hold(other.address.node, me, until)
        hold(me, head, until)
        if fault.pick * 11 % 1 < 0.7:
            hold(head, me, until)

    def length(self, fault: Fault) -> int:
        """How long it lasts (ns). Silence is noticed a beat or two late; a head that was stopped
        for as long must not take its own deafness for it.
        """
        patience = 1.3 * membership.DEAD_AFTER if fault.kind in (*LONG, "stop head") else 0.0
        return nanoseconds(patience + fault.length)

    def homes(self) -> set[NodeProcess]:
        """The nodes that a driver is connected through, or will be."""
        hosts = list(self.nodes.values())[: len(self.case.nodes)]
        return {hosts[home % len(hosts)] for home in self.case.homes}

    def victims(self, kind: str) -> list[Any]:
        """Whom a fault of this kind may strike."""
        nodes = self.live_nodes()
        if kind == "new node":
            return [self]
        if kind == "drain node":
            stay = [node for node in nodes if not node.role.draining.on]
            away = [node for node in stay if node not in self.homes()]
            return stay + 3 * away if len(stay) > 1 else []
        if kind.endswith("worker"):
            return [worker for worker in self.users() if worker.alive and worker.kind == "worker"]
        if kind == "kill actor":
            return [worker for worker in self.users() if worker.alive and hosts(worker)]
        if kind in ("kill node", "kill home", "cut node"):
            homes = {driver.node for driver in self.drivers if driver.alive}
            if kind == "kill home":
                return [node for node in nodes if node in homes]
            homes |= self.homes()
            return [node for node in nodes if node not in homes]
        if kind in ("kill head", "stop head"):
            return [self.head] if self.head.alive else []
        if kind == "kill driver":
            return [driver for driver in self.drivers if driver.alive and not driver.finished]
        if kind == "partition":
            places = [node.address.node for node in nodes] + [self.head.address.node]
            return [(one, other) for one in places for other in places if one != other]
        return nodes

    # ------------------------------------------------------------------ the run

    def run(self) -> None:
        """All phases. Raises Violation."""
        ends = (nanoseconds(fault.at) + self.length(fault) for fault in self.case.faults)
        healed = max(ends, default=0)
        self.step_until(self.mains_over, healed, "every get ends")
        self.ended_after = max(0, self.world.now_ns - healed)
        for fault in self.faults:
            fault.cancel()
        began = max(healed, self.world.now_ns)
        self.step_until(self.at_rest, began, "comes to rest")
        self.rested_after = max(0, self.world.active_ns - began)
        self.watch.check_kept()
        if not self.case.keeps:
            for process in self.users():
                if process.alive and process.kept:
                    process.turn(partial(process.forget, list(process.kept)), "globals are cleared")
            self.step_until(self.at_rest, self.world.now_ns, "comes to rest")
        self.watch.check_quiet()
        for driver in self.drivers:
            if driver.alive:
                driver.leave()
        self.step_until(self.at_rest, self.world.now_ns, "comes to rest")
        self.watch.check_gone()
        self.operator.check_gone()

    def mains_over(self) -> bool:
        """Whether every main program has ended."""
        return len(self.drivers) == len(self.case.programs) and all(
            driver.finished or not driver.alive for driver in self.drivers
        )

    def at_rest(self) -> bool:
        """Whether nothing is left to happen, or nothing has happened but timers and background
        messages for longer than any timer of the core waits."""
        world = self.world
        return not world.ahead or world.now_ns - world.active_ns > REST

    def step_until(self, over: Callable[[], bool], since: int, promise: str) -> None:
        """Step until ``over()``, which must be within the case's bound after ``since``."""
        deadline = since + nanoseconds(self.case.within)
        world = self.world
        world.active_ns = world.now_ns
        while not over():
            if not world.step():
                if over():
                    return
                raise Violation(promise, self.pending("nothing is left to happen"))
            if world.now_ns > deadline or world.steps > MOST_STEPS:
                seconds = (world.now_ns - since) / SECOND
                raise Violation(
                    promise, self.pending(f"{seconds:.0f} s after healing, step {world.steps}")
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


def hosts(process: UserProcess) -> bool:
    """Whether an actor lives there."""
    return isinstance(process, WorkerProcess) and process.host is not None


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
        world = cluster.world
        outcome.digest = world.digest.hexdigest()
        outcome.steps = world.steps
        outcome.seconds = world.now_ns / SECOND
        outcome.ended_after = cluster.ended_after / SECOND
        outcome.rested_after = cluster.rested_after / SECOND
        outcome.marks = dict(world.marks)
        outcome.outcomes = dict(cluster.watch.outcomes)
        outcome.story = list(world.story)
    return outcome
