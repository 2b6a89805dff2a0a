"""A model of death and rebirth, on the real roles: owners die at any time, submitters run tasks
again, holders claim. ``exploring`` visits every interleaving.

Theory of operation. A driver "S" and a few workers (``afterlife_process``), whose user code is a
script, as deterministic as the claims on its runs need. All values are small. Between each two
processes lies a link that keeps order. When a worker crashes, everybody sees the end of its stream,
at any later time and in any order, and its tasks' submitters learn after that how it died
(``Report``), which is what makes them try again.

A reference that a function keeps (``keep``) stays in its process; the last of those go when nothing
else is left to do, or, where the program says ``drops``, at any time.

Promises, in every state: no event raises; who holds a reference to a living owner's object finds
it there (no premature free); a value that user code sees is the one that its name stands for; an
object that is made again has the name of the one that died. In every state in which only crashes
and the users' drops can still happen nobody is stuck: no script, no get, no claim waits. At the end
all handles go and all long timers go off, and then every table of every process is empty. Where the
program says ``comes_back``, nobody may have been told of a loss either.

The timers are longer than anything else here takes, so none goes off before the end.

What is not here: values in stores, nodes, a driver's death, and processes that hand over what they
own before they go; the simulator has those.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from core.afterlife_process import (
    NODE,
    Ended,
    Op,
    Process,
    Program,
    Report,
    Script,
    canonical_process,
)
from core.exploring import Found, Step, explore
from freehold.core.entries import Entry
from freehold.ids import Names, name_of
from freehold.wire.messages import Address, Wire


@dataclass
class Tally:
    """What has happened anywhere in an exploration: what no program did was not tested."""

    kinds: set[str] = field(default_factory=set)


class Model:
    """The processes and links in one state."""

    def __init__(self, program: Program, tally: Tally) -> None:
        self.program = program
        self.tally = tally
        self.links: dict[tuple[Address, Address], deque[Any]] = {}
        self.values: dict[bytes, bytes] = {}  # what each name stands for
        self.processes = {name: Process(self, name) for name in program.names()}
        self.by_address = {p.address: p for p in self.processes.values()}
        self.crashed = ""
        self.told: list[str] = []
        self.problem = ""
        self.processes["S"].script = Script(program.main, Names(b"S" * 8), None)

    # -- steps

    def steps(self) -> list[Step]:
        """Everything that can happen next."""
        found: list[Step] = [("deliver", *link) for link in self.links if self.matters(link)]
        for name, one in self.processes.items():
            if one.crashed:
                continue
            if one.may_go():
                found.append(("go", name))
            if self.program.drops:
                found += [("let_go", name, variable) for variable in one.globals]
        doomed = self.doomed()
        if doomed and not found:
            found.append(("spare",))
        return found + [("crash", name) for name in doomed]

    def spare(self) -> None:
        """Nobody crashes any more."""
        self.crashed += "-"

    def doomed(self) -> list[str]:
        """Who may crash next."""
        so_far, since = len(self.crashed), self.program.since
        if since is not None and not so_far:
            script = self.processes["S"].script
            if self.links or (script is not None and script.at < since):
                return []
        orders = [each for each in self.program.mortal.split("|") if each.startswith(self.crashed)]
        return sorted({order[so_far] for order in orders if len(order) > so_far})

    def matters(self, link: tuple[Address, Address]) -> bool:
        """Whether the head of a link need be delivered now. A process without any part learns of a
        death just before its first message or after it: earlier is as good as just before.
        """
        target = link[1]
        if self.by_address[target].begun or not isinstance(self.links[link][0], Ended):
            return True
        return any(
            to == target and not isinstance(queue[0], Ended)
            for (giver, to), queue in self.links.items()
        )

    def take(self, step: Step) -> None:
        """Do one step."""
        kind, *rest = step
        getattr(self, kind)(*rest)

    def touches(self, step: Step) -> frozenset[str]:
        """Its process; a crash that waits for silence, or for which there is a last chance, is
        everybody's business.
        """
        kind, *rest = step
        if kind == "deliver":
            return frozenset((self.by_address[rest[1]].name,))
        if kind == "spare" or (kind == "crash" and self.program.since is not None):
            return frozenset((*self.processes, "crashes"))
        return frozenset((rest[0], "crashes") if kind == "crash" else (rest[0],))

    def post(self, source: Address, target: Address, message: Any) -> None:
        """Put a message on its link. What is sent to the dead is another end of their stream for a
        sender who has seen the first one, and nothing for one who will.
        """
        if target == NODE:
            raise AssertionError(f"nobody here asks a node: {message!r}")
        if not self.by_address[target].crashed:
            self.links.setdefault((source, target), deque()).append(message)
        elif source != NODE and (target, source) not in self.links:
            self.links[target, source] = deque([Ended()])

    def deliver(self, source: Address, target: Address) -> None:
        message = self.links[source, target].popleft()
        if not self.links[source, target]:
            del self.links[source, target]
        self.tally.kinds.add(type(message).__name__)
        self.by_address[target].deliver(message, source)

    def go(self, name: str) -> None:
        self.processes[name].go()

    def let_go(self, name: str, variable: str) -> None:
        one = self.processes[name]
        one.role.ownership.drop_handle(one.globals.pop(variable).object)

    def crash(self, name: str) -> None:
        self.crashed += name
        gone = self.processes[name]
        gone.crashed = True
        for link in [link for link in self.links if link[1] == gone.address]:
            del self.links[link]
        for other, one in self.by_address.items():
            if not one.crashed:
                self.links.setdefault((gone.address, other), deque()).append(Ended())

    # -- promises

    def tell(self, name: str, kind: str, facts: tuple[Any, ...]) -> bytes:
        """A process makes an error of the system's."""
        story = f"{kind}: {' '.join(map(str, facts))}"
        self.told.append(f"{name}: {story}")
        if self.program.comes_back:
            self.problem = f"{name} is told {story}"
        return story.encode()

    def sees(self, name: str, entry: Entry) -> None:
        """User code gets a value."""
        assert entry.value is not None
        if entry.value.data != self.values[name_of(entry.object)]:
            self.problem = f"{name} sees {entry.value.data!r} for another value"

    def broken(self) -> str:
        """The first promise that this state breaks, or nothing."""
        if self.problem:
            return self.problem
        for name, one in self.processes.items():
            if one.crashed or not one.begun:
                continue
            for key, entry in one.role.ownership.entries.items():
                if name_of(key) != name_of(entry.object):
                    return f"{name} takes one object for another"
                if entry.owner is None or not (entry.handles or entry.pins):
                    continue
                owner = self.by_address[entry.owner]
                if not owner.crashed and entry.object not in owner.role.ownership.entries:
                    return f"{name} holds an object that its owner has freed"
        if self.idle():
            for name, one in self.processes.items():
                if one.begun and not one.crashed and (what := one.stuck()):
                    return f"{name} is stuck: {what}"
        return ""

    def idle(self) -> bool:
        """Whether nothing more happens of itself."""
        return not any(map(self.matters, self.links)) and not any(
            one.may_go() for one in self.processes.values() if not one.crashed
        )

    def left_over(self) -> str:
        """What is there when all handles have gone and all timers have gone off."""
        alive = {n: one for n, one in self.processes.items() if one.begun and not one.crashed}
        for name, one in alive.items():
            for variable in list(one.globals):
                self.let_go(name, variable)
        for _ in range(9):
            while self.links:
                self.deliver(*next(iter(self.links)))
            for one in alive.values():
                one.world.advance(100)
        assert not self.links, "the end has no end"
        for name, one in alive.items():
            if sizes := one.tables():
                return f"{name} keeps {sizes} for ever"
        return self.problem

    # -- equal states

    def canonical(self) -> Hashable:
        """Equal for equal states."""
        links = tuple(
            sorted(
                (source.process, target.process, tuple(map(canonical_message, queue)))
                for (source, target), queue in self.links.items()
            )
        )
        return tuple(map(canonical_process, self.processes.values())), links, self.crashed


def canonical_message(message: Any) -> Hashable:
    if isinstance(message, Ended):
        return "ended"
    if isinstance(message, Report):
        return ("report", message.worker.process)
    return Wire.encode(message)


def explore_program(program: Program, tally: Tally | None = None) -> Found:
    """Visit every state of a program."""
    counted = tally or Tally()
    return explore(lambda: Model(program, counted), program.cap)


__all__ = ["Model", "Op", "Program", "Tally", "explore_program"]
