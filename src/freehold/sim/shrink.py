"""The smallest case that still breaks the same promise.

Pieces are taken away, large ones first, as long as the run still fails in the same way: drivers,
faults, whole bodies, operations, what operations carry, nodes, knobs, and at last moods: how long
faults last, how full stores are, how the network behaves. It is done when taking any one thing more
away mends the run (``minimal``), or after ``most`` runs. Everything else comes from the seed's
streams, one for each concern, so that taking a piece away leaves the rest of the run much as it
was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from freehold.sim.cluster import Outcome, run_case
from freehold.sim.generate import Case
from freehold.sim.ops import Call, Function, Get, Invoke, Make, Op, Program, Put, Wait

Run = Callable[[Case], Outcome]


#: Most runs of one shrinking: 1,500 take about five seconds.
MOST_RUNS: Final = 1_500
#: A store that nothing fills, as in profiles without pressure.
LARGE: Final = 1 << 22


def shrink(case: Case, promise: str, run: Run = run_case, most: int = MOST_RUNS) -> Case:
    """The smallest case found in ``most`` runs that breaks ``promise``."""
    left = most

    def fails(candidate: Case) -> bool:
        nonlocal left
        left -= 1
        return left >= 0 and run(candidate).promise == promise

    shrunk = True
    while shrunk and left > 0:
        shrunk = False
        for step in STEPS:
            better = first_smaller(case, step, fails)
            while better is not None and left > 0:
                case, shrunk = better, True
                better = first_smaller(case, step, fails)
    return case


def minimal(case: Case, promise: str, run: Run = run_case) -> bool:
    """Whether taking any one thing more away mends the run."""
    return all(
        first_smaller(case, step, lambda candidate: run(candidate).promise == promise) is None
        for step in STEPS
    )


def first_smaller(
    case: Case, step: Callable[[Case], Iterator[Case]], fails: Callable[[Case], bool]
) -> Case | None:
    """The first of a step's candidates that is smaller and still fails."""
    for candidate in step(case):
        if size(candidate) < size(case) and fails(candidate):
            return candidate
    return None


def size(case: Case) -> tuple[int, int, int, int, int]:
    """What is to become small: operations, faults, what they carry, machines, moods."""
    ops = [op for program in case.programs for body in program.functions for op in body.ops]
    carried = sum(weight(op) for op in ops)
    carried += sum(len(body.returns) for p in case.programs for body in p.functions)
    machines = sum(1 + node.cpus for node in case.nodes) + len(case.programs)
    moods = len(case.knobs) + ("steady", "tailed", "wild").index(case.style)
    moods += case.hasty + case.keeps + sum(home != 0 for home in case.homes)
    moods += sum(fault.length > 0 for fault in case.faults)
    moods += sum(node.store < LARGE for node in case.nodes)
    return len(ops), len(case.faults), carried, machines, moods


def sizes(case: Case) -> str:
    """How large a case is, for people."""
    ops, faults, _, _, _ = size(case)
    drivers = sum(bool(program.functions[0].ops) for program in case.programs)
    return f"{ops} operations of {drivers} drivers on {len(case.nodes)} nodes, {faults} faults"


def weight(op: Op) -> int:
    """How much an operation carries."""
    match op:
        case Put():
            return len(op.contains) + (op.size > 10)
        case Call():
            large = sum(size > 10 for size in op.sizes)
            plain = op.cpus == 1 and op.retries == 3 and not op.retry_exceptions
            return len(op.deps) + len(op.nested) + len(op.sizes) + large + (not plain)
        case Invoke():
            large = sum(size > 10 for size in op.sizes)
            plain = op.retries == 0 and not op.retry_exceptions
            return len(op.deps) + len(op.nested) + len(op.sizes) + large + (not plain)
        case Make():
            plain = op.limit == 1 and op.restarts == 0 and op.cpus == 0 and op.node < 0
            return len(op.deps) + len(op.nested) + (not plain)
        case Get() | Wait():
            return len(op.vars)
        case _:
            return 0


def plain(op: Call | Invoke | Make) -> Op:
    """The same without options."""
    match op:
        case Call():
            return replace(op, cpus=1.0, retries=3, retry_exceptions=False)
        case Invoke():
            return replace(op, retries=0, retry_exceptions=False)
        case Make():
            return replace(op, limit=1, restarts=0, cpus=0.0, node=-1)


