"""Random programs.

What a program does is chosen operation by operation, with the weights of its profile; what it is
*about* comes from its family: a seed of the family ``nest`` is full of references inside values
inside references, one of ``chain`` makes each stored value from the one before, and so on. The
family ``mixed`` is a little of everything.

Names inside a body: ``a0.1`` is the reference that came inside argument 0 in place 1, ``n0`` a
nested one, ``v7`` what operation 7 made, ``v7.0`` the first reference inside its value."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Final

from freehold.sim.programs import (
    Call,
    Cancel,
    Drop,
    Exit,
    Forget,
    Function,
    Get,
    Keep,
    Op,
    Peek,
    Program,
    Put,
    Raise,
    Sleep,
    Wait,
)

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
    for anything."""

    weight: int
    ops: dict[str, float] = field(default_factory=dict)
    recent: float = 0.0
    returns: float = 0.5
    descend: int = 0
    large: tuple[float, ...] = (0.0, 0.2, 0.5)
    wide: int = 0
    greedy: float = 0.0
    gets: bool = True


FAMILIES: Final = {
    "mixed": Family(8),
    "nest": Family(3, {"put": 8, "get": 10, "descend": 6}, recent=0.6, returns=0.9, descend=3),
    "chain": Family(2, {"call": 16}, recent=0.9, returns=0.2, large=(0.7, 0.95)),
    "wide": Family(2, {"call": 20, "put": 6}, wide=24),
    "hoard": Family(3, {"keep": 8, "peek": 5, "forget": 2, "descend": 2}, returns=0.7, descend=2),
    "hasty": Family(1, {"drop": 8}, gets=False),
    "greedy": Family(1, greedy=0.15),
}


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
            if name in ("call", "get") or chance.random() > 0.2
        }
        self.large = chance.choice(family.large)
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

    def place(self) -> int:
        """A number for one more operation."""
        self.places += 1
        return self.places

    def body(
        self, number: int, count: int, later: list[Function], costs: list[int], budget: int
    ) -> tuple[Function, int]:
        """One body, and how many tasks one run of it makes, itself included."""
        chance = self.chance
        main = number == 0
        length = chance.randint(*self.length) if main else chance.randint(0, 8)
        names = [] if main else ["n0", "n1", "a0.0"]
        ops: list[Op] = []
        cost = 1
        for _ in range(length):
            kind = chance.choices(list(self.weights), list(self.weights.values()))[0]
            at = self.place()
            if kind == "call" and number < count:
                target = chance.randint(number + 1, count)
                price = costs[target - number - 1]
                if cost + price <= budget:
                    cost += price
                    ops.append(self.call(at, target, names))
            elif kind == "descend":
                ops += self.descend(names)
            elif kind != "call" and self.allowed(kind, main):
                op = self.simple(kind, at, names)
                if op is not None:
                    ops.append(op)
        returns: tuple[str, ...] = ()
        if not main and chance.random() < self.family.returns:
            returns = tuple(self.some(names, 2))
        if main:
            ops += self.ending(count, names)
        return Function(tuple(ops), returns), cost

    def allowed(self, kind: str, main: bool) -> bool:
        """Whether such an operation may stand in this body."""
        if not main:
            return True
        if kind in ("get", "wait", "timed get"):
            return self.family.gets
        return kind not in ("raise", "exit", "keep", "peek", "forget")

    def ending(self, count: int, names: list[str]) -> list[Op]:
        """How main ends: perhaps one call on many values, perhaps a last look at some."""
        ops: list[Op] = []
        chance = self.chance
        if self.family.wide and names:
            deps = tuple(self.some(names, self.family.wide))
            ops.append(Call(self.place(), "vw", chance.randint(1, count), deps))
            names.append("vw")
        if self.family.gets and names and chance.random() < 0.8:
            ops.append(Get(self.place(), tuple(self.some(names, 4))))
        return ops

    def some(self, names: list[str], most: int) -> list[str]:
        """A few of the names, each once."""
        count = min(len(names), self.chance.randint(0, most))
        if self.family.recent and self.chance.random() < self.family.recent:
            names = names[-3:]
            count = min(max(count, 1), len(names))
        return self.chance.sample(names, count)

    def call(self, at: int, target: int, names: list[str]) -> Call:
        """A call of function ``target``."""
        chance = self.chance
        returns = chance.choice((1, 1, 1, 2, 3))
        cpus = min(chance.choice((1, 1, 1, 1, 2, 0.5, 0)), self.most_cpus)
        if self.family.greedy and chance.random() < self.family.greedy:
            cpus = self.most_cpus + 1
        op = Call(
            at,
            f"v{at}",
            target,
            tuple(self.some(names, 3)),
            tuple(self.some(names, 2)),
            tuple(self.size() for _ in range(returns)),
            cpus,
            chance.choice((0, 1, 3, 3, 4)),
            chance.random() < 0.3,
        )
        names += [f"v{at}" + (f"_{index}" if index else "") for index in range(returns)]
        return op

    def descend(self, names: list[str]) -> list[Op]:
        """Follow references inside references; what is found deepest can be passed on."""
        if not names:
            return []
        name = self.chance.choice(names[-3:])
        ops: list[Op] = []
        for _ in range(self.chance.randint(1, self.family.descend)):
            ops.append(Get(self.place(), (name,)))
            names += [new for new in (f"{name}.0", f"{name}.1") if new not in names]
            name = f"{name}.0"
        return ops

    def simple(self, kind: str, at: int, names: list[str]) -> Op | None:
        """Any other operation; None if there is nothing to do it to."""
        chance = self.chance
        match kind:
            case "put":
                op = Put(at, f"v{at}", self.size(), tuple(self.some(names, 2)))
                names.append(op.var)
                return op
            case "sleep":
                return Sleep(at, chance.choice((0.0001, 0.001, 0.004, 0.01, 0.05, 0.3)))
            case "raise":
                return Raise(at, chance.choice((1, 1, 2, 9)))
            case "exit":
                return Exit(at, chance.choice((1, 1, 2, 9)))
            case "peek":
                return Peek(at, chance.randrange(SLOTS), chance.choice((0.0, 0.001, 0.05)))
            case "forget":
                return Forget(at, chance.randrange(SLOTS))
        return self.with_names(kind, at, names) if names else None

    def with_names(self, kind: str, at: int, names: list[str]) -> Op:
        """An operation on names, of which there is at least one."""
        chance = self.chance
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
        if kind == "keep":
            return Keep(at, name, chance.randrange(SLOTS))
        names.remove(name)
        return Drop(at, name)
