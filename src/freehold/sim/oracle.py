"""What a program should yield: the same bodies, run one after another in one process.

Twice. Once with every failure of user code left out: then each name has the one *content* that any
reader may ever see. Once with them in: then, if nothing chancy is in the case, each name has one
*outcome*, a content or one error. Between the two lies what a run with faults may show: the
content, or an error of a kind that something really caused (``causes``)."""

from __future__ import annotations

from dataclasses import dataclass, field

from freehold.sim.bodies import Handle, Made, Read
from freehold.sim.errors import Failure
from freehold.sim.ops import Call, Enroll, Group, Invoke, Make, Program, Stream
from freehold.sim.programs import run_body


@dataclass
class Named:
    """A name and what stands behind it."""

    name: str
    content: bytes = b""
    failure: Failure | None = None
    inner: list[Named] = field(default_factory=list)
    actor: bool = False


@dataclass
class Streamed:
    """A stream: all that it will ever yield, the last perhaps an error."""

    items: list[Named]
    taken: int = 0


class Oracle:
    """The names of one driver's program.

    Args: failures: whether user code's own failures happen; most_cpus: of any node. What needs
    more fails."""

    def __init__(self, program: Program, driver: int, *, failures: bool, most_cpus: float) -> None:
        self.program = program
        self.failures = failures
        self.most_cpus = most_cpus
        self.names: dict[str, Named] = {}
        self.calls: dict[str, Call | Make | Invoke | Stream] = {}
        self.groups: dict[str, Group] = {}  # in which a call's task is to run
        self.counts: dict[str, int] = {}  # of streams: how many values they have in the end
        # of the run at hand: what it has yielded, if that is for a stream, and how much of it now
        self.yields: list[Named] | None = None
        self.path = ""
        self.given = 0
        self.needs: dict[str, list[str]] = {}  # the names that a call's task is given
        self.run(0, f"d{driver}", (), [], [], 1)

    def run(
        self,
        number: int,
        path: str,
        sizes: tuple[int, ...],
        args: list[Read],
        nested: list[Handle],
        execution: int,
    ) -> list[Made]:
        """One body, to its end."""
        outer = self.yields, self.path, self.given
        if not isinstance(self.calls.get(path), Stream):
            self.yields = None
        self.path, self.given = path, 0
        try:
            return self.run_to_end(number, path, sizes, args, nested, execution)
        finally:
            self.yields, self.path, self.given = outer

    def run_to_end(
        self,
        number: int,
        path: str,
        sizes: tuple[int, ...],
        args: list[Read],
        nested: list[Handle],
        execution: int,
    ) -> list[Made]:
        """As ``run``, which says whose yields those are."""
        body = run_body(self.program, number, path, sizes, args, nested, execution)
        answer = None
        try:
            request = next(body)
            while True:
                try:
                    answer = self.perform(*request)
                except Failure as failure:
                    request = body.throw(failure)
                else:
                    request = body.send(answer)
        except StopIteration as stop:
            made: list[Made] = stop.value
            return made

    def perform(self, kind: str, *operands: object) -> object:
        """One request."""
        if kind == "put":
            here, made = operands
            assert isinstance(here, str)
            assert isinstance(made, Made)
            return self.name(Named(here, made.content, None, list(made.contains)))
        if kind == "call":
            return self.call(*operands)  # type: ignore[arg-type]
        if kind == "make":
            return self.make(*operands)  # type: ignore[arg-type]
        if kind == "invoke":
            return self.invoke(*operands)  # type: ignore[arg-type]
        if kind == "stream":
            return self.stream(*operands)  # type: ignore[arg-type]
        if kind == "take":
            return self.take(operands[1])  # type: ignore[arg-type]
        if kind == "yield":
            return self.give(operands[1])  # type: ignore[arg-type]
        if kind == "enroll":
            here, op = operands
            assert isinstance(here, str)
            assert isinstance(op, Enroll)
            if op.function >= 0:
                self.make(here, Make(op.at, "", op.function, restarts=op.restarts), [], [], None)
            return Named(here, actor=True)
        if kind == "group":
            return operands[1]
        if kind == "get":
            return [self.read(handle) for handle in operands[1]]  # type: ignore[attr-defined]
        if kind == "exit":
            raise Failure("exit")
        return None

    def name(self, named: Named) -> Named:
        """Enter a name."""
        self.names[named.name] = named
        return named

    def read(self, named: Named) -> Read:
        """A value in user code's hands."""
        if named.failure is not None:
            raise named.failure
        return Read(named.content, list(named.inner))

    def call(
        self, here: str, op: Call, deps: list[Named], nested: list[Named], group: Group | None
    ) -> list[Named]:
        """One task, with its retries. Where it runs changes nothing."""
        if group is not None:
            self.groups[here] = group
        self.calls[here] = op
        self.needs[here] = [named.name for named in (*deps, *nested)]
        failure = first_failure(deps)
        if self.failures and op.cpus > self.most_cpus:
            failure = failure or Failure("unschedulable", here)
        return self.attempts(here, op, deps, nested, failure)

    def make(
        self, here: str, op: Make, deps: list[Named], nested: list[Named], group: object
    ) -> list[Named]:
        """One actor: its constructor's body. A life that ends is chance; that is the checkers'."""
        del group
        self.calls[here] = op
        self.needs[here] = [named.name for named in (*deps, *nested)]
        failure = first_failure(deps)
        if self.failures and op.cpus > self.most_cpus:
            failure = failure or Failure("unschedulable", here)
        if failure is None:
            args = [self.read(dep) for dep in deps]
            try:
                self.run(op.function, here, (), args, nested, 1 if self.failures else 1_000)
            except Failure as raised:
                failure = raised
        return [self.name(Named(here, b"", failure, actor=True))]

    def stream(
        self, here: str, op: Stream, actor: Named | None, deps: list[Named], nested: list[Named]
    ) -> Streamed:
        """One task that yields, with its retries: what a further attempt yields again is there."""
        self.calls[here] = op
        self.needs[here] = [named.name for named in (*deps, *nested)]
        failure = first_failure(deps)
        if self.failures and op.cpus > self.most_cpus:
            failure = failure or Failure("unschedulable", here)
        if actor is not None:
            self.needs[here].append(actor.name)
            failure = actor.failure or failure
        outer, self.yields = self.yields, []
        (count,) = self.attempts(here, op, deps, nested, failure)
        items, self.yields = self.yields, outer
        self.counts[here] = len(items)
        if count.failure is not None:
            items.append(self.name(Named(f"{here}#{len(items) + 1}", b"", count.failure)))
        return Streamed(items)

    def take(self, stream: Streamed) -> Named | None:
        """The next value of a stream."""
        if stream.taken == len(stream.items):
            return None
        named = stream.items[stream.taken]
        stream.taken += 1
        self.read(named)
        return named

    def give(self, made: Made) -> bool | None:
        """The run at hand yields."""
        if self.yields is None:
            return None
        self.given += 1
        if self.given > len(self.yields):
            name = f"{self.path}#{self.given}"
            named = Named(name, made.content, None, list(made.contains))
            self.yields.append(self.name(named))
        return True

    def invoke(
        self, here: str, op: Invoke, actor: Named, deps: list[Named], nested: list[Named]
    ) -> list[Named]:
        """One call of an actor. Whether it fails for want of the actor or of an argument depends
        on which of the two is known first.
        """
        self.calls[here] = op
        self.needs[here] = [named.name for named in (actor, *deps, *nested)]
        failure = first_failure(deps)
        if actor.failure is not None:
            both = Failure(actor.failure.kind, actor.failure.about)
            both.kinds = actor.failure.kinds | (failure.kinds if failure is not None else set())
            failure = both
        return self.attempts(here, op, deps, nested, failure)

    def attempts(
        self,
        here: str,
        op: Call | Invoke | Stream,
        deps: list[Named],
        nested: list[Named],
        failure: Failure | None,
    ) -> list[Named]:
        """What the attempts of one call come to; none if it has failed already."""
        made: list[Made] = []
        execution = 1 if self.failures else 1_000
        used = 0
        while failure is None:
            args = [self.read(dep) for dep in deps]
            try:
                made = self.run(op.function, here, op.sizes, args, nested, execution)
                break
            except Failure as raised:
                retry = op.retry_exceptions or raised.kind == "exit"
                if not retry or 0 <= op.retries <= used:
                    failure = Failure("worker_died", here) if raised.kind == "exit" else raised
                used += 1
                execution += 1
        if failure is not None:
            return [
                self.name(Named(f"{here}#{index}", b"", failure)) for index in range(len(op.sizes))
            ]
        return [
            self.name(Named(f"{here}#{index}", item.content, None, list(item.contains)))
            for index, item in enumerate(made)
        ]


def first_failure(deps: list[Named]) -> Failure | None:
    """The error of the first argument that has one."""
    return next((dep.failure for dep in deps if dep.failure is not None), None)


def same_value(expected: Named, content: bytes, inner: list[str]) -> bool:
    """Whether what was read is what stands behind the name."""
    return expected.content == content and [item.name for item in expected.inner] == inner
