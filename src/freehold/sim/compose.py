"""Random programs.

What a program does is chosen operation by operation, with the weights of its profile; what it is
*about* comes from its family: a seed of the family ``nest`` is full of references inside values
inside references, one of ``chain`` makes each stored value from the one before, and so on. The
family ``mixed`` is a little of everything.

Families with ``actors`` divide their functions: some are the constructors and methods of actors,
the rest are tasks. What runs in an actor waits without end only for what cannot come to wait for
this actor in its turn (``safe``): else programs would deadlock, and rightly so.

Names inside a body: ``a0.1`` is the reference that came inside argument 0 in place 1, ``n0`` a
nested one, ``v7`` what operation 7 made, ``v7.0`` the first reference inside its value."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from freehold.sim.ops import (
    Call,
    Cancel,
    Close,
    Drop,
    Enroll,
    Exit,
    Forget,
    Function,
    Get,
    Group,
    Invoke,
    Keep,
    Kill,
    Make,
    Op,
    Peek,
    Program,
    Put,
    Quit,
    Raise,
    Ready,
    Remove,
    Sleep,
    Stream,
    Take,
    Wait,
    Yield,
    made,
)
from freehold.wire.placement import PACK, SPREAD, STRICT_PACK, STRICT_SPREAD

#: Values up to this size ride in messages; the real figure, 100 KiB, would only cost time here.
INLINE_BYTES: Final = 1000
SLOTS: Final = 3  # globals that tasks may keep references in


@dataclass(frozen=True)
class Family:
    """What programs of one kind are about.

    ``weight``: how many seeds have it; ``ops``: weights beside the profile's; ``recent``: the share
    of choices that fall on one of the last three names, which makes things deep instead of broad;
    ``returns``: the share of functions that return references; ``descend``: how many levels of
    references inside references a caller follows at once; ``large``: shares of values that go to
    the store, one of which is chosen; ``wide``: one call with up to so many arguments ends main;
    ``greedy``: the share of calls that no node is large enough for; ``gets``: whether main waits
    for anything; ``actors``, ``streams``, ``groups``: whether there are any; ``toils``: whether
    tasks may take long."""

    weight: int
    ops: dict[str, float] = field(default_factory=dict)
    recent: float = 0.0
    returns: float = 0.5
    descend: int = 0
    large: tuple[float, ...] = (0.0, 0.2, 0.5)
    wide: int = 0
    greedy: float = 0.0
    gets: bool = True
    actors: bool = False
    streams: bool = False
    groups: bool = False
    toils: bool = False


PLAIN: Final = {
    "mixed": Family(8),
    "nest": Family(3, {"put": 8, "get": 10, "descend": 6}, recent=0.6, returns=0.9, descend=3),
    "chain": Family(2, {"call": 16}, recent=0.9, returns=0.2, large=(0.7, 0.95)),
    "wide": Family(2, {"call": 20, "put": 6}, wide=24),
    "hoard": Family(3, {"keep": 8, "peek": 5, "forget": 2, "descend": 2}, returns=0.7, descend=2),
    "hasty": Family(1, {"drop": 8}, gets=False),
    "greedy": Family(1, greedy=0.15),
}
_ACTS: Final[dict[str, float]] = {"make": 3, "invoke": 14, "call": 6}
ACTING: Final = {
    "stage": Family(4, _ACTS, actors=True),
    "troupe": Family(
        3, {**_ACTS, "put": 6, "descend": 4}, recent=0.5, returns=0.9, descend=2, actors=True
    ),
    "props": Family(
        3, {**_ACTS, "keep": 6, "peek": 3, "forget": 2, "drop": 8}, greedy=0.05, actors=True
    ),
}
_FLOWS: Final[dict[str, float]] = {"stream": 6, "take": 10, "close": 1, "yield": 9}
FLOWING: Final = {
    "brook": Family(4, {**_FLOWS, "descend": 3}, descend=3, streams=True),
    "sluice": Family(
        2, {**_FLOWS, "take": 6, "close": 3, "drop": 6}, large=(0.5, 0.9), descend=3, streams=True
    ),
}
_PARCELS: Final[dict[str, float]] = {"group": 4, "ready": 3, "remove": 2, "call": 14, "toil": 1}
PARCELLING: Final = {
    "estate": Family(4, {**_PARCELS, "descend": 2}, descend=3, groups=True),
    "village": Family(
        3, {**_PARCELS, "group": 10, "sleep": 6, "descend": 2}, descend=3, gets=False, groups=True
    ),
}
FAMILIES: Final = {
    **PLAIN,
    **ACTING,
    **FLOWING,
    **PARCELLING,
    "cast": Family(
        1, {"broadcast": 8, "call": 6, "descend": 2}, recent=0.8, large=(0.7, 0.95), descend=3
    ),
    "guild": Family(1, {"enroll": 14, "descend": 2}, descend=3),
    "reaper": Family(1, {"end": 10, "toil": 20, "call": 14, "descend": 3}, descend=3, toils=True),
}
#: Operations that no seed of a family that has them is without.
NEEDED: Final = ("call", "get", "make", "invoke", "stream", "take", "yield", "group")


@dataclass
class Body:
    """A body that is being written. ``safe``: names of which a method may wait; ``pure``: whether
    it has nothing to do with actors; ``actors``: names that stand for actors, or may."""

    number: int
    names: list[str]
    method: bool
    ops: list[Op] = field(default_factory=list)
    actors: list[str] = field(default_factory=list)
    streams: list[str] = field(default_factory=list)
    groups: dict[str, Group] = field(default_factory=dict)
    safe: set[str] = field(default_factory=set)
    pure: bool = True

    @property
    def main(self) -> bool:
        """Whether this is a driver's main program."""
        return self.number == 0

    def waitable(self, names: list[str]) -> list[str]:
        """Those of the names that the body may wait for without end: not while a placement group
        of its is there, which may never have its places, with tasks in it.
        """
        if self.groups:
            return []
        return [name for name in names if name in self.safe] if self.method else names


