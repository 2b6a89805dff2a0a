"""A model of death and rebirth, on the real roles: owners die at any time, submitters run tasks
again, holders claim. ``exploring`` visits every interleaving.

Theory of operation. A driver "S" and a few workers, each the real ``roles.Owner`` or
``roles.Executor``; only who runs a task is not left to ``leasing``: a function has a list of
workers, and its tasks go to the first that its submitter does not know to be dead. User code is a
script (``OPS``), in the driver and in each function, a step an operation; functions are as
deterministic as the claims on their runs need. All values are small. Between each two processes
lies a link that keeps order. When a worker crashes, everybody sees the end of its stream, at any
later time and in any order, and its tasks' submitters learn after that how it died (``Report``),
which is what makes them try again.

A reference that a function keeps (``keep``) stays in its process; the last of those go when nothing
else is left to do, or, where the program says ``drops``, at any time.

Promises, in every state: no event raises; who holds a reference to a living owner's object finds
it there (no premature free); a value that user code sees is the one that its name stands for; an
object that is made again has the name of the one that died. In every state in which only crashes
and the users' drops can still happen nobody is stuck: no script, no get, no claim waits. At the end
all handles go and all long timers go off, and then every table of every process is empty. Where the
program says ``comes_back``, nobody may have been told of a loss either.

The timers are longer than anything else here takes, so none goes off before the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any

from core.exploring import Found, Step, explore
from core.world import World, cpus, death, function_id, inline, job, node, process
from freehold.core.entries import Entry
from freehold.core.execution import Run
from freehold.core.fetching import Get
from freehold.core.submission import PUSHED, Function, Placing, Task
from freehold.ids import Names, ObjectId, RunNames, TaskId, name_of, return_id
from freehold.roles.executor import Executor
from freehold.roles.owner import Owner
from freehold.wire.messages import FAILED, Address, Claim, Reference, Value, Wire

NODE = node()

#: What user code may do: (kind, what, ...). A variable holds one handle.
OPS = """
put  VAR [VARS]            VAR = put(a value that contains these)
call VAR FUNCTION [VARS]   VAR = FUNCTION.remote([these])
get  VAR [NAMES]           wait for the value, and name the references that it contains
drop VAR                   del VAR
keep VAR NAME              a global variable of the process, NAME, takes it over
give [VARS]                return a value that contains these: the last operation of a function
pause                      let messages in: without it a script goes on to its next get
"""

Op = tuple[Any, ...]


@dataclass
class Program:
    """What is explored. ``main``: the driver's script, its functions' in ``functions``; the
    parameters of one are a, b, ... ``places``: by function, who runs it, the first that lives.
    ``mortal``: who crashes, in this order, each once or not at all; "VW|WV" for either order.
    ``since``: the first crash comes when the driver's script is there and no message is under way
    (any time will do if it is None). ``once``: functions that may not run twice.
    """

    main: list[Op]
    functions: dict[str, list[Op]]
    places: dict[str, str]
    mortal: str
    since: int | None = None
    once: str = ""
    drops: bool = False
    comes_back: bool = True
    cap: int = 200_000

    def names(self) -> str:
        """The processes."""
        return "S" + "".join(sorted(set("".join(self.places.values()))))


class Ended:
    """The end of the stream of a process that crashed."""


class Report:
    """A node's word on how a worker died."""

    def __init__(self, worker: Address) -> None:
        self.worker = worker


class Links(World):
    """A world whose messages go into the links of a model."""

    def __init__(self, model: Model, address: Address) -> None:
        super().__init__(address)
        self.model = model

    def send(self, to: Address, message: Any) -> None:
        self.model.post(self.address, to, message)


class Errors:
    """System errors, noted by the model as told."""

    def __init__(self, model: Model, name: str) -> None:
        self.model = model
        self.name = name

    def __getattr__(self, kind: str) -> Any:
        return lambda *facts, **flags: self.model.tell(self.name, kind, facts)


