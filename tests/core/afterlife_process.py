"""One process of the model in ``afterlife``: a real role, and user code that is a script.

Theory of operation. The driver is a real ``roles.Owner``, each worker a ``roles.Executor``. This
file plays their shell: it hands over what comes (``deliver``), runs user code as ``runtime.worker``
and ``runtime.process`` do (``go``), and puts what the role sends into the model's links. It does
not know the other processes, nor which step comes next: that is the model's.

A script (``OPS``) belongs to the driver and to each function. One step runs it up to the next
``get`` or ``pause``: messages come in there and not between other operations. The life of a run is
that of a real one: pushed, begun when its references are introduced, over with ``give``.

Only who runs a task is not left to ``leasing`` (``Straight``): a function has a list of workers,
and its tasks go to the first that their submitter does not know to be dead.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any, Protocol

from core.world import World, cpus, death, function_id, inline, job, node, process
from freehold.core.entries import Entry, Origin
from freehold.core.execution import Run
from freehold.core.fetching import Get
from freehold.core.submission import PUSHED, Function, Placing, Task
from freehold.ids import Names, RunNames, name_of, return_id
from freehold.roles.executor import Executor
from freehold.roles.owner import Owner
from freehold.wire.messages import FAILED, Address, Claim, Reference, Value

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


def needs(kind: str, *rest: Any) -> list[str]:
    """The variables that an operation uses."""
    match kind:
        case "get" | "drop" | "keep":
            return [rest[0]]
        case "put" | "call":
            return list(rest[-1])
        case _:
            return []


@dataclass
class Program:
    """What is explored. ``main``: the driver's script, its functions' in ``functions``; the
    parameters of one are a, b, ...; "F again" is what F does when it is not run for the first time,
    if that is something else. ``places``: by function, who runs it, the first that lives.
    ``mortal``: who crashes, in this order, each once or not at all; "VW|WV" for either order.
    ``since``: the first crash comes when the driver's script is there and no message is under way
    (any time will do if it is None). ``once``: functions that may not run twice. ``retries``: of
    the others; a death may cost two, as a claim can come before the submitter has heard of it and
    sends the task to the dead worker once more.
    """

    main: list[Op]
    functions: dict[str, list[Op]]
    places: dict[str, str]
    mortal: str
    since: int | None = None
    once: str = ""
    retries: int = 3
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


class Around(Protocol):
    """What a process knows of the model that it is in."""

    program: Program
    values: dict[bytes, bytes]  #: what each name stands for

    def post(self, source: Address, target: Address, message: Any) -> None:
        """Put a message on its link."""

    def tell(self, name: str, kind: str, facts: tuple[Any, ...]) -> bytes:
        """A process makes an error of the system's: its shipped form."""

    def sees(self, name: str, entry: Entry) -> None:
        """User code gets a value."""


class Links(World):
    """A world whose messages go into the links of a model."""

    def __init__(self, model: Around, address: Address) -> None:
        super().__init__(address)
        self.model = model

    def send(self, to: Address, message: Any) -> None:
        self.model.post(self.address, to, message)


class Errors:
    """System errors, noted by the model as told."""

    def __init__(self, model: Around, name: str) -> None:
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
        places = [process(name) for name in model.program.places[task.name]]
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

    def __init__(self, model: Around, name: str) -> None:
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
            assert type(message) in self.role.handlers, f"nobody expects {message!r}"
            self.role.handle(message, giver)

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
            if not set(needs(kind, *rest)) <= set(script.variables):
                pass  # the get that would have named one has failed: the rest goes on
            elif kind == "get":
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
        functions = self.model.program.functions
        ops = functions[message.name]
        if message.attempt:  # (a function that is not deterministic)
            ops = functions.get(message.name + " again", ops)
        which = blake2b(message.task + bytes([message.attempt]) + self.name.encode())
        self.script = Script(ops, RunNames(which.digest()[:8], message.task), run)
        for letter, ref in zip("abc", message.borrowed):
            self.take(self.script.variables, letter, ref)

    def origin(self, script: Script) -> Origin | None:
        """The run that makes what the script makes; None for the driver's."""
        if script.run is None:
            return None
        assert isinstance(self.role, Executor)
        return self.role.origin(script.run)

    def take(self, variables: dict[str, Reference], name: str, ref: Reference) -> None:
        """A variable gets a handle."""
        self.role.ownership.add_handle(ref)
        variables[name] = ref

    def put(self, script: Script, name: str, inside: list[str]) -> None:
        label = name.encode()
        value = inline(label, *(script.variables[inner] for inner in inside))
        object_id = script.names.next_put(label)
        self.model.values[name_of(object_id)] = label
        self.role.put(object_id, value, self.origin(script))
        script.variables[name] = self.role.ownership.reference(object_id)

    def call(self, script: Script, name: str, function: str, given: list[str]) -> None:
        program, label = self.model.program, function.encode()
        refs = [script.variables[inner] for inner in given]
        task_id = script.names.next_task(label, label, [ref.object for ref in refs])
        task = Task(
            task_id,
            Function(function_id(function), function, b""),
            b"",
            resources=cpus(1),
            borrowed=refs,
            max_retries=0 if function in program.once else program.retries,
            name=function,
            origin=self.origin(script),
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
        self.role.ownership.drop_handle(script.variables.pop(name).object)

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
        tuple((worker, tuple(home.tasks)) for worker, home in lineage.homes.items()),
        tuple(rebirth.orphans),
        tuple(rebirth.sponsors.items()),
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