def without_drivers(case: Case) -> Iterator[Case]:
    """One driver's program emptied: its number stays, so that the others keep theirs."""
    empty = Program((Function(()),))
    for number, program in enumerate(case.programs):
        if program != empty:
            programs = list(case.programs)
            programs[number] = empty
            yield replace(case, programs=tuple(programs))
    if len(case.programs) > 1 and case.programs[-1] == empty:
        yield replace(case, programs=case.programs[:-1], homes=case.homes[:-1])


def without_faults(case: Case) -> Iterator[Case]:
    """All faults gone, or one."""
    if case.faults:
        yield replace(case, faults=())
    for index in range(len(case.faults)):
        yield replace(case, faults=case.faults[:index] + case.faults[index + 1 :])


def without_ops(case: Case) -> Iterator[Case]:
    """Operations gone: a body's, then runs of 8, 4, 2 and 1."""
    for number, program in enumerate(case.programs):
        for place, body in enumerate(program.functions):
            if body.ops:
                yield with_body(case, number, place, Function(()))
    for length in (8, 4, 2, 1):
        for number, program in enumerate(case.programs):
            for place, body in enumerate(program.functions):
                for start in range(len(body.ops) - length, -1, -1):
                    ops = body.ops[:start] + body.ops[start + length :]
                    yield with_body(case, number, place, Function(ops, body.returns))


def with_body(case: Case, number: int, place: int, body: Function) -> Case:
    """One body of one program exchanged."""
    programs = list(case.programs)
    functions = list(programs[number].functions)
    functions[place] = body
    programs[number] = Program(tuple(functions))
    return replace(case, programs=tuple(programs))


def lighter(case: Case) -> Iterator[Case]:
    """Operations that carry less."""
    for number, program in enumerate(case.programs):
        for place, body in enumerate(program.functions):
            for index in range(len(body.returns)):
                returns = body.returns[:index] + body.returns[index + 1 :]
                yield with_body(case, number, place, Function(body.ops, returns))
            for index, op in enumerate(body.ops):
                for new in lighter_op(op):
                    ops = body.ops[:index] + (new,) + body.ops[index + 1 :]
                    yield with_body(case, number, place, Function(ops, body.returns))


def lighter_op(op: Op) -> Iterator[Op]:
    """Ways of making one operation carry less."""
    match op:
        case Put():
            yield replace(op, size=10)
            for index in range(len(op.contains)):
                yield replace(op, contains=op.contains[:index] + op.contains[index + 1 :])
        case Call() | Invoke() | Make():
            if not isinstance(op, Make):
                if len(op.sizes) > 1:
                    yield replace(op, sizes=op.sizes[:-1])
                for index in range(len(op.sizes)):
                    yield replace(op, sizes=op.sizes[:index] + (10,) + op.sizes[index + 1 :])
            yield plain(op)
            for index in range(len(op.deps)):
                yield replace(op, deps=op.deps[:index] + op.deps[index + 1 :])
            for index in range(len(op.nested)):
                yield replace(op, nested=op.nested[:index] + op.nested[index + 1 :])
        case Get() | Wait():
            for index in range(len(op.vars)):
                if len(op.vars) > 1:
                    yield replace(op, vars=op.vars[:index] + op.vars[index + 1 :])
        case _:
            return


def simpler(case: Case) -> Iterator[Case]:
    """Fewer machines, constants as they are in the code, a calmer network."""
    if len(case.nodes) > 1:
        for index in range(len(case.nodes) - 1, -1, -1):
            yield replace(case, nodes=case.nodes[:index] + case.nodes[index + 1 :])
    for index, node in enumerate(case.nodes):
        if node.cpus > 1:
            smaller = replace(node, cpus=node.cpus - 1)
            yield replace(case, nodes=case.nodes[:index] + (smaller,) + case.nodes[index + 1 :])
    if case.knobs:
        yield replace(case, knobs=())
    for index in range(len(case.knobs)):
        yield replace(case, knobs=case.knobs[:index] + case.knobs[index + 1 :])
    yield replace(case, hasty=False)
    yield replace(case, keeps=False)
    for index in range(len(case.homes)):
        yield replace(case, homes=case.homes[:index] + (0,) + case.homes[index + 1 :])
    for index, fault in enumerate(case.faults):
        brief = (replace(fault, length=0.0),)
        yield replace(case, faults=case.faults[:index] + brief + case.faults[index + 1 :])
    for index, node in enumerate(case.nodes):
        large = (replace(node, store=LARGE),)
        yield replace(case, nodes=case.nodes[:index] + large + case.nodes[index + 1 :])
    if case.style != "steady":
        yield replace(case, style="steady")
        yield replace(case, style="tailed")


STEPS: Final = (without_drivers, without_faults, without_ops, lighter, simpler)