class Held:
    """A lease of the model."""

    def __init__(self, worker: Address) -> None:
        self.worker = worker


class Straight(Placing):
    """Leasing that finds a worker at once."""

    def __init__(self, owner: Process) -> None:
        self.owner = owner

    def enqueue(self, task: Task) -> None:
        owner = self.owner
        submission, lost = owner.role.submission, owner.role.ownership.lost
        if not submission.still_ready(task):
            return
        model = owner.model
        places = [model.processes[name].address for name in model.program.places[task.name]]
        worker = next((place for place in places if place.process not in lost), None)
        if worker is None:
            owner.role.unplaceable(task, "every worker is dead")
            return
        task.lease = Held(worker)
        submission.push(task, worker, b"lease", {task.function.id})

    def withdraw(self, task: Task) -> bool:
        return False


class Script:
    """User code that runs: what it still has to do, and its local variables."""

    def __init__(self, ops: list[Op], names: Names, run: Run | None) -> None:
        self.ops = ops
        self.at = 0
        self.names = names
        self.run = run
        self.variables: dict[str, Reference] = {}
        self.getting: Get | None = None


class Process:
    """One process: its role and its user code."""

    def __init__(self, model: Model, name: str) -> None:
        self.name = name
        self.model = model
        self.address = process(name)
        self.world = Links(model, self.address)
        self.begun = False  # has a role: most of a path's time would go into making unused ones
        self.ends: list[Address] = []  # seen before that
        self.crashed = False
        self.globals: dict[str, Reference] = {}
        self.script: Script | None = None

    @cached_property
    def role(self) -> Owner:
        """The real one."""
        self.begun = True
        errors: Any = Errors(self.model, self.name)
        kind = Owner if self.name == "S" else Executor
        role = kind(self.world, errors, NODE, job())
        role.submission.placing = Straight(self)
        if isinstance(role, Executor):
            role.execution.interrupt = lambda run: None
            role.execution.exit_now = lambda run: None
        for peer in self.ends:
            role.peer_lost(peer)
        return role

    # -- events

    def deliver(self, message: Any, giver: Address) -> None:
        """One message, or the end of a stream."""
        if isinstance(message, Ended):
            if not self.begun:
                self.ends.append(giver)
                return
            self.role.peer_lost(giver)
            if self.at_worker(giver):
                self.model.post(NODE, self.address, Report(giver))
        elif isinstance(message, Report):
            for task in self.at_worker(message.worker):
                self.role.worker_died(task, death())
        else:
            assert self.role.handle(message, giver), f"nobody expects {message!r}"

    def at_worker(self, worker: Address) -> list[Task]:
        """Our tasks that lie there."""
        return [
            task
            for task in self.role.submission.tasks.values()
            if task.state is PUSHED and task.lease.worker == worker  # type: ignore[attr-defined]
        ]

    # -- user code

    def may_go(self) -> bool:
        """Whether user code can do something."""
        if self.script is not None:
            getting = self.script.getting
            return getting is None or getting.done
        return self.begun and isinstance(self.role, Executor) and bool(self.role.execution.ready)

    def go(self) -> None:
        """Go on with the script, or begin a task: up to the next get or pause."""
        if self.script is None:
            self.begin()
        script = self.script
        assert script is not None
        while self.script is script:
            if script.at == len(script.ops):  # (of the driver: the others end with "give")
                self.globals, self.script = script.variables, None
                return
            kind, *rest = script.ops[script.at]
            if kind == "get":
                if not self.get(script, *rest):
                    return
            elif kind != "pause":
                getattr(self, kind)(script, *rest)
            script.at += 1
            if kind == "pause":
                return

    def begin(self) -> None:
        """Run the task that is ready, as ``runtime.worker`` does."""
        assert isinstance(self.role, Executor)
        run = self.role.begin()
        assert run is not None
        message = run.message
        which = blake2b(message.task + bytes([message.attempt]) + self.name.encode())
        self.script = Script(
            self.model.program.functions[message.name],
            RunNames(which.digest()[:8], message.task),
            run,
        )
        for letter, ref in zip("abc", message.borrowed):
            self.take(self.script.variables, letter, ref)

    def take(self, variables: dict[str, Reference], name: str, ref: Reference) -> None:
        """A variable gets a handle."""
        self.role.ownership.add_handle(ref)
        variables[name] = ref

    def put(self, script: Script, name: str, inside: list[str]) -> None:
        label = name.encode()
        value = inline(label, *(script.variables[inner] for inner in inside))
        object_id = script.names.next_put(label)
        self.model.values[name_of(object_id)] = label
        origin = self.role.origin(script.run) if script.run else None  # type: ignore[attr-defined]
        self.role.put(object_id, value, origin)
        script.variables[name] = self.role.ownership.reference(object_id)

    def call(self, script: Script, name: str, function: str, given: list[str]) -> None:
        label = function.encode()
        refs = [script.variables[inner] for inner in given]
        task_id = script.names.next_task(label, label, [ref.object for ref in refs])
        task = Task(
            task_id,
            Function(function_id(function), function, b""),
            b"",
            resources=cpus(1),
            borrowed=refs,
            max_retries=0 if function in self.model.program.once else 3,
            name=function,
            origin=self.role.origin(script.run) if script.run else None,  # type: ignore[attr-defined]
        )
        object_id = return_id(task_id, 0)
        self.model.values[name_of(object_id)] = label
        self.role.submit(task)
        script.variables[name] = self.role.ownership.reference(object_id)

    def get(self, script: Script, name: str, inside: list[str]) -> bool:
        """As ``runtime.process`` does: begin, and when it is done take what is inside."""
        object_id = script.variables[name].object
        if script.getting is None:
            script.getting = self.role.get([object_id], lambda: None)
        if not script.getting.done:
            return False
        script.getting = None
        entry = self.role.ownership.entries[object_id]
        if entry.value is None:  # lost again before we came to take it
            return self.get(script, name, inside)
        if entry.value.kind == FAILED:
            return True
        self.model.sees(self.name, entry)
        for label, ref in zip(inside, entry.value.contains):
            self.take(script.variables, label, ref)
        return True

    def drop(self, script: Script, name: str) -> None:
        ref = script.variables.pop(name, None)
        if ref is not None:  # (or the get that would have named it failed)
            self.role.ownership.drop_handle(ref.object)

    def keep(self, script: Script, name: str, new: str) -> None:
        ref = script.variables.pop(name)
        if new in self.globals:  # the task runs here again, and assigns to it again
            self.role.ownership.drop_handle(self.globals[new].object)
        self.globals[new] = ref

    def give(self, script: Script, inside: list[str]) -> None:
        """The function returns: its locals go, the answer is sent."""
        assert isinstance(self.role, Executor)
        run, ownership = script.run, self.role.ownership
        assert run is not None
        refs = [script.variables[name] for name in inside if name in script.variables]
        for ref in refs:
            ownership.pin(ref.object)
            run.pinned.append(ref)
        for ref in script.variables.values():
            ownership.drop_handle(ref.object)
        self.script = None
        self.role.execution.finished(run, [inline(run.message.name.encode(), *refs)], 5, False)

    # -- what is left

    def stuck(self) -> str:
        """What waits here although nothing more will come."""
        role = self.role
        if self.script is not None:
            return f"its user code is at {self.script.ops[self.script.at]}"
        if role.submission.tasks:
            return f"its tasks {[task.name for task in role.submission.tasks.values()]}"
        if role.rebirth.orphans:
            return f"its claims, which lie with {[e.asked for e in role.rebirth.orphans.values()]}"
        if role.ownership.gates:
            return "an introduction"
        if isinstance(role, Executor) and role.execution.runs:
            return "tasks that lie here"
        return ""

    def tables(self) -> dict[str, int]:
        """Their sizes."""
        rebirth, lineage = self.role.rebirth, self.role.lineage
        sizes = self.role.counts() | {"claims": len(rebirth.orphans), "strays": len(lineage.strays)}
        if isinstance(self.role, Executor):
            sizes["runs"] = len(self.role.execution.runs)
        return {what: size for what, size in sizes.items() if size}


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
        if found:
            found += [("crash", name) for name in self.doomed()]
        return found

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
        source, target = link
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