class Programs:
    """Makes one program.

    Args: chance; family; ops: the profile's weights; most_cpus: of the largest node."""

    def __init__(self, chance: Random, family: Family, ops: dict[str, int], most_cpus: int) -> None:
        self.chance = chance
        self.family = family
        self.most_cpus = most_cpus
        self.weights = {
            name: weight * chance.choice((0.3, 1, 1, 3))
            for name, weight in {**ops, **family.ops}.items()
            if name in NEEDED or chance.random() > 0.2
        }
        self.large = chance.choice(family.large)
        self.length = chance.choice(((2, 8), (8, 30), (20, 60)))
        self.places = 0
        # of the functions that there are by now, the last ones of the program
        self.tasks: list[int] = []
        self.methods: list[int] = []
        self.pure: set[int] = set()
        self.generators: list[int] = []
        self.costs: dict[int, int] = {}
        self.left = 0  # tasks that the body at hand may still start

    def program(self) -> Program:
        """Functions from the last to the first; ``cost`` counts the tasks that one call starts."""
        count = self.chance.randint(1, 5)
        functions: list[Function] = []
        for number in range(count, -1, -1):
            method = self.family.actors and (
                number == count or (number > 0 and self.chance.random() < 0.5)
            )
            functions.insert(0, self.body(number, method=method))
        return Program(tuple(functions))

    def size(self) -> int:
        """Bytes of a value."""
        if self.chance.random() < self.large:
            return self.chance.choice((1001, 2000, 3000, 5000, 8000))
        return 10

    def place(self) -> int:
        """A number for one more operation."""
        self.places += 1
        return self.places

    def body(self, number: int, *, method: bool) -> Function:
        """One body. Notes how many tasks one run of it makes, itself included."""
        chance = self.chance
        main = number == 0
        length = chance.randint(*self.length) if main else chance.randint(0, 8)
        body = Body(number, [] if main else ["n0", "n1", "a0.0"], method)
        names, ops = body.names, body.ops
        if self.family.actors:
            body.actors += names
        self.left = (80 if main else 8) - 1
        budget = self.left
        if main and self.family.actors:
            self.make(self.place(), body)
        for _ in range(length):
            kind = chance.choices(list(self.weights), list(self.weights.values()))[0]
            at = self.place()
            if kind in ("call", "make", "invoke", "stream", "take", "broadcast"):
                getattr(self, kind)(at, body)
            elif kind == "descend":
                self.descend(body)
            elif self.allowed(kind, body):
                self.simple(kind, at, body)
        if not main and self.family.toils and chance.random() < 0.4:
            ops.append(Sleep(self.place(), 12.0))
        returns: tuple[str, ...] = ()
        if not main and chance.random() < self.family.returns:
            returns = tuple(self.some(names, 2))
        if main:
            self.ending(body)
        self.costs[number] = 1 + budget - self.left
        if method:
            self.methods.append(number)
        else:
            self.tasks.append(number)
            if any(isinstance(op, Yield) for op in ops):
                self.generators.append(number)
            if body.pure:
                self.pure.add(number)
        return Function(tuple(ops), returns)

    def allowed(self, kind: str, body: Body) -> bool:
        """Whether such an operation may stand in this body."""
        if kind == "quit":
            return body.method
        if kind == "yield":
            return not body.main
        if kind in ("group", "ready", "remove"):
            return body.main
        if not body.main:
            return True
        if kind in ("get", "wait", "timed get"):
            return self.family.gets
        return kind not in ("raise", "exit", "keep", "peek", "forget")

    def ending(self, body: Body) -> None:
        """How main ends: perhaps one call on many values, perhaps a last look at some."""
        chance, names = self.chance, body.names
        for group in body.groups:  # (or tasks would wait for what they hold, and rightly so)
            body.ops.append(Remove(self.place(), group))
        body.groups.clear()
        for stream in body.streams:
            if chance.random() < 0.5:
                self.take_of(self.place(), body, stream, 40)
        if self.family.wide and names and self.tasks:
            deps = tuple(self.some(names, self.family.wide))
            body.ops.append(Call(self.place(), "vw", chance.choice(self.tasks), deps))
            names.append("vw")
        if self.family.gets and names and chance.random() < 0.8:
            body.ops.append(Get(self.place(), tuple(self.some(names, 4))))

    def target(self, functions: list[int]) -> int:
        """One of the functions that the budget allows, or 0."""
        if not functions:
            return 0
        target = self.chance.choice(functions)
        if self.costs[target] > self.left:
            return 0
        self.left -= self.costs[target]
        return target

    def some(self, names: list[str], most: int) -> list[str]:
        """A few of the names, each once."""
        count = min(len(names), self.chance.randint(0, most))
        if self.family.recent and self.chance.random() < self.family.recent:
            names = names[-3:]
            count = min(max(count, 1), len(names))
        return self.chance.sample(names, count)

    def handed(self, body: Body) -> tuple[str, ...]:
        """References that a call is given inside a container; an actor first, if there are any."""
        names = self.some(body.names, 2)
        if body.actors and self.chance.random() < 0.5:
            actor = self.chance.choice(body.actors)
            names = [actor, *(name for name in names if name != actor)]
        return tuple(names)

    def call(self, at: int, body: Body) -> None:
        """A call of a function."""
        chance, names = self.chance, body.names
        target = self.target(self.tasks)
        if not target:
            return
        cpus = min(chance.choice((1, 1, 1, 1, 2, 0.5, 0)), self.most_cpus)
        if self.family.greedy and chance.random() < self.family.greedy:
            cpus = self.most_cpus + 1
        op = Call(
            at,
            f"v{at}",
            target,
            tuple(self.some(names, 3)),
            self.handed(body),
            self.results(),
            cpus,
            chance.choice((0, 1, 3, 3, 4)),
            chance.random() < 0.3,
        )
        if body.groups and chance.random() < 0.7:
            op = self.inside(op, body)
        body.ops.append(op)
        if op.within and chance.random() < 0.5:
            body.ops.append(Get(self.place(), (op.var,), chance.choice((0.05, 0.5, 2.0))))
        body.pure = body.pure and target in self.pure
        new = returned(op)
        names += new
        if target in self.pure and body.safe.issuperset((*op.deps, *op.nested)):
            body.safe.update(new)

    def inside(self, op: Call, body: Body) -> Call:
        """The call, in one of the groups; now and then in none of its bundles' size."""
        chance = self.chance
        name = chance.choice(list(body.groups))
        bundles = body.groups[name].bundles
        cpus = op.cpus if chance.random() < 0.1 else min(op.cpus, *bundles, 1.0)
        bundle = chance.choice((-1, -1, *range(len(bundles))))
        return replace(op, within=name, cpus=cpus, bundle=bundle)

    def enroll(self, at: int) -> Enroll:
        """Something with the actor of a name, of which there are two."""
        chance = self.chance
        plain = [number for number in self.tasks if self.costs[number] == 1] or self.tasks[:1]
        makes = chance.choice(plain) if chance.random() < 0.6 else -1
        restarts, timeout = chance.choice((0, 0, 1)), chance.choice((0.01, 0.1, 1.0))
        name = chance.choice(("one", "two"))
        method = chance.choice(plain)
        return Enroll(at, name, makes, method, restarts, timeout, chance.random() < 0.4)

    def group(self, at: int) -> Group:
        """A placement group."""
        chance = self.chance
        most = self.most_cpus + 1 if chance.random() < 0.1 else self.most_cpus
        count = chance.choice((1, 1, 2, 2, 3, 4))
        sizes = [min(chance.choice((1, 1, 0.5, 0.5, 2)), most) for _ in range(count)]
        strategy = chance.choice((PACK, SPREAD, STRICT_PACK, STRICT_SPREAD))
        return Group(at, f"g{at}", tuple(float(size) for size in sizes), strategy)

    def broadcast(self, at: int, body: Body) -> None:
        """A large value, and many calls that all take it."""
        if not body.main:
            return
        body.ops.append(Put(at, f"v{at}", 8000))
        for _ in range(self.chance.randint(6, 12)):
            target, place = self.target(self.tasks), self.place()
            if target:
                body.ops.append(Call(place, f"v{place}", target, (f"v{at}",), sizes=(10,)))
                body.names.append(f"v{place}")

    def results(self) -> tuple[int, ...]:
        """The sizes of what a call returns."""
        return tuple(self.size() for _ in range(self.chance.choice((1, 1, 1, 2, 3))))

    def make(self, at: int, body: Body) -> None:
        """A new actor."""
        chance = self.chance
        target = self.target(self.methods)
        if not target:
            return
        greedy = chance.random() < self.family.greedy
        op = Make(
            at,
            f"v{at}",
            target,
            tuple(self.some(body.names, 1)),
            self.handed(body),
            chance.choice((0, 0, 1, 2, -1)),
            chance.choice((1, 1, 1, 2, 3)),
            self.most_cpus + 1 if greedy else 0.0,
            chance.choice((-1, -1, 0, 1, 2)),
        )
        body.ops.append(op)
        body.pure = False
        body.names.append(op.var)
        body.actors.append(op.var)

    def invoke(self, at: int, body: Body) -> None:
        """A call of an actor."""
        chance = self.chance
        target = self.target(self.methods) if body.actors else 0
        if not target:
            return
        body.pure = False
        for number in range(chance.choice((1, 1, 2, 5))):  # (order shows only among several)
            op = Invoke(
                at,
                f"v{at}",
                chance.choice(body.actors[-3:]),
                target,
                tuple(self.some(body.names, 2)),
                self.handed(body),
                self.results(),
                chance.choice((0, 0, 0, 1, 3, -1)),
                chance.random() < 0.2,
            )
            body.ops.append(op)
            body.names += [name for name in returned(op) if name not in body.names]
            at = self.place()
            self.left -= self.costs[target] if number else 0

    def stream(self, at: int, body: Body) -> None:
        """A call of a generator."""
        chance = self.chance
        target = self.target(self.generators or self.tasks)
        if not target:
            return
        cpus = min(chance.choice((1, 1, 1, 2, 0.5, 0)), self.most_cpus)
        if self.family.greedy and chance.random() < self.family.greedy:
            cpus = self.most_cpus + 1
        op = Stream(
            at,
            f"s{at}",
            target,
            tuple(self.some(body.names, 2)),
            self.handed(body),
            cpus,
            chance.choice((0, 1, 3, 3, 4)),
            chance.random() < 0.3,
            chance.choice((0, 0, 1, 2, 5)),
        )
        body.ops.append(op)
        body.streams.append(op.var)

    def take(self, at: int, body: Body) -> None:
        """Take some values of a stream."""
        if body.streams:
            stream = self.chance.choice(body.streams[-2:])
            self.take_of(at, body, stream, self.chance.choice((1, 1, 2, 3, 40)))

    def take_of(self, at: int, body: Body, stream: str, count: int) -> None:
        """Take up to so many values of this one; the names of three are used."""
        op = Take(at, f"v{at}", stream, count, self.chance.choice((None, None, 0.0, 0.002)))
        body.ops.append(op)
        body.names += made(op)[:3]

    def descend(self, body: Body) -> None:
        """Follow references inside references; what is found deepest can be passed on."""
        names = body.names
        found = body.waitable(names[-3:])
        if not found:
            return
        name = self.chance.choice(found)
        for _ in range(self.chance.randint(1, self.family.descend)):
            body.ops.append(Get(self.place(), (name,)))
            self.opened(body, name)
            name = f"{name}.0"

    def opened(self, body: Body, name: str) -> None:
        """A value has been read: there may be references inside."""
        new = [f"{name}.0", f"{name}.1"]
        body.names += [inner for inner in new if inner not in body.names]
        if name in body.safe:
            body.safe.update(new)

    def simple(self, kind: str, at: int, body: Body) -> None:
        """Any other operation, if there is anything to do it to."""
        chance = self.chance
        match kind:
            case "put":
                op = Put(at, f"v{at}", self.size(), tuple(self.some(body.names, 2)))
                body.ops.append(op)
                body.names.append(op.var)
                if body.safe.issuperset(op.contains):
                    body.safe.add(op.var)
            case "sleep":
                pauses = (0.0001, 0.001, 0.004, 0.01, 0.05, 0.3)
                body.ops.append(Sleep(at, chance.choice(pauses)))
            case "raise":
                body.ops.append(Raise(at, chance.choice((1, 1, 2, 9))))
            case "exit":
                most = (1, 1, 2) if self.family.actors else (1, 1, 2, 9)
                body.ops.append(Exit(at, chance.choice(most)))
            case "quit":
                body.ops.append(Quit(at, chance.choice((1, 1, 2, 9))))
            case "peek":
                slot, patience = chance.randrange(SLOTS), chance.choice((0.0, 0.001, 0.05))
                body.ops.append(Peek(at, slot, patience))
            case "forget":
                body.ops.append(Forget(at, chance.randrange(SLOTS)))
            case "yield":
                contains = tuple(self.some(body.names, 1))
                times = chance.choice((1, 1, 2, 3, 8, 30))
                body.ops.append(Yield(at, self.size(), contains, times))
            case "close":
                if body.streams:
                    stream = body.streams.pop(chance.randrange(len(body.streams)))
                    body.ops.append(Close(at, stream))
            case "kill":
                if body.actors:
                    actor = chance.choice(body.actors)
                    body.ops.append(Kill(at, actor, chance.random() < 0.5))
            case "enroll" | "toil" | "group" | "ready" | "remove":
                self.further(kind, at, body)
            case _:
                if body.names:
                    body.ops.append(self.with_names(kind, at, body))

    def further(self, kind: str, at: int, body: Body) -> None:
        """An operation on a name, on a placement group, or one that takes long."""
        chance = self.chance
        match kind:
            case "enroll":
                if body.main and self.tasks:
                    body.ops.append(self.enroll(at))
            case "toil":
                if not body.main:
                    body.ops.append(Sleep(at, chance.choice((0.1, 1.0, 12.0))))
            case "group":
                if len(body.groups) > 2:  # (or they only wait for each other)
                    oldest = next(iter(body.groups))
                    del body.groups[oldest]
                    body.ops.append(Remove(self.place(), oldest))
                made_group = self.group(at)
                body.ops.append(made_group)
                body.groups[made_group.var] = made_group
            case "ready":
                if body.groups:
                    group = chance.choice(list(body.groups))
                    body.ops.append(Ready(at, group, chance.choice((0.01, 0.1, 1.0, 3.0))))
            case "remove":
                if body.groups:
                    group = chance.choice(list(body.groups))
                    del body.groups[group]
                    body.ops.append(Remove(at, group))

    def with_names(self, kind: str, at: int, body: Body) -> Op:
        """An operation on names, of which there is at least one."""
        chance, names = self.chance, body.names
        few = tuple(self.some(names, 4)) or (chance.choice(names),)
        patient = len(body.waitable(list(few))) == len(few)
        if kind == "get" and patient:
            for name in few:
                self.opened(body, name)
            return Get(at, few, None, chance.random() < 0.4)
        if kind in ("get", "timed get"):
            return Get(at, few, chance.choice((0.0, 0.0005, 0.01, 0.2)))
        if kind == "wait":
            timeout = chance.choice((None, 0.0, 0.001, 0.05) if patient else (0.0, 0.001, 0.05))
            return Wait(at, few, chance.randint(1, len(few)), timeout, chance.random() < 0.5)
        name = chance.choice(names)
        if kind == "cancel":
            return Cancel(at, name, chance.random() < 0.3, chance.random() < 0.5)
        if kind == "end":
            name = chance.choice(names[-3:])  # (or it is over by now)
            body.ops.append(Sleep(self.place(), chance.choice((0.0, 0.01, 0.05, 0.3))))
            grace = chance.choice((0.0, 0.05, 0.5, 1.0, 3.0))
            return Cancel(at, name, chance.random() < 0.6, chance.random() < 0.5, grace, True)
        if kind == "keep":
            return Keep(at, name, chance.randrange(SLOTS))
        names.remove(name)
        if name in body.actors:
            body.actors.remove(name)
        return Drop(at, name)


def returned(op: Call | Invoke) -> list[str]:
    """The names of a call's results."""
    return [f"{op.var}_{index}" if index else op.var for index in range(len(op.sizes))]
