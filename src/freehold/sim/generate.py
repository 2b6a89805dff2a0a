"""Random cases: cluster, knobs, programs and faults, all from one seed.

Small numbers find more bugs than large ones: few nodes, few CPUs, stores of a few objects. Per
seed a random part of the operations and faults is switched off and the rest weighted at random, and
its programs are of one of several families (``compose``), so that seeds differ in kind and not only
in detail."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Final

from freehold.sim.compose import (
    ACTING,
    FAMILIES,
    FLOWING,
    INLINE_BYTES,
    PARCELLING,
    PLAIN,
    Programs,
)
from freehold.sim.ops import Cancel, Enroll, Exit, Group, Kill, Program, Quit

#: Operations after which it is chance what others come to.
CHANCY: Final = (Exit, Cancel, Kill, Quit, Group, Enroll)


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
    hasty: bool = False  # drivers leave when their main programs end, whatever still runs
    keeps: bool = False  # what tasks keep in globals stays there until its job ends
    knobs: tuple[tuple[str, float], ...] = ()

    @property
    def exact(self) -> bool:
        """Whether every result can be foretold, errors included."""
        chancy = any(program.uses(kind) for program in self.programs for kind in CHANCY)
        return not (self.faults or chancy or self.tight or self.hasty)

    @property
    def most_cpus(self) -> int:
        """The CPUs of the largest node: what needs more is refused after the grace time."""
        return max(node.cpus for node in self.nodes)

    @property
    def tight(self) -> bool:
        """Whether a store may be too small for what must be in it at once."""
        return min(node.store for node in self.nodes) < 64 * INLINE_BYTES

    @property
    def within(self) -> float:
        """Virtual seconds from the last fault in which all programs must end, and the cluster from
        there come to rest."""
        bound = PROFILES[self.profile].within
        return max(bound, LONG_WITHIN) if self.tight else bound


#: Virtual seconds that programs may take from the last fault to their ends, and the cluster from
#: there to rest, unless a profile says otherwise. The longest seen in 20,000 seeds was 62 s; a run
#: of which a timer never comes to an end is taken for at rest after 65 s (``cluster.REST``).
WITHIN: Final = 150.0
#: The same where much time may pass in good order. In a full store every value waits 5 s for room
#: before its task fails (60 s outside of here), and a task of four retries that waits for another
#: of four does so 25 times: pressure 1704361344 takes 250 s, seven tasks running all the while.
LONG_WITHIN: Final = 1500.0


@dataclass(frozen=True)
class Profile:
    """What seeds of this name are about. ``faults``: kinds and the most of each; ``ops``: weights;
    ``within``: virtual seconds after the last fault in which all programs must end, and in which
    all must then come to rest."""

    faults: dict[str, int]
    ops: dict[str, int]
    tight: float = 0.3  # share of seeds with small stores
    nodes: tuple[int, int] = (1, 3)
    drivers: tuple[int, int] = (1, 2)
    within: float = WITHIN
    families: tuple[str, ...] = tuple(PLAIN)  # of its programs
    relays: bool = False  # large objects are passed on by nodes that get them just now
    timely: bool = False  # nothing holds messages up: what is cancelled must end in time
    environments: bool = False  # functions have runtime environments


OPS: Final = {
    "put": 3, "call": 12, "get": 7, "wait": 2, "drop": 4, "sleep": 2, "raise": 1, "timed get": 1,
}  # fmt: skip
NO_FAULTS: Final[dict[str, int]] = {}
PROCESS_FAULTS: Final = {"kill worker": 3, "kill writer": 1, "stop worker": 1, "fail start": 1}
NODE_FAULTS: Final = {"kill node": 1, "stop node": 1, "partition": 2, "slow node": 1}
#: These last longer than the head's patience: the node is declared dead while it lives.
LONG: Final = ("long stop", "long cut")
HEAD_FAULTS: Final = {"kill head": 2, "stop head": 1, "long stop": 1, "long cut": 1}
DISK_FAULTS: Final = {"disk full": 1, "disk unreadable": 1, "fail pull": 2}

PROFILES: Final = {
    "calm": Profile(NO_FAULTS, OPS, tight=0.0),
    "borrow": Profile(
        {"stop worker": 2, "partition": 1, "slow node": 1}, {**OPS, "drop": 10, "put": 6}, 0.0
    ),
    "pressure": Profile({**DISK_FAULTS, "stop node": 1}, {**OPS, "put": 8}, tight=1.0),
    "crash": Profile(PROCESS_FAULTS, {**OPS, "exit": 1, "sleep": 4}),
    "nodes": Profile(
        {**NODE_FAULTS, "drain node": 1, "cut node": 2}, {**OPS, "sleep": 4}, nodes=(2, 4)
    ),
    "drains": Profile(
        {"slow node": 1, "partition": 3, "stop node": 1, "stop worker": 3, "drain node": 4},
        {**OPS, "sleep": 4, "put": 6},
        tight=0.5,
        nodes=(2, 4),
    ),
    "cancel": Profile({"stop worker": 1}, {**OPS, "cancel": 5, "sleep": 5}, tight=0.1),
    "drivers": Profile({"kill driver": 1, "partition": 1}, OPS, nodes=(1, 3), drivers=(2, 3)),
    "homes": Profile({"kill home": 1, "slow node": 1}, OPS, nodes=(2, 4), drivers=(2, 3)),
    "handoff": Profile(
        {"kill giver": 3, "kill worker": 6, "stop worker": 1, "stop node": 2, "slow node": 1},
        {**OPS, "call": 20, "put": 6},
        tight=0.1,
        families=("nest", "hoard"),
    ),
    "head": Profile(
        {"kill head": 3, "stop head": 1, "kill worker": 1, "kill node": 1, "kill driver": 1},
        {**OPS, "sleep": 8},
        nodes=(1, 4),
        drivers=(1, 3),
    ),
    "fence": Profile(
        {**HEAD_FAULTS, "stop node": 1, "partition": 1},
        {**OPS, "sleep": 8},
        nodes=(2, 4),
        drivers=(1, 3),
    ),
    "actors": Profile(NO_FAULTS, OPS, tight=0.1, families=tuple(ACTING)),
    "lives": Profile(
        {"kill actor": 3, "kill host": 2, "kill worker": 1, "stop worker": 1, "fail start": 1},
        {**OPS, "exit": 1, "kill": 1, "quit": 1, "cancel": 1},
        tight=0.1,
        families=tuple(ACTING),
    ),
    "tours": Profile(
        {**NODE_FAULTS, "kill actor": 2, "drain node": 1, "kill driver": 1, **HEAD_FAULTS},
        {**OPS, "sleep": 6},
        nodes=(2, 4),
        drivers=(1, 3),
        families=tuple(ACTING),
    ),
    "places": Profile(
        {**PROCESS_FAULTS, "kill driver": 1, "kill node": 1, "partition": 1, "drain node": 1},
        {**OPS, "cancel": 1, "sleep": 4},
        tight=0.1,
        nodes=(1, 3),
        drivers=(1, 3),
        environments=True,
    ),
    "streams": Profile(NO_FAULTS, OPS, tight=0.3, families=tuple(FLOWING)),
    "torrents": Profile(
        {
            "kill yielder": 3,
            **PROCESS_FAULTS,
            **NODE_FAULTS,
            "kill driver": 1,
            "drain node": 1,
        },
        {**OPS, "exit": 1, "sleep": 4},
        tight=0.3,
        nodes=(1, 3),
        families=tuple(FLOWING),
    ),
    "parcels": Profile(
        {
            "new node": 3,
            "drain node": 1,
            "kill driver": 1,
            "kill worker": 1,
            **NODE_FAULTS,
            **HEAD_FAULTS,
        },
        {**OPS, "sleep": 6},
        tight=0.1,
        nodes=(2, 4),
        drivers=(1, 3),
        within=LONG_WITHIN,
        families=tuple(PARCELLING),
    ),
    "graces": Profile(
        {"stop worker": 2, "kill worker": 1, "fail start": 1},
        OPS,
        tight=0.1,
        within=LONG_WITHIN,  # (a task may toil for 12 s, and a program call dozens of them)
        families=("reaper",),
        timely=True,
    ),
    "guilds": Profile(
        {"kill actor": 2, "kill driver": 1, "kill head": 2, "stop head": 1, **NODE_FAULTS},
        {**OPS, "sleep": 6},
        tight=0.0,
        nodes=(1, 3),
        drivers=(2, 3),
        families=("guild",),
    ),
    "relays": Profile(
        {**NODE_FAULTS, "kill node": 2, "cut node": 1, "fail pull": 4, "drain node": 1},
        {**OPS, "sleep": 4},
        tight=0.2,
        nodes=(4, 7),
        families=("cast",),
        relays=True,
    ),
    "storm": Profile(
        {
            **PROCESS_FAULTS,
            **NODE_FAULTS,
            **DISK_FAULTS,
            **HEAD_FAULTS,
            "kill driver": 1,
            "kill home": 1,
            "drain node": 1,
        },
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
    habits = stream(seed, profile, "habits")
    families = [
        habits.choices(kind.families, [FAMILIES[name].weight for name in kind.families])[0]
        for _ in range(drivers)
    ]
    case = Case(
        seed=seed,
        profile=profile,
        nodes=nodes,
        programs=tuple(
            Programs(
                stream(seed, profile, f"program {number}"),
                FAMILIES[family],
                kind.ops,
                max(node.cpus for node in nodes),
            ).program()
            for number, family in enumerate(families)
        ),
        homes=tuple(shape.randrange(len(nodes)) for _ in range(drivers)),
        faults=make_faults(stream(seed, profile, "faults"), kind),
        style=knobs.choice(("steady", "tailed", "tailed", "wild")),
        tail=knobs.choice((0.003, 0.03, 0.1)),
        grace=knobs.choice((1.0, 10.0)),
        start_millis=knobs.choice((2.0, 5.0, 50.0)),
        hasty=habits.random() < 0.1,
        keeps=habits.random() < 0.3,
    )
    return replace(case, knobs=make_knobs(knobs) + further_knobs(knobs, kind))


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
        "spilling.FUSE_BYTES": (100 << 20, 6000, 1),
        "spilling.SPILL_ABOVE": (0.8, 0.5, 1.0),
        "spilling.PATIENCE": (5.0, 0.5),
        "news.REPORT_SECONDS": (0.1, 0.02, 1.0),
        "membership.DEAD_AFTER": (10.0, 5.0),
        "admission.PATIENCE": (5.0, 0.5),
        "admission.BEND": (5.0, 0.1),
        "admission.ARGUMENT_SHARE": (0.7, 0.3),
    }
    return tuple((name, chance.choice(values)) for name, values in choices.items())


def further_knobs(chance: Random, profile: Profile) -> tuple[tuple[str, float], ...]:
    """Constants that matter to some profiles only: the others' seeds keep their cases."""
    if "brook" in profile.families:
        most = chance.choice((64 << 20, 64 << 20, 4000))
        window = chance.choice((1000, 4, 1))
        return (
            ("streams.WINDOW", window),
            ("streams.STREAM_BYTES", most),
            ("yielding.STREAM_BYTES", most),
        )
    if profile.relays:
        fanout = chance.choice((1, 1, 2))
        return ("relaying.RELAY_BYTES", 1000), ("relaying.FANOUT", fanout)
    return ()


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