def canonical_process(one: Process) -> Hashable:
    if one.crashed or not one.begun:
        return one.crashed, frozenset(one.ends)
    role, script = one.role, one.script
    rebirth, lineage, ownership = role.rebirth, role.lineage, role.ownership
    user = script and (
        script.at,
        script.run and (script.run.message.task, script.run.message.attempt),
        tuple((name, ref.object) for name, ref in script.variables.items()),
        script.getting and (script.getting.done, tuple(script.getting.pending)),
    )
    state: tuple[Any, ...] = (
        user,
        tuple((name, ref.object) for name, ref in one.globals.items()),
        tuple((key, canonical_entry(entry)) for key, entry in ownership.entries.items()),
        tuple((key, len(gates)) for key, gates in ownership.gates.items()),
        frozenset(ownership.lost),
        tuple(map(canonical_task, role.submission.tasks.values())),
        tuple(map(canonical_task, lineage.tasks.values())),
        tuple((home, tuple(tasks)) for home, tasks in lineage.homes.items()),
        tuple(rebirth.orphans),
        tuple(
            (key, origin.alive, origin.running, canonical_claims(origin.claims))
            for key, origin in rebirth.origins.items()
        ),
        tuple((gone, len(peers)) for gone, peers in ownership.askers.items()),
    )
    if isinstance(role, Executor):
        state += (tuple(map(canonical_run, role.execution.runs.values())),)
        state += (tuple(run.message.task for run in role.execution.ready),)
    return state


