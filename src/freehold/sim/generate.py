"""Random cases: cluster, knobs, programs and faults, all from one seed.

Small numbers find more bugs than large ones: few nodes, few CPUs, stores of a few objects. Per
seed a random part of the operations and faults is switched off and the rest weighted at random, so
that seeds differ in kind and not only in detail."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Final

from freehold.sim.programs import (
    Call,
    Cancel,
    Drop,
    Exit,
    Function,
    Get,
    Op,
    Program,
    Put,
    Raise,
    Sleep,
    Wait,
)

INLINE_BYTES: Final = 1000


@dataclass(frozen=True)
class NodeSpec:
    """One machine."""

    cpus: int
    store: int


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong at ``at`` seconds; ``pick`` (0 to 1) chooses whom it strikes,
    ``length`` is how long it lasts."""

    at: float
    kind: str
    pick: float
    length: float = 0.0

    def __str__(self) -> str:
        return f"{self.at:.4f} s: {self.kind} (pick {self.pick:.3f}, for {self.length:.3f} s)"


@dataclass(frozen=True)
class Case:
    """Everything about a run that can be shrunk. What is left comes from the seed's streams."""

    seed: int
    profile: str
    nodes: tuple[NodeSpec, ...]
    programs: tuple[Program, ...]
    homes: tuple[int, ...]  # which node each driver is on
    faults: tuple[Fault, ...]
    style: str = "steady"
    tail: float = 0.0
    inline_bytes: int = INLINE_BYTES
    grace: float = 10.0
    start_millis: float = 5.0
    knobs: tuple[tuple[str, float], ...] = ()

    @property
    def exact(self) -> bool:
        """Whether every result can be foretold, errors included."""
        chancy = any(program.uses(kind) for program in self.programs for kind in (Exit, Cancel))
        return self.feasible and not (self.faults or chancy or self.tight)

    @property
    def feasible(self) -> bool:
        """Whether some node is large enough for every call (shrinking may change that)."""
        most = max(node.cpus for node in self.nodes)
        return all(
            op.cpus <= most
            for program in self.programs
            for body in program.functions
            for op in body.ops
            if isinstance(op, Call)
        )

    @property
    def tight(self) -> bool:
        """Whether a store may be too small for what must be in it at once."""
        return min(node.store for node in self.nodes) < 64 * INLINE_BYTES


@dataclass(frozen=True)
class Profile:
    """What a family of seeds is about. ``faults``: kinds and the most of each; ``ops``: weights."""

    faults: dict[str, int]
    ops: dict[str, int]
    tight: float = 0.3  # share of seeds with small stores
    nodes: tuple[int, int] = (1, 3)
    drivers: tuple[int, int] = (1, 2)


OPS: Final = {
    "put": 3, "call": 12, "get": 7, "wait": 2, "drop": 4, "sleep": 2, "raise": 1, "timed get": 1,
}  # fmt: skip
NO_FAULTS: Final[dict[str, int]] = {}
PROCESS_FAULTS: Final = {"kill worker": 3, "stop worker": 1, "fail start": 1}
NODE_FAULTS: Final = {"kill node": 1, "stop node": 1, "partition": 2}
DISK_FAULTS: Final = {"disk full": 1, "disk unreadable": 1, "fail pull": 2}

PROFILES: Final = {
    "calm": Profile(NO_FAULTS, OPS, tight=0.0),
    "borrow": Profile({"stop worker": 2, "partition": 1}, {**OPS, "drop": 10, "put": 6}, 0.0),
    "pressure": Profile({**DISK_FAULTS, "stop node": 1}, {**OPS, "put": 8}, tight=1.0),
    "crash": Profile(PROCESS_FAULTS, {**OPS, "exit": 1, "sleep": 4}),
    "nodes": Profile(NODE_FAULTS, {**OPS, "sleep": 4}, nodes=(2, 4)),
    "cancel": Profile({"stop worker": 1}, {**OPS, "cancel": 5, "sleep": 5}, tight=0.1),
    "drivers": Profile({"kill driver": 1, "partition": 1}, OPS, nodes=(1, 3), drivers=(2, 3)),
    "storm": Profile(
        {**PROCESS_FAULTS, **NODE_FAULTS, **DISK_FAULTS, "kill driver": 1},
        {**OPS, "cancel": 1, "exit": 1, "sleep": 4},
        nodes=(1, 4),
    ),
}
NAMES: Final = tuple(PROFILES)


def make_case(seed: int, profile: str = "") -> Case:
    """The case of a seed; without a profile the seed chooses one."""
    profile = profile or NAMES[seed % len(NAMES)]
    kind = PROFILES[profile]
    shape = stream(seed, profile, "topology")
    tight = shape.random() < kind.tight
    nodes = tuple(
        NodeSpec(
            shape.choice((1, 1, 2, 2, 3, 4)),
            shape.randint(4, 16) * INLINE_BYTES * 2 if tight else 1 << 22,
        )
        for _ in range(shape.randint(*kind.nodes))
    )
    drivers = shape.randint(*kind.drivers)
    knobs = stream(seed, profile, "knobs")
    case = Case(
        seed=seed,
        profile=profile,
        nodes=nodes,
        programs=tuple(
            Programs(stream(seed, profile, f"program {number}"), kind, nodes).program()
            for number in range(drivers)
        ),
        homes=tuple(shape.randrange(len(nodes)) for _ in range(drivers)),
        faults=make_faults(stream(seed, profile, "faults"), kind),
        style=knobs.choice(("steady", "tailed", "tailed", "wild")),
        tail=knobs.choice((0.003, 0.03, 0.1)),
        grace=knobs.choice((1.0, 10.0)),
        start_millis=knobs.choice((2.0, 5.0, 50.0)),
    )
    return replace(case, knobs=make_knobs(knobs))


def stream(seed: int, profile: str, name: str) -> Random:
    """A stream of chance for making a case."""
    return Random(f"{seed}:{profile}:{name}")


def make_knobs(chance: Random) -> tuple[tuple[str, float], ...]:
    """Constants of the core, changed for this run."""
    choices: dict[str, tuple[float, ...]] = {
        "leasing.HOLD": (0.2, 0.2, 0.01, 0.0),
        "leasing.REQUESTS": (16, 2, 1),
        "leasing.REPORT_PATIENCE": (2.0, 0.2),
        "scheduling.MAX_HOPS": (8, 2, 1),
        "scheduling.PATIENCE": (5.0, 0.2),
        "workers.IDLE_SECONDS": (10.0, 0.3, 0.05),
        "objects.FUSE_BYTES": (100 << 20, 6000, 1),
        "objects.SPILL_ABOVE": (0.8, 0.5, 1.0),
        "objects.PATIENCE": (5.0, 0.5),
        "node.REPORT_SECONDS": (0.1, 0.02, 1.0),
    }
    return tuple((name, chance.choice(values)) for name, values in choices.items())


def make_faults(chance: Random, profile: Profile) -> tuple[Fault, ...]:
    """What goes wrong, and when: most programs run for 10 ms to 2 s."""
    faults = []
    for kind, most in profile.faults.items():
        if chance.random() < 0.3:
            continue  # this kind is off
        for _ in range(chance.randint(0, most)):
            at = 0.01 * 10 ** chance.uniform(0.0, 2.3)
            length = 0.01 * 10 ** chance.uniform(0.0, 2.5)
            faults.append(Fault(round(at, 5), kind, chance.random(), round(length, 4)))
    return tuple(sorted(faults, key=lambda fault: fault.at))