def canonical_claims(claims: dict[bytes, dict[Any, Claim]]) -> Hashable:
    return tuple(
        (name, tuple(map(canonical_claim, some.values()))) for name, some in claims.items()
    )


def canonical_claim(claim: Claim) -> Hashable:
    return claim.object, claim.holder.process, claim.dead, tuple(claim.path)


def canonical_entry(entry: Entry) -> Hashable:
    return (
        entry.object,
        entry.owner and entry.owner.process,
        (entry.handles, entry.pins, entry.lineage, entry.received),
        entry.value and canonical_value(entry.value),
        entry.waiters and tuple(type(waiter).__name__ for waiter in entry.waiters),
        tuple(watcher.process for watcher in entry.watchers or ()),
        tuple((entry.holders or {}).items()),
        tuple((entry.owed or {}).items()),
        entry.task.id if isinstance(entry.task, Task) else type(entry.task).__name__,
        entry.origin and entry.origin.task,
        entry.asked,
        tuple(entry.aliases or ()),
    )


def canonical_value(value: Value) -> Hashable:
    inside = tuple((inner.object, inner.owner.process) for inner in value.contains)
    return value.kind, value.data if value.kind != FAILED else b"", inside


def canonical_task(task: Task) -> Hashable:
    return (
        (task.id, task.state, task.attempt, task.used_retries, task.unready, task.live),
        task.lease and task.lease.worker.process,  # type: ignore[attr-defined]
        task.ran_at and task.ran_at.process,
        tuple(map(canonical_claim, (task.claims or {}).values())),
        frozenset(task.homes or ()),
        tuple(entry.object for entry in task.kept or ()),
    )


def canonical_run(run: Run) -> Hashable:
    return (
        (run.message.task, run.message.attempt, run.missing, run.begun, run.cancelled),
        run.origin is not None,
        tuple(map(canonical_claim, run.message.claims)),
        tuple(ref.object for ref in run.pinned),
    )


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


__all__ = ["Model", "ObjectId", "Program", "Tally", "TaskId", "explore_program"]