class Programs:
    """Makes one program."""

    def __init__(self, chance: Random, profile: Profile, nodes: tuple[NodeSpec, ...]) -> None:
        self.chance = chance
        self.most_cpus = max(node.cpus for node in nodes)
        self.weights = {
            name: weight * chance.choice((0.3, 1, 1, 3))
            for name, weight in profile.ops.items()
            if name in ("call", "get") or chance.random() > 0.2
        }
        self.large = chance.choice((0.0, 0.2, 0.5))  # share of values that go to the store
        self.length = chance.choice(((2, 8), (8, 30), (20, 60)))
        self.places = 0

    def program(self) -> Program:
        """Functions from the last to the first; ``cost`` counts the tasks that one call starts."""
        count = self.chance.randint(1, 5)
        functions: list[Function] = []
        costs: list[int] = []
        for number in range(count, -1, -1):
            budget = 80 if number == 0 else 8
            body, cost = self.body(number, count, functions, costs, budget)
            functions.insert(0, body)
            costs.insert(0, cost)
        return Program(tuple(functions))

    def size(self) -> int:
        """Bytes of a value."""
        if self.chance.random() < self.large:
            return self.chance.choice((1001, 2000, 3000, 5000, 8000))
        return 10

    def body(
        self, number: int, count: int, later: list[Function], costs: list[int], budget: int
    ) -> tuple[Function, int]:
        """One body. Names: a refs that came inside arguments, n nested refs, v our own."""
        chance = self.chance
        main = number == 0
        length = chance.randint(*self.length) if main else chance.randint(0, 8)
        names = [] if main else ["n0", "n1", "a0.0"]
        ops: list[Op] = []
        cost = 1
        for _ in range(length):
            kind = chance.choices(list(self.weights), list(self.weights.values()))[0]
            self.places += 1
            at = self.places
            if kind == "call" and number < count:
                target = chance.randint(number + 1, count)
                price = costs[target - number - 1]
                if cost + price <= budget:
                    cost += price
                    ops.append(self.call(at, target, names))
            elif (kind in ("raise", "exit") and not main) or kind not in ("raise", "exit", "call"):
                op = self.simple(kind, at, names)
                if op is not None:
                    ops.append(op)
        returns = tuple(self.some(names, 2)) if not main and chance.random() < 0.5 else ()
        if main and names and chance.random() < 0.8:
            self.places += 1
            ops.append(Get(self.places, tuple(self.some(names, 4))))
        return Function(tuple(ops), returns), cost

    def some(self, names: list[str], most: int) -> list[str]:
        """A few of the names, each once."""
        count = min(len(names), self.chance.randint(0, most))
        return self.chance.sample(names, count)

    def call(self, at: int, target: int, names: list[str]) -> Call:
        """A call of function ``target``."""
        chance = self.chance
        returns = chance.choice((1, 1, 1, 2, 3))
        cpus = chance.choice((1, 1, 1, 1, 2, 0.5, 0))
        op = Call(
            at,
            f"v{at}",
            target,
            tuple(self.some(names, 3)),
            tuple(self.some(names, 2)),
            tuple(self.size() for _ in range(returns)),
            min(cpus, self.most_cpus),
            chance.choice((0, 1, 3, 3, 4)),
            chance.random() < 0.3,
        )
        names += [f"v{at}" + (f"_{index}" if index else "") for index in range(returns)]
        return op

    def simple(self, kind: str, at: int, names: list[str]) -> Op | None:
        """Any other operation; None if there is nothing to do it to."""
        chance = self.chance
        if kind == "put":
            op = Put(at, f"v{at}", self.size(), tuple(self.some(names, 2)))
            names.append(op.var)
            return op
        if kind == "sleep":
            return Sleep(at, chance.choice((0.0001, 0.001, 0.004, 0.01, 0.05, 0.3)))
        if kind == "raise":
            return Raise(at, chance.choice((1, 1, 2, 9)))
        if kind == "exit":
            return Exit(at, chance.choice((1, 1, 2, 9)))
        if not names:
            return None
        few = tuple(self.some(names, 4)) or (chance.choice(names),)
        if kind == "get":
            for name in few:
                names += [new for new in (f"{name}.0", f"{name}.1") if new not in names]
            return Get(at, few, None, chance.random() < 0.4)
        if kind == "timed get":
            return Get(at, few, chance.choice((0.0, 0.0005, 0.01, 0.2)))
        if kind == "wait":
            timeout = chance.choice((None, 0.0, 0.001, 0.05))
            return Wait(at, few, chance.randint(1, len(few)), timeout, chance.random() < 0.5)
        name = chance.choice(names)
        if kind == "cancel":
            return Cancel(at, name, chance.random() < 0.3, chance.random() < 0.5)
        names.remove(name)
        return Drop(at, name)
